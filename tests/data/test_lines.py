"""Sentences from files: order, lengths, what is cut, and what cannot be read."""

import gzip
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_lines import BATCH, ENCODER, HOME, LINES, METHOD, experiment

from jaxcl import UserError
from jaxcl.data.lines import read_sentences, text_files
from jaxcl.data.order import batch_indices
from jaxcl.methods import SimCSE

TEXT = experiment.data
WORDS = {letter: i + 5 for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}


def sentences(place, column=""):
    left = Counter()
    return [text for file in text_files(str(place), left)
            for text in read_sentences(file, column, left)]  # fmt: skip


def by_hand(line, longest):
    """[CLS] words [SEP], cut in front of the last."""
    return [2, *[WORDS[word] for word in line.split()][: longest - 2], 3]


def feed(mesh, text=TEXT, seed=0, devices=1):
    return text.open(text.split("train"), METHOD, seed=seed, mesh=mesh(devices))


def test_batches_follow_from_seed_and_step(mesh):
    """Asked in any order, of two feeds: the lines of `batch_indices`, each cut and padded."""
    lines = (HOME / "lines.txt").read_text().splitlines()
    one, two = feed(mesh), feed(mesh)
    assert one.steps_per_epoch == LINES // BATCH
    for step in (3, 0, 5):
        batch = jax.tree.map(lambda x: np.asarray(x[0]), one.inputs(step, 1))
        index = batch_indices(0, step, LINES, BATCH)
        expected = [by_hand(lines[i], 12) for i in index]
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["lengths"], [len(row) for row in expected])
        for row, wanted in zip(batch["ids"], expected, strict=True):
            assert row[: len(wanted)].tolist() == wanted
            assert (row[len(wanted) :] == 0).all()
        again = two.inputs(step, 1)
        jax.tree.map(np.testing.assert_array_equal, batch, {n: v[0] for n, v in again.items()})
    assert set(one.batch((), one.inputs(0, 1))) == {"ids", "lengths", "label", "index"}


def test_a_batch_has_the_shortest_length_that_holds_it(mesh, tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"{'a ' * n}\n" for n in (1, 1, 2, 3, 4, 6, 9, 30)))
    text = replace(TEXT, lines=str(tmp_path / "a.txt"), batch_size=1, lengths=(6, 4))
    made = feed(mesh, text)
    for step in range(8):
        inputs = made.inputs(step, 1)
        longest = int(np.asarray(inputs["lengths"]).max())
        assert inputs["ids"].shape[2] == min(n for n in (4, 6, 12) if n >= longest)
        assert longest <= 12


def test_each_device_holds_its_rows(mesh):
    ids = feed(mesh, devices=8).inputs(0, 1)["ids"]
    assert {shard.data.shape[:2] for shard in ids.addressable_shards} == {(1, 2)}
    np.testing.assert_array_equal(ids, feed(mesh).inputs(0, 1)["ids"])


def test_files_gzip_folders_blank_lines_and_marks(tmp_path):
    (tmp_path / "b.txt").write_bytes("\ufeffeins\r\n\n  \nzwei ü\n".encode())
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\ntwo")
    (tmp_path / "readme.md").write_text("no")
    assert sentences(tmp_path) == ["one", "two", "eins", "zwei ü"]
    assert sentences(tmp_path / "b.txt") == ["eins", "zwei ü"]


def test_tables_give_their_column_and_not_their_header(tmp_path):
    for name, content in [
        ("a.csv", 'text,n\n"one, two",1\nthree,2\n'),
        ("a.tsv", "sentence\tscore\none, two\t1\nthree\t2\n"),
        ("a.jsonl", '{"text": "one, two"}\n{"text": "three"}\n'),
    ]:
        (tmp_path / name).write_text(content)
        column = "sentence" if name == "a.tsv" else "text"
        assert sentences(tmp_path / name, column) == ["one, two", "three"]
    for column, used in (("", "text"), ("n", "n")):
        train = wrong(lines=str(tmp_path / "a.csv"), column=column, batch_size=1).split("train")
        assert (len(train), train.about) == (2, {"train set": f"column {used} of a.csv"})
    (tmp_path / "b.csv").write_text("sent0,sent1\na,b\n")
    with pytest.raises(UserError, match=r"has the columns sent0, sent1; .* --data.column sent0"):
        wrong(lines=str(tmp_path / "b.csv")).split("train")
    (tmp_path / "a.json").write_text('["one"]')
    with pytest.raises(UserError, match=r"a\.json is a JSON document; give a \.jsonl file"):
        wrong(lines=str(tmp_path / "a.json")).split("train")
    with pytest.raises(UserError, match=r"^--data.column=n, but .*lines\.txt is no table"):
        wrong(column="n").split("train")


def test_what_is_left_out_is_told(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("._a.txt", "b.csv", "c.csv", "readme.md"):
        (tmp_path / name).write_bytes(b"\0\xff")
    with pytest.raises(
        UserError, match=r"\.txt\.gz files; it holds 2 \.csv, 1 \.md, 1 folders, 1 hid"
    ):
        wrong(lines=str(tmp_path)).split("train")
    (tmp_path / "A.TXT").write_text("a b\n\n \nc\n")
    train = wrong(lines=str(tmp_path)).split("train")
    assert len(train) == 2
    assert train.about == {
        "train set": "1 files: A.TXT",
        "left out": "2 .csv, 2 blank lines, 1 .md, 1 folders, 1 hidden"
    }  # fmt: skip
    assert TEXT.split("train").about == {}


def test_a_pass_shows_every_sentence_in_order():
    train = TEXT.split("train")
    batches = [(batch, len(labels)) for batch, labels in TEXT.passes(train, METHOD)]
    rows = [row[:n] for batch, count in batches
            for row, n in zip(batch["ids"][:count], batch["lengths"], strict=False)]  # fmt: skip
    assert len(rows) == len(train) == LINES
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row, train.tokens(i))


def wrong(**changes):
    return replace(TEXT, **changes)


def encoder(**fields):
    return SimCSE(encoder=ENCODER.clone(**fields))


@pytest.mark.parametrize(
    ("text", "method", "devices", "words"),
    [
        (wrong(lines="none.txt"), METHOD, 1, r"data.lines=none.txt is no text file .* with --data"),
        (wrong(lines=""), METHOD, 1, r"data.lines= is no text file and no folder of .txt or"),
        (wrong(tokenizer="none"), METHOD, 1, r"data.tokenizer=none holds no tokenizer.json; give"),
        (wrong(tokenizer=""), METHOD, 1, r"data.tokenizer= holds no tokenizer.json"),
        (wrong(batch_size=64), METHOD, 1, r"batch_size=64 is more than the 40 training sentences"),
        (wrong(batch_size=9), METHOD, 2, r"data.batch_size=9 does not split over 2 devices"),
        (wrong(max_length=2), METHOD, 1, r"data.max_length=2 leaves no word; use 3 or more"),
        (wrong(lengths=(0,)), METHOD, 1, r"data.lengths=\(0,\) holds no lengths"),
        (TEXT, encoder(max_positions=9), 1, r"max_length=12 is more than .* has positions for.*9"),
        (
            TEXT,
            encoder(vocab_size=30),
            1,
            r"=30, but the tokenizer has 31 tokens; use 31",
        ),
    ],
)
def test_mistakes_are_told(mesh, text, method, devices, words):
    with pytest.raises(UserError, match=words):
        text.open(text.split("train"), method, seed=0, mesh=mesh(devices))


def test_files_that_hold_no_text(tmp_path):
    for name, content, words in [
        ("empty.txt", b"\n \n", r"empty.txt holds no sentence; give one a line"),
        ("latin.txt", b"good\ncaf\xe9\n", r"latin.txt, line 2 is not UTF-8 .*iconv"),
        (
            "cut.txt.gz",
            gzip.compress(b"one\n" * 99, mtime=0)[:-12],
            r"cut.txt.gz is no whole gzip file",
        ),
        ("none.txt.gz", b"plain", r"none.txt.gz is no whole gzip file"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words):
            wrong(lines=str(tmp_path / name)).split("train")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no tokenizer \("):
        wrong(tokenizer=str(tmp_path)).split("train")
    with pytest.raises(UserError, match=r"has no test split; measure STS instead: probe=STS"):
        TEXT.split("test")


@pytest.mark.parametrize(
    ("inputs", "words"), [("a b", "no list of strings"), ([], "is empty"), ([1], "no list of")]
)
def test_what_is_encoded_is_a_list_of_strings(inputs, words):
    with pytest.raises(UserError, match=words):
        next(TEXT.batches(inputs, METHOD, {}, None))
