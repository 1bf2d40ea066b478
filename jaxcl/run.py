"""A trained run, ready to use: `jaxcl.load("runs/x").encode(images)`, or sentences."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import length_hint
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl.data.feeds import channels_of
from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.experiment import Experiment, load_config
from jaxcl.methods import Kept
from jaxcl.progress import told
from jaxcl.records import has_record, read_record, write_record
from jaxcl.scale import join_found
from jaxcl.training.beginning import begun
from jaxcl.training.checkpoints import Checkpoints
from jaxcl.training.state import State
from jaxcl.training.step import Trainer
from jaxcl.typing import Float, NumpyArray, PyTree

SHAPES = "shapes.json"


@dataclass(frozen=True)
class Run:
    """An experiment with the weights that came out of it."""

    path: Path
    experiment: Experiment
    state: State
    classes: tuple[str, ...]
    trainer: Trainer
    begin: Callable[[], State]
    """Makes the state before the first step."""

    def __repr__(self) -> str:
        """Without the weights."""
        method, step = type(self.experiment.method).__name__, int(self.state.step)
        return f"Run({str(self.path)!r}: {method} after step {step:,})"

    def encode(self, inputs: Any, output: str = "features") -> Float[NumpyArray, "n d"]:
        """Features of images or sentences, as the method represents them at inference.

        Work of minutes says how far it is, on standard error.

        Args:
          inputs: images, uint8 [n, h, w, c], or float in [0, 1]; [n, h, w] for grey ones. Resized
            as the recipe says, so any size will do. Of a run on text, a list of strings.
          output: which of the encoder's outputs.

        Returns:
          [n, d] float32.

        Raises:
          UserError: another shape, type or number of channels, or none.
        """
        data, like = self.experiment.data, _shapes(self.path)["batch"]
        batches = data.batches(inputs, self.experiment.method, like, self.path)
        shown = told(batches, lambda batch: len(batch[0]), length_hint(inputs), data.unit)
        return self.embedder.encode(self.state, shown, output)

    @property
    def encoder(self) -> Kept:
        """The network that `encode` applies: its module, parameters and statistics.

        `jaxcl.weights.save_encoder(FILE, *run.encoder)` writes it for other libraries.
        """
        return self.trainer.kept(self.state)

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return channels_of(_shapes(self.path)["batch"])

    @cached_property
    def embedder(self) -> Embedder:
        """Compiled on first use."""
        return Embedder(self.trainer.represent)

    @cached_property
    def classifier(self) -> Embedder:
        """Of the method's own classifier, which gives "logits"; compiled on first use."""
        return Embedder(self.trainer.classify)

    def untrained(self) -> "Run":
        """The same network as it was before the first step.

        Raises:
          UserError: the weights that it began from are no longer there.
        """
        return dataclasses.replace(self, state=begun(self.begin(), self.experiment))


def load(
    run: str | Path, *, best: bool = False, at: int | None = None, classes: Iterable[type] = ()
) -> Run:
    """The newest checkpoint of a run directory, or the best one.

    Each of several processes that calls it reads the run for itself. On a TPU pod, or under SLURM,
    it first joins them, where nothing has asked jax for devices yet (`jaxcl.scale.join`).

    Args:
      run: the directory that training wrote.
      best: the checkpoint with the highest score (kNN accuracy, STS-B correlation of text) instead
        of the newest.
      at: the checkpoint after so many steps instead of the newest.
      classes: your own method or module classes, where the experiment has any.

    Raises:
      UserError: the directory holds no run or no whole checkpoint.
    """
    join_found()
    path = Path(run)
    known = {f"{c.__module__}.{c.__qualname__}": c for c in classes}
    experiment = load_config(path, known)
    shapes = _shapes(path)
    trainer = Trainer(
        experiment.method, experiment.optim, experiment.probe, experiment.data.batch_size,
        shapes["steps_per_epoch"], len(shapes["classes"]), shapes.get("examples", 0),
    )  # fmt: skip
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    begin = jax.jit(_initial(trainer, experiment, path))
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), jax.eval_shape(begin)
    )
    checkpoints = Checkpoints(path)
    try:
        state = checkpoints.restore(abstract, best=best, at=at)
    finally:
        checkpoints.close()
    if state is None:
        raise UserError(
            f"{run} holds no checkpoint; train first: python train.py CONFIG --dir {run}"
        )
    return Run(path, experiment, state, tuple(shapes["classes"]), trainer, begin)


def save_shapes(
    path: Path,
    *,
    batch: dict[str, Any],
    classes: tuple[str, ...],
    steps_per_epoch: int,
    examples: int,
) -> None:
    """Keeps what the weights' shapes depend on beside the config, so that loading needs no data."""
    fields = jax.tree.map(lambda array: [str(array.dtype), *array.shape], batch)
    stored = {
        "batch": fields,
        "classes": list(classes),
        "steps_per_epoch": steps_per_epoch,
        "examples": examples,
    }
    write_record(path / SHAPES, stored)


def _shapes(path: Path) -> dict[str, Any]:
    """What `save_shapes` wrote, the batch as abstract arrays."""
    if not has_record(path / SHAPES):
        raise UserError(f"{path / SHAPES} is missing; was this run trained?")
    stored = read_record(path / SHAPES)
    try:
        batch = {name: _abstract(field) for name, field in stored["batch"].items()}
        return stored | {"batch": batch}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / SHAPES} is damaged: it holds no shapes of a batch") from error


def _abstract(field: list[Any]) -> PyTree:
    if isinstance(field[0], list):
        return tuple(map(_abstract, field))
    return jax.ShapeDtypeStruct(field[1:], field[0])


def _initial(trainer: Trainer, experiment: Experiment, path: Path) -> Callable[[], State]:
    """A function that makes the state before the first step, from shapes alone."""
    batch = _shapes(path)["batch"]

    def make() -> State:
        blank = jax.tree.map(lambda field: jnp.zeros(field.shape, field.dtype), batch)
        return trainer.init(experiment.train.seed, blank)

    return make
