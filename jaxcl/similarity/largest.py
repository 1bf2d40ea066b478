"""The largest logits of each row: how near the hardest negatives are, and which they are."""

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import (
    MASKED,
    Found,
    Pairs,
    Rows,
    Side,
    Tiling,
    hidden_behind,
    masked_logits,
    sweep,
)
from jaxcl.typing import Array, Float, Int


def forward(q: Side, k: Side, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """`R_i = max_j s_ij + b_j`, and the same by columns in a triangle."""

    def visit(pairs: Pairs) -> Found:
        logits = pairs.shown(pairs.logits, otherwise=MASKED)
        rows = jnp.max(logits + pairs.k.bias[None, :], axis=1)
        if not tiling.triangle:
            return Found(rows)
        return Found(rows, jnp.max(logits + pairs.q.bias[:, None], axis=0))

    return Sums(sweep(tiling, q, k, scale, visit, join=jnp.maximum, neutral=MASKED)[0])


def backward(
    q: Side, k: Side, scale: Array, tiling: Tiling, wanted: Wanted, sums: Sums, cotangents: Sums
) -> Gradients:
    """None flows."""
    raise NotImplementedError


MAXIMUM = Reduction(forward, backward, jnp.maximum, jax.lax.pmax)

TOGETHER = 2**24
"""Logits of some queries over all keys that `nearest` holds at a time."""


def nearest(
    q: Rows, k: Rows, scale: Float[Array, ""], *, count: int
) -> tuple[Float[Array, "n c"], Int[Array, "n c"]]:
    """The largest `count` logits of each query and the keys' places; MASKED and -1 where none."""
    n, m = len(q.x), len(k.x)
    block = max(1, min(n, max(8, TOGETHER // m)))
    blocks = -(-n // block)
    q, _ = hidden_behind((q, ()), blocks * block - n)

    def search(some: Rows) -> tuple[Array, Array]:
        logits = masked_logits(some, k, scale)
        # Without the barrier XLA on CPU turns a top_k whose result is sliced later into a full sort
        # of all keys for each query (jax 0.10 and 0.12; 100 times slower at 50,000 keys). One
        # barrier each: one of a tuple stops the compiler where devices are several (jax 0.10).
        found, places = (jax.lax.optimization_barrier(x) for x in jax.lax.top_k(logits, count))
        return found, jnp.where(found > MASKED / 2, places, -1)

    split = jax.tree.map(lambda x: x.reshape(blocks, block, *x.shape[1:]), q)
    logits, places = (x.reshape(-1, count)[:n] for x in jax.lax.map(search, split))
    return logits, places
