"""Rows as directions."""

import jax
import jax.numpy as jnp

from jaxcl.typing import Array, Float


def unit_rows(x: Float[Array, "... d"], *, eps: float = 1e-12) -> Float[Array, "... d"]:
    """Rows scaled to length 1, in float32; a zero row stays zero and has a finite gradient.

    Args:
      x: [..., d] rows, any float type.
      eps: shortest length that is still scaled up to 1.

    Returns:
      [..., d] float32.
    """
    x = x.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, eps * eps))
