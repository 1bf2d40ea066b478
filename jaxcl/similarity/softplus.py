"""Softplus summed over pairs, tile by tile, and its gradient.

    R_i = sum_j log(1 + exp(s_ij + b_j))        s_ij = scale * q_i . k_j

With g the incoming gradient of R, all outgoing ones follow from G_ij = g_i sigmoid(s_ij + b_j).
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gain, Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import Side, Tile, Tiling, product, product_across, sweep
from jaxcl.typing import Array, Float, PyTree


def forward(q: Side, k: Side, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums over keys."""

    def visit(tile: Tile) -> tuple[PyTree, PyTree]:
        terms = tile.shown(jax.nn.softplus(tile.logits + tile.k.bias))
        return terms.sum(1), ()

    return Sums(sweep(tiling, q, k, scale, visit)[0])


def backward(
    q: Side,
    k: Side,
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
        return Gain(product(g, tile.k.x)), Gain(product_across(g, tile.q.x), g.sum(0))

    per_query = tuple((g,) for g in cotangents.rows)
    return Gradients(*sweep(tiling, q, k, scale, visit, per_query=per_query))


SOFTPLUS = Reduction(forward, backward, jnp.add, partial(jax.lax.psum_scatter, tiled=True))
