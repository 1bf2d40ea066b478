"""Slow copies of a network: weights that follow another network's by a running average."""

import jax
import optax

from jaxcl.errors import UserError
from jaxcl.typing import Array, Float, PyTree


def follow(slow: PyTree, fast: PyTree, momentum: float | Float[Array, ""]) -> PyTree:
    """`momentum * slow + (1 - momentum) * fast`, leaf by leaf, without gradient.

    Parameters only: a slow network's batch statistics come from its own forward passes.
    """
    return jax.lax.stop_gradient(optax.incremental_update(fast, slow, 1 - momentum))


def check_momentum(name: str, momentum: float) -> None:
    """Raises `UserError` unless it is a share of the slow network that can be kept."""
    if not 0 <= momentum <= 1:
        raise UserError(f"{name}={momentum} is no share; give 0 to 1, such as 0.99")
