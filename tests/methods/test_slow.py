"""Slow copies: the golden schedule, two steps by hand, no gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.methods.progress import Progress, cosine
from jaxcl.methods.slow import follow


def momentum(step, base):
    return cosine(Progress(step, 1000, 100), base, 1.0)


def test_cosine_momentum_golden():
    np.testing.assert_allclose(momentum(250, 0.996), 0.996586, atol=5e-7)
    np.testing.assert_allclose(momentum(0, 0.9), 0.9, rtol=1e-6)
    for step in (1000, 1500):
        assert momentum(step, 0.9) == 1


def test_a_schedule_may_fall():
    np.testing.assert_allclose(cosine(Progress(500, 1000, 100), 1.0, 0.2), 0.6, rtol=1e-6)


def test_epochs_are_whole():
    assert [int(Progress(step, 12, 4).epoch) for step in (0, 3, 4, 11)] == [0, 0, 1, 2]


def test_two_steps_by_hand():
    slow = {"w": jnp.array([1.0, 2.0])}
    for fast in ([3.0, 4.0], [5.0, 0.0]):
        slow = follow(slow, {"w": jnp.array(fast)}, 0.75)
    np.testing.assert_allclose(slow["w"], [0.75 * 1.5 + 1.25, 0.75 * 2.5], rtol=1e-6)


def test_no_gradient_reaches_the_fast_network():
    slope = jax.grad(lambda fast: follow({"w": jnp.ones(2)}, fast, 0.5)["w"].sum())
    np.testing.assert_array_equal(slope({"w": jnp.ones(2)})["w"], 0)
