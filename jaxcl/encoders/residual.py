"""The parts of residual networks: convolutions and norms, shortcuts, selective kernels, blocks.

References: He et al. 2015, arXiv:1512.03385 (blocks); He et al. 2018, arXiv:1812.01187 (pooled
shortcuts); Li et al. 2019, arXiv:1903.06586, in the form of SimCLR v2 (selective kernels);
Qiao et al. 2019, arXiv:1903.10520 (standardised kernels).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.mlp import INITS
from jaxcl.encoders.norm import BatchNorm
from jaxcl.encoders.pointwise import Pointwise
from jaxcl.encoders.standardized import StandardizedConv, StandardizedPointwise
from jaxcl.typing import Array, Float


@dataclass(frozen=True)
class Layers:
    """Convolutions and norms with the settings that a whole network shares.

    Called inside a module's `__call__`; the layers become that module's.
    """

    norm: str
    groups: int
    dtype: str
    kernel_init: str = "he"

    def conv(
        self, x: Array, channels: int, kernel: int, stride: int, name: str, pad: int | None = None
    ) -> Array:
        """Convolution padded alike on both sides; SAME would pad strided ones unevenly."""
        init = INITS[self.kernel_init]
        shared: dict[str, Any] = {"dtype": self.dtype, "kernel_init": init, "name": name}
        standardized, pad = self.norm == "group", (kernel - 1) // 2 if pad is None else pad
        y: Array
        if kernel == 1:
            pointwise = StandardizedPointwise if standardized else Pointwise
            y = pointwise(channels, stride, **shared)(x)
            return y
        make = StandardizedConv if standardized else nn.Conv
        y = make(
            channels,
            (kernel, kernel),
            (stride, stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            **shared,
        )(x)
        return y

    def normalise(self, x: Array, train: bool, name: str, scale: float = 1.0) -> Array:
        """The norm, whose factor per channel starts at `scale`."""
        if self.norm == "batch":
            norm = BatchNorm(groups=self.groups, scale_init=scale, dtype=self.dtype, name=name)
            return norm(x, train)
        init = nn.initializers.constant(scale)
        y: Array = nn.GroupNorm(16, epsilon=1e-5, dtype=self.dtype, scale_init=init, name=name)(x)
        return y


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, beside a shortcut."""

    layers: Layers
    channels: int
    stride: int
    bottleneck: bool
    zero_init: bool
    shortcut: bool
    pooled_shortcut: bool
    sk_ratio: float

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Array:
        conv, normalise = self.layers.conv, self.layers.normalise
        out = self.channels * (4 if self.bottleneck else 1)
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.stride, 1) if self.bottleneck else (self.stride, 1)
        y = x
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True), 1):
            last = i == len(kernels)
            if kernel == 3 and self.bottleneck and self.sk_ratio:
                y = self._selective(y, train)
                continue
            y = conv(y, out if last else self.channels, kernel, stride, f"conv{i}")
            y = normalise(y, train, f"norm{i}", 0.0 if last and self.zero_init else 1.0)
            y = y if last else nn.relu(y)
        if self.shortcut or x.shape != y.shape:
            stride = self.stride
            if self.pooled_shortcut:
                x, stride = _pool_for_shortcut(x, stride), 1
            x = conv(x, out, 1, stride, "shortcut")
            x = normalise(x, train, "shortcut_norm")
        return nn.relu(x + y)

    def _selective(self, x: Array, train: bool) -> Array:
        """Two branches of the 3x3 convolution, weighted per channel by what both contain."""
        conv, normalise = self.layers.conv, self.layers.normalise
        y = conv(x, 2 * self.channels, 3, self.stride, "conv2")
        y = nn.relu(normalise(y, train, "norm2"))
        branches = jnp.stack(jnp.split(y, 2, axis=-1))  # [2, n, h, w, c]
        context = jnp.mean(jnp.sum(branches, axis=0), axis=(1, 2), keepdims=True)
        squeezed = max(int(self.channels * self.sk_ratio), 32)
        context = conv(context, squeezed, 1, 1, "squeeze")
        context = nn.relu(normalise(context, train, "squeeze_norm"))
        scores = conv(context, 2 * self.channels, 1, 1, "select")
        shares = jax.nn.softmax(jnp.stack(jnp.split(scores, 2, axis=-1)), axis=0)
        return jnp.sum(branches * shares, axis=0)


def _pool_for_shortcut(x: Float[Array, "n h w c"], stride: int) -> Any:
    """Means over 2x2, as SimCLR v2 takes them: a strided one counts the zeros beyond odd sides, one
    of stride 1 counts no padding."""
    if stride == 1:
        return nn.avg_pool(x, (2, 2), (1, 1), "SAME", count_include_pad=False)
    odd = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    return nn.avg_pool(odd, (2, 2), (2, 2), "VALID")
