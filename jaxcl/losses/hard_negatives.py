"""Negatives weighed by their hardness, and corrected for those that are of the anchor's class."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import check_pairs, own_pairs
from jaxcl.similarity import logsumexp_among
from jaxcl.typing import Array, Float


def hard_negatives(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float | Float[Array, ""],
    beta: float = 1.0,
    tau_plus: float = 0.1,
    stop_weights: bool = False,
) -> Float[Array, ""]:
    """NT-Xent whose negatives count by `exp(beta * similarity / temperature)` (HCL).

        R  = N sum_j w_j e_j / sum_j w_j,     e_j = exp(s_j),  w_j = e_j^beta,  N = 2n - 2
        Ng = max((R - N tau_plus e_own) / (1 - tau_plus),  N exp(-1 / temperature))
        loss = log(1 + Ng / e_own)

    Rows are normalised here.

    Args:
      a: [n, d] first views of the global batch.
      b: [n, d] second views.
      temperature: positive scale.
      beta: how much harder negatives count more; 0: all count alike.
      tau_plus: assumed share of negatives that are of the anchor's own class, in [0, 1).
      stop_weights: no gradient through w; in the authors' code it flows.

    Returns:
      [] mean over the 2n anchors in nats, float32.

    Raises:
      ValueError: shapes differ, one example only, or tau_plus outside [0, 1).

    Reference: Robinson et al. 2021, arXiv:2010.04592, eq. 4.
    """
    check_pairs(a, b)
    if len(a) < 2:
        raise ValueError("one example alone has no negatives; give two or more")
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus={tau_plus} is no share below 1")
    views = (a, b)
    own = own_pairs(a, b, normalize=True) / temperature
    log_count = jnp.log(2.0 * len(a) - 2)

    def summed(power: float) -> Array:
        example, scale = jnp.arange(len(a)), power / temperature
        return jnp.stack(logsumexp_among(views, scale=scale, ids=example, normalize=True))

    hardened = summed(1 + beta)
    log_r = hardened + log_count - (summed(beta) if beta else log_count)
    if stop_weights:
        through = hardened / (1 + beta)
        log_r = jax.lax.stop_gradient(log_r) + through - jax.lax.stop_gradient(through)
    floor = log_count - 1 / temperature
    return jnp.mean(jax.nn.softplus(_corrected(log_r, own + log_count, tau_plus, floor) - own))


def debiased(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float | Float[Array, ""],
    tau_plus: float = 0.1,
) -> Float[Array, ""]:
    """`hard_negatives` with beta 0: negatives count alike, corrected for false ones.

    Reference: Chuang et al. 2020, arXiv:2007.00224, eq. 7.
    """
    return hard_negatives(a, b, temperature=temperature, beta=0.0, tau_plus=tau_plus)


def _corrected(
    log_r: Array, log_own: Array, tau_plus: float, floor: float | Array
) -> Float[Array, "2 n"]:
    """`log max((R - tau_plus * own) / (1 - tau_plus), exp(floor))`, never out of range."""
    if tau_plus == 0:
        return jnp.maximum(log_r, floor)
    excess = jnp.log(tau_plus) + log_own - log_r  # log of what is taken off, as a share of R
    left = excess < -1e-6
    kept = log_r + jnp.log1p(-jnp.exp(jnp.where(left, excess, -1.0))) - jnp.log(1 - tau_plus)
    return jnp.maximum(jnp.where(left, kept, floor), floor)
