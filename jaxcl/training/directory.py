"""The run directory: whose it is, and what its numbers depend on."""

import platform
from importlib import metadata
from pathlib import Path

import jax

from jaxcl.errors import UserError
from jaxcl.experiment import CONFIG, Experiment, differences, save_config
from jaxcl.reading import entries
from jaxcl.records import COPIES, PART, has_record, read_record, write_record
from jaxcl.training.checkpoints import kept_steps
from jaxcl.training.logs import read_metrics
from jaxcl.training.ownership import LOCK

VERSIONS = "versions.json"
DATA = "data"
"""Key of the versions for the fingerprint of the training examples."""


def check_free(run: Path, experiment: Experiment) -> None:
    """Raises `UserError` where a directory holds another experiment, or something that is no run.

    One in which nothing was trained yet is free.
    """
    if has_record(run / CONFIG):
        changed = differences(run, experiment, data_known=DATA in read_versions(run))
        if changed and (read_metrics(run) or kept_steps(run)):
            name, (old, new) = next(iter(changed.items()))
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise UserError(
                f"{run} holds a run with {name}={old}, not {new}{more}; "
                "use another --dir, or remove it"
            )
    elif run.is_file() or (run.is_dir() and any(not _left_over(path) for path in entries(run))):
        raise UserError(f"{run} exists and holds no run; use another --dir")


def _left_over(path: Path) -> bool:
    """Whether a file may be all there is of a run that was killed before its first step."""
    return path.name in (LOCK, COPIES) or path.name.endswith(PART)


def check_data(run: Path, title: str, data: str, *, may_change: bool) -> None:
    """Raises `UserError` where a run that has trained began with other examples.

    Args:
      run: the run directory.
      title: what messages call the examples that there are now.
      data: their fingerprint.
      may_change: someone allowed it.
    """
    known = read_versions(run).get(DATA, data)
    if known != data and not may_change and kept_steps(run):
        raise UserError(
            f"{run} began with other data than {title} holds now ({known}; now {data}: names, "
            "sizes or labels differ), and its numbers would not be those of one run; name the "
            "first data with --data, or go on with these by --train.changed-data"
        )


def claim(run: Path, experiment: Experiment, data: str) -> None:
    """Makes a directory that is there this experiment's: called when its first step can be taken.

    Raises:
      UserError: it cannot be written to.
    """
    save_config(experiment, run)
    write_record(run / VERSIONS, versions() | {DATA: data})


def read_versions(run: Path) -> dict[str, str]:
    """What `claim` wrote of the versions; nothing where it is missing.

    Raises:
      UserError: it is damaged.
    """
    return read_record(run / VERSIONS) if has_record(run / VERSIONS) else {}


def versions() -> dict[str, str]:
    """What a run's numbers depend on beside its config."""
    packages = ("jaxcl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found | {"python": platform.python_version(), "backend": jax.default_backend()}
