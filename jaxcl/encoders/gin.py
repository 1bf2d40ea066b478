"""Graph isomorphism network on a batch of padded graphs.

    h_v <- BN(ReLU(MLP(w h_v + sum over neighbours u of h_u)))

References: Xu et al. 2018, arXiv:1810.00826, eq. 4.1; norms and read-out as in GraphCL, You et al.
2020, arXiv:2010.13902 (Shen-Lab/GraphCL, unsupervised_TU/gin.py).
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.mlp import INITS
from jaxcl.encoders.norm import BatchNorm
from jaxcl.typing import Array, Bool, Float, Int, PyTree


class GIN(nn.Module):
    """Sums over neighbours, then a network at each node, a few times; graphs are pooled nodes."""

    width: int = 32
    """Channels of each node in all layers."""
    depth: int = 3
    """Layers, so many steps away a node sees."""
    self_weight: float = 1.0
    """Of the node beside its neighbours. GraphCL's unsupervised script has 2, by self-loops that it
    adds to a layer which counts the node already."""
    learn_self_weight: bool = False
    """Train one such weight a layer, from there on."""
    pool: Literal["sum", "mean", "max"] = "sum"
    """What becomes of a graph's nodes."""
    readout: Literal["all", "last"] = "all"
    """Features: the pooled nodes of all layers side by side, or of the last one."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the graphs; 1: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the linear layers; sums, statistics and parameters stay float32."""
    remat: bool = False
    """Compute each layer again in the backward pass in place of keeping what it computed."""

    @nn.compact
    def __call__(self, x: PyTree, train: bool) -> dict[str, Any]:
        """Encodes graphs; padding changes nothing, nor does the order of nodes or edges.

        Args:
          x: nodes: float [g, n, f] features of each graph's nodes; node_mask: bool [g, n], true
            for nodes; edges: int [g, e, 2] source and target of each edge, an undirected one
            twice; edge_mask: bool [g, e], true for edges.
          train: batch-norm by the batch's statistics, those of its nodes.

        Returns:
          features: [g, depth * width], or [g, width] of the last layer, 0 for a graph without
          nodes; nodes: [g, n, width] of each layer, 0 in the padding. All float32.
        """
        real = x["node_mask"].astype(bool)
        edge_mask = x["edge_mask"].astype(bool)
        h = jnp.where(real[..., None], x["nodes"].astype(jnp.float32), 0)
        nodes = []
        layer = nn.remat(_layer, static_argnums=(5, 6)) if self.remat else _layer
        for i in range(1, self.depth + 1):
            h = layer(self, h, real, x["edges"], edge_mask, i, train)
            nodes.append(h)
        read = nodes if self.readout == "all" else nodes[-1:]
        features = jnp.concatenate([pool_nodes(h, real, how=self.pool) for h in read], axis=-1)
        return {"features": features, "nodes": tuple(nodes)}


def _layer(
    network: GIN, h: Array, real: Array, edges: Array, edge_mask: Array, number: int, train: bool
) -> Array:
    own: float | Array = network.self_weight
    if network.learn_self_weight:
        init = nn.initializers.constant(own)
        own = network.param(f"layer{number}_self_weight", init, (), jnp.float32)
    linear = partial(nn.Dense, network.width, dtype=network.dtype, kernel_init=INITS["torch"])
    y = own * h + neighbour_sum(h, edges, edge_mask)
    y = linear(name=f"layer{number}_linear1")(y)
    y = linear(name=f"layer{number}_linear2")(nn.relu(y))
    norm = BatchNorm(groups=network.groups, name=f"layer{number}_norm")
    return jnp.where(real[..., None], norm(nn.relu(y), train, real), 0)


def neighbour_sum(
    h: Float[Array, "g n c"], edges: Int[Array, "g e 2"], edge_mask: Bool[Array, "g e"]
) -> Float[Array, "g n c"]:
    """At each node, the sum of `h` over the sources of the edges that end there.

    Args:
      h: [g, n, c] values at the nodes of g graphs.
      edges: [g, e, 2] source and target, below n where the mask is true.
      edge_mask: [g, e] which edges there are.
    """
    ends = jnp.where(edge_mask[..., None], edges, 0)
    sent = jnp.take_along_axis(h, ends[..., :1], axis=1)  # [g, e, c]
    sent = jnp.where(edge_mask[..., None], sent, 0)
    add = partial(jax.ops.segment_sum, num_segments=h.shape[1])
    received: Array = jax.vmap(add)(sent, ends[..., 1])
    return received


def pool_nodes(
    h: Float[Array, "g n c"], mask: Bool[Array, "g n"], *, how: Literal["sum", "mean", "max"]
) -> Float[Array, "g c"]:
    """Sum, mean or maximum of `h` over each graph's nodes; 0 for a graph without."""
    real = mask[..., None]
    if how == "max":
        highest = jnp.max(jnp.where(real, h, -jnp.inf), axis=1)
        return jnp.where(jnp.any(real, axis=1), highest, 0)
    total = jnp.sum(jnp.where(real, h, 0), axis=1)
    return total if how == "sum" else total / jnp.maximum(jnp.sum(real, axis=1), 1)
