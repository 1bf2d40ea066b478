"""Decoding, resizing and cropping against OpenCV's own calls and against Pillow."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from augment.make_fixtures_crops import PARTS

from jaxcl.augment import RandomResizedCrop, crop_and_resize
from jaxcl.data import pixels as pixels_module
from jaxcl.data.order import crop_uniforms
from jaxcl.data.pixels import crop_views, decode, header_size, resize, resize_and_centre


@dataclass(frozen=True)
class Box:
    """A crop that always takes the same box."""

    place: tuple[int, int, int, int]
    size: int
    interpolation: str = "bilinear"
    draws: int = 4

    def box(self, uniforms: Any, height: int, width: int, xp: Any) -> Any:
        return np.broadcast_to(np.array(self.place), (*uniforms.shape[:-1], 4))


ANY = np.zeros((1, 4))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
def test_colours_come_red_first(ending: str) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 250  # OpenCV writes blue first
    image = decode(cv2.imencode(ending, red)[1].tobytes(), 3)
    assert image is not None
    np.testing.assert_allclose(image[8, 8], [250, 0, 0], atol=6)


def test_grey_transparent_and_deep_images_become_plain() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = cv2.imencode(".png", grey)[1].tobytes()
    np.testing.assert_array_equal(decode(file, 3), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode(file, 1), grey[..., None])
    clear = np.dstack([grey, grey, grey, np.zeros_like(grey)])
    shown = decode(cv2.imencode(".png", clear)[1].tobytes(), 3)
    np.testing.assert_array_equal(shown, np.repeat(grey[..., None], 3, axis=2))
    deep = decode(cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(), 3)
    np.testing.assert_array_equal(deep, np.repeat(grey[..., None], 3, axis=2))


def test_decodes_like_pillow_and_leaves_orientation_alone(picture: Callable) -> None:
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(io.BytesIO(picture(0, 60, 80))) as image:
        turned = io.BytesIO()
        exif = image.getexif()
        exif[0x0112] = 6  # lying on its side
        image.save(turned, "JPEG", exif=exif, quality=95)
    with image_module.open(io.BytesIO(turned.getvalue())) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    pixels = decode(turned.getvalue(), 3)
    assert pixels is not None
    assert header_size(turned.getvalue()) == (60, 80)
    np.testing.assert_allclose(pixels.astype(int), expected, atol=3)  # two JPEG decoders round


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_header_tells_the_size(size: tuple[int, int], ending: str) -> None:
    file = cv2.imencode(ending, np.zeros((*size, 3), np.uint8))[1].tobytes()
    assert header_size(file) == size
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    assert (
        header_size(cv2.imencode(".jpg", np.zeros(size, np.uint8), progressive)[1].tobytes())
        == size
    )


def test_header_says_nothing_of_other_files() -> None:
    for head in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"BM" + bytes(60),
        bytes(40),
    ):
        assert header_size(head) is None
    tables_first = b"\xff\xd8\xff\xc4\x00\x0a" + b"x" * 8 + b"\xff\xc0\x00\x0b\x08\x00\x05\x00\x06"
    assert header_size(tables_first) == (5, 6)
    assert header_size(b"\xff\xd8\xff\xe1\x00\x08" + b"x" * 6 + b"\xff\xff\xc0") is None


def test_resize_takes_means_where_it_shrinks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)
    means = pixels.reshape(4, 3, 4, 2, 3).astype(float).mean((1, 3))
    np.testing.assert_allclose(resize(pixels, 4, 4), means, atol=0.51)
    # one side grows and the other shrinks: no row may be left out
    stripes = np.zeros((12, 8, 1), np.uint8)
    stripes[::2] = 200
    means = stripes[:, :1, 0].reshape(4, 3).mean(1)
    np.testing.assert_allclose(resize(stripes, 4, 20)[..., 0], np.tile(means, (20, 1)).T, atol=1)


def test_resize_without_antialias_comes_near_tensorflow() -> None:
    """Outputs of `tf.image.resize`, see tests/augment/make_fixtures_crops.py, for noise."""
    stored = np.load(Path(__file__).parents[1] / "augment" / "fixtures" / "resized.npz")
    for name, ((y, x, h, w), size) in PARTS.items():
        part, expected = stored["picture"][y : y + h, x : x + w], np.clip(stored[name], 0, 255)
        near, means = (
            np.abs(resize(part, size, size, kernel) - expected).mean()
            for kernel in ("tf_bicubic", "bicubic")
        )
        assert near < 8
        if name == "smaller":  # by more than two
            assert near < means / 4


def test_resize_and_centre_keeps_proportions() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    result = resize_and_centre(wide, 10)
    assert result.shape == (10, 10, 3)
    assert result.min() == 200  # only the middle third is left
    assert resize_and_centre(wide[:, :20], 20) is not None
    assert resize_and_centre(np.zeros((3, 5, 1), np.uint8), 7).shape == (7, 7, 1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    expected = cv2.resize(noise, (20, 10), interpolation=cv2.INTER_CUBIC)[:, 5:15]
    np.testing.assert_array_equal(resize_and_centre(noise, 10, "tf_bicubic"), expected)


def test_crops_are_the_boxes_resized() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    small, large = Box((3, 5, 16, 8), 8), Box((0, 10, 8, 8), 32, "bicubic")
    first, second = crop_views(pixels, 3, (small, large), np.zeros((2, 4))) or ((), ())
    box = pixels[3:19, 5:13]
    np.testing.assert_allclose(first, box.reshape(8, 2, 8, 3).mean(1), atol=0.51)
    expected = cv2.resize(pixels[:8, 10:18], (32, 32), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(second, expected)


def test_the_same_crops_as_on_the_device(picture: Callable) -> None:
    """Means over areas against an antialiased triangle, on smooth pictures, within rounding."""
    content = picture(3, 120, 160, ".png")
    image = decode(content, 3)
    assert image is not None
    crop = RandomResizedCrop(32)
    on_device = jax.jit(lambda box: crop_and_resize(image / 255, tuple(box), 32, "bilinear"))
    for step in range(12):
        uniforms = crop_uniforms(0, step, 0, 1, crop.draws)
        views = crop_views(content, 3, (crop,), uniforms)
        assert views is not None
        expected = on_device(crop.box(uniforms[0], 120, 160, np))
        np.testing.assert_allclose(views[0] / 255, expected, atol=0.02)


def test_jpeg_is_decoded_small_only_where_no_pixel_is_missed(
    picture: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk = []

    def noted(data: bytes, channels: int, shrink: int = 1) -> Any:
        shrunk.append(shrink)
        return decode(data, channels, shrink)

    monkeypatch.setattr(pixels_module, "decode", noted)
    content = picture(0, 201, 301)
    full = decode(content, 3)
    assert full is not None
    for box, size, shrink in [
        ((1, 1, 200, 300), 50, 4),
        ((1, 1, 199, 300), 50, 2),
        ((21, 41, 100, 100), 50, 2),
        ((21, 41, 100, 99), 50, 1),
    ]:
        views = crop_views(content, 3, (Box(box, size),), ANY)
        assert views is not None
        assert shrunk.pop() == shrink
        y, x, h, w = box
        expected = resize(full[y : y + h, x : x + w], size, size)
        # The box lies off by up to half a coarse pixel; colours change by 3 of 255 a pixel here.
        assert np.abs(views[0].astype(int) - expected).mean() < 3
    crop_views(picture(0, 201, 301, ".png"), 3, (Box((0, 0, 201, 301), 50),), ANY)
    crop_views(content, 3, (Box((1, 1, 200, 300), 50, "tf_bicubic"),), ANY)  # no means beforehand
    assert shrunk == [1, 1]


def test_damaged_files_give_nothing(picture: Callable) -> None:
    content, small = picture(0, 300, 300), picture(1, 8, 8)
    length = len(small) + 2
    preview = content[:2] + b"\xff\xe1" + length.to_bytes(2) + small + content[2:]
    assert header_size(preview) == (300, 300)
    assert decode(preview, 3) is not None
    cut = (content[:-2], content[: len(content) // 2], preview[: -len(content) // 4], content[:30])
    for broken in (b"", b"text", *cut):
        assert decode(broken, 3) is None
        assert crop_views(broken, 3, (Box((0, 0, 9, 9), 4),), ANY) is None


@pytest.mark.parametrize("end", [".png", ".jpg"])
def test_an_image_of_too_many_pixels_is_not_decoded(end, monkeypatch):
    data = cv2.imencode(end, np.zeros((10, 11, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(pixels_module, "PIXELS", 110)
    assert decode(data, 3).shape == (10, 11, 3)
    monkeypatch.setattr(pixels_module, "PIXELS", 109)
    assert decode(data, 3) is None


def test_a_strip_is_resized_around_its_middle():
    """Resized as a whole it would have 224 x 13,440,000 pixels."""
    strip = np.random.default_rng(0).integers(256, size=(1, 60_000, 3), dtype=np.uint8)
    square = resize_and_centre(strip, 224)
    np.testing.assert_array_equal(square, resize_and_centre(strip[:, 29_968:30_032], 224))
    assert resize_and_centre(strip.transpose(1, 0, 2), 224).shape == (224, 224, 3)
