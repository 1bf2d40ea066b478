"""SimCLR: two views of each image, each to be picked out of the batch by the other.

    x1 -> encoder -> h1 -> projector -> z1
                                            nt_xent(z1, z2)
    x2 -> encoder -> h2 -> projector -> z2

Both views go through the network in one batch, so that batch norm sees them together. The
projector is thrown away after training: h is the representation.

Reference: Chen et al. 2020, arXiv:2002.05709; google-research/simclr.
"""

from dataclasses import dataclass

from flax import linen as nn

from jaxcl.augment import Recipe, simclr
from jaxcl.encoders import MLP, ResNet
from jaxcl.losses import nt_xent_with_accuracy
from jaxcl.methods.method import Aux, Method, Statistics, check_two_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Float, Key, PyTree


@dataclass(frozen=True)
class SimCLR(Method):
    """A simple framework for contrastive learning of visual representations."""

    augment: Recipe = simclr(224)
    encoder: nn.Module = ResNet(50)
    """The network that is kept."""
    projector: nn.Module = MLP((0,), 128, final_norm="scale", kernel_init="normal_0.01")
    """The head under the loss; thrown away after training."""
    temperature: float = 0.1
    """Scale of the similarities; 0.1 for ImageNet, 0.5 for CIFAR-10 in the paper."""
    scale: float = 1.0
    """Factor of the loss: 1 is the paper's mean over both directions, 2 the authors' code, which
    adds the means of the two."""
    views_apart: bool = False
    """Whether each view goes through the network by itself, with its own batch statistics, as in
    solo-learn and lightly; if not, views of one size share them."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Statistics]:
        params, stats = self._network.init(key, views)
        return params, Statistics(stats)

    def loss(
        self,
        params: PyTree,
        memory: Statistics,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self._network(params, memory.stats, views)
        z = outputs["projector"]
        nce = nt_xent_with_accuracy(z[:, 0], z[:, 1], temperature=self.temperature)
        metrics = {"contrastive_accuracy": 100 * nce.accuracy}
        return self.scale * nce.loss, Aux(Statistics(stats), metrics, outputs["encoder"], z)

    @property
    def _network(self) -> Stack:
        networks = {"encoder": self.encoder, "projector": self.projector}
        return Stack(self.chunks, self.views_apart, **networks)

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"negatives per anchor": f"{2 * batch_size - 2:,}"}
