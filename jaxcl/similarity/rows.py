"""Rows as directions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.typing import Array, Float

SHORTEST = 1e-12
"""Length below which a row is not scaled up to 1, so that zero rows stay zero."""

EXPONENT = 0xFF << 23
"""Bits of a positive float32 that alone make the power of two below it."""


class Lengths(NamedTuple):
    """How long rows are, in two numbers each, since squares of long rows overflow."""

    near: Float[Array, "..."]
    """Largest of the row's numbers, or the shortest length that is scaled up to 1."""
    squares: Float[Array, "..."]
    """Of the length over `near`."""

    @classmethod
    def of(cls, x: Float[Array, "... d"], *, eps: float = SHORTEST) -> "Lengths":
        """Of all rows; gradients flow through `squares` alone."""
        near = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(widened(x)), axis=-1), eps))
        return cls(near, jnp.sum(jnp.square(widened(x) / near[..., None]), axis=-1))

    def divide(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """`x` over the lengths, row by row; below the shortest, over that."""
        inverse = jax.lax.rsqrt(jnp.where(self.squares < 1, 1, self.squares))
        return (widened(x) / self.near[..., None]) * inverse[..., None]

    def apart(self, x: Float[Array, "... d"]) -> tuple[Float[Array, "... d"], Float[Array, "..."]]:
        """`divide(x)` as two factors, the rows in their own type and a number for each.

        Rows are scaled by powers of two, so that their largest numbers are in [1, 2) and nothing
        is rounded.
        """
        bits = jax.lax.bitcast_convert_type(self.near.astype(jnp.float32), jnp.int32)
        power = jax.lax.bitcast_convert_type(bits & EXPONENT, jnp.float32)
        inverse = jax.lax.rsqrt(jnp.where(self.squares < 1, 1, self.squares))
        return x / power[..., None].astype(x.dtype), power / self.near * inverse

    def pull_back(
        self, unit: Float[Array, "n d"], slope: Float[Array, "n d"], along: Float[Array, "n"]
    ) -> Float[Array, "n d"]:
        """Gradient of the rows from that of their directions, `along` = unit . slope."""
        free = jnp.where(self.squares < 1, 0, along)
        return self.divide(slope - free[:, None] * unit)


def unit_rows(x: Float[Array, "... d"], *, eps: float = SHORTEST) -> Float[Array, "... d"]:
    """Rows scaled to length 1, in float32 at least; a zero row stays zero, its gradient finite.

    Args:
      x: [..., d] rows, any float type, of any length that the type holds.
      eps: shortest length that is still scaled up to 1.

    Returns:
      [..., d] float32, or float64 for such rows.
    """
    x = jnp.asarray(x)
    return Lengths.of(x, eps=eps).divide(x)


@jax.custom_vjp
def cosines(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, "n"]:
    """Dot product of the directions of row i of one and row i of the other.

    The gradient is that of `unit_rows`, written so that the compiler keeps nothing as large as the
    rows for it.
    """
    return _cosines(a, b)[0]


def _cosines(a: Array, b: Array) -> tuple[Array, Any]:
    lengths = Lengths.of(a), Lengths.of(b)
    found = jnp.sum(lengths[0].divide(a) * lengths[1].divide(b), axis=1)
    return found, (a, b, *lengths, found)


def _cosines_back(kept: Any, g: Array) -> tuple[Array, Array]:
    a, b, of_a, of_b, found = kept
    u, v = of_a.divide(a), of_b.divide(b)
    found, g = jax.lax.optimization_barrier(found), jax.lax.optimization_barrier(g)
    da = of_a.pull_back(u, v, found) * g[:, None]
    db = of_b.pull_back(v, u, found) * g[:, None]
    return da.astype(a.dtype), db.astype(b.dtype)


cosines.defvjp(_cosines, _cosines_back)


def widened(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """In float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def short(x: Array) -> bool:
    """Whether the numbers have 16 bits."""
    return bool(x.dtype.itemsize < 4)
