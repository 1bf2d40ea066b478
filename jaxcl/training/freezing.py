"""Parts of the parameters that stand still for a while, with their optimiser's moments.

A frozen part has optimiser state of its own, so that its moments, and Adam's count of them, begin
when it begins to move; schedules go on meanwhile.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcl.typing import Array, Bool, PyTree

REST = "rest"


def apart(
    transform: optax.GradientTransformation,
    names: tuple[str, ...],
    others: Mapping[str, optax.GradientTransformation] | None = None,
) -> optax.GradientTransformation:
    """`transform` with a state of its own for each of these top-level names of the parameters.

    `others` are transformations of parts, by name, that take another one.
    """
    own = dict.fromkeys((*names, REST), transform) | dict(others or {})
    if len(own) == 1:
        return transform

    def labels(params: PyTree) -> PyTree:
        return {
            name: jax.tree.map(lambda _, name=name: name if name in own else REST, part)
            for name, part in params.items()
        }

    return optax.partition(own, labels)


def hold_parts(before: PyTree, after: PyTree, still: dict[str, Bool[Array, ""]]) -> PyTree:
    """The parameters after a step, as they were before it where they stand still."""

    def held(name: str, part: PyTree) -> PyTree:
        if name not in still:
            return part
        return jax.tree.map(lambda old, new: jnp.where(still[name], old, new), before[name], part)

    return {name: held(name, part) for name, part in after.items()}


def hold_moments(before: PyTree, after: PyTree, still: dict[str, Bool[Array, ""]]) -> PyTree:
    """The optimiser's state after a step, as it was before it for the parts that stand still."""

    def keep(name: str, old: PyTree, new: PyTree) -> PyTree:
        def one(old: Any, new: Any) -> Any:
            return new if _is_clock(new) else jnp.where(still[name], old, new)

        return jax.tree.map(one, old, new, is_leaf=_is_clock)

    def visit(old: Any, new: Any) -> Any:
        if not _is_parted(new):
            return new
        states = new.inner_states
        held = {name: keep(name, old.inner_states[name], states[name]) for name in still}
        return new._replace(inner_states={**states, **held})

    return jax.tree.map(visit, before, after, is_leaf=_is_parted) if still else after


def _is_parted(state: Any) -> bool:
    return isinstance(state, optax.transforms.PartitionState)


def _is_clock(state: Any) -> bool:
    """Whether it is the state of a schedule, which counts steps and nothing else."""
    return getattr(state, "_fields", None) == ("count",)
