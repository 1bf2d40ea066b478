"""Noise-contrastive estimation: the own row of a memory bank against rows drawn at random."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows
from jaxcl.typing import Array, Float


def nce(
    scores: Float[Array, "n 1+k"],
    *,
    log_z: float | Float[Array, ""],
    noise: float,
    eps: float = 0.0,
) -> Float[Array, ""]:
    """Binary cross-entropy of telling the true row from `k` noise rows.

        h = P / (P + k noise),    P = exp(score) / Z;    -log h_0 - sum_{j >= 1} log(1 - h_j)

    Args:
      scores: [n, 1 + k] similarities over temperature, the true row first.
      log_z: logarithm of the normaliser: a constant estimated on the first batch
        (`log_normaliser`), or learned.
      noise: probability of each noise row, one over the size of the bank.
      eps: added to both denominators, 1e-7 in the authors' code.

    Returns:
      [] mean over anchors of the sum over rows, float32.

    Raises:
      ValueError: no noise row.

    Reference: Gutmann & Hyvarinen 2010; Wu et al. 2018, arXiv:1805.01978, eqs. 6 and 7.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores must be [n, 1 + k] with k of 1 or more; got {scores.shape}")
    count = scores.shape[1] - 1
    log_p = as_rows(scores) - log_z
    log_noise = jnp.log(count * noise)
    total = jnp.logaddexp(log_p, log_noise)
    if eps:
        total = jnp.logaddexp(total, jnp.log(eps))
    true, false = total[:, 0] - log_p[:, 0], total[:, 1:] - log_noise
    return jnp.mean(true + jnp.sum(false, axis=1))


def log_normaliser(scores: Float[Array, "n m"], bank: int) -> Float[Array, ""]:
    """Log of `bank * mean exp(scores)`: the estimate of Z that InstDisc fixes after one batch."""
    mean = jax.nn.logsumexp(as_rows(scores)) - jnp.log(scores.size)
    return jax.lax.stop_gradient(mean + jnp.log(bank))


def proximal(new: Float[Array, "n d"], old: Float[Array, "n d"]) -> Float[Array, ""]:
    """`mean_i |new_i - old_i|^2`: how far rows moved since the bank saw them; weight 30 was best.

    Reference: Wu et al. 2018, eq. 8 (the released code has no such term).
    """
    moved = as_rows(new) - jax.lax.stop_gradient(old)
    return jnp.mean(jnp.sum(jnp.square(moved), axis=1))
