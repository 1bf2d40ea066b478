"""Every reader of files from elsewhere, given small real files that were changed at random.

Whatever comes of a file, it is read, or refused with one `UserError`; nothing in it is run, and no
reader takes ten seconds. A few dozen inputs a reader, 200 in the extended part or JAXCL_INPUTS of
them (a twentieth where each is traced); the seed is printed, and JAXCL_SEED=NUMBER repeats it.
"""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import sys
import time
import zipfile
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tiny import experiment
from tiny_text import tiny_weights

from jaxcl import UserError
from jaxcl.data import Images
from jaxcl.data.examples import Unreadable
from jaxcl.data.pixels import decode
from jaxcl.evaluate.sts import read_pairs
from jaxcl.experiment import load_config, save_config
from jaxcl.tables import read_lines
from jaxcl.tokens import prepared, token_ids
from jaxcl.weights import (
    read_bert,
    read_sentence_weights,
    read_tensors,
    write_sentence_weights,
    write_tensors,
)

FIXTURES = Path(__file__).parents[1] / "weights" / "fixtures"
LONGEST = 10.0
SEED = int(os.environ.get("JAXCL_SEED", random.SystemRandom().randrange(1 << 32)))
INPUTS = int(os.environ.get("JAXCL_INPUTS", 200))
HARMFUL = ("os.system", "os.exec", "os.posix_spawn", "os.remove", "os.mkdir", "subprocess.Popen",
           "socket.connect", "shutil.rmtree", "pty.spawn")  # fmt: skip
CODES = [b"", b"\x00", b"\xff" * 4, b"-1", b"1e999", b"NaN", b"null", b"[[[[", b'{"a":', b"../",
         b"\x80\x04", b"R", b"b", b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x8a\x08" + b"\xff" * 8,
         b"\x7f" * 8, b"9" * 40, b"\xc3", b"\x1f\x8b", b"PK\x03\x04", b"999999999"]  # fmt: skip
"""What readers stumble over: ends of integers, other types, other files' beginnings, calls."""

_events: list[str] = []
_watching = False


def _hook(event, arguments):
    if _watching and event in HARMFUL:
        _events.append(f"{event} {arguments}")


sys.addaudithook(_hook)

changes = st.lists(
    st.tuples(
        st.sampled_from(("replace", "insert", "cut", "repeat", "flip")),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(CODES), st.binary(max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def changed(content, steps):
    """The content after some changes at relative places."""
    for kind, place, data in steps:
        at = int(place * len(content))
        if kind == "replace":
            content = content[:at] + data + content[at + len(data) :]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        elif kind == "cut":
            content = content[:at] + content[at + 1 + 8 * len(data) :]
        elif kind == "repeat":
            content = content[:at] + content[max(0, at - 40) :]
        elif content:
            content = content[:at] + bytes([content[at] ^ 1 << len(data) % 8]) + content[at + 1 :]
    return content


def repacked(archive, steps, chosen):
    """A zip file with one member changed, whose checksum is right again."""
    written = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(written, "w") as new:
        names = old.namelist()
        for name in names:
            content = old.read(name)
            if name == names[int(chosen * len(names))]:
                content = changed(content, steps)
            new.writestr(name, content)
    return written.getvalue()


def image(end, dtype=np.uint8):
    pixels = np.arange(300, dtype=dtype).reshape(10, 10, 3)
    return cv2.imencode(end, pixels)[1].tobytes()


def read_images(path):
    examples = Images(str(path)).split("train")
    for i in range(len(examples)):
        with contextlib.suppress(Unreadable):
            examples.image(i)


def read_tokenizer(path):
    list(token_ids(prepared(path.read_bytes(), 8, name=str(path)), ["a b c", "", "é\0"]))


def tensors(path, end):
    write_tensors(path / f"w{end}", {"a": np.arange(12.0).reshape(3, 4), "b": np.zeros((), "i4")})


def make_images(path):
    with zipfile.ZipFile(path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, end in enumerate((".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm")):
            archive.writestr(f"{'ab'[i % 2]}/{i}{end}", image(end))
            archive.writestr(f"{'ab'[i % 2]}/{i + 10}{end}", image(end))


def make_index(path):
    tensors(path, ".safetensors")
    listed = {"a": "w.safetensors", "b": "w.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


def make_sentences(path):
    write_sentence_weights(path, tiny_weights(prompt="a: ", normalise=True))


def make_sts(path):
    rows = ["score\tsentence1\tsentence2", "1.5\ta b\tc", "0\td\te f", "\tg\th"]
    (path / "dev.tsv").write_text("\n".join(rows))


def make_run(path):
    save_config(experiment, path)


def copied(name):
    return lambda path: shutil.copy(FIXTURES / name, path / name)


READERS = {
    "torch": (copied("torch.pth"), "torch.pth", read_tensors),
    "torch before 1.6": (copied("torch_before_1_6.pth"), "torch_before_1_6.pth", read_tensors),
    "torch of trainers": (copied("torch_trainer.pth"), "torch_trainer.pth", read_tensors),
    "npz": (lambda path: tensors(path, ".npz"), "w.npz", read_tensors),
    "safetensors": (lambda path: tensors(path, ".safetensors"), "w.safetensors", read_tensors),
    "index": (make_index, "model.safetensors.index.json", lambda file: read_tensors(file.parent)),
    "images": (make_images, "images.zip", read_images),
    "text": (lambda p: (p / "x.txt").write_text("a b\n" * 20), "x.txt",
             lambda file: list(read_lines(file))),
    "gzip": (lambda p: (p / "x.txt.gz").write_bytes(gzip.compress(b"a b\n" * 20)), "x.txt.gz",
             lambda file: list(read_lines(file))),
    "sts": (make_sts, "dev.tsv", lambda file: read_pairs([file])),
    "tokenizer": (make_sentences, "tokenizer.json", read_tokenizer),
    "config": (make_run, "config.json", lambda file: load_config(file.parent)),
    "bert": (make_sentences, "config.json", lambda file: read_bert(file.parent)),
    **{
        f"sentence-transformers, {name}": (make_sentences, name, lambda file: (
            read_sentence_weights(file.parents[1] if "/1_" in str(file) else file.parent)
        ))
        for name in ("modules.json", "sentence_bert_config.json", "tokenizer_config.json",
                     "config_sentence_transformers.json", "1_Pooling/config.json")
    },
}  # fmt: skip


def check(make, name, read, folder, examples):
    """Reads so many changed copies of a file; fails at anything but success or a `UserError`."""
    make(folder)
    file = folder / name
    whole = file.read_bytes()
    read(file)  # as it is, it is read
    print(f"JAXCL_SEED={SEED}")

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(changes, st.floats(0, 1, exclude_max=True), st.booleans())
    def inputs(steps, chosen, inner):
        global _watching
        if inner and zipfile.is_zipfile(io.BytesIO(whole)):
            file.write_bytes(repacked(io.BytesIO(whole), steps, chosen))
        else:
            file.write_bytes(changed(whole, steps))
        begun, _watching = time.process_time(), True
        try:
            read(file)
        except UserError as error:
            assert str(error)
        finally:
            _watching = False
        assert time.process_time() - begun < LONGEST
        assert not _events

    inputs()


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_file_is_read_or_refused(reader, tmp_path):
    traced = reader.startswith(("bert", "sentence"))  # each input that is whole costs a trace
    check(*READERS[reader], tmp_path, 4 if traced else 24)


@pytest.mark.extended
@pytest.mark.parametrize("reader", READERS)
def test_many_changed_files_are_read_or_refused(reader, tmp_path):
    traced = reader.startswith(("bert", "sentence"))
    check(*READERS[reader], tmp_path, INPUTS // 20 if traced else INPUTS)


@pytest.mark.parametrize("end", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
def test_changed_images_are_decoded_or_not(end):
    rng = np.random.default_rng(SEED)
    print(f"JAXCL_SEED={SEED}")
    whole = image(end)
    for _ in range(24):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            content[place] = rng.integers(256)
        pixels = decode(bytes(content[: rng.integers(1, len(whole) + 1)]), 3)
        assert pixels is None or pixels.shape[2] == 3
