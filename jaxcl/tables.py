"""Text files, lists and tables as people write them, through one reader.

    list(read_lines(Path("names.txt")))                        # lines of text, with their numbers
    list(read_rows(Path("pairs.tsv"), ("score", "sentence1")))  # columns of a table, by name
    list(read_column(Path("quotes.csv"), "text"))              # one column

Files are UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one, and may be packed
with gzip. Tables have a header: .csv with commas, semicolons, tabs or bars between fields, which
may be quoted; .tsv with tabs and no quotes; .jsonl with an object a line.
"""

import codecs
import csv
import json
from collections.abc import Iterator, Sequence
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcl.errors import UserError
from jaxcl.reading import LINE, text_stream

if TYPE_CHECKING:
    import _csv

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of tables; `.gz` may follow."""
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = (",", ";", "\t", "|")

csv.field_size_limit(max(LINE, csv.field_size_limit()))


def is_table(file: Path) -> bool:
    """True for a file that has columns, by its ending."""
    return _ending(file) in TABLES


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, without line ends and outer blanks.

    Raises:
      UserError: the file cannot be read, or is no text in one of the encodings above.
    """
    for number, line in enumerate(_raw_lines(file), 1):
        yield number, line.strip()


def chosen_column(file: Path, column: str, usual: Sequence[str], option: str = "") -> str:
    """The name of the column that is meant: the one given, a usual one, or the only one.

    Args:
      file: a table or another text file.
      column: the name that was given, or empty.
      usual: names that such a column usually has, the preferred ones first.
      option: what sets `column`, for messages; empty where nothing does.

    Returns:
      empty for a file that is no table.

    Raises:
      UserError: no column is named and several are there, or a column is named and the file is no
        table.
    """
    if not is_table(file):
        if column:
            raise UserError(f"{option}={column}, but {file} is no table ({', '.join(TABLES)})")
        return ""
    if column:
        return column
    names = _columns(file)
    known = [name for name in usual if name in names] or (names if len(names) == 1 else [])
    if not known:
        fix = f"choose one: {option} {names[0]}" if option else f"call one {usual[0]}"
        raise UserError(f"{file} has the columns {', '.join(names)}; {fix}")
    return known[0]


def read_column(file: Path, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a table's column, or the lines of a file that is no table, with line numbers.

    Raises:
      UserError: as `read_rows` and `read_lines`.
    """
    if not is_table(file):
        yield from read_lines(file)
        return
    for number, (text,) in read_rows(file, (column,)):
        yield number, text.strip()


def read_rows(file: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The wanted columns of every row of a table, with the number of the row's line.

    Args:
      file: a table; an ending other than those of `TABLES` is read like .tsv.
      wanted: names of columns. A JSON null is an empty text.

    Raises:
      UserError: the file cannot be read, a column is missing, or a row does not fit the header.
    """
    if _is_json(file):
        for number, row in _json_rows(file):
            _check_columns(f"{file}, line {number}", wanted, list(row))
            yield number, [row[name] for name in wanted]
        return
    names, reader = _header_and_rows(file)
    _check_columns(f"{file}", wanted, names)
    places = [names.index(name) for name in wanted]
    try:
        for fields in reader:
            if fields and (len(fields) < len(names) or any(fields[len(names) :])):
                raise UserError(
                    f"{file}, line {reader.line_num} has {len(fields)} fields and the header has "
                    f"{len(names)}; mend or remove the line"
                )
            if fields:
                yield reader.line_num, [fields[place] for place in places]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; mend the line") from error


def _check_columns(where: str, wanted: Sequence[str], names: list[str]) -> None:
    if absent := [name for name in wanted if name not in names]:
        has = f"; it has {', '.join(names)}" if names else ""
        raise UserError(f"{where} has no column {', '.join(absent)}{has}")


def _columns(file: Path) -> list[str]:
    names = (
        list(next(_json_rows(file), (0, {}))[1]) if _is_json(file) else _header_and_rows(file)[0]
    )
    if not names:
        raise UserError(f"{file} holds no row; give a table with a header and rows")
    return names


def _header_and_rows(file: Path) -> "tuple[list[str], _csv.Reader]":
    """The names of the columns, and what reads the rows below them."""
    lines = _raw_lines(file)
    head = next(lines, "")
    comma = _ending(file) == ".csv"
    reader = csv.reader(
        chain([head], lines),
        delimiter=max(_DELIMITERS, key=head.count) if comma else "\t",
        quoting=csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE,
        strict=comma,
    )
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; mend the line") from error
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{file} has the column {min(twice)} twice; rename one of them")
    return names, reader


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Objects, one a line, with their values as text."""
    for number, line in read_lines(file):
        if not line:
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # half of a pair of surrogates is no character
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}, line {number} is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f'{file}, line {number} is no JSON object such as {{"text": "A cat."}}')
        yield number, {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _raw_lines(file: Path) -> Iterator[str]:
    """The lines of a text file with their ends."""
    with text_stream(file) as content:
        head = content.peek(1)
        marks = [name for mark, name in _MARKS.items() if head.startswith(mark)]
        if marks or (b"\r" in head and b"\n" not in head):
            text = TextIOWrapper(content, marks[0] if marks else "utf-8-sig", newline="")
            try:
                for number, line in enumerate(iter(partial(text.readline, LINE + 1), ""), 1):
                    _check_length(len(line), file, number)
                    yield line
            except UnicodeError as error:
                raise UserError(f"{file} is no whole text in its encoding ({error})") from error
            return
        if b"\0" in head:
            raise UserError(
                f"{file} is no text: it holds zero bytes; if it is UTF-16 without a byte order "
                f"mark, convert it: iconv -f UTF-16LE -t UTF-8 {file.name} > NEW.txt"
            )
        for number, raw in enumerate(iter(partial(content.readline, LINE + 1), b""), 1):
            _check_length(len(raw), file, number)
            yield _decoded(raw, file, number)


def _check_length(length: int, file: Path, number: int) -> None:
    if length > LINE:
        raise UserError(f"{file}, line {number} is longer than the limit of {LINE:,}")


def _decoded(line: bytes, file: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, line {number} is not UTF-8 ({error.reason}); mend or remove it, or convert "
            f"the file, from Windows-1252 say: iconv -f WINDOWS-1252 -t UTF-8 {file.name} > NEW"
        ) from error


def _is_json(file: Path) -> bool:
    return _ending(file) in (".jsonl", ".ndjson")


def _ending(file: Path) -> str:
    """The ending in lower case, the one in front of .gz if that is the last."""
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix
