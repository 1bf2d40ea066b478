"""Few labels: a class-balanced part of a training set's labels, the same wherever it is drawn.

The share that fine-tuning sees alone and the share that distillation sees beside all other images,
are the same images for the same seed, on every machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxcl.data.examples import Examples, Subset
from jaxcl.data.order import shuffled
from jaxcl.errors import UserError
from jaxcl.reading import reading
from jaxcl.typing import Int, NumpyArray, UInt8

_KEY = 0x6C6162656C73  # keeps this stream of numbers apart from the others


@dataclass(frozen=True)
class Labels:
    """Which labels of the training images are told, and what becomes of the other images."""

    keep: float = 1.0
    """Share of every class's labels up to 1, 0.01 say; above 1 their number over all classes, 250
    say; 0: none."""
    others: Literal["drop", "hide"] = "drop"
    """Images whose labels are not told: left out, or shown without label."""
    seed: int = 0
    """Which images they are."""
    file: str = ""
    """A text file with the names of the labelled images, one a line, instead of `keep` and `seed`:
    paths in the folder or zip, or file names alone, as in the published lists for ImageNet."""

    def among(self, examples: Examples) -> Examples:
        """The examples that a run sees.

        Raises:
          UserError: a number that fits no class, no label left, or names that are not there.
        """
        if self.keep == 1 and not self.file:
            return examples
        rows = self._listed(examples) if self.file else self._drawn(examples.labels)
        if self.others == "hide":
            return _Hidden(examples, rows)
        if not len(rows):
            raise UserError("data.labels.keep=0 drops every image; use data.labels.others=hide")
        return Subset(examples, rows)

    def _drawn(self, labels: Int[NumpyArray, "n"]) -> Int[NumpyArray, "m"]:
        classes, counts = np.unique(labels[labels >= 0], return_counts=True)
        if self.keep < 0:
            raise UserError(f"data.labels.keep={self.keep:g}; use a share up to 1, or a number")
        if not len(classes):
            raise UserError(f"data.labels.keep={self.keep:g}, but the training images have none")
        chosen = [np.zeros(0, np.int64)]
        for name, size, count in zip(classes, self._sizes(counts), counts, strict=True):
            order = shuffled(int(count), key=(self.seed, _KEY), counter=(0, 0, 0, int(name)))
            chosen.append(np.flatnonzero(labels == name)[order[:size]])
        return np.sort(np.concatenate(chosen))

    def _sizes(self, counts: Int[NumpyArray, "c"]) -> list[int]:
        """Labels of each class."""
        if self.keep > 1:
            each, left = divmod(self.keep, len(counts))
            if left:
                near = max(int(each), 1) * len(counts)
                raise UserError(
                    f"data.labels.keep={self.keep:g} does not split over {len(counts)} classes; "
                    f"use {near} or {near + len(counts)}"
                )
            if each > counts.min():
                raise UserError(
                    f"data.labels.keep={self.keep:g} is {each:g} of each class, and the smallest "
                    f"has {counts.min()}; use {counts.min() * len(counts)} or fewer"
                )
            return [int(each)] * len(counts)
        sizes = [round(self.keep * int(count)) for count in counts]
        if self.keep and not min(sizes):
            raise UserError(
                f"data.labels.keep={self.keep:g} leaves a class of {counts.min()} images without "
                f"a label; use {1 / counts.min():.2g} or more"
            )
        return sizes

    def _listed(self, examples: Examples) -> Int[NumpyArray, "m"]:
        path = Path(self.file).expanduser()
        if not path.is_file():
            raise UserError(f"data.labels.file={self.file} does not exist; give a list of names")
        with reading(path):
            wanted = {line.strip() for line in path.read_text().splitlines() if line.strip()}
        names = [examples.name(i) for i in range(len(examples))]
        short = [name.rpartition("/")[2] for name in names]
        rows = [i for i, pair in enumerate(zip(names, short, strict=True)) if wanted & {*pair}]
        missing = wanted - {*names} - {*short}
        if missing or not rows:
            some = f" (first: {min(missing)})" if missing else ""
            raise UserError(
                f"data.labels.file={self.file}: {len(missing)} of {len(wanted)} names are not in "
                f"{examples.title}{some}; its images are called {names[0]}, ..."
            )
        return np.array(rows, np.int64)


class _Hidden(Examples):
    """Other examples, of which only some have their labels."""

    def __init__(self, examples: Examples, rows: Int[NumpyArray, "m"]) -> None:
        self.examples = examples
        self.title = examples.title
        self.classes = examples.classes
        self.channels = examples.channels
        self.shape = examples.shape
        self._labels = np.full(len(examples), -1, np.int32)
        self._labels[rows] = examples.labels[rows]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        return self._labels

    def name(self, i: int) -> str:
        return self.examples.name(i)

    def read(self, i: int) -> tuple[bytes | UInt8[NumpyArray, "h w c"], int]:
        return self.examples.read(i)[0], int(self._labels[i])
