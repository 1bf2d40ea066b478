"""Blur, edges, noise and cut-outs against float64 loops and their laws."""

import jax
import numpy as np
import pytest

from jaxcl.augment import (
    Blur,
    Cutout,
    Noise,
    Sobel,
    cutout,
    filters,
    gaussian_blur,
    pillow_blur,
    sobel,
)
from jaxcl.errors import UserError

RNG = np.random.default_rng(0)
PICTURE = RNG.random((12, 10, 3)).astype(np.float32)
KEY = jax.random.key(0)


def blur_by_hand(image, sigma, size):
    """Every pixel's weighted sum over a square window, in float64; zero outside."""
    radius = size // 2
    offsets = range(-radius, radius + 1)
    kernel = np.exp([-0.5 * (i / sigma) ** 2 for i in offsets])
    kernel /= kernel.sum()
    height, width, _ = image.shape
    out = np.zeros(image.shape)
    for y, x in np.ndindex(height, width):
        for a, j in zip(kernel, offsets, strict=True):
            for b, i in zip(kernel, offsets, strict=True):
                if 0 <= y + j < height and 0 <= x + i < width:
                    out[y, x] += a * b * image[y + j, x + i]
    return out


@pytest.mark.parametrize(("sigma", "size"), [(0.1, 3), (0.7, 5), (2.0, 9), (2.0, 1), (5.0, 23)])
def test_blur_matches_the_definition(sigma, size):
    expected = blur_by_hand(PICTURE.astype(np.float64), sigma, size)
    np.testing.assert_allclose(gaussian_blur(PICTURE, sigma, size), expected, atol=1e-6)


def test_blur_sums_to_one_and_keeps_constants():
    dot = np.zeros((15, 15, 1), np.float32)
    dot[7, 7] = 1
    np.testing.assert_allclose(np.sum(gaussian_blur(dot, 1.5, 7)), 1, atol=1e-6)
    flat = np.asarray(gaussian_blur(np.ones((15, 15, 1), np.float32), 1.5, 7))
    np.testing.assert_allclose(flat[3:-3, 3:-3], 1, atol=1e-6)
    assert flat.max() <= 1


@pytest.mark.parametrize(("side", "taps"), [(224, 23), (96, 9), (32, 3), (16, 1)])
def test_blur_takes_a_tenth_of_the_height_made_odd(side, taps):
    dot = np.zeros((side, side, 1), np.float32)
    dot[side // 2, side // 2] = 1
    out = np.asarray(jax.jit(Blur(1.0, sigma=(50.0, 50.0)))(KEY, dot))
    assert np.count_nonzero(out) == taps**2


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.41, 1.42, 2.0, 3.7])
@pytest.mark.parametrize("shape", [(32, 32), (9, 13), (60, 45)])
def test_pillow_blur_is_pillows(sigma, shape):
    image, filters = (pytest.importorskip(f"PIL.{name}") for name in ("Image", "ImageFilter"))
    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = image.fromarray(pixels).filter(filters.GaussianBlur(sigma))
    got = 255 * np.asarray(pillow_blur(np.float32(pixels / 255), sigma, max(2.0, sigma)))
    # Pillow rounds to 8 bits after each of its six passes.
    np.testing.assert_allclose(got, np.asarray(expected), atol=3)


def test_pillow_blur_is_the_same_by_products_and_by_passes(monkeypatch):
    """Also where the image is narrower than the kernel."""
    for shape in ((32, 32, 3), (9, 4, 1)):
        image = np.float32(RNG.uniform(size=shape))
        found = []
        for limit in (0, 64):
            monkeypatch.setattr(filters, "PRODUCTS_UP_TO", limit)
            found.append(pillow_blur(image, 3.7, 4.0))
        np.testing.assert_allclose(*found, atol=1e-6)


def test_pillow_blur_has_the_variance_it_is_asked_for():
    """At 32 pixels too, where the three taps of SimCLR's kernel have at most 2/3."""
    dot = np.zeros((32, 32, 1), np.float32)
    dot[16, 16] = 1
    place = np.arange(32) - 16
    for sigma in (0.5, 1.0, 2.0):
        op = Blur(1.0, sigma=(sigma, sigma), impl="pillow")
        out = np.asarray(op(KEY, dot))[..., 0]
        for axis in (0, 1):
            np.testing.assert_allclose(out.sum(axis=axis) @ place**2, sigma**2, rtol=1e-5)
    flat = np.full((7, 9, 3), 0.8, np.float32)
    np.testing.assert_allclose(Blur(1.0, impl="pillow")(KEY, flat), 0.8, atol=1e-6)


def test_blur_draws_its_width_per_image():
    dot = np.zeros((25, 25, 1), np.float32)
    dot[12, 12] = 1
    op = Blur(1.0, sigma=(1.0, 2.0), size=25)
    blurred = jax.jit(jax.vmap(op, in_axes=(0, None)))(jax.random.split(KEY, 200), dot)
    out = np.asarray(blurred)[..., 0]
    place = np.arange(25) - 12
    sigma = np.sqrt(np.sum(out.sum(axis=1) * place**2, axis=1))  # of the spread-out dot
    assert 1 < sigma.min() < 1.05
    assert 1.95 < sigma.max() < 2


def test_sobel_matches_the_definition():
    smooth, step = np.array([1, 2, 1]), np.array([-1, 0, 1])
    grey = PICTURE.astype(np.float64) @ [0.2989, 0.587, 0.114]
    wide = np.pad(grey, 1, mode="edge")
    expected = np.zeros((12, 10, 2))
    for y, x in np.ndindex(12, 10):
        window = wide[y : y + 3, x : x + 3]
        expected[y, x] = step @ window @ smooth, smooth @ window @ step
    np.testing.assert_allclose(sobel(PICTURE), expected, atol=2e-6)
    both = Sobel(output="gradients")(KEY, PICTURE)
    np.testing.assert_array_equal(both, sobel(PICTURE))
    length = np.minimum(1, np.hypot(*np.moveaxis(expected, -1, 0)))
    out = np.asarray(Sobel()(KEY, PICTURE))
    np.testing.assert_allclose(out, np.repeat(length[..., None], 3, axis=-1), atol=2e-6)
    np.testing.assert_array_equal(Sobel()(KEY, np.full((5, 5, 1), 0.3, np.float32)), 0)


def test_noise_has_its_deviation_and_stays_in_range():
    image = np.full((50, 50, 3), 0.5, np.float32)
    noise = np.asarray(Noise(1.0, sigma=0.05)(KEY, image)) - 0.5
    assert abs(noise.std() - 0.05) < 3 * 0.05 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 3 * 0.05 / np.sqrt(noise.size)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.07
    loud = np.asarray(Noise(1.0, sigma=2.0)(KEY, image))
    assert loud.min() == 0
    assert loud.max() == 1
    np.testing.assert_array_equal(Noise(1.0, sigma=0.0)(KEY, PICTURE), PICTURE)


def test_cutout_paints_one_square_cut_off_at_the_border():
    out = np.asarray(cutout(PICTURE, (5, 1), 4, (0.1, 0.2, 0.3)))
    expected = PICTURE.copy()
    expected[3:7, 0:3] = [0.1, 0.2, 0.3]
    np.testing.assert_array_equal(out, expected)


def test_cutout_centres_are_uniform_over_the_pixels():
    op = Cutout(size=1)
    keys = jax.random.split(KEY, 12_000)
    out = jax.jit(jax.vmap(op, in_axes=(0, None)))(keys, np.ones((3, 4, 1), np.float32))
    hits = np.sum(np.asarray(out)[..., 0] == 0, axis=0)
    assert hits.sum() == 12_000
    assert np.sum((hits - 1000) ** 2 / 1000) < 31.3  # 11 degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    "op",
    [
        Blur(sigma=(0.5, 2.0), size=3),
        Blur(0.3, impl="pillow"),
        Noise(),
        Cutout(0.3, size=1),
        Sobel(0.6),
    ],
)
def test_applied_to_a_share_p_of_images_and_else_untouched(op):
    keys = jax.random.split(jax.random.key(1), 10_000)
    image = PICTURE[:3, :3]
    out = jax.jit(jax.vmap(op, in_axes=(0, None)))(keys, image)
    changed = np.mean(np.any(np.asarray(out) != image, axis=(1, 2, 3)))
    assert abs(changed - op.p) < 3 * np.sqrt(op.p * (1 - op.p) / 10_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(2.0), "blur.p=2.0"),
        (lambda: Blur(size=4), "blur.size=4"),
        (lambda: Blur(size=3, impl="pillow"), "blur.size=3 has no meaning with impl=pillow"),
        (lambda: Blur(sigma=(0.0, 1.0)), "blur.sigma"),
        (lambda: Sobel(0.5, output="gradients"), "sobel.p=0.5"),
        (lambda: Noise(sigma=-1.0), "noise.sigma=-1.0"),
        (lambda: Cutout(size=0), "cutout.size=0"),
    ],
)
def test_impossible_strengths_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
