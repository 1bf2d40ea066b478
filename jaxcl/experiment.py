"""An experiment as one value, and the JSON that a run directory keeps of it."""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np
from flax import linen as nn

from jaxcl.data import Section
from jaxcl.errors import UserError
from jaxcl.methods import Method
from jaxcl.options import short
from jaxcl.places import DATA, PLACES, STARTS, followed, settled
from jaxcl.ranges import check_ranges
from jaxcl.reading import check_form, reading
from jaxcl.records import has_record, read_record, write_record
from jaxcl.training.optim import Optim
from jaxcl.training.probe import Probe, Watch

CONFIG = "config.json"
HOME = "home"
"""Key of the config for where the run directory was, which the experiment has no field for."""

FREE = ("train.dir", "train.devices", "train.log_every", "train.save_every", "train.keep",
        "train.steps_per_call", "train.tensorboard", "train.wandb", "data.road", "data.threads",
        "data.workers", "data.max_bad", "probe.every", "probe.every_steps",
        "train.changed_data", "probe.folder")  # fmt: skip
"""Fields that a resumed run may change: they say how it runs, not what it computes."""


@dataclass(frozen=True)
class Train:
    """How the run runs; none of it but the seed and `start` changes what is learnt."""

    dir: Annotated[str, short("--dir")] = ""
    """Run directory; empty: runs/ and the name of the config."""
    seed: int = 0
    """Of everything random: parameters, order, views."""
    changed_data: bool = False
    """Go on with a run although its training examples are others than at its beginning: added,
    removed, replaced. Its numbers are then not those of a run without a stop."""
    start: str = ""
    """Weights that the encoder starts from: a file or folder of another library, as
    `jaxcl.weights.load_encoder` reads it; empty: random ones."""
    start_part: str = ""
    """Part of a start file that holds several networks: "student" say; empty: the usual one."""
    start_prefix: str | None = None
    """Beginning of the names of the encoder's tensors in the start file, "module.encoder_k." say;
    None: found from the names."""
    log_every: int = 50
    """Steps between lines of the log."""
    save_every: int = 0
    """Steps between checkpoints; 0: as evaluations by steps, else one at the end of every epoch."""
    keep: int = 2
    """Newest checkpoints that are kept, beside the best one; while one is written, one more."""
    devices: int = 0
    """Devices to use; 0: all of them."""
    steps_per_call: int = 0
    """Steps in one compiled call on the resident road; 0: 1 on CPU, 25 elsewhere."""
    tensorboard: bool = True
    """Write TensorBoard events too."""
    wandb: str = ""
    """Weights & Biases project to log to; empty: none."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a run is made of."""

    method: Method
    data: Section
    optim: Optim
    train: Train = Train()
    probe: Watch = Probe()


def check(experiment: Experiment) -> None:
    """Raises `UserError` for values that cannot work together, before anything compiles."""
    method, batch = experiment.method, experiment.data.batch_size
    for section in ("method", "optim", "probe"):
        check_ranges(section, getattr(experiment, section))
    if batch < 2:
        raise UserError(f"data.batch_size={batch} contrasts nothing; use 2 or more")
    method.check(batch)
    for name in ("log_every", "keep"):
        if getattr(experiment.train, name) < 1:
            raise UserError(f"train.{name}={getattr(experiment.train, name)}; it is at least 1")
    if batch % method.chunks:
        raise UserError(
            f"data.batch_size={batch} does not split into method.chunks={method.chunks}; "
            f"use {batch // method.chunks * method.chunks}"
        )
    for field in dataclasses.fields(method):
        groups = getattr(getattr(method, field.name), "groups", None)
        if groups is None:
            continue
        key = f"method.{field.name}.groups"
        if batch % groups:
            raise UserError(f"data.batch_size={batch} does not split into {key}={groups}")
        if groups % method.chunks:
            raise UserError(
                f"{key}={groups} does not split over method.chunks={method.chunks}, and a chunk "
                f"has batch statistics of its own; use {key}={method.chunks}"
            )


_CONFIGS: set[str] = set()
"""Names under which configs that were read are known as modules."""


def read_config(path: str | Path) -> Experiment:
    """The `experiment` of a config file, which is a Python file and is run.

    Raises:
      UserError: there is no such file, or it defines no `experiment`.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        there = f"; {path.parent}/ holds {', '.join(near)}" if near else ""
        raise UserError(f"there is no config {path}{there}")
    if path.suffix != ".py":
        raise UserError(f"{path} is no config: that is a Python file, such as configs/x.py")
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # for modules that lie beside it
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if path.stem not in sys.modules or path.stem in _CONFIGS:
        _CONFIGS.add(path.stem)
        sys.modules[path.stem] = module  # where the source of its classes is looked up
    spec.loader.exec_module(module)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path} defines no `experiment = Experiment(...)`")
    return experiment


def classes_of(value: Any) -> dict[str, type]:
    """Classes from outside jaxcl that a value is made of, by their full name."""
    if isinstance(value, tuple | list):
        return {name: cls for item in value for name, cls in classes_of(item).items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {}
    found = {_name(type(value)): type(value)} if not _name(type(value)).startswith("jaxcl.") else {}
    for field in dataclasses.fields(value):
        found |= classes_of(getattr(value, field.name, None))
    return found


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def to_json(value: Any) -> Any:
    """A value made of frozen dataclasses and plain values, as JSON with class names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        skip = ("parent", "name") if isinstance(value, nn.Module) else ()
        names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in skip]
        stored = {name: to_json(getattr(value, name)) for name in names}
        return {"class": _name(type(value))} | stored
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return {"array": str(value.dtype), "shape": list(value.shape)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a config cannot hold {value!r}; use numbers, strings, tuples, dataclasses")


def from_json(value: Any, classes: Mapping[str, type] | None = None) -> Any:
    """The value that `to_json` wrote. Runs no code but the constructors of jaxcl's dataclasses.

    Args:
      value: parsed JSON.
      classes: classes from outside jaxcl that it may name, by their full name.

    Raises:
      UserError: it names another class, or fields that the class does not have.
    """
    if isinstance(value, list):
        return tuple(from_json(item, classes) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:  # pixels are not stored: an empty array stands for them
        with reading(f"{CONFIG}: an array"):
            return np.zeros((0, *value["shape"][1:]), value["array"])
    if not isinstance(value.get("class"), str):
        raise UserError(f"{CONFIG}: an object of {', '.join(list(value)[:4])} names no class")
    cls = _class(value["class"], classes or {})
    fields = {name: from_json(item, classes) for name, item in value.items() if name != "class"}
    try:
        return cls(**fields)
    except Exception as error:  # classes may refuse values in their own way
        raise UserError(
            f"{CONFIG}: {value['class']} of this version cannot be made from it ({error})"
        ) from error


def _class(name: str, classes: Mapping[str, type]) -> type:
    if name in classes:
        return classes[name]
    module, _, qualname = name.rpartition(".")
    found = None
    if module.startswith("jaxcl."):
        try:
            found = getattr(importlib.import_module(module), qualname, None)
        except ImportError:
            found = None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(
            f"{CONFIG} names {name}, which is no class of jaxcl; if it is yours, pass it: "
            "jaxcl.load(run, classes=[...]), or eval.py --config FILE"
        )
    return found


def save_config(experiment: Experiment, run: Path) -> None:
    """Writes the experiment into the run directory.

    Raises:
      UserError: it cannot be written.
    """
    write_record(run / CONFIG, {HOME: str(run.resolve())} | to_json(experiment))


_GIVEN: dict[str, type] = {}
"""Classes from outside jaxcl that were passed once: a run that starts from another reads its config
too."""


def load_config(run: Path, classes: Mapping[str, type] | None = None) -> Experiment:
    """The experiment of a run directory; classes that are given stay known to this process.

    Raises:
      UserError: the directory holds no run, or names a class that is neither jaxcl's nor given.
    """
    _GIVEN.update(classes or {})
    with reading(run / CONFIG):
        stored = _stored(run)
        home = stored.pop(HOME, "")
        experiment = from_json(stored, _GIVEN)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{run / CONFIG} holds no Experiment but {type(experiment).__name__}")
    parts = {"method": Method, "data": Section, "optim": Optim, "train": Train, "probe": Watch}
    for name, kind in parts.items():
        if not isinstance(getattr(experiment, name), kind):
            raise UserError(f"{run / CONFIG}: {name} is no {kind.__name__}")
    for name, kind in get_type_hints(Train).items():
        check_form(getattr(experiment.train, name), kind, f"{run / CONFIG}: train.{name}")
    return followed(experiment, str(home), run)


def _stored(run: Path) -> dict[str, Any]:
    path = run / CONFIG
    if not has_record(path):
        raise UserError(
            f"{run} holds no run ({CONFIG} is missing); "
            f"train first: python train.py CONFIG --dir {run}"
        )
    return read_record(path)


def differences(
    run: Path, asked: Experiment, *, data_known: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Fields in which a run directory and an experiment differ: what is stored, what is asked for.

    Fields that say how a run runs and not what it computes are left out. A field that was not there
    when the run began counts as its default. Weights that a run began with may be named at another
    place once they are no longer at the first.

    Args:
      run: the run directory.
      asked: the experiment, its places as `jaxcl.places.settled` makes them.
      data_known: the run keeps its data's fingerprint, so their place does not matter.
    """
    stored, new = _stored(run), flatten(to_json(asked))
    home, filled = str(stored.pop(HOME, "")), dict[str, Any]()
    with contextlib.suppress(UserError):  # what cannot be made any more differs anyway
        made = settled(followed(from_json(stored, classes_of(asked)), home, run))
        filled = flatten(to_json(made))
    with reading(run / CONFIG):
        kept = flatten(stored)
    places = {name: filled[name] for name in PLACES if name in filled}
    old = filled | kept | places

    def differs(name: str) -> bool:
        if old.get(name) == new.get(name) or name in FREE or (data_known and name in DATA):
            return False
        moved = name in STARTS and old.get(name) and new.get(name)
        return not (moved and not Path(old[name]).exists())

    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if differs(name)
    }


def shared_fields(experiment: Experiment) -> dict[str, Any]:
    """The fields that are the same in all processes of a run; of places, whether there is one."""
    fields = flatten(to_json(experiment))
    return {
        name: "a place" if name in PLACES and value else value for name, value in fields.items()
    }


def flatten(stored: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as {"method.encoder.depth": 18, ...}."""
    if isinstance(stored, dict):
        items = list(stored.items())
    elif isinstance(stored, list) and any(isinstance(item, dict | list) for item in stored):
        items = [(str(i), item) for i, item in enumerate(stored)]
    else:
        return {prefix: stored}
    flat: dict[str, Any] = {}
    for name, item in items:
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat
