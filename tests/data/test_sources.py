"""Digits, arrays, and sources named on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tyro
from sklearn.datasets import load_digits

from jaxcl.data import TFDS, Arrays, Data, Digits, Images, parse_source
from jaxcl.errors import UserError


def test_digits_are_scikit_learns_and_split_by_class() -> None:
    source = Digits()
    train, test = source.split("train"), source.split("test")
    assert (len(train), len(test)) == (1297, 500)
    assert np.bincount(test.labels).tolist() == [50] * 10
    assert train.shape == (32, 32, 1)
    assert train.image(0).dtype == np.uint8
    # Shrunk back by means over 4x4, each is one of the originals, and none occurs in both parts.
    originals, labels = load_digits(return_X_y=True)
    found = []
    for part in (train, test):
        for i in range(0, len(part), 7):
            back = part.image(i).reshape(8, 4, 8, 4).mean((1, 3)).ravel() * (16 / 255)
            distance = np.abs(originals - back).mean(1)
            found.append(int(distance.argmin()))
            assert distance.min() < 1  # of 16
            assert labels[found[-1]] == part.labels[i]
    assert len(set(found)) == len(found)


def test_digits_are_the_same_every_time() -> None:
    first, second = Digits().split("test"), Digits().split("test")
    np.testing.assert_array_equal(first.image(499), second.image(499))
    assert Digits(size=8).split("train").shape == (8, 8, 1)
    with pytest.raises(UserError, match=r"Digits\(7\) is below the digits' 8 pixels"):
        Digits(size=7).split("train")


def test_arrays_with_and_without_a_test_part() -> None:
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2, 1)
    labels = np.arange(40) % 4
    held = Arrays(images, labels).split("test")
    kept = Arrays(images, labels).split("train")
    assert np.bincount(held.labels).tolist() == [1, 1, 1, 1]
    both = [
        *(held.image(i).tobytes() for i in range(4)),
        *(kept.image(i).tobytes() for i in range(36)),
    ]
    assert sorted(both) == sorted(image.tobytes() for image in images)
    given = Arrays(images, labels, images[:3], labels[:3], classes=("a", "b", "c", "d"))
    assert len(given.split("train")) == 40
    assert len(given.split("test")) == 3
    assert given.split("test").classes == ("a", "b", "c", "d")
    assert Arrays(images[..., 0]).split("train").shape == (2, 2, 1)
    assert set(Arrays(images).split("train").labels) == {-1}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            np.zeros((4, 2, 2, 3)),
            None,
            "train_images is float64[4, 2, 2, 3]; give uint8 [n, h, w, c]",
        ),
        (np.zeros((4, 2, 2, 4), np.uint8), None, "train_images is uint8[4, 2, 2, 4]; give uint8"),
        (np.zeros((0, 2, 2, 3), np.uint8), None, "train_images is empty; give at least one image"),
        (np.zeros((4, 2, 2, 3), np.uint8), [0, 1], "train_labels is int64[2]; give whole numbers"),
        (np.zeros((2, 2, 2, 3), np.uint8), [0.0, 1.0], "train_labels is float64[2]; give whole"),
        (np.zeros((2, 2, 2, 3), np.uint8), [0, -2], "train_labels holds -2 to 0 where there are 1"),
    ],
)
def test_unfit_arrays_are_refused(images: np.ndarray, labels: list | None, message: str) -> None:
    given = None if labels is None else np.array(labels)
    with pytest.raises(UserError, match=re.escape(message)):
        Arrays(images, given).split("train")


def test_names_become_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_source("digits") == Digits()
    assert parse_source("tfds:cifar10") == TFDS("cifar10")
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    assert parse_source("pictures") == Images(str(tmp_path / "pictures"))


def test_unknown_names_are_refused() -> None:
    message = (
        "data.source=no/such.zip does not exist; give a folder or zip of class folders, "
        "tfds:NAME or digits"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        parse_source("no/such.zip")
    with pytest.raises(UserError, match=r"data\.source=tfds: names no data set; write for example"):
        parse_source("tfds:")


@dataclass(frozen=True)
class Program:
    """An experiment in small."""

    data: Data = Data(TFDS("cifar10"))
    """The data."""


def test_the_command_line_takes_a_source_in_one_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tyro.cli(Program, args=[]).data.source == TFDS("cifar10")
    assert tyro.cli(Program, args=["--data", "digits"]).data.source == Digits()
    long = tyro.cli(Program, args=["--data.source", str(tmp_path), "--data.batch-size", "8"])
    assert long.data == Data(Images(str(tmp_path)), batch_size=8)
    with pytest.raises(SystemExit):
        tyro.cli(Program, args=["--help"])
    assert "PATH|tfds:NAME|digits" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tyro.cli(Program, args=["--data", "no/such"])
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "data.source=no/such does not exist; give a folder or zip of class folders" in said
