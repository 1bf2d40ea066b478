"""What the loop and evaluation ask of data, whether it is images or text."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax

from jaxcl.data.examples import SplitName
from jaxcl.data.pixels import Crop
from jaxcl.errors import UserError
from jaxcl.typing import Int, NumpyArray, PyTree

Arrays = dict[str, Any]
"""Fields of a batch on the host, with the same leading rows."""


class Split(Protocol):
    """What is known of every data set: so many numbered examples, perhaps with labels."""

    title: str
    """What messages call it."""
    classes: tuple[str, ...]
    """Class names in label order; empty where nothing is labelled."""
    about: Mapping[str, str]
    """Lines about the data set by name, which a run shows at its start."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        """[n] int32 class indices, -1 where there is none."""
        ...

    def fingerprint(self) -> str:
        """A word that changes with the examples: a run goes on with those that it began with."""
        ...


class Recipe(Protocol):
    """What data needs of a recipe of views."""

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
        """Device arrays with a leading axis [count], for steps `step` .. `step + count - 1`.

        Their shapes are few, and a function of seed and step; each is compiled once.
        """
        ...

    def batch(self, constants: PyTree, one: PyTree) -> dict[str, Any]:
        """Pure: the global batch of one step.

        Returns:
          Images: `image` uint8 [B, h, w, c], or `crops`, a uint8 [B, s, s, c] per view. Text: `ids`
          int32 [B, t] and `lengths` int32 [B], the tokens in each row. And `label` int32 [B]
          (-1 for none); `index` int32 [B], the example that is shown.
        """
        ...

    def report(self) -> dict[str, int | str | None]:
        """`unreadable` images so far, the name of the first, and a `notice` to show or None."""
        ...

    def close(self) -> None:
        """Ends threads and processes."""
        ...


class Section(ABC):
    """The `data` of an experiment: a frozen dataclass that opens splits, feeds and passes."""

    unit: ClassVar[str] = "images"
    """What a batch holds, in the plural."""

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Rows of the global batch, over all devices."""

    @abstractmethod
    def split(self, name: SplitName) -> Any:
        """The training or the test examples, a `Split` that the other methods take."""

    @abstractmethod
    def open(self, train: Any, method: Any, *, seed: int, mesh: jax.sharding.Mesh) -> Feed:
        """The batches of a run: they follow from seed and step alone.

        Args:
          train: the training split.
          method: its recipe or encoder tells what is wanted of each example.
          seed: of the run.
          mesh: devices along one axis named `data`.

        Raises:
          UserError: the batch size fits neither the split nor the devices, and the like.
        """

    @abstractmethod
    def passes(
        self, split: Any, method: Any, rows: Int[NumpyArray, "m"] | None = None
    ) -> Iterator[tuple[Arrays, Int[NumpyArray, "b"]]]:
        """One pass over a split, as inference sees it.

        Args:
          split: the examples.
          method: as in `open`.
          rows: these ones in this order, an unreadable one blank and without label; None: all that
            can be read, in their order.

        Yields:
          arrays of few shapes, whose surplus rows are padding; labels of the others.
        """

    @abstractmethod
    def batches(
        self, inputs: Any, method: Any, like: Arrays, home: Path | None
    ) -> Iterator[tuple[Int[NumpyArray, "b"], Arrays]]:
        """What a person has, images or strings, as batches for inference.

        Args:
          inputs: as `jaxcl.Run.encode` takes them.
          method: as in `open`.
          like: arrays or shapes of a batch that was trained on.
          home: run directory in which `keep` has left what this needs; None: not from a run.

        Yields:
          places of the inputs, and arrays as in `passes`.

        Raises:
          UserError: inputs of another kind.
        """

    def keep(self, home: Path) -> None:  # noqa: B027 - most have nothing to keep
        """Leaves in the run directory what encoding needs beside the weights."""

    def check(self, devices: int) -> None:
        """Raises `UserError` for a batch that does not split over the devices."""
        size = self.batch_size
        if size % devices:
            below = size // devices * devices
            fix = f"{below} or {below + devices}" if below else f"{devices}"
            raise UserError(
                f"data.batch_size={size} does not split over {devices} devices; use {fix}"
            )
