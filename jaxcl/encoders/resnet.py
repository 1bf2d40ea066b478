"""Residual networks, post-activation, with stems for large and for CIFAR-sized images.

Reference: He et al. 2015, arXiv:1512.03385; strides on the 3x3 convolution as in torchvision.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.norm import BatchNorm
from jaxcl.typing import Array, Float

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Residual blocks per stage of each depth; from 50 on they are bottlenecks."""


class ResNet(nn.Module):
    """Residual network of up to four stages; the features are the mean over the last map."""

    depth: Literal[10, 18, 34, 50, 101, 152, 200] = 50
    """Layers: 10, 18, 34 with basic blocks; 50, 101, 152, 200 with bottlenecks."""
    width: float = 1.0
    """Multiplies all channels (64 in the first stage at 1)."""
    stem: Literal["imagenet", "cifar", "half"] = "imagenet"
    """imagenet: 7x7 stride 2 and max-pooling; cifar: 3x3 stride 1; half: 3x3 stride 2, a quarter of
    cifar's work for small images on small machines."""
    stages: Literal[2, 3, 4] = 4
    """How many of the four stages there are. Images whose last map would be under 4x4 do as well
    with one less, and XLA's convolutions of such maps are very slow on CPU."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    zero_init: bool = True
    """Last norm of each block starts at zero, so that a block starts as the identity."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Images [n, h, w, c] -> features [n, 512 width] (2048 width from depth 50 on; half as
        wide for each stage less), float32; stages: the map after each stage."""
        base = round(64 * self.width)
        x = x.astype(self.dtype)
        if self.stem == "imagenet":
            x = self._norm(_conv(self, base, 7, 2, "stem")(x), train, "stem_norm")
            x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        else:
            stride = 2 if self.stem == "half" else 1
            x = nn.relu(self._norm(_conv(self, base, 3, stride, "stem")(x), train, "stem_norm"))
        maps = []
        for stage, count in enumerate(BLOCKS[self.depth][: self.stages]):
            for block in range(count):
                x = Block(
                    channels=base * 2**stage,
                    stride=2 if stage and not block else 1,
                    bottleneck=self.depth >= 50,
                    groups=self.groups,
                    zero_init=self.zero_init,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
            maps.append(x)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return {"features": features, "stages": tuple(maps)}

    def _norm(self, x: Array, train: bool, name: str) -> Array:
        return BatchNorm(groups=self.groups, dtype=self.dtype, name=name)(x, train)


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, beside a shortcut."""

    channels: int
    stride: int
    bottleneck: bool
    groups: int
    zero_init: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Array:
        out = self.channels * (4 if self.bottleneck else 1)
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.stride, 1) if self.bottleneck else (self.stride, 1)
        y = x
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True), 1):
            last = i == len(kernels)
            y = _conv(self, out if last else self.channels, kernel, stride, f"conv{i}")(y)
            scale = 0.0 if last and self.zero_init else 1.0
            y = self._norm(f"norm{i}", scale)(y, train)
            if not last:
                y = nn.relu(y)
        if x.shape != y.shape:
            x = _conv(self, out, 1, self.stride, "shortcut")(x)
            x = self._norm("shortcut_norm", 1.0)(x, train)
        return nn.relu(x + y)

    def _norm(self, name: str, scale: float) -> BatchNorm:
        return BatchNorm(groups=self.groups, scale_init=scale, dtype=self.dtype, name=name)


def _conv(module: ResNet | Block, channels: int, kernel: int, stride: int, name: str) -> nn.Conv:
    """Convolution padded alike on both sides; SAME would pad strided ones unevenly."""
    pad = (kernel - 1) // 2
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        dtype=module.dtype,
        kernel_init=jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )
