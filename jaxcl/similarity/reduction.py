"""What a reduction over pairs is, whichever way the pairs are visited."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from jaxcl.similarity.tiles import Rows, Side, Tiling, in_place
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

    rows: tuple[Float[Array, "n"], ...]
    """For each view."""
    columns: tuple[Float[Array, "m"], ...] | None = None


class Gain(NamedTuple):
    """What rows gain in a backward sweep."""

    x: Float[Array, "n d"]
    """`sum_j G_ij k_j`: over the scale, the gradient of the rows as the pairs see them."""
    bias: Float[Array, "n"] | None = None
    """Gradient of the biases; None where not wanted."""


class Gradients(NamedTuple):
    """For each view of both sides; None where not wanted."""

    q: tuple[Gain, ...]
    k: tuple[Gain, ...] | None = None


class Reduction(NamedTuple):
    """A forward sweep, its backward sweep, and how sums over parts of the pairs become one."""

    forward: Callable[[Side, Side, Float[Array, ""], Tiling, Wanted], Sums]
    backward: Callable[[Side, Side, Float[Array, ""], Tiling, Wanted, Sums, Sums], Gradients]
    """The last two arguments: the sums, and the gradients that arrive at them.

    In a triangle q's gradients are those of the one set of rows. In a sweep of some rows of a set
    over all of it (`columns` given, `keys` not wanted) likewise.
    """
    join: Callable[[Array, Array], Array]
    """Of two parts."""
    join_devices: Callable[[Array, str], Array]
    """Of every device's part of [m] sums; each device gets its own rows of the result."""


class Pulled(NamedTuple):
    """Gradients of one view's rows as they were given, and of its biases."""

    x: Float[Array, "n d"]
    bias: Float[Array, "n"]
    along: Float[Array, "n"]
    """Share of each row in the scale's gradient."""


def pulled_back(side: Side, gains: tuple[Gain, ...], scale: Float[Array, ""]) -> tuple[Pulled, ...]:
    """From what rows gained as the pairs see them to gradients of what was given."""
    return tuple(_pulled_back(*view, scale) for view in zip(side, gains, strict=True))


def _pulled_back(rows: Rows, gain: Gain, scale: Array) -> Pulled:
    def change(run: Rows, gained: tuple[Array, Array]) -> tuple[Array, Array]:
        seen, slope = run.seen(), gained[0]
        along = jnp.sum(seen * slope, axis=1)
        if run.lengths is not None:
            slope = run.lengths.pull_back(seen, slope, along)
        return scale * slope, along

    x, along = in_place(change, rows, (gain.x, jnp.zeros_like(rows.bias)))
    bias = jnp.zeros_like(rows.bias) if gain.bias is None else gain.bias
    return Pulled(x.astype(rows.x.dtype), bias, along)
