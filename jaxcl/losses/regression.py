"""Predicting another network's output directly: BYOL, SimSiam, data2vec. No negatives."""

import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs, own_pairs
from jaxcl.typing import Array, Float


def byol(p: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, ""]:
    """`mean |p_i - z_i|^2` of unit rows, which is 2 - 2 cos: from 0 to 4, one direction.

    Args:
      p: [n, d] predictions, normalised here.
      z: [n, d] targets, normalised here; pass them through `stop_gradient`.

    Returns:
      [] float32.

    Raises:
      ValueError: shapes differ.

    Reference: Grill et al. 2020, arXiv:2006.07733, eq. 2.
    """
    check_pairs(p, z)
    difference = as_rows(p, normalize=True) - as_rows(z, normalize=True)
    return jnp.mean(jnp.sum(difference**2, axis=1))


def negative_cosine(p: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, ""]:
    """`-mean cos(p_i, z_i)`, from -1 to 1, one direction; arguments as `byol`.

    Reference: Chen & He 2021, arXiv:2011.10566, eq. 1.
    """
    check_pairs(p, z)
    return -jnp.mean(own_pairs(p, z, normalize=True))


def smooth_l1(
    p: Float[Array, "..."], z: Float[Array, "..."], *, beta: float = 2.0
) -> Float[Array, ""]:
    """Mean over elements of `r^2 / (2 beta)` where |r| < beta and `|r| - beta / 2` elsewhere.

    Args:
      p, z: predictions and targets of one shape; r = p - z.
      beta: positive width of the quadratic part.

    Returns:
      [] float32.

    Raises:
      ValueError: shapes differ.

    Reference: Baevski et al. 2022, arXiv:2202.03555, eq. 3.
    """
    if p.shape != z.shape:
        raise ValueError(f"p and z differ: {p.shape} and {z.shape}")
    r = jnp.abs(as_rows(p) - z)
    return jnp.mean(jnp.where(r < beta, r**2 / (2 * beta), r - beta / 2))
