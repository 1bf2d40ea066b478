"""Slow copies of a network: weights that follow another network's by a running average."""

import jax
import jax.numpy as jnp
import optax

from jaxcl.typing import Array, Float, PyTree


def follow(slow: PyTree, fast: PyTree, momentum: float | Float[Array, ""]) -> PyTree:
    """`momentum * slow + (1 - momentum) * fast`, leaf by leaf, without gradient.

    Parameters only: a slow network's batch statistics come from its own forward passes.
    """
    return jax.lax.stop_gradient(optax.incremental_update(fast, slow, 1 - momentum))


def cosine_momentum(step: int | Float[Array, ""], *, total: int, base: float) -> Float[Array, ""]:
    """Momentum at a step, from `base` at step 0 up to 1 at step `total` along half a cosine.

    Reference: Grill et al. 2020, arXiv:2006.07733, section 3.2.
    """
    return 1 - (1 - base) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total, 1.0))) / 2
