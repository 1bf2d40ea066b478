"""The run directory: whose it is, and what its numbers depend on."""

import json
import platform
from importlib import metadata
from pathlib import Path

import jax

from jaxcl.errors import UserError
from jaxcl.experiment import CONFIG, Experiment, differences, save_config
from jaxcl.training.checkpoints import FOLDER
from jaxcl.training.logs import read_metrics

VERSIONS = "versions.json"
DATA = "data"
"""Key of the versions for the fingerprint of the training examples."""


def check_free(run: Path, experiment: Experiment) -> None:
    """Raises `UserError` where a directory holds another experiment, or something that is no run.

    One in which nothing was trained yet is free.
    """
    if (run / CONFIG).exists():
        changed = differences(run, experiment, data_known=DATA in _versions(run))
        if changed and (read_metrics(run) or any((run / FOLDER).glob("[0-9]*"))):
            name, (old, new) = next(iter(changed.items()))
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise UserError(
                f"{run} holds a run with {name}={old}, not {new}{more}; "
                "use another --dir, or remove it"
            )
    elif run.is_file() or (run.is_dir() and any(run.iterdir())):
        raise UserError(f"{run} exists and holds no run; use another --dir")


def check_data(run: Path, title: str, data: str, *, may_change: bool) -> None:
    """Raises `UserError` where a run that has trained began with other examples.

    Args:
      run: the run directory.
      title: what messages call the examples that there are now.
      data: their fingerprint.
      may_change: someone allowed it.
    """
    known = _versions(run).get(DATA, data)
    if known != data and not may_change and any((run / FOLDER).glob("[0-9]*")):
        raise UserError(
            f"{run} began with other data than {title} holds now ({known}; now {data}: names, "
            "sizes or labels differ), and its numbers would not be those of one run; name the "
            "first data with --data, or go on with these by --train.changed-data"
        )


def claim(run: Path, experiment: Experiment, data: str) -> None:
    """Makes the directory this experiment's: called when its first step can be taken."""
    run.mkdir(parents=True, exist_ok=True)
    save_config(experiment, run)
    (run / VERSIONS).write_text(json.dumps(versions() | {DATA: data}, indent=1) + "\n")


def _versions(run: Path) -> dict[str, str]:
    """What `claim` kept; nothing where it is not there or cannot be read."""
    try:
        found = json.loads((run / VERSIONS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
