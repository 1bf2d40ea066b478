"""KCL: the own key and the same number of queue keys of one's class for every anchor."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs, own_pairs
from jaxcl.similarity import logsumexp_pairs
from jaxcl.typing import Array, Float, Int


def k_positive(
    q: Float[Array, "n d"],
    k: Float[Array, "n d"],
    queue: Float[Array, "m d"],
    labels: Int[Array, "n"],
    queue_labels: Int[Array, "m"],
    *,
    positives: int,
    temperature: float | Float[Array, ""],
    age: Int[Array, "m"] | None = None,
) -> Float[Array, ""]:
    """Mean cross-entropy of picking each of up to 1 + `positives` keys among own key and queue.

    Positives of anchor i are its own key and the `positives` youngest queue rows of its class;
    where there are fewer, it has fewer. Other rows of its class stay in the denominator.

    Args:
      q: [n, d] queries; rows are normalised here.
      k: [n, d] their keys, without gradient from a slow encoder.
      queue: [m, d] keys of earlier batches.
      labels: [n] classes; -1: unknown, so only the own key is a positive.
      queue_labels: [m] classes of the queue, -1 where it is not filled yet: such rows are
        negatives, as in the authors' code.
      positives: at most this many beside the own key; 6 in the paper.
      temperature: positive scale.
      age: [m] smaller is younger; None: the queue's order.

    Returns:
      [] mean in nats, float32.

    Raises:
      ValueError: shapes differ, or `positives` is negative.

    Reference: Kang et al. 2021, "Exploring balanced feature spaces for representation learning".
    """
    check_pairs(q, k)
    if positives < 0:
        raise ValueError(f"positives={positives} is negative")
    q, k, queue = (as_rows(x, normalize=True) for x in (q, k, queue))
    own = own_pairs(q, k) / temperature
    everyone = jnp.logaddexp(own, logsumexp_pairs(q, queue, scale=1 / temperature))
    count = min(positives, len(queue))
    total, size = own, jnp.ones_like(own)
    if count:
        order = jnp.arange(len(queue)) if age is None else age
        alike = (labels[:, None] == queue_labels) & (labels[:, None] >= 0)
        youth = jnp.where(alike, -order.astype(jnp.float32), -jnp.inf)
        youngest, places = jax.lax.top_k(youth, count)
        found = youngest > -jnp.inf
        logits = jnp.einsum("nd,npd->np", q, queue[places], precision="highest") / temperature
        total = total + jnp.sum(jnp.where(found, logits, 0), axis=1)
        size = size + jnp.sum(found, axis=1)
    return jnp.mean(everyone - total / size)
