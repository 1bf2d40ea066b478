"""Residual networks, post-activation, with stems for large and for CIFAR-sized images.

Reference: He et al. 2015, arXiv:1512.03385; strides on the 3x3 convolution as in torchvision;
SimCLR v2's networks (Chen et al. 2020, arXiv:2006.10029) are `simclr_v2_resnet`.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from jaxcl.encoders.apply import forward
from jaxcl.encoders.residual import Block, Layers
from jaxcl.typing import Array, Float, PyTree

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
    stem: Literal["imagenet", "deep", "cifar", "half"] = "imagenet"
    """imagenet: 7x7 stride 2 and max-pooling; deep: three 3x3 in place of the 7x7; cifar: 3x3
    stride 1; half: 3x3 stride 2, a quarter of cifar's work for small images on small machines."""
    stem_padding: int | None = None
    """Pixels of zeros on each side of the image before the first convolution; None: half of the
    kernel. solo-learn's CIFAR networks have 2, so that their first maps are 34x34."""
    stem_relu: bool = True
    """Apply a ReLU after the stem's norm; lightly's CIFAR networks have none there."""
    stages: Literal[2, 3, 4] = 4
    """How many of the four stages there are. Images whose last map would be under 4x4 do as well
    with one less, and XLA's convolutions of such maps are very slow on CPU."""
    blocks: tuple[int, ...] = ()
    """Number of residual blocks in each stage, 3 4 6 3 say, where it is not that of `depth`. Depth
    then only says which kind of block it is. Empty: as `depth` says."""
    first_shortcut: bool = False
    """A convolution in the shortcut of the first stage's first block, even where no shape changes,
    as in Google's networks of basic blocks. Bottlenecks have it anyway."""
    pooled_shortcut: bool = False
    """Shortcuts average 2x2 pixels where they would skip three of four (ResNet-D)."""
    sk_ratio: float = 0.0
    """Selective kernels in bottlenecks, by squeezed channels per channel: 1/16 in SimCLR v2."""
    norm: Literal["batch", "group"] = "batch"
    """batch, or group: 16 groups of channels and standardised kernels, no statistics of batches."""
    groups: int = 1
    """Batch-norm statistics per contiguous groups-th of the rows; 1: the whole batch."""
    zero_init: bool = True
    """Last norm of each block starts at zero, so that a block starts as the identity."""
    kernel_init: Literal["he", "lecun", "torch"] = "he"
    """Distribution of the kernels at the start: he: normal by the outputs, as in torchvision;
    lecun: truncated normal by the inputs, as in SimCLR's code; torch: uniform by the inputs, as
    torch draws convolutions unless told otherwise."""
    stem_init: Literal["he", "lecun", "torch"] | None = None
    """Distribution of the stem's kernels at the start; None: that of the others."""
    even_pool: bool = True
    """Pad the stem's max-pooling alike on both sides as torch does, else at the end as TensorFlow
    does, which Google's checkpoints need."""
    remat: bool = False
    """Recompute each block's activations in the backward pass: less memory, a third more work."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""

    @property
    def stage_blocks(self) -> tuple[int, ...]:
        """Number of residual blocks in each stage that there is.

        Raises:
          ValueError: `blocks` names fewer stages than there are.
        """
        if self.blocks and len(self.blocks) < self.stages:
            raise ValueError(f"blocks={self.blocks} for stages={self.stages}; give one number each")
        return (self.blocks or BLOCKS[self.depth])[: self.stages]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Images [n, h, w, c] -> features [n, 512 width] (2048 width from depth 50 on; half as
        wide for each stage less), float32; stages: the map after each stage."""
        x = _stem(self, x, train)
        maps = []
        for stage in range(1, self.stages + 1):
            x = _stage(self, stage, x, train)
            maps.append(x)
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return {"features": features, "stages": tuple(maps)}


def simclr_v2_resnet(depth: Literal[50, 101, 152] = 50, width: float = 1.0) -> ResNet:
    """The networks of SimCLR v2: selective kernels, deep stem, pooled shortcuts; kernels at the
    start and pooling as in the authors' code."""
    return ResNet(
        depth, width, stem="deep", pooled_shortcut=True, sk_ratio=0.0625,
        kernel_init="lecun", even_pool=False,
    )  # fmt: skip


def apply_stage(
    network: ResNet, params: PyTree, stats: PyTree, stage: int, x: Array, *, train: bool
) -> tuple[Array, PyTree]:
    """One stage of a network alone, for losses that train stages apart from each other.

    Args:
      network: whose stage it is.
      params, stats: of the whole network.
      stage: 0 for the stem, then from 1 on.
      x: images for the stem; for a stage, the map of the one before.
      train: as in `forward`.

    Returns:
      The map, and the statistics of the whole network after it.
    """
    prefix = "stem" if stage == 0 else f"stage{stage}_"
    own_params, own_stats = (
        {name: leaf for name, leaf in tree.items() if name.startswith(prefix)}
        for tree in (params, stats)
    )
    outputs, new = forward(_Stage(network, stage), own_params, own_stats, x, train=train)
    return outputs["map"], stats | new


class _Stage(nn.Module):
    """A stage whose parameters have the names that they have in the network."""

    network: ResNet
    stage: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> dict[str, Array]:
        network = self.network.clone(parent=None)
        if self.stage == 0:
            return {"map": _stem(network, x, train)}
        return {"map": _stage(network, self.stage, x, train)}


def _stem(network: ResNet, x: Array, train: bool) -> Array:
    init = network.stem_init or network.kernel_init
    layers = Layers(network.norm, network.groups, network.dtype, init)
    base = round(64 * network.width)
    x = x.astype(network.dtype)
    if network.stem == "deep":
        for i, (channels, stride) in enumerate(((base // 2, 2), (base // 2, 1)), 1):
            pad = network.stem_padding if i == 1 else None
            x = layers.conv(x, channels, 3, stride, f"stem{i}", pad)
            x = nn.relu(layers.normalise(x, train, f"stem{i}_norm"))
    kernel = 7 if network.stem == "imagenet" else 3
    stride = 2 if network.stem in ("imagenet", "half") else 1
    # Of several convolutions it is the first one, "stem1", that sees the image.
    pad = None if network.stem == "deep" else network.stem_padding
    x = layers.conv(x, base, kernel, stride, "stem", pad)
    x = layers.normalise(x, train, "stem_norm")
    x = nn.relu(x) if network.stem_relu else x
    if network.stem in ("imagenet", "deep"):
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)) if network.even_pool else "SAME")
    return x


def _stage(network: ResNet, stage: int, x: Array, train: bool) -> Array:
    make = nn.remat(Block, static_argnums=(2,)) if network.remat else Block
    for block in range(network.stage_blocks[stage - 1]):
        x = make(
            Layers(network.norm, network.groups, network.dtype, network.kernel_init),
            channels=round(64 * network.width) * 2 ** (stage - 1),
            stride=2 if stage > 1 and not block else 1,
            bottleneck=network.depth >= 50,
            zero_init=network.zero_init,
            shortcut=network.first_shortcut and stage == 1 and not block,
            pooled_shortcut=network.pooled_shortcut,
            sk_ratio=network.sk_ratio,
            name=f"stage{stage}_block{block + 1}",
        )(x, train)
    return x
