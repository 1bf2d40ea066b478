"""Rows as directions."""

import jax
import jax.numpy as jnp

from jaxcl.typing import Array, Float


def unit_rows(x: Float[Array, "... d"], *, eps: float = 1e-12) -> Float[Array, "... d"]:
    """Rows scaled to length 1, in float32 at least; a zero row stays zero, its gradient finite.

    Args:
      x: [..., d] rows, any float type, of any length that the type holds.
      eps: shortest length that is still scaled up to 1.

    Returns:
      [..., d] float32, or float64 for such rows.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # Squares of long rows overflow, so a number near the length, a constant, is divided out first:
    # it changes neither the direction nor, for the same reason, the gradient.
    near = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), eps)
    near = jax.lax.stop_gradient(near)
    y = x / near
    squares = jnp.sum(y * y, axis=-1, keepdims=True)
    return y * jax.lax.rsqrt(jnp.maximum(squares, jnp.square(eps / near)))
