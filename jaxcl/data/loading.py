"""Whole splits in memory, passes over those that do not fit, and the count of unreadable images."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from jaxcl.data.examples import UNDECODABLE, Examples, Resized, Unreadable
from jaxcl.errors import UserError
from jaxcl.typing import Int, NumpyArray, UInt8

MAX_BAD = 0.01
"""Share of unreadable images tolerated where nobody says otherwise."""
_ROWS = 256  # images a thread takes at a time


class BadImages:
    """Counts unreadable images, and stops when they are too many."""

    def __init__(self, examples: Examples, max_bad: float) -> None:
        self._examples = examples
        self._max_bad = max_bad
        self._found: set[int] = set()

    def add(self, rows: Int[NumpyArray, "k"]) -> None:
        """Notes rows that cannot be read; raises `UserError` beyond the tolerated share."""
        self._found.update(int(row) for row in rows)
        if len(self._found) > self._max_bad * len(self._examples):
            raise UserError(
                f"{self._sentence()}, {self._percent()} > {self._tolerated()}; "
                "mend or remove them, or tolerate more (train.py --data.max-bad, eval.py --max-bad)"
            )

    def give_up(self, row: int) -> None:
        """Raises `UserError`: more neighbours of `row` are unreadable than are tolerated."""
        raise UserError(
            f"{self._examples.title}: {name_and_reason(self._examples, row)} and the images after "
            f"it cannot be decoded, more than {self._tolerated()}; mend or remove them"
        )

    def report(self) -> dict[str, int | str | None]:
        """How many there are, the name of the first, and a line to show."""
        if not self._found:
            return {"unreadable": 0, "first_unreadable": None, "notice": None}
        notice = f"{self._sentence()}; skipped, {self._percent()} <= {self._tolerated()}"
        return {
            "unreadable": len(self._found),
            "first_unreadable": self._examples.name(min(self._found)),
            "notice": notice,
        }

    def _sentence(self) -> str:
        return (
            f"{self._examples.title}: {len(self._found)} of {len(self._examples)} images cannot be "
            f"decoded (first: {name_and_reason(self._examples, min(self._found))})"
        )

    def _percent(self) -> str:
        return f"{100 * len(self._found) / len(self._examples):.2g} %"

    def _tolerated(self) -> str:
        return f"data.max_bad={100 * self._max_bad:.2g} %"


def name_and_reason(examples: Examples, row: int) -> str:
    """The name of an image that cannot be read, and why, where more is known than that it fails."""
    try:
        examples.picture(row)
    except Unreadable as error:
        if error.reason != UNDECODABLE:
            return f"{error.name}, {error.reason}"
    return examples.name(row)


@dataclass(frozen=True)
class Loaded:
    """A whole split, decoded."""

    images: UInt8[NumpyArray, "n h w c"]
    """Black where unreadable."""
    labels: Int[NumpyArray, "n"]
    readable: NumpyArray
    """[n] bool."""


def load(examples: Examples, bad: BadImages, threads: int | None = None) -> Loaded:
    """Decodes all examples, which must have one shape.

    Args:
      examples: what to decode.
      bad: told which images cannot be read.
      threads: how many decode at once; None for one per core.

    Raises:
      UserError: an image of another size than the first, or too many unreadable ones.
    """
    n = len(examples)
    shape = examples.shape or _first_shape(examples)
    images = np.zeros((n, *shape), np.uint8)
    labels = np.full(n, -1, np.int32)
    readable = np.ones(n, bool)

    def fill(start: int) -> None:
        for i in range(start, min(start + _ROWS, n)):
            try:
                pixels, labels[i] = examples.picture(i)
            except Unreadable:
                readable[i] = False
                continue
            if pixels.shape != shape:
                raise UserError(
                    f"{examples.title}: {examples.name(i)} is {_size(pixels.shape)} where others "
                    f"are {_size(shape)}; set data.image_size={min(shape[:2])} to make them alike, "
                    "or data.road=streamed"
                )
            images[i] = pixels

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, n, _ROWS)):
            pass
    if not readable.all():
        bad.add(np.flatnonzero(~readable))
    return Loaded(images, labels, readable)


def load_split(
    examples: Examples,
    image_size: int | None = None,
    *,
    interpolation: str = "bilinear",
    max_bad: float = MAX_BAD,
) -> tuple[UInt8[NumpyArray, "m h w c"], Int[NumpyArray, "m"]]:
    """All readable images of a split and their labels, for evaluation.

    Args:
      examples: the split.
      image_size: shorter side in pixels, then centre crop; needed where sizes differ.
      interpolation: kernel by which images are brought to that size (`pixels.resize`).
      max_bad: share of unreadable images tolerated; they are left out.

    Returns:
      [m, h, w, c] uint8 and [m] int32, -1 where an image has no label.

    Raises:
      UserError: sizes differ and no `image_size` is given; too many unreadable images.
    """
    if image_size is not None:
        examples = Resized(examples, image_size, interpolation)
    loaded = load(examples, BadImages(examples, max_bad))
    if loaded.readable.all():
        return loaded.images, loaded.labels
    return loaded.images[loaded.readable], loaded.labels[loaded.readable]


def batches_of(
    examples: Examples,
    batch_size: int,
    image_size: int | None = None,
    *,
    interpolation: str = "bilinear",
    max_bad: float = MAX_BAD,
    leave_out: bool = True,
    threads: int | None = None,
) -> Iterator[tuple[UInt8[NumpyArray, "b h w c"], Int[NumpyArray, "b"]]]:
    """One pass over a split in order, for sets that do not fit in memory or differ in size.

    The next batch is decoded while the caller works on the one before.

    Args:
      examples: the split.
      batch_size: images in a batch; the last one, and one that leaves images out, hold fewer.
      image_size: shorter side in pixels, then centre crop; needed where sizes differ.
      interpolation: kernel by which images are brought to that size (`pixels.resize`).
      max_bad: share of unreadable images tolerated.
      leave_out: unreadable images; if not, they are black and without label, so that row i of the
        whole pass is example i.
      threads: how many decode at once; None for one per core.

    Yields:
      [b, h, w, c] uint8 and [b] int32.

    Raises:
      UserError: sizes differ and no `image_size` is given; too many unreadable images.
    """
    if image_size is not None:
        examples = Resized(examples, image_size, interpolation)
    shape = examples.shape or _first_shape(examples)
    bad = BadImages(examples, max_bad)

    def picture(i: int) -> tuple[NumpyArray, int] | None:
        try:
            return examples.picture(i)
        except Unreadable:
            return None

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        waiting: list[tuple[int, list[Future[tuple[NumpyArray, int] | None]]]] = []
        for start in range(0, len(examples) + batch_size, batch_size):
            rows = range(start, min(start + batch_size, len(examples)))
            waiting.append((start, [pool.submit(picture, i) for i in rows]))
            if len(waiting) < 2:
                continue
            first, futures = waiting.pop(0)
            found = [future.result() for future in futures]
            missing = [first + place for place, one in enumerate(found) if one is None]
            if missing:
                bad.add(np.array(missing))
            if not leave_out:
                found = [(np.zeros(shape, np.uint8), -1) if one is None else one for one in found]
            whole = [one for one in found if one is not None]
            for pixels, _ in whole:
                if pixels.shape != shape:
                    raise UserError(
                        f"{examples.title} holds images of {_size(pixels.shape)} and "
                        f"{_size(shape)}; give image_size={min(shape[:2])} to make them alike"
                    )
            if whole:
                yield (
                    np.stack([pixels for pixels, _ in whole]),
                    np.array([label for _, label in whole], np.int32),
                )


def _first_shape(examples: Examples) -> tuple[int, int, int]:
    """The shape of the first image that can be read."""
    for i in range(len(examples)):
        try:
            h, w, c = examples.image(i).shape
        except Unreadable:
            continue
        return h, w, c
    first = f" (first: {name_and_reason(examples, 0)})" if len(examples) else ""
    raise UserError(f"{examples.title}: none of the {len(examples)} images can be decoded{first}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
