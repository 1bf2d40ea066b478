import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.similarity import unit_rows


def test_unit_rows_have_length_one_and_zero_rows_stay_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0]])
    expected = [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    np.testing.assert_allclose(unit_rows(x), expected, rtol=1e-6)
    gradient = jax.grad(lambda x: unit_rows(x).sum())(x)
    assert np.isfinite(gradient).all()
    # The gradient at [3, 4] is orthogonal to the row: its length does not matter.
    np.testing.assert_allclose(gradient[0] @ x[0], 0.0, atol=1e-6)


def test_half_precision_comes_out_in_float32():
    assert unit_rows(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
