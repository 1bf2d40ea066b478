"""Fields of an experiment that name a file or folder, and what becomes of them when it moves.

A run's config keeps them absolute. Where nothing lies there any more, the place is looked for
beside the run as it lay when the run was made, so a folder that holds both can be moved. Which
place is named is not part of what a run computes: what lies there is.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")

DATA = ("data.source.path", "data.lines", "data.tokenizer", "data.labels.file")
"""Fields whose files are read at every start of a run. Whether the same lies there is told by the
fingerprint of the training examples, which the run directory keeps."""
STARTS = ("train.start", "method.start_from", "method.teacher_run", "method.pretrained")
"""Fields whose files are read once, before the first step of a run."""
PLACES = (*DATA, *STARTS, "probe.folder")


def settled(experiment: Value) -> Value:
    """An experiment whose places are absolute, those that are there from the working directory."""

    def absolute(place: str) -> str:
        path = Path(place).expanduser()
        return str(path.resolve()) if path.exists() else place

    return _changed(experiment, absolute)


def followed(experiment: Value, home: str, run: Path) -> Value:
    """An experiment whose places moved with its run directory.

    Args:
      experiment: as the run's config keeps it.
      home: where the run directory was when it was made; empty: not known.
      run: where it is now.
    """

    def follow(place: str) -> str:
        path = Path(place)
        if not home or not path.is_absolute() or path.exists():
            return place
        beside = Path(os.path.normpath(run.resolve() / os.path.relpath(path, home)))
        return str(beside) if beside.exists() else place

    return _changed(experiment, follow)


def _changed(experiment: Value, change: Callable[[str], str]) -> Value:
    for name in PLACES:
        experiment = _with(experiment, name, change)
    return experiment


def _with(value: Any, name: str, change: Callable[[str], str]) -> Any:
    """A value of nested dataclasses with the text at a dotted name changed, where it has one."""
    head, _, rest = name.partition(".")
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or not hasattr(value, head):
        return value
    old = getattr(value, head)
    if rest:
        new = _with(old, rest, change)
    elif isinstance(old, str) and old:
        new = change(old)
    else:
        return value
    return value if new is old or new == old else dataclasses.replace(value, **{head: new})
