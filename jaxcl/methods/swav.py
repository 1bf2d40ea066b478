"""SwAV: the code of one view, its balanced assignment to prototypes, is predicted from the others.

    x1 -> encoder -> projector -> z1 -> . prototypes -> s1 -> sinkhorn -> q1
    x2 -> encoder -> projector -> z2 -> . prototypes -> s2 -> sinkhorn -> q2
    small crops   ->    ...    ->  z -> . prototypes -> s

    loss: q1 from s2 and each s, q2 from s1 and each s

Rows z and prototypes have length 1; no gradient flows into the codes q. The two large views alone
get codes. All sizes of crops go through the encoder one after another, and through the head
together. Where a batch is small beside the prototypes, a queue of past rows is assigned with it.

Reference: Caron et al. 2020, arXiv:2006.09882; facebookresearch/swav, main_swav.py.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, swav
from jaxcl.encoders import MLP, Prototypes, ResNet, forward, unit_columns
from jaxcl.losses import sinkhorn, swapped_prediction
from jaxcl.methods.method import LARGE, Aux, Method, check_large_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.queue import Queue, check_queue, push, random_queue
from jaxcl.methods.stack import Stack
from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Bool, Float, Key, PyTree


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder and projector."""
    queues: tuple[Queue, ...]
    """Past rows z of each large view; empty without a queue."""


@dataclass(frozen=True)
class SwAV(Method):
    """Unsupervised learning by contrasting cluster assignments."""

    augment: Recipe = swav(224)
    encoder: nn.Module = ResNet(50, zero_init=False)
    """The network that is kept."""
    projector: nn.Module = MLP((2048,), 128, bias=True, out_bias=True, kernel_init="torch")
    """The head under the prototypes; thrown away after training."""
    prototypes: nn.Module = Prototypes(3000)
    """What rows are assigned to; their number is best above that of the classes."""
    temperature: float = 0.1
    """Scale of the scores where codes are predicted."""
    epsilon: float = 0.05
    """Scale of the scores where codes are made; smaller is sharper."""
    iterations: int = 3
    """Rounds of Sinkhorn: how evenly the prototypes are used."""
    freeze_epochs: float = 1.0
    """Epochs at the start in which the prototypes stand still."""
    queue: int = 0
    """Rows of past batches that are assigned with each batch, a multiple of it; 0: none."""
    queue_epoch: int = 15
    """Epochs after which the queue begins to fill; it is used once it is full."""
    queue_from_start: bool = False
    """Whether the queue fills from the first step on, and is used after `queue_epoch`, as in
    solo-learn's first version; if not, it begins to fill at `queue_epoch`."""
    views_apart: bool = False
    """Whether each view goes through the network by itself, with its own batch statistics, as in
    solo-learn and lightly; if not, views of one size share them."""

    def check(self, batch_size: int) -> None:
        check_large_views(self)
        check_queue(self.queue, batch_size)

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        key, queue_key = jax.random.split(key)
        params, stats = self._network(prototypes=self.prototypes).init(key, views)
        del stats["prototypes"]
        width = len(params["prototypes"]["kernel"])
        keys = jax.random.split(queue_key, LARGE) if self.queue else ()
        queues = tuple(random_queue(key, self.queue, width) for key in keys)
        return self.constrain(params), Memory(stats, queues)

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self._network()(params, memory.stats, views)
        z = unit_rows(outputs["projector"])
        scores = jnp.unstack(self._scores(params, z), axis=1)
        ready = (not self.queue_from_start) | (progress.epoch >= self.queue_epoch)
        codes = self._codes(*jax.lax.stop_gradient((params, memory.queues, scores)), ready)
        value = swapped_prediction(scores, codes, temperature=self.temperature)
        queues = tuple(
            self._pushed(queue, z[:, view], progress) for view, queue in enumerate(memory.queues)
        )
        hits = jnp.argmax(scores[1], axis=1) == jnp.argmax(codes[0], axis=1)
        metrics = {"code_accuracy": 100 * jnp.mean(hits)}
        features = outputs["encoder"][:, :LARGE]
        return value, Aux(Memory(stats, queues), metrics, features, z[:, :LARGE])

    def _scores(self, params: PyTree, z: Float[Array, "... d"]) -> Float[Array, "... k"]:
        outputs, _ = forward(self.prototypes, params["prototypes"], {}, z, train=False)
        scores: Array = outputs["features"]
        return scores

    def _codes(
        self,
        params: PyTree,
        queues: tuple[Queue, ...],
        scores: tuple[Float[Array, "n k"], ...],
        ready: Bool[Array, ""],
    ) -> list[Float[Array, "n k"]]:
        """Codes of the large views; those of a full queue are made with them and left out."""
        balanced = partial(sinkhorn, epsilon=self.epsilon, iterations=self.iterations)
        if not queues:
            return [balanced(s) for s in scores[:LARGE]]

        def together(s: Array, queue: Queue) -> Array:
            past = self._scores(params, queue.rows)
            return balanced(jnp.concatenate([past, s]))[-len(s) :]

        return [
            jax.lax.cond(ready & queue.full, together, lambda s, _: balanced(s), s, queue)
            for s, queue in zip(scores, queues, strict=False)
        ]

    def _pushed(self, queue: Queue, z: Float[Array, "n d"], progress: Progress) -> Queue:
        begun = self.queue_from_start | (progress.epoch >= self.queue_epoch)
        filled: Queue = jax.tree.map(partial(jnp.where, begun), push(queue, z), queue)
        return filled

    def frozen(self, progress: Progress) -> dict[str, Bool[Array, ""]]:
        if not self.freeze_epochs:
            return {}
        return {"prototypes": progress.step < jnp.round(self.freeze_epochs * progress.per_epoch)}

    def constrain(self, params: PyTree) -> PyTree:
        own = params["prototypes"]
        if getattr(self.prototypes, "unit", False):
            return params
        return {**params, "prototypes": {**own, "kernel": unit_columns(own["kernel"])}}

    def _network(self, **more: nn.Module) -> Stack:
        networks = {"encoder": self.encoder, "projector": self.projector}
        return Stack(self.chunks, self.views_apart, **networks, **more)

    def facts(self, batch_size: int) -> dict[str, str]:
        queue = f", then {batch_size + self.queue:,}" if self.queue else ""
        return {"rows that share the prototypes": f"{batch_size:,}{queue}"}
