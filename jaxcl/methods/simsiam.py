"""SimSiam: a network predicts what it makes itself of another view, which counts as a constant.

    x1 -> encoder -> projector -> z1 -> predictor -> p1
    x2 -> encoder -> projector -> z2 -> predictor -> p2

    1/2 negative_cosine(p1, stop(z2)) + 1/2 negative_cosine(p2, stop(z1))

BYOL without the slow network: the predictor and the stopped gradient are enough. Each view goes
through the network by itself, with its own batch statistics. The predictor learns best at a rate
that does not fall: `optim.steady=("predictor",)`.

Reference: Chen & He 2021, arXiv:2011.10566, algorithm 1; facebookresearch/simsiam.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, moco_v2
from jaxcl.encoders import MLP, ResNet
from jaxcl.losses import negative_cosine
from jaxcl.methods.method import Aux, Method, Statistics, check_prediction, check_two_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Float, Key, PyTree


@dataclass(frozen=True)
class SimSiam(Method):
    """Simple siamese representation learning."""

    augment: Recipe = moco_v2(224)
    encoder: nn.Module = ResNet(50)
    """The network that is kept."""
    projector: nn.Module = MLP((2048, 2048), 2048, final_norm="plain", kernel_init="torch")
    """The head that makes the targets; it ends in batch norm."""
    predictor: nn.Module = MLP((512,), 2048, out_bias=True, kernel_init="torch")
    """From a projection to the other view's; narrow in the middle."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)
        check_prediction(self.projector, self.predictor)

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
        stats, outputs = memory.stats, []
        for x in views:
            made, stats = self._network(params, stats, (x,))
            outputs.append(made)
        h, z, p = (
            jnp.concatenate([made[name] for made in outputs], axis=1)
            for name in ("encoder", "projector", "predictor")
        )
        targets = jax.lax.stop_gradient(z)
        one, two = negative_cosine(p[:, 0], targets[:, 1]), negative_cosine(p[:, 1], targets[:, 0])
        return (one + two) / 2, Aux(Statistics(stats), {}, h, z)

    @property
    def _network(self) -> Stack:
        return Stack(
            self.chunks,
            encoder=self.encoder,
            projector=self.projector,
            predictor=self.predictor,
        )
