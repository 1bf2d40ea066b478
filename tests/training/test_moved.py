"""Runs whose data or directory moved, and runs whose data are no longer those of the beginning."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from tiny_lines import HOME

from jaxcl import UserError, fit, load
from jaxcl.data import Digits, Images, Labels, Subset, Text
from jaxcl.experiment import differences, load_config
from jaxcl.places import settled
from jaxcl.training.directory import check_data, check_free, claim


def pictures(folder: Path, count: int = 20) -> Path:
    """Two classes of noise, 8x8."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{i:02d}.png"), pixels)
    return folder


def of(folder: Path, **changes):
    """Two epochs of one step on a folder of pictures."""
    data = replace(tiny.experiment.data, source=Images(str(folder), holdout=0.0))
    method = replace(tiny.experiment.method, augment=replace(tiny.experiment.method.augment))
    train = replace(tiny.experiment.train, **changes)
    probe = replace(tiny.experiment.probe, every=0)
    optim = replace(tiny.experiment.optim, epochs=2, warmup_epochs=0)
    return replace(tiny.experiment, method=method, data=data, train=train, probe=probe, optim=optim)


def test_a_run_and_its_data_may_move_but_not_change(tmp_path):
    fit(of(pictures(tmp_path / "old" / "data")), tmp_path / "old" / "run")
    (tmp_path / "old").rename(tmp_path / "new")
    run, data = tmp_path / "new" / "run", tmp_path / "new" / "data"
    assert load(run).experiment.data.source.path == str(data)  # moved together
    data.rename(tmp_path / "elsewhere")
    elsewhere = of(tmp_path / "elsewhere")
    assert fit(elsewhere, run).finished

    (tmp_path / "elsewhere" / "cat" / "00.png").unlink()
    with pytest.raises(UserError, match=r"began with other data than elsewhere holds now \(40 exa"):
        fit(elsewhere, run)
    assert fit(of(tmp_path / "elsewhere", changed_data=True), run).finished


@pytest.mark.parametrize("what", ["an image less", "another size", "another label", "renamed"])
def test_what_changes_the_fingerprint_of_files(tmp_path, what):
    folder = pictures(tmp_path / "data", count=3)
    examples = Images(str(folder), holdout=0.0).split("train")
    before = examples.fingerprint()
    assert before.startswith("6 examples, ")
    shutil.copytree(folder, tmp_path / "copy")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    for place in (tmp_path / "copy", archive):
        assert Images(str(place), holdout=0.0).split("train").fingerprint() == before
    first = folder / "cat" / "00.png"
    match what:
        case "an image less":
            first.unlink()
        case "another size":
            first.write_bytes(first.read_bytes() + b" ")
        case "another label":
            first.rename(folder / "dog" / "03.png")
        case "renamed":
            first.rename(folder / "cat" / "09.png")
    assert Images(str(folder), holdout=0.0).split("train").fingerprint() != before


def test_what_changes_the_fingerprint_of_other_data(tmp_path):
    arrays = tiny.source()
    images = arrays.train_images.copy()
    images[7, 0, 0, 0] += 1
    labels = arrays.train_labels.copy()
    labels[7] += 1
    digits = Digits(8).split("train")
    few = Labels(keep=10)
    (tmp_path / "lines.txt").write_text("a b\nc d\n")
    (tmp_path / "other.txt").write_text("a b\nc e\n")
    texts = [Text(str(tmp_path / f"{name}.txt"), str(HOME)) for name in ("lines", "other")]
    found = [
        arrays.split("train"),
        replace(arrays, train_images=images).split("train"),
        replace(arrays, train_labels=labels).split("train"),
        digits,
        Subset(digits, np.arange(5)),
        Subset(digits, np.arange(5) + 1),
        few.among(digits),
        replace(few, others="hide").among(digits),
        *(text.split("train") for text in texts),
    ]
    words = [examples.fingerprint() for examples in found]
    assert len(set(words)) == len(words)
    assert words == [examples.fingerprint() for examples in found]


def test_weights_that_a_run_began_with_may_move_once_they_are_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("first.pth").write_bytes(b"")
    Path("second.pth").write_bytes(b"")
    run = tmp_path / "run"
    run.mkdir()
    data = pictures(tmp_path / "data", count=1)
    claim(run, settled(of(data, start="first.pth")), "")
    (run / "checkpoints" / "5").mkdir(parents=True)
    assert load_config(run).train.start == str(tmp_path / "first.pth")
    moved = settled(of(data, start="second.pth"))
    with pytest.raises(UserError, match=r"train.start=.*first.pth, not .*second.pth"):
        check_free(run, moved)
    claim(run, of(data, start="first.pth"), "")  # as earlier versions kept it
    check_free(run, settled(of(data, start="first.pth")))
    Path("first.pth").unlink()
    check_free(run, moved)
    assert differences(run, moved) == {}


def test_data_of_an_earlier_version_are_known_by_their_place(tmp_path):
    first, second = (pictures(tmp_path / name, count=1) for name in ("first", "second"))
    run = tmp_path / "run"
    run.mkdir()
    claim(run, settled(of(first)), "2 examples, 0")
    (run / "checkpoints" / "5").mkdir(parents=True)
    check_free(run, settled(of(second)))
    with pytest.raises(UserError, match="2 examples, 0; now 2 examples, 1"):
        check_data(run, "second", "2 examples, 1", may_change=False)
    shutil.rmtree(run / ".copies")
    (run / "versions.json").write_text("{}")
    check_data(run, "second", "2 examples, 1", may_change=False)
    with pytest.raises(UserError, match=r"data.source.path=.*first, not .*second"):
        check_free(run, settled(of(second)))


def test_pixels_given_again_are_compared(tmp_path):
    short = tiny.with_("optim", epochs=1, warmup_epochs=0)
    fit(short, tmp_path)
    source = tiny.source()
    flipped = replace(source, train_images=source.train_images[::-1])
    with pytest.raises(UserError, match="names, sizes or labels differ"):
        fit(replace(short, data=replace(short.data, source=flipped)), tmp_path)
