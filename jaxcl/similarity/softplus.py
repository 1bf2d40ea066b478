"""Softplus summed over pairs, tile by tile, and its gradient.

    R_i = sum_j log(1 + exp(s_ij + b_j))        s_ij = scale * q_i . k_j

With g the incoming gradient of R, all outgoing ones follow from G_ij = g_i sigmoid(s_ij + b_j).
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import Rows, Tile, Tiling, product, sweep
from jaxcl.typing import Array, Float, PyTree


def forward(q: Rows, k: Rows, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums over keys."""

    def visit(tile: Tile) -> tuple[PyTree, PyTree]:
        terms = tile.shown(jax.nn.softplus(tile.logits + tile.k.bias))
        return terms.sum(1), ()

    return Sums(sweep(tiling, q, k, scale, visit)[0])


def backward(
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    tiling: Tiling,
    wanted: Wanted,
    sums: Sums,
    cotangents: Sums,
) -> Gradients:
    """Gradients, given those that arrive at the sums."""

    def visit(tile: Tile) -> tuple[PyTree, PyTree]:
        g = tile.per_query[0][:, None] * jax.nn.sigmoid(tile.logits + tile.k.bias)
        g = tile.shown(g)
        return product(g, tile.k.x), (product(g.T, tile.q.x), g.sum(0))

    to_q, (to_k, to_bias) = sweep(tiling, q, k, scale, visit, per_query=(cotangents.rows,))
    moved = jnp.sum(q.x * to_q)
    return Gradients(scale * to_q, None, scale * to_k, to_bias, moved)


SOFTPLUS = Reduction(forward, backward, jnp.add, partial(jax.lax.psum_scatter, tiled=True))
