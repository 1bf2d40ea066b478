"""Decoupled contrastive loss: NT-Xent without the positive in the denominator."""

import jax
import jax.numpy as jnp

from jaxcl.losses.rows import check_pairs, own_pairs, stopped
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
    views = (a, b)
    example, scale = jnp.arange(len(a)), 1 / temperature
    cosines = own_pairs(a, b, normalize=True)
    positive = scale * cosines
    if sigma is not None:
        weights = 2 - len(a) * jax.nn.softmax(cosines / sigma)
        positive = stopped(weights, stop_weights) * positive
    if both_ways:
        negatives = jnp.stack(logsumexp_among(views, scale=scale, ids=example, normalize=True))
    else:
        negatives = logsumexp_pairs(
            a, views, scale=scale, q_ids=example, k_ids=example, normalize=True
        )
    return jnp.mean(negatives - positive)
