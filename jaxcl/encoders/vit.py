"""Vision transformers: of ViT, DeiT, DINO, MoCo v3, CLIP and SigLIP.

    patches -> linear -> + positions -> [class token, registers] -> blocks -> norm -> pooling

Reference: Dosovitskiy et al. 2020, arXiv:2010.11929.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from jaxcl.encoders.heads import AttentionPool
from jaxcl.encoders.mlp import INITS, torch_bias
from jaxcl.encoders.positions import resize_positions, sincos_positions
from jaxcl.encoders.transformer import PreNormBlock
from jaxcl.typing import Array, Float

SIZES = {
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "H": (1280, 32, 16),
}
"""Width, depth and heads by the letters of the papers. MoCo v3's S has 12 heads."""


class ViT(nn.Module):
    """Pre-norm transformer on patches; `vit("S/16")` fills in the usual sizes."""

    width: int = 384
    """Channels of a token."""
    depth: int = 12
    """Blocks."""
    heads: int = 6
    """Attention heads of a block."""
    mlp: int = 0
    """Hidden width of a block's network; 0: four times the width."""
    patch: int = 16
    """Side of a patch in pixels; it divides the images' sides."""
    image: int = 224
    """Side of the images that learned positions are made for; others get them interpolated."""
    positions: Literal["learned", "moco_v3", "big_vision"] = "learned"
    """learned, or fixed sines and cosines in the order of either library."""
    resize_offset: float = 0.0
    """In the scale of interpolated positions; 0.1 is what DINO's code does."""
    class_token: bool = True
    """A learned token in front of the patches."""
    class_position: bool = True
    """The class token has a learned position too."""
    registers: int = 0
    """Learned tokens without position, behind the class token."""
    pool: Literal["token", "mean", "attention"] = "token"
    """Features: the class token, the mean over patches, or what a learned query gathers from all
    tokens (SigLIP); after the last norm."""
    feature_blocks: int = 1
    """Number of last blocks whose class tokens, each after the last norm, are joined as features;
    DINO's linear protocol takes 4 of ViT-S. Only where pool is token."""
    feature_mean: bool = False
    """Whether the features also hold the mean of the last block's patch tokens, as in DINO's linear
    protocol for ViT-B. Only where pool is token."""
    projection: int = 0
    """Width of a linear layer without bias on the features, as in CLIP; 0: none."""
    first_norm: bool = False
    """A norm before the first block, as in CLIP."""
    activation: Literal["gelu", "tanh_gelu", "quick_gelu"] = "gelu"
    """In the blocks' networks."""
    eps: float = 1e-6
    """Of the norms; 1e-12 in transformers' ViT, 1e-5 in CLIP."""
    patch_bias: bool = True
    """Bias of the patch projection."""
    freeze_patches: bool = False
    """The patch projection stays as it was drawn: it lies with the statistics, where neither
    gradients nor weight decay reach it (MoCo v3)."""
    layer_scale: float = 0.0
    """Start of a learned factor per channel on each update; 0: none."""
    drop_path: float = 0.0
    """Chance that an example skips an update of the last block; it rises from 0 at the first."""
    kernel_init: Literal["trunc_normal_0.02", "moco_v3", "dino"] = "trunc_normal_0.02"
    """Kernels at the start. moco_v3: Xavier's uniform, with its own patches and class token. dino:
    normal with deviation 0.02, not cut off, positions too; patches as torch draws convolutions."""
    remat: bool = False
    """Recompute each block's activations in the backward pass: less memory, a third more work."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Images [n, h, w, c] -> features [n, width or projection, or a multiple of the width where
        several tokens are joined], float32; tokens [n, t, width]
        after the last norm, class token first, then registers; stages: the tokens after each
        block; attention: the last block's maps [n, heads, t, t].

        Raises:
          ValueError: the patch does not divide the images' sides, or tokens are to be joined that
            there are not.
        """
        joins = self.feature_blocks != 1 or self.feature_mean
        if joins and (self.pool != "token" or not 1 <= self.feature_blocks <= self.depth):
            raise ValueError(
                f"feature_blocks={self.feature_blocks}, feature_mean={self.feature_mean} join "
                f"tokens of the last of {self.depth} blocks, and only where pool is token"
            )
        x = self._embed(x)
        if self.first_norm:
            x = self._norm("norm_in")(x)
        make = nn.remat(PreNormBlock, static_argnums=(2,)) if self.remat else PreNormBlock
        stages = []
        for block in range(self.depth):
            x, maps = make(
                heads=self.heads,
                mlp=self.mlp or 4 * self.width,
                activation=self.activation,
                eps=self.eps,
                layer_scale=self.layer_scale,
                drop_path=self.drop_path * block / max(self.depth - 1, 1),
                dtype=self.dtype,
                kernel_init=self._kernels(),
                name=f"block{block + 1}",
            )(x, train)
            stages.append(x)
        norm = self._norm("norm")
        tokens = norm(x)
        patches = tokens[:, self.class_token + self.registers :]
        if self.pool == "attention":
            mlp = self.mlp or 4 * self.width
            gather = AttentionPool(
                self.heads, mlp, self.activation, self.eps, self.dtype, name="pool"
            )
            features = gather(tokens, train)["features"]
        elif self.pool == "mean":
            features = jnp.mean(patches, axis=1)
        else:
            earlier = stages[-self.feature_blocks : -1]
            parts = [*(norm(stage)[:, 0] for stage in earlier), tokens[:, 0]]
            parts += [jnp.mean(patches, axis=1)] * self.feature_mean
            features = jnp.concatenate(parts, axis=1)
        if self.projection:
            features = nn.Dense(
                self.projection, use_bias=False, dtype=self.dtype, name="projection"
            )(features)
        features = features.astype(jnp.float32)
        return {"features": features, "tokens": tokens, "stages": tuple(stages), "attention": maps}

    def _embed(self, x: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
        """Tokens with their positions, before the blocks."""
        p = self.patch
        if x.shape[1] % p or x.shape[2] % p:
            raise ValueError(f"images of {x.shape[1]}x{x.shape[2]} do not split into patch={p}")
        grid = (x.shape[1] // p, x.shape[2] // p)
        x = rearrange(x, "n (h p) (w q) c -> n (h w) (p q c)", p=p, q=p).astype(self.dtype)
        kernel, bias = self._patches(x.shape[-1])
        x = x @ kernel.astype(self.dtype) + bias.astype(self.dtype)
        class_position, positions = self._positions(*grid)
        x = x + positions.astype(self.dtype)
        front = []
        if self.class_token:
            init = nn.initializers.normal(1e-6 if self.kernel_init == "moco_v3" else 0.02)
            token = self.param("class_token", init, (1, self.width), jnp.float32)
            front.append(token + class_position if len(class_position) else token)
        if self.registers:
            shape = (self.registers, self.width)
            front.append(self.param("registers", _normal, shape, jnp.float32))
        front = [jnp.broadcast_to(t.astype(x.dtype), (len(x), *t.shape)) for t in front]
        return jnp.concatenate([*front, x], axis=1)

    def _patches(self, inputs: int) -> tuple[Array, Array]:
        """Kernel [p * p * c, width] and bias of the patch projection."""
        shape = (inputs, self.width)
        init, bias_init = _normal, nn.initializers.zeros
        if self.kernel_init == "moco_v3":
            init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        elif self.kernel_init == "dino":
            init, bias_init = INITS["torch"], torch_bias(inputs)
        if not self.freeze_patches:
            kernel = self.param("patch_kernel", init, shape, jnp.float32)
            if not self.patch_bias:
                return kernel, jnp.zeros((), jnp.float32)
            return kernel, self.param("patch_bias", bias_init, (self.width,), jnp.float32)
        draw = lambda init, shape: init(self.make_rng("params"), shape, jnp.float32)
        kernel = self.variable("batch_stats", "patch_kernel", draw, init, shape).value
        if not self.patch_bias:
            return kernel, jnp.zeros((), jnp.float32)
        bias = self.variable("batch_stats", "patch_bias", draw, bias_init, (self.width,)).value
        return kernel, bias

    def _positions(self, height: int, width: int) -> tuple[Array, Array]:
        """Of the class token, [1 or 0, width], and of the patches, [t, width]."""
        if self.positions != "learned":
            fixed = sincos_positions(height, width, self.width, order=self.positions)
            return jnp.zeros((0, self.width), jnp.float32), jnp.asarray(fixed)
        side, first = self.image // self.patch, int(self.class_token and self.class_position)
        init = INITS["normal_0.02"] if self.kernel_init == "dino" else _normal
        table = self.param("positions", init, (first + side * side, self.width), jnp.float32)
        square = table[first:].reshape(side, side, self.width)
        resized = resize_positions(square, height, width, offset=self.resize_offset)
        return table[:first], resized.reshape(-1, self.width)

    def _kernels(self) -> jax.nn.initializers.Initializer:
        inits: dict[str, jax.nn.initializers.Initializer] = {
            "moco_v3": nn.initializers.xavier_uniform(),
            "dino": INITS["normal_0.02"],
            "trunc_normal_0.02": _normal,
        }
        return inits[self.kernel_init]

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name=name)


_normal = nn.initializers.truncated_normal(0.02)


def vit(size: str, **fields: Any) -> ViT:
    """A vision transformer by its name, "S/16" say: Ti, S, B, L or H, and the patch's side.

    Raises:
      ValueError: another letter.
    """
    letter, _, patch = size.partition("/")
    if letter not in SIZES or not patch.isdigit():
        raise ValueError(f"{size!r}; a size is one of {', '.join(SIZES)} and a patch, as in S/16")
    width, depth, heads = SIZES[letter]
    return ViT(**{"width": width, "depth": depth, "heads": heads, "patch": int(patch)} | fields)
