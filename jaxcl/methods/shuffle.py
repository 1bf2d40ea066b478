"""Rows of the global batch in another order, whichever devices hold them."""

from jaxcl.encoders import spread
from jaxcl.typing import Array, Float, Int


def reorder(x: Float[Array, "n ..."], order: Int[Array, "n"]) -> Float[Array, "n ..."]:
    """Row `order[i]` of `x` in place i; `jnp.argsort(order)` undoes it.

    With `order` a random permutation the contiguous groups of batch norm hold other rows, as
    MoCo's shuffling among devices has it. The rows move between devices, and each device gets its
    share of them.
    """
    return spread(x[order])
