"""A trained run, ready to use: `jaxcl.load("runs/x").encode(images)`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.errors import UserError
from jaxcl.evaluate.features import Embedder
from jaxcl.experiment import Experiment, load_config
from jaxcl.methods import Kept
from jaxcl.training.checkpoints import Checkpoints
from jaxcl.training.state import State
from jaxcl.training.step import Trainer
from jaxcl.typing import Float, NumpyArray, UInt8

SHAPES = "shapes.json"


@dataclass(frozen=True)
class Run:
    """An experiment with the weights that came out of it."""

    path: Path
    experiment: Experiment
    state: State
    classes: tuple[str, ...]
    trainer: Trainer

    def encode(self, images: NumpyArray, output: str = "features") -> Float[NumpyArray, "n d"]:
        """Features of images, as the method represents them at inference.

        Args:
          images: uint8 [n, h, w, c], or float in [0, 1]; [n, h, w] for grey ones. Resized as the
            recipe says, so any size will do.
          output: which of the encoder's outputs.

        Returns:
          [n, d] float32.

        Raises:
          UserError: another shape, type or number of channels, or no image.
        """
        return self.embedder.images(self.state, self._pixels(images), output)

    @property
    def encoder(self) -> Kept:
        """The network that `encode` applies: its module, parameters and statistics.

        `jaxcl.weights.save_encoder(FILE, *run.encoder)` writes it for other libraries.
        """
        return self.trainer.kept(self.state)

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        channels: int = _shapes(self.path)["image"][2]
        return channels

    @cached_property
    def embedder(self) -> Embedder:
        """Compiled on first use."""
        return Embedder(self.trainer.represent)

    def untrained(self) -> "Run":
        """The same network as it was before the first step."""
        fresh = jax.jit(_initial(self.trainer, self.experiment, self.path))()
        return Run(self.path, self.experiment, fresh, self.classes, self.trainer)

    def _pixels(self, images: NumpyArray) -> UInt8[NumpyArray, "n h w c"]:
        images = np.asarray(images)
        channels = self.channels
        if images.ndim == 3 and channels == 1:
            images = images[..., None]
        if images.ndim != 4 or images.shape[3] != channels or not len(images):
            raise UserError(
                f"images is {list(images.shape)}; this encoder takes [n, h, w, {channels}], n >= 1"
            )
        if np.issubdtype(images.dtype, np.floating):
            if images.min() < 0 or images.max() > 1:
                raise UserError("images are floats outside [0, 1]; scale them, or give uint8")
            return np.round(images * 255).astype(np.uint8)
        if images.dtype != np.uint8:
            raise UserError(f"images is {images.dtype}; give uint8, or floats in [0, 1]")
        return images


def load(run: str | Path, *, best: bool = False, classes: Iterable[type] = ()) -> Run:
    """The newest checkpoint of a run directory, or the best one.

    Args:
      run: the directory that training wrote.
      best: the checkpoint with the highest kNN accuracy instead of the newest.
      classes: your own method or module classes, where the experiment has any.

    Raises:
      UserError: the directory holds no run or no whole checkpoint.
    """
    path = Path(run)
    known = {f"{c.__module__}.{c.__qualname__}": c for c in classes}
    experiment = load_config(path, known)
    shapes = _shapes(path)
    trainer = Trainer(
        experiment.method, experiment.optim, experiment.probe, experiment.data.batch_size,
        shapes["steps_per_epoch"], len(shapes["classes"]), shapes.get("examples", 0),
    )  # fmt: skip
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device),
        jax.eval_shape(_initial(trainer, experiment, path)),
    )
    checkpoints = Checkpoints(path)
    try:
        state = checkpoints.restore(abstract, best=best)
    finally:
        checkpoints.close()
    if state is None:
        raise UserError(
            f"{run} holds no checkpoint; train first: python train.py CONFIG --dir {run}"
        )
    return Run(path, experiment, state, tuple(shapes["classes"]), trainer)


def save_shapes(
    path: Path,
    *,
    batch: dict[str, Any],
    classes: tuple[str, ...],
    steps_per_epoch: int,
    examples: int,
) -> None:
    """Keeps what the weights' shapes depend on beside the config, so that loading needs no data."""
    stored = {
        "image": list(_sides(batch)),
        "crops": [list(c.shape[1:]) for c in batch.get("crops", ())],
        "classes": list(classes),
        "steps_per_epoch": steps_per_epoch,
        "examples": examples,
    }
    (path / SHAPES).write_text(json.dumps(stored, indent=1) + "\n")


def _sides(batch: dict[str, Any]) -> tuple[int, ...]:
    images = batch["image"] if "image" in batch else batch["crops"][0]
    return tuple(images.shape[1:])


def _shapes(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((path / SHAPES).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path / SHAPES} is missing or damaged; was this run trained?") from error
    return stored


def _initial(trainer: Trainer, experiment: Experiment, path: Path) -> Any:
    """A function that makes the state before the first step, from shapes alone."""
    shapes, size = _shapes(path), experiment.data.batch_size

    def make() -> State:
        batch: dict[str, Any] = {
            "label": jnp.zeros(size, jnp.int32),
            "index": jnp.zeros(size, jnp.int32),
        }
        if shapes["crops"]:
            batch["crops"] = tuple(jnp.zeros((size, *s), jnp.uint8) for s in shapes["crops"])
        else:
            batch["image"] = jnp.zeros((size, *shapes["image"]), jnp.uint8)
        return trainer.init(experiment.train.seed, batch)

    return make
