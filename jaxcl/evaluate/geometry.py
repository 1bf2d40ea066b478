"""How features lie on the sphere: alignment, uniformity, and three signs of collapse.

All functions are pure, normalise the rows themselves, and stay finite for zero rows, so they may
run inside a training step as well as on a finished encoder.

References: Wang & Isola 2020, arXiv:2005.10242 (alignment, uniformity); Roy & Vetterli 2007
(effective rank); Garrido et al. 2023, arXiv:2210.02885 (its use on embeddings).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.losses import alignment, uniformity
from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Float

__all__ = ["alignment", "effective_rank", "feature_std", "top_singular_share", "uniformity"]

EPS = float(np.finfo(np.float32).eps)


def feature_std(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean over dimensions of the standard deviation of unit rows, times sqrt(d).

    Args:
      x: [n, d] features.

    Returns:
      [] float32: 1 = spread evenly over the sphere, 0 = collapsed to one point.

    Reference: Chen & He 2021, arXiv:2011.10566, section 4.1 (there without the factor sqrt(d)).
    """
    x = unit_rows(x)
    return jnp.mean(jnp.std(x, axis=0)) * jnp.sqrt(x.shape[1])


def effective_rank(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Number of directions the unit rows use: exp of the entropy of their singular values' shares.

        exp(-sum_i p_i log p_i),    p_i = s_i / sum_j s_j

    Not centred: rows that all coincide then have rank 1, where centring would leave only rounding
    noise, which looks like full rank. The mean direction counts as one among the others.

    The singular values come from the smaller Gram matrix, whose rounding hides those below about
    0.2 % of the largest; they count as zero.

    Args:
      x: [n, d] features.

    Returns:
      [] float32 between 1 and min(n, d).

    References: Roy & Vetterli 2007, "The effective rank"; Garrido et al. 2023, arXiv:2210.02885.
    """
    share = _singular_shares(x)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1))))


def top_singular_share(x: Float[Array, "n d"]) -> Float[Array, ""]:
    """Largest singular value of the unit rows as a share of their sum; 1 = one direction only.

    Not centred, as `effective_rank`.

    Args:
      x: [n, d] features.

    Returns:
      [] float32 between 1 / min(n, d) and 1.
    """
    return jnp.max(_singular_shares(x))


def _singular_shares(x: Array) -> Array:
    """Singular values of the unit rows over their sum, [min(n, d)]; all-zero rows count as one."""
    x = unit_rows(x)
    x = x if x.shape[0] >= x.shape[1] else x.T
    squares = jnp.linalg.eigvalsh(jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST))
    floor = 32 * EPS * squares[-1]
    values = jnp.sqrt(jnp.where(squares > floor, squares, 0))
    values = values.at[-1].set(jnp.where(values[-1] > 0, values[-1], 1))
    return values / jnp.sum(values)
