"""What is measured while a run goes on; a linear classifier trained beside the method."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcl.data import Section
from jaxcl.encoders.mlp import INITS, torch_bias
from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.training.optim import Optim
from jaxcl.typing import Array, Float, Int, Key, Metrics, PyTree

if TYPE_CHECKING:
    from jaxcl.training.state import State

Judge = Callable[["State"], dict[str, float]]
"""Scores of a state, by name."""


class Watched(NamedTuple):
    """What a run has to measure on."""

    data: Section
    """Of the experiment."""
    method: Any
    """Of the experiment."""
    train: Any
    """The training split."""
    embedder: Embedder
    """Runs the encoder on batches of `data`."""
    classifier: Embedder | None = None
    """Runs the method's own classifier, where it has one."""


@dataclass(frozen=True)
class Watch:
    """What is measured while a run goes on; never changes the encoder."""

    best: ClassVar[str] = ""
    """The score by which one checkpoint is better than another; larger is better."""

    every: int = 1
    """Epochs between evaluations; 0: none."""
    every_steps: int = 0
    """Steps between evaluations, and checkpoints if train.save_every is 0; 0: by epochs."""

    @property
    def online(self) -> "Probe | None":
        """The linear classifier to train beside the method."""
        return None

    def judge(self, watched: Watched) -> Judge:
        """What gives the scores; called before anything compiles.

        Raises:
          UserError: there is nothing to measure with.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Probe(Watch):
    """kNN and a linear classifier, where there are labels, and geometry."""

    best: ClassVar[str] = "knn"

    linear: bool = True
    """Train a linear classifier beside the method."""
    lr: float = 1e-2
    """Peak learning rate of that classifier, whatever the batch size."""
    optimiser: Literal["adam", "run"] = "adam"
    """How that classifier is trained: adam, at a constant rate from zero weights; or run, by the
    run's own optimiser and schedule without weight decay, from torch's initial weights, as
    solo-learn does it."""
    neighbours: int = 200
    """k of the weighted kNN."""
    temperature: float = 0.1
    """Scale of the kNN's votes."""
    bank: int = 50_000
    """At most so many training images are the neighbours, spread evenly over the set."""
    queries: int = 10_000
    """At most so many test images are classified."""

    @property
    def online(self) -> "Probe | None":
        return self if self.linear else None

    def judge(self, watched: Watched) -> Judge:
        from jaxcl.training.judge import Neighbours  # which knows this class

        return Neighbours(self, watched)


@dataclass(frozen=True)
class ClassifierAccuracy(Watch):
    """Top-1 and top-5 accuracy of the method's own classifier on the test images.

    For methods that train a classifier on features that stay, where kNN would always say the same.
    """

    best: ClassVar[str] = "classifier"

    def judge(self, watched: Watched) -> Judge:
        if watched.classifier is None:
            name = type(watched.method).__name__
            raise UserError(f"{name} trains no classifier; give the experiment probe=Probe()")
        classifier, test = watched.classifier, watched.data.split("test")
        return lambda state: classifier.accuracies(state, watched.data.passes(test, watched.method))


class LinearProbe(NamedTuple):
    """Weights and optimiser state."""

    params: dict[str, Array]
    optim: PyTree


PROBE_METRICS = ("probe_loss", "probe_accuracy")
"""What `train_probe` measures, in percent the second."""


def init_probe(
    config: Probe, transform: optax.GradientTransformation, width: int, classes: int, key: Key
) -> LinearProbe:
    """A classifier of features [n, width] before its first step."""
    init, bias_init = INITS["zeros"], INITS["zeros"]
    if config.optimiser == "run":
        init, bias_init = INITS["torch"], torch_bias(width)
    key, bias_key = jax.random.split(key)
    params = {
        "kernel": init(key, (width, classes), jnp.float32),
        "bias": bias_init(bias_key, (classes,), jnp.float32),
    }
    return LinearProbe(params, transform.init(params))


def probe_transform(
    config: Probe, run: Optim, batch_size: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optax transformation that trains the classifier beside a run with such an optimiser."""
    if config.optimiser == "adam":
        return optax.adam(config.lr)
    if config.lr <= 0:
        raise UserError(f"probe.lr={config.lr:g} trains nothing; use more than 0, or linear=False")
    share = run.peak(batch_size) / config.lr  # both warm up from, and end at, the same rates
    own = replace(
        run.without_decay(), lr=config.lr, scaling="none", steady=(),
        warmup_from=share * run.warmup_from, final=share * run.final,
    )  # fmt: skip
    schedule = own.schedule(batch_size, steps_per_epoch)
    return own.transform(schedule, own.epochs * steps_per_epoch)


def probe_logits(probe: LinearProbe, features: Float[Array, "n d"]) -> Float[Array, "n c"]:
    """Class scores."""
    kernel, bias = probe.params["kernel"], probe.params["bias"]
    return jnp.matmul(features, kernel, precision="highest") + bias


def train_probe(
    transform: optax.GradientTransformation,
    probe: LinearProbe,
    features: Float[Array, "n v d"],
    labels: Int[Array, "n"],
) -> tuple[LinearProbe, Metrics]:
    """One step on all views; rows with label -1 count nothing."""
    n, v, d = features.shape
    rows = jax.lax.stop_gradient(features).reshape(n * v, d)
    targets = jnp.repeat(labels, v)
    known = (targets >= 0).astype(jnp.float32)
    share = known / jnp.maximum(jnp.sum(known), 1.0)

    def loss(params: dict[str, Array]) -> tuple[Array, Array]:
        logits = probe_logits(LinearProbe(params, ()), rows)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
        hits = jnp.argmax(logits, axis=1) == targets
        return jnp.sum(share * nll), jnp.sum(share * hits)

    (value, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(probe.params)
    updates, optim = transform.update(grads, probe.optim, probe.params)
    params = optax.apply_updates(probe.params, updates)
    metrics = dict(zip(PROBE_METRICS, (value, 100 * accuracy), strict=True))
    return LinearProbe(params, optim), metrics
