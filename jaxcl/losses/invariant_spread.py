"""Invariant and spreading instance features: one's twin is recognised, all others are not."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs, stopped
from jaxcl.similarity.tiles import MASKED, dots
from jaxcl.typing import Array, Float


def invariant_spread(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float | Float[Array, ""] = 0.1,
    spread: float = 1.0,
    stop_keys: bool = True,
) -> Float[Array, ""]:
    """`-mean_i [log P_i,own + spread * sum_{j != own} log(1 - P_ij)]` over all 2n rows.

    P_ij = exp(s_ij) / (exp(s_i,own) + spread * sum of exp(s_ik) over all other rows but the own).
    The whole matrix is built, since each of its entries has a logarithm of its own.

    Args:
      a: [n, d] first views, normalised here.
      b: [n, d] second views.
      temperature: positive scale.
      spread: positive weight of the others.
      stop_keys: gradient reaches the query's side of each product only, as in the authors' code.

    Returns:
      [] in nats, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Ye et al. 2019, arXiv:1904.03436, eq. 6.
    """
    check_pairs(a, b)
    z = jnp.concatenate([as_rows(a, normalize=True), as_rows(b, normalize=True)])
    row = jnp.arange(len(z))
    own = row[:, None] == jnp.roll(row, len(a))
    itself = row[:, None] == row
    logits = jnp.where(itself, MASKED, dots(z, stopped(z, stop_keys)) / temperature)
    weighed = logits + jnp.where(own, 0, jnp.log(spread))
    logs = logits - jax.nn.logsumexp(weighed, axis=1, keepdims=True)
    apart = jnp.log1p(-jnp.minimum(jnp.exp(logs), 1 - 1e-7))
    others = jnp.sum(jnp.where(own | itself, 0, apart), axis=1)
    return -jnp.mean(jnp.sum(jnp.where(own, logs, 0), axis=1) + spread * others)
