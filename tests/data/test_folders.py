"""Folders and zips: order, labels, splits, damage, and what is said about unfit ones."""

import pickle
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxcl.data import Examples, Images, Subset, Unreadable
from jaxcl.data import folders as folders_module
from jaxcl.errors import UserError

Files = dict[str, bytes]
Write = Callable[..., Path]


def whole(path: Path) -> Examples:
    return Images(str(path), holdout=0.0).split("train")


def bgr(content: bytes) -> np.ndarray:
    """What OpenCV makes of a file, blue first."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def test_folder_and_zips_give_the_same_examples(
    files: Files, write_folder: Write, write_zip: Write
) -> None:
    stored = write_zip(files, "stored.zip")
    packed = write_zip(files, "packed.zip", zipfile.ZIP_DEFLATED)
    for path in (write_folder(files), stored, packed):
        examples = whole(path)
        assert [examples.name(i) for i in range(len(examples))] == sorted(files)
        assert examples.classes == ("cat", "dog", "owl")
        assert examples.shape == (24, 24, 3)
        assert examples.labels.dtype == np.int32
        for i, name in enumerate(sorted(files)):
            assert examples.classes[examples.labels[i]] == name.split("/")[0]
            np.testing.assert_array_equal(examples.image(i)[..., ::-1], bgr(files[name]))


def test_classes_keep_together_whatever_their_names(picture: Callable, write_zip: Write) -> None:
    """As plain strings `a-b/1` < `a/1` < `ab/1`; by folder, `a` comes first."""
    examples = whole(write_zip({f"{name}/1.jpg": picture(0) for name in ("ab", "a-b", "a")}))
    assert [examples.name(i) for i in range(3)] == ["a/1.jpg", "a-b/1.jpg", "ab/1.jpg"]
    assert examples.labels.tolist() == [0, 1, 2]


def test_other_files_are_passed_over(files: Files, write_folder: Write) -> None:
    other = {
        "cat/notes.txt": b"x",
        "readme.md": b"x",
        "owl/.hidden.jpg": b"x",
        ".git/x/1.jpg": b"x",
    }
    assert len(whole(write_folder(files | other | {"__MACOSX/cat/1.jpg": b"x"}))) == len(files)


def test_images_in_no_class_folder_have_no_labels(picture: Callable, write_folder: Write) -> None:
    examples = whole(write_folder({f"{i}.png": picture(i, ending=".png") for i in range(3)}))
    assert examples.labels.tolist() == [-1, -1, -1]
    assert examples.classes == ()


def test_a_zip_made_of_one_folder_reads_like_its_contents(files: Files, write_zip: Write) -> None:
    examples = whole(write_zip({f"animals/{name}": content for name, content in files.items()}))
    assert examples.classes == ("cat", "dog", "owl")
    assert len(examples) == 24


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
@pytest.mark.parametrize(
    "kind", ["folder", "one zip", "folder in a zip", "zips", "train folder", "train.zip"]
)
def test_a_test_split_is_found(
    files: Files,
    picture: Callable,
    write_folder: Write,
    write_zip: Write,
    kind: str,
    test_name: str,
) -> None:
    test = {f"{name}/t.jpg": picture(100 + i) for i, name in enumerate(("cat", "dog", "owl"))}
    if kind in ("zips", "train.zip"):
        path = write_zip(files, "set/train.zip").parent
        write_zip(test, f"set/{test_name}.zip")
    else:
        both = {f"train/{name}": content for name, content in files.items()}
        both |= {f"{test_name}/{name}": content for name, content in test.items()}
        if kind == "folder in a zip":
            both = {f"animals/{name}": content for name, content in both.items()}
        path = write_zip(both) if "zip" in kind else write_folder(both, "set")
    path = path / kind.split()[0] if kind == "train folder" else path
    path = path / "train.zip" if kind == "train.zip" else path
    source = Images(str(path))
    train, held = source.split("train"), source.split("test")
    assert len(train) == 24
    assert [held.name(i) for i in range(len(held))] == ["cat/t.jpg", "dog/t.jpg", "owl/t.jpg"]
    assert held.labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(held.image(2)[..., ::-1], bgr(test["owl/t.jpg"]))


def test_test_labels_follow_the_training_classes(
    files: Files, picture: Callable, write_folder: Write
) -> None:
    path = write_folder({f"train/{name}": content for name, content in files.items()})
    write_folder({"test/owl/1.jpg": picture(1), "test/dog/1.jpg": picture(2)})
    assert Images(str(path)).split("test").labels.tolist() == [1, 2]


def test_without_a_test_split_a_share_of_every_class_is_held_out(
    files: Files, write_folder: Write
) -> None:
    source = Images(str(write_folder(files)), holdout=0.25)
    train, test = source.split("train"), source.split("test")
    assert isinstance(test, Subset)
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels).tolist() == [6, 6, 6]
    names = [part.name(i) for part in (train, test) for i in range(len(part))]
    assert sorted(names) == sorted(files)
    again = source.split("test")
    assert [again.name(i) for i in range(6)] == [test.name(i) for i in range(6)]
    np.testing.assert_array_equal(test.image(3)[..., ::-1], bgr(files[test.name(3)]))


def test_shape_is_unknown_where_sizes_differ(
    files: Files, picture: Callable, write_folder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole(write_folder(files | {"owl/99.jpg": picture(0, 24, 25)}, "ragged")).shape is None
    assert whole(write_folder(files | {"owl/99.bmp": picture(0, ending=".bmp")}, "a")).shape
    ragged = files | {"owl/99.bmp": picture(0, 9, 9, ".bmp")}
    assert whole(write_folder(ragged, "b")).shape is None
    monkeypatch.setattr(folders_module, "SHAPE_LIMIT", 23)
    assert whole(write_folder(files, "large")).shape is None


def test_damage_is_named(files: Files, write_folder: Write, write_zip: Write) -> None:
    cut = files | {"cat/03.jpg": files["cat/03.jpg"][:200], "dog/01.jpg": b"", "owl/00.png": b"no"}
    for path in (write_folder(cut), write_zip(cut)):
        examples = whole(path)
        assert examples.shape == (24, 24, 3)  # of those that can be read
        for name in ("cat/03.jpg", "dog/01.jpg", "owl/00.png"):
            with pytest.raises(Unreadable, match=f"{name}: cannot be decoded"):
                examples.image(sorted(cut).index(name))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_bits_in_a_zip_are_noticed(files: Files, write_zip: Write, method: int) -> None:
    """One changed byte in the picture data, which a JPEG decoder would take without complaint."""
    path = write_zip(files, method=method)
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("dog/02.jpg").header_offset + 30 + len("dog/02.jpg") + 7 + 250
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    examples = whole(path)
    with pytest.raises(Unreadable, match=r"dog/02\.jpg: damaged in the zip file"):
        examples.image(sorted(files).index("dog/02.jpg"))
    examples.image(0)


def test_a_file_that_vanishes_is_unreadable(files: Files, write_folder: Write) -> None:
    path = write_folder(files)
    examples = whole(path)
    (path / "cat/00.jpg").unlink()
    with pytest.raises(Unreadable, match=r"cat/00\.jpg: No such file or directory"):
        examples.image(0)


def test_threads_and_copies_read_the_same(files: Files, write_zip: Write) -> None:
    examples = whole(write_zip(files))
    copy = pickle.loads(pickle.dumps(examples))
    rows = list(range(24)) * 20
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(examples.image, rows))
    for i, pixels in zip(rows, read, strict=True):
        np.testing.assert_array_equal(pixels, copy.image(i))


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda files: {"cat/notes.txt": b"x"},
            "data.source: pictures{end} holds no images (.jpg .png .webp .gif .tif and others); "
            "give another path; not read: in pictures{end} 1 .txt; folders without images in "
            "pictures{end}: cat",
        ),
        (
            lambda files: {name: files[name] for name in files if name < "d"},
            "data.source: pictures{end} holds one class only (cat); add a second class folder, or "
            "give the class folder itself to train without labels",
        ),
        (
            lambda files: files | {"stray.jpg": files["cat/00.jpg"]},
            "data.source: pictures{end} holds images beside its class folders (first: stray.jpg); "
            "move them into a class folder",
        ),
    ],
)
def test_unfit_folders_are_refused(
    files: Files,
    write_folder: Write,
    write_zip: Write,
    as_zip: bool,
    change: Callable[[Files], Files],
    message: str,
) -> None:
    path = (write_zip if as_zip else write_folder)(change(files))
    with pytest.raises(UserError, match=re.escape(message.format(end=".zip" if as_zip else ""))):
        whole(path)


def test_wrong_paths_and_numbers_are_refused(
    files: Files, picture: Callable, write_folder: Write, write_zip: Write, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.source=/no/such does not exist; give a folder"):
        whole(Path("/no/such"))
    (tmp_path / "text.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"text\.zip is neither a folder nor a zip file; give"):
        whole(tmp_path / "text.zip")
    path = write_folder(files)
    with pytest.raises(UserError, match=r"holdout=1\.5 of Images is no share; use 0 up to 0\.5"):
        Images(str(path), holdout=1.5).split("train")
    with pytest.raises(UserError, match=r"has no test images and holdout=0 of Images; add"):
        Images(str(path), holdout=0.0).split("test")
    write_folder({f"train/{name}": content for name, content in files.items()}, "both")
    write_folder({"test/cow/1.jpg": picture(0), "test/cat/1.jpg": picture(0)}, "both")
    with pytest.raises(UserError, match="test holds the class cow that the training images lack"):
        Images(str(tmp_path / "both")).split("test")


def test_a_zip_cut_short_is_refused(files: Files, write_zip: Write) -> None:
    path = write_zip(files)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"is a zip file whose end is missing; copy it again"):
        whole(path)


def test_cifar_10_as_it_lies_in_its_zip(real_data: Path) -> None:
    path = real_data / "cifar10" / "train.zip"
    source = Images(str(path))
    train, test = source.split("train"), source.split("test")
    assert (len(train), len(test)) == (50_000, 10_000)
    assert train.shape == (32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    with zipfile.ZipFile(path) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        assert [train.name(i) for i in range(50_000)] == names
        folder = [train.classes[label] for label in train.labels]
        assert folder == [name.split("/")[0] for name in names]
        for i in (0, 12_345, 49_999):
            np.testing.assert_array_equal(train.image(i)[..., ::-1], bgr(file.read(names[i])))
