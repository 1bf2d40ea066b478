"""Files as people write them: encodings, line ends, quotes, long fields, and what is refused."""

import gzip
import re
from pathlib import Path

import pytest

from jaxcl.errors import UserError
from jaxcl.tables import chosen_column, read_column, read_lines, read_rows

ROWS = [("5", "Ein Kätzchen", "b"), ("1.5", "c, d", "e")]


def table(kind: str) -> str:
    """The rows as a table, written by hand."""
    return {
        "comma.csv": 'score,one,two\n5,Ein Kätzchen,b\n1.5,"c, d",e\n',
        "excel.csv": "score;one;two\r\n5;Ein Kätzchen;b\r\n1.5;c, d;e\r\n",
        "tabs.csv": "score\tone\ttwo\n5\tEin Kätzchen\tb\n1.5\tc, d\te\n",
        "tabs.tsv": "score\tone\ttwo\textra\n5\tEin Kätzchen\tb\tx\n\n1.5\tc, d\te\ty\n",
        "mac.tsv": "score\tone\ttwo\r5\tEin Kätzchen\tb\r1.5\tc, d\te\r",
        "objects.jsonl": '{"score": 5, "one": "Ein K\\u00e4tzchen", "two": "b"}\n'
        '\n{"two": "e", "score": 1.5, "one": "c, d", "more": null}\n',
    }[kind]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "kind", ["comma.csv", "excel.csv", "tabs.csv", "tabs.tsv", "mac.tsv", "objects.jsonl"]
)
def test_tables_read_alike(tmp_path: Path, kind: str, encoding: str) -> None:
    content = table(kind).encode(encoding)
    plain, packed = tmp_path / kind, tmp_path / f"{kind}.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content, mtime=0))
    for file in (plain, packed):
        found = [tuple(row) for _, row in read_rows(file, ("score", "one", "two"))]
        assert found == ROWS


def test_lines_have_numbers_and_fields_may_be_long(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f'text,n\n"two\nlines",1\n{"x" * 200_000},2\n')
    rows = list(read_rows(file, ("n", "text")))
    assert rows[0] == (3, ["1", "two\nlines"])
    assert len(rows[1][1][1]) == 200_000
    (tmp_path / "a.txt").write_bytes(b"one\r\n\n two ")
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "one"), (2, ""), (3, "two")]


def test_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\n"so\nit "goes"\n')
    assert [text for _, text in read_column(tmp_path / "a.tsv", "text")] == ['"so', 'it "goes"']


def test_a_column_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n7, A cat. \n")
    (tmp_path / "one.csv").write_text("whatever\nA dog.\n")
    file = tmp_path / "a.csv"
    assert list(read_column(file, "text")) == [(2, "A cat.")]
    assert chosen_column(file, "", ("sentence", "text")) == "text"
    assert chosen_column(file, "id", ("text",)) == "id"
    assert chosen_column(tmp_path / "one.csv", "", ("text",)) == "whatever"
    with pytest.raises(UserError, match=r"a\.csv has the columns id, text; choose one: --c id"):
        chosen_column(file, "", ("sentence",), option="--c")
    with pytest.raises(UserError, match=r"has the columns id, text; call one name$"):
        chosen_column(file, "", ("name",))
    assert chosen_column(tmp_path / "a.txt", "", ("text",)) == ""
    with pytest.raises(UserError, match=r"^--c=id, but .*a\.txt is no table \(\.csv, \.tsv"):
        chosen_column(tmp_path / "a.txt", "id", (), option="--c")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"ok\ncaf\xe9\n", "a.txt, line 2 is not UTF-8 .* -f WINDOWS-1252 -t UTF-8 a.txt"),
        ("a.csv", b"text\ncaf\xe9\n", "a.csv, line 2 is not UTF-8"),
        ("a.txt", "ab\n".encode("utf-16-le"), "a.txt is no text: it holds zero bytes; .*UTF-16LE"),
        ("a.txt", b"\xff\xfea\0b", "a.txt is no whole text in its encoding .*truncated"),
        ("a.txt.gz", b"plain", "a.txt.gz is no whole gzip file"),
        ("a.txt", gzip.compress(b"one\n" * 99, mtime=0)[:-12], "a.txt is no whole gzip file"),
        ("a.csv", b"text\n\"open\n", "a.csv, line 2: unexpected end of data; mend"),
        ("a.csv", b"text,n\nab,1,2\n", "a.csv, line 2 has 3 fields and the header has 2; mend"),
        ("a.tsv", b"text\tn\nab\n", "a.tsv, line 2 has 1 fields and the header has 2; mend"),
        ("a.tsv", b"text\ttext\nab\tc\n", "a.tsv has the column text twice; rename"),
        ("a.tsv", b"one\tn\nab\tc\n", "a.tsv has no column text; it has one, n$"),
        ("a.jsonl", b'{"text": "a"}\n{"b": 1}\n', "a.jsonl, line 2 has no column text; it has b$"),
        ("a.jsonl", b'{"text": "a"\n', "a.jsonl, line 1 is no JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl, line 1 is no JSON .*surrogates"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1 is no JSON object such as"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is no JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        list(read_column(tmp_path / name, "text" if ".txt" not in name else ""))


def test_files_without_rows_and_without_rights(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UserError, match=r"a\.csv holds no row; give a table with a header and"):
        chosen_column(tmp_path / "a.csv", "", ("text",))
    (tmp_path / "c.tsv").write_text("one\tn\n")
    with pytest.raises(UserError, match=r"c\.tsv has no column text; it has one, n"):
        list(read_rows(tmp_path / "c.tsv", ("text",)))
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(UserError, match=re.escape("b.csv cannot be read (Is a directory)")):
        list(read_rows(tmp_path / "b.csv", ("text",)))
