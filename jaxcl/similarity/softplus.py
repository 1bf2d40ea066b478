"""Softplus summed over pairs, tile by tile, and its gradient.

    R_i = sum_j log(1 + exp(s_ij + b_j))        s_ij = scale * q_i . k_j

With g the incoming gradient of R, all outgoing ones follow from G_ij = g_i sigmoid(s_ij + b_j).
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gain, Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import Found, Pairs, Side, Tiling, sweep
from jaxcl.typing import Array, Float


def forward(q: Side, k: Side, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums over keys."""

    def visit(pairs: Pairs) -> Found:
        terms = pairs.shown(jax.nn.softplus(pairs.logits + pairs.k.bias[None, :]))
        return Found(terms.sum(1))

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

    def visit(pairs: Pairs) -> Found:
        shares = jax.nn.sigmoid(pairs.logits + pairs.k.bias[None, :])
        slope = pairs.shown(pairs.per_query[0][:, None] * shares)
        return Found(keys=slope.sum(0), slope=slope)

    per_query = tuple((g,) for g in cotangents.rows)
    to_q, to_k = sweep(tiling, q, k, scale, visit, per_query=per_query)
    return Gradients(*(tuple(Gain(*view) for view in side) for side in (to_q, to_k)))


SOFTPLUS = Reduction(forward, backward, jnp.add, partial(jax.lax.psum_scatter, tiled=True))
