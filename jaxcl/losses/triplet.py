"""Triplet losses: an anchor nearer to its positive than to a negative, by a margin."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxcl.losses.pairwise import distance, distances, squared_distances
from jaxcl.losses.rows import as_rows, mean_over
from jaxcl.typing import Array, Bool, Float, Int

FAR = 1e9
"""Stands for a distance that is never the smallest."""


def triplet(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    negative: Float[Array, "n d"],
    *,
    margin: float | None = 0.2,
    squared: bool = True,
) -> Float[Array, ""]:
    """`mean max(0, d(a, p) - d(a, n) + margin)` of given triplets; rows are not normalised here.

    Args:
      anchor, positive, negative: [n, d].
      margin: None: the soft margin, `log(1 + exp(d(a, p) - d(a, n)))`.
      squared: squared Euclidean distances, as in the paper; False: Euclidean.

    Returns:
      [] float32.

    Raises:
      ValueError: shapes differ.

    Reference: Schroff et al. 2015, arXiv:1503.03832, eq. 3; Hermans et al. 2017, arXiv:1703.07737.
    """
    if not anchor.shape == positive.shape == negative.shape or anchor.ndim != 2:
        raise ValueError(
            f"anchor, positive and negative must all be [n, d]; got {anchor.shape}, "
            f"{positive.shape} and {negative.shape}"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if squared:
        near, far = near**2, far**2
    return jnp.mean(_hinge(near - far, margin))


def batch_triplet(
    z: Float[Array, "n d"],
    labels: Int[Array, "n"],
    *,
    mining: Literal["all", "semi-hard", "hard"] = "semi-hard",
    margin: float | None = 0.2,
    squared: bool = True,
    only_active: bool = False,
) -> Float[Array, ""]:
    """Triplets found within a batch by its labels; rows are not normalised here.

    "all" takes every triplet; "semi-hard", for each anchor and positive, the nearest negative that
    is farther than the positive, or the farthest one if none is; "hard", for each anchor, its
    farthest positive and its nearest negative. Anchors without a positive or a negative are left
    out. Memory is O(n^2).

    Args:
      z: [n, d] rows.
      labels: [n] class ids; -1: no positive of any row, and no anchor, but a negative.
      mining: which triplets.
      margin: None: the soft margin.
      squared: squared Euclidean distances; False: Euclidean.
      only_active: mean over triplets with a loss above 0 instead of over all.

    Returns:
      [] mean over triplets, float32; 0 where there are none.

    Raises:
      ValueError: shapes that do not fit.

    References: as `triplet`.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"z and labels must be [n, d] and [n]; got {z.shape} and {labels.shape}")
    z = as_rows(z)
    d = squared_distances(z, z) if squared else distances(z, z)
    row = jnp.arange(len(z))
    same = labels[:, None] == labels
    positive = same & (row[:, None] != row) & (labels >= 0)
    negative = ~same & (labels[:, None] >= 0)
    if mining == "hard":
        near = jnp.max(jnp.where(positive, d, -FAR), axis=1)
        far = jnp.min(jnp.where(negative, d, FAR), axis=1)
        counts = positive.any(1) & negative.any(1)
        return _mean(jnp.where(counts, near - far, 0), counts, margin, only_active)
    mine = _every_negative if mining == "all" else _semi_hard

    def of_anchor(args: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        gaps, counts = mine(*args)
        losses = _hinge(jnp.where(counts, gaps, 0), margin)
        counts &= (losses > 0) | (not only_active)
        return jnp.sum(jnp.where(counts, losses, 0)), jnp.sum(counts)

    # One anchor's [n, n] at a time, made again in the backward pass.
    sums, counts = jax.lax.map(jax.checkpoint(of_anchor), (d, positive, negative))
    return jnp.sum(sums) / jnp.maximum(jnp.sum(counts), 1)


def _every_negative(
    d: Float[Array, "n"], positive: Bool[Array, "n"], negative: Bool[Array, "n"]
) -> tuple[Array, Array]:
    return d[:, None] - d, positive[:, None] & negative


def _semi_hard(
    d: Float[Array, "n"], positive: Bool[Array, "n"], negative: Bool[Array, "n"]
) -> tuple[Array, Array]:
    beyond = negative & (d > d[:, None])
    nearest = jnp.min(jnp.where(beyond, d, FAR), axis=1)
    farthest = jnp.max(jnp.where(negative, d, -FAR))
    return d - jnp.where(beyond.any(1), nearest, farthest), positive & negative.any()


def _mean(gaps: Array, counts: Array, margin: float | None, only_active: bool) -> Array:
    losses = _hinge(gaps, margin)
    return mean_over(losses, counts & (losses > 0) if only_active else counts)


def _hinge(gap: Array, margin: float | None) -> Array:
    return jax.nn.softplus(gap) if margin is None else jnp.maximum(gap + margin, 0)
