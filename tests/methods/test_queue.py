"""First in, first out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import UserError
from jaxcl.methods.queue import push, random_queue


def batches(count, size=2, width=3):
    return [jnp.full((size, width), float(i)) for i in range(1, count + 1)]


def test_starts_with_unit_rows_that_count_as_none():
    queue = random_queue(jax.random.key(0), 6, 3)
    np.testing.assert_allclose(jnp.linalg.norm(queue.rows, axis=1), 1.0, rtol=1e-6)
    assert int(queue.filled) == 0
    assert not queue.full


def test_the_oldest_rows_are_overwritten_first():
    queue = random_queue(jax.random.key(0), 6, 3)
    for number, rows in enumerate(batches(5), 1):
        queue = jax.jit(push)(queue, rows)
        assert int(queue.filled) == min(2 * number, 6)
        assert bool(queue.full) == (number >= 3)
    np.testing.assert_array_equal(queue.rows[:, 0], [4, 4, 5, 5, 3, 3])
    assert int(queue.next) == 4


def test_no_gradient_enters():
    queue = random_queue(jax.random.key(0), 4, 3)
    slope = jax.grad(lambda rows: push(queue, rows).rows.sum())(jnp.ones((2, 3)))
    np.testing.assert_array_equal(slope, 0)


def test_a_batch_must_divide_it():
    with pytest.raises(UserError, match=r"method.queue=6 is no multiple of data.batch_size=4"):
        push(random_queue(jax.random.key(0), 6, 3), jnp.ones((4, 3)))
