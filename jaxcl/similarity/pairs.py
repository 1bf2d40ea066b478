"""Reductions over all pairs of two sets of rows: the sums under every contrastive loss."""

import jax
import jax.numpy as jnp

from jaxcl.typing import Array, Float, Int

MASKED = -1e9
"""Stands for minus infinity: finite, so that a fully masked row has no NaN gradient."""


def logsumexp_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
) -> Float[Array, "n"]:
    """`log sum_j exp(scale * q_i . k_j)` over the keys j whose id differs from the query's.

    Args:
      q: [n, d] queries.
      k: [m, d] keys.
      scale: factor of the dot products, 1 / temperature.
      q_ids: [n] a query does not see keys with its own id; None: it sees all.
      k_ids: [m] ids of the keys; given together with `q_ids`.

    Returns:
      [n] float32; a query that sees no key gets about -1e9.

    Raises:
      ValueError: one of `q_ids` and `k_ids` is missing.
    """
    return jax.nn.logsumexp(_logits(q, k, scale, q_ids, k_ids), axis=1)


def max_pairs(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    *,
    scale: float | Float[Array, ""] = 1.0,
    q_ids: Int[Array, "n"] | None = None,
    k_ids: Int[Array, "m"] | None = None,
) -> Float[Array, "n"]:
    """The largest `scale * q_i . k_j` over the same pairs as `logsumexp_pairs`; [n] float32."""
    return jnp.max(_logits(q, k, scale, q_ids, k_ids), axis=1)


def _logits(
    q: Float[Array, "n d"],
    k: Float[Array, "m d"],
    scale: float | Float[Array, ""],
    q_ids: Int[Array, "n"] | None,
    k_ids: Int[Array, "m"] | None,
) -> Float[Array, "n m"]:
    if (q_ids is None) != (k_ids is None):
        raise ValueError("q_ids and k_ids are given together or not at all")
    dots = jnp.matmul(q, k.T, preferred_element_type=jnp.float32, precision="highest")
    logits = scale * dots
    if q_ids is None or k_ids is None:
        return logits
    return jnp.where(q_ids[:, None] == k_ids[None, :], MASKED, logits)
