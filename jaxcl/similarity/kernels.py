"""What the kernels for TPU and GPU share: the arithmetic of a tile, and how one side serves both.

Each kernel serves one side of the pairs, so that sums over columns, and gradients of keys, are
those of rows with the sides exchanged; a set of rows with itself is swept whole, since its gradient
needs the queries' side only. In units of N^2 d: 2 forward and 8 backward for one side's sums, 4 and
8 for both, 2 and 4 for a set with itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.similarity.logsumexp import LOG_SUM_EXP
from jaxcl.similarity.reduction import Gain, Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import (
    MASKED,
    Rows,
    Side,
    Tiling,
    hidden_behind,
    side_by_side,
    views_of,
    whole,
)
from jaxcl.typing import Array, Float

SumsOf = Callable[[Rows, Rows, Float[Array, ""]], Float[Array, "n"]]
"""`log sum_j exp(s_ij + b_j)` of each query, MASKED where it sees nothing."""
Numbers = tuple[Array | None, Array | None]
"""Of one side: the gradients that arrive at its sums, and the sums; None twice for no sums."""
GatheredOf = Callable[
    [Rows, Rows, Float[Array, ""], Numbers, Numbers],
    tuple[Float[Array, "n d"], Float[Array, "n"]],
]
"""`sum_j G_ij k_j` of each query, and its bias's `sum_j h_j exp(s_ij + b_i - C_j)`."""


class Marks(NamedTuple):
    """One side's numbers, or references to a tile's: [n, 1] for queries, [1, m] for keys."""

    bias: Any
    ids: Any
    groups: Any
    g: Any
    """Gradients that arrive at this side's sums; None: nothing arrives."""
    total: Any
    """The sums."""


def one_sided(sums_of: SumsOf, gathered_of: GatheredOf) -> Reduction:
    """The whole reduction, from kernels that serve the queries."""

    def forward(q_side: Side, k_side: Side, scale: Array, tiling: Tiling, wanted: Wanted) -> Sums:
        q, k = whole(q_side), whole(k_side)
        rows = views_of(sums_of(q, k, scale), len(q_side))
        return Sums(rows, views_of(sums_of(k, q, scale), len(k_side)) if wanted.columns else None)

    def backward(
        q_side: Side,
        k_side: Side,
        scale: Array,
        tiling: Tiling,
        wanted: Wanted,
        sums: Sums,
        arriving: Sums,
    ) -> Gradients:
        q, k = whole(q_side), whole(k_side)
        own = tiling.triangle or (sums.columns is not None and not wanted.keys)
        rows, columns = (
            (None, None) if total is None or g is None else (side_by_side(g), side_by_side(total))
            for g, total in zip(arriving, sums, strict=True)
        )
        to_q, q_bias = gathered_of(q, k, scale, rows, columns)
        on_q = views_of(Gain(to_q, q_bias if sums.columns is not None else None), len(q_side))
        if own:
            return Gradients(on_q)
        return Gradients(
            on_q, views_of(Gain(*gathered_of(k, q, scale, columns, rows)), len(k_side))
        )

    return Reduction(forward, backward, LOG_SUM_EXP.join, LOG_SUM_EXP.join_devices)


def laid_out(rows: Rows, numbers: Numbers, extra: int, axis: int) -> Any:
    """Rows and their `Marks`, with hidden rows that fill up the last tile; axis 1 for queries."""
    given = tuple(x for x in numbers if x is not None)
    rows, given = hidden_behind((rows, given), extra)
    g, total = given if given else (None, None)
    side = Marks(rows.bias, rows.ids, rows.groups, g, total)
    return rows.x, jax.tree.map(partial(jnp.expand_dims, axis=axis), side)


def logits_of(
    scale: Array, q: Float[Array, "t d"], k: Float[Array, "u d"], of_q: Marks, of_k: Marks
) -> Float[Array, "t u"]:
    """Scaled dot products, MASKED where a pair does not see each other."""
    logits = scale * product(q, k, contract=1)
    if of_q.ids is not None:
        logits = jnp.where(of_q.ids == of_k.ids, MASKED, logits)
    if of_q.groups is not None:
        logits = jnp.where(of_q.groups != of_k.groups, MASKED, logits)
    return logits


def joined(
    logits: Float[Array, "t u"], peak: Float[Array, "t 1"], total: Float[Array, "t 1"]
) -> tuple[Float[Array, "t 1"], Float[Array, "t 1"]]:
    """Largest logit so far, and the sum of exponentials relative to it, with a tile joined."""
    highest = jnp.maximum(peak, jnp.max(logits, axis=1, keepdims=True))
    parts = jnp.where(logits > MASKED / 2, jnp.exp(logits - highest), 0)
    return highest, total * jnp.exp(peak - highest) + jnp.sum(parts, axis=1, keepdims=True)


def finished(peak: Float[Array, "t 1"], total: Float[Array, "t 1"]) -> Float[Array, "t 1"]:
    """The log-sum-exp that `joined` has come to."""
    return jnp.where(total > 0, peak + jnp.log(jnp.where(total > 0, total, 1)), MASKED)


def weights(
    logits: Float[Array, "t u"], of_q: Marks, of_k: Marks
) -> tuple[Float[Array, "t u"], Float[Array, "t 1"]]:
    """G of a tile, and the sums of its second term over keys."""
    g, of_bias = jnp.zeros_like(logits), jnp.zeros_like(logits[:, :1])
    if of_q.g is not None:
        g = of_q.g * _share(logits, of_k.bias, of_q.total)
    if of_k.g is not None:
        columns = of_k.g * _share(logits, of_q.bias, of_k.total)
        g, of_bias = g + columns, jnp.sum(columns, axis=1, keepdims=True)
    return g, of_bias


def product(a: Array, b: Array, *, contract: int) -> Array:
    """`a @ b`, or `a @ b.T` with contract 1, summed in float32, in full for float32 rows."""
    full = b.dtype == jnp.float32
    return jax.lax.dot_general(
        a.astype(b.dtype), b, (((1,), (contract,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )  # fmt: skip


def read(side: Marks) -> Marks:
    """The numbers behind a tile's references."""
    return Marks(*(None if ref is None else ref[...] for ref in side))


def _share(logits: Array, bias: Array, total: Array) -> Array:
    """`exp(logits + bias - total)`, at most 1, 0 where nothing is seen."""
    share = jnp.exp(jnp.minimum(logits + bias - total, 0))
    return jnp.where(total > MASKED / 2, share, 0)
