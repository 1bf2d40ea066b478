"""Decoupled contrastive loss: NT-Xent without the positive in the denominator."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import as_rows, check_pairs, own_pairs, stopped
from jaxcl.similarity import logsumexp_among, logsumexp_pairs
from jaxcl.typing import Array, Float


def decoupled(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: float | Float[Array, ""],
    both_ways: bool = True,
    sigma: float | None = None,
    stop_weights: bool = True,
) -> Float[Array, ""]:
    """`-s_i + log sum over the views of other images`, which keeps a full gradient at the positive.

    Rows are normalised here. The loss may be negative.

    Args:
      a: [n, d] first views of the global batch.
      b: [n, d] second views.
      temperature: positive scale of all similarities.
      both_ways: mean over anchors of both views; False: anchors are the first views only.
      sigma: temperature of the weights of DCLW, 0.5 in the paper: a positive pair that is already
        near weighs less, `2 - n softmax_i(a_i . b_i / sigma)`. None: all weigh 1 (DCL).
      stop_weights: no gradient through those weights.

    Returns:
      [] loss in nats, float32.

    Raises:
      ValueError: shapes differ, or one example only, which has no negatives.

    Reference: Yeh et al. 2022, arXiv:2110.06848, eqs. 5 and 7.
    """
    check_pairs(a, b)
    if len(a) < 2:
        raise ValueError("one example alone has no negatives; give two or more")
    a, b = as_rows(a, normalize=True), as_rows(b, normalize=True)
    example = jnp.arange(len(a))
    cosines = own_pairs(a, b)
    positive = cosines / temperature
    if sigma is not None:
        weights = 2 - len(a) * jax.nn.softmax(cosines / sigma)
        positive = stopped(weights, stop_weights) * positive
    z, ids = jnp.stack([a, b], axis=1).reshape(-1, a.shape[1]), jnp.repeat(example, 2)
    if both_ways:
        return jnp.mean(logsumexp_among(z, scale=1 / temperature, ids=ids)) - jnp.mean(positive)
    negatives = logsumexp_pairs(a, z, scale=1 / temperature, q_ids=example, k_ids=ids)
    return jnp.mean(negatives - positive)
