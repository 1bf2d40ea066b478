"""Losses without negatives that keep the dimensions of the embedding apart."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs
from jaxcl.typing import Array, Float


def barlow_twins(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    off_diagonal: float = 0.0051,
    eps: float = 1e-5,
) -> Float[Array, ""]:
    """`sum_i (C_ii - 1)^2 + off_diagonal * sum_{i != j} C_ij^2` of the cross-correlation C.

    Each dimension of each view is first standardised over the batch. Memory is O(d^2).

    Args:
      a, b: [n, d] embeddings of two views, of the global batch.
      off_diagonal: weight of the redundancy term.
      eps: added to the variances.

    Returns:
      [] a sum over dimensions, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Zbontar et al. 2021, arXiv:2103.03230, eq. 1.
    """
    check_pairs(a, b)
    a, b = (_standardised(as_rows(x, normalize=False), eps) for x in (a, b))
    c = jnp.matmul(a.T, b, precision="highest") / len(a)
    diagonal = jnp.diagonal(c)
    rest = jnp.sum(c**2) - jnp.sum(diagonal**2)
    return jnp.sum((diagonal - 1) ** 2) + off_diagonal * rest


class VICReg(NamedTuple):
    """The three terms, unweighted, float32."""

    invariance: Float[Array, ""]
    """Mean squared difference of the views."""
    variance: Float[Array, ""]
    """How far the dimensions' standard deviations fall short of 1; mean over views."""
    covariance: Float[Array, ""]
    """Squared covariances of different dimensions over d; sum over views."""


def vicreg_terms(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> VICReg:
    """Invariance, variance and covariance of two views.

    Args:
      a, b: [n, d] embeddings of the global batch, two rows at least.

    Raises:
      ValueError: shapes differ, or one row only, which has no variance.

    Reference: Bardes, Ponce & LeCun 2022, arXiv:2105.04906, eqs. 1 to 5, with the authors' code's
    mean over views in the variance (the paper adds them up).
    """
    check_pairs(a, b)
    if len(a) < 2:
        raise ValueError("one row has no variance; give two or more")
    a, b = as_rows(a, normalize=False), as_rows(b, normalize=False)
    variance, covariance = zip(*(_spread(x) for x in (a, b)), strict=True)
    return VICReg(jnp.mean((a - b) ** 2), sum(variance) / 2, covariance[0] + covariance[1])


def vicreg(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Array, ""]:
    """The weighted sum of `vicreg_terms`; arguments as there."""
    terms = vicreg_terms(a, b)
    return invariance * terms.invariance + variance * terms.variance + covariance * terms.covariance


def _standardised(x: Float[Array, "n d"], eps: float) -> Float[Array, "n d"]:
    centred = x - jnp.mean(x, axis=0)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=0) + eps)


def _spread(x: Float[Array, "n d"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    centred = x - jnp.mean(x, axis=0)
    deviation = jnp.sqrt(jnp.sum(centred**2, axis=0) / (len(x) - 1) + 1e-4)
    covariance = jnp.matmul(centred.T, centred, precision="highest") / (len(x) - 1)
    rest = jnp.sum(covariance**2) - jnp.sum(jnp.diagonal(covariance) ** 2)
    return jnp.mean(jnp.maximum(1 - deviation, 0)), rest / x.shape[1]
