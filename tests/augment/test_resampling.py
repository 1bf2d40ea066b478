"""How exact the matrix products of `crop_and_resize` are on accelerators, by their arithmetic."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxcl.augment.geometry import THREE_PASSES, _resample_by_products, _Stretch

RNG = np.random.default_rng(0)


def halves(x):
    upper = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    return upper, (x - upper).astype(ml_dtypes.bfloat16).astype(np.float32)


def in_three_passes(a, b):
    """Products of bfloat16 halves, all but that of both lower ones, summed in float32."""
    (a1, a2), (b1, b2) = halves(a), halves(b)
    return a1 @ b1 + (a1 @ b2 + a2 @ b1)


def tensor_float(a, b):
    """A GPU's shorter way, TF32: the upper 10 bits of each number's fraction count."""
    a, b = (
        (np.ascontiguousarray(x).view(np.int32) & ~np.int32(0x1FFF)).view(np.float32)
        for x in (a, b)
    )
    return a @ b


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_pixel_is_off_by_a_hundredth_of_a_grey_level_at_most(interpolation):
    shorter = 0.0
    for height, width in ((256, 256), (61, 200), (130, 90)):
        for pixels in (RNG.integers(0, 256, (256, 256)), np.full((256, 256), 255)):
            image = pixels.astype(np.float32)
            down = np.array(_Stretch(0.0, height, 256, 224, interpolation).matrix())
            across = np.array(_Stretch(256.0 - width, width, 256, 224, interpolation).matrix().T)
            exact = down.astype(np.float64) @ image @ across.astype(np.float64)
            got = in_three_passes(in_three_passes(down, image), across)
            assert np.abs(got - exact).max() < 0.01
            short = tensor_float(tensor_float(down, image), across)
            shorter = max(shorter, np.abs(short - exact).max())
    assert shorter > 0.25  # why three passes are taken and not one


def test_the_products_ask_for_three_passes():
    assert THREE_PASSES == jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3
    stretch = _Stretch(0.0, 8.0, 8, 4, "bilinear")
    traced = jax.jit(_resample_by_products, static_argnums=(1, 2)).trace(
        jnp.zeros((8, 8, 3), jnp.uint8), stretch, stretch
    )
    for platform in ("tpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("num_primitive_operations = 3") == 2
