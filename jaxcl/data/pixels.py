"""Decoding and resizing on the host, with OpenCV."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jaxcl.reading import PIXELS
from jaxcl.typing import Float, NumpyArray, UInt8

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PIXELS))  # read when it is loaded
import cv2

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif",
    ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".sr",
    ".ras", ".hdr", ".pic",
)  # fmt: skip
"""File name endings, in lower case, that count as images."""

_COLOUR = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
_GREY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
}
STRIP = 64
"""Longer side over shorter side from which on an image loses its ends before it is resized."""
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


class Crop(Protocol):
    """What the host needs of a random resized crop."""

    @property
    def size(self) -> int: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def draws(self) -> int: ...
    def box(self, uniforms: Any, height: int, width: int, xp: Any) -> Any: ...


def decode(data: bytes, channels: int, shrink: int = 1) -> UInt8[NumpyArray, "h w c"] | None:
    """Pixels of an encoded image, red first, or None where it is damaged.

    Grey images become colour where `channels` is 3, transparency is dropped, 16 bits become 8, and
    the orientation noted by a camera is not applied (as in Pillow, torchvision and TFDS). An image
    of more than `jaxcl.reading.PIXELS` pixels counts as damaged.

    Args:
      data: a whole image file.
      channels: 3 or 1.
      shrink: 1, 2 or 4; JPEG is then decoded at that fraction of its size, which is faster.
    """
    # OpenCV before 5 fills what is missing of a cut JPEG with grey instead of refusing it. Inside
    # the compressed pixels the end mark cannot occur, in a preview before the frame it can.
    frame = _frame(data)
    if frame is not None and data.rfind(_JPEG_END, frame) < 0:
        return None
    size = header_size(data)
    if size is not None and size[0] * size[1] > PIXELS:
        return None
    flags = (_COLOUR if channels == 3 else _GREY)[shrink] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # an empty file
        return None
    if pixels is None:
        return None
    if channels == 1:
        return np.expand_dims(pixels, -1)
    rgb: NumpyArray = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return rgb


def header_size(head: bytes) -> tuple[int, int] | None:
    """(h, w) from the first bytes of a JPEG or PNG file; None where they do not tell."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return int.from_bytes(head[20:24]), int.from_bytes(head[16:20])
    frame = _frame(head)
    if frame is None or len(head) < frame + 9:
        return None
    return (
        int.from_bytes(head[frame + 5 : frame + 7]),
        int.from_bytes(head[frame + 7 : frame + 9]),
    )


def _frame(head: bytes) -> int | None:
    """Where the frame header of a JPEG file begins; None for other files and short heads."""
    if not head.startswith(_JPEG):
        return None
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return at
        # 0xFF may be repeated as filling; every other segment before the frame carries its length
        at += 1 if marker == 0xFF else 2 + int.from_bytes(head[at + 2 : at + 4])
    return None


def resize(
    pixels: UInt8[NumpyArray, "h w c"], height: int, width: int, interpolation: str = "bilinear"
) -> UInt8[NumpyArray, "height width c"]:
    """Resizes with means over areas along sides that shrink, by interpolation along the others.

    The means are several times as fast as Pillow's kernels. On photographs that shrink by 1.3 to
    2.2 they differ from them by 1 to 2 of 255 levels, and their sharpness lies between that of
    Pillow's bilinear and its bicubic kernel. "tf_bicubic" takes no means: it interpolates along all
    sides, 0.8 levels from TensorFlow, whose kernel is a little less sharp than OpenCV's.

    Args:
      pixels: the image.
      height: of the result.
      width: of the result.
      interpolation: "bilinear" or "bicubic", for sides that grow, or "tf_bicubic", for all.
    """
    h, w, c = pixels.shape
    if interpolation != "tf_bicubic" and (height < h or width < w):
        less = (min(width, w), min(height, h))
        pixels = cv2.resize(pixels, less, interpolation=cv2.INTER_AREA)
    if pixels.shape[:2] != (height, width):
        how = cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, (width, height), interpolation=how)
    return pixels.reshape(height, width, c)  # OpenCV drops a single channel


def resize_and_centre(
    pixels: UInt8[NumpyArray, "h w c"], size: int, interpolation: str = "bilinear"
) -> UInt8[NumpyArray, "size size c"]:
    """Shorter side to `size`, keeping proportions, then the square in the middle."""
    pixels = _without_ends(pixels)
    h, w, _ = pixels.shape
    if (h, w) != (size, size):
        scale = size / min(h, w)
        h, w = max(size, round(h * scale)), max(size, round(w * scale))
        pixels = resize(pixels, h, w, interpolation)
    y, x = (h - size) // 2, (w - size) // 2
    return pixels[y : y + size, x : x + size]


def _without_ends(pixels: UInt8[NumpyArray, "h w c"]) -> UInt8[NumpyArray, "h w c"]:
    """A strip without its ends, which the square in the middle does not need: resized as a whole,
    one of 1 x 60,000 pixels would become 224 x 13,440,000."""
    h, w, _ = pixels.shape
    longest = STRIP * min(h, w)
    y, x = max(0, h - longest) // 2, max(0, w - longest) // 2
    return pixels[y : y + longest, x : x + longest]


def crop_views(
    content: bytes | UInt8[NumpyArray, "h w c"],
    channels: int,
    crops: Sequence[Crop],
    uniforms: Float[NumpyArray, "v d"],
) -> tuple[UInt8[NumpyArray, "s s c"], ...] | None:
    """One resized crop per view of an image, or None where it is damaged.

    A JPEG is decoded at half or a quarter of its size where even the smallest crop then still has
    at least the pixels asked for, unless a crop is resized without antialias.

    Args:
      content: an encoded image, or pixels.
      channels: 3 or 1.
      crops: one per view.
      uniforms: [v, d] numbers in [0, 1) that choose the boxes, at least `draws` of every crop.
    """
    if isinstance(content, bytes):
        size = header_size(content) if content.startswith(_JPEG) else None
        shrink = 1 if size is None else _shrink(crops, _boxes(crops, uniforms, size))
        pixels = decode(content, channels, shrink)
        if pixels is None:
            return None
    else:
        pixels, size = content, None
    size = size or (pixels.shape[0], pixels.shape[1])
    scale_y, scale_x = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
    views = []
    for crop, (y, x, h, w) in zip(crops, _boxes(crops, uniforms, size), strict=True):
        top, bottom = _whole(y * scale_y, h * scale_y, pixels.shape[0])
        left, right = _whole(x * scale_x, w * scale_x, pixels.shape[1])
        views.append(
            resize(pixels[top:bottom, left:right], crop.size, crop.size, crop.interpolation)
        )
    return tuple(views)


def _boxes(crops: Sequence[Crop], uniforms: NumpyArray, size: tuple[int, int]) -> list[list[int]]:
    """(y, x, h, w) of every crop; one call for views that are cropped alike, for speed."""
    alike = {crop: crop.box(uniforms, *size, xp=np).tolist() for crop in dict.fromkeys(crops)}
    return [alike[crop][view] for view, crop in enumerate(crops)]


def _shrink(crops: Sequence[Crop], boxes: Sequence[Sequence[int]]) -> int:
    """By how much all crops may be coarser and still have the pixels asked for: 1, 2 or 4."""
    if any(crop.interpolation == "tf_bicubic" for crop in crops):
        return 1
    room = min(min(h, w) / crop.size for crop, (_, _, h, w) in zip(crops, boxes, strict=True))
    return 4 if room >= 4 else 2 if room >= 2 else 1


def _whole(start: float, length: float, limit: int) -> tuple[int, int]:
    """The whole pixels nearest to an interval: at least one, none outside 0 .. limit."""
    first = min(max(round(start), 0), limit - 1)
    return first, min(max(first + round(length), first + 1), limit)
