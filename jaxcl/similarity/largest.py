"""The largest logit of each row, tile by tile: how near the hardest negative is."""

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import MASKED, Rows, Tile, Tiling, sweep
from jaxcl.typing import Array, Float, PyTree


def forward(q: Rows, k: Rows, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """`R_i = max_j s_ij + b_j`, and the same by columns in a triangle."""

    def visit(tile: Tile) -> tuple[PyTree, PyTree]:
        logits = tile.shown(tile.logits, otherwise=MASKED)
        rows = jnp.max(logits + tile.k.bias, axis=1)
        if not tiling.triangle:
            return rows, ()
        return rows, jnp.max(logits + tile.q.bias[:, None], axis=0)

    return Sums(sweep(tiling, q, k, scale, visit, join=jnp.maximum, neutral=MASKED)[0])


def backward(
    q: Rows, k: Rows, scale: Array, tiling: Tiling, wanted: Wanted, sums: Sums, cotangents: Sums
) -> Gradients:
    """None flows."""
    raise NotImplementedError


MAXIMUM = Reduction(forward, backward, jnp.maximum, jax.lax.pmax)
