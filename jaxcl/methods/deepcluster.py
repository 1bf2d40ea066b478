"""DeepCluster v2: every crop of an image is classified into the cluster that the image is in.

    each epoch:  rows z of the last epoch -> spherical k-means -> centroids, cluster of each image
    each batch:  crops -> encoder -> projector -> z -> . centroids -> cross-entropy(cluster)
                                                   -> kept by the image's index

Rows z and centroids have length 1. Each of several clusterings ("heads") has centroids of its own;
they take turns with the memories of the two large views. Centroids are not trained: SwAV with
codes that are made once an epoch over the whole set. Before the first epoch the rows come from a
pass over plain images.

Reference: Caron et al. 2020, arXiv:2006.09882, section 4 and appendix; facebookresearch/swav,
main_deepclusterv2.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.augment import Recipe, swav
from jaxcl.encoders import MLP, ResNet
from jaxcl.errors import UserError
from jaxcl.methods.method import LARGE, Aux, Batch, Embed, Method, check_large_views
from jaxcl.methods.progress import Progress
from jaxcl.methods.stack import Stack
from jaxcl.similarity import unit_rows
from jaxcl.similarity.kmeans import kmeans
from jaxcl.typing import Array, Float, Int, Key, PyTree

NONE = -1
"""Cluster of an image before the first clustering."""


class Views(NamedTuple):
    """What the loss sees of a batch."""

    crops: tuple[Float[Array, "n s s c"], ...]
    places: Int[Array, "n"]
    """Of the images in the training set."""


class Memory(NamedTuple):
    """What training carries from step to step without differentiating it."""

    stats: dict[str, PyTree]
    """Batch-norm statistics of encoder and projector."""
    rows: Float[Array, "v examples d"]
    """The last rows z of each image's large views, in turn."""
    clusters: Int[Array, "heads examples"]
    """Of every image at this epoch; NONE before the first clustering."""
    centroids: tuple[Float[Array, "k d"], ...]
    """Of each head at this epoch."""


@dataclass(frozen=True)
class DeepClusterV2(Method):
    """Clustering of a whole set, and classification into the clusters, in turns."""

    augment: Recipe = swav(224)
    encoder: nn.Module = ResNet(50, zero_init=False)
    """The network that is kept."""
    projector: nn.Module = MLP((2048,), 128, bias=True, out_bias=True, kernel_init="torch")
    """The head whose rows are clustered; thrown away after training."""
    clusters: tuple[int, ...] = (3000, 3000, 3000)
    """Clusters of each head."""
    temperature: float = 0.1
    """Scale of the cosines with the centroids."""
    iterations: int = 10
    """k-means iterations per epoch and head."""
    views_apart: bool = False
    """Whether each view goes through the network by itself, with its own batch statistics, as in
    solo-learn and lightly; if not, views of one size share them."""

    def check(self, batch_size: int) -> None:
        check_large_views(self)
        if not self.clusters or min(self.clusters) < 1:
            raise UserError(
                f"method.clusters={self.clusters} clusters nothing; "
                "give a number for each head, such as (3000, 3000, 3000)"
            )

    def init(self, key: Key, views: Views) -> tuple[PyTree, Memory]:
        params, stats = self._network().init(key, views.crops)
        one = tuple(crop[:1] for crop in views.crops[:LARGE])
        z = self._network()(params, stats, one, train=False)[0]["projector"]
        width = z.shape[2]
        rows = jnp.zeros((LARGE, 0, width), jnp.float32)
        clusters = jnp.full((len(self.clusters), 0), NONE, jnp.int32)
        centroids = tuple(jnp.zeros((k, width), jnp.float32) for k in self.clusters)
        return params, Memory(stats, rows, clusters, centroids)

    def per_example(self, key: Key, memory: Memory, examples: int) -> Memory:
        if max(self.clusters) > examples:
            raise UserError(
                f"method.clusters={self.clusters} asks for more clusters than there are training "
                f"images, {examples:,}; use fewer"
            )
        rows = jnp.zeros((LARGE, examples, memory.rows.shape[2]), jnp.float32)
        clusters = jnp.full((len(self.clusters), examples), NONE, jnp.int32)
        return memory._replace(rows=rows, clusters=clusters)

    def views(self, key: Key, batch: Batch) -> Views:
        return Views(super().views(key, batch), batch["index"])

    def on_epoch(self, embed: Embed, memory: Memory, key: Key) -> Memory:
        rows = memory.rows
        if int(jnp.min(memory.clusters)) == NONE:
            plain, _ = embed(self._plain_rows)
            rows = jnp.stack([jnp.asarray(plain)] * LARGE)
        heads = [
            kmeans(
                rows[head % LARGE], k, jax.random.fold_in(key, head), self.iterations,
                spherical=True, beginning="random", empty="keep",
            )
            for head, k in enumerate(self.clusters)
        ]  # fmt: skip
        return memory._replace(
            rows=rows,
            clusters=jnp.stack([found.assignments for found in heads]),
            centroids=tuple(found.centroids for found in heads),
        )

    def loss(
        self, params: PyTree, memory: Memory, views: Views, key: Key, progress: Progress
    ) -> tuple[Float[Array, ""], Aux]:
        outputs, stats = self._network(self.chunks)(params, memory.stats, views.crops)
        z = unit_rows(outputs["projector"])
        targets = memory.clusters[:, views.places]
        heads = [
            classification(z, *head, temperature=self.temperature)
            for head in zip(memory.centroids, targets, strict=True)
        ]
        value = sum((loss for loss, _ in heads), jnp.zeros([], jnp.float32)) / len(heads)
        hits = sum((accuracy for _, accuracy in heads), jnp.zeros([], jnp.float32)) / len(heads)
        large = jax.lax.stop_gradient(jnp.moveaxis(z[:, :LARGE], 1, 0))
        memory = memory._replace(stats=stats, rows=memory.rows.at[:, views.places].set(large))
        features = outputs["encoder"][:, :LARGE]
        return value, Aux(memory, {"cluster_accuracy": 100 * hits}, features, z[:, :LARGE])

    def _plain_rows(self, params: PyTree, memory: Memory, batch: Batch) -> dict[str, Array]:
        """Unit rows of plain images, for the first clustering.

        As training makes them, by the batch's own statistics: with those of a fresh network all
        images look alike.
        """
        plain = (self.augment.plain(batch["image"]),)
        outputs, _ = self._network()(params, memory.stats, plain)
        return {"features": unit_rows(outputs["projector"][:, 0])}

    def _network(self, chunks: int = 1) -> Stack:
        networks = {"encoder": self.encoder, "projector": self.projector}
        return Stack(chunks, self.views_apart, **networks)

    def facts(self, batch_size: int) -> dict[str, str]:
        return {"clusters": " + ".join(f"{k:,}" for k in self.clusters) + " each epoch"}


def classification(
    z: Float[Array, "n v d"],
    centroids: Float[Array, "k d"],
    target: Int[Array, "n"],
    *,
    temperature: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross-entropy and accuracy of telling an example's cluster from each of its v rows.

    Examples whose target is NONE do not count; where all are, both numbers are 0.
    """
    cosines = jnp.matmul(z, centroids.T, precision="highest")
    logs = jax.nn.log_softmax(cosines / temperature, axis=2)
    own = jnp.take_along_axis(logs, jnp.maximum(target, 0)[:, None, None], axis=2)[:, :, 0]
    counted = jnp.broadcast_to((target != NONE)[:, None], own.shape)
    count = jnp.maximum(counted.sum(), 1)
    hits = counted & (jnp.argmax(logs, axis=2) == target[:, None])
    value = -jnp.sum(jnp.where(counted, own, 0.0)) / count
    return value, jnp.sum(hits, dtype=own.dtype) / count
