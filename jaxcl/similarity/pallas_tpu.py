"""Log-sum-exp over pairs as TPU kernels: a tile lives in the chip's fast memory and nowhere else.

The grid goes over tiles, keys innermost; sums stay in fast memory until a run of queries is done.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcl.similarity.kernels import (
    Marks,
    Numbers,
    finished,
    joined,
    laid_out,
    logits_of,
    one_sided,
    product,
    read,
    weights,
)  # fmt: skip
from jaxcl.similarity.tiles import MASKED, Rows
from jaxcl.typing import Array, Float

TILE = 512
"""Queries and keys of a tile at most."""
LANES = 128
"""They come in multiples of this."""
INTERPRET = False
"""Run the kernels step by step on any backend, for tests."""


def _sums(q: Rows, k: Rows, scale: Float[Array, ""]) -> Float[Array, "n"]:
    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, out: Any, *kept: Any) -> None:
        peak, total = kept

        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            peak[...] = jnp.full_like(peak, MASKED)
            total[...] = jnp.zeros_like(total)

        keys = read(of_k)
        logits = logits_of(scale[0, 0], q[...], k[...], read(of_q), keys) + keys.bias
        peak[...], total[...] = joined(logits, peak[...], total[...])

        @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
        def _() -> None:
            out[...] = finished(peak[...], total[...])

    return _run(kernel, q, k, scale, (None, None), (None, None), (1,), kept=2)[0][:, 0]


def _gathered(
    q: Rows, k: Rows, scale: Float[Array, ""], rows: Numbers, columns: Numbers
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, dq: Any, bias: Any) -> None:
        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            dq[...] = jnp.zeros_like(dq)
            bias[...] = jnp.zeros_like(bias)

        queries, keys = read(of_q), read(of_k)
        logits = logits_of(scale[0, 0], q[...], k[...], queries, keys)
        g, of_bias = weights(logits, queries, keys)
        dq[...] += product(g, k[...], contract=0)
        bias[...] += of_bias

    dq, bias = _run(kernel, q, k, scale, rows, columns, (q.x.shape[1], 1))
    return dq, bias[:, 0]


LOG_SUM_EXP_TPU = one_sided(_sums, _gathered)


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
    q_x, of_q = laid_out(q, rows, -n % t, 1)
    k_x, of_k = laid_out(k, columns, -m % u, 0)

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
