"""SimCLR: two views of each image, each to be picked out of the batch by the other.

    x1 -> encoder -> h1 -> projector -> z1
                                            nt_xent(z1, z2)
    x2 -> encoder -> h2 -> projector -> z2

Both views go through the network in one batch, so that batch norm sees them together. The
projector is thrown away after training: h is the representation.

Reference: Chen et al. 2020, arXiv:2002.05709; google-research/simclr.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxcl.augment import Recipe, simclr
from jaxcl.encoders import MLP, ResNet, forward, in_chunks, initialise, per_chunk
from jaxcl.losses import nt_xent_with_accuracy
from jaxcl.methods.method import Aux, Kept, Method
from jaxcl.typing import Array, Float, Int, Key, PyTree


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder and projector."""


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

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        encoder_key, projector_key = jax.random.split(key)
        encoder, encoder_stats = initialise(self.encoder, encoder_key, views[0][:1])
        h, _ = forward(self.encoder, encoder, encoder_stats, views[0][:1], train=False)
        projector, projector_stats = initialise(self.projector, projector_key, h["features"])
        params = {"encoder": encoder, "projector": projector}
        return params, Memory({"encoder": encoder_stats, "projector": projector_stats})

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Aux]:
        pairs = jnp.stack(views, axis=1)  # [n, 2, h, w, c]: twins stay on one device
        (h, z), stats = in_chunks(partial(self._embed, params, memory.stats), pairs, self.chunks)
        nce = nt_xent_with_accuracy(z[:, 0], z[:, 1], temperature=self.temperature)
        metrics = {"contrastive_accuracy": 100 * nce.accuracy}
        return nce.loss, Aux(Memory(stats), metrics, features=h, embeddings=z)

    def _embed(
        self, params: PyTree, stats: dict[str, PyTree], pairs: Float[Array, "n 2 h w c"]
    ) -> tuple[tuple[Float[Array, "n 2 d"], Float[Array, "n 2 k"]], dict[str, PyTree]]:
        def run(module: nn.Module, name: str, x: Array) -> tuple[Array, PyTree]:
            module = per_chunk(module, self.chunks)
            outputs, new = forward(module, params[name], stats[name], x, train=True)
            return outputs["features"], new

        h, encoder_stats = run(self.encoder, "encoder", rearrange(pairs, "n v ... -> (n v) ..."))
        z, projector_stats = run(self.projector, "projector", h)
        h, z = (rearrange(rows, "(n v) d -> n v d", v=2) for rows in (h, z))
        return (h, z), {"encoder": encoder_stats, "projector": projector_stats}

    def kept(self, params: PyTree, memory: Memory) -> Kept:
        return Kept(self.encoder, params["encoder"], memory.stats["encoder"])

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"negatives per anchor": f"{2 * batch_size - 2:,}"}
