"""One vector per sentence out of the vectors of its tokens.

SimCSE's five poolers and the mean and maximum of sentence-transformers; `cls` alone has parameters,
a layer with tanh that the encoder applies to what is pooled here.

Reference: Gao, Yao & Chen 2021, arXiv:2104.08821; princeton-nlp/SimCSE, simcse/models.py.
"""

from typing import Literal, get_args

import jax.numpy as jnp

from jaxcl.typing import Array, Bool, Float

Pooler = Literal["cls", "cls_before_pooler", "avg", "avg_first_last", "avg_top2", "mean", "max"]


def pool(
    hidden: tuple[Float[Array, "n t d"], ...], mask: Bool[Array, "n t"], pooler: Pooler
) -> Float[Array, "n d"]:
    """Sentence vectors by the pooler's name.

    Args:
      hidden: the embeddings' output, then each layer's, [n, t, d] each.
      mask: [n, t] true where there is a token. A sentence without any gives finite values.
      pooler: which of these.
        cls, cls_before_pooler: the first token.
        avg, mean: the mean over tokens of the last layer, as SimCSE and as sentence-transformers
          call it.
        avg_first_last: the mean of that and of the first layer's (not of the embeddings').
        avg_top2: the mean of the last two layers'.
        max: the largest value over tokens.

    Returns:
      [n, d] float32.

    Raises:
      ValueError: there is no pooler of that name.
    """
    if pooler in ("cls", "cls_before_pooler"):
        return hidden[-1][:, 0].astype(jnp.float32)
    if pooler in ("avg", "mean"):
        return masked_mean(hidden[-1], mask)
    if pooler == "avg_first_last":
        return (masked_mean(hidden[1], mask) + masked_mean(hidden[-1], mask)) / 2
    if pooler == "avg_top2":
        return (masked_mean(hidden[-1], mask) + masked_mean(hidden[-2], mask)) / 2
    if pooler == "max":
        return masked_max(hidden[-1], mask)
    raise ValueError(f"pooler={pooler!r} is none of {', '.join(get_args(Pooler))}")


def masked_mean(tokens: Float[Array, "n t d"], mask: Bool[Array, "n t"]) -> Float[Array, "n d"]:
    """Mean over the tokens of each sentence, summed in float32; zero where there is none."""
    weights = mask.astype(jnp.float32)
    total = jnp.einsum("ntd,nt->nd", tokens, weights, preferred_element_type=jnp.float32)
    return total / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-9)


def masked_max(tokens: Float[Array, "n t d"], mask: Bool[Array, "n t"]) -> Float[Array, "n d"]:
    """Largest value over the tokens of each sentence, float32; zero where there is none."""
    there = mask.astype(bool)[:, :, None]
    largest = jnp.max(jnp.where(there, tokens.astype(jnp.float32), -jnp.inf), axis=1)
    return jnp.where(jnp.any(there, axis=1), largest, 0)
