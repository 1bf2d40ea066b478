"""Batches for the training loop, by one of two roads with the same order."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import jax

from jaxcl.data.digits import Digits
from jaxcl.data.examples import Examples, Resized
from jaxcl.data.loading import MAX_BAD
from jaxcl.data.order import steps_per_epoch
from jaxcl.data.pixels import Crop
from jaxcl.data.resident import ResidentFeed
from jaxcl.data.sources import AnySource
from jaxcl.data.streamed import StreamedFeed
from jaxcl.data.subsets import Labels
from jaxcl.errors import UserError
from jaxcl.typing import PyTree

RESIDENT_BYTES = 2 << 30
"""Largest decoded set, in bytes, that `road=auto` puts whole on every device: 2 GiB."""


@dataclass(frozen=True)
class Data:
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

    def train(self) -> Examples:
        """What is trained on: the source's training examples with the labels that are told."""
        return self.labels.among(self.source.split("train"))


class Recipe(Protocol):
    """What a feed needs of a recipe of views."""

    @property
    def crops(self) -> tuple[Crop | None, ...]:
        """The random resized crop of every view; None for a view of the whole image."""
        ...


class Feed(Protocol):
    """Batches as a function of the step; `batch` runs inside the compiled step."""

    road: str
    """`resident` or `streamed`."""
    steps_per_epoch: int

    @property
    def constants(self) -> PyTree:
        """Device arrays that go unchanged into every compiled call."""
        ...

    def inputs(self, step: int, count: int) -> PyTree:
        """Device arrays with a leading axis [count], for steps `step` .. `step + count - 1`."""
        ...

    def batch(self, constants: PyTree, one: PyTree) -> dict[str, Any]:
        """Pure: the global batch of one step.

        Returns:
          `image` uint8 [B, h, w, c], or `crops`, a uint8 [B, s, s, c] per view; `label` int32 [B]
          (-1 for none); `index` int32 [B], the example that is shown.
        """
        ...

    def report(self) -> dict[str, int | str | None]:
        """`unreadable` images so far, the name of the first, and a `notice` to show or None."""
        ...

    def close(self) -> None:
        """Ends threads and processes."""
        ...


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
    _check(data, mesh.size)
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


def _check(data: Data, devices: int) -> None:
    """Raises `UserError` for numbers that fit no machine, or not this one."""
    size = data.batch_size
    if size % devices:
        below = size // devices * devices
        fix = f"{below} or {below + devices}" if below else f"{devices}"
        raise UserError(f"data.batch_size={size} does not split over {devices} devices; use {fix}")
    if not 0 <= data.max_bad < 1:
        raise UserError(f"data.max_bad={data.max_bad} is no share; use 0 up to 0.5")
    if data.image_size is not None and data.image_size < 1:
        raise UserError(f"data.image_size={data.image_size} leaves no pixels; use 1 or more")
    if data.threads is not None and data.threads < 1:
        raise UserError(f"data.threads={data.threads} decodes nothing; use 1 or more")
    if data.workers < 0:
        raise UserError(f"data.workers={data.workers} is below zero; use 0 or more")
