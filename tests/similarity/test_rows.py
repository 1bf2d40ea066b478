from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl.similarity import cosines, unit_rows
from jaxcl.similarity.tiles import in_place


def test_unit_rows_have_length_one_and_zero_rows_stay_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0]])
    expected = [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    np.testing.assert_allclose(jax.jit(unit_rows)(x), expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: unit_rows(x).sum()))(x)
    assert np.isfinite(gradient).all()
    # The gradient at [3, 4] is orthogonal to the row: its length does not matter.
    np.testing.assert_allclose(gradient[0] @ x[0], 0.0, atol=1e-6)


def test_length_does_not_matter_but_below_the_shortest():
    x = jnp.array([[3.0, 4.0]])
    unit, jacobian = jax.jit(unit_rows), jax.jit(jax.jacobian(unit_rows))
    slope = jacobian(x)[0, :, 0]
    for scale in (1e-11, 1e-5, 1e20, 1e30):
        np.testing.assert_allclose(unit(scale * x), [[0.6, 0.8]], rtol=1e-6)
        scaled = jacobian(scale * x)[0, :, 0] * scale
        np.testing.assert_allclose(scaled, slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(unit(1e-20 * x), 1e-8 * x, rtol=1e-5)


def test_half_precision_comes_out_in_float32():
    assert unit_rows(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_the_gradient_of_a_row_along_an_axis_is_that_of_its_neighbours():
    """Its squares, over its largest number, add up to exactly 1."""
    jacobian = jax.jit(jax.jacobian(unit_rows))
    at, near = (jacobian(jnp.array([[2.0, e]]))[0, :, 0] for e in (0.0, 1e-6))
    np.testing.assert_allclose(at, [[0, 0], [0, 0.5]], atol=1e-7)
    np.testing.assert_allclose(at, near, atol=1e-6)


def test_cosines_are_dot_products_of_unit_rows_with_their_gradient():
    a, b = np.random.default_rng(0).normal(size=(2, 7, 5))
    lengths = np.array([1, 1e-20, 1e30, 1e-11, 3, 0, 1e-13])[:, None]
    a, b = jnp.float32(a * lengths), jnp.float32(b[::-1] * lengths[::-1])
    weights = jnp.arange(1.0, 8) * lengths[:, 0].clip(1e-12)  # slopes are over the lengths

    def total(pairs, a, b):
        return jnp.sum(weights * pairs(a, b))

    plain = lambda a, b: jnp.sum(unit_rows(a) * unit_rows(b), axis=1)
    np.testing.assert_allclose(jax.jit(cosines)(a, b), plain(a, b), rtol=1e-6, atol=1e-7)
    slopes = jax.jit(jax.grad(total, argnums=(1, 2)), static_argnums=0)
    for found, expected in zip(slopes(cosines, a, b), slopes(plain, a, b), strict=True):
        sizes = np.abs(expected).max(axis=1, keepdims=True).clip(1e-30)
        np.testing.assert_allclose(found / sizes, expected / sizes, atol=2e-6)


def test_cosines_of_half_precision_rows_have_gradients_of_their_type():
    a = jnp.ones((2, 3), jnp.bfloat16)
    value, slope = jax.value_and_grad(lambda a: cosines(a, a).sum())(a)
    assert (value.dtype, slope.dtype) == (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize("rows", [3, 8, 11])
def test_some_rows_at_a_time_all_are_changed_once(rows):
    class Beside(NamedTuple):
        x: jax.Array

    gained = jnp.arange(2.0 * rows).reshape(rows, 2), jnp.ones(rows)
    change = lambda run, gained: (gained[0] + run.x[:, None], 2 * gained[1])
    beside = Beside(10 * jnp.arange(rows))
    found = in_place(change, beside, gained, size=4)
    for one, other in zip(found, change(beside, gained), strict=True):
        np.testing.assert_array_equal(one, other)
