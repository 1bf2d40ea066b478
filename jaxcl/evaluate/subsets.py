"""Class-balanced choices of rows, each a function of the labels and a seed."""

import numpy as np

from jaxcl.errors import UserError
from jaxcl.typing import Int, NumpyArray


def balanced_subset(
    labels: Int[NumpyArray, "n"], *, per_class: int, seed: int = 0
) -> Int[NumpyArray, "s"]:
    """Ascending indices of `per_class` random rows of each class; rows labelled -1 are left out.

    Raises:
      UserError: a class has fewer rows.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for name, count in zip(*np.unique(labels[labels >= 0], return_counts=True), strict=True):
        if count < per_class:
            raise UserError(
                f"per_class={per_class}: class {name} has only {count} labelled rows; "
                f"use per_class={count} or less"
            )
        chosen.append(rng.choice(np.flatnonzero(labels == name), per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def at_most(most: int, rows: int, *, seed: int = 0) -> Int[NumpyArray, "s"]:
    """Ascending indices of `most` random ones of `rows` rows, or of all where there are fewer."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def balanced_split(
    labels: Int[NumpyArray, "n"], *, share: float = 0.2, seed: int = 0
) -> tuple[Int[NumpyArray, "f"], Int[NumpyArray, "h"]]:
    """Ascending indices of two parts: the rest, and about `share` of each class to hold out.

    Of a class with two rows or more at least one is held out and one is not; a class with one row
    stays in the rest.

    Raises:
      UserError: no class has two rows, so that nothing can be held out.
    """
    rng = np.random.default_rng(seed)
    held = []
    for name, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count > 1:
            size = min(max(1, round(share * count)), count - 1)
            held.append(rng.choice(np.flatnonzero(labels == name), size, replace=False))
    if not held:
        raise UserError(
            f"train has {len(labels)} rows and no class with two, so none can be held out to "
            f"choose settings; give more labelled rows"
        )
    held_rows = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_rows), held_rows
