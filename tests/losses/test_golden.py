"""Golden rows: values from an independent float64 implementation or the reference code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import A, B, a
from golden_rows import ROWS, W
from jitted import losses


@pytest.mark.parametrize(("value", "expected"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_golden_row(value, expected):
    np.testing.assert_allclose(value(), expected, rtol=0, atol=2e-6 * max(1, abs(expected)))


def test_sinkhorn():
    codes = losses.sinkhorn(jnp.array(a @ W.T), epsilon=0.5)
    np.testing.assert_allclose(codes[0], [0.118014, 0.137771, 0.744215], atol=2e-6)


def test_dino_centre():
    centre = losses.next_centre(jnp.full(5, 0.1), [A, B])
    expected = [0.157077, 0.113730, 0.042732, 0.062815, 0.117313]
    np.testing.assert_allclose(centre, expected, atol=2e-6)


def test_vicreg_gradient():
    gradient = jax.grad(lambda x: losses.vicreg(x, B))(jnp.float32(A))
    np.testing.assert_allclose(gradient[1, 2], 1.057517, atol=5e-6)
