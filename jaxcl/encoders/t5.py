"""T5: an encoder of text, and a decoder that writes text from what was encoded.

Pre-norm transformers with root-mean-square norms, no biases, unscaled attention scores and one
learned offset per head and distance, shared by all layers of a side.

References: Raffel et al. 2019, arXiv:1910.10683; version 1.1 (gated layers, a head of its own):
google-research/text-to-text-transfer-transformer, released_checkpoints.md; Shazeer 2020,
arXiv:2002.05202.
"""

import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcl.encoders.attention import attend, attention_maps
from jaxcl.encoders.transformer import GELUS
from jaxcl.typing import Array, Bool, Float, Int, NumpyArray, PyTree


class T5(nn.Module):
    """T5; the defaults are the small model of version 1.0.

    Version 1.1 is `gated=True, tied=False`; its small model `T5(heads=6, depth=8, decoder_depth=8,
    mlp=1024, gated=True, tied=False)`.
    """

    vocab_size: int = 32128
    width: int = 512
    depth: int = 6
    """Layers of the encoder."""
    decoder_depth: int = 6
    heads: int = 8
    head_width: int = 64
    """Channels of each head; heads together may be wider or narrower than the tokens."""
    mlp: int = 2048
    """Width of the hidden layer in each block."""
    gated: bool = False
    """Hidden layer gelu(a x) * (b x), as in version 1.1, instead of relu(a x)."""
    tied: bool = True
    """The decoder's head is the embedding, its input scaled by width^-1/2; else its own layer."""
    buckets: int = 32
    """Distances that attention tells apart."""
    max_distance: int = 128
    """From here on all distances are one."""
    eps: float = 1e-6
    """Of the norms."""
    dropout: float = 0.1
    """Of embeddings, attention weights, hidden layers and updates; draws from the "dropout" key."""
    remat: bool = False
    """Blocks are computed again in the backward pass, to save memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters stay float32."""

    @nn.compact
    def __call__(self, x: PyTree, train: bool) -> dict[str, Any]:
        """Encodes texts and, where there are `decoder_ids`, predicts them one by one.

        Parameters of the decoder exist only where `initialise` saw `decoder_ids`; those of both
        sides serve without them as well.

        Args:
          x: ids: int [n, t] tokens; mask, optional: bool [n, t], true where a token is;
            decoder_ids, optional: int [n, u], what is written so far, the start token (T5: the
            padding id, 0) before the text.
          train: whether there is dropout.

        Returns:
          features: [n, width] mean of the encoded tokens that the mask keeps; tokens:
          [n, t, width] encoded, after the last norm; with decoder_ids also logits
          [n, u, vocab_size] of the token after each. All float32.
        """
        embed = nn.Embed(
            self.vocab_size,
            self.width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(1.0),
            name="embed",
        )
        mask = jnp.ones_like(x["ids"], bool) if x.get("mask") is None else x["mask"].astype(bool)
        tokens = self._stack(self.depth, False, "encoder")(
            embed(x["ids"]), train, mask[:, None, None, :]
        )
        kept = mask[..., None].astype(jnp.float32)
        count = jnp.maximum(jnp.sum(kept, axis=1), 1)
        wide = tokens.astype(jnp.float32)
        outputs = {"features": jnp.sum(kept * wide, axis=1) / count, "tokens": wide}
        if x.get("decoder_ids") is None:
            return outputs
        length = x["decoder_ids"].shape[1]
        before = jnp.tril(jnp.ones((1, 1, length, length), bool))
        written = self._stack(self.decoder_depth, True, "decoder")(
            embed(x["decoder_ids"]), train, before, tokens, mask[:, None, None, :]
        )
        if self.tied:
            logits = embed.attend(written * self.width**-0.5)
        else:
            logits = _linear(self.vocab_size, self.width**-0.5, self.dtype, "head")(written)
        return outputs | {"logits": logits.astype(jnp.float32)}

    def _stack(self, depth: int, decoder: bool, name: str) -> "Stack":
        return Stack(
            depth=depth,
            decoder=decoder,
            heads=self.heads,
            head_width=self.head_width,
            mlp=self.mlp,
            gated=self.gated,
            buckets=self.buckets,
            max_distance=self.max_distance,
            eps=self.eps,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            name=name,
        )


class Stack(nn.Module):
    """The blocks of one side, between the embedding and the last norm."""

    depth: int
    decoder: bool
    heads: int
    head_width: int
    mlp: int
    gated: bool
    buckets: int
    max_distance: int
    eps: float
    dropout: float
    remat: bool
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t d"],
        train: bool,
        mask: Bool[Array, "n 1 q k"],
        source: Float[Array, "n s d"] | None = None,
        source_mask: Bool[Array, "n 1 1 s"] | None = None,
    ) -> Float[Array, "n t d"]:
        """Embedded tokens -> tokens after the last norm; a decoder looks at `source` as well."""
        length, width = x.shape[1:]
        distance = np.arange(length)[None, :] - np.arange(length)[:, None]
        bucket = distance_buckets(
            distance, count=self.buckets, furthest=self.max_distance, both_ways=not self.decoder
        )
        init = nn.initializers.normal(width**-0.5)
        table = self.param("distances", init, (self.buckets, self.heads), jnp.float32)
        offset = jnp.transpose(table[bucket], (2, 0, 1))[None]  # [1, h, t, t]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(1, self.depth + 1):
            x = block(
                heads=self.heads,
                head_width=self.head_width,
                mlp=self.mlp,
                gated=self.gated,
                eps=self.eps,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"block{i}",
            )(x, train, mask, offset, source, source_mask)
        x = nn.RMSNorm(epsilon=self.eps, dtype=self.dtype, name="norm")(x)
        dropped: Array = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dropped


class Block(nn.Module):
    """Attention among the tokens, attention to the source where there is one, two linear layers."""

    heads: int
    head_width: int
    mlp: int
    gated: bool
    eps: float
    dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t d"],
        train: bool,
        mask: Bool[Array, "n 1 q k"],
        offset: Float[Array, "1 h t t"],
        source: Float[Array, "n s d"] | None,
        source_mask: Bool[Array, "n 1 1 s"] | None,
    ) -> Float[Array, "n t d"]:
        y = self._norm("norm1")(x)
        x = x + self._drop(self._attend("attention")(y, y, train, mask, offset), train)
        if source is not None:
            y = self._norm("cross_norm")(x)
            x = x + self._drop(self._attend("cross")(y, source, train, source_mask, None), train)
        width = x.shape[-1]
        wide = _linear((1 + self.gated) * self.mlp, width**-0.5, self.dtype, "linear1")(
            self._norm("norm2")(x)
        )
        if self.gated:
            gate, value = jnp.split(wide, 2, axis=-1)
            hidden = GELUS["tanh_gelu"](gate) * value
        else:
            hidden = nn.relu(wide)
        hidden = self._drop(hidden, train)
        return x + self._drop(_linear(width, self.mlp**-0.5, self.dtype, "linear2")(hidden), train)

    def _attend(self, name: str) -> "Attention":
        return Attention(
            self.heads, self.head_width, dropout=self.dropout, dtype=self.dtype, name=name
        )

    def _norm(self, name: str) -> nn.RMSNorm:
        return nn.RMSNorm(epsilon=self.eps, dtype=self.dtype, name=name)

    def _drop(self, x: Array, train: bool) -> Array:
        dropped: Array = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dropped


class Attention(nn.Module):
    """Attention of T5: no biases, scores as they are, kernels that start small enough for that.

    Keys and values are one layer, beside the queries: "q" and "kv".
    """

    heads: int
    head_width: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n q d"],
        source: Float[Array, "n k d"],
        train: bool,
        mask: Bool[Array, "n 1 q k"] | None,
        offset: Float[Array, "1 h q k"] | None,
    ) -> Float[Array, "n q d"]:
        """Updates of the tokens `x` out of `source`, which may be the same."""
        width, inner = x.shape[-1], self.heads * self.head_width
        q_std = (width * self.head_width) ** -0.5
        q = self._by_head(_linear(inner, q_std, self.dtype, "q")(x))
        kv = _linear(2 * inner, width**-0.5, self.dtype, "kv")(source)
        k, v = (self._by_head(part) for part in jnp.split(kv, 2, axis=-1))
        if train and self.dropout:
            maps = attention_maps(q, k, mask=mask, offset=offset, scale=1.0)
            kept = nn.Dropout(self.dropout, deterministic=False)(maps).astype(v.dtype)
            attended = jnp.einsum("nhqk,nkhd->nqhd", kept, v)
        else:
            attended = attend(q, k, v, mask=mask, offset=offset, scale=1.0)
        merged = attended.reshape(*x.shape[:2], inner)
        update: Array = _linear(width, inner**-0.5, self.dtype, "out")(merged)
        return update

    def _by_head(self, x: Float[Array, "n t i"]) -> Float[Array, "n t h w"]:
        return x.reshape(*x.shape[:2], self.heads, self.head_width)


def distance_buckets(
    distance: Int[NumpyArray, "..."], *, count: int, furthest: int, both_ways: bool
) -> Int[NumpyArray, "..."]:
    """Which offset belongs to a key that stands `distance` places after its query.

    Half of the buckets hold one short distance each, the others distances that grow by a factor.

    Args:
      distance: key's place less the query's.
      count: how many buckets there are, for both directions together.
      furthest: all distances from here on share the last bucket.
      both_ways: a direction each has half of the buckets; else keys after the query count as
        distance 0, since a decoder never sees them.

    Reference: arXiv:1910.10683, section 2.1; the constants are Mesh TensorFlow's.
    """
    start = np.zeros_like(distance)
    if both_ways:
        count //= 2
        start = count * (distance > 0)
        far = np.abs(distance)
    else:
        far = np.maximum(-distance, 0)
    exact = count // 2
    # In float32, as in the original: rounding decides on which side of an edge a distance falls.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / exact) / math.log(furthest / exact)
    grown = exact + (ratio * (count - exact)).astype(distance.dtype)
    return start + np.where(far < exact, far, np.minimum(grown, count - 1))


def _linear(width: int, std: float, dtype: str, name: str) -> nn.Dense:
    init = nn.initializers.normal(std)
    return nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name=name)
