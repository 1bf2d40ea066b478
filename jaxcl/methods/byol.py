"""BYOL: a network predicts what a slow copy of it makes of another view. No negatives.

    x1 -> encoder -> projector -> predictor -> p1        x1 -> slow encoder -> slow projector -> z1
    x2 -> encoder -> projector -> predictor -> p2        x2 -> slow encoder -> slow projector -> z2

                              byol(p1, z2) + byol(p2, z1)

The slow network follows the trained one by a running average after each step, ever slower. Each
view goes through each network by itself, with its own batch statistics; the slow network uses
those of its batch too, and has running ones of its own. The encoder is kept, not its slow copy.

Without batch statistics: `encoder=ResNet(50, norm="group")` and heads with `norm="group"`.

Reference: Grill et al. 2020, arXiv:2006.07733, algorithm 1; Richemond et al. 2020,
arXiv:2010.10241; google-deepmind/deepmind-research, byol.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, byol
from jaxcl.encoders import MLP, ResNet
from jaxcl.losses import byol as byol_loss
from jaxcl.methods.method import Aux, Method, check_prediction, check_two_views
from jaxcl.methods.progress import Progress, cosine
from jaxcl.methods.slow import follow
from jaxcl.methods.stack import Stack
from jaxcl.typing import Array, Float, Key, PyTree


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder, projector and predictor."""
    slow: dict[str, PyTree]
    """Parameters of the slow encoder and projector."""
    slow_stats: dict[str, PyTree]
    """Their own batch-norm statistics."""


@dataclass(frozen=True)
class BYOL(Method):
    """Bootstrap your own latent."""

    augment: Recipe = byol(224)
    encoder: nn.Module = ResNet(50, zero_init=False)
    """The network that is kept."""
    projector: nn.Module = MLP((4096,), 256, bias=True)
    """The head whose slow copy makes the targets."""
    predictor: nn.Module = MLP((4096,), 256, bias=True)
    """From a projection to the other view's target; without it the features collapse."""
    momentum: float = 0.99
    """Share of the slow network that is kept at the first step; 0.996 for 1000 epochs."""
    final_momentum: float = 1.0
    """Share that is kept after the last step; half a cosine leads there."""
    scale: float = 1.0
    """Factor of the loss, which is the sum of two squared distances as in the authors' code;
    solo-learn has half of it, lightly a quarter."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)
        check_prediction(self.projector, self.predictor)

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        params, stats = self._trained.init(key, views)
        slow, slow_stats = (
            {name: tree[name] for name in self._slow.modules} for tree in (params, stats)
        )
        return params, Memory(stats, slow, slow_stats)

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        stats, slow_stats, outputs, targets = memory.stats, memory.slow_stats, [], []
        for x in views:
            made, stats = self._trained(params, stats, (x,))
            outputs.append(made)
            made, slow_stats = self._slow(memory.slow, slow_stats, (x,))
            targets.append(jax.lax.stop_gradient(made["projector"][:, 0]))
        h, z, p = (
            jnp.concatenate([made[name] for made in outputs], axis=1)
            for name in ("encoder", "projector", "predictor")
        )
        value = byol_loss(p[:, 0], targets[1]) + byol_loss(p[:, 1], targets[0])
        memory = memory._replace(stats=stats, slow_stats=slow_stats)
        return self.scale * value, Aux(memory, {}, h, z)

    def after_step(self, params: PyTree, memory: Memory, progress: Progress) -> Memory:
        momentum = cosine(progress, self.momentum, self.final_momentum)
        trained = {name: params[name] for name in memory.slow}
        return memory._replace(slow=follow(memory.slow, trained, momentum))

    @property
    def _slow(self) -> Stack:
        return Stack(self.chunks, encoder=self.encoder, projector=self.projector)

    @property
    def _trained(self) -> Stack:
        return Stack(self.chunks, **self._slow.modules, predictor=self.predictor)
