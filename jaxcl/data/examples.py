"""What a data set is here: a numbered list of images with labels, and a value that names it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from jaxcl.data.fingerprint import Part, fingerprint
from jaxcl.data.order import shuffled
from jaxcl.data.pixels import decode, resize_and_centre
from jaxcl.typing import Int, NumpyArray, UInt8

SplitName = Literal["train", "test"]
UNDECODABLE = "cannot be decoded"
"""Reason of `Unreadable` where the decoder says no more."""


class Unreadable(Exception):
    """One image cannot be read or decoded; the feeds count it and show the next one instead."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Examples(ABC):
    """Images 0 .. n-1 in an order that is the same on every machine.

    Safe to read from many threads, and picklable, so that worker processes can hold a copy.
    """

    title: str
    """What messages call it, such as `train.zip`."""
    classes: tuple[str, ...] = ()
    """Class names in label order; empty where nothing is labelled."""
    channels: int = 3
    """3 for colour, 1 for grey."""
    shape: tuple[int, int, int] | None = None
    """(h, w, c) where all images are known to have it; None where they may differ."""
    about: Mapping[str, str] = MappingProxyType({})
    """Lines about the data set by name, which a run shows at its start."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def labels(self) -> Int[NumpyArray, "n"]:
        """[n] int32 class indices, all -1 where nothing is labelled."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What a person would look for: a path in the folder or zip."""

    @abstractmethod
    def read(self, i: int) -> tuple[bytes | UInt8[NumpyArray, "h w c"], int]:
        """Encoded file, or pixels, and the label of example `i`; raises `Unreadable`."""

    def fingerprint(self) -> str:
        """A word that changes with the names, classes or labels of the examples.

        Files add their sizes; pixels in memory are part of it themselves.
        """
        return self._fingerprint()

    def _fingerprint(self, *more: Part) -> str:
        names = (self.name(i) for i in range(len(self)))
        return fingerprint(len(self), self.classes, self.labels, names, *more)

    def image(self, i: int) -> UInt8[NumpyArray, "h w c"]:
        """Pixels of example `i`; raises `Unreadable`."""
        return self.picture(i)[0]

    def picture(self, i: int) -> tuple[UInt8[NumpyArray, "h w c"], int]:
        """Pixels and label of example `i` from one read; raises `Unreadable`."""
        content, label = self.read(i)
        if isinstance(content, bytes):
            pixels = decode(content, self.channels)
            if pixels is None:
                raise Unreadable(self.name(i), UNDECODABLE)
            return pixels, label
        return content, label


class Source(ABC):
    """A value that names a data set; its fields are what config.json keeps."""

    @abstractmethod
    def split(self, name: SplitName) -> Examples:
        """The training or the test examples; raises `UserError` where they cannot be had."""


class Pixels(Examples):
    """Images that lie in memory."""

    def __init__(
        self,
        title: str,
        images: UInt8[NumpyArray, "n h w c"],
        labels: Int[NumpyArray, "n"],
        classes: tuple[str, ...],
    ) -> None:
        self.title = title
        self.classes = classes
        self.images = images
        self._labels = labels.astype(np.int32)
        h, w, c = images.shape[1:]
        self.shape = (h, w, c)
        self.channels = c

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        return self._labels

    def name(self, i: int) -> str:
        return f"image {i}"

    def fingerprint(self) -> str:
        return self._fingerprint(self.images)

    def read(self, i: int) -> tuple[UInt8[NumpyArray, "h w c"], int]:
        return self.images[i], int(self._labels[i])


def described(examples: Examples) -> str:
    """How many images there are, in how many classes, and how many each class has."""
    return f"{examples.title}: {len(examples):,} images, {class_sizes(examples.labels)}"


def class_sizes(labels: Int[NumpyArray, "n"]) -> str:
    """How many classes there are, the sizes of the smallest and the largest, and what has none."""
    known = labels[labels >= 0]
    if not len(known):
        return "no labels"
    counts = np.unique(known, return_counts=True)[1]
    least, most = counts.min(), counts.max()
    size = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    rest = f", {len(labels) - len(known):,} without label" if len(known) < len(labels) else ""
    return f"{len(counts):,} {'class' if len(counts) == 1 else 'classes'} of {size}{rest}"


class Subset(Examples):
    """Some rows of other examples, in the order given."""

    def __init__(self, examples: Examples, rows: Int[NumpyArray, "m"]) -> None:
        self.examples = examples
        self.rows = rows
        self.title = examples.title
        self.classes = examples.classes
        self.channels = examples.channels
        self.shape = examples.shape
        self.about = examples.about

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Int[NumpyArray, "m"]:
        return self.examples.labels[self.rows]

    def name(self, i: int) -> str:
        return self.examples.name(int(self.rows[i]))

    def fingerprint(self) -> str:
        return fingerprint(len(self), self.examples.fingerprint(), self.rows)

    def read(self, i: int) -> tuple[bytes | UInt8[NumpyArray, "h w c"], int]:
        return self.examples.read(int(self.rows[i]))


class Resized(Examples):
    """Other examples brought to one size: shorter side to `size`, then the centre square."""

    def __init__(self, examples: Examples, size: int, interpolation: str = "bilinear") -> None:
        self.examples = examples
        self.size = size
        self.interpolation = interpolation
        self.title = examples.title
        self.classes = examples.classes
        self.channels = examples.channels
        self.shape = (size, size, examples.channels)
        self.about = examples.about

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        return self.examples.labels

    def name(self, i: int) -> str:
        return self.examples.name(i)

    def fingerprint(self) -> str:
        return self.examples.fingerprint()

    def read(self, i: int) -> tuple[UInt8[NumpyArray, "s s c"], int]:
        pixels, label = self.examples.picture(i)
        return resize_and_centre(pixels, self.size, self.interpolation), label


@dataclass(frozen=True)
class HoldOut:
    """Which rows train and which are held out, class by class."""

    train: Int[NumpyArray, "a"]
    test: Int[NumpyArray, "b"]


def hold_out(labels: Int[NumpyArray, "n"], per_class: Sequence[int] | float) -> HoldOut:
    """Sets aside a part of every class, the same one on every machine and in every run.

    Args:
      labels: [n] class indices; -1 counts as a class of its own.
      per_class: rows to set aside from each class in ascending order of label, or their share,
        rounded, at least one and never the whole class.

    Returns:
      the rows of both parts, ascending.
    """
    taken = np.zeros(len(labels), bool)
    for place, label in enumerate(np.unique(labels)):
        rows = np.flatnonzero(labels == label)
        count = (
            min(max(1, round(per_class * len(rows))), len(rows) - 1)
            if isinstance(per_class, float)
            else per_class[place]
        )
        order = shuffled(len(rows), key=(0x686F6C64, 0), counter=(0, 0, 0, place))
        taken[rows[order[:count]]] = True
    return HoldOut(np.flatnonzero(~taken), np.flatnonzero(taken))
