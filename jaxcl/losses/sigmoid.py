"""SigLIP: every image with every text is a yes-or-no question of its own."""

import jax.numpy as jnp

from jaxcl.losses.rows import check_pairs, own_pairs
from jaxcl.similarity import softplus_pairs
from jaxcl.typing import Array, Float


def siglip(
    images: Float[Array, "n d"],
    texts: Float[Array, "n d"],
    *,
    scale: float | Float[Array, ""],
    bias: float | Float[Array, ""],
) -> Float[Array, ""]:
    """`-1/n sum_ij log sigmoid(z_ij (scale x_i . y_j + bias))`, z_ii = 1 and -1 elsewhere.

    Args:
      images: [n, d] embeddings; row i belongs with row i of `texts`. Normalised here.
      texts: [n, d] embeddings.
      scale: learned as `exp(t)` with t from log 10.
      bias: learned, from -10, which starts the loss near that of the positives.

    Returns:
      [] sum over texts, mean over images, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Zhai et al. 2023, arXiv:2303.15343, eq. 1.
    """
    check_pairs(images, texts)
    biases = jnp.broadcast_to(bias, len(texts))
    every = softplus_pairs(images, texts, scale=scale, bias=biases, normalize=True)
    own = scale * own_pairs(images, texts, normalize=True) + bias
    return jnp.mean(every - own)  # softplus(-u) = softplus(u) - u
