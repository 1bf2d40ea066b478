"""What the pages of this folder share: how rows and labels come in."""

import jax
import jax.numpy as jnp

from jaxcl.similarity import cosines, unit_rows
from jaxcl.typing import Array, Float, Int


def as_rows(x: Float[Array, "n d"], normalize: bool = False) -> Float[Array, "n d"]:
    """Unit rows, or the rows as they are; in float32 at least."""
    x = jnp.asarray(x)
    return unit_rows(x) if normalize else x.astype(jnp.promote_types(x.dtype, jnp.float32))


def own_pairs(
    a: Float[Array, "n d"], b: Float[Array, "n d"], *, normalize: bool = False
) -> Float[Array, "n"]:
    """Dot product of row i of one with row i of the other; of their directions, if so asked."""
    return cosines(a, b) if normalize else jnp.sum(as_rows(a) * as_rows(b), axis=-1)


def check_pairs(a: Array, b: Array) -> None:
    """Raises ValueError unless both are [n, d] with at least one row."""
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(f"a and b must both be [n, d]; got {a.shape} and {b.shape}")


def mean_over(x: Float[Array, "n"], counts: Array) -> Float[Array, ""]:
    """Mean of the rows that count; 0 where none does."""
    kept = counts.astype(x.dtype)
    return jnp.sum(jnp.where(counts, x, 0)) / jnp.maximum(jnp.sum(kept), 1)


def stopped(x: Array, stop: bool) -> Array:
    """The same array, without gradient if asked."""
    return jax.lax.stop_gradient(x) if stop else x


def singled_out(labels: Int[Array, "n"]) -> Int[Array, "n"]:
    """Labels in which each unlabelled row (-1) is a class of its own."""
    return jnp.where(labels < 0, -1 - jnp.arange(len(labels)), labels)
