"""Position tables of vision transformers: fixed ones, and learned ones at another size."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.typing import Array, Float, NumpyArray


def sincos_positions(
    height: int, width: int, channels: int, *, order: str
) -> Float[NumpyArray, "t d"]:
    """Sines and cosines of a patch's two coordinates, as two libraries write them.

    Args:
      height, width: of the grid of patches.
      channels: of a token, a multiple of 4.
      order: "moco_v3": frequencies 10000^(-k / (d/4)), the row's sines first; "big_vision":
        frequencies 10000^(-k / (d/4 - 1)), the column's first.

    Returns:
      [height * width, channels] float32, rows of the grid one after the other, as patches come.

    MoCo v3's own code counts along columns first, while its patches come row by row. On a square
    grid that only exchanges the names of the two coordinates, and its tables are these; on another
    grid it gives patches the places of others, and this function does not follow it.

    Raises:
      ValueError: channels are no multiple of 4.

    Reference: facebookresearch/moco-v3, vits.py; google-research/big_vision, models/vit.py.
    """
    if channels % 4:
        raise ValueError(f"{channels} channels for positions; they are a multiple of 4")
    quarter = channels // 4
    steps = quarter if order == "moco_v3" else quarter - 1
    frequencies = 10000.0 ** (-np.arange(quarter) / steps)
    rows, columns = np.mgrid[:height, :width].reshape(2, -1, 1) * frequencies
    first, second = (rows, columns) if order == "moco_v3" else (columns, rows)
    table = [np.sin(first), np.cos(first), np.sin(second), np.cos(second)]
    return np.concatenate(table, axis=1).astype(np.float32)


def resize_positions(
    table: Float[Array, "s s d"], height: int, width: int, *, offset: float = 0.0
) -> Float[Array, "h w d"]:
    """A learned table for another grid, by torch's bicubic interpolation.

    Args:
      table: [s, s, d] for the grid it was learned on.
      height, width: of the grid that is wanted.
      offset: added to both when the scale is computed; 0.1 in DINO's code.
    """
    side = len(table)
    if (height, width) == (side, side):
        return table
    rows, columns = (_cubic(side, size, (size + offset) / side) for size in (height, width))
    return jnp.einsum("hr,wc,rcd->hwd", rows, columns, table, precision=jax.lax.Precision.HIGHEST)


def _cubic(there: int, here: int, scale: float) -> Float[NumpyArray, "here there"]:
    """Weights of `there` samples for each of `here`: Keys' kernel with a = -0.75, half-pixel
    centres, edges repeated, no smoothing when shrinking; as torch has it."""
    a = -0.75
    centres = (np.arange(here) + 0.5) / scale - 0.5
    weights = np.zeros((here, there))
    for tap in range(-1, 3):
        places = np.floor(centres) + tap
        t = np.abs(centres - places)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        kept = np.clip(places, 0, there - 1).astype(int)
        np.add.at(weights, (np.arange(here), kept), np.where(t <= 1, near, far))
    return weights.astype(np.float32)
