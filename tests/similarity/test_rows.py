import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.similarity import unit_rows


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
