"""Where a random resized crop cuts: boxes as torchvision, TensorFlow and BYOL draw them.

Each function turns numbers in [0, 1) [..., 2 t + 2] into boxes (y, x, h, w) [..., 4] in whole
pixels: t pairs that choose the sides, of which the first pair that fits counts, and two numbers
that choose the corner. A fixed number of tries in one array takes the place of a loop. The same
arithmetic runs in JAX and in NumPy (`xp`), so the host cuts what the device would cut.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

Range = tuple[float, float]
Sampler = Literal["torchvision", "tensorflow", "clamp"]
TRIES = 10
"""How often a box is drawn until one fits, as in torchvision. TensorFlow's 100 tries change one
box in 1,000 of images eight times as long as wide, and fewer of others."""
COVERED = 0.1
"""Share of the image that SimCLR asks of a box at least (`min_object_covered`)."""


def draws(sampler: Sampler) -> int:
    """How many numbers in [0, 1) a box takes."""
    return 4 if sampler == "clamp" else 2 * TRIES + 2


def torchvision_box(u: Any, height: int, width: int, scale: Range, ratio: Range, xp: Any) -> Any:
    """Area uniform, aspect log-uniform; else the largest central box with an aspect in `ratio`.

    Of torchvision's `RandomResizedCrop.get_params`.
    """
    h, w = _sides(u[..., 0:-2:2], u[..., 1:-2:2], height * width, scale, ratio, xp)
    fits = (h >= 1) & (w >= 1) & (h <= height) & (w <= width)
    central_h, central_w = (
        min(height, round(width / ratio[0])),
        min(width, round(height * ratio[1])),
    )
    some, (h, w) = _first(fits, (h, w), (central_h, central_w), xp)
    y = xp.where(some, xp.floor(u[..., -2] * (height - h + 1)), (height - central_h) // 2)
    x = xp.where(some, xp.floor(u[..., -1] * (width - w + 1)), (width - central_w) // 2)
    return _box(y, x, h, w, xp)


def tensorflow_box(u: Any, height: int, width: int, scale: Range, ratio: Range, xp: Any) -> Any:
    """Aspect uniform, then the height uniform over those that suit it; else the whole image.

    Of `tf.image.sample_distorted_bounding_box` as SimCLR calls it: boxes of less than a tenth of
    the image are rejected, and no box but one of full length touches the lower or right border.
    """
    least, most = scale[0] * height * width, scale[1] * height * width
    aspect = ratio[0] + u[..., 0:-2:2] * (ratio[1] - ratio[0])
    low, high = (xp.round(xp.sqrt(area / aspect)) for area in (least, most))
    widest = xp.floor((width + 0.5) / aspect)
    widest = widest - (xp.round(widest * aspect) > width)
    high = xp.minimum(xp.where(xp.round(high * aspect) > width, widest, high), height)
    low = xp.minimum(low, high)
    h = low + xp.floor(u[..., 1:-2:2] * (high - low + 1))
    h = h + (xp.round(h * aspect) * h < least)  # against rounding, up and then down
    h = h - (xp.round(h * aspect) * h > most)
    w = xp.round(h * aspect)
    area = h * w
    fits = (area >= max(least, COVERED * height * width)) & (area <= most)
    _, (h, w) = _first(fits & (h <= height) & (w <= width), (h, w), (height, width), xp)
    y = xp.floor(u[..., -2] * (height - h))
    x = xp.floor(u[..., -1] * (width - w))
    return _box(y, x, h, w, xp)


def clamped_box(u: Any, height: int, width: int, scale: Range, ratio: Range, xp: Any) -> Any:
    """Area uniform, aspect log-uniform, once; sides that do not fit are cut to the image's.

    Of BYOL's code.
    """
    h, w = _sides(u[..., 0], u[..., 1], height * width, scale, ratio, xp)
    h, w = xp.clip(h, 1, height), xp.clip(w, 1, width)
    y = xp.floor(u[..., -2] * (height - h + 1))
    x = xp.floor(u[..., -1] * (width - w + 1))
    return _box(y, x, h, w, xp)


BOXES: dict[Sampler, Callable[..., Any]] = {
    "torchvision": torchvision_box,
    "tensorflow": tensorflow_box,
    "clamp": clamped_box,
}


def _sides(area: Any, aspect: Any, pixels: int, scale: Range, ratio: Range, xp: Any) -> Any:
    """(h, w) of an area uniform in `scale` and an aspect log-uniform in `ratio`, rounded."""
    side = xp.sqrt((scale[0] + area * (scale[1] - scale[0])) * pixels)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = xp.exp((low + aspect * (high - low)) / 2)  # square root of width over height
    return xp.round(side / root), xp.round(side * root)


def _first(fits: Any, sides: tuple[Any, Any], otherwise: tuple[int, int], xp: Any) -> Any:
    """Whether any try [..., t] fits, and the sides of the first that does, or `otherwise`."""
    first = xp.arange(fits.shape[-1]) == xp.argmax(fits, axis=-1)[..., None]
    some = xp.any(fits, axis=-1)
    chosen = (xp.sum(xp.where(first, side, 0), axis=-1) for side in sides)
    return some, [xp.where(some, a, b) for a, b in zip(chosen, otherwise, strict=True)]


def _box(y: Any, x: Any, h: Any, w: Any, xp: Any) -> Any:
    return xp.stack([y, x, h, w], axis=-1).astype(xp.int32)
