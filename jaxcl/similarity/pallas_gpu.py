"""Log-sum-exp over pairs as GPU kernels (Triton): a tile lives in registers and nowhere else.

A program serves one run of queries and goes over all keys by itself. jax 0.12 announces the end of
this backend; its successor, Mosaic GPU, wants a chip at hand to be written for.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxcl.similarity.kernels import (
    Marks,
    Numbers,
    finished,
    joined,
    laid_out,
    logits_of,
    one_sided,
    product,
    weights,
)  # fmt: skip
from jaxcl.similarity.tiles import MASKED, Rows
from jaxcl.typing import Array, Float

QUERIES, KEYS = 64, 64
"""Of a tile; powers of two, as Triton has it."""
INTERPRET = False
"""Run the kernels step by step on any backend, for tests."""


def _sums(q: Rows, k: Rows, scale: Float[Array, ""]) -> Float[Array, "n"]:
    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, out: Any) -> None:
        queries, rows = _some(of_q, None), q[...]

        def tile(j: Array, kept: tuple[Array, Array]) -> tuple[Array, Array]:
            run = pl.ds(j * KEYS, KEYS)
            keys = _some(of_k, run)
            logits = logits_of(scale[0], rows, k[run, :], queries, keys) + keys.bias
            return joined(logits, *kept)

        start = (jnp.full((QUERIES, 1), MASKED), jnp.zeros((QUERIES, 1)))
        out[...] = finished(*jax.lax.fori_loop(0, k.shape[0] // KEYS, tile, start))[:, 0]

    return _run(kernel, q, k, scale, (None, None), (None, None), (None,))[0]


def _gathered(
    q: Rows, k: Rows, scale: Float[Array, ""], rows: Numbers, columns: Numbers
) -> tuple[Float[Array, "n d"], Float[Array, "n"]]:
    def kernel(scale: Any, q: Any, k: Any, of_q: Marks, of_k: Marks, dq: Any, bias: Any) -> None:
        queries, some = _some(of_q, None), q[...]

        def tile(j: Array, kept: tuple[Array, Array]) -> tuple[Array, Array]:
            run = pl.ds(j * KEYS, KEYS)
            keys, others = _some(of_k, run), k[run, :]
            g, of_bias = weights(logits_of(scale[0], some, others, queries, keys), queries, keys)
            return kept[0] + product(g, others, contract=0), kept[1] + of_bias

        start = (jnp.zeros(some.shape, jnp.float32), jnp.zeros((QUERIES, 1)))
        found = jax.lax.fori_loop(0, k.shape[0] // KEYS, tile, start)
        dq[...], bias[...] = found[0], found[1][:, 0]

    width = q.x.shape[1]
    dq, bias = _run(kernel, q, k, scale, rows, columns, (_power(width), None))
    return dq[:, :width], bias


LOG_SUM_EXP_GPU = one_sided(_sums, _gathered)


def _run(
    kernel: Any,
    q: Rows,
    k: Rows,
    scale: Float[Array, ""],
    rows: Numbers,
    columns: Numbers,
    widths: tuple[int | None, ...],
) -> list[Array]:
    """Outputs for each query, of the given widths or one number each."""
    n, m = len(q.x), len(k.x)
    wider = ((0, 0), (0, _power(q.x.shape[1]) - q.x.shape[1]))
    q, k = (rows._replace(x=jnp.pad(rows.x, wider)) for rows in (q, k))
    q_x, of_q = laid_out(q, rows, -n % QUERIES, 1)
    k_x, of_k = laid_out(k, columns, -m % KEYS, 0)
    of_q, of_k = (jax.tree.map(jnp.ravel, side) for side in (of_q, of_k))

    def by_query(width: int | None) -> pl.BlockSpec:
        if width is None:
            return pl.BlockSpec((QUERIES,), lambda i: (i,))
        return pl.BlockSpec((QUERIES, width), lambda i: (i, 0))

    def shape(width: int | None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(q_x), *([width] if width else [])), jnp.float32)

    whole = pl.BlockSpec(None)
    specs: Any = (
        whole, by_query(q_x.shape[1]), whole,
        jax.tree.map(lambda _: by_query(None), of_q), jax.tree.map(lambda _: whole, of_k),
    )  # fmt: skip
    found: list[Array] = pl.pallas_call(
        kernel,
        grid=(len(q_x) // QUERIES,),
        in_specs=specs,
        out_specs=[by_query(width) for width in widths],
        out_shape=[shape(width) for width in widths],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=INTERPRET,
    )(jnp.asarray(scale, jnp.float32).reshape(1), q_x, k_x, of_q, of_k)
    return [x[:n] for x in found]


def _some(side: Marks, run: Any) -> Marks:
    """A tile's numbers: a column for queries (run None), a row for keys."""
    if run is None:
        return Marks(*(None if ref is None else ref[...][:, None] for ref in side))
    return Marks(*(None if ref is None else ref[run][None, :] for ref in side))


def _power(width: int) -> int:
    """The next power of two that Triton's products take, 16 at least."""
    return max(16, 1 << (width - 1).bit_length())
