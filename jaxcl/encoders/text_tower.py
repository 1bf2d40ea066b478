"""The text side of CLIP and of SigLIP: a pre-norm transformer read at one token.

References: Radford et al. 2021, arXiv:2103.00020 (openai/CLIP, clip/model.py); Zhai et al. 2023,
arXiv:2303.15343 (google-research/big_vision, models/proj/image_text/text_transformer.py).
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxcl.encoders.transformer import PreNormBlock
from jaxcl.typing import Array, Bool, Int, PyTree


class TextTower(nn.Module):
    """Text transformer; the defaults are CLIP's beside a ViT-B or a ResNet-50.

    SigLIP's base tower is `TextTower(vocab_size=32000, width=768, heads=12, mlp=3072,
    max_positions=64, causal=False, activation="tanh_gelu", eps=1e-6, pool="last", projection=768,
    projection_bias=True, start="siglip")`.
    """

    vocab_size: int = 49408
    width: int = 512
    depth: int = 12
    heads: int = 8
    mlp: int = 2048
    """Width of the hidden layer in each block."""
    max_positions: int = 77
    """Longest text, in tokens."""
    causal: bool = True
    """Each token sees those before it alone."""
    activation: Literal["quick_gelu", "gelu", "tanh_gelu"] = "quick_gelu"
    eps: float = 1e-5
    """Of the layer norms."""
    pool: Literal["eot", "last"] = "eot"
    """The token that stands for the text: the end of text, or the last position whatever it is."""
    eos: int | None = None
    """Id of the end of text, whose first place counts; None: the highest id of each text is."""
    projection: int = 512
    """Width of the features: a linear layer after the last norm; 0: none."""
    projection_bias: bool = False
    start: Literal["clip", "siglip"] = "clip"
    """Distribution of the parameters at the start."""
    remat: bool = False
    """Blocks are computed again in the backward pass, to save memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters stay float32."""

    @nn.compact
    def __call__(self, x: PyTree, train: bool) -> dict[str, Any]:
        """Encodes texts.

        Args:
          x: ids: int [n, t] tokens, t at most `max_positions`; mask, optional: bool [n, t], true
            where a token may be looked at. CLIP and SigLIP were trained without one.
          train: changes nothing here; there is no dropout.

        Returns:
          features [n, projection or width] and tokens [n, t, width] after the last norm, float32;
          attention: maps of the last block [n, heads, t, t].

        Raises:
          ValueError: texts are longer than `max_positions`.
        """
        ids = x["ids"]
        length = ids.shape[1]
        if length > self.max_positions:
            raise ValueError(f"texts of {length} tokens; max_positions={self.max_positions}")
        mask = self._visible(length, x.get("mask"))
        embed_std, position_std = (0.02, 0.01) if self.start == "clip" else (self.width**-0.5,) * 2
        h = nn.Embed(
            self.vocab_size,
            self.width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(embed_std),
            name="embed",
        )(ids)
        init, shape = nn.initializers.normal(position_std), (self.max_positions, self.width)
        positions = self.param("positions", init, shape, jnp.float32)
        h = h + positions[:length].astype(self.dtype)
        kernel_init, out_init = self._inits()
        block = nn.remat(PreNormBlock, static_argnums=(2,)) if self.remat else PreNormBlock
        for i in range(1, self.depth + 1):
            h, attention = block(
                self.heads,
                self.mlp,
                activation=self.activation,
                eps=self.eps,
                dtype=self.dtype,
                kernel_init=kernel_init,
                out_init=out_init,
                name=f"block{i}",
            )(h, train, mask)
        tokens = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name="norm")(h)
        features = tokens[jnp.arange(len(ids)), self._place(ids)]
        if self.projection:
            features = nn.Dense(
                self.projection,
                use_bias=self.projection_bias,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(self.width**-0.5),
                name="projection",
            )(features)
        return {
            "features": features.astype(jnp.float32),
            "tokens": tokens.astype(jnp.float32),
            "attention": attention,
        }

    def _visible(
        self, length: int, mask: Bool[Array, "n t"] | None
    ) -> Bool[Array, "n 1 t t"] | None:
        """Which token may look at which; None: each at all."""
        visible = None if mask is None else mask.astype(bool)[:, None, None, :]
        if self.causal:
            before = jnp.tril(jnp.ones((1, 1, length, length), bool))
            visible = before if visible is None else visible & before
        return visible

    def _place(self, ids: Int[Array, "n t"]) -> Int[Array, "n"]:
        """Where the token stands that stands for the text."""
        if self.pool == "last":
            return jnp.full(len(ids), ids.shape[1] - 1)
        return jnp.argmax(ids if self.eos is None else ids == self.eos, axis=1)

    def _inits(self) -> tuple[Initializer, Initializer]:
        """Of kernels, and of those whose output adds up over the blocks; CLIP's are narrower."""
        if self.start == "siglip":
            return nn.initializers.xavier_uniform(), nn.initializers.xavier_uniform()
        return _clip_kernel, nn.initializers.normal((2 * self.depth * self.width) ** -0.5)


def _clip_kernel(key: Array, shape: Any, *args: Any, **kwargs: Any) -> Array:
    """Attention's square matrices normal with deviation d^-1/2, the hidden layer's (2 d)^-1/2."""
    std = shape[0] ** -0.5 if shape[0] == shape[1] else (2 * shape[0]) ** -0.5
    return nn.initializers.normal(std)(key, shape, *args, **kwargs)
