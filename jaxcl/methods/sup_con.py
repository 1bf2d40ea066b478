"""SupCon: SimCLR with labels, so that all images of one's class are to be picked, not one's twin.

    x1 -> encoder -> h1 -> projector -> z1
                                            sup_con(z1 and z2, labels)
    x2 -> encoder -> h2 -> projector -> z2

A row without label (-1) has no positives, not even its twin: it is a negative of every other. The
projector is thrown away after training, and a linear classifier is trained on the frozen encoder
as a second run (`LinearClassifier`).

Reference: Khosla et al. 2020, arXiv:2004.11362; HobbitLong/SupContrast.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxcl.augment import Recipe, moco_v2
from jaxcl.encoders import MLP, ResNet
from jaxcl.losses import sup_con
from jaxcl.methods.method import Aux, Batch, Method, Statistics, check_two_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Float, Int, Key, PyTree


class Views(NamedTuple):
    """Views of each image, and its class."""

    images: tuple[Float[Array, "n s s c"], ...]
    labels: Int[Array, "n"]
    """-1 for none."""


@dataclass(frozen=True)
class SupCon(Method):
    """Supervised contrastive learning."""

    needs_labels: ClassVar[bool] = True

    augment: Recipe = moco_v2(224, blur=0.0)
    encoder: nn.Module = ResNet(50)
    """The network that is kept."""
    projector: nn.Module = MLP((0,), 128, norm="none", bias=True, out_bias=True)
    """The head under the loss; thrown away after training."""
    temperature: float = 0.1
    """Scale of the similarities."""
    form: Literal["out", "in"] = "out"
    """Where the mean over the positives is: outside the logarithm, as recommended, or inside."""
    anchors: Literal["all", "first"] = "all"
    """Which views are anchors of the loss: all of them, or the first one of each image alone, which
    is "one" in the authors' code."""
    scale: float = 1.0
    """Factor of the loss; the authors' code has temperature / 0.07, and learning rates for that."""
    views_apart: bool = False
    """Whether each view goes through the network by itself, with its own batch statistics, as in
    solo-learn and lightly; if not, views of one size share them."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)

    def views(self, key: Key, batch: Batch) -> Views:
        return Views(super().views(key, batch), batch["label"])

    def init(self, key: Key, views: Views) -> tuple[PyTree, Statistics]:
        params, stats = self._network.init(key, views.images)
        return params, Statistics(stats)

    def loss(
        self, params: PyTree, memory: Statistics, views: Views, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self._network(params, memory.stats, views.images)
        z = outputs["projector"]
        labels = jnp.broadcast_to(views.labels[:, None], z.shape[:2])
        # The views of an image stay together, on its device, unless the first ones must lead.
        rows, first = "(n v)", None
        if self.anchors == "first":
            rows, first = "(v n)", len(z)
        value = sup_con(
            rearrange(z, f"n v d -> {rows} d"),
            rearrange(labels, f"n v -> {rows}"),
            temperature=self.temperature,
            anchors=first,
            form=self.form,
            scale=self.scale,
        )
        return value, Aux(Statistics(stats), {}, outputs["encoder"], z)

    @property
    def _network(self) -> Stack:
        networks = {"encoder": self.encoder, "projector": self.projector}
        return Stack(self.chunks, self.views_apart, **networks)

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"rows told apart by class": f"{2 * batch_size:,}"}
