"""The transformer block of vision transformers and of CLIP's and SigLIP's text towers."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.attention import SelfAttention
from jaxcl.typing import Array, Bool, Float


def exact_gelu(x: Array) -> Array:
    """x times the normal distribution's share below x, in float32 whatever the type of x.

    By erf, which XLA computes on CPU in a third of the time of erfc, `nn.gelu`'s way.
    """
    wide = x.astype(jnp.float32)
    return (wide * 0.5 * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


GELUS: dict[str, Callable[[Array], Array]] = {
    "gelu": exact_gelu,
    "tanh_gelu": partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "relu": nn.relu,
}


class PreNormBlock(nn.Module):
    """Attention and a two-layer network, each on normalised tokens and added to them."""

    heads: int
    mlp: int
    """Width of the network's hidden layer."""
    activation: str = "gelu"
    eps: float = 1e-6
    """Of the layer norms."""
    bias: bool = True
    """Biases of attention's layers."""
    layer_scale: float = 0.0
    """Learned factor per channel on both updates, from this value; 0: none."""
    drop_path: float = 0.0
    """Chance that an example skips an update in training; draws from the "dropout" key."""
    dtype: str = "float32"
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.xavier_uniform()
    out_init: jax.nn.initializers.Initializer | None = None
    """Of the last layer of each update; None: as `kernel_init`."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t d"], train: bool, mask: Bool[Array, "n 1 q k"] | None = None
    ) -> tuple[Float[Array, "n t d"], Float[Array, "n h t t"]]:
        """Tokens [n, t, d] -> the same after the block, and its attention maps [n, h, t, t]."""
        attention = SelfAttention(
            self.heads,
            bias=self.bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            out_init=self.out_init,
            name="attention",
        )
        update, maps = attention(self._norm("norm1")(x), train, mask=mask)
        x = x + self._add(update, train, "scale1")
        hidden = self._dense(self.mlp, "linear1", self.kernel_init)(self._norm("norm2")(x))
        out_init = self.out_init or self.kernel_init
        update = self._dense(x.shape[-1], "linear2", out_init)(GELUS[self.activation](hidden))
        return x + self._add(update, train, "scale2"), maps

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name=name)

    def _dense(self, width: int, name: str, init: jax.nn.initializers.Initializer) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)

    def _add(self, update: Array, train: bool, name: str) -> Array:
        if self.layer_scale:
            init = nn.initializers.constant(self.layer_scale)
            scale = self.param(name, init, update.shape[-1:], jnp.float32)
            update = update * scale.astype(update.dtype)
        if not (train and self.drop_path):
            return update
        keep = 1 - self.drop_path
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (len(update), 1, 1))
        return jnp.where(kept, update / keep, 0)
