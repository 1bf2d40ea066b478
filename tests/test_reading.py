"""What every reader of files from elsewhere shares: limits, forms, and one line for a failure."""

import gzip
import json
import os
import zipfile
from typing import TypedDict

import numpy as np
import pytest
from tiny_text import tiny_tokenizer, tiny_weights

from jaxcl import UserError, reading, tables
from jaxcl.reading import check_form, check_sizes, inside, read_json
from jaxcl.tables import read_lines
from jaxcl.tokens import prepared, tokenizer_files
from jaxcl.weights import (
    load_encoder,
    read_bert,
    read_sentence_weights,
    read_tensors,
    write_sentence_weights,
    write_tensors,
)

W = {"w": np.arange(4, dtype=np.float32)}


class PanicException(BaseException):
    """What pyo3 raises where Rust code panics has this name and this base."""


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (KeyError("x"), r"^X cannot be read \(KeyError: 'x'\)$"),
        (ValueError("one\ntwo"), r"^X cannot be read \(ValueError: one\)$"),
        (PanicException("index out of range"), r"PanicException: index out of range"),
        (MemoryError(), "it needs more memory than there is"),
        (RecursionError("maximum"), "it is nested too deeply"),
        (OSError(13, "Permission denied"), r"\(Permission denied\)"),
        (UserError("as it is"), "^as it is$"),
    ],
)
def test_any_failure_is_one_line(raised, words):
    with pytest.raises(UserError, match=words) as told, reading.reading("X"):
        raise raised
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_failure(raised):
    with pytest.raises(raised), reading.reading("X"):
        raise raised


@pytest.mark.parametrize("end", [".npz", ".pth", ".safetensors", ".txt", ".json"])
def test_pipes_and_devices_are_not_waited_for(end, tmp_path):
    pipe, device = tmp_path / f"pipe{end}", tmp_path / f"zero{end}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    read = {".txt": lambda file: list(read_lines(file)), ".json": read_json}.get(end, read_tensors)
    for file in (pipe, device):
        with pytest.raises(UserError, match="a pipe"):
            read(file)


class Form(TypedDict, total=False):
    a: int
    b: list[str]
    c: float | None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": "1"}, "value of key 'a' is not an instance of int"),
        ({"b": ["x", 2]}, "item 1 of value of key 'b' is not an instance of str"),
        ({"c": []}, "value of key 'c' did not match any"),
        ([], "list is not a dict|not a dict"),
    ],
)
def test_json_has_its_form(content, words, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"x.json: .*{words}"):
        read_json(tmp_path / "x.json", Form)
    assert check_form({"a": 1, "other": object()}, Form, "x")["a"] == 1


def test_json_that_is_too_deep_or_too_large(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"x.json cannot be read \(it is nested too deeply\)"):
        read_json(file)
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=r"x.json cannot be read \(UnicodeDecodeError"):
        read_json(file)
    monkeypatch.setattr(reading, "JSON_BYTES", 10)
    file.write_text(" " * 11)
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read_json(file)


@pytest.mark.parametrize("name", ["../w", "/etc/passwd", "a/../../w", "..\\w", "a\0b"])
def test_names_lead_out_of_no_folder(name, tmp_path):
    with pytest.raises(UserError, match="lies outside"):
        inside(tmp_path, name, "x.json")


def test_a_folder_of_sentence_transformers_reads_itself_alone(tmp_path):
    write_sentence_weights(tmp_path / "model", tiny_weights())
    (tmp_path / "model" / "1_Pooling").rename(tmp_path / "elsewhere")
    listing = tmp_path / "model" / "modules.json"
    modules = json.loads(listing.read_text())
    for path in ("../elsewhere", str(tmp_path / "elsewhere")):
        modules[1]["path"] = path
        listing.write_text(json.dumps(modules))
        with pytest.raises(UserError, match=r"modules.json names .*elsewhere.* outside"):
            read_sentence_weights(tmp_path / "model")


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_a_list_of_parts(kind, tmp_path):
    """Both libraries' names; parts outside, lists of lists and absent ones are refused."""
    stem, end = kind.split(".")
    index = tmp_path / f"{kind}.index.json"
    names = {"a": f"{stem}-1-of-2.{end}", "b": f"{stem}-2-of-2.{end}"}
    for name, file in names.items():
        write_tensors(tmp_path / file, {name: W["w"]})
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert read_tensors(tmp_path).keys() == {"a", "b"}
    write_tensors(tmp_path.parent / f"outside.{end}", W)
    for wrong, words in (
        (f"../outside.{end}", "no file of weights beside it"),
        (str(tmp_path.parent / f"outside.{end}"), "no file of weights beside it"),
        (index.name, "no file of weights beside it"),
        (f"absent.{end}", "which is not there; get it too"),
        (names["a"], f"lists b, which is not in {names['a']}"),
        (3, "is not an instance of str"),
    ):
        index.write_text(json.dumps({"weight_map": names | {"b": wrong}}))
        with pytest.raises(UserError, match=words):
            read_tensors(tmp_path)


def test_text_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "UNPACKED_TEXT", 1 << 16)
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"one\n" * (1 << 20)))
    with pytest.raises(UserError, match=r"x.txt.gz is no whole gzip file .* the limit is"):
        list(read_lines(tmp_path / "x.txt.gz"))
    monkeypatch.setattr(tables, "LINE", 100)
    (tmp_path / "x.txt").write_bytes(b"one\n" + b"x" * 101)
    with pytest.raises(UserError, match="line 2 is longer than the limit of 100"):
        list(read_lines(tmp_path / "x.txt"))


def test_a_zip_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "UNPACKED", 1 << 16)
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros(1 << 20))
    with pytest.raises(UserError, match=r"bytes unpack to 8,388,7\d\d or more; the limit is"):
        read_tensors(tmp_path / "w.npz")
    with zipfile.ZipFile(tmp_path / "z.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", b"x")
    with pytest.raises(UserError, match="a method beside deflate"):
        read_tensors(tmp_path / "z.npz")


def test_what_numpy_lacks_is_converted_or_refused(tmp_path):
    np.savez(tmp_path / "v.npz", w=np.zeros(2, "V2"))
    np.savez(tmp_path / "s.npz", w=np.array(["x"]))
    np.save(tmp_path / "one.npy", W["w"])
    for file, words in (
        ("v.npz", "w is of type .V2, as NumPy stores types that it lacks"),
        ("s.npz", "w is of type <U1, which is no number"),
        ("one.npy", "one array without a name"),
    ):
        with pytest.raises(UserError, match=words):
            read_tensors(tmp_path / file)
    numbers = {"F8_E4M3": b"\x38\x40\x46", "F8_E5M2": b"\x3c\x40\x43"}  # 1, 2, 3.5 in both
    for kind, content in numbers.items():
        header = json.dumps({"w": {"dtype": kind, "shape": [3], "data_offsets": [0, 3]}}).encode()
        file = tmp_path / "w.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + content)
        found = read_tensors(file)["w"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [1.0, 2.0, 3.5])


def test_a_config_is_held_against_the_tensors(tmp_path):
    tensors = {"a": np.zeros((3, 5)), "b": np.zeros(4)}
    check_sizes({"num_layers": 2, "hidden_size": 5}, tensors, "c.json")
    for sizes in ({"num_layers": 3}, {"hidden_size": 10**9}, {"num_layers": -1}):
        (key, size), *_ = sizes.items()
        with pytest.raises(UserError, match=f"c.json: {key}={size}, but the file holds 2 tensors"):
            check_sizes(sizes, tensors, "c.json")
    write_sentence_weights(tmp_path, tiny_weights())
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"num_hidden_layers": 10**6}, "num_hidden_layers=1000000, but the file holds"),
        ({"hidden_size": 10**9}, "hidden_size=1000000000, but"),
        ({"vocab_size": "30"}, "value of key 'vocab_size' is not an instance of int"),
        ({"num_attention_heads": 0}, "cannot be read|heads"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=words):
            read_bert(tmp_path)


def test_a_network_of_too_many_blocks_is_not_built(tmp_path):
    tensors = {
        "patch_embed.proj.weight": np.zeros((64, 3, 4, 4)), "pos_embed": np.zeros((1, 5, 64)),
        "cls_token": np.zeros((1, 1, 64)), "blocks.0.attn.qkv.weight": np.zeros((192, 64)),
        "blocks.0.mlp.fc1.weight": np.zeros((256, 64)), "blocks.999999999.ls1.gamma": np.zeros(64),
    }  # fmt: skip
    write_tensors(tmp_path / "w.npz", tensors)
    with pytest.raises(UserError, match="layers=1000000000, but the file holds 6 tensors"):
        load_encoder(tmp_path / "w.npz")


def test_tokenizers(tmp_path):
    for content in (b"", b"{}", b"[" * 10_000, b'{"model": 3}', b"\xff" * 100):
        with pytest.raises(UserError, match=r"X is no tokenizer \("):
            prepared(content, 8, name="X")
    with pytest.raises(UserError, match=r"X is no tokenizer \("):
        prepared(tiny_tokenizer()["tokenizer.json"], -1, name="X")
    os.mkfifo(tmp_path / "tokenizer.json")
    assert tokenizer_files(tmp_path) == {}
