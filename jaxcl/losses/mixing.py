"""Mixing: MoCHi's synthetic negatives, and i-Mix's targets with two answers."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import check_pairs, own_pairs
from jaxcl.similarity import logsumexp_pairs, topk_pairs, unit_rows
from jaxcl.typing import Array, Float, Int, Key


def mixed_negatives(
    key: Key,
    q: Float[Array, "n d"],
    queue: Float[Array, "m d"],
    *,
    hardest: int,
    pairs: int,
    with_query: int,
) -> Float[Array, "n s d"]:
    """Negatives made of the hardest ones of each query, for one step only; no gradient.

    Args:
      key: random key.
      q: [n, d] queries, normalised here.
      queue: [m, d] negatives, normalised here.
      hardest: how many of the queue's rows nearest to a query are mixed.
      pairs: rows `u n_i + (1 - u) n_j` with u uniform in (0, 1).
      with_query: rows `u q + (1 - u) n_j` with u uniform in (0, 0.5): the negative dominates.

    Returns:
      [n, pairs + with_query, d] unit rows, further `negatives` of `info_nce`.

    Raises:
      ValueError: `hardest` is not between 1 and the queue's length.

    Reference: Kalantidis et al. 2020, arXiv:2010.01028, section 4.
    """
    q, queue = jax.lax.stop_gradient((unit_rows(q), unit_rows(queue)))
    nearest = topk_pairs(q, queue, hardest)[1]
    first, second, third, u_key, v_key = jax.random.split(key, 5)
    rows = jnp.arange(len(q))[:, None]

    def drawn(key: Key, count: int) -> Array:
        chosen = jax.random.randint(key, (len(q), count), 0, hardest)
        return queue[nearest[rows, chosen]]

    u = jax.random.uniform(u_key, (len(q), pairs, 1), q.dtype)
    v = jax.random.uniform(v_key, (len(q), with_query, 1), q.dtype, maxval=0.5)
    of_pairs = u * drawn(first, pairs) + (1 - u) * drawn(second, pairs)
    of_query = v * q[:, None] + (1 - v) * drawn(third, with_query)
    return unit_rows(jnp.concatenate([of_pairs, of_query], axis=1))


def i_mix(
    q: Float[Array, "n d"],
    k: Float[Array, "n d"],
    partner: Int[Array, "n"],
    share: Float[Array, "n"],
    *,
    temperature: float | Float[Array, ""],
    queue: Float[Array, "m d"] | None = None,
) -> Float[Array, ""]:
    """InfoNCE of mixed queries: the target is one's own key by `share`, the partner's by the rest.

    Args:
      q: [n, d] embeddings of `share x_i + (1 - share) x_partner(i)`; normalised here.
      k: [n, d] embeddings of the unmixed other views; normalised here.
      partner: [n] a permutation of the batch.
      share: [n] weights in [0, 1].
      temperature: positive scale.
      queue: [m, d] more candidates, after the batch's own keys.

    Returns:
      [] in nats, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Lee et al. 2021, arXiv:2010.08887, eq. 3.
    """
    check_pairs(q, k)
    scale = 1 / temperature
    everyone = logsumexp_pairs(q, k, scale=scale, normalize=True)
    if queue is not None:
        more = logsumexp_pairs(q, queue, scale=scale, normalize=True)
        everyone = jnp.logaddexp(everyone, more)
    return jnp.mean(everyone - scale * _targets(q, k, partner, share))


def i_mix_byol(
    q: Float[Array, "n d"],
    k: Float[Array, "n d"],
    partner: Int[Array, "n"],
    share: Float[Array, "n"],
) -> Float[Array, ""]:
    """BYOL's regression towards both keys: `2 - 2 (share cos(q, k) + (1 - share) cos(q, k'))`.

    Arguments as in `i_mix`; q are predictions, and k come without gradient.
    """
    check_pairs(q, k)
    return jnp.mean(2 - 2 * _targets(q, k, partner, share))


def _targets(q: Array, k: Array, partner: Array, share: Array) -> Float[Array, "n"]:
    """Cosines with both keys, weighed."""
    own, other = (own_pairs(q, x, normalize=True) for x in (k, k[partner]))
    return share * own + (1 - share) * other
