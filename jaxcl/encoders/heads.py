"""Heads that are more than an `MLP`: prototypes, DINO's head, pooling by attention."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxcl.encoders.attention import attend, attention_maps, side_by_side
from jaxcl.encoders.mlp import INITS, MLP, torch_bias
from jaxcl.encoders.transformer import GELUS
from jaxcl.similarity.rows import unit_rows
from jaxcl.typing import Array, Float, PyTree


class Prototypes(nn.Module):
    """Scores of rows against learned prototypes, the columns of a kernel without bias.

    SwAV keeps the stored columns at length 1: its method calls `unit_columns` on the parameters
    before each step, and `unit` stays false, so that gradients are those of free columns. DINO's
    last layer is `Prototypes(65536, unit=True, unit_inputs=True)`: cosines.

    References: Caron et al. 2020, arXiv:2006.09882; Caron et al. 2021, arXiv:2104.14294.
    """

    count: int = 3000
    unit: bool = False
    """Scale each prototype to length 1 on use."""
    unit_inputs: bool = False
    """Scale each row to length 1 first."""
    train_gain: bool = False
    """Train a factor of each prototype. The factors are a matrix of one row, which optimisers decay
    and adapt as they do kernels, like the authors' matrix of one column."""
    gain_init: Literal["ones", "lengths"] = "ones"
    """Trained factors at the start: 1, or the lengths that the prototypes are drawn with, as in
    torch's weight_norm."""
    bias: bool = False
    """Add a trained bias to the scores of each prototype."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the product's factors; the scores are float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> dict[str, Any]:
        """Rows [n, d] -> features: scores [n, count], float32."""
        drawn = self.param("kernel", INITS["torch"], (x.shape[-1], self.count), jnp.float32)
        kernel = unit_columns(drawn) if self.unit else drawn
        if self.train_gain:
            start = lambda _: jnp.linalg.norm(drawn, axis=0, keepdims=True)
            if self.gain_init == "ones":
                start = lambda _: jnp.ones((1, self.count), jnp.float32)
            kernel = kernel * self.param("gain", start)
        scores = _product(unit_rows(x) if self.unit_inputs else x, kernel, self.dtype)
        if self.bias:
            scores = scores + self.param("bias", torch_bias(x.shape[-1]), (self.count,))
        return {"features": scores}


def unit_columns(params: PyTree) -> PyTree:
    """Every matrix [d, k] of a tree with its columns scaled to length 1; zero columns stay zero."""
    return jax.tree.map(lambda kernel: unit_rows(kernel.T).T, params)


class DINOHead(nn.Module):
    """Network to a narrow layer, normalised rows, then scores against normalised prototypes.

    Reference: Caron et al. 2021, arXiv:2104.14294 (facebookresearch/dino, vision_transformer.py).
    """

    hidden: tuple[int, ...] = (2048, 2048)
    """Widths of the hidden layers."""
    bottleneck: int = 256
    out: int = 65536
    norm: Literal["batch", "none"] = "none"
    """After each hidden layer; batch for convolutional encoders."""
    train_gain: bool = False
    """Train the length of each prototype, from 1, instead of keeping it there. The lengths are a
    matrix of one row, which optimisers decay and adapt as they do kernels."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and normalisations stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool) -> dict[str, Any]:
        """Rows [n, d] -> features: scores [n, out]; bottleneck: rows [n, bottleneck] of length 1;
        both float32."""
        narrow = MLP(
            self.hidden,
            self.bottleneck,
            norm=self.norm,
            bias=True,
            out_bias=True,
            activation="gelu",
            kernel_init="normal_0.02",
            groups=self.groups,
            dtype=self.dtype,
            name="mlp",
        )(x, train)["features"]
        rows = unit_rows(narrow)
        # The original makes this layer after it has set the others' kernels, so it keeps torch's.
        kernel = self.param("kernel", INITS["torch"], (self.bottleneck, self.out), jnp.float32)
        kernel = unit_columns(kernel)
        if self.train_gain:
            kernel = kernel * self.param("gain", nn.initializers.ones, (1, self.out), jnp.float32)
        return {"features": _product(rows, kernel, self.dtype), "bottleneck": rows}


class AttentionPool(nn.Module):
    """SigLIP's pooling: a learned probe attends to all tokens, then a residual network.

    Reference: Zhai et al. 2022, arXiv:2106.04560 (google-research/big_vision, vit.py, MAPHead).
    """

    heads: int = 12
    mlp: int = 3072
    """Width of the network's hidden layer."""
    activation: Literal["tanh_gelu", "gelu", "quick_gelu"] = "tanh_gelu"
    eps: float = 1e-6
    """Of the layer norm."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], train: bool) -> dict[str, Any]:
        """Tokens [n, t, d] -> features [n, d], float32; attention: the probe's [n, heads, t]."""
        width = x.shape[-1]
        init = nn.initializers.xavier_uniform()
        probe = self.param("probe", init, (1, 1, width), jnp.float32)
        # One matrix, as in checkpoints; the probe needs its first third, the tokens the others.
        kernel = self.param("qkv_kernel", side_by_side(init), (width, 3 * width), jnp.float32)
        bias = self.param("qkv_bias", nn.initializers.zeros, (3 * width,), jnp.float32)
        x, probe, kernel, bias = (a.astype(self.dtype) for a in (x, probe, kernel, bias))
        q = probe @ kernel[:, :width] + bias[:width]
        k, v = jnp.split(x @ kernel[:, width:] + bias[width:], 2, axis=-1)
        pooled, maps = _attend(jnp.broadcast_to(q, (len(x), 1, width)), k, v, self.heads)
        pooled = self._dense(width, "out")(pooled)
        hidden = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name="norm")(pooled)
        hidden = GELUS[self.activation](self._dense(self.mlp, "linear1")(hidden))
        features = (pooled + self._dense(width, "linear2")(hidden))[:, 0]
        return {"features": features.astype(jnp.float32), "attention": maps[:, :, 0]}

    def _dense(self, width: int, name: str) -> nn.Dense:
        init = nn.initializers.xavier_uniform()
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)


class MeanQueryPool(nn.Module):
    """Pooling of CLIP's ResNets: the mean of the last map attends to that mean and to the map.

    Reference: Radford et al. 2021, arXiv:2103.00020 (openai/CLIP, clip/model.py, AttentionPool2d).
    """

    out: int = 1024
    """Width of the features."""
    heads: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Maps [n, h, w, c] -> features [n, out], float32; attention [n, heads, 1 + h w], the
        mean's place first. Positions are learned, so h and w are those of the first call."""
        channels = x.shape[-1]
        places = x.reshape(len(x), -1, channels).astype(jnp.float32)
        tokens = jnp.concatenate([jnp.mean(places, axis=1, keepdims=True), places], axis=1)
        init = nn.initializers.normal(channels**-0.5)
        tokens = tokens + self.param("positions", init, tokens.shape[1:], jnp.float32)
        tokens = tokens.astype(self.dtype)
        q = self._dense(channels, init, "q")(tokens[:, :1])
        k, v = jnp.split(self._dense(2 * channels, init, "kv")(tokens), 2, axis=-1)
        pooled, maps = _attend(q, k, v, self.heads)
        features = self._dense(self.out, init, "out")(pooled)[:, 0]
        return {"features": features.astype(jnp.float32), "attention": maps[:, :, 0]}

    def _dense(self, width: int, init: Initializer, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)


def _attend(
    q: Float[Array, "n q d"], k: Float[Array, "n k d"], v: Float[Array, "n k d"], heads: int
) -> tuple[Float[Array, "n q d"], Float[Array, "n h q k"]]:
    """What queries gather, heads side by side, and their attention maps."""
    shape = q.shape
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v))
    return attend(q, k, v).reshape(shape), attention_maps(q, k)


def _product(
    rows: Float[Array, "n d"], kernel: Float[Array, "d k"], dtype: str
) -> Float[Array, "n k"]:
    rows, kernel = rows.astype(dtype), kernel.astype(dtype)
    return jnp.matmul(rows, kernel, preferred_element_type=jnp.float32)
