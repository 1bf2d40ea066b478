"""The 2C loss of ContraGAN: images against the embedding of their class and against one another."""

import jax.numpy as jnp

from jaxcl.losses.rows import own_pairs, singled_out
from jaxcl.similarity import logsumexp_among
from jaxcl.typing import Array, Float, Int


def class_conditional(
    images: Float[Array, "n d"],
    classes: Float[Array, "n d"],
    labels: Int[Array, "n"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    data_to_data: bool = True,
) -> Float[Array, ""]:
    """`-log` of the share of what is of one's class, the class embedding included.

        (exp(l_i . e_i) + sum_{k != i, y_k = y_i} exp(l_i . l_k))
        / (exp(l_i . e_i) + sum_{k != i} exp(l_i . l_k))

    Args:
      images: [n, d] projections of images, normalised here.
      classes: [n, d] row i is the embedding of image i's class, normalised here.
      labels: [n] class ids.
      temperature: positive scale.
      data_to_data: images of the same class are in the numerator; False: the class alone.

    Returns:
      [] mean in nats, at least 0, float32.

    Raises:
      ValueError: shapes differ.

    Reference: Kang & Park 2020, arXiv:2006.12681, eq. 8.
    """
    if images.shape != classes.shape or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images and classes must both be [n, d] and labels [n]; got {images.shape}, "
            f"{classes.shape} and {labels.shape}"
        )
    scale = 1 / temperature
    own = scale * own_pairs(images, classes, normalize=True)
    everyone = jnp.logaddexp(own, logsumexp_among(images, scale=scale, normalize=True))
    if data_to_data:
        groups = singled_out(labels)
        alike = logsumexp_among(images, scale=scale, groups=groups, normalize=True)
        own = jnp.logaddexp(own, alike)
    return jnp.mean(everyone - own)
