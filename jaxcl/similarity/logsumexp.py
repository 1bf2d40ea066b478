"""Log-sum-exp over pairs, tile by tile, and its gradient.

    rows     R_i = log sum_j exp(s_ij + b_j)        s_ij = scale * q_i . k_j
    columns  C_j = log sum_i exp(s_ij + b_i)

Only R and C are kept for the backward pass, which makes the tiles again. With g and h the incoming
gradients of R and C, all outgoing ones follow from one matrix,

    G_ij = g_i exp(s_ij + b_j - R_i) + h_j exp(s_ij + b_i - C_j)

    dq = scale G k,    dk = scale G' q,    dscale = sum_i q_i . (G k)_i

Where no logit can leave +-40 (a sum of exponentials then neither over- nor underflows), one
exponential for each pair serves rows, columns and both terms of G; elsewhere each has its own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcl.similarity.reduction import Gain, Gradients, Reduction, Sums, Wanted
from jaxcl.similarity.tiles import (
    MASKED,
    Found,
    Numbers,
    Pairs,
    Rows,
    Side,
    Tiling,
    Visit,
    sweep,
)
from jaxcl.typing import Array, Float, PyTree

SAFE = 40.0
"""Largest logit whose exponentials float32 adds up, forward and backward, without a shift."""


def forward(q: Side, k: Side, scale: Float[Array, ""], tiling: Tiling, wanted: Wanted) -> Sums:
    """The sums; MASKED where a row or a column sees nothing."""
    both = wanted.columns or tiling.triangle

    def plain() -> tuple[PyTree, PyTree]:
        def visit(pairs: Pairs) -> Found:
            e = pairs.shown(jnp.exp(pairs.logits))
            rows = jnp.sum(e * jnp.exp(pairs.k.bias)[None, :], axis=1)
            if not both:
                return Found(rows)
            return Found(rows, jnp.sum(e * jnp.exp(pairs.q.bias)[:, None], axis=0))

        rows, columns = sweep(tiling, q, k, scale, visit)
        return jax.tree.map(_log, rows), jax.tree.map(_log, columns)

    def careful() -> tuple[PyTree, PyTree]:
        def visit(pairs: Pairs) -> Found:
            logits = pairs.shown(pairs.logits, otherwise=MASKED)
            rows = _summed(logits + pairs.k.bias[None, :], axis=1)
            if not both:
                return Found(rows)
            return Found(rows, _summed(logits + pairs.q.bias[:, None], axis=0))

        return sweep(tiling, q, k, scale, visit, join=jnp.logaddexp, neutral=MASKED)

    rows, columns = jax.lax.cond(_all_small(q, k, scale), plain, careful)
    return Sums(rows, columns if wanted.columns else None)


def backward(
    q: Side,
    k: Side,
    scale: Float[Array, ""],
    tiling: Tiling,
    wanted: Wanted,
    sums: Sums,
    cotangents: Sums,
) -> Gradients:
    """Gradients, given the sums and the gradients that arrive at them."""
    of_rows = tuple(zip(cotangents.rows, sums.rows, strict=True))
    of_columns: Numbers = ()
    if sums.columns is not None and cotangents.columns is not None:
        of_columns = tuple(zip(cotangents.columns, sums.columns, strict=True))

    def found(to_rows: Array, to_columns: Array | None) -> Found:
        """From the two terms of G."""
        of_q = to_columns.sum(1) if wanted.biases and to_columns is not None else None
        of_k = to_rows.sum(0) if wanted.biases else None
        return Found(of_q, of_k, to_rows if to_columns is None else to_rows + to_columns)

    def plain() -> tuple[PyTree, PyTree]:
        def visit(pairs: Pairs) -> Found:
            e = pairs.shown(jnp.exp(pairs.logits))
            to_rows = pairs.per_query[0][:, None] * jnp.exp(pairs.k.bias)[None, :]
            if not of_columns:
                return found(e * to_rows, None)
            to_columns = jnp.exp(pairs.q.bias)[:, None] * pairs.per_key[0][None, :]
            if wanted.biases:
                return found(e * to_rows, e * to_columns)
            return found(e * (to_rows + to_columns), None)

        per_query, per_key = (
            tuple((_over(*numbers),) for numbers in side) for side in (of_rows, of_columns)
        )
        return swept(visit, per_query, per_key)

    def careful() -> tuple[PyTree, PyTree]:
        def share(pairs: Pairs, bias: Array, total: Array) -> Array:
            logs = jnp.minimum(pairs.logits + bias - total, 0)  # a share is at most 1
            return jnp.where(total > MASKED / 2, pairs.shown(jnp.exp(logs)), 0)

        def visit(pairs: Pairs) -> Found:
            g, total = (x[:, None] for x in pairs.per_query)
            to_rows = g * share(pairs, pairs.k.bias[None, :], total)
            if not of_columns:
                return found(to_rows, None)
            h, total = (x[None, :] for x in pairs.per_key)
            return found(to_rows, h * share(pairs, pairs.q.bias[:, None], total))

        return swept(visit, of_rows, of_columns)

    def swept(visit: Visit, per_query: Numbers, per_key: Numbers) -> tuple[PyTree, PyTree]:
        return sweep(
            tiling, q, k, scale, visit,
            per_query=per_query, per_key=per_key, keys=wanted.keys,
        )  # fmt: skip

    to_q, to_k = jax.lax.cond(_all_small(q, k, scale), plain, careful)
    on_q, on_k = (tuple(view and Gain(*view) for view in side) for side in (to_q, to_k))
    return Gradients(on_q, on_k if wanted.keys and not tiling.triangle else None)


def _all_small(q: Side, k: Side, scale: Array) -> Array:
    """Whether no logit, bias included, can leave +-SAFE."""

    def longest(rows: Rows) -> Array:
        if rows.lengths is not None:
            return jnp.ones(())
        return jnp.sqrt(jnp.max(jnp.sum(jnp.square(rows.x.astype(jnp.float32)), axis=1)))

    def strongest(rows: Rows) -> Array:
        return jnp.max(jnp.where(rows.bias > MASKED / 2, jnp.abs(rows.bias), 0))

    def most(measure: Callable[[Rows], Array], side: Side) -> Array:
        return jnp.max(jnp.stack([measure(rows) for rows in side]))

    reach = jnp.abs(scale) * most(longest, q) * most(longest, k)
    return reach + most(strongest, q + k) <= SAFE


def _summed(logits: Array, axis: int) -> Array:
    peak = jnp.max(logits, axis=axis, keepdims=True)
    total = jnp.sum(jnp.exp(logits - peak), axis=axis)
    return jnp.squeeze(peak, axis) + jnp.log(total)


def _log(total: Array) -> Array:
    return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)), MASKED)


def _over(g: Array, total: Array) -> Array:
    """`g * exp(-total)`, 0 where nothing was summed."""
    seen = total > MASKED / 2
    return jnp.where(seen, g * jnp.exp(-jnp.where(seen, total, 0)), 0)


def _join_devices(part: Array, axis: str) -> Array:
    largest = jax.lax.pmax(part, axis)
    total = jax.lax.psum_scatter(jnp.exp(part - largest), axis, tiled=True)
    mine = jax.lax.axis_index(axis) * len(total)
    return jax.lax.dynamic_slice_in_dim(largest, mine, len(total)) + jnp.log(total)


LOG_SUM_EXP = Reduction(forward, backward, jnp.logaddexp, _join_devices)
