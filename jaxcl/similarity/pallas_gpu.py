"""Tiles as GPU kernels (Triton): logits live in registers, and only what is found of them is kept.

A program makes the logits of one block of pairs, some numbers of the rows at a time, and visits
them. Products with the slopes, which come out in the rows' type, are left to XLA.

jax 0.12 announces the end of this backend; its successor, Mosaic GPU, wants a chip at hand to be
written for.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxcl.similarity.rows import short
from jaxcl.similarity.tiles import (
    Found,
    Join,
    Run,
    Visit,
    found_of,
    hidden_behind,
    precision,
)
from jaxcl.typing import Array, Float

QUERIES, KEYS = 128, 128
"""Of a block; powers of two, as Triton has it."""
CHUNK = 64
"""Numbers of a row at a time; half as many of 32 bits."""
WARPS, STAGES = 8, 3
INTERPRET = False
"""Run the kernels step by step on any backend, for tests."""


def in_blocks(
    visit: Visit, of_q: Run, of_k: Run, scale: Float[Array, ""], *, join: Join, neutral: float
) -> Found:
    """What `visit` finds of a tile, block by block; findings are joined in one fixed order."""
    n, m, kind = len(of_q[0].x), len(of_k[0].x), of_q[0].x.dtype
    chunk = CHUNK if short(of_q[0].x) else CHUNK // 2
    q_x, of_q = _laid_out(of_q, QUERIES, chunk)
    k_x, of_k = _laid_out(of_k, KEYS, chunk)

    def look(products: Array, scale: Array, of_q: Any, of_k: Any) -> Found:
        found = found_of(visit, scale * products, of_q, of_k)
        return found if found.slope is None else found._replace(slope=found.slope.astype(kind))

    def visit_block(scale: Any, q: Any, k: Any, of_q: Any, of_k: Any, *out: Any) -> None:
        def more(c: Array, products: Array) -> Array:
            part = pl.ds(c * chunk, chunk)
            return products + jax.lax.dot_general(
                q[:, part], k[:, part], (((1,), (1,)), ((), ())),
                precision=precision(q), preferred_element_type=jnp.float32,
            )  # fmt: skip

        none = jnp.zeros((QUERIES, KEYS), jnp.float32)
        products = jax.lax.fori_loop(0, q.shape[1] // chunk, more, none)
        of_q, of_k = jax.tree.map(lambda ref: ref[...], (of_q, of_k))
        found = look(products, scale[0], of_q, of_k)
        for ref, x in zip(out, jax.tree.leaves(found), strict=True):
            ref[...] = x

    down, across = len(q_x) // QUERIES, len(k_x) // KEYS
    # For each kind of finding the shape of all blocks' together, and which part is a block's.
    kinds = (
        ((across, len(q_x)), pl.BlockSpec((None, QUERIES), lambda i, j: (j, i))),
        ((down, len(k_x)), pl.BlockSpec((None, KEYS), lambda i, j: (i, j))),
        ((len(q_x), len(k_x)), pl.BlockSpec((QUERIES, KEYS), lambda i, j: (i, j))),
    )
    products = jax.ShapeDtypeStruct((QUERIES, KEYS), jnp.float32)
    one = jax.tree.map(lambda x: x[:QUERIES], of_q), jax.tree.map(lambda x: x[:KEYS], of_k)
    found = jax.eval_shape(look, products, scale, *one)
    outputs = [
        (jax.ShapeDtypeStruct(shape, x.dtype), part)
        for (shape, part), some in zip(kinds, found, strict=True)
        for x in jax.tree.leaves(some)
    ]
    parts = pl.pallas_call(
        visit_block,
        grid=(down, across),
        in_specs=[
            pl.BlockSpec(None),
            pl.BlockSpec((QUERIES, q_x.shape[1]), lambda i, j: (i, 0)),
            pl.BlockSpec((KEYS, k_x.shape[1]), lambda i, j: (j, 0)),
            jax.tree.map(lambda _: pl.BlockSpec((QUERIES,), lambda i, j: (i,)), of_q),
            jax.tree.map(lambda _: pl.BlockSpec((KEYS,), lambda i, j: (j,)), of_k),
        ],
        out_specs=[part for _, part in outputs],
        out_shape=[shape for shape, _ in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
        interpret=INTERPRET,
    )(jnp.asarray(scale, jnp.float32).reshape(1), q_x, k_x, of_q, of_k)
    queries, keys, slope = jax.tree.unflatten(jax.tree.structure(found), parts)

    def joined(x: Array, count: int) -> Array:
        total: Array = jax.lax.reduce(x, jnp.asarray(neutral, x.dtype), join, (0,))
        return total[:count]

    return Found(
        jax.tree.map(lambda x: joined(x, n), queries),
        jax.tree.map(lambda x: joined(x, m), keys),
        None if slope is None else slope[:n, :m],
    )


def _laid_out(run: Run, block: int, chunk: int) -> tuple[Float[Array, "n d"], Run]:
    """Rows, and what else is known of them, filled up to whole blocks and chunks."""
    rows, numbers = hidden_behind(run, -len(run[0].x) % block)
    x = jnp.pad(rows.x, ((0, 0), (0, -rows.x.shape[1] % chunk)))
    return x, (rows._replace(x=cast(Array, None)), numbers)
