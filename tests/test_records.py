"""Small files of a run: what is damaged is told, and read from its second copy."""

import errno
import json
import os
from pathlib import Path

import pytest

from jaxcl import UserError
from jaxcl.records import read_record, sealed, unsealed, write_record, write_whole

CONTENT = {"temperature": 0.5, "sizes": [1, 2], "name": "größe"}


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "config.json"
    write_record(path, CONTENT)
    return path


def damages(text):
    yield b""
    yield text[: len(text) // 2]
    yield b"\xff" + text[1:]
    yield b"[1, 2]"
    yield text.replace(b"0.5", b"0.6")
    yield text.replace(b"sha256", b"sha257")
    yield text.replace(b'"sha256": "', b'"sha256": "0')


def test_every_damage_is_told_and_repaired(record):
    whole = record.read_bytes()
    for damaged in damages(whole):
        told = []
        record.write_bytes(damaged)
        assert read_record(record, told.append) == CONTENT
        assert len(told) == 1
        assert "config.json is damaged" in told[0] and "\n" not in told[0]
        assert record.read_bytes() == whole
        assert record.with_name("config.json.damaged").read_bytes() == damaged
        assert read_record(record, told.append) == CONTENT
        assert len(told) == 1


def test_a_missing_record_is_repaired_and_a_damaged_copy_is_no_matter(record):
    whole, told = record.read_bytes(), []
    record.unlink()
    assert read_record(record, told.append) == CONTENT
    assert record.read_bytes() == whole and "it is missing" in told[0]
    (record.parent / ".copies" / record.name).write_bytes(b"{")
    assert read_record(record, told.append) == CONTENT
    assert len(told) == 1


def test_where_nothing_can_be_repaired_it_is_still_read(record, monkeypatch):
    record.write_bytes(b"{")
    told = []

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    assert read_record(record, told.append) == CONTENT
    assert told[0].endswith("its second copy is used")


def test_both_damaged_is_one_line(record):
    for path in (record, record.parent / ".copies" / record.name):
        path.write_bytes(b"{")
    with pytest.raises(UserError, match=r"config.json is damaged \(line 1.*no whole copy") as told:
        read_record(record)
    assert "\n" not in str(told.value)


def test_one_of_an_earlier_version_has_no_hash_and_no_copy(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONTENT))
    assert read_record(tmp_path / "config.json") == CONTENT
    assert unsealed(json.dumps(CONTENT).encode()) == CONTENT


def test_a_hash_belongs_to_its_content():
    assert unsealed(json.dumps(sealed(CONTENT)).encode()) == CONTENT
    with pytest.raises(ValueError, match="not as it was written"):
        unsealed(json.dumps({**sealed(CONTENT), "temperature": 0.6}).encode())


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (errno.ENOSPC, r"No space left on device\); free space there"),
        (errno.EROFS, r"Read-only file system\); make it writable"),
        (errno.EACCES, r"Permission denied\); make it writable"),
        (errno.EIO, r"Input/output error\)$"),
    ],
)
def test_a_disk_that_refuses_is_one_line_and_the_old_file_is_kept(
    tmp_path, monkeypatch, cause, words
):
    path = tmp_path / "report.html"
    write_whole(path, "old")

    def refuse(*_):
        raise OSError(cause, os.strerror(cause))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=rf"cannot write .*report.html \({words}"):
            write_whole(path, "new")
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path]
