"""Sentences from text files: one a line, tokenised once, padded batch by batch.

A batch is padded to the shortest of few lengths that holds its longest sentence. Which sentences
it holds follows from seed and step, so its length does too, and each length is compiled once.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tokenizers import Tokenizer

from jaxcl.data.examples import SplitName
from jaxcl.data.fingerprint import fingerprint
from jaxcl.data.listing import counted, ending_kind, is_hidden, named
from jaxcl.data.order import batch_indices, steps_per_epoch
from jaxcl.data.section import Arrays, Feed, Section
from jaxcl.errors import UserError
from jaxcl.options import short
from jaxcl.reading import entries
from jaxcl.tables import chosen_column, read_column
from jaxcl.tokens import (
    best_batch_tokens,
    padded,
    padded_length,
    prepared,
    sorted_batches,
    token_ids,
    tokenizer_files,
)
from jaxcl.typing import Array, Int, NumpyArray, PyTree

ENDINGS = (".txt", ".txt.gz")
COLUMNS = ("sentence", "text", "sentence1")
"""Usual names of a table's column of sentences, in the order in which they are looked for."""
TOKENIZER = "tokenizer"
"""Folder in a run's directory."""


@dataclass(frozen=True)
class Text(Section):
    """Sentences that are trained on, and how they come to the device."""

    unit: ClassVar[str] = "sentences"

    lines: Annotated[str, short("--data")] = ""
    """Sentences: text with one a line, a folder of .txt and .txt.gz files of such lines, or a .csv,
    .tsv or .jsonl table."""
    tokenizer: str = ""
    """tokenizer.json of the tokenizers library, or a folder that holds it, a model's say."""
    batch_size: int = 64
    """Sentences in the global batch, over all devices."""
    max_length: int = 32
    """Tokens of a sentence in training, special ones included; longer ones lose their end."""
    lengths: tuple[int, ...] = (16, 24)
    """Lengths that batches are padded to, besides max_length; each is compiled once."""
    column: str = ""
    """Column of a table that holds the sentences; empty: sentence, text or sentence1, whichever is
    there first, or the only column."""

    def split(self, name: SplitName) -> "Sentences":
        if name == "test":
            raise UserError(
                f"data.lines={self.lines} has no test split; measure STS instead: probe=STS(FOLDER)"
            )
        tokenizer = self._tokenizer(None)
        left = Counter[str]()
        files = text_files(self.lines, left)
        column = chosen_column(files[0], self.column, COLUMNS, "--data.column")
        sentences = (text for file in files for text in read_sentences(file, column, left))
        tokens = list(token_ids(tokenizer, sentences))
        if not tokens:
            raise UserError(f"data.lines={self.lines} holds no sentence; give one a line")
        train = Sentences(Path(self.lines).name, tokens, tokenizer)
        if column:
            train.about["train set"] = f"column {column} of {files[0].name}"
        elif files != [Path(self.lines)]:
            train.about["train set"] = f"{len(files)} files: {named([f.name for f in files])}"
        if words := counted(left):
            train.about["left out"] = words
        return train

    def open(self, train: "Sentences", method: Any, *, seed: int, mesh: Mesh) -> Feed:
        steps_per_epoch(len(train), self.batch_size, self.unit)
        self.check(mesh.size)
        _check_encoder(self, train, method.encoder)
        return TextFeed(self, train, seed=seed, mesh=mesh)

    def passes(
        self, split: "Sentences", method: Any, rows: Int[NumpyArray, "m"] | None = None
    ) -> Iterator[tuple[Arrays, Int[NumpyArray, "b"]]]:
        size = max(1, best_batch_tokens() // self.max_length)
        order = np.arange(len(split)) if rows is None else rows
        for start in range(0, len(order), size):
            part = [split.tokens(int(i)) for i in order[start : start + size]]
            length = padded_length(max(map(len, part)), self.max_length)
            ids, lengths = padded(part, size, length)
            yield {"ids": ids, "lengths": lengths}, np.full(len(part), -1, np.int32)

    def batches(
        self, inputs: Any, method: Any, like: Arrays, home: Path | None
    ) -> Iterator[tuple[Int[NumpyArray, "b"], Arrays]]:
        """Sentences as long as the encoder has positions for; only longer ones lose their end."""
        if isinstance(inputs, str) or not all(isinstance(text, str) for text in inputs):
            raise UserError("sentences is no list of strings; give one, such as ['A cat.']")
        if not len(inputs):
            raise UserError("sentences is empty; give at least one string")
        longest = _positions(method.encoder)
        tokenizer = self._tokenizer(home)
        tokenizer.enable_truncation(longest)
        tokens = list(token_ids(tokenizer, inputs))
        for rows, ids, lengths in sorted_batches(tokens, longest, best_batch_tokens()):
            yield rows, {"ids": ids, "lengths": lengths}

    def keep(self, home: Path) -> None:
        """Copies the tokenizer, so that the run can be used without the folder it came from."""
        (home / TOKENIZER).mkdir(exist_ok=True)
        for name, content in tokenizer_files(Path(self.tokenizer)).items():
            (home / TOKENIZER / name).write_bytes(content)

    def check(self, devices: int) -> None:
        super().check(devices)
        if self.max_length < 3:
            raise UserError(f"data.max_length={self.max_length} leaves no word; use 3 or more")
        if any(length < 1 for length in self.lengths):
            raise UserError(f"data.lengths={self.lengths} holds no lengths; use numbers above 0")

    def _tokenizer(self, home: Path | None) -> Tokenizer:
        place = str(home / TOKENIZER) if home else self.tokenizer
        files = tokenizer_files(Path(place)) if place else {}
        if "tokenizer.json" not in files:
            raise UserError(
                f"data.tokenizer={place} holds no tokenizer.json; give the folder of a model of "
                "transformers or sentence-transformers that has one"
            )
        name = f"data.tokenizer={place}"
        return prepared(files["tokenizer.json"], self.max_length, name=name)


class Sentences:
    """Tokenised sentences 0 .. n-1, in the order of their files."""

    classes: tuple[str, ...] = ()

    def __init__(
        self, title: str, tokens: list[Int[NumpyArray, "t"]], tokenizer: Tokenizer
    ) -> None:
        self.title, self.tokenizer = title, tokenizer
        self.about: dict[str, str] = {}
        self.lengths = np.array([len(one) for one in tokens], np.int32)
        self._ends = np.cumsum(self.lengths, dtype=np.int64)
        self._flat = np.concatenate(tokens)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        return np.full(len(self), -1, np.int32)

    def fingerprint(self) -> str:
        """A word that changes with the tokens, so with the sentences and with the tokenizer."""
        return fingerprint(len(self), self._flat, self.lengths)

    def tokens(self, i: int) -> Int[NumpyArray, "t"]:
        """Ids of sentence i, special tokens among them, int32."""
        return self._flat[self._ends[i] - self.lengths[i] : self._ends[i]]


class TextFeed:
    """Pads a batch when it is asked for, which takes less than the step before it."""

    road = "streamed"

    def __init__(self, data: Text, sentences: Sentences, *, seed: int, mesh: Mesh) -> None:
        self.steps_per_epoch = steps_per_epoch(len(sentences), data.batch_size, data.unit)
        self._data, self._sentences, self._seed = data, sentences, seed
        self._lengths = tuple(sorted(data.lengths))
        self._sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    @property
    def constants(self) -> PyTree:
        """Nothing stays on the device."""
        return ()

    def inputs(self, step: int, count: int) -> PyTree:
        """The batch of one step with a leading axis [1]; lengths differ, so no more at once."""
        assert count == 1
        size, longest = self._data.batch_size, self._data.max_length
        index = batch_indices(self._seed, step, len(self._sentences), size)
        rows = [self._sentences.tokens(int(i)) for i in index]
        length = padded_length(max(map(len, rows)), longest, self._lengths)
        ids, lengths = padded(rows, size, length)
        label = np.full(size, -1, np.int32)
        fields = {"ids": ids, "lengths": lengths, "label": label, "index": index}
        return jax.tree.map(lambda values: self._put(values[None]), fields)

    def batch(self, constants: PyTree, one: PyTree) -> dict[str, Any]:
        """The batch as it came."""
        return dict(one)

    def report(self) -> dict[str, int | str | None]:
        """A line that cannot be read ends the run before it begins."""
        return {"unreadable": 0, "first_unreadable": None, "notice": None}

    def close(self) -> None:
        """Nothing runs in the background."""

    def _put(self, values: NumpyArray) -> Array:
        sent: Array = jax.make_array_from_callback(
            values.shape, self._sharding, lambda place: values[place]
        )
        return sent


def text_files(place: str, left: Counter[str]) -> list[Path]:
    """The text file or table at a place, or a folder's text files in alphabetical order.

    Args:
      place: a text file, a table, or a folder of .txt and .txt.gz files.
      left: counts the other entries of the folder, by their ending.

    Raises:
      UserError: there is no such file.
    """
    path = Path(place)
    files = [path] if place else []
    if place and path.is_dir():
        files = []
        for entry in entries(path):
            if is_hidden(entry.name):
                left["hidden"] += 1
            elif entry.is_dir():
                left["folders"] += 1
            elif entry.name.lower().endswith(ENDINGS):
                files.append(entry)
            else:
                left[ending_kind(entry.name)] += 1
    if not files or not all(file.is_file() for file in files):
        there = f"; it holds {words}" if (words := counted(left)) else ""
        raise UserError(
            f"data.lines={place} is no text file and no folder of {' or '.join(ENDINGS)} files"
            f"{there}; give one with --data"
        )
    if path.suffix.lower() == ".json":
        raise UserError(
            f"data.lines={place} is a JSON document; give a .jsonl file, with an object such as "
            '{"text": "A cat."} a line'
        )
    return files


def read_sentences(file: Path, column: str, left: Counter[str]) -> Iterator[str]:
    """The lines of a text file, or the texts in a column of a table; blank ones are counted."""
    for _, text in read_column(file, column):
        if text:
            yield text
        else:
            left["blank lines"] += 1


def _positions(encoder: Any) -> int:
    longest: int = encoder.max_positions - encoder.position_offset
    return longest


def _check_encoder(data: Text, train: Sentences, encoder: Any) -> None:
    """Raises `UserError` where the encoder has no row for a token or a position."""
    if data.max_length > _positions(encoder):
        raise UserError(
            f"data.max_length={data.max_length} is more than method.encoder has positions for; "
            f"use {_positions(encoder)}"
        )
    words = train.tokenizer.get_vocab_size()
    if words > encoder.vocab_size:
        raise UserError(
            f"method.encoder.vocab_size={encoder.vocab_size}, but the tokenizer has {words} "
            f"tokens; use {words}"
        )
