"""Slow copies of a network: weights that follow another network's by a running average."""

import jax
import optax

from jaxcl.typing import Array, Float, PyTree


def follow(slow: PyTree, fast: PyTree, momentum: float | Float[Array, ""]) -> PyTree:
    """`momentum * slow + (1 - momentum) * fast`, leaf by leaf, without gradient.

    Parameters only: a slow network's batch statistics come from its own forward passes.
    """
    return jax.lax.stop_gradient(optax.incremental_update(fast, slow, 1 - momentum))
