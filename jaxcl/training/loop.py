"""The training loop: the same for every method, on one device or many.

    restore -> for each epoch: on_epoch -> compiled steps -> log lines -> checkpoint -> evaluation

A checkpoint is written before the evaluation, which a run that was stopped in between makes up for.
Calls of the compiled step start at places that depend on the step number alone, so that a run
that was stopped goes on through the very same programs.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcl.data import Feed
from jaxcl.data.examples import class_sizes
from jaxcl.data.order import epoch_order
from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.experiment import Experiment, check, flatten, shared_fields, to_json
from jaxcl.methods import Batch, Represent
from jaxcl.places import settled
from jaxcl.records import Unwritable, writing
from jaxcl.run import save_shapes
from jaxcl.scale import data_mesh, process_group, replicated
from jaxcl.training.beginning import begun
from jaxcl.training.checkpoints import UNJUDGED, Checkpoints, not_finite
from jaxcl.training.directory import check_data, check_free, claim, versions
from jaxcl.training.logs import Display, Log, read_metrics
from jaxcl.training.monitors import COLLAPSED
from jaxcl.training.ownership import owning
from jaxcl.training.probe import Judge, Watched
from jaxcl.training.signals import Stop, stop_signals
from jaxcl.training.state import State
from jaxcl.training.step import Trainer
from jaxcl.typing import PyTree

AHEAD = 2
"""Compiled calls that may wait on the device while the host prepares the next."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `fit` ended."""

    run: Path
    state: State
    finished: bool
    """False where a signal stopped it first."""


def fit(experiment: Experiment, run: str | Path | None = None) -> Outcome:
    """Trains an experiment to its end, from the newest checkpoint of the run directory if any.

    Ctrl-C or SIGTERM stops after the step in progress and saves; calling again goes on from there,
    with the same numbers as if it had not been stopped.

    Args:
      experiment: what to train.
      run: run directory; `experiment.train.dir` if None.

    Raises:
      UserError: the experiment cannot run, the directory holds another one, is in use or cannot be
        written to, or numbers are not finite.
    """
    run = Path(run or experiment.train.dir or "runs/run")
    experiment = settled(experiment)
    check(experiment)
    with owning(run) as still_owned:
        check_free(run, experiment)
        mesh = data_mesh(experiment.train.devices)
        with jax.set_mesh(mesh):
            return _Run(experiment, run, mesh, still_owned).go()


@contextmanager
def _closing(*closers: Callable[[], None]) -> Iterator[None]:
    """Calls these at the end; after an error, what they meet does not take its place."""
    try:
        yield
    except BaseException:
        for close in closers:
            with suppress(Exception):
                close()
        raise
    for close in closers:
        close()


class _Run:
    """One call of `fit`: what its parts share."""

    def __init__(
        self, experiment: Experiment, run: Path, mesh: Mesh, still_owned: Callable[[], None]
    ) -> None:
        self.experiment, self.run, self.mesh = experiment, run, mesh
        self.still_owned, self.begun = still_owned, False
        self.main = jax.process_index() == 0
        self.unit = experiment.data.unit
        self.examples = experiment.data.split("train")
        self.data = self.examples.fingerprint()
        check_data(run, self.examples.title, self.data, may_change=experiment.train.changed_data)
        if group := process_group():
            group.agree({**shared_fields(experiment), **versions(), "data": self.data})
        experiment.method.check_labels(
            self.examples.title, len(self.examples.classes),
            any_known=bool((self.examples.labels >= 0).any()),
        )  # fmt: skip
        self.feed: Feed = experiment.data.open(
            self.examples, experiment.method, seed=experiment.train.seed, mesh=mesh
        )
        self.per_epoch = self.feed.steps_per_epoch
        self.total = experiment.optim.epochs * self.per_epoch
        self.trainer = Trainer(
            experiment.method, experiment.optim, experiment.probe, experiment.data.batch_size,
            self.per_epoch, len(self.examples.classes), len(self.examples),
        )  # fmt: skip
        self.schedule = self.trainer.schedule
        self.compiled: dict[Any, Any] = {}
        self.embedders: dict[Represent, Embedder] = {}
        self.judge: Judge | None = None
        if experiment.probe.every or experiment.probe.every_steps:
            self.judge = experiment.probe.judge(Watched(
                experiment.data, experiment.method, self.examples,
                Embedder(self.trainer.represent, mesh=mesh),
                Embedder(self.trainer.classify, mesh=mesh) if self.trainer.classifies else None,
            ))  # fmt: skip
        train = experiment.train
        self.log = Log(
            run, tensorboard=train.tensorboard, wandb=train.wandb, main=self.main,
            config=flatten(to_json(experiment)),
        )  # fmt: skip

    def go(self) -> Outcome:
        experiment, notes = self.experiment, list[str]()
        self.checkpoints = Checkpoints(
            self.run, keep=experiment.train.keep, tell=notes.append, train=True
        )
        with _closing(self.checkpoints.close, self.feed.close):
            if not self.checkpoints.steps:
                experiment.method.check_start()
            first = self.feed.inputs(0, 1)
            self.batch = jax.eval_shape(self._batch, self.feed.constants, first)
            everywhere = replicated(self.mesh)
            init = jax.jit(self._init, out_shardings=everywhere)
            abstract = jax.eval_shape(init, self.feed.constants, first)
            shaped = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), abstract
            )
            state = self.checkpoints.restore(shaped)
            if state is None:
                state = begun(init(self.feed.constants, first), experiment)
                if group := process_group():
                    group.agree({"first weights": _digest((state.params, state.memory))})
                state = jax.device_put(state, everywhere)
            step = int(state.step)
            self.display = Display(self.total, step, self.main)
            for note in notes:
                self.display.tell(note)
            with _closing(self.display.close, self.log.close):
                if step < self.total:
                    self._describe(state, step)
                try:
                    with stop_signals() as stop:
                        state = self._train(state, step, stop)
                except Unwritable as error:
                    raise UserError(f"{error}; {self.checkpoints.last_good}") from error
            return Outcome(self.run, state, int(state.step) >= self.total)

    def _begin(self, step: int) -> None:
        """Makes the directory this run's, once its first step or evaluation can be made."""
        if self.begun:
            return
        self.begun = True
        self.still_owned()
        if self.main:
            claim(self.run, self.experiment, self.data)
            save_shapes(
                self.run, batch=self.batch, classes=self.examples.classes,
                steps_per_epoch=self.per_epoch, examples=len(self.examples),
            )  # fmt: skip
            with writing(self.run):
                self.experiment.data.keep(self.run)
        self.log.open(step, self.display.tell)

    def _train(self, state: State, step: int, stop: Stop) -> State:
        waiting: deque[Any] = deque()
        clock, first = time.monotonic(), step
        since = saved = first
        notice, score = None, UNJUDGED
        if self._evaluation_missing(step):
            self._begin(step)
            self._evaluate(state, step, saved=True)
        while step < self.total and not stop.asked():
            if step % self.per_epoch == 0:
                ready = self._on_epoch(state, step)
                if stop.asked():  # done again when the run goes on
                    break
                state = ready
            if step == first:
                self._begin(step)
            border = self._border(step)
            while step < border:
                count = self.per_call if step + self.per_call <= border else 1
                inputs = self.feed.inputs(step, count)
                state, done = self._compiled(state, inputs, count)(
                    state, self.feed.constants, inputs
                )
                step += count
                waiting.append(done)
                if len(waiting) > AHEAD:
                    jax.block_until_ready(waiting.popleft())
                if stop.asked():
                    break
            if self._due(step, self.experiment.train.log_every):
                state = self._log(state, step, clock, since)
                clock, since = time.monotonic(), step
                told = self.feed.report()["notice"]
                if told and told != notice:
                    self.display.tell(str(told))
                    notice = told
            score = UNJUDGED
            if self._due(step, self.save_every):
                self._save(state, step, score)
                saved = step
            if self._evaluation_due(step):
                paused = time.monotonic()
                score = self._evaluate(state, step, saved=saved == step)
                clock += time.monotonic() - paused
        if saved != step:
            self._save(state, step, score)
        self.checkpoints.wait()
        self.still_owned()
        if step < self.total:
            saved_at = f"after step {step:,} of {self.total:,} and saved; the same command goes on"
            where = f"{saved_at} from here" if step else "before the first step"
            self.display.tell(f"stopped {where}")
        return state

    @cached_property
    def per_call(self) -> int:
        """Steps in one compiled call: gradients of convolutions crawl inside a loop on CPU."""
        asked = self.experiment.train.steps_per_call
        if self.feed.road == "streamed":
            return 1
        return asked or (1 if jax.default_backend() == "cpu" else 25)

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        train, probe = self.experiment.train, self.experiment.probe
        return train.save_every or probe.every_steps or self.per_epoch

    def _border(self, step: int) -> int:
        """The next step after which something is due."""
        periods = (
            self.experiment.train.log_every,
            self.save_every,
            self.per_epoch,
            self.experiment.probe.every_steps or self.per_epoch,
        )
        return min(self.total, *((step // period + 1) * period for period in periods))

    def _due(self, step: int, period: int) -> bool:
        return step % period == 0 or step == self.total

    def _evaluation_due(self, step: int) -> bool:
        probe = self.experiment.probe
        if probe.every_steps:
            return self._due(step, probe.every_steps)
        return bool(probe.every) and self._due(step, probe.every * self.per_epoch)

    def _init(self, constants: PyTree, inputs: PyTree) -> State:
        return self.trainer.init(self.experiment.train.seed, self._batch(constants, inputs))

    def _batch(self, constants: PyTree, inputs: PyTree) -> dict[str, Any]:
        return self.feed.batch(constants, jax.tree.map(lambda x: x[0], inputs))

    def _compiled(self, state: State, inputs: PyTree, count: int) -> Any:
        """The program of `count` steps on such inputs, compiled when it is first wanted."""
        wanted = (count, *(leaf.shape for leaf in jax.tree.leaves(inputs)))
        if wanted not in self.compiled:

            def run(state: State, constants: PyTree, inputs: PyTree) -> tuple[State, Any]:
                def one(state: State, single: PyTree) -> tuple[State, None]:
                    return self.trainer.step(state, self.feed.batch(constants, single)), None

                if count == 1:
                    state, _ = one(state, jax.tree.map(lambda x: x[0], inputs))
                else:
                    state, _ = jax.lax.scan(one, state, inputs)
                return state, state.step + 0  # something to wait for that is not donated

            everywhere = replicated(self.mesh)
            jitted = jax.jit(run, donate_argnums=0, out_shardings=(everywhere, everywhere))
            self.compiled[wanted] = jitted.lower(state, self.feed.constants, inputs).compile()
        return self.compiled[wanted]

    def _log(self, state: State, step: int, clock: float, since: int) -> State:
        """Writes the means since the last line; the sums start again from zero."""
        self.still_owned()
        if int(state.bad_step) >= 0:
            self._not_finite("the loss", int(state.bad_step))
        totals = {name: float(total) for name, total in jax.device_get(state.totals).items()}
        count = max(totals.pop("count"), 1.0)
        seconds = time.monotonic() - clock
        row = {"epoch": step / self.per_epoch}
        row |= {name: total / count for name, total in totals.items()}
        row["lr"] = float(self.schedule(step - 1))
        rows = (step - since) * self.experiment.data.batch_size
        row[f"{self.unit}_per_s"] = rows / max(seconds, 1e-9)
        self.log.write("train", step, row)
        self.display.show(step, row)
        if row.get("embedding_std", 1.0) < COLLAPSED:
            self.display.tell(
                f"collapse: at step {step:,} the embeddings of different {self.unit} are nearly "
                f"the same (spread {row['embedding_std']:.2g} of an even one)"
            )
        zeros = jax.tree.map(lambda total: np.zeros_like(total), state.totals)
        return state._replace(totals=jax.device_put(zeros, replicated(self.mesh)))

    def _not_finite(self, name: str, step: int) -> None:
        self.checkpoints.wait()
        kept = self.checkpoints.steps
        last = f"the last good checkpoint, step {kept[-1]}, is kept" if kept else "none was saved"
        raise UserError(
            f"{name} is not finite at step {step}; {last} in {self.run}; "
            f"try a smaller optim.lr or a longer optim.warmup_epochs, in another --dir"
        )

    def _on_epoch(self, state: State, step: int) -> State:
        """The method's own work between epochs: most have none."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), self.total + step)

        memory = self.experiment.method.on_epoch(partial(self._embed, state), state.memory, key)
        return state._replace(memory=jax.device_put(memory, replicated(self.mesh)))

    def _embed(self, state: State, represent: Represent) -> tuple[Any, Any]:
        """What a function of the method makes of the whole training set."""
        if represent not in self.embedders:

            def run(state: State, batch: Batch) -> dict[str, Any]:
                return represent(state.params, state.memory, batch)

            self.embedders[represent] = Embedder(run, mesh=self.mesh)
        # Shuffled, so that a batch's statistics, where they are used, are like those of training.
        order = epoch_order(self.experiment.train.seed, 0, len(self.examples))
        passes = self.experiment.data.passes(self.examples, self.experiment.method, order)
        features, labels = self.embedders[represent].split(state, passes)
        places = np.argsort(order)
        return features[places], labels[places]

    def _evaluation_missing(self, step: int) -> bool:
        """Whether the run was stopped after this step was saved and before it was evaluated."""
        if not step or not self._evaluation_due(step):
            return False
        rows = read_metrics(self.run, lambda _: None)  # told when they are opened
        return not any(row["kind"] == "eval" and row["step"] == step for row in rows)

    def _evaluate(self, state: State, step: int, *, saved: bool) -> float:
        """Writes how good the features are now; returns what "best" means."""
        assert self.judge is not None
        try:
            row = {"epoch": step / self.per_epoch} | self.judge(state)
        except Exception as error:
            if process_group():  # the others are in the middle of it, and saving takes all
                raise
            if not saved:
                self._save(state, step, UNJUDGED)
            self.checkpoints.wait()
            if not isinstance(error, UserError):
                raise
            raise UserError(
                f"{error}; the evaluation failed, and step {step} is saved: mend that, or go on "
                "without evaluations by --probe.every 0 --probe.every-steps 0"
            ) from error
        score = row.get(self.experiment.probe.best, UNJUDGED)
        score = score if math.isfinite(score) else UNJUDGED
        if saved:  # before the row, by which a run that goes on knows that nothing is missing
            self.checkpoints.judge(step, score)
        self.log.write("eval", step, row)
        self.display.show(step, row)
        return score

    def _save(self, state: State, step: int, score: float) -> None:
        self.still_owned()
        if int(state.bad_step) >= 0:
            self._not_finite("the loss", int(state.bad_step))
        name = not_finite(state)
        if name is not None:
            self._not_finite(name, step - 1)
        self.checkpoints.save(state, score=score)

    def _describe(self, state: State, step: int) -> None:
        """One block that says what is about to run."""
        experiment, data = self.experiment, self.experiment.data
        first = self.feed.inputs(step, self.per_call)
        memory = self._compiled(state, first, self.per_call).memory_analysis()
        device = self.mesh.devices.flat[0]
        per_device = data.batch_size // self.mesh.size
        peak = experiment.optim.peak(data.batch_size)
        rule = {"linear": f" x {data.batch_size} / 256", "sqrt": f" x sqrt({data.batch_size})"}
        scaled = f"{experiment.optim.lr:g}{rule.get(experiment.optim.scaling, '')} = {peak:.4g}"
        lines = {
            "run": str(self.run),
            "method": type(experiment.method).__name__,
            "data": f"{self.examples.title}: {len(self.examples):,} {self.unit}, "
            f"{class_sizes(self.examples.labels)}, {self.feed.road}",
            **self.examples.about,
            "devices": f"{self.mesh.size} x {device.device_kind}{_processes()}",
            "global batch": f"{data.batch_size} {self.unit}, {per_device} per device",
            **experiment.method.facts(data.batch_size),
            "steps": f"{self.total:,} = {experiment.optim.epochs} epochs x {self.per_epoch:,}",
            "parameters": ", ".join(
                f"{name} {_count(tree) / 1e6:.3g} M" for name, tree in state.params.items()
            ),
            "learning rate": f"{scaled} after {experiment.optim.warmup_epochs:g} epochs of warm-up",
            "step memory": f"{_megabytes(memory.temp_size_in_bytes)} of work space, "
            f"{_megabytes(memory.argument_size_in_bytes)} of state and data, per device",
        }
        if step:
            lines["resumed"] = f"after step {step:,}"
        width = max(map(len, lines))
        for name, value in lines.items():
            self.display.tell(f"{name:<{width}}  {value}")


def _digest(tree: PyTree) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def _processes() -> str:
    group = process_group()
    return f", of {group.size} processes" if group else ""


def _count(tree: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _megabytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
