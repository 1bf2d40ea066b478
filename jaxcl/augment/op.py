"""What every image operation is: a frozen value, called with a key and one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcl.errors import UserError
from jaxcl.scale import platform
from jaxcl.typing import Array, Float, Key

Scalar = Array | float
"""A number, traced or not."""

THREE_PASSES = jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3
"""Products of float32 numbers as three of their upper and lower halves in bfloat16: 16 bits of each
count. That is half of a TPU's passes in full float32 and runs on a GPU's matrix units, which full
float32 does not; a resampled pixel is off by less than a hundredth of a grey level."""


@dataclass(frozen=True)
class Op:
    """One image operation with its strengths and, where it makes sense, a probability `p`.

    `op(key, image)` takes a typed key and one float32 image [h, w, c] in [0, 1] and returns an
    image in [0, 1]. All randomness comes from the key; all shapes are static, so `vmap` and `jit`
    apply. Equal values are the same operation.
    """

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        raise NotImplementedError


def split(image: Float[Array, "h w c"]) -> list[Float[Array, "h w"]]:
    """The channels as separate planes.

    Operations work on planes and `join` them at the end. Compiled together, a split undoes the
    join before it, so that a chain runs on planes throughout, in long vectors.
    """
    return [image[..., i] for i in range(image.shape[-1])]


def join(planes: Sequence[Float[Array, "h w"]]) -> Float[Array, "h w c"]:
    """Inverse of `split`."""
    return jnp.stack(planes, axis=-1)


def settle(x: Array) -> Array:
    """`x`, computed here once.

    Otherwise the compiler may compute it anew inside each of its uses, on CPU several times slower
    where these are many.
    """
    if jax.__version_info__ < (0, 11) and platform() == "cpu":  # drops barriers before it fuses
        return jnp.where(jnp.isnan(jnp.sum(x)), jnp.nan, x)  # a sum needs all of x in memory
    settled: Array = jax.lax.optimization_barrier(x)
    return settled


def sometimes(
    coin: Float[Array, ""], p: float, changed: Float[Array, "h w c"], image: Float[Array, "h w c"]
) -> Float[Array, "h w c"]:
    """`changed` where the uniform `coin` is below `p`, else `image`, untouched to the bit."""
    if p >= 1:
        return changed
    return join(
        [jnp.where(coin < p, a, b) for a, b in zip(split(changed), split(image), strict=True)]
    )


def uniforms(key: Key, count: int) -> list[Float[Array, ""]]:
    """`count` independent numbers in [0, 1) from one call: calls cost more than numbers."""
    return list(jax.random.uniform(key, (count,), jnp.float32))


def check_share(name: str, value: float) -> None:
    """Raise `UserError` unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise UserError(f"{name}={value} is no probability; give a number from 0 to 1")


def check_range(name: str, bounds: tuple[float, float], least: float = 0.0) -> None:
    """Raise `UserError` unless `bounds` is (low, high) with `least` <= low <= high."""
    low, high = bounds
    if not least <= low <= high:
        raise UserError(
            f"{name}={bounds} is no range; give (low, high) with {least} <= low <= high"
        )
