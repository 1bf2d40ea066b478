"""MoCo: each query is to pick its key out of a queue of keys from past batches.

    x1 ------------> encoder ------> projector ------> q
                                                           info_nce(q, k, queue); then k -> queue
    x2 -> shuffle -> slow encoder -> slow projector -> unshuffle -> k

The slow network follows the trained one by a running average, moved before it makes the keys, so
that the keys of many batches agree. Batch norm in groups would tell a query which key shares its
group; the keys are therefore encoded in another order. Version 1 has a linear projector, a
temperature of 0.07 and weaker views; version 2 is the default; "2+" is `symmetric`.

Reference: He et al. 2020, arXiv:1911.05722, algorithm 1; Chen, Fan et al. 2020, arXiv:2003.04297;
facebookresearch/moco.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, moco_v2
from jaxcl.encoders import MLP, ResNet
from jaxcl.errors import UserError
from jaxcl.losses import info_nce
from jaxcl.methods.method import Aux, Method, check_two_views
from jaxcl.methods.progress import Progress, cosine
from jaxcl.methods.queue import Queue, check_queue, push, random_queue
from jaxcl.methods.shuffle import reorder
from jaxcl.methods.slow import follow
from jaxcl.methods.stack import Stack
from jaxcl.similarity import max_pairs, unit_rows
from jaxcl.typing import Array, Float, Key, PyTree


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder and projector."""
    slow: PyTree
    """Parameters of the slow encoder and projector."""
    slow_stats: dict[str, PyTree]
    """Their own batch-norm statistics."""
    queues: tuple[Queue, ...]
    """Keys of past batches: of second views and, where `symmetric`, of first views."""


@dataclass(frozen=True)
class MoCo(Method):
    """Momentum contrast."""

    augment: Recipe = moco_v2(224)
    encoder: nn.Module = ResNet(50, groups=8, zero_init=False)
    """The network that is kept."""
    projector: nn.Module = MLP(
        (0,), 128, norm="none", bias=True, out_bias=True, kernel_init="torch"
    )
    """The head under the loss; thrown away after training."""
    temperature: float = 0.2
    """Scale of the similarities; 0.07 in version 1."""
    queue: int = 65536
    """Keys in a queue, a multiple of the batch."""
    momentum: float = 0.999
    """Share of the slow network that is kept at each step."""
    final_momentum: float | None = None
    """Where the momentum ends along half a cosine; None: it stays."""
    shuffle: bool = True
    """Encode the keys in another order than the queries; matters to batch norm in groups alone."""
    symmetric: bool = False
    """Each view is query and key in turn, with a queue for each direction; the mean of both."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)
        if self.queue < 1:
            raise UserError(f"method.queue={self.queue} holds no keys; use {batch_size} or more")
        check_queue(self.queue, batch_size)

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        key, queue_key = jax.random.split(key)
        params, stats = self._network.init(key, views)
        one = jax.eval_shape(lambda x: self._network(params, stats, (x,), train=False), views[0])
        width = one[0]["projector"].shape[-1]
        keys = jax.random.split(queue_key, 2 if self.symmetric else 1)
        queues = tuple(random_queue(key, self.queue, width) for key in keys)
        return params, Memory(stats, params, stats, queues)

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        slow = follow(memory.slow, params, self._momentum(progress))
        stats, slow_stats = memory.stats, memory.slow_stats
        losses, hits, features, embeddings, queues = [], [], [], [], []
        for direction, queue in enumerate(memory.queues):
            x, x_key = views[direction], views[1 - direction]
            outputs, stats = self._network(params, stats, (x,))
            own_key = jax.random.fold_in(key, direction)
            k, slow_stats = self._keys(slow, slow_stats, x_key, own_key)
            q, old = unit_rows(outputs["projector"][:, 0]), jax.lax.stop_gradient(queue.rows)
            losses.append(info_nce(q, k, old, temperature=self.temperature, in_batch=False))
            hits.append(jnp.mean(jnp.sum(q * k, axis=1) > max_pairs(q, old)))
            features.append(outputs["encoder"])
            embeddings += [q, k]
            queues.append(push(queue, k))
        metrics = {"contrastive_accuracy": 100 * jnp.mean(jnp.stack(hits))}
        return jnp.mean(jnp.stack(losses)), Aux(
            Memory(stats, slow, slow_stats, tuple(queues)),
            metrics,
            jnp.concatenate(features, axis=1),
            jnp.stack(embeddings, axis=1),
        )

    def _keys(
        self, slow: PyTree, stats: PyTree, x: Float[Array, "n h w c"], key: Key
    ) -> tuple[Float[Array, "n d"], PyTree]:
        """Keys of length 1 in the views' order, whatever the order they are encoded in."""
        order = jax.random.permutation(key, len(x)) if self.shuffle else None
        x = x if order is None else reorder(x, order)
        outputs, stats = self._network(slow, stats, (x,))
        k = jax.lax.stop_gradient(unit_rows(outputs["projector"][:, 0]))
        return k if order is None else reorder(k, jnp.argsort(order)), stats

    def _momentum(self, progress: Progress) -> Float[Array, ""]:
        final = self.momentum if self.final_momentum is None else self.final_momentum
        return cosine(progress, self.momentum, final)

    @property
    def _network(self) -> Stack:
        return Stack(self.chunks, encoder=self.encoder, projector=self.projector)

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"negatives per anchor": f"{self.queue:,}"}
