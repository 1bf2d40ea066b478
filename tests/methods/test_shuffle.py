"""Rows in another order, and back."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxcl.methods.shuffle import reorder
from jaxcl.scale import data_mesh, rows_split

X = jnp.arange(32.0).reshape(16, 2)
ORDER = jax.random.permutation(jax.random.key(0), 16)


def test_sorting_the_order_undoes_it():
    there = reorder(X, ORDER)
    assert not np.array_equal(there, X)
    np.testing.assert_array_equal(there[3], X[ORDER[3]])
    np.testing.assert_array_equal(reorder(there, jnp.argsort(ORDER)), X)


def test_each_device_holds_its_share_of_the_result():
    """Else every device would encode every key."""
    mesh = data_mesh(8)
    with jax.set_mesh(mesh):
        made = jax.jit(lambda x: 2 * reorder(x, ORDER))(jax.device_put(X, rows_split(mesh)))
    assert made.sharding.spec == PartitionSpec("data")
    np.testing.assert_array_equal(made, 2 * X[ORDER])
