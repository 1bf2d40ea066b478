"""Batches for the training loop, by one of two roads with the same order."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxcl.data.digits import Digits
from jaxcl.data.examples import Examples, Resized, SplitName, Subset
from jaxcl.data.loading import MAX_BAD, batches_of
from jaxcl.data.order import steps_per_epoch
from jaxcl.data.pixels import Crop
from jaxcl.data.resident import ResidentFeed
from jaxcl.data.section import Arrays, Feed, Recipe, Section
from jaxcl.data.sources import AnySource
from jaxcl.data.streamed import StreamedFeed
from jaxcl.data.subsets import Labels
from jaxcl.errors import UserError
from jaxcl.typing import Int, NumpyArray, UInt8

RESIDENT_BYTES = 2 << 30
"""Largest decoded set, in bytes, that `road=auto` puts whole on every device: 2 GiB."""
AT_ONCE = 256
"""Images in a batch for inference."""


@dataclass(frozen=True)
class Data(Section):
    """What is trained on, and how it comes to the device."""

    source: AnySource = Digits()
    """Images: digits, tfds:NAME, or the path of a folder or zip of class folders."""
    batch_size: int = 256
    """Images in the global batch, over all devices."""
    labels: Labels = Labels()
    """Which labels of the training images are told."""
    road: Literal["auto", "resident", "streamed"] = "auto"
    """Whole set on the device as uint8, or decoded as it is needed; auto: resident up to 2 GiB."""
    threads: int | None = None
    """Threads that decode in each process; none means one per core."""
    workers: int = 0
    """Extra processes that decode on the streamed road; 0 means threads only."""
    crop: Literal["auto", "host", "device"] = "auto"
    """Where random resized crops are made on the streamed road; auto: on the host where sizes
    differ or the image holds more pixels than its crops together."""
    max_bad: float = MAX_BAD
    """Share of unreadable images that is tolerated; the next readable one is shown instead."""
    image_size: int | None = None
    """Bring every image to this side while loading: shorter side, then centre crop."""

    def split(self, name: SplitName) -> Examples:
        """A split of the source; of training, with the labels that are told."""
        examples = self.source.split(name)
        return self.labels.among(examples) if name == "train" else examples

    def open(self, train: Examples, method: Any, *, seed: int, mesh: jax.sharding.Mesh) -> Feed:
        return open_feed(self, train, method.augment, seed=seed, mesh=mesh)

    def passes(
        self, split: Examples, method: Any, rows: Int[NumpyArray, "m"] | None = None
    ) -> Iterator[tuple[Arrays, Int[NumpyArray, "b"]]]:
        side = self.side(split, method.augment)
        chosen = split if rows is None else Subset(split, rows)
        for images, labels in batches_of(
            chosen,
            AT_ONCE,
            side,
            interpolation=method.augment.inference_interpolation,
            max_bad=self.max_bad,
            leave_out=rows is None,
        ):
            yield {"image": _filled(images)}, labels

    def batches(
        self, inputs: Any, method: Any, like: Arrays, home: Path | None
    ) -> Iterator[tuple[Int[NumpyArray, "b"], Arrays]]:
        images = pixels(inputs, channels_of(like))
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            yield start + np.arange(len(part)), {"image": _filled(part)}

    def side(self, examples: Examples, recipe: Any) -> int | None:
        """Side that images are brought to on the host for inference; None: they stay as they are.

        Where sizes differ it is what the recipe's central crop is taken from: 256 for 224 at 0.875.
        """
        if self.image_size is not None or examples.shape is not None:
            return self.image_size
        side: int = round(recipe.size / recipe.inference_crop)
        return side

    def check(self, devices: int) -> None:
        super().check(devices)
        _check(self)


def channels_of(batch: Arrays) -> int:
    """Channels of the images, or crops, of a batch."""
    images = batch["image"] if "image" in batch else batch["crops"][0]
    return int(images.shape[-1])


def pixels(given: Any, channels: int) -> UInt8[NumpyArray, "n h w c"]:
    """Images as a person may hold them, uint8 or floats in [0, 1], grey ones without an axis.

    Raises:
      UserError: another shape, type or number of channels, or no image.
    """
    images: NumpyArray = np.asarray(given)
    if images.ndim == 3 and channels == 1:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] != channels or not len(images):
        raise UserError(
            f"images is {list(images.shape)}; this encoder takes [n, h, w, {channels}], n >= 1"
        )
    if np.issubdtype(images.dtype, np.floating):
        if images.min() < 0 or images.max() > 1:
            raise UserError("images are floats outside [0, 1]; scale them, or give uint8")
        rounded: NumpyArray = np.round(images * 255).astype(np.uint8)
        return rounded
    if images.dtype != np.uint8:
        raise UserError(f"images is {images.dtype}; give uint8, or floats in [0, 1]")
    return images


def _filled(images: NumpyArray) -> NumpyArray:
    """Every batch has one shape, so that one compilation serves them all; a short one is repeated,
    so that its batch statistics, where they are used, are those of its own images."""
    filled: NumpyArray = images[np.arange(AT_ONCE) % len(images)]
    return filled


def open_feed(
    data: Data, examples: Examples, recipe: Recipe, *, seed: int, mesh: jax.sharding.Mesh
) -> Feed:
    """The batches of a run: example order and crops follow from the seed and the step alone.

    Args:
      data: batch size and road.
      examples: the training split.
      recipe: tells which crops the views want.
      seed: of the run.
      mesh: devices along one axis named `data`.

    Raises:
      UserError: a batch that is larger than the set or does not split over the devices; images
        that differ in size where they may not; too many unreadable images.
    """
    steps_per_epoch(len(examples), data.batch_size)
    data.check(mesh.size)
    if data.image_size is not None:
        examples = Resized(examples, data.image_size)
    if road_of(data, examples) == "resident":
        return ResidentFeed(
            examples,
            batch_size=data.batch_size,
            max_bad=data.max_bad,
            threads=data.threads,
            seed=seed,
            mesh=mesh,
        )
    return StreamedFeed(
        examples,
        batch_size=data.batch_size,
        max_bad=data.max_bad,
        threads=data.threads,
        workers=data.workers,
        crops=_host_crops(data, examples, recipe),
        seed=seed,
        mesh=mesh,
    )


def road_of(data: Data, examples: Examples) -> Literal["resident", "streamed"]:
    """The road that `data.road` means for these examples."""
    if data.road != "auto":
        return data.road
    fits = examples.shape is not None and len(examples) * prod(examples.shape) <= RESIDENT_BYTES
    return "resident" if fits else "streamed"


def _host_crops(data: Data, examples: Examples, recipe: Recipe) -> tuple[Crop, ...]:
    """The crops a streamed batch is made of, empty for whole images.

    Raises:
      UserError: the batch can be made of neither.
    """
    crops = tuple(crop for crop in recipe.crops if crop is not None)
    possible = 0 < len(crops) == len(recipe.crops)
    if data.crop == "host" and not possible:
        raise UserError(
            "data.crop=host, but a view here takes the whole image; use data.crop=device"
        )
    if examples.shape is None and (data.crop == "device" or not possible):
        raise UserError(
            f"data.crop={data.crop}: {examples.title} may hold images of different sizes, which "
            "cannot be stacked; set data.image_size, or crop every view and use data.crop=host"
        )
    if data.crop == "auto":
        inside = sum(crop.size**2 for crop in crops)  # pixels that would reach the device
        on_host = possible and (examples.shape is None or inside < prod(examples.shape[:2]))
    else:
        on_host = data.crop == "host"
    return crops if on_host else ()


def _check(data: Data) -> None:
    """Raises `UserError` for numbers that fit no machine."""
    if not 0 <= data.max_bad < 1:
        raise UserError(f"data.max_bad={data.max_bad} is no share; use 0 up to 0.5")
    if data.image_size is not None and data.image_size < 1:
        raise UserError(f"data.image_size={data.image_size} leaves no pixels; use 1 or more")
    if data.threads is not None and data.threads < 1:
        raise UserError(f"data.threads={data.threads} decodes nothing; use 1 or more")
    if data.workers < 0:
        raise UserError(f"data.workers={data.workers} is below zero; use 0 or more")
