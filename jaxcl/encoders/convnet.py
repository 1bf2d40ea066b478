"""The small convolutional network of few-shot learning, Conv4.

Reference: Vinyals et al. 2016, arXiv:1606.04080, section 4.1; Snell et al. 2017, arXiv:1703.05175.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.norm import BatchNorm
from jaxcl.typing import Array, Float


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling; four of them are Conv4."""

    depth: int = 4
    width: int = 64
    """Channels of each block."""
    pool: Literal["flatten", "mean"] = "flatten"
    """Features: the last map as one row, or its mean over the places."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    remat: bool = False
    """Compute each block again in the backward pass in place of keeping what it computed."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Images [n, h, w, c] -> features, float32, [n, width h' w'] with sides h' = h / 2^depth,
        or [n, width]; stages: the map after each block, half as high and wide as the last.

        Raises:
          ValueError: an image's side is under 2^depth.
        """
        if min(x.shape[1:3]) < 2**self.depth:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} are halved {self.depth} times; "
                f"they need {2**self.depth} pixels a side, or a smaller depth"
            )
        x = x.astype(self.dtype)
        maps = []
        block = nn.remat(_block, static_argnums=(2, 3)) if self.remat else _block
        for i in range(1, self.depth + 1):
            x = block(self, x, i, train)
            maps.append(x)
        last = x.astype(jnp.float32)
        if self.pool == "mean":
            features = jnp.mean(last, axis=(1, 2))
        else:
            features = last.reshape(len(last), -1)
        return {"features": features, "stages": tuple(maps)}


def _block(network: ConvNet, x: Array, number: int, train: bool) -> Array:
    conv = nn.Conv(
        network.width, (3, 3), padding=1, use_bias=False, dtype=network.dtype, name=f"conv{number}"
    )
    norm = BatchNorm(groups=network.groups, dtype=network.dtype, name=f"norm{number}")
    y: Array = nn.max_pool(nn.relu(norm(conv(x), train)), (2, 2), (2, 2))
    return y
