"""Log-sum-exp over pairs as TPU kernels: a tile lives in the chip's fast memory and nowhere else.

The sweep of `logsumexp.py` with two differences. Each kernel serves one side, so that sums over
columns, and gradients of keys, are those of rows with the sides exchanged; and a set of rows with
itself is swept whole, since its gradient needs the queries' side only. In units of N^2 d: 2 forward
and 8 backward for one side's sums, 4 and 8 for both, 2 and 4 for a set with itself.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl.similarity.logsumexp import LOG_SUM_EXP
from jaxcl.similarity.reduction import Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import MASKED, Rows, Tiling, hidden_behind
from jaxcl.typing import Array, Float

TILE = 512
"""Queries and keys of a tile; fewer where there are fewer, in multiples of LANES."""
LANES = 128
INTERPRET = False
"""Run the kernels step by step on any backend, for tests."""


class Side(NamedTuple):
    """One side's numbers, or references to a tile's: [n, 1] for queries, [1, m] for keys."""

    bias: Any
    ids: Any
    groups: Any
    g: Any
    """Gradients that arrive at this side's sums; None: nothing arrives."""
    total: Any
    """The sums."""


def forward(q: Rows, k: Rows, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums; MASKED where a row or a column sees nothing."""
    columns = _sums(k, q, scale) if wanted.columns else None
    return Sums(_sums(q, k, scale), columns)


def backward(
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    tiling: Tiling,
    wanted: Wanted,
    sums: Sums,
    cotangents: Sums,
) -> Gradients:
    """Gradients, given the sums and the gradients that arrive at them."""
    own = tiling.triangle or (sums.columns is not None and not wanted.keys)
    dq, q_bias = _gathered(q, k, scale, sums, cotangents)
    gradients = Gradients(
        q=scale * dq,
        q_bias=q_bias if sums.columns is not None else None,
        k=None,
        k_bias=None,
        scale=(0.5 if own else 1.0) * jnp.sum(q.x * dq),
    )
    if own:
        return gradients
    turned = (Sums(each.columns, each.rows) for each in (sums, cotangents))  # type: ignore[arg-type]
    dk, k_bias = _gathered(k, q, scale, *turned)
    return gradients._replace(k=scale * dk, k_bias=k_bias)


LOG_SUM_EXP_TPU = Reduction(forward, backward, LOG_SUM_EXP.join, LOG_SUM_EXP.join_devices)


def _sums(q: Rows, k: Rows, scale: Float[Array, ""]) -> Float[Array, "n"]:
    """`log sum_j exp(s_ij + b_j)` of each query."""

    def kernel(
        scale_ref: Any, q_ref: Any, k_ref: Any, sides: Any, out: Any, peak: Any, sum_: Any
    ) -> None:
        j = pl.program_id(1)

        @pl.when(j == 0)
        def _() -> None:
            peak[...] = jnp.full_like(peak, MASKED)
            sum_[...] = jnp.zeros_like(sum_)

        logits = _tile(scale_ref, q_ref, k_ref, *sides) + sides[1].bias[...]
        highest = jnp.maximum(peak[...], jnp.max(logits, axis=1, keepdims=True))
        parts = jnp.where(logits > MASKED / 2, jnp.exp(logits - highest), 0)
        sum_[...] = sum_[...] * jnp.exp(peak[...] - highest) + jnp.sum(parts, axis=1, keepdims=True)
        peak[...] = highest

        @pl.when(j == pl.num_programs(1) - 1)
        def _() -> None:
            seen = sum_[...] > 0
            logs = peak[...] + jnp.log(jnp.where(seen, sum_[...], 1))
            out[...] = jnp.where(seen, logs, MASKED)

    column = jax.ShapeDtypeStruct((0, 1), jnp.float32)
    return _run(kernel, q, k, scale, (None, None), (None, None), [column], scratch=2)[0][:, 0]


def _gathered(
    q: Rows, k: Rows, scale: Float[Array, ""], sums: Sums, cotangents: Sums
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    """`sum_j G_ij k_j` of each query, and its bias's `sum_j h_j exp(s_ij + b_i - C_j)`."""

    def kernel(scale_ref: Any, q_ref: Any, k_ref: Any, sides: Any, dq: Any, bias: Any) -> None:
        j = pl.program_id(1)

        @pl.when(j == 0)
        def _() -> None:
            dq[...] = jnp.zeros_like(dq)
            bias[...] = jnp.zeros_like(bias)

        logits = _tile(scale_ref, q_ref, k_ref, *sides)
        of_q, of_k = sides
        g = jnp.zeros_like(logits)
        if of_q.g is not None:
            g += of_q.g[...] * _share(logits, of_k.bias[...], of_q.total[...])
        if of_k.g is not None:
            columns = of_k.g[...] * _share(logits, of_q.bias[...], of_k.total[...])
            bias[...] += jnp.sum(columns, axis=1, keepdims=True)
            g += columns
        dq[...] += _dot(g.astype(k_ref.dtype), k_ref[...])

    shapes = [
        jax.ShapeDtypeStruct((0, q.x.shape[1]), jnp.float32),
        jax.ShapeDtypeStruct((0, 1), jnp.float32),
    ]
    rows, columns = (cotangents.rows, sums.rows), (cotangents.columns, sums.columns)
    dq, bias = _run(kernel, q, k, scale, rows, columns, shapes)
    return dq, bias[:, 0]


def _share(logits: Array, bias: Array, total: Array) -> Array:
    """`exp(logits + bias - total)`, at most 1, 0 where nothing is seen."""
    seen = (logits > MASKED / 2) & (bias > MASKED / 2) & (total > MASKED / 2)
    return jnp.where(seen, jnp.exp(jnp.minimum(logits + bias - total, 0)), 0)


def _tile(scale_ref: Any, q_ref: Any, k_ref: Any, of_q: Side, of_k: Side) -> Float[Array, "t u"]:
    """Scaled dot products, MASKED where a pair does not see each other."""
    dots = jax.lax.dot_general(
        q_ref[...], k_ref[...], (((1,), (1,)), ((), ())),
        precision=_precision(q_ref), preferred_element_type=jnp.float32,
    )  # fmt: skip
    logits: Array = scale_ref[0, 0] * dots
    if of_q.ids is not None:
        logits = jnp.where(of_q.ids[...] == of_k.ids[...], MASKED, logits)
    if of_q.groups is not None:
        logits = jnp.where(of_q.groups[...] != of_k.groups[...], MASKED, logits)
    return logits


def _dot(g: Float[Array, "t u"], x: Float[Array, "u d"]) -> Float[Array, "t d"]:
    return jax.lax.dot_general(
        g, x, (((1,), (0,)), ((), ())),
        precision=_precision(x), preferred_element_type=jnp.float32,
    )  # fmt: skip


def _precision(x: Any) -> jax.lax.Precision:
    """float32 rows are multiplied in full; shorter ones the chip multiplies exactly anyway."""
    full = x.dtype == jnp.float32
    return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT


def _run(
    kernel: Any,
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    of_rows: tuple[Array | None, Array | None],
    of_columns: tuple[Array | None, Array | None],
    outputs: list[jax.ShapeDtypeStruct],
    *,
    scratch: int = 0,
) -> list[Array]:
    """Runs a kernel over all tiles, keys innermost, and cuts off what filled up the last tiles."""
    n, m, d = len(q.x), len(k.x), q.x.shape[1]
    t, u = (min(TILE, -(-count // LANES) * LANES) for count in (n, m))
    q_side, k_side = _laid_out(q, of_rows, -n % t, 1), _laid_out(k, of_columns, -m % u, 0)
    (q_x, q_numbers), (k_x, k_numbers) = q_side, k_side
    down, across = len(q_x) // t, len(k_x) // u

    def by_row(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((t, width), lambda i, j: (i, 0))

    per_key = pl.BlockSpec((1, u), lambda i, j: (0, j))
    specs: Any = (
        pl.BlockSpec((1, 1), lambda i, j: (0, 0), memory_space=pltpu.SMEM),
        by_row(d),
        pl.BlockSpec((u, d), lambda i, j: (j, 0)),
        jax.tree.map(lambda _: by_row(1), q_numbers),
        jax.tree.map(lambda _: per_key, k_numbers),
    )

    def body(scale_ref: Any, q_ref: Any, k_ref: Any, of_q: Any, of_k: Any, *rest: Any) -> None:
        kernel(scale_ref, q_ref, k_ref, (of_q, of_k), *rest)

    found: list[Array] = pl.pallas_call(
        body,
        grid=(down, across),
        in_specs=specs,
        out_specs=[by_row(each.shape[1]) for each in outputs],
        out_shape=[jax.ShapeDtypeStruct((down * t, e.shape[1]), e.dtype) for e in outputs],
        scratch_shapes=[pltpu.VMEM((t, 1), jnp.float32)] * scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=INTERPRET,
    )(jnp.asarray(scale, jnp.float32).reshape(1, 1), q_x, k_x, q_numbers, k_numbers)
    return [x[:n] for x in found]


def _laid_out(
    rows: Rows, numbers: tuple[Array | None, Array | None], extra: int, axis: int
) -> tuple[Array, Side]:
    given = tuple(x for x in numbers if x is not None)
    rows, given = hidden_behind((rows, given), extra)
    g, total = given if given else (None, None)
    side = Side(rows.bias, rows.ids, rows.groups, g, total)
    return rows.x, jax.tree.map(partial(jnp.expand_dims, axis=axis), side)
