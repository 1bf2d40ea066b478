"""A classifier on top of an encoder: the network of fine-tuning and of distillation.

x -> encoder -> h -> first layers of the projector -> logits
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flax import linen as nn

from jaxcl.augment import Recipe, crop_and_flip
from jaxcl.encoders import MLP, first_layers, simclr_v2_resnet
from jaxcl.errors import UserError
from jaxcl.methods.earlier import Part, check_run, read_run
from jaxcl.methods.method import Batch, Method, Statistics
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Float, Int, Key, PyTree

FROM = "method.start_from"


class Labelled(NamedTuple):
    """One view of each image, and its class."""

    images: tuple[Float[Array, "n s s c"]]
    labels: Int[Array, "n"]
    """-1 for none."""


@dataclass(frozen=True)
class Classifier:
    """Which network it is."""

    encoder: nn.Module = simclr_v2_resnet(50)
    """Its features are what is kept beside the classes."""
    projector: MLP = MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01")
    """The whole head that the encoder was pre-trained with."""
    keep_layers: int = 1
    """Layers of that head that stay under the classes; 0 discards it, -1 keeps all."""
    classes: int = 1000
    """Number of classes in the data."""
    logits_init: Literal["zeros", "normal_0.01", "lecun", "torch"] = "zeros"
    """Distribution of the classifier's kernel at the start; with torch also that of its biases,
    which are 0 otherwise."""

    def network(self, chunks: int = 1) -> Stack:
        """Encoder, kept layers of the head, and logits, one after another."""
        head = first_layers(self.projector, self.keep_layers)
        kept = {} if head is None else {"projector": head}
        logits = MLP((), self.classes, out_bias=True, kernel_init=self.logits_init)
        return Stack(chunks, encoder=self.encoder, **kept, logits=logits)

    def scores(
        self, params: PyTree, stats: PyTree, images: Float[Array, "n s s c"]
    ) -> Float[Array, "n c"]:
        """Logits at inference."""
        return self.network()(params, stats, (images,), train=False)[0]["logits"][:, 0]


@dataclass(frozen=True)
class ClassifierMethod(Classifier, Method):
    """What methods that train a classifier share; their memory has `stats` by name."""

    augment: Recipe = crop_and_flip(224)
    start_from: str = ""
    """Run directory whose encoder and head it starts from; empty: random weights, or the encoder of
    `train.start`."""

    start_step: int = 0
    """Start from that run's checkpoint after this many steps; 0: from its newest one."""

    def check(self, batch_size: int) -> None:
        first_layers(self.projector, self.keep_layers)
        if self.classes < 2:
            raise UserError(f"method.classes={self.classes}; a classifier takes at least 2")
        if self.augment.count != 1:
            raise UserError(
                f"method.augment makes {self.augment.count} views, and {type(self).__name__} takes "
                "one; use a recipe such as crop_and_flip(...)"
            )

    def check_labels(self, title: str, classes: int, *, any_known: bool) -> None:
        super().check_labels(title, classes, any_known=any_known)
        if classes and classes != self.classes:
            raise UserError(
                f"method.classes={self.classes}, and {title} has {classes} classes; "
                f"use --method.classes {classes}"
            )

    def views(self, key: Key, batch: Batch) -> Labelled:
        (images,) = super().views(key, batch)
        return Labelled((images,), batch["label"])

    def init(self, key: Key, views: Labelled) -> tuple[PyTree, Any]:
        params, stats = self.network(self.chunks).init(key, views.images)
        return params, Statistics(stats)

    def check_start(self) -> None:
        if self.start_from:
            check_run(self.start_from, FROM)

    def start(self, params: PyTree, memory: Any) -> tuple[PyTree, Any]:
        """Both with what the earlier run has of them."""
        if not self.start_from:
            return params, memory
        run = read_run(self.start_from, FROM, at=self.start_step or None)
        run.check_pixels(self.augment)
        params, stats = dict(params), dict(memory.stats)
        for name, module in (("encoder", self.encoder), ("projector", self.projector)):
            if name in params:
                params[name], stats[name] = run.part(name, module, Part(params[name], stats[name]))
        return params, memory._replace(stats=stats)

    def classify(self, params: PyTree, memory: PyTree, batch: Batch) -> Float[Array, "n c"]:
        return self.scores(params, memory.stats, self.augment.plain(batch["image"]))

    def facts(self, batch_size: int) -> dict[str, str]:
        layers = len(self.projector.hidden) + 1
        kept = layers if self.keep_layers == -1 else self.keep_layers
        return {
            "starts from": self.start_from or "no run: random weights, or train.start",
            "head": f"{kept} of {layers} layers kept",
        }
