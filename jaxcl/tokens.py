"""Strings to arrays of token ids: a tokenizer's file, lengths that few programs serve, batches."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer, normalizers

from jaxcl.errors import UserError
from jaxcl.reading import JSON_BYTES, open_regular, reading
from jaxcl.typing import Int, NumpyArray

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
"""What a tokenizer may consist of; the first is the one that is used here."""
LENGTHS = (*range(8, 32, 4), *range(32, 64, 8), *range(64, 128, 16), *range(128, 512, 64))
"""Lengths that sentences are padded to, besides the longest: at most a quarter is padding from 16
tokens on, about a twentieth on average."""
AT_ONCE = 8192
"""Strings that the tokenizer is given at once."""


class Batch(NamedTuple):
    """Sentences of about the same length, in one array."""

    rows: Int[NumpyArray, "m"]
    """Places of the sentences; the array's remaining rows are padding."""
    ids: Int[NumpyArray, "n t"]
    lengths: Int[NumpyArray, "n"]


def tokenizer_files(place: Path) -> dict[str, bytes]:
    """The files of a tokenizer in a folder, by name; or one tokenizer.json under any name.

    Raises:
      UserError: one of them cannot be read.
    """
    if place.is_file():
        return {FILES[0]: _content(place)}
    files = {name: place / name for name in FILES}
    return {name: _content(file) for name, file in files.items() if file.is_file()}


def _content(file: Path) -> bytes:
    with reading(file), open_regular(file) as opened:
        content = opened.read(JSON_BYTES + 1)
        if len(content) > JSON_BYTES:
            raise UserError(f"{file} is larger than the limit of {JSON_BYTES:,} bytes")
        return content


def best_batch_tokens() -> int:
    """Tokens in a batch for inference: 512 on CPU, whose caches hold that, 16,384 elsewhere."""
    return 512 if jax.default_backend() == "cpu" else 16_384


def prepared(
    file: bytes, max_length: int, *, lower_case: bool = False, name: str = "tokenizer.json"
) -> Tokenizer:
    """The tokenizer of a tokenizer.json; it cuts at `max_length` and pads nothing, whatever the
    file says.

    Args:
      file: the content of the tokenizer.json.
      max_length: tokens of the longest sentence, special ones included.
      lower_case: make texts lower case first.
      name: what messages call the file.

    Raises:
      UserError: the file holds no tokenizer.
    """
    with reading(name, "tokenizer"):
        tokenizer = Tokenizer.from_buffer(file)
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        if lower_case:
            own = [tokenizer.normalizer] if tokenizer.normalizer else []
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Int[NumpyArray, "t"]]:
    """Ids of each string, special tokens among them.

    Raises:
      UserError: the tokenizer fails on a text; some files make its library panic only then.
    """
    waiting = iter(texts)
    while chunk := list(islice(waiting, AT_ONCE)):
        with reading("the text, by its tokenizer,"):
            encoded = tokenizer.encode_batch_fast(chunk)
        for one in encoded:
            yield np.array(one.ids, np.int32)


def padded_length(length: int, longest: int, lengths: Sequence[int] = LENGTHS) -> int:
    """The next of `lengths`, at most `longest`."""
    return next((n for n in lengths if length <= n < longest), longest)


def padded(
    tokens: Sequence[Int[NumpyArray, "t"]], size: int, length: int, pad_id: int = 0
) -> tuple[Int[NumpyArray, "n t"], Int[NumpyArray, "n"]]:
    """Ids [size, length] and the tokens in each row, none in the rows left over."""
    ids = np.full((size, length), pad_id, np.int32)
    lengths = np.zeros(size, np.int32)
    for place, row in enumerate(tokens):
        lengths[place] = len(row)
        ids[place, : len(row)] = row
    return ids, lengths


def sorted_batches(
    tokens: Sequence[Int[NumpyArray, "t"]], longest: int, batch_tokens: int, pad_id: int = 0
) -> Iterator[Batch]:
    """Batches from the longest sentence to the shortest; only the last one is not full.

    Args:
      tokens: of each sentence.
      longest: length that the longest are padded to.
      batch_tokens: tokens in a batch, with padding.
      pad_id: what is behind the tokens.
    """
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]), reverse=True)
    while order:
        length = padded_length(len(tokens[order[0]]), longest)
        full = max(1, batch_tokens // length)
        rows, order = order[:full], order[full:]
        size = full if len(rows) == full else min(full, 1 << (len(rows) - 1).bit_length())
        yield Batch(np.array(rows), *padded([tokens[i] for i in rows], size, length, pad_id))
