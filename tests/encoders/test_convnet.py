import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.encoders import ConvNet, forward, initialise

KEY = jax.random.key(0)


def test_shapes_and_parameters():
    """Conv4 of few-shot learning: 1,600 features of an 84-pixel image, 64 of a 28-pixel one."""
    for side, width in [(84, 1600), (28, 64)]:
        image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        made = jax.eval_shape(lambda x: initialise(ConvNet(), KEY, x), image)
        out, _ = jax.eval_shape(lambda m, x: forward(ConvNet(), *m, x, train=True), made, image)
        assert out["features"].shape == (2, width)
        assert [s.shape[1] for s in out["stages"]] == [side // 2**i for i in range(1, 5)]
    # three kernels of 9 * 64 * 64, one of 9 * 3 * 64, scale and bias of four norms
    assert sum(p.size for p in jax.tree.leaves(made[0])) == 27 * 64 * 64 + 27 * 64 + 8 * 64


def test_features_are_the_last_map():
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    flat, mean = (ConvNet(depth=2, width=4, pool=pool) for pool in ("flatten", "mean"))
    params, stats = initialise(flat, KEY, x)
    out, new = forward(flat, params, stats, x, train=True)
    np.testing.assert_array_equal(out["features"], out["stages"][1].reshape(2, 16))
    other, _ = forward(mean, params, stats, x, train=True)
    np.testing.assert_allclose(other["features"], out["stages"][1].mean((1, 2)), rtol=1e-6)
    assert not np.array_equal(new["norm1"]["mean"], stats["norm1"]["mean"])


def test_one_block_matches_the_equation():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 2)).astype(np.float32)
    encoder = ConvNet(depth=1, width=3)
    params, stats = initialise(encoder, KEY, x)
    kernel = np.asarray(params["conv1"]["kernel"], np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((2, 5, 4, 3))
    for i in range(5):
        for j in range(4):
            y[:, i, j] = np.einsum("nhwc,hwcd->nd", padded[:, i : i + 3, j : j + 3], kernel)
    y = np.maximum((y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5), 0)
    pooled = y[:, :4].reshape(2, 2, 2, 2, 2, 3).max((2, 4))  # the fifth row has no pair
    out, _ = forward(encoder, params, stats, x, train=True)
    np.testing.assert_allclose(out["stages"][0], pooled, atol=1e-5)


def test_groups_have_statistics_of_their_own():
    x = jax.random.normal(KEY, (4, 4, 4, 2)) * jnp.array([1, 1, 5, 5]).reshape(4, 1, 1, 1)
    encoder = ConvNet(depth=1, width=3)
    made = initialise(encoder, KEY, x)
    halves = [forward(encoder, *made, part, train=True)[0]["features"] for part in (x[:2], x[2:])]
    together, _ = forward(encoder.clone(groups=2), *made, x, train=True)
    np.testing.assert_allclose(together["features"], jnp.concatenate(halves), atol=1e-5)


def test_images_too_small_to_halve_are_refused():
    with pytest.raises(ValueError, match="images of 12x16 are halved 4 times; they need 16 pixels"):
        initialise(ConvNet(), KEY, jnp.zeros((1, 12, 16, 3)))


def test_bfloat16_computes_in_half_and_returns_float32():
    x = jax.random.normal(KEY, (4, 8, 8, 3))
    full, half = (ConvNet(depth=2, width=4, dtype=t) for t in ("float32", "bfloat16"))
    params, stats = initialise(full, KEY, x)
    exact, _ = forward(full, params, stats, x, train=True)
    rough, _ = forward(half, params, stats, x, train=True)
    assert rough["stages"][0].dtype == jnp.bfloat16 and rough["features"].dtype == jnp.float32
    np.testing.assert_allclose(rough["features"], exact["features"], atol=0.1)
