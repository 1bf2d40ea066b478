"""The first state of a run, and the function that turns a state and a batch into the next."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxcl.errors import UserError
from jaxcl.methods import Aux, Batch, Kept, Method, Phase, Progress
from jaxcl.methods.slow import follow
from jaxcl.training.freezing import hold_moments, hold_parts
from jaxcl.training.monitors import monitors
from jaxcl.training.optim import Optim
from jaxcl.training.probe import (
    PROBE_METRICS,
    LinearProbe,
    Probe,
    Watch,
    init_probe,
    probe_transform,
    train_probe,
)
from jaxcl.training.state import State
from jaxcl.typing import Array, Float, Int, Key, Metrics, PyTree


@dataclass(frozen=True)
class Trainer:
    """A method with its optimiser and probe, as two pure functions: `init` and `step`."""

    method: Method
    optim: Optim
    probe: Watch
    batch_size: int
    steps_per_epoch: int
    classes: int
    """Classes of the labels; 0 where there are none."""
    examples: int = 0
    """Images of the training set."""

    def progress(self, step: Int[Array, ""] | int) -> Progress:
        """Where the run stands after so many steps."""
        return Progress(step, self.optim.epochs * self.steps_per_epoch, self.steps_per_epoch)

    @property
    def schedule(self) -> optax.Schedule:
        """Learning rate at each step."""
        return self.optim.schedule(self.batch_size, self.steps_per_epoch)

    def init(self, seed: int, batch: Batch) -> State:
        """State before the first step, for batches like this one."""
        root = jax.random.key(seed)
        init_key, views_key, run_key = jax.random.split(root, 3)
        views = self.method.views(views_key, batch)
        params, memory = self.method.init(init_key, views)
        for field in ("steady", "plain"):
            if unknown := set(getattr(self.optim, field, ())) - set(params):
                raise UserError(
                    f"optim.{field} names {', '.join(sorted(unknown))}, and the parameters' parts "
                    f"are {', '.join(sorted(params))}"
                )
        bank_key = jax.random.fold_in(init_key, 1)
        memory = self.method.per_example(bank_key, memory, self.examples)
        transform = self._transform()
        state = State(
            step=jnp.zeros([], jnp.int32),
            key=jax.random.key_data(run_key),
            params=params,
            memory=memory,
            optim={p.name: transform.init(_part(params, p)) for p in self.method.phases},
            average=params if self.optim.average else (),
            probe=(),
            totals={},
            bad_step=jnp.full([], -1, jnp.int32),
        )
        aux, metrics = jax.eval_shape(self._step, state, batch)[1:]
        config = self.probe.online
        if config is not None and self.classes > 1 and aux.features is not None:
            probe_key, width = jax.random.fold_in(init_key, 2), aux.features.shape[2]
            probe = init_probe(
                config, self._probe_transform(config), width, self.classes, probe_key
            )
            state, metrics = state._replace(probe=probe), {*metrics, *PROBE_METRICS}
        totals = {name: jnp.zeros([], jnp.float32) for name in sorted((*metrics, "count"))}
        return state._replace(totals=totals)

    def step(self, state: State, batch: Batch) -> State:
        """State after one batch; its metrics are added to `totals`."""
        new, _, metrics = self._step(state, batch)
        totals = {n: state.totals[n] + jnp.asarray(x, jnp.float32) for n, x in metrics.items()}
        totals["count"] = state.totals["count"] + 1
        bad = (state.bad_step < 0) & ~jnp.isfinite(metrics["loss"])
        bad_step = jnp.where(bad, state.step, state.bad_step)
        return new._replace(totals=totals, bad_step=bad_step)

    def _step(self, state: State, batch: Batch) -> tuple[State, Aux, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        views_key, loss_key = jax.random.split(key)
        views = self.method.views(views_key, batch)
        state, aux, metrics = self._update(state, views, loss_key)
        memory = self.method.after_step(state.params, aux.memory, self.progress(state.step))
        state = state._replace(memory=memory, step=state.step + 1)
        metrics |= aux.metrics | monitors(aux)
        if self.optim.average:
            average = follow(state.average, state.params, self.optim.average)
            state = state._replace(average=average)
        config, probe = self.probe.online, state.probe
        if config is not None and isinstance(probe, LinearProbe) and aux.features is not None:
            transform = self._probe_transform(config)
            probe, seen = train_probe(transform, probe, aux.features, batch["label"])
            state, metrics = state._replace(probe=probe), metrics | seen
        return state, aux, metrics

    def _update(self, state: State, views: PyTree, key: Key) -> tuple[State, Aux, Metrics]:
        """Every phase's updates; the aux of the last one."""
        transform, progress = self._transform(), self.progress(state.step)
        still = self.method.frozen(progress)
        params, memory, optim, metrics = state.params, state.memory, dict(state.optim), {}
        phases = self.method.phases
        for number, phase in enumerate(p for p in phases for _ in range(p.repeat)):
            phase_key = jax.random.fold_in(key, number)

            def value(
                trained: PyTree, params: PyTree = params, memory: PyTree = memory,
                phase: Phase = phase, key: Key = phase_key,
            ) -> tuple[Float[Array, ""], Aux]:  # fmt: skip
                return phase.loss({**params, **trained}, memory, views, key, progress)

            trained = _part(params, phase)
            (loss, aux), grads = jax.value_and_grad(value, has_aux=True)(trained)
            updates, moments = transform.update(grads, optim[phase.name], trained)
            optim[phase.name] = hold_moments(optim[phase.name], moments, still)
            moved = self.method.constrain({**params, **optax.apply_updates(trained, updates)})
            params = hold_parts(params, moved, still)
            memory = aux.memory
            metrics["loss" if len(phases) == 1 else f"loss_{phase.name}"] = loss
            metrics["gradient_norm"] = optax.tree.norm(grads)
        if len(phases) > 1:
            losses = (metrics[f"loss_{p.name}"] for p in phases)
            metrics["loss"] = sum(losses, jnp.zeros([], jnp.float32))
        return state._replace(params=params, optim=optim), aux, metrics

    def _transform(self) -> optax.GradientTransformation:
        start = self.progress(0)
        return self.optim.transform(self.schedule, start.total, tuple(self.method.frozen(start)))

    def _probe_transform(self, config: Probe) -> optax.GradientTransformation:
        return probe_transform(config, self.optim, self.batch_size, self.steps_per_epoch)

    def represent(self, state: State, batch: Batch) -> dict[str, Array]:
        """What evaluation sees: the method's outputs for plain images, averaged weights if kept."""
        return self.method.represent(self.evaluated(state), state.memory, batch)

    @property
    def classifies(self) -> bool:
        """Whether the method says what `classify` gives."""
        return type(self.method).classify is not Method.classify

    def classify(self, state: State, batch: Batch) -> dict[str, Array]:
        """The method's scores of the classes for plain images as "logits"; nothing without any."""
        logits = self.method.classify(self.evaluated(state), state.memory, batch)
        return {} if logits is None else {"logits": logits}

    def kept(self, state: State) -> Kept:
        """The encoder with the weights that `represent` applies."""
        return self.method.kept(self.evaluated(state), state.memory)

    def trained(self, state: State) -> Kept:
        """The encoder that gradients train, averaged weights if kept."""
        return self.method.trained(self.evaluated(state), state.memory)

    def evaluated(self, state: State) -> PyTree:
        """The parameters that evaluation sees: averaged over the run where it keeps an average."""
        return state.average if self.optim.average else state.params


def _part(params: PyTree, phase: Phase) -> PyTree:
    return params if phase.groups is None else {name: params[name] for name in phase.groups}
