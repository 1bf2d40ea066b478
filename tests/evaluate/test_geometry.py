"""Geometry of features against loops in float64 and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jitted import compiled

from jaxcl import evaluate

alignment, effective_rank, feature_std, top_singular_share, uniformity = (
    compiled(getattr(evaluate, name))
    for name in ("alignment", "effective_rank", "feature_std", "top_singular_share", "uniformity")
)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(23, 7)) * 3


def golden(shift):
    i, j = np.arange(4)[:, None], np.arange(5)
    return np.sin(shift + 0.7 * i + 1.3 * j + 0.1 * i * j)


def test_golden_rows():
    # From an independent numpy implementation and the paper's own code.
    np.testing.assert_allclose(alignment(golden(0), golden(0.5)), 0.235854, atol=1e-6)
    np.testing.assert_allclose(uniformity(golden(0)), -2.098739, atol=2e-6)


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_alignment_matches_the_equation(x, alpha):
    other = x + np.random.default_rng(1).normal(size=x.shape)
    by_hand = np.mean(
        [np.linalg.norm(a - b) ** alpha for a, b in zip(unit(x), unit(other), strict=True)]
    )
    np.testing.assert_allclose(alignment(x, other, alpha), by_hand, rtol=1e-5)
    assert float(alignment(x, 5 * x)) < 1e-12


def test_alignment_of_equal_rows_has_a_finite_gradient(x):
    slope = jax.grad(lambda a: alignment(a, jnp.asarray(x, jnp.float32), 1))
    assert np.isfinite(jax.jit(slope)(jnp.asarray(x, jnp.float32))).all()


@pytest.mark.parametrize("t", [0.5, 2, 50])
def test_uniformity_matches_the_equation(x, t):
    rows = unit(x)
    potentials = [np.exp(-t * np.sum((a - b) ** 2)) for a, b in itertools.combinations(rows, 2)]
    np.testing.assert_allclose(uniformity(x, t), np.log(np.mean(potentials)), rtol=1e-5)


def test_uniformity_closed_forms(x):
    pole = np.array([[0.3, -2.0, 1.0]])
    for t in (1, 2, 3):  # two opposite points are 2 apart
        np.testing.assert_allclose(uniformity(np.vstack([pole, -pole]), t), -4 * t, rtol=1e-5)
    np.testing.assert_allclose(uniformity(np.repeat(pole, 5, 0)), 0, atol=1e-5)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(7, 7)))[0]
    np.testing.assert_allclose(uniformity(x @ turn), uniformity(x), rtol=1e-5)


def test_uniformity_needs_a_pair():
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        uniformity(np.ones((1, 3)))


def test_feature_std(x):
    by_hand = np.mean([np.std(column) for column in unit(x).T]) * np.sqrt(7)
    np.testing.assert_allclose(feature_std(x), by_hand, rtol=1e-5)
    even = np.random.default_rng(0).normal(size=(4000, 64))
    np.testing.assert_allclose(feature_std(even), 1, atol=0.01)  # 4,000 random directions
    np.testing.assert_allclose(feature_std(np.ones((9, 4))), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(23, 7), (7, 23), (200, 64)])
def test_effective_rank_matches_the_singular_values(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.exp(-3 * np.arange(shape[1]) / shape[1])
    share = np.linalg.svd(unit(x), compute_uv=False)
    share /= share.sum()
    np.testing.assert_allclose(effective_rank(x), np.exp(-np.sum(share * np.log(share))), rtol=1e-5)
    np.testing.assert_allclose(top_singular_share(x), share[0], rtol=1e-5)


def test_effective_rank_of_a_long_tail():
    x = np.random.default_rng(0).normal(size=(400, 128)) * np.exp(-np.arange(128) / 8)
    share = np.linalg.svd(unit(x), compute_uv=False)
    share /= share.sum()
    # The float32 Gram matrix hides values under 0.2 % of the largest: here 1 % of the rank.
    np.testing.assert_allclose(effective_rank(x), np.exp(-np.sum(share * np.log(share))), rtol=0.02)


@pytest.mark.parametrize("shape", [(300, 128), (64, 512), (4000, 32)])
def test_effective_rank_closed_forms(shape):
    rng = np.random.default_rng(0)
    collapsed = np.repeat(rng.normal(size=(1, shape[1])), shape[0], 0)
    np.testing.assert_allclose(effective_rank(collapsed), 1, rtol=1e-3)
    np.testing.assert_allclose(top_singular_share(collapsed), 1, rtol=1e-3)
    directions = np.linalg.qr(rng.normal(size=(shape[1], 4)))[0].T  # each taken equally often
    equal = np.tile(directions, (shape[0] // 4, 1))
    np.testing.assert_allclose(effective_rank(equal), 4, rtol=1e-3)
    np.testing.assert_allclose(top_singular_share(equal), 1 / 4, rtol=1e-3)


def test_zero_rows_are_finite():
    zeros = jnp.zeros((4, 3))
    mixed = jnp.array([[0.0, 0, 0], [1, 2, 3], [3, 0, 1]])
    for rows in (zeros, mixed):
        for measure in (uniformity, feature_std, effective_rank, top_singular_share):
            assert np.isfinite(measure(rows))
        assert np.isfinite(alignment(rows, mixed[: len(rows)] if len(rows) == 3 else zeros))
    assert np.isfinite(jax.jit(jax.grad(uniformity))(mixed)).all()
    assert float(effective_rank(zeros)) == 1
    assert float(top_singular_share(zeros)) == 1


def test_sixteen_bit_input_is_measured_in_float32(x):
    for measure in (uniformity, feature_std, effective_rank):
        assert measure(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32
