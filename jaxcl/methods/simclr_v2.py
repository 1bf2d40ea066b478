"""SimCLR v2's pre-training: SimCLR with a deeper head, and a memory of negatives.

    x1 -> encoder -> h1 -> projector -> z1
                                            nt_xent(z1, z2, negatives: queue)
    x2 -> encoder -> h2 -> projector -> z2

    x1, x2 -> slow encoder -> slow projector -> queue        once the loss has read it

The head has three layers, so that fine-tuning can begin in its middle (`FineTune`). The slow copy
follows the trained network, and what it made of past batches stands in every anchor's denominator;
an anchor's positive is still its twin, from the trained network. Without a queue, or while it is
empty, this is SimCLR.

Reference: Chen et al. 2020, arXiv:2006.10029, sections 2 and 3.2; the released code has no memory.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxcl.augment import Recipe, simclr
from jaxcl.encoders import MLP, simclr_v2_resnet
from jaxcl.losses import nt_xent_with_accuracy
from jaxcl.methods.method import Aux, Method, check_two_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.queue import Queue, check_queue, push, random_queue
from jaxcl.methods.slow import follow
from jaxcl.methods.stack import Stack
from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Float, Key, PyTree


class Past(NamedTuple):
    """The memory of negatives."""

    slow: dict[str, PyTree]
    """Parameters of the slow encoder and projector."""
    stats: dict[str, PyTree]
    """Their batch-norm statistics, from their own passes."""
    queue: Queue
    """What they made of past batches."""


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder and projector."""
    past: Past | tuple[()]
    """Empty where there is no queue."""


@dataclass(frozen=True)
class SimCLRv2(Method):
    """Big self-supervised models are strong semi-supervised learners: the first of three runs."""

    augment: Recipe = simclr(224)
    encoder: nn.Module = simclr_v2_resnet(50)
    """The network that is kept."""
    projector: nn.Module = MLP((0, 0), 128, final_norm="scale", kernel_init="normal_0.01")
    """The head under the loss; fine-tuning keeps its first layer."""
    temperature: float = 0.1
    """Scale of the similarities."""
    scale: float = 1.0
    """Factor of the loss: 1 is the mean over both directions, 2 the authors' code, which adds the
    means of the two."""
    queue: int = 0
    """Rows of past batches that are further negatives; 0: none, 65,536 in the paper's variant."""
    momentum: float = 0.999
    """Share of the slow copy that is kept at each step."""

    def check(self, batch_size: int) -> None:
        check_two_views(self)
        check_queue(self.queue, batch_size, views=2)

    def init(self, key: Key, views: tuple[Array, ...]) -> tuple[PyTree, Memory]:
        key, queue_key = jax.random.split(key)
        params, stats = self._network.init(key, views)
        if not self.queue:
            return params, Memory(stats, ())
        width = jax.eval_shape(
            lambda: self._network(params, stats, views, train=False)[0]["projector"]
        ).shape[-1]
        slow, its = jax.tree.map(jnp.copy, (params, stats))  # two buffers: steps donate them
        return params, Memory(stats, Past(slow, its, random_queue(queue_key, self.queue, width)))

    def loss(
        self,
        params: PyTree,
        memory: Memory,
        views: tuple[Array, ...],
        key: Key,
        progress: Progress,
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self._network(params, memory.stats, views)
        z = outputs["projector"]
        past, negatives, shown = memory.past, None, None
        if isinstance(past, Past):
            negatives = past.queue.rows
            shown = jnp.arange(self.queue) < past.queue.filled
            made, slow_stats = self._network(past.slow, past.stats, views)
            rows = rearrange(made["projector"], "n v d -> (n v) d")
            past = past._replace(stats=slow_stats, queue=push(past.queue, unit_rows(rows)))
        nce = nt_xent_with_accuracy(
            z[:, 0], z[:, 1], negatives, temperature=self.temperature, shown=shown
        )
        metrics = {"contrastive_accuracy": 100 * nce.accuracy}
        return self.scale * nce.loss, Aux(Memory(stats, past), metrics, outputs["encoder"], z)

    def after_step(self, params: PyTree, memory: Memory, progress: Progress) -> Memory:
        if not isinstance(memory.past, Past):
            return memory
        slow = follow(memory.past.slow, params, self.momentum)
        return memory._replace(past=memory.past._replace(slow=slow))

    @property
    def _network(self) -> Stack:
        return Stack(self.chunks, encoder=self.encoder, projector=self.projector)

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"negatives per anchor": f"{2 * batch_size - 2 + self.queue:,}"}
