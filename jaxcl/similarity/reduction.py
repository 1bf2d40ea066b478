"""What a reduction over pairs is, whichever way the pairs are visited."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxcl.similarity.tiles import Rows, Tiling
from jaxcl.typing import Array, Float


@dataclass(frozen=True)
class Wanted:
    """What a sweep has to find; what it need not is not computed."""

    columns: bool = False
    """Sums over queries too; always so in a triangle."""
    keys: bool = True
    """Gradients of the keys."""
    biases: bool = True
    """Gradients of the biases."""


class Sums(NamedTuple):
    """Of each query over its keys, and of each key over its queries (None where not wanted)."""

    rows: Float[Array, "n"]
    columns: Float[Array, "m"] | None = None


class Gradients(NamedTuple):
    """With respect to both sides and the scale; None where not wanted."""

    q: Float[Array, "n d"]
    q_bias: Float[Array, "n"] | None
    k: Float[Array, "m d"] | None
    k_bias: Float[Array, "m"] | None
    scale: Float[Array, ""]


class Reduction(NamedTuple):
    """A forward sweep, its backward sweep, and how sums over parts of the pairs become one."""

    forward: Callable[[Rows, Rows, Float[Array, ""], Tiling, Wanted], Sums]
    backward: Callable[[Rows, Rows, Float[Array, ""], Tiling, Wanted, Sums, Sums], Gradients]
    """The last two arguments: the sums, and the gradients that arrive at them.

    In a triangle q's gradients are those of the one set of rows. In a sweep of some rows of a set
    over all of it (`columns` given, `keys` not wanted) likewise.
    """
    join: Callable[[Array, Array], Array]
    """Of two parts."""
    join_devices: Callable[[Array, str], Array]
    """Of every device's part of [m] sums; each device gets its own rows of the result."""
