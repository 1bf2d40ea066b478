"""The state of a run: everything that the next step depends on, in one tree."""

from typing import NamedTuple

from jaxcl.typing import Array, Float, Int, PyTree


class State(NamedTuple):
    """Saving this saves the run; restored, every later number is the same bit for bit."""

    step: Int[Array, ""]
    """Steps taken."""
    key: Int[Array, "..."]
    """Raw data of the run's random key; the key of a step is folded from it and the step."""
    params: PyTree
    """What is trained, by name."""
    memory: PyTree
    """What the method carries: statistics, slow copies, queues, centres."""
    optim: dict[str, PyTree]
    """Optimiser state of each phase."""
    average: PyTree
    """Running average of the parameters, or an empty tuple."""
    probe: PyTree
    """Online linear probe with its optimiser, or an empty tuple."""
    totals: dict[str, Float[Array, ""]]
    """Sums of the metrics since the last log line, and their count."""
    bad_step: Int[Array, ""]
    """First step whose loss was not finite; -1 while there is none."""
