"""Colour operations against colorsys, float64 loops and Pillow."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.augment import (
    ColorJitter,
    Grayscale,
    Solarize,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    grayscale,
    hsv_to_rgb,
    rgb_to_hsv,
    solarize,
)
from jaxcl.errors import UserError

RNG = np.random.default_rng(0)
CORNERS = np.array(np.meshgrid([0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1])).reshape(3, 27).T
COLOURS = np.concatenate([CORNERS, RNG.random((69, 3))]).astype(np.float32).reshape(8, 12, 3)
"""Black, white, greys, ties between channels, pure hues, and random ones."""
PICTURE = RNG.random((6, 7, 3)).astype(np.float32)
LUMA = np.array([0.2989, 0.587, 0.114])


def by_pixel(f, image):
    """`f` on every pixel, in Python floats."""
    flat = np.asarray(image, np.float64).reshape(-1, 3)
    return np.array([f(*pixel) for pixel in flat]).reshape(image.shape)


def test_hsv_matches_colorsys():
    got = np.asarray(rgb_to_hsv(COLOURS))
    np.testing.assert_allclose(got, by_pixel(colorsys.rgb_to_hsv, COLOURS), atol=1e-6)
    hsv = RNG.random((5, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(hsv_to_rgb(hsv), by_pixel(colorsys.hsv_to_rgb, hsv), atol=2e-6)


def test_hsv_there_and_back():
    np.testing.assert_allclose(hsv_to_rgb(rgb_to_hsv(COLOURS)), COLOURS, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.8])
def test_saturation_scales_that_of_hsv(factor):
    def one(r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb(h, min(1.0, s * factor), v)

    np.testing.assert_allclose(
        adjust_saturation(COLOURS, factor), by_pixel(one, COLOURS), atol=1e-6
    )


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.5, 0.9, 3.25])
def test_hue_turns_that_of_hsv(shift):
    def one(r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)

    np.testing.assert_allclose(adjust_hue(COLOURS, shift), by_pixel(one, COLOURS), atol=3e-6)


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.8])
def test_contrast_scales_about_the_mean(factor):
    x = PICTURE.astype(np.float64)
    own = x.mean(axis=(0, 1))
    grey = (x @ LUMA).mean()
    for impl, mean in (("simclr", own), ("torchvision", grey)):
        expected = np.clip((x - mean) * factor + mean, 0, 1)
        np.testing.assert_allclose(adjust_contrast(PICTURE, factor, impl), expected, atol=2e-6)


@pytest.mark.parametrize(("factor", "add"), [(0.2, 0.0), (1.8, 0.0), (1.0, -0.3), (1.0, 0.4)])
def test_brightness_multiplies_or_adds(factor, add):
    expected = np.clip(PICTURE.astype(np.float64) * factor + add, 0, 1)
    np.testing.assert_allclose(adjust_brightness(PICTURE, factor, add), expected, atol=1e-6)


def test_torchvision_meaning_matches_pillow():
    """Pillow's enhancers, on which torchvision's own are modelled, up to their 8-bit rounding."""
    pillow = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    pixels = RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = jnp.asarray(pixels / 255, jnp.float32)
    for factor in (0.2, 0.7, 1.0, 1.6):
        for ours, theirs in (
            (adjust_brightness(image, factor), enhance.Brightness),
            (adjust_contrast(image, factor, "torchvision"), enhance.Contrast),
            (adjust_saturation(image, factor, "torchvision"), enhance.Color),
        ):
            expected = np.asarray(theirs(pillow.fromarray(pixels)).enhance(factor))
            # Pillow rounds the grey image and its mean to whole levels before it blends.
            np.testing.assert_allclose(255 * np.asarray(ours), expected, atol=1.6)


def test_grey_and_solarise():
    grey = np.asarray(grayscale(PICTURE))
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, axis=-1))
    np.testing.assert_allclose(grey[..., 0], PICTURE.astype(np.float64) @ LUMA, atol=1e-6)
    image = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32).reshape(1, 5, 1)
    np.testing.assert_array_equal(np.asarray(solarize(image)).ravel(), [0, 0.25, 0.5, 0.25, 0])
    twice = np.asarray(solarize(solarize(image, 0.8), 0.8))
    np.testing.assert_array_equal(twice.ravel(), [0, 0.25, 0.5, 0.75, 0])  # 1 -> 0 stays


# The jitter -------------------------------------------------------------------------------------


def one_after_the_other(jitter, key, image):
    """The same draws with the four operations called in their order: no slots, no neutral factors.

    Returns the image before the coin and the order as a string.
    """
    _coin, b, c, s, h, *moments = np.asarray(jax.random.uniform(key, (9,)))
    spread = lambda u, d: max(0, 1 - d) + u * (1 + d - max(0, 1 - d))
    if jitter.additive_brightness:
        bright = lambda x: adjust_brightness(x, add=jitter.brightness * (2 * b - 1))
    else:
        bright = lambda x: adjust_brightness(x, spread(b, jitter.brightness))
    steps = {
        "b": bright,
        "c": lambda x: adjust_contrast(x, spread(c, jitter.contrast), jitter.impl),
        "s": lambda x: adjust_saturation(x, spread(s, jitter.saturation), jitter.impl),
        "h": lambda x: adjust_hue(x, jitter.hue * (2 * h - 1)),
    }
    order = "".join(name for _, name in sorted(zip(moments, steps, strict=True)))
    for name in order:
        image = jnp.clip(steps[name](image), 0, 1)
    return image, order


@pytest.mark.parametrize(
    "jitter",
    [
        ColorJitter(p=1.0),
        ColorJitter(p=1.0, additive_brightness=True),
        ColorJitter(0.4, 0.4, 0.4, 0.4, p=1.0, impl="torchvision"),
    ],
)
def test_jitter_is_the_four_operations_in_turn(jitter):
    keys = jax.random.split(jax.random.key(1), 120)
    got = jax.jit(jax.vmap(jitter, in_axes=(0, None)))(keys, PICTURE)
    seen = set()
    for key, image in zip(keys, got, strict=True):
        expected, order = one_after_the_other(jitter, key, jnp.asarray(PICTURE))
        # A hue next to a tie of two channels may round to either side: 1e-5 is a few ulps of that.
        np.testing.assert_allclose(image, expected, atol=1e-5)
        seen.add(order)
    assert len(seen) == 24


def test_jitter_order_is_uniform():
    moments = jax.vmap(lambda k: jax.random.uniform(k, (9,))[5:])(
        jax.random.split(jax.random.key(2), 24_000)
    )
    _, counts = np.unique(np.argsort(moments, axis=1), axis=0, return_counts=True)
    assert len(counts) == 24
    chi2 = np.sum((counts - 1000) ** 2 / 1000)
    assert chi2 < 49.7  # 23 degrees of freedom, one in a thousand


@pytest.mark.parametrize("impl", ["simclr", "torchvision"])
def test_jitter_of_no_strength_is_the_identity(impl):
    jitter = ColorJitter(0.0, 0.0, 0.0, 0.0, p=1.0, impl=impl)
    np.testing.assert_allclose(jitter(jax.random.key(0), PICTURE), PICTURE, atol=1e-6)


def test_one_channel_gets_brightness_and_contrast_only():
    image = PICTURE[..., :1]
    key = jax.random.key(3)
    strong, weak = ColorJitter(p=1.0), ColorJitter(saturation=0.0, hue=0.0, p=1.0)
    np.testing.assert_array_equal(strong(key, image), weak(key, image))
    assert float(jnp.max(jnp.abs(strong(key, image) - image))) > 0.05
    np.testing.assert_array_equal(adjust_hue(image, 0.3), image)
    np.testing.assert_array_equal(adjust_saturation(image, 0.3), image)
    np.testing.assert_array_equal(Grayscale(1.0)(key, image), image)


@pytest.mark.parametrize(
    "op", [ColorJitter(), Grayscale(), Solarize(), ColorJitter(p=0.35, impl="torchvision")]
)
def test_applied_to_a_share_p_of_images_and_else_untouched(op):
    keys = jax.random.split(jax.random.key(4), 10_000)
    image = PICTURE[:2, :2]
    out = jax.jit(jax.vmap(op, in_axes=(0, None)))(keys, image)
    changed = np.mean(np.any(np.asarray(out) != image, axis=(1, 2, 3)))
    assert abs(changed - op.p) < 3 * np.sqrt(op.p * (1 - op.p) / 10_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorJitter(p=1.5), "jitter.p=1.5"),
        (lambda: ColorJitter(hue=0.6), "jitter.hue=0.6"),
        (lambda: ColorJitter(contrast=-1.0), "jitter.contrast=-1.0"),
        (lambda: Grayscale(-0.1), "grayscale.p=-0.1"),
        (lambda: Solarize(2.0), "solarize.p=2.0"),
    ],
)
def test_impossible_strengths_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
