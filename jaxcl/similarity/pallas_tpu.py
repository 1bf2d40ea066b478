"""Log-sum-exp over pairs as TPU kernels: a tile lives in the chip's fast memory and nowhere else.

The grid goes over tiles, keys innermost; sums stay in fast memory until a run of queries is done.
Each kernel serves one side of the pairs, so that sums over columns, and gradients of keys, are
those of rows with the sides exchanged; a set of rows with itself is swept whole, since its gradient
needs the queries' side only. In units of N^2 d: 2 forward and 8 backward for one side's sums, 4 and
8 for both, 2 and 4 for a set with itself.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl.similarity.logsumexp import LOG_SUM_EXP
from jaxcl.similarity.reduction import Gain, Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import (
    MASKED,
    Rows,
    Side,
    Tiling,
    hidden_behind,
    precision,
    side_by_side,
    views_of,
)
from jaxcl.typing import Array, Float

TILE = 512
"""Queries and keys of a tile at most."""
LANES = 128
"""They come in multiples of this."""
INTERPRET = False
"""Run the kernels step by step on any backend, for tests."""

Numbers = tuple[Array | None, Array | None]
"""Of one side: the gradients that arrive at its sums, and the sums; None twice for no sums."""


class Marks(NamedTuple):
    """One side's numbers, or references to a tile's: [n, 1] for queries, [1, m] for keys."""

    bias: Any
    ids: Any
    groups: Any
    factor: Any
    """Of the row in all its products; None: 1."""
    g: Any
    """Gradients that arrive at this side's sums; None: nothing arrives."""
    total: Any
    """The sums."""


def forward(q_side: Side, k_side: Side, scale: Array, tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums; MASKED where a row or a column sees nothing."""
    q, k = (side_by_side([rows.read() for rows in side]) for side in (q_side, k_side))
    rows = views_of(_sums(q, k, scale), len(q_side))
    return Sums(rows, views_of(_sums(k, q, scale), len(k_side)) if wanted.columns else None)


def backward(
    q_side: Side,
    k_side: Side,
    scale: Array,
    tiling: Tiling,
    wanted: Wanted,
    sums: Sums,
    arriving: Sums,
) -> Gradients:
    """Gradients, given the sums and the gradients that arrive at them."""
    q, k = (side_by_side([rows.read() for rows in side]) for side in (q_side, k_side))
    own = tiling.triangle or (sums.columns is not None and not wanted.keys)
    rows, columns = (
        (None, None) if total is None or g is None else (side_by_side(g), side_by_side(total))
        for g, total in zip(arriving, sums, strict=True)
    )
    to_q, q_bias = _gathered(q, k, scale, rows, columns)
    on_q = views_of(Gain(to_q, q_bias if sums.columns is not None else None), len(q_side))
    if own:
        return Gradients(on_q)
    return Gradients(on_q, views_of(Gain(*_gathered(k, q, scale, columns, rows)), len(k_side)))


def _sums(q: Rows, k: Rows, scale: Float[Array, ""]) -> Float[Array, "n"]:
    """`log sum_j exp(s_ij + b_j)` of each query, MASKED where it sees nothing."""

    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, out: Any, *kept: Any) -> None:
        peak, total = kept

        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            peak[...] = jnp.full_like(peak, MASKED)
            total[...] = jnp.zeros_like(total)

        keys = _read(of_k)
        logits = _logits_of(scale[0, 0], q[...], k[...], _read(of_q), keys) + keys.bias
        peak[...], total[...] = _joined(logits, peak[...], total[...])

        @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
        def _() -> None:
            out[...] = _finished(peak[...], total[...])

    return _run(kernel, q, k, scale, (None, None), (None, None), (1,), kept=2)[0][:, 0]


def _gathered(
    q: Rows, k: Rows, scale: Float[Array, ""], rows: Numbers, columns: Numbers
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """`sum_j G_ij k_j` of each query, and its bias's `sum_j h_j exp(s_ij + b_i - C_j)`."""

    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, dq: Any, bias: Any) -> None:
        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            dq[...] = jnp.zeros_like(dq)
            bias[...] = jnp.zeros_like(bias)

        queries, keys = _read(of_q), _read(of_k)
        logits = _logits_of(scale[0, 0], q[...], k[...], queries, keys)
        g, of_bias = _weights(logits, queries, keys)
        g = g if keys.factor is None else g * keys.factor
        dq[...] += _product(g, k[...], contract=0)
        bias[...] += of_bias

    dq, bias = _run(kernel, q, k, scale, rows, columns, (q.x.shape[1], 1))
    return dq, bias[:, 0]


def _run(
    kernel: Any,
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    rows: Numbers,
    columns: Numbers,
    widths: tuple[int, ...],
    *,
    kept: int = 0,
) -> list[Array]:
    """Outputs of the given widths for each query, of a kernel that has seen every tile."""
    n, m, d = len(q.x), len(k.x), q.x.shape[1]
    t, u = (min(TILE, -(-count // LANES) * LANES) for count in (n, m))
    q_x, of_q = _laid_out(q, rows, -n % t, 1)
    k_x, of_k = _laid_out(k, columns, -m % u, 0)

    def by_query(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((t, width), lambda i, j: (i, 0))

    specs: Any = (
        pl.BlockSpec((1, 1), lambda i, j: (0, 0), memory_space=pltpu.SMEM),
        by_query(d),
        pl.BlockSpec((u, d), lambda i, j: (j, 0)),
        jax.tree.map(lambda _: by_query(1), of_q),
        jax.tree.map(lambda _: pl.BlockSpec((1, u), lambda i, j: (0, j)), of_k),
    )
    found: list[Array] = pl.pallas_call(
        kernel,
        grid=(len(q_x) // t, len(k_x) // u),
        in_specs=specs,
        out_specs=[by_query(width) for width in widths],
        out_shape=[jax.ShapeDtypeStruct((len(q_x), width), jnp.float32) for width in widths],
        scratch_shapes=[pltpu.VMEM((t, 1), jnp.float32)] * kept,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=INTERPRET,
    )(jnp.asarray(scale, jnp.float32).reshape(1, 1), q_x, k_x, of_q, of_k)
    return [x[:n] for x in found]


def _laid_out(rows: Rows, numbers: Numbers, extra: int, axis: int) -> Any:
    """Rows and their `Marks`, with hidden rows that fill up the last tile; axis 1 for queries."""
    given = tuple(x for x in numbers if x is not None)
    rows, given = hidden_behind((rows, given), extra)
    g, total = given if given else (None, None)
    side = Marks(rows.bias, rows.ids, rows.groups, rows.factor, g, total)
    return rows.x, jax.tree.map(partial(jnp.expand_dims, axis=axis), side)


def _logits_of(
    scale: Array, q: Float[Array, "t d"], k: Float[Array, "u d"], of_q: Marks, of_k: Marks
) -> Float[Array, "t u"]:
    """Scaled dot products, MASKED where a pair does not see each other."""
    logits = scale * _product(q, k, contract=1)
    for side in (of_q, of_k):
        logits = logits if side.factor is None else logits * side.factor
    if of_q.ids is not None:
        logits = jnp.where(of_q.ids == of_k.ids, MASKED, logits)
    if of_q.groups is not None:
        logits = jnp.where(of_q.groups != of_k.groups, MASKED, logits)
    return logits


def _joined(
    logits: Float[Array, "t u"], peak: Float[Array, "t 1"], total: Float[Array, "t 1"]
) -> tuple[Float[Array, "t 1"], Float[Array, "t 1"]]:
    """Largest logit so far, and the sum of exponentials relative to it, with a tile joined."""
    highest = jnp.maximum(peak, jnp.max(logits, axis=1, keepdims=True))
    parts = jnp.where(logits > MASKED / 2, jnp.exp(logits - highest), 0)
    return highest, total * jnp.exp(peak - highest) + jnp.sum(parts, axis=1, keepdims=True)


def _finished(peak: Float[Array, "t 1"], total: Float[Array, "t 1"]) -> Float[Array, "t 1"]:
    """The log-sum-exp that `_joined` has come to."""
    return jnp.where(total > 0, peak + jnp.log(jnp.where(total > 0, total, 1)), MASKED)


def _weights(
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


def _product(a: Array, b: Array, *, contract: int) -> Array:
    """`a @ b`, or `a @ b.T` with contract 1, summed in float32, in full for float32 rows."""
    return jax.lax.dot_general(
        a.astype(b.dtype), b, (((1,), (contract,)), ((), ())),
        precision=precision(b), preferred_element_type=jnp.float32,
    )  # fmt: skip


def _read(side: Marks) -> Marks:
    """The numbers behind a tile's references."""
    return Marks(*(None if ref is None else ref[...] for ref in side))


def _share(logits: Array, bias: Array, total: Array) -> Array:
    """`exp(logits + bias - total)`, at most 1, 0 where nothing is seen."""
    share = jnp.exp(jnp.minimum(logits + bias - total, 0))
    return jnp.where(total > MASKED / 2, share, 0)


LOG_SUM_EXP_TPU = Reduction(forward, backward, LOG_SUM_EXP.join, LOG_SUM_EXP.join_devices)
