"""BERT, and by its fields RoBERTa, MiniLM and MPNet: post-norm transformers over token ids.

    BERT()                                                        BERT-base
    BERT(width=384, depth=6, mlp=1536)                            MiniLM-L6
    BERT(vocab_size=50265, max_positions=514, token_types=1,
         position_offset=2, pad_id=1, eps=1e-5)                   RoBERTa-base
    BERT(vocab_size=30527, max_positions=514, token_types=0,
         position_offset=2, pad_id=1, relative_buckets=32)        MPNet-base

Reference: Devlin et al. 2018, arXiv:1810.04805; Liu et al. 2019, arXiv:1907.11692; Song et al.
2020, arXiv:2004.09297. `jaxcl.weights.read_bert` takes their published weights.
"""

import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcl.encoders.attention import SelfAttention
from jaxcl.encoders.pooling import Pooler, pool
from jaxcl.encoders.transformer import GELUS
from jaxcl.typing import Array, Bool, Float, Int, NumpyArray, PyTree

INIT = nn.initializers.normal(0.02)


class BERT(nn.Module):
    """Encoder of token ids; the features are one vector per sentence by the pooler."""

    vocab_size: int = 30522
    width: int = 768
    depth: int = 12
    """Layers."""
    heads: int = 12
    mlp: int = 3072
    """Width of each layer's hidden layer."""
    max_positions: int = 512
    """Rows of the table of positions; the longest input has `position_offset` fewer tokens."""
    token_types: int = 2
    """Rows of the table of segments; 0: there is none."""
    position_offset: int = 0
    """0: positions are the columns. Otherwise (RoBERTa, MPNet: pad_id + 1) they count the tokens
    that are not `pad_id`, from this number on, and padding has the number before it."""
    pad_id: int = 0
    """Token of padding, which RoBERTa's positions pass over."""
    relative_buckets: int = 0
    """MPNet's (32): learned offsets of the scores by distance, shared by the layers; 0: none."""
    eps: float = 1e-12
    """Of the layer norms."""
    activation: Literal["gelu", "tanh_gelu", "quick_gelu", "relu"] = "gelu"
    dropout: float = 0.1
    """Of the embeddings and of both updates of each layer."""
    attention_dropout: float = 0.1
    """Of the attention weights."""
    pooler: Pooler = "cls"
    """How the tokens become one vector: `jaxcl.encoders.pool`. `cls`: the first token through a
    learned layer and tanh."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and features stay float32."""
    remat: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    @nn.compact
    def __call__(self, x: PyTree, train: bool) -> dict[str, Any]:
        """Encodes sentences.

        Args:
          x: {"ids": int32 [n, t], "mask": bool or int [n, t], true at tokens}; "types": int32
            [n, t], zeros where absent.
          train: whether there is dropout, from the "dropout" key.

        Returns:
          features: [n, d] float32; tokens: [n, t, d] of the last layer; hidden: the embeddings and
          each layer's tokens; attention: [n, h, t, t] of the last layer, float32.

        Raises:
          ValueError: t is more than there are positions.
        """
        ids, mask = x["ids"], x["mask"].astype(bool)
        longest = self.max_positions - self.position_offset
        if ids.shape[1] > longest:
            raise ValueError(f"{ids.shape[1]} tokens a sentence; there are positions for {longest}")
        tokens = self._embed(ids, x.get("types"), train)
        offset = self._relative_offset(ids.shape[1]) if self.relative_buckets else None
        layer = nn.remat(PostNormBlock, static_argnums=(2,)) if self.remat else PostNormBlock
        hidden, maps = [tokens], None
        for i in range(1, self.depth + 1):
            tokens, maps = layer(
                heads=self.heads,
                mlp=self.mlp,
                activation=self.activation,
                eps=self.eps,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                dtype=self.dtype,
                name=f"layer{i}",
            )(tokens, train, mask[:, None, None, :], offset)
            hidden.append(tokens)
        features = pool(tuple(hidden), mask, self.pooler)
        if self.pooler == "cls":
            features = jnp.tanh(nn.Dense(self.width, kernel_init=INIT, name="pooler")(features))
        return {
            "features": features,
            "tokens": tokens,
            "hidden": tuple(hidden),
            "attention": maps,
        }

    def _embed(self, ids: Array, types: Array | None, train: bool) -> Float[Array, "n t d"]:
        x = self._table(self.vocab_size, "words")(ids)
        x += self._table(self.max_positions, "positions")(self._positions(ids))
        if self.token_types:
            x += self._table(self.token_types, "types")(
                jnp.zeros_like(ids) if types is None else types
            )
        x = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name="norm")(x)
        dropped: Array = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dropped

    def _table(self, rows: int, name: str) -> nn.Embed:
        return nn.Embed(rows, self.width, dtype=self.dtype, embedding_init=INIT, name=name)

    def _positions(self, ids: Int[Array, "n t"]) -> Int[Array, "n t"]:
        if not self.position_offset:
            return jnp.arange(ids.shape[1])[None]
        real = (ids != self.pad_id).astype(jnp.int32)
        return jnp.cumsum(real, axis=1) * real + self.position_offset - 1

    def _relative_offset(self, t: int) -> Float[Array, "1 h t t"]:
        place = np.arange(t)
        buckets = relative_buckets(place[None, :] - place[:, None], self.relative_buckets)
        table = nn.Embed(self.relative_buckets, self.heads, embedding_init=INIT, name="relative")
        return table(jnp.asarray(buckets)).transpose(2, 0, 1)[None]


class PostNormBlock(nn.Module):
    """Attention and a two-layer network, each added to the tokens, which are then normalised."""

    heads: int
    mlp: int
    activation: str
    eps: float
    dropout: float
    attention_dropout: float
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n t d"],
        train: bool,
        mask: Bool[Array, "n 1 1 t"],
        offset: Float[Array, "1 h t t"] | None,
    ) -> tuple[Float[Array, "n t d"], Float[Array, "n h t t"]]:
        """Tokens [n, t, d] -> the same after the layer, and its attention maps [n, h, t, t]."""
        attention = SelfAttention(
            self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            kernel_init=INIT,
            name="attention",
        )
        update, maps = attention(x, train, mask=mask, offset=offset)
        x = self._norm("norm1")(x + self._drop(update, train))
        hidden = GELUS[self.activation](self._dense(self.mlp, "linear1")(x))
        update = self._dense(x.shape[-1], "linear2")(hidden)
        return self._norm("norm2")(x + self._drop(update, train)), maps

    def _drop(self, update: Array, train: bool) -> Array:
        dropped: Array = nn.Dropout(self.dropout, deterministic=not train)(update)
        return dropped

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=INIT, name=name)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name=name)


def relative_buckets(
    distance: Int[NumpyArray, "..."], buckets: int, *, reach: int = 128
) -> Int[NumpyArray, "..."]:
    """Bucket of each distance key - query: near ones have their own, far ones share by logarithm.

    Args:
      distance: integers; negative where the key stands before the query.
      buckets: number of buckets; the first half is for keys before the query.
      reach: distance from which on there is one bucket.

    Reference: Raffel et al. 2020, arXiv:1910.10683, as MPNet uses it.
    """
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    share = np.log(np.maximum(far, 1).astype(np.float32) / exact) / math.log(reach / exact)
    shared = np.minimum(exact + (share * (half - exact)).astype(np.int32), half - 1)
    return half * (distance > 0) + np.where(far < exact, far, shared)
