"""How features lie on the sphere: alignment, uniformity, and three signs of collapse.

All functions are pure, normalise the rows themselves, and stay finite for zero rows, so they may
run inside a training step as well as on a finished encoder.

References: Wang & Isola 2020, arXiv:2005.10242 (alignment, uniformity); Roy & Vetterli 2007
(effective rank); Garrido et al. 2023, arXiv:2210.02885 (its use on embeddings).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.similarity import unit_rows
from jaxcl.typing import Array, Float

MASKED = -1e9
EPS = float(np.finfo(np.float32).eps)


def alignment(a: Float[Array, "n d"], b: Float[Array, "n d"], alpha: float = 2) -> Float[Array, ""]:
    """Mean distance of positive pairs, to the power `alpha`: mean |a_i - b_i|^alpha.

    Args:
      a, b: [n, d] features of two views; row i of each belongs together.
      alpha: positive power; 2 in the paper.

    Returns:
      [] float32: 0 = the views of an example coincide, 2 (for alpha 2) = they are unrelated.

    Reference: Wang & Isola 2020, arXiv:2005.10242, eq. 8.
    """
    squared = jnp.sum((unit_rows(a) - unit_rows(b)) ** 2, axis=1)
    if alpha == 2:
        return jnp.mean(squared)
    # The gradient of 0 ** (alpha / 2) is infinite below alpha 2.
    return jnp.mean(jnp.maximum(squared, 1e-30) ** (alpha / 2))


def uniformity(x: Float[Array, "n d"], t: float = 2) -> Float[Array, ""]:
    """Log of the mean Gaussian potential of all unordered distinct pairs.

        log mean_{i<j} exp(-t |x_i - x_j|^2)

    Dense: O(n^2) memory, so give at most some 10,000 rows.

    Args:
      x: [n, d] features.
      t: positive width; 2 in the paper.

    Returns:
      [] float32, between -4t (two opposite points) and 0 (all rows the same): lower is more even.

    Raises:
      ValueError: fewer than two rows.

    Reference: Wang & Isola 2020, arXiv:2005.10242, eq. 9.
    """
    if len(x) < 2:
        raise ValueError(f"uniformity needs at least two rows, got {len(x)}")
    x = unit_rows(x)
    # Zero rows stay zero, so their length is computed rather than taken as one.
    length = jnp.sum(x * x, axis=1)
    inner = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.maximum(length[:, None] + length - 2 * inner, 0)
    row = jnp.arange(len(x))
    potential = jnp.where(row[:, None] < row, -t * squared, MASKED)
    return jax.nn.logsumexp(potential) - jnp.log(len(x) * (len(x) - 1) / 2)


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
