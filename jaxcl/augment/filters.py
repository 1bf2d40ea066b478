"""Operations on neighbourhoods and single pixels: blur, edges, noise, cut-outs."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.augment.color import luma
from jaxcl.augment.op import (
    THREE_PASSES,
    Op,
    Scalar,
    check_range,
    check_share,
    join,
    settle,
    sometimes,
    split,
    uniforms,
)
from jaxcl.errors import UserError
from jaxcl.typing import Array, Float, Key


def gaussian_blur(image: Float[Array, "h w c"], sigma: Scalar, size: int) -> Float[Array, "h w c"]:
    """Gaussian of standard deviation `sigma` in pixels, `size` (odd) taps down, then across.

    The taps sum to 1; outside the image lies 0, as in SimCLR, so the border darkens.
    """
    radius = size // 2
    weight = jnp.exp(-0.5 * (jnp.arange(radius + 1) / sigma) ** 2)  # of the taps 0, 1, 2, ... away
    weight = weight / (2 * jnp.sum(weight) - weight[0])
    height, width, _ = image.shape

    def along(plane: Array, axis: int, length: int) -> Array:
        take = partial(jax.lax.slice_in_dim, plane, axis=axis)
        out = weight[0] * take(radius, radius + length)
        for i in range(1, radius + 1):
            pair = take(radius - i, radius - i + length) + take(radius + i, radius + i + length)
            out = out + weight[i] * pair
        return out

    planes = []
    for plane in split(image):
        padded = jnp.pad(settle(plane), radius)  # or each tap may compute what made the plane
        blurred = along(along(padded, 0, height), 1, width)
        planes.append(jnp.minimum(blurred, 1.0))  # against rounding
    return join(planes)


PRODUCTS_UP_TO = 64
"""Side in pixels up to which `pillow_blur` is two matrix products: faster than passes over the
image by a factor of 2 to 3 at 32 pixels on CPU, slower from about 96."""


def pillow_blur(
    image: Float[Array, "h w c"], sigma: Scalar, greatest: float
) -> Float[Array, "h w c"]:
    """Pillow's `GaussianBlur(sigma)`: three means over boxes of fractional width across, then down.

    Together they have the variance `sigma**2`. The kernel is not cut off, and the image's border is
    extended outwards before each mean. Pillow rounds to 8 bits after each, this does not.

    Args:
      image: in [0, 1].
      sigma: standard deviation in pixels.
      greatest: bound on `sigma` that is known when the program is compiled.

    Reference: Gwosdek et al. 2011, Theoretical foundations of Gaussian convolution by extended box
    filtering.
    """
    reach = int((math.sqrt(4 * greatest**2 + 1) - 1) / 2) + 1
    whole = jnp.floor((jnp.sqrt(4 * sigma**2 + 1) - 1) / 2)  # pixels either side that count in full
    share = (2 * whole + 1) * (sigma**2 - whole * (whole + 1))
    share = share / (6 * ((whole + 1) ** 2 - sigma**2 / 3))  # of the next one that counts
    weight = jnp.clip(whole + share + 1 - jnp.arange(reach + 1), 0.0, 1.0)
    weight = weight / (2 * jnp.sum(weight) - weight[0])
    if min(image.shape[:2]) > 1 and max(image.shape[:2]) <= PRODUCTS_UP_TO:
        return _means_by_products(image, weight)
    return _means_by_passes(image, weight)


def _means_by_products(image: Array, weight: Float[Array, "r"]) -> Array:
    """The three means as one matrix for each axis."""

    def means(side: int) -> Array:
        place = np.arange(side)
        taken = np.zeros((len(weight), side, side), np.float32)  # by distance: which pixels count
        for distance in range(1 - len(weight), len(weight)):
            taken[abs(distance), place, np.clip(place + distance, 0, side - 1)] += 1
        product = partial(jnp.matmul, precision="highest")
        once = jnp.tensordot(weight, jnp.asarray(taken), axes=1, precision="highest")
        return product(product(once, once), once)

    product = partial(jnp.einsum, precision=THREE_PASSES)
    image = join([settle(plane) for plane in split(image)])  # else compiling takes minutes
    down, across = map(means, image.shape[:2])
    blurred = product("ij,kjc->kic", across, product("ij,jkc->ikc", down, image))
    return jnp.minimum(blurred, 1.0)  # against rounding


def _means_by_passes(image: Array, weight: Float[Array, "r"]) -> Array:
    reach = len(weight) - 1

    def mean(plane: Array, axis: int) -> Array:
        border = [(reach, reach) if i == axis else (0, 0) for i in range(2)]
        padded = settle(jnp.pad(plane, border, mode="edge"))
        take = partial(jax.lax.slice_in_dim, padded, axis=axis)
        length = plane.shape[axis]
        out = weight[0] * take(reach, reach + length)
        for i in range(1, reach + 1):
            pair = take(reach - i, reach - i + length) + take(reach + i, reach + i + length)
            out = out + weight[i] * pair
        return out

    planes = []
    for plane in split(image):
        plane = settle(plane)
        for axis in (1, 1, 1, 0, 0, 0):
            plane = mean(plane, axis)
        planes.append(jnp.minimum(plane, 1.0))  # against rounding
    return join(planes)


def sobel(image: Float[Array, "h w c"]) -> Float[Array, "h w 2"]:
    """Vertical and horizontal Sobel gradients of the grey image, in [-4, 4].

    The border is extended outwards, so that it makes no edge of its own.
    """
    x = jnp.pad(luma(image), 1, mode="edge")
    down, across = x[2:] - x[:-2], x[:, 2:] - x[:, :-2]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    return join([down, across])


def cutout(
    image: Float[Array, "h w c"],
    centre: tuple[Scalar, Scalar],
    size: int,
    fill: tuple[float, ...] = (0.0,),
) -> Float[Array, "h w c"]:
    """Paint a square of `size` about the pixel `centre` = (y, x), cut off at the border."""
    rows, columns = (
        jnp.arange(side) - (at - size // 2)
        for side, at in zip(image.shape[:2], centre, strict=True)
    )
    rows, columns = ((x >= 0) & (x < size) for x in (rows, columns))
    return jnp.where(rows[:, None, None] & columns[:, None], jnp.array(fill, image.dtype), image)


@dataclass(frozen=True)
class Blur(Op):
    """Gaussian blur with a width drawn per image.

    The two implementations agree inside large images. At 32 pixels the three taps of "simclr" have
    a standard deviation of at most 0.8, whatever sigma is drawn, and its border darkens.
    """

    p: float = 0.5
    """Probability."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Least and greatest standard deviation in pixels, uniform."""
    size: int | None = None
    """Number of taps of impl=simclr, odd; by default a tenth of the height made odd: 23 at 224
    pixels, 3 at 32."""
    impl: Literal["simclr", "pillow"] = "simclr"
    """What the blur does at its ends: simclr cuts the kernel off after `size` taps and takes 0 for
    pixels outside the image; pillow, as in PyTorch code, does not cut it off and extends the
    border."""

    def __post_init__(self) -> None:
        check_share("blur.p", self.p)
        if self.impl == "pillow" and self.size is not None:
            raise UserError(f"blur.size={self.size} has no meaning with impl=pillow; leave it out")
        if self.size is not None and (self.size < 1 or self.size % 2 == 0):
            raise UserError(f"blur.size={self.size} has no middle; give an odd number")
        check_range("blur.sigma", self.sigma, 1e-6)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        coin, width = uniforms(key, 2)
        low, high = self.sigma
        sigma = low + width * (high - low)
        # A width of next to nothing leaves the image to the bit, at no cost per pixel.
        sigma = jnp.where(coin < self.p, sigma, 0.0 if self.impl == "pillow" else 1e-3)
        if self.impl == "pillow":
            return pillow_blur(image, sigma, high)
        return gaussian_blur(image, sigma, self.size or 2 * (image.shape[0] // 10 // 2) + 1)


@dataclass(frozen=True)
class Sobel(Op):
    """Edges: Sobel's 3x3 gradients of the grey image, the border extended outwards."""

    p: float = 1.0
    """Probability; below 1 only with output="magnitude", which keeps the shape."""
    output: Literal["magnitude", "gradients"] = "magnitude"
    """Length of the gradient, clipped to 1, in every channel; or both gradients, [h, w, 2]."""

    def __post_init__(self) -> None:
        check_share("sobel.p", self.p)
        if self.output == "gradients" and self.p < 1:
            raise UserError(f"sobel.p={self.p} would mix 2 channels with others; use p=1")

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        edges = sobel(image)
        if self.output == "gradients":
            return edges
        length = jnp.sqrt(jnp.sum(edges * edges, axis=-1, keepdims=True))
        length = jnp.broadcast_to(jnp.minimum(length, 1.0), image.shape)
        (coin,) = uniforms(key, 1)
        return sometimes(coin, self.p, length, image)


@dataclass(frozen=True)
class Noise(Op):
    """Independent Gaussian noise on every value, then clipped."""

    p: float = 0.5
    """Probability."""
    sigma: float = 0.1
    """Standard deviation; the image spans 0 to 1."""

    def __post_init__(self) -> None:
        check_share("noise.p", self.p)
        if self.sigma < 0:
            raise UserError(f"noise.sigma={self.sigma} is negative; give 0 or more")

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        chance, draw = jax.random.split(key)
        (coin,) = uniforms(chance, 1)
        noisy = image + self.sigma * jax.random.normal(draw, image.shape, image.dtype)
        return sometimes(coin, self.p, jnp.clip(noisy, 0.0, 1.0), image)


@dataclass(frozen=True)
class Cutout(Op):
    """One square painted over, its centre uniform over the pixels, cut off at the border."""

    p: float = 1.0
    """Probability."""
    size: int = 16
    """Side of the square in pixels; 16 for CIFAR-10, 8 for CIFAR-100 in the paper."""
    fill: tuple[float, ...] = (0.0,)
    """Its colour, one number or one per channel; the recipe's mean here is 0 once normalised."""

    def __post_init__(self) -> None:
        check_share("cutout.p", self.p)
        if self.size < 1:
            raise UserError(f"cutout.size={self.size} is too small; give at least 1 pixel")

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        coin, y, x = uniforms(key, 3)
        centre = (jnp.floor(y * image.shape[0]), jnp.floor(x * image.shape[1]))
        return sometimes(coin, self.p, cutout(image, centre, self.size, self.fill), image)
