"""Operations that move pixels: crop, resize, flip, quarter turns, affine maps."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxcl.augment.boxes import BOXES, COVERED, Sampler, draws
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
from jaxcl.typing import Array, Float, Int, Key, UInt8

Interpolation = Literal["bilinear", "bicubic", "tf_bicubic"]
"""Kernels of a resize: bilinear and bicubic as Pillow has them, with antialias, and bicubic as
TensorFlow has it, without."""


def _kernel(interpolation: Interpolation, x: Array) -> Array:
    """Bilinear: 1 - |x|, 0 from 1 on. Bicubic: Keys' with a = -1/2, 0 from 2 on."""
    x = jnp.abs(x)
    if interpolation == "bilinear":
        return jnp.maximum(0.0, 1.0 - x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def _reach(interpolation: Interpolation) -> int:
    return 1 if interpolation == "bilinear" else 2


@dataclass(frozen=True)
class _Stretch:
    """[start, start + length) of a line of `pixels`, to be resampled into `size` pixels.

    The kernel stands at the centre of each output pixel, widened by the scale when the stretch
    shrinks (antialias, as in Pillow and `jax.image.resize`) unless it is TensorFlow's. Only pixels
    inside the stretch count and each output's weights sum to 1, so the result equals cropping first
    and resizing then.
    """

    start: Scalar
    length: Scalar
    pixels: int
    size: int
    interpolation: Interpolation

    def weights(self, pixel: Array) -> Float[Array, "size k"]:
        """Weight of pixel number `pixel` [size or 1, k] in each output pixel."""
        middle = pixel + 0.5
        weight = _kernel(self.interpolation, (middle - self.centres()[:, None]) / self.width())
        inside = (middle > self.start) & (middle < self.start + self.length)
        weight = jnp.where(inside, weight, 0.0)
        return weight / jnp.sum(weight, axis=1, keepdims=True)

    def width(self) -> Scalar:
        """By how much the kernel is widened."""
        return 1.0 if self._sharp else jnp.maximum(self.length / self.size, 1.0)

    @property
    def _sharp(self) -> bool:
        return self.interpolation == "tf_bicubic"

    def centres(self) -> Float[Array, "size"]:
        step = self.length / self.size
        return self.start + (jnp.arange(self.size, dtype=jnp.float32) + 0.5) * step

    def matrix(self) -> Float[Array, "size pixels"]:
        return self.weights(jnp.arange(self.pixels, dtype=jnp.float32)[None])

    def taps(self) -> tuple[Int[Array, "size k"], Float[Array, "size k"]]:
        """The few pixels that have weight, and their weights."""
        reach = _reach(self.interpolation)
        widest = 1.0 if self._sharp else max(1.0, self.pixels / self.size)
        most = min(self.pixels, math.ceil(2 * reach * widest))
        first = jnp.ceil(self.centres() - reach * self.width() - 0.5)
        pixel = jnp.clip(first, 0, self.pixels - most)[:, None] + jnp.arange(most)
        return pixel.astype(jnp.int32), self.weights(pixel)


def _resample_by_products(image: Array, down: _Stretch, across: _Stretch) -> Array:
    image = image.astype(jnp.float32)
    product = functools.partial(jnp.einsum, precision=THREE_PASSES)
    return product("yh,hwc,xw->yxc", down.matrix(), image, across.matrix())


def _resample_by_taps(image: Array, down: _Stretch, across: _Stretch) -> Array:
    (row, row_weight), (column, column_weight) = down.taps(), across.taps()
    planes = []
    for plane in split(image):
        taps = zip(row.T, row_weight.T, strict=True)
        plane = settle(functools.reduce(jnp.add, (plane[at] * w[:, None] for at, w in taps)))
        taps = zip(column.T, column_weight.T, strict=True)
        planes.append(settle(functools.reduce(jnp.add, (plane[:, at] * w for at, w in taps))))
    return join(planes)


def crop_and_resize(
    image: Float[Array, "h w c"] | UInt8[Array, "h w c"],
    box: tuple[Scalar, Scalar, Scalar, Scalar],
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "size size c"]:
    """Cut a box and resize it to `size` x `size`.

    Two small matrix products, one down and one across: on accelerators as such, without a gather;
    on CPU, where nearly all their entries are zero, as sums over the few that are not.

    Args:
      image: [h, w, c] float32 in [0, 1], or uint8.
      box: (y, x, height, width) in pixels, inside the image; may be traced, need not be whole.
      size: side of the result in pixels.
      interpolation: kernel; widened where the box shrinks (antialias) unless it is "tf_bicubic".
        Bicubic overshoot is clipped.

    Returns:
      [size, size, c] float32 in [0, 1].
    """
    y, x, height, width = box
    down = _Stretch(y, height, image.shape[0], size, interpolation)
    across = _Stretch(x, width, image.shape[1], size, interpolation)
    out = jax.lax.platform_dependent(
        image,
        cpu=lambda image: _resample_by_taps(image, down, across),
        default=lambda image: _resample_by_products(image, down, across),
    )
    scale = 1 / 255 if image.dtype == jnp.uint8 else 1.0
    return join([jnp.clip(plane * scale, 0.0, 1.0) for plane in split(out)])


@dataclass(frozen=True)
class RandomResizedCrop(Op):
    """A random box of the image, resized to `size` x `size`.

    The box is drawn in one of three ways; at the default `scale` the later ones cut larger boxes:

      tensorflow   aspect uniform, then height uniform; boxes that do not fit or hold less than a
                   tenth of the image are drawn again (SimCLR)
      torchvision  area uniform, aspect log-uniform; boxes that do not fit are drawn again (most
                   PyTorch code)
      clamp        area uniform, aspect log-uniform; sides that do not fit are cut to the image's
                   (BYOL, MAE)

    Ten boxes are tried, all of them in one array; where none fits, torchvision cuts the largest
    central box with an aspect in `ratio`, TensorFlow leaves the whole image. The box is resized by
    two small matrix products, which accelerators do without any gather.
    """

    size: int
    """Side of the result in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width over height."""
    interpolation: Interpolation = "bilinear"
    """Kernel of the resize: bilinear or bicubic with antialias, as Pillow's, or tf_bicubic without
    antialias, as TensorFlow's."""
    sampler: Sampler = "torchvision"
    """Whose way of drawing the box is followed: torchvision's, tensorflow's (SimCLR) or clamp
    (BYOL)."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"crop.size={self.size} is too small; give at least 1 pixel")
        check_range("crop.scale", self.scale)
        check_range("crop.ratio", self.ratio, 1e-6)
        if self.sampler == "tensorflow" and self.scale[1] <= COVERED:
            raise UserError(
                f"crop.scale={self.scale}: sampler=tensorflow rejects boxes of less than {COVERED} "
                f"of the image; use sampler=torchvision"
            )

    @property
    def draws(self) -> int:
        """How many numbers in [0, 1) a box takes."""
        return draws(self.sampler)

    def box(self, uniforms: Any, height: int, width: int, xp: Any = jnp) -> Any:
        """Box (y, x, h, w) in whole pixels, int32 [..., 4], from numbers in [0, 1).

        Of the numbers [..., n] the first `draws` count. The same arithmetic in numpy (`xp=numpy`)
        cuts crops on the host.

        Raises:
          ValueError: fewer numbers than `draws`.
        """
        if uniforms.shape[-1] < self.draws:
            raise ValueError(f"a box takes {self.draws} numbers and got {uniforms.shape[-1]}")
        u = xp.asarray(uniforms, xp.float32)[..., : self.draws]
        return BOXES[self.sampler](u, height, width, self.scale, self.ratio, xp)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "s s c"]:
        height, width, _ = image.shape
        box = self.box(jax.random.uniform(key, (self.draws,), jnp.float32), height, width)
        return crop_and_resize(image, tuple(box), self.size, self.interpolation)


def center_crop(
    image: Float[Array, "h w c"],
    size: int,
    share: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> Float[Array, "size size c"]:
    """The central square of `share` of the shorter side, resized; `image` if that is no change."""
    height, width, _ = image.shape
    side = share * min(height, width)
    if side == size == height == width:
        return image
    box = ((height - side) / 2, (width - side) / 2, side, side)
    return crop_and_resize(image, box, size, interpolation)


@dataclass(frozen=True)
class CenterCrop(Op):
    """The central square, resized to `size` x `size`; no randomness."""

    size: int
    """Side of the result in pixels."""
    share: float = 1.0
    """Side of the square over the image's shorter side; 0.875 is usual at 224 pixels."""
    interpolation: Interpolation = "bilinear"
    """Kernel of the resize: bilinear or bicubic with antialias, or tf_bicubic without."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"crop.share={self.share} is out of range; give 0 < share <= 1")

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "s s c"]:
        return center_crop(image, self.size, self.share, self.interpolation)


@dataclass(frozen=True)
class Resize(Op):
    """The whole image, whatever its aspect, at `size` x `size`; no randomness."""

    size: int
    """Side of the result in pixels."""
    interpolation: Interpolation = "bilinear"
    """Kernel of the resize: bilinear or bicubic with antialias, or tf_bicubic without."""

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "s s c"]:
        height, width, _ = image.shape
        if height == width == self.size:
            return image
        return crop_and_resize(image, (0.0, 0.0, height, width), self.size, self.interpolation)


@dataclass(frozen=True)
class Flip(Op):
    """Left and right exchanged."""

    p: float = 0.5
    """Probability."""

    def __post_init__(self) -> None:
        check_share("flip.p", self.p)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        (coin,) = uniforms(key, 1)
        return sometimes(coin, self.p, image[:, ::-1], image)


@dataclass(frozen=True)
class Rotate90(Op):
    """One, two or three quarter turns, equally likely; for square images."""

    p: float = 0.5
    """Probability of any turn."""

    def __post_init__(self) -> None:
        check_share("rotate.p", self.p)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        if image.shape[0] != image.shape[1]:
            raise UserError(f"Rotate90 got {image.shape[0]}x{image.shape[1]}; crop a square first")
        coin, which = uniforms(key, 2)
        once, twice, thrice = (jnp.rot90(image, k) for k in (1, 2, 3))
        turned = jnp.where(which < 1 / 3, once, jnp.where(which < 2 / 3, twice, thrice))
        return sometimes(coin, self.p, turned, image)


def affine(
    image: Float[Array, "h w c"], matrix: Float[Array, "2 2"], shift: Float[Array, "2"]
) -> Float[Array, "h w c"]:
    """Resample bilinearly: the result at p is `image` at `matrix @ (p - centre) + centre + shift`.

    Positions are (y, x) in pixels; outside the image lies 0.
    """
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    source = jnp.einsum("ij,jhw->ihw", matrix, grid - centre[:, None, None], precision="highest")
    source = source + (centre + shift)[:, None, None]
    planes = [map_coordinates(plane, list(source), order=1) for plane in split(image)]
    return join(planes)


@dataclass(frozen=True)
class RandomAffine(Op):
    """A small turn, shift, scaling and shear about the centre; bilinear, 0 outside."""

    degrees: float = 15.0
    """Greatest turn either way."""
    translate: float = 0.1
    """Greatest shift either way, as a share of the side."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Least and greatest magnification (log-uniform)."""
    shear: float = 0.0
    """Greatest horizontal shear either way, in degrees."""
    p: float = 1.0
    """Probability."""

    def __post_init__(self) -> None:
        check_share("affine.p", self.p)
        check_range("affine.scale", self.scale, 1e-6)

    def __call__(self, key: Key, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        coin, turn, zoom, slant, down, across = uniforms(key, 6)
        angle = math.radians(self.degrees) * (2 * turn - 1)
        log_low, log_high = math.log(self.scale[0]), math.log(self.scale[1])
        shrink = jnp.exp(-(log_low + zoom * (log_high - log_low)))
        slope = jnp.tan(math.radians(self.shear) * (2 * slant - 1))
        turned = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        sheared = jnp.array([[1.0, 0.0], [slope, 1.0]])
        sides = jnp.array(image.shape[:2], jnp.float32)
        shift = self.translate * sides * (2 * jnp.array([down, across]) - 1)
        matrix = shrink * jnp.matmul(turned, sheared, precision="highest")
        return sometimes(coin, self.p, affine(image, matrix, shift), image)
