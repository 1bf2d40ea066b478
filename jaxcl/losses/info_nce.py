"""InfoNCE: each query picks its own key out of many; MoCo's queue, CLIP's two directions."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs, own_pairs
from jaxcl.similarity import logsumexp_both, logsumexp_pairs
from jaxcl.typing import Array, Float


def info_nce(
    q: Float[Array, "n d"],
    k: Float[Array, "n d"],
    negatives: Float[Array, "m d"] | Float[Array, "n m d"] | None = None,
    *,
    temperature: float | Float[Array, ""],
    in_batch: bool = True,
    normalize: bool = True,
) -> Float[Array, ""]:
    """Cross-entropy of picking, for each query, its own key among all its candidates.

    Row i of `q` is paired with row i of `k`. Candidates are the keys of the batch, further
    negatives, or both.

    Args:
      q: [n, d] queries of the global batch.
      k: [n, d] keys; pass them through `stop_gradient` for a momentum encoder.
      negatives: [m, d] rows that every query sees (a queue), or [n, m, d], each query's own.
      temperature: positive scale; smaller is sharper.
      in_batch: the other keys of the batch are candidates; False, with a queue, is MoCo.
      normalize: rows are scaled to length 1 here, so that only their directions matter.

    Returns:
      [] mean loss in nats, float32.

    Raises:
      ValueError: shapes that do not fit, or no candidate beside the own key.

    Reference: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; He et al. 2020, arXiv:1911.05722.
    """
    check_pairs(q, k)
    if negatives is None and not in_batch:
        raise ValueError("in_batch=False leaves no negatives; give some")
    scale = 1 / temperature
    own = scale * own_pairs(q, k, normalize=normalize)
    candidates = own
    if in_batch:
        row = jnp.arange(len(q))
        others = logsumexp_pairs(q, k, scale=scale, q_ids=row, k_ids=row, normalize=normalize)
        candidates = jnp.logaddexp(candidates, others)
    if negatives is not None:
        candidates = jnp.logaddexp(candidates, _more(q, negatives, scale, normalize))
    return jnp.mean(candidates - own)


def clip_loss(
    images: Float[Array, "n d"],
    texts: Float[Array, "n d"],
    *,
    scale: float | Float[Array, ""],
) -> Float[Array, ""]:
    """InfoNCE in both directions, averaged; all pairs are visited once.

    Args:
      images: [n, d] embeddings; row i belongs with row i of `texts`. Normalised here.
      texts: [n, d] embeddings.
      scale: factor of the cosines, learned as `exp(t)` with t from log(1 / 0.07), at most 100.

    Returns:
      [] loss in nats, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    check_pairs(images, texts)
    row = jnp.arange(len(images))
    own = scale * own_pairs(images, texts, normalize=True)
    over_texts, over_images = logsumexp_both(
        images, texts, scale=scale, q_ids=row, k_ids=row, normalize=True
    )
    both = jnp.logaddexp(own, over_texts) + jnp.logaddexp(own, over_images)
    return jnp.mean(both / 2 - own)


def _more(
    q: Float[Array, "n d"], negatives: Array, scale: float | Array, normalize: bool
) -> Float[Array, "n"]:
    """Log-sum-exp over further negatives, shared or each query's own."""
    if negatives.ndim == 2:
        return logsumexp_pairs(q, negatives, scale=scale, normalize=normalize)
    if negatives.ndim != 3 or len(negatives) != len(q):
        raise ValueError(f"negatives must be [m, d] or [{len(q)}, m, d]; got {negatives.shape}")
    q, negatives = (as_rows(x, normalize) for x in (q, negatives))
    logits = jnp.einsum("nd,nmd->nm", q, negatives, precision="highest")
    return jax.nn.logsumexp(scale * logits, axis=1)
