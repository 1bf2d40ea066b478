"""Alignment and uniformity: how near positives lie, and how evenly all rows cover the sphere.

Reference: Wang & Isola 2020, arXiv:2005.10242.
"""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs
from jaxcl.similarity import logsumexp_among
from jaxcl.typing import Array, Float


def alignment(a: Float[Array, "n d"], b: Float[Array, "n d"], alpha: float = 2) -> Float[Array, ""]:
    """Mean distance of positive pairs, to the power `alpha`: mean |a_i - b_i|^alpha.

    Args:
      a, b: [n, d] features of two views; row i of each belongs together. Normalised here.
      alpha: positive power; 2 in the paper.

    Returns:
      [] float32: 0 = the views of an example coincide, 2 (for alpha 2) = they are unrelated.

    Raises:
      ValueError: shapes differ.

    Reference: eq. 8.
    """
    check_pairs(a, b)
    squared = jnp.sum((as_rows(a, normalize=True) - as_rows(b, normalize=True)) ** 2, axis=1)
    if alpha == 2:
        return jnp.mean(squared)
    # The gradient of 0 ** (alpha / 2) is infinite below alpha 2.
    return jnp.mean(jnp.maximum(squared, 1e-30) ** (alpha / 2))


def uniformity(x: Float[Array, "n d"], t: float = 2) -> Float[Array, ""]:
    """Log of the mean Gaussian potential of all unordered distinct pairs.

        log mean_{i<j} exp(-t |x_i - x_j|^2)

    Args:
      x: [n, d] features, normalised here.
      t: positive width; 2 in the paper.

    Returns:
      [] float32, between -4t (two opposite points) and 0 (all rows the same): lower is more even.

    Raises:
      ValueError: fewer than two rows.

    Reference: eq. 9.
    """
    if len(x) < 2:
        raise ValueError(f"uniformity needs at least two rows, got {len(x)}")
    x = as_rows(x, normalize=True)
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, with lengths computed: a zero row stays zero.
    lengths = jnp.sum(x * x, axis=1)
    rows = logsumexp_among(x, scale=2 * t, bias=-t * lengths) - t * lengths
    return jax.nn.logsumexp(rows) - jnp.log(len(x) * (len(x) - 1.0))


def alignment_and_uniformity(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    alpha: float = 2,
    t: float = 2,
    weight: float = 1.0,
) -> Float[Array, ""]:
    """Alignment plus `weight` times the mean uniformity of both views, as a loss of its own.

    Reference: the example of ssnl/align_uniform.
    """
    return alignment(a, b, alpha) + weight * (uniformity(a, t) + uniformity(b, t)) / 2
