"""The script for a card: what it keeps, what it passes over, and all of it in small."""

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxcl import UserError

ROOT = Path(__file__).parents[2]

# Only while they are imported: names of scripts there are names of folders of tests.
sys.path.append(str(ROOT / "benchmarks"))
accelerator = import_module("accelerator")
pack = import_module("card.pack")
Record = import_module("card.record").Record
REHEARSAL = import_module("card.sizes").REHEARSAL
card = import_module("card.session")
sys.path.pop()


@pytest.fixture
def session(tmp_path):
    return card.Session(Record(tmp_path), REHEARSAL, until=time.time() + 100)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A pack of 40 training and 10 test images of 2 classes."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                image = draw.integers(0, 256, (16, 16, 3), np.uint8)
                cv2.imwrite(str(place / f"{i:02}.png"), image)
    pack.main([str(folder), str(folder / "pack.npz"), "--test", "10"])
    return folder


def test_a_pack_gives_the_images_back(packed):
    images = pack.read_pack(packed / "pack.npz")
    test = images.split("test")
    assert images.classes == ("cat", "dog")
    assert len(images.split("train")) == 40
    assert test.labels.tolist() == [0] * 5 + [1] * 5
    first = cv2.imread(str(packed / "train" / "dog" / "00.png"))[..., ::-1]
    np.testing.assert_array_equal(images.split("train").image(20), first)


def test_a_damaged_pack_is_told(packed, tmp_path):
    whole = (packed / "pack.npz").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("text", b"no pack"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be read as a pack .*; make it anew: python"):
            pack.read_pack(tmp_path / name)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(UserError, match=r"KeyError.*train_bytes"):
        pack.read_pack(tmp_path / "other.npz")
    with pytest.raises(UserError, match="FileNotFoundError"):
        pack.read_pack(tmp_path / "gone.npz")


def test_items_are_noted_and_the_next_one_follows(session):
    def raises(error):
        def run(session):
            raise error

        return run

    items = [
        card.Item("Part", "good", lambda s: {"ms": 1.5, "note": "as told"}),
        card.Item("Part", "broken", raises(ValueError("no such thing"))),
        card.Item("Part", "unequal", raises(card.Wrong({"ms": 2.0}, "beyond 1"))),
        card.Item("Part", "elsewhere", raises(card.Absent("not here"))),
        card.Item("Part", "long", raises(card.Unfinished({"epochs": 3}))),
    ]
    begun = time.time()
    session.go(items, begun)
    found = {item: row["status"] for (_, item), row in session.record.latest().items()}
    assert found == {
        "good": "done",
        "broken": "failed",
        "unequal": "wrong",
        "elsewhere": "absent",
        "long": "unfinished",
    }
    text = session.record.markdown()
    assert "| good | 1.5 |  | as told |" in text
    assert "| broken |  |  | failed: ValueError: no such thing |" in text
    session.go(items, begun)  # another process of the same call: all of it was tried
    assert len(session.record.rows()) == 5
    session.go(items, time.time())  # another call: what was not done
    assert len(session.record.rows()) == 9


def test_rates_are_set_beside_the_peer_of_the_same_batch(session):
    add = session.record.add
    add("Net", "whole loop, batch 512", "done", {"images/s": 300.0})
    add("Net", "step, batch 1,024", "done", {"images/s": 500.0})
    add("Net", "torch, batch 512", "done", {"images/s": 100.0})
    add("Other", "torch, batch 1,024", "done", {"images/s": 100.0})
    add("Other", "MiniLM, jaxcl", "done", {"sentences/s": 30.0})
    add("Other", "MiniLM, sentence-transformers", "done", {"sentences/s": 20.0})
    assert session.record.ratios() == [
        "Net: whole loop, batch 512 / torch, batch 512 3.00",
        "Other: MiniLM, jaxcl / MiniLM, sentence-transformers 1.50",
    ]
    assert "- Net: whole loop, batch 512" in session.record.markdown()


def test_nothing_begins_when_the_time_is_over(session):
    session.until = time.time() + 1
    session.go([card.Item("Part", "late", lambda s: {})], time.time())
    assert session.record.rows() == []


HANGS = """
import sys, time
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
from card.record import Record
from card.session import Item, Session
from card.sizes import REHEARSAL
begun = float(sys.argv[sys.argv.index("--begun") + 1])
session = Session(Record(Path({out!r})), REHEARSAL, begun + 100)
session.go([Item("Part", "endless", lambda s: time.sleep(60), limit=0.1),
            Item("Part", "dies", lambda s: sys.exit(3)),
            Item("Part", "next", lambda s: {{"ms": 1.0}})], begun)
"""


def test_what_hangs_or_dies_is_ended_and_passed_over(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(HANGS.format(benchmarks=str(ROOT / "benchmarks"), out=str(tmp_path)))
    monkeypatch.setattr(accelerator, "__file__", str(program))
    monkeypatch.setattr(accelerator, "GRACE", 0.1)
    record = Record(tmp_path)
    asked = accelerator.options(["--out", str(tmp_path)])
    assert accelerator.watch("first", asked, time.time(), record)
    found = {item: (row["status"], row.get("note")) for (_, item), row in record.latest().items()}
    assert found == {
        "endless": ("failed", "over its limit of 0 s"),
        "dies": ("failed", "its process ended with 3"),
        "next": ("done", None),
    }


@pytest.mark.extended
def test_every_part_runs_in_small(packed, tmp_path):
    """As on a card, but for PyTorch's parts where it is not installed."""
    command = [
        sys.executable, "benchmarks/accelerator.py", "--rehearse", "--out", str(tmp_path),
        "--data", str(packed / "pack.npz"), "--seconds", "1500",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = Record(tmp_path).latest()
    absent = {key for key, row in rows.items() if row["status"] == "absent"}
    assert all("torch" in item or "sentence-transformers" in item for _, item in absent)
    assert {row["status"] for key, row in rows.items() if key not in absent} == {"done"}
    parts = [part for part, _ in rows]
    assert len(set(parts)) == 7 and len(parts) >= 30
    space = {item: row["figures"].get("work space, MiB") for (_, item), row in rows.items()}
    assert space["nt_xent, dense"] > 2 * space["nt_xent, blocked, tile 64"]  # each as it was asked
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert again.returncode == 0
    assert len(Record(tmp_path).rows()) == len(rows) + len(absent) + 1  # settings, chosen anew
    assert json.loads((tmp_path / "machine.json").read_text())["jax"]
