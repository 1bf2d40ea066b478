"""Splits and classes by what lies side by side, what is said of them, and what is left out."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxcl.data import Images, Subset, Unreadable
from jaxcl.data import listing as listing_module
from jaxcl.data.examples import class_sizes
from jaxcl.data.layout import find_layout
from jaxcl.errors import UserError

NONE = b""
"""Content of a file whose name is all that matters."""


def pictures(*folders: str, count: int = 2) -> dict[str, bytes]:
    return {f"{folder}/{i}.jpg": NONE for folder in folders for i in range(count)}


@pytest.fixture(params=["folder", "zip"])
def write(request: pytest.FixtureRequest, write_folder: Callable, write_zip: Callable) -> Callable:
    """A function files -> a folder, and the same files in a zip."""
    return write_folder if request.param == "folder" else write_zip


def found(path: Path) -> tuple[str, str | None, tuple[str, ...], int]:
    """Where training and test images lie within the path, the classes, the number of images."""
    layout, train = find_layout(path), Images(str(path), holdout=0.0).split("train")
    test = None if layout.test is None else layout.test.title.removeprefix(path.name).strip("/")
    return layout.train.inside.strip("/"), test, train.classes, len(train)


@pytest.mark.parametrize("name", ["train", "Train", "training"])
def test_a_class_may_be_called_train(write: Callable, name: str) -> None:
    """As in CIFAR-100, VOC and COCO, with and without a class that comes before it."""
    for others in (("bus", "car"), ("tram", "zebra")):
        path = write(pictures(name, *others), others[0])
        assert found(path) == ("", None, tuple(sorted((name, *others))), 6)
    tests = ("bus", "test", "val")  # nor is any other name a split's without training images
    assert found(write(pictures(*tests), "tests")) == ("", None, tests, 6)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("TRAIN", "Validation"),
        ("train", "valid"),
        ("train", "dev"),
        ("training_set", "test_set"),
        ("trainset", "val-set"),
    ],
)
def test_usual_names_of_splits_are_known(write: Callable, train: str, test: str) -> None:
    path = write(pictures(f"{train}/cat", f"{train}/dog") | pictures(f"{test}/cat", count=1))
    assert found(path) == (train, test, ("cat", "dog"), 4)
    assert Images(str(path)).split("test").labels.tolist() == [0]


def test_what_a_split_is_follows_from_its_neighbours(write: Callable) -> None:
    cases = {
        "unlabelled": (pictures("train", "test"), ("train", "test", (), 2)),
        "train_alone": (pictures("train"), ("train", None, (), 2)),
        "val_has_labels": (
            pictures("train/a", "train/b", "test", "val/a"), ("train", "val", ("a", "b"), 4)
        ),
        "test_before_val": (
            pictures("train/a", "train/b", "val/a", "test/b"), ("train", "test", ("a", "b"), 4)
        ),
        "others_are_flat": (
            pictures("train/a", "train/b", "extra"), ("train", None, ("a", "b"), 4)
        ),
        "others_beside_both": (
            pictures("train/a", "train/b", "extra/a", "test/a"), ("train", "test", ("a", "b"), 4)
        ),
        "one_folder_deeper": (pictures("set/a", "set/b"), ("set", None, ("a", "b"), 4)),
        "two_folders_deeper": (
            pictures("all/set/train/a", "all/set/train/b", "all/set/val/b"),
            ("all/set/train", "all/set/val", ("a", "b"), 4),
        ),
        "deeper_inside_the_splits": (
            pictures("train/images/a", "train/images/b", "val/images/a"),
            ("train/images", "val", ("a", "b"), 4),
        ),
        "nested_classes": (pictures("a/x", "a/y", "b/x"), ("", None, ("a", "b"), 6)),
    }  # fmt: skip
    for name, (files, expected) in cases.items():
        assert found(write(files, name)) == expected, name


def test_one_class_in_the_test_images_is_enough(write: Callable) -> None:
    """Also where that class has folders inside it."""
    train = pictures("train/a", "train/b")
    for name, test in (("one", pictures("test/b")), ("nested", pictures("test/b/x", "test/b/y"))):
        examples = Images(str(write(train | test, name))).split("test")
        assert set(examples.labels.tolist()) == {1}


@pytest.mark.parametrize("given", ["Train", "Train.zip"])
def test_neighbours_of_what_was_named(
    write_folder: Callable, write_zip: Callable, given: str
) -> None:
    write = write_zip if given.endswith(".zip") else write_folder
    path = write(pictures("train/a", "train/b"), f"set/{given}")  # packed with its folder
    write_folder(pictures("a"), "set/Valid")
    layout = find_layout(path)
    assert layout.train.inside == "train/"
    assert layout.test is not None
    assert layout.test.path == path.parent / "Valid"
    assert Images(str(path)).split("test").labels.tolist() == [0, 0]


def test_zips_that_lie_one_folder_deeper(tmp_path: Path, write_zip: Callable) -> None:
    write_zip(pictures("a", "b"), "up/set/train.zip")
    write_zip(pictures("test/a"), "up/set/test.zip")
    source = Images(str(tmp_path / "up"))
    assert (len(source.split("train")), len(source.split("test"))) == (4, 2)
    assert source.split("train").about["test set"].startswith("test.zip/test: 2 images, 1 class")


def test_what_may_be_either_is_refused(write: Callable) -> None:
    path = write(pictures("train/day", "train/night", "bus/day", "bus/night"))
    with pytest.raises(UserError, match=r"holds train beside bus, .* may be a split or a class; "):
        Images(str(path)).split("train")
    with pytest.raises(UserError, match=r"holds test, val, and no folder of training images that"):
        Images(str(write(pictures("test/a", "val/a"), "tests"))).split("train")


def test_a_test_folder_without_images_is_no_reason_to_hold_out(write_folder: Callable) -> None:
    path = write_folder(pictures("train/a", "train/b") | {"test/a/1.heic": NONE})
    train = Images(str(path)).split("train")
    assert len(train) == 4
    assert (
        "test beside train cannot be used: data.source: pictures/test holds no images"
        in (train.about["test set"])
    )
    with pytest.raises(UserError, match=r"pictures/test holds no images .* 1 \.heic"):
        Images(str(path)).split("test")


def test_a_run_says_what_was_found_and_what_was_left_out(write: Callable) -> None:
    files = (
        pictures("train/a", count=3) | pictures("train/b", "val/a") | pictures("extra", count=5)
        | dict.fromkeys(("train/a/9.heic", "train/a/notes.txt", "train/b/x.txt"), NONE)
        | dict.fromkeys(("train/.DS_Store", "__MACOSX/1.jpg", "train/owl/1.svg", "1.jpg"), NONE)
    )  # fmt: skip
    path = write(files)
    about = Images(str(path)).split("train").about
    title = path.name
    assert about["train set"] == (f"{title}/train: 5 images, 2 classes of 2 to 3; train of {title}")
    assert about["test set"] == f"{title}/val: 2 images, 1 class of 2; val beside train"
    assert about["left out"] == (
        "1 images beside train; extra (5 images), which has no split's name; "
        f"in {title} 2 .txt, 2 hidden, 1 .heic, 1 .svg; folders without images in {title}: "
        "train/owl"
    )
    plain = Images(str(write(pictures("a", "b", count=10), "plain"))).split("train").about
    assert plain["train set"].endswith(": 18 images, 2 classes of 9; the class folders of " + (
        "plain"))  # fmt: skip
    assert ": 2 images, 2 classes of 1; 0.1 of every class, held out since no" in plain["test set"]
    assert "left out" not in plain


def test_splits_inside_of_classes_are_told(write: Callable) -> None:
    path = write(pictures("a/train", "a/test", "b/train"))
    assert (
        Images(str(path))
        .split("train")
        .about["train set"]
        .endswith(
            f"; the class folders of {path.name}, each with all that its folders test, train hold"
        )
    )


def test_sizes_of_classes_in_words() -> None:
    assert class_sizes(np.array([0, 0, 2, -1])) == "2 classes of 1 to 2, 1 without label"
    assert class_sizes(np.array([-1, -1])) == "no labels"


def test_every_ending_that_the_decoder_reads(write_folder: Callable, picture: Callable) -> None:
    """Each is written by OpenCV, some under another name; those without colour by hand."""
    same = {".jfif": ".jpg", ".jif": ".jpg", ".j2k": ".jp2", ".sr": ".ras"}
    made = {".pbm": b"P4 96 96\n" + bytes(12 * 96), ".pgm": b"P5 96 96 255\n" + bytes(96 * 96)}
    made |= dict.fromkeys((".hdr", ".pic"), cv2.imencode(".hdr", np.ones((96, 96, 3), "f4"))[1])
    files = {
        f"{e[1:]}{e.upper()}": bytes(made[e]) if e in made else picture(1, 96, 96, same.get(e, e))
        for e in listing_module.EXTENSIONS
    }
    examples = Images(str(write_folder(files)), holdout=0.0).split("train")
    assert len(examples) == len(listing_module.EXTENSIONS)
    for i in range(len(examples)):
        assert examples.image(i).shape == (96, 96, 3), examples.name(i)


def test_links(write_folder: Callable, picture: Callable) -> None:
    path = write_folder({name: picture(1) for name in ("cat/1.jpg", "dog/1.jpg")})
    (path / "cat" / "all").symlink_to(path)
    (path / "cat" / "self").symlink_to("self")
    (path / "dog" / "2.jpg").symlink_to("gone.jpg")
    (path / "owl").symlink_to(path / "dog")
    os.mkfifo(path / "cat" / "3.jpg")
    examples = Images(str(path), holdout=0.0).split("train")
    names = ["cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "owl/1.jpg", "owl/2.jpg"]
    assert [examples.name(i) for i in range(len(examples))] == names
    assert examples.about["left out"] == (
        "in pictures 1 linked back to a folder that holds them, 1 that are no plain files, "
        "1 without ending"
    )
    with pytest.raises(Unreadable, match=r"dog/2\.jpg: a link that leads nowhere"):
        examples.image(2)


def test_a_folder_that_cannot_be_read_is_an_error(
    write_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_folder(pictures("cat", "dog", "owl"))
    scandir = os.scandir

    def refuse(folder: Path):  # as without rights, which the tests may have whatever a mode says
        if Path(folder).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"pictures/dog cannot be read \(Permission denied\); make"):
        Images(str(path)).split("train")


def test_a_scan_asks_about_no_single_file(
    write_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = write_folder(pictures("cat", "dog", count=50)), []
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda *given, **other: asked.append(1) or stat(*given, **other)
    )
    assert len(listing_module.listing(path).names) == 100
    assert len(asked) < 10


def test_names_in_zips_are_made_plain(write_zip: Callable, picture: Callable) -> None:
    """As Windows, tar-like and absolute packers write them; the last of equal names counts."""
    names = ["set\\train\\cat\\1.jpg", "./set/train/cat/2.jpg", "/set/train/dog/1.jpg",
             "set//train/dog/./2.jpg", "set/train/dog/2.jpg", "../cat/1.jpg"]  # fmt: skip
    examples = Images(
        str(write_zip({name: picture(i) for i, name in enumerate(names)})), holdout=0.0
    ).split("train")
    assert [examples.name(i) for i in range(len(examples))] == [
        "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"
    ]  # fmt: skip
    assert examples.about["left out"].endswith(
        "1 replaced by a later one of the same name, 1 that lead out of the archive"
    )
    for i in range(4):
        examples.image(i)


def altered(path: Path, **fields: int) -> None:
    """Changes the entries of a zip's directory: (flags at 8, method at 10)."""
    content = bytearray(path.read_bytes())
    for place in (m.start() for m in re.finditer(b"PK\x01\x02", bytes(content))):
        for name, value in fields.items():
            at = place + {"flags": 8, "method": 10}[name]
            content[at : at + 2] = value.to_bytes(2, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"flags": 1}, "protected by a password; pack it again without one"),
        ({"method": 12}, "packed by bzip2; pack it again by store or deflate"),
        ({"method": 8827}, "packed by method 8827; pack it again by store or deflate"),
        ({"method": 9}, "packed by deflate64; pack it again by store or deflate"),
    ],
)
def test_known_reasons_reach_the_message(
    write_zip: Callable, files: dict[str, bytes], fields: dict[str, int], reason: str
) -> None:
    from jaxcl.data.loading import batches_of, load_split

    path = write_zip(files)
    altered(path, **fields)
    examples = Images(str(path), holdout=0.0).split("train")
    with pytest.raises(Unreadable, match=re.escape(f"cat/00.jpg: {reason}")):
        examples.image(0)
    words = re.escape(f"images can be decoded (first: cat/00.jpg, {reason})")
    for read in (load_split, lambda examples: list(batches_of(examples, 8))):
        with pytest.raises(UserError, match=words):
            read(examples)
    mixed = Subset(examples, np.arange(3))
    mixed.shape = (24, 24, 3)
    words = re.escape(f"3 of 3 images cannot be decoded (first: cat/00.jpg, {reason})")
    with pytest.raises(UserError, match=words):
        load_split(mixed)


def test_a_cut_archive_is_called_that(write_zip: Callable, files: dict[str, bytes]) -> None:
    path = write_zip(files)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"is a zip file whose end is missing; copy it again"):
        Images(str(path)).split("train")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/1.jpg", files["cat/00.jpg"])
        file.writestr("b/1.jpg", files["cat/00.jpg"])
    examples = Images(str(path), holdout=0.0).split("train")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(Unreadable, match=r"b/1\.jpg: beyond the end of the zip file, which is cut"):
        examples.image(1)
