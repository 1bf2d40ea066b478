"""NT-Xent: each view picks its twin out of all other views in the batch."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import check_pairs, own_pairs
from jaxcl.similarity import logsumexp_among, logsumexp_pairs, max_pairs
from jaxcl.typing import Array, Bool, Float


class NTXent(NamedTuple):
    """The loss and what is worth logging beside it."""

    loss: Float[Array, ""]
    """Nats."""
    accuracy: Float[Array, ""]
    """Share of the 2n anchors whose twin is nearer than every negative."""


def nt_xent(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    negatives: Float[Array, "m d"] | None = None,
    *,
    temperature: float | Float[Array, ""],
    shown: Bool[Array, "m"] | None = None,
    reduction: Literal["mean", "official"] = "mean",
) -> Float[Array, ""]:
    """Cross-entropy of picking each row's twin among the 2n - 1 other rows.

    Row i of `a` and row i of `b` are two views of one example. Rows are normalised here.

    Args:
      a: [n, d] embeddings of the first views, of the global batch.
      b: [n, d] embeddings of the second views.
      negatives: [m, d] further rows that every anchor is told from: a queue.
      temperature: positive scale; smaller is sharper.
      shown: [m] which of them count; None: all.
      reduction: "mean" over the 2n anchors as in the paper, or "official", twice that, as in
        the authors' code (mean of the sum of both directions).

    Returns:
      [] loss in nats, float32.

    Raises:
      ValueError: `a` and `b` differ in shape.

    Reference: Chen et al. 2020, arXiv:2002.05709, eq. 1; with `negatives`, arXiv:2006.10029.
    """
    return nt_xent_with_accuracy(
        a, b, negatives, temperature=temperature, shown=shown, reduction=reduction
    ).loss


def nt_xent_with_accuracy(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    negatives: Float[Array, "m d"] | None = None,
    *,
    temperature: float | Float[Array, ""],
    shown: Bool[Array, "m"] | None = None,
    reduction: Literal["mean", "official"] = "mean",
) -> NTXent:
    """`nt_xent` together with the contrastive accuracy, from the same pairs."""
    check_pairs(a, b)
    # Twins have one id: neither is the other's negative.
    ids, scale = jnp.arange(len(a)), 1 / temperature
    own = scale * own_pairs(a, b, normalize=True)
    views = (a, b)
    others = jnp.stack(logsumexp_among(views, scale=scale, ids=ids, normalize=True))
    hardest = jnp.stack(max_pairs(views, views, scale=scale, q_ids=ids, k_ids=ids, normalize=True))
    if negatives is not None:
        bias = None if shown is None else jnp.where(shown, 0.0, -jnp.inf)
        more = logsumexp_pairs(views, negatives, scale=scale, bias=bias, normalize=True)
        others = jnp.logaddexp(others, jnp.stack(more))
        nearest = max_pairs(views, negatives, scale=scale, bias=bias, normalize=True)
        hardest = jnp.maximum(hardest, jnp.stack(nearest))
    loss = jnp.mean(jnp.logaddexp(own, others) - own)
    accuracy = jnp.mean(own > hardest)
    if reduction == "official":
        loss = 2 * loss
    return NTXent(loss, jax.lax.stop_gradient(accuracy))


def nt_xent_rows(
    z: Float[Array, "2n d"],
    *,
    temperature: float | Float[Array, ""],
    layout: Literal["halves", "interleaved"],
    reduction: Literal["mean", "official"] = "mean",
) -> Float[Array, ""]:
    """`nt_xent` of one array that holds both views.

    Args:
      z: [2n, d] embeddings of the global batch.
      temperature: positive scale; smaller is sharper.
      layout: "halves": all first views, then all second ones; "interleaved": twins side by side.
      reduction: as in `nt_xent`.

    Returns:
      [] loss in nats, float32.

    Raises:
      ValueError: an odd number of rows.
    """
    if z.ndim != 2 or len(z) % 2:
        raise ValueError(f"z must be [2n, d], two rows for each example; got {z.shape}")
    shape = (2, len(z) // 2, -1) if layout == "halves" else (len(z) // 2, 2, -1)
    a, b = jnp.moveaxis(z.reshape(shape), 0 if layout == "halves" else 1, 0)
    return nt_xent(a, b, temperature=temperature, reduction=reduction)
