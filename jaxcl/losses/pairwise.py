"""Losses of single pairs: the contrastive loss of Hadsell and the N-pair loss."""

import jax.numpy as jnp

from jaxcl.losses.info_nce import info_nce
from jaxcl.losses.rows import as_rows, check_pairs
from jaxcl.typing import Array, Float


def distance(a: Float[Array, "... d"], b: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Euclidean distance of rows, in float32 at least, with gradient 0 where they coincide."""
    squares = jnp.sum(jnp.square(as_rows(a) - as_rows(b)), axis=-1)
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)


def pair_contrastive(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    similar: Float[Array, "n"],
    *,
    margin: float = 1.0,
) -> Float[Array, ""]:
    """`mean of similar D^2 / 2 + (1 - similar) max(0, margin - D)^2 / 2`.

    Args:
      a, b: [n, d] rows, not normalised here; D is the Euclidean distance of row i of both.
      similar: [n] 1 for a pair that belongs together, 0 for one that does not (the paper's labels
        are the other way round).
      margin: distance beyond which other pairs are left alone.

    Returns:
      [] float32.

    Raises:
      ValueError: shapes differ.

    Reference: Hadsell, Chopra & LeCun 2006, eq. 4.
    """
    check_pairs(a, b)
    d = distance(a, b)
    far = jnp.maximum(margin - d, 0)
    return jnp.mean(similar * d**2 + (1 - similar) * far**2) / 2


def n_pair(a: Float[Array, "n d"], b: Float[Array, "n d"], *, l2: float = 0.0) -> Float[Array, ""]:
    """`mean_i log(1 + sum_{j != i} exp(a_i . b_j - a_i . b_i))` plus an L2 term.

    Args:
      a: [n, d] anchors, one of each class; not normalised.
      b: [n, d] their positives.
      l2: factor of the mean squared length of the rows of both, added up; 0.002 / 4 is common.

    Returns:
      [] float32.

    Raises:
      ValueError: shapes differ.

    Reference: Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective".
    """
    value = info_nce(a, b, temperature=1.0, normalize=False)
    if not l2:
        return value
    lengths = [jnp.mean(jnp.sum(jnp.square(as_rows(x)), axis=1)) for x in (a, b)]
    return value + l2 * (lengths[0] + lengths[1])
