"""Losses of single pairs: contrastive ones of given pairs and of all in a batch, and N-pair."""

import jax
import jax.numpy as jnp

from jaxcl.losses.info_nce import info_nce
from jaxcl.losses.rows import as_rows, check_pairs, singled_out
from jaxcl.similarity.tiles import dots
from jaxcl.typing import Array, Float, Int

ANCHORS_AT_ONCE = 256
"""Anchors whose distances to all rows `batch_contrastive` holds at a time."""


def distance(a: Float[Array, "... d"], b: Float[Array, "... d"]) -> Float[Array, "..."]:
    """Euclidean distance of rows, in float32 at least, with gradient 0 where they coincide."""
    squares = jnp.sum(jnp.square(as_rows(a) - as_rows(b)), axis=-1)
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)


def distances(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Euclidean distances of all pairs of rows, with gradient 0 where they coincide."""
    squares = squared_distances(a, b)
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)


def squared_distances(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squares of `distances`, by one product of matrices."""
    lengths = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)
    return jnp.maximum(lengths - 2 * dots(a, b), 0)


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


def batch_contrastive(
    z: Float[Array, "n d"],
    labels: Int[Array, "n"],
    *,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    only_active: bool = True,
    normalize: bool = True,
) -> Float[Array, ""]:
    """Positive pairs are drawn together and negative ones pushed apart, over all pairs of a batch.

        mean of max(0, D_ij - positive_margin) over pairs of one class
        + mean of max(0, negative_margin - D_ij) over pairs of two classes

    D_ij is the Euclidean distance. Unlike in `pair_contrastive` it is not squared. Memory is
    linear in n: the distances of some anchors are made at a time, and again in the backward pass.

    Args:
      z: [n, d] rows.
      labels: [n] class ids. A row labelled -1 has no positive and is a negative of every other.
      positive_margin: distance below which pairs of one class are left alone.
      negative_margin: distance beyond which pairs of two classes are left alone.
      only_active: each mean is over the pairs whose term is above 0, as in
        pytorch-metric-learning's AvgNonZeroReducer; False: over all pairs of its kind.
      normalize: scale rows to length 1 first; False: take them as they are.

    Returns:
      [] float32; a kind of pair that does not occur adds 0.

    Raises:
      ValueError: shapes that do not fit.

    Reference: KevinMusgrave/pytorch-metric-learning, losses/contrastive_loss.py.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"z and labels must be [n, d] and [n]; got {z.shape} and {labels.shape}")
    z, labels, row = as_rows(z, normalize), singled_out(labels), jnp.arange(len(z))

    def of_anchor(i: Int[Array, ""]) -> tuple[Array, Array]:
        """Sums of the positive and of the negative terms of an anchor, and their numbers."""
        d = distances(z[i][None], z)[0]
        alike = labels == labels[i]
        pulls = jnp.where(alike & (row != i), jnp.maximum(d - positive_margin, 0), 0)
        pushes = jnp.where(alike, 0, jnp.maximum(negative_margin - d, 0))
        terms = jnp.stack([pulls, pushes])
        counts = terms > 0 if only_active else jnp.stack([alike & (row != i), ~alike])
        return jnp.sum(terms, axis=1), jnp.sum(counts, axis=1, dtype=d.dtype)

    found = jax.lax.map(jax.checkpoint(of_anchor), row, batch_size=ANCHORS_AT_ONCE)
    sums, counts = (jnp.sum(x, axis=0) for x in found)
    return jnp.sum(sums / jnp.maximum(counts, 1))


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
