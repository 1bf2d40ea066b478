"""Attention, shared by the encoders of images and of text."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxcl.scale import platform
from jaxcl.typing import Array, Bool, Float

FLASH = True
"""On NVIDIA's GPUs attention of 16-bit numbers goes through cuDNN, which keeps the scores out of
memory, where cuDNN has it: no mask, no offset, heads of at most 128 numbers in multiples of 8.
False: through XLA there too. Benchmarks set it before a program is traced."""


class SelfAttention(nn.Module):
    """Multi-head attention of tokens among themselves; query, key and value are one layer."""

    heads: int
    bias: bool = True
    """Biases in both linear layers."""
    dropout: float = 0.0
    """Of the attention weights, in training; draws from the "dropout" key."""
    dtype: str = "float32"
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    out_init: Initializer | None = None
    """Of the last layer; None: as `kernel_init`."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t d"],
        train: bool,
        *,
        mask: Bool[Array, "n 1 q k"] | None = None,
        offset: Float[Array, "n h q k"] | None = None,
    ) -> tuple[Float[Array, "n t d"], Float[Array, "n h t t"]]:
        """Attends.

        Args:
          x: [n, t, d] tokens; heads divide d.
          train: whether weights are dropped.
          mask: broadcastable to [n, h, t, t], true where a query may look at a key.
          offset: broadcastable to [n, h, t, t], added to the scaled scores.

        Returns:
          The tokens' updates [n, t, d], and the attention maps [n, h, t, t] in float32 before
          dropout, which cost nothing under `jit` unless they are used.
        """
        width = x.shape[-1]
        qkv = nn.Dense(
            3 * width,
            use_bias=self.bias,
            dtype=self.dtype,
            kernel_init=side_by_side(self.kernel_init),
            name="qkv",
        )(x)
        q, k, v = (
            part.reshape(*x.shape[:2], self.heads, width // self.heads)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        maps = attention_maps(q, k, mask=mask, offset=offset)
        if train and self.dropout:
            kept = nn.Dropout(self.dropout, deterministic=False)(maps).astype(v.dtype)
            attended = jnp.einsum("nhqk,nkhd->nqhd", kept, v)
        else:
            attended = attend(q, k, v, mask=mask, offset=offset)
        out_init = self.out_init or self.kernel_init
        out = nn.Dense(
            width, use_bias=self.bias, dtype=self.dtype, kernel_init=out_init, name="out"
        )(attended.reshape(x.shape))
        return out, maps


def side_by_side(init: Initializer) -> Callable[..., Array]:
    """Three matrices that start as three, side by side."""

    def fused(key: Array, shape: tuple[int, int], dtype: str = "float32") -> Array:
        third = (shape[0], shape[1] // 3)
        return jnp.concatenate([init(k, third, dtype) for k in jax.random.split(key, 3)], axis=1)

    return fused


def attend(
    q: Float[Array, "n q h d"],
    k: Float[Array, "n k h d"],
    v: Float[Array, "n k h d"],
    *,
    mask: Bool[Array, "n 1 q k"] | None = None,
    offset: Float[Array, "n h q k"] | None = None,
    scale: float | None = None,
) -> Float[Array, "n q h d"]:
    """What each query gathers of the values; arguments as in `attention_maps`.

    `jax.nn.dot_product_attention`, but on CPU, where XLA multiplies heads that lie beside each
    other in memory at half the speed: there they come first, and sums are divided out last.
    """
    if platform() != "cpu":
        if mask is None and offset is None and _cudnn_takes(q, k, v):
            try:
                return _attend_by_cudnn(q, k, v, scale)
            except RuntimeError:  # there is no cuDNN
                pass
        return jax.nn.dot_product_attention(q, k, v, bias=offset, mask=mask, scale=scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = _scores("nhqd,nhkd->nhqk", q, k, scale, mask, offset)
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    shares = jnp.exp(scores - largest)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    gathered = jnp.einsum("nhqk,nhkd->nhqd", shares.astype(v.dtype), v)
    return (gathered / total.astype(v.dtype)).transpose(0, 2, 1, 3)


def _cudnn_takes(q: Array, k: Array, v: Array) -> bool:
    """True where the chip and cuDNN have fused attention for these arrays and it saves memory."""
    if not FLASH or platform() not in ("gpu", "cuda"):
        return False
    if jax.default_backend() == "gpu":  # else it is compiled for a GPU that is not here
        chip = re.match(r"(\d+)\.\d+$", str(getattr(jax.devices()[0], "compute_capability", "")))
        if chip is None or int(chip[1]) < 8:
            return False
    dtypes = {x.dtype for x in (q, k, v)}
    size = q.shape[-1]
    return (
        dtypes in ({jnp.dtype("bfloat16")}, {jnp.dtype("float16")})
        and size % 8 == 0
        and size <= 128
        and min(q.shape[1], k.shape[1]) >= 16  # a pooling query's scores are no burden
    )


def _attend_by_cudnn(q: Array, k: Array, v: Array, scale: float | None) -> Array:
    """Attention by cuDNN. An odd number of tokens, whose gradients jax refuses, gets one more token
    that no query looks at."""
    tokens = [x.shape[1] for x in (q, k)]
    lengths: list[Array | None] = [None, None]
    if any(count % 2 for count in tokens):
        lengths = [jnp.full(len(q), count, jnp.int32) for count in tokens]
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    attended: Array = jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        query_seq_lengths=lengths[0],
        key_value_seq_lengths=lengths[1],
        implementation="cudnn",
    )
    return attended[:, : tokens[0]]


def attention_maps(
    q: Float[Array, "n q h d"],
    k: Float[Array, "n k h d"],
    *,
    mask: Bool[Array, "n 1 q k"] | None = None,
    offset: Float[Array, "n h q k"] | None = None,
    scale: float | None = None,
) -> Float[Array, "n h q k"]:
    """Softmax of the scaled scores over the keys that a query may look at, in float32.

    Args:
      q, k: queries and keys by head.
      mask: true where a query may look at a key.
      offset: added to the scaled scores.
      scale: of the scores; None: 1 / sqrt(d).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return jax.nn.softmax(_scores("nqhd,nkhd->nhqk", q, k, scale, mask, offset), axis=-1)


def _scores(
    product: str, q: Array, k: Array, scale: float, mask: Array | None, offset: Array | None
) -> Float[Array, "n h q k"]:
    scores = scale * jnp.einsum(product, q, k, preferred_element_type=jnp.float32)
    if offset is not None:
        scores = scores + offset
    return scores if mask is None else jnp.where(mask, scores, -2.4e38)
