"""What a method is: a frozen dataclass of hyper-parameters with pure functions on it.

The loop calls these hooks and never asks which method it runs:

    init -> per_example -> start -> at epoch starts: on_epoch
                     for each batch: views -> for each phase: loss, constrain -> after_step

Everything but `start` and `on_epoch` is traced once; shapes never change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, simclr
from jaxcl.encoders import forward
from jaxcl.errors import UserError
from jaxcl.methods.progress import Progress
from jaxcl.typing import Array, Bool, Float, Int, Key, Metrics, PyTree

Batch = Mapping[str, Any]
"""Named fields of a batch: "image" uint8 [n, h, w, c] or "crops", one uint8 [n, s, s, c] per view;
"label" int32 [n], -1 for none; "index" int32 [n], the example's place in the data set."""

Represent = Callable[[PyTree, PyTree, Batch], dict[str, Array]]
"""(params, memory, batch of plain images) -> {"features": [n, d], ...}, as `Method.represent`."""

Embed = Callable[[Represent], tuple[Float[Array, "n d"], Int[Array, "n"]]]
"""Runs such a function over the whole training set, in shuffled batches: features and labels, row
i those of the example whose "index" is i. An unreadable image is black, without label."""


class Aux(NamedTuple):
    """What a loss returns beside its value."""

    memory: PyTree
    """Same structure as the memory it was given."""
    metrics: Metrics
    """Scalars worth logging; accuracies in percent."""
    features: Float[Array, "n v d"] | None = None
    """Encoder features of v views of each example, for the online probe; no gradient flows back."""
    embeddings: Float[Array, "n v k"] | None = None
    """What the loss compares, for the monitors of alignment, uniformity and collapse."""


class Kept(NamedTuple):
    """The network that is kept after training, with its weights."""

    encoder: nn.Module
    params: PyTree
    stats: PyTree


class Statistics(NamedTuple):
    """The memory of methods that carry nothing but the statistics of batch norm."""

    stats: dict[str, PyTree]
    """Of every network, by name."""


Loss = Callable[[PyTree, PyTree, PyTree, Key, Progress], tuple[Float[Array, ""], Aux]]


@dataclass(frozen=True)
class Phase:
    """One optimiser and what it trains; phases follow one another within a step."""

    name: str
    loss: Loss
    groups: tuple[str, ...] | None = None
    """Top-level names in `params` that it trains; None: all."""
    repeat: int = 1
    """Updates per step."""


@dataclass(frozen=True)
class Method:
    """Base of all methods; most define `init` and `loss`."""

    needs_labels: ClassVar[bool] = False
    """Whether it learns nothing where no example has a label."""

    augment: Recipe = simclr(224)
    """How views are made of an image."""
    chunks: int = 1
    """Encode the batch in this many parts to save memory; the loss still sees all rows at once.
    Batch-norm groups must be a multiple of it, since a part has statistics of its own."""

    def check(self, batch_size: int) -> None:
        """Raises `UserError` for values that cannot work together; before anything compiles."""

    def check_labels(self, title: str, classes: int, *, any_known: bool) -> None:
        """Raises `UserError` for training labels that it cannot learn from.

        Args:
          title: what messages call the training set.
          classes: how many it has.
          any_known: whether any of its examples has a label.
        """
        if self.needs_labels and not any_known:
            raise UserError(
                f"{type(self).__name__} needs labels, and {title} has none; "
                "use data with labels, or a method that learns without"
            )

    def init(self, key: Key, views: PyTree) -> tuple[PyTree, PyTree]:
        """Parameters by name ("encoder", "projector", ...) and memory, for such views."""
        raise NotImplementedError

    def per_example(self, key: Key, memory: PyTree, examples: int) -> PyTree:
        """Memory with a place for each of so many training examples, found by its "index".

        Called with the memory that `init` made, before the first step; for banks and assignments.

        Raises:
          UserError: the set is too small for the method.
        """
        return memory

    def check_start(self) -> None:
        """Raises `UserError` where what `start` reads is not there; before anything compiles."""

    def start(self, params: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        """Both as a fresh run begins with them: where weights come from another run or a file.

        Called once, on the host, with what `init` made; a run that is resumed has them in its
        checkpoint.

        Raises:
          UserError: there is nothing to start from, or it does not fit.
        """
        return params, memory

    def views(self, key: Key, batch: Batch) -> PyTree:
        """The views of a batch that `loss` wants; row i depends on `key`, i and example i alone."""
        source = batch["crops"] if "crops" in batch else batch["image"]
        rows = jnp.arange(len(batch["label"]))
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        return self.augment.finish(keys, source) if "crops" in batch else self.augment(keys, source)

    def loss(
        self, params: PyTree, memory: PyTree, views: PyTree, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        """Loss of the global batch; a queue in `memory` is read before it is written."""
        raise NotImplementedError

    def frozen(self, progress: Progress) -> dict[str, Bool[Array, ""]]:
        """Parts of `params` that may stand still, by name, and whether they do at this step.

        Neither gradient nor decay nor `constrain` moves them then, and their optimiser's moments
        stay.
        """
        return {}

    def constrain(self, params: PyTree) -> PyTree:
        """Parameters put back to where they belong after each update: unit prototypes."""
        return params

    def after_step(self, params: PyTree, memory: PyTree, progress: Progress) -> PyTree:
        """Memory after the parameters have moved: slow copies and the like.

        `progress.step` is that of the step just taken, as `loss` saw it.
        """
        return memory

    def on_epoch(self, embed: Embed, memory: PyTree, key: Key) -> PyTree:
        """Memory at the start of an epoch: clusters, assignments; not compiled as a whole.

        `embed(self.represent)` gives features and labels of the whole training set.
        """
        return memory

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Who is trained by what; one phase over all parameters unless a method says otherwise."""
        return (Phase("main", self.loss),)

    def trained(self, params: PyTree, memory: PyTree) -> Kept:
        """The encoder that gradients train, with its statistics."""
        encoder, stats = getattr(self, "encoder", None), getattr(memory, "stats", {})
        if encoder is None or "encoder" not in params:
            name = type(self).__name__
            raise UserError(f"{name} does not say which encoder it keeps: define `kept`")
        return Kept(encoder, params["encoder"], stats.get("encoder", {}))

    def kept(self, params: PyTree, memory: PyTree) -> Kept:
        """The encoder that is evaluated and exported.

        The trained one, unless a method says otherwise: its slow copy.
        """
        return self.trained(params, memory)

    def represent(self, params: PyTree, memory: PyTree, batch: Batch) -> dict[str, Array]:
        """What evaluation sees of plain, unaugmented images: "features" [n, d] float32."""
        encoder, params, stats = self.kept(params, memory)
        x = self.augment.plain(batch["image"])
        outputs, _ = forward(encoder, params, stats, x, train=False)
        return {"features": outputs["features"]}

    def classify(self, params: PyTree, memory: PyTree, batch: Batch) -> Float[Array, "n c"] | None:
        """Scores of the classes for plain images, where the method trains a classifier; or None."""
        return None

    def facts(self, batch_size: int) -> dict[str, str]:
        """Lines about this method for the block that is printed before training."""
        return {}


LARGE = 2
"""Views that come first and large, where smaller ones may follow."""


def check_two_views(method: Method) -> None:
    """Raises `UserError` unless the recipe makes two views of one size."""
    sizes = method.augment.sizes
    if len(sizes) != 2 or sizes[0] != sizes[1]:
        raise UserError(
            f"{_makes(method)} takes two of one size; use a recipe such as simclr(...), or local=0"
        )


def check_large_views(method: Method) -> None:
    """Raises `UserError` unless the recipe begins with two views of one size, its largest."""
    sizes = method.augment.sizes
    if len(sizes) < LARGE or not sizes[0] == sizes[1] == max(sizes):
        raise UserError(
            f"{_makes(method)} takes two of one size, then smaller ones if any; "
            "use a recipe such as swav(...) or dino(...)"
        )


def _makes(method: Method) -> str:
    sizes = ", ".join(map(str, method.augment.sizes))
    return f"method.augment makes views of {sizes} pixels, and {type(method).__name__}"


def check_prediction(projector: nn.Module, predictor: nn.Module) -> None:
    """Raises `UserError` where predictions are known to differ in width from what they predict."""
    target, own = (getattr(head, "out", None) for head in (projector, predictor))
    if target is not None and own is not None and target != own:
        raise UserError(
            f"method.predictor.out={own} cannot match targets of method.projector.out={target}; "
            "give both the same"
        )
