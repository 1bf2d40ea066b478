"""Images in class folders, on disk or inside a zip file."""

import os
import struct
import weakref
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxcl.data.examples import Examples, Source, SplitName, Subset, Unreadable, hold_out
from jaxcl.data.pixels import EXTENSIONS, decode, header_size
from jaxcl.errors import UserError
from jaxcl.reading import open_regular, reason, unpacked_limit
from jaxcl.typing import Int, NumpyArray

TEST_NAMES = ("test", "val", "validation")
"""Names under which a test split is looked for, in this order."""
SHAPE_LIMIT = 200_000
"""Larger sets are taken to hold images of different sizes: reading every header would take long."""
_HEAD = 1 << 16


@dataclass(frozen=True)
class Images(Source):
    """Images in class folders: a folder or a zip file of them.

    Understood are class folders (`cat/0001.jpg`), a folder or zip that holds `train` beside `test`,
    `val` or `validation`, a folder that holds `train.zip` beside one of those, and a `train` folder
    or `train.zip` whose neighbour is one of those. Without a test split a share of every class is
    set aside, the same in every run. Images that lie in no class folder have no labels.
    """

    path: str
    """The folder or zip file."""
    holdout: float = 0.1
    """Share of every class set aside for testing where there is no test split; 0 for none."""

    def split(self, name: SplitName) -> Examples:
        """The images in the order of class and file name; labels count the sorted class names."""
        if not 0 <= self.holdout < 1:
            raise UserError(f"data.source.holdout={self.holdout} is no share; use 0 up to 0.5")
        train, test = self._places()
        if test is not None:
            classes = class_names(train.title, train.names())
            return (train if name == "train" else test).open(classes)
        whole = train.open(class_names(train.title, train.names()))
        if self.holdout == 0:
            if name == "test":
                raise UserError(
                    f"data.source={self.path} has no test images and data.source.holdout=0; "
                    "add a test folder or set data.source.holdout=0.1"
                )
            return whole
        parts = hold_out(whole.labels, float(self.holdout))
        return Subset(whole, parts.train if name == "train" else parts.test)

    def _places(self) -> "tuple[_Place, _Place | None]":
        """Where the training and the test images lie."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise UserError(
                f"data.source={self.path} does not exist; give a folder or zip of class folders, "
                "tfds:NAME or digits"
            )
        if path.is_file() and not zipfile.is_zipfile(path):
            raise UserError(
                f"data.source={self.path} is neither a folder nor a zip file; "
                "give a folder or zip of class folders, tfds:NAME or digits"
            )
        inside = _Place(path, _common_folder(path) if path.is_file() else "")
        if (train := inside.part("train")) is not None:
            return train, _first(inside.part(name) for name in TEST_NAMES)
        if path.stem == "train":
            beside = _Place(path.resolve().parent)
            return inside, _first(beside.part(name) for name in TEST_NAMES)
        return inside, None


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What a zip file lists, by name; raises `UserError` if it cannot be read."""
    return _members_then(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)  # a large directory takes seconds to parse, and is asked for several times
def _members_then(path: Path, changed: int) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as file:
            return {member.filename: member for member in file.infolist()}
    except Exception as error:  # besides BadZipFile, whatever zipfile meets in a damaged one
        raise UserError(
            f"data.source={path} cannot be read as a zip file ({reason(error)}); "
            "copy or pack it again"
        ) from error


def _common_folder(path: Path) -> str:
    """`name/` where all class folders of a zip lie in one folder, else nothing."""
    tops = {tuple(name.split("/")[:-1])[:2] for name in image_names(_members(path))}
    first = {top[:1] for top in tops}
    if len(first) == 1 and len(tops) > 1 and all(len(top) == 2 for top in tops):
        return f"{first.pop()[0]}/"
    return ""


@dataclass(frozen=True)
class _Place:
    """A folder on disk, a zip file, or a folder inside a zip file."""

    path: Path
    inside: str = ""

    def part(self, name: str) -> "_Place | None":
        """The folder or zip called `name` in this place, where there is one."""
        if self.path.is_dir():
            found = (self.path / name, self.path / f"{name}.zip")
            return _first(_Place(path) for path in found if path.exists())
        inner = _Place(self.path, f"{self.inside}{name}/")
        return inner if inner.names() else None

    def names(self) -> list[str]:
        """The image files of this place, as paths within it."""
        if self.path.is_dir():
            return image_names(
                (Path(parent) / file).relative_to(self.path).as_posix()
                for parent, _, files in os.walk(self.path, followlinks=True)
                for file in files
            )
        return image_names(
            member.removeprefix(self.inside)
            for member in _members(self.path)
            if member.startswith(self.inside)
        )

    @property
    def title(self) -> str:
        return f"{self.path.name}/{self.inside}".rstrip("/")

    def open(self, classes: tuple[str, ...]) -> "Files":
        """The images of this place, labelled by their place in `classes`."""
        if self.path.is_dir():
            return FolderFiles(self.title, self.path, self.names(), classes)
        return ZipFiles(self.title, self.path, self.inside, self.names(), classes)


def _first(places: Iterable[_Place | None]) -> _Place | None:
    return next((place for place in places if place is not None), None)


class Files(Examples):
    """Image files listed by name; a subclass says how to read one."""

    def __init__(self, title: str, names: Sequence[str], classes: tuple[str, ...]) -> None:
        """Takes the images of a place.

        Args:
          title: what messages call the set.
          names: paths with `/`, the class folder first, in the order of `image_names`.
          classes: class names in label order, from the training images.

        Raises:
          UserError: the folders are no class folders, or not those of `classes`.
        """
        self.title = title
        self.names = tuple(names)
        self.classes = classes
        if unknown := sorted(set(class_names(title, names)) - set(classes)):
            raise UserError(
                f"data.source: {title} holds the class {unknown[0]} that the training images lack; "
                "give both splits the same class folders"
            )
        number = {name: i for i, name in enumerate(classes)}
        self._labels = np.array([number.get(_folder(name), -1) for name in names], np.int32)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> Int[NumpyArray, "n"]:
        return self._labels

    def name(self, i: int) -> str:
        return self.names[i]

    @abstractmethod
    def content(self, i: int) -> bytes:
        """The whole file; raises `Unreadable`."""

    @abstractmethod
    def head(self, i: int) -> bytes:
        """The first bytes of the file, enough for most headers; raises `Unreadable`."""

    def read(self, i: int) -> tuple[bytes, int]:
        return self.content(i), int(self._labels[i])

    def find_shape(self) -> tuple[int, int, int] | None:
        """(h, w, 3) if every readable image has that size; stops at the first that differs."""
        if len(self) > SHAPE_LIMIT:
            return None
        found: tuple[int, int] | None = None
        for i in range(len(self)):
            try:
                size = header_size(self.head(i))
                if size is None and (pixels := decode(self.content(i), 3)) is not None:
                    size = pixels.shape[:2]
            except Unreadable:
                continue
            if size is not None and found is not None and size != found:
                return None
            found = size or found
        return None if found is None else (*found, 3)


class FolderFiles(Files):
    """Image files in a folder on disk."""

    def __init__(
        self, title: str, folder: Path, names: Sequence[str], classes: tuple[str, ...]
    ) -> None:
        super().__init__(title, names, classes)
        self.folder = os.fspath(folder)
        self.shape = self.find_shape()

    def content(self, i: int) -> bytes:
        return self._read(i, -1)

    def head(self, i: int) -> bytes:
        return self._read(i, _HEAD)

    def _read(self, i: int, count: int) -> bytes:
        try:
            with open_regular(Path(self.folder, self.names[i])) as file:
                return file.read(count)
        except OSError as error:
            raise Unreadable(self.names[i], error.strerror or str(error)) from error


class ZipFiles(Files):
    """Image files in a zip file, read by place, so that any number of threads share one handle."""

    def __init__(
        self,
        title: str,
        path: Path,
        inside: str,
        names: Sequence[str],
        classes: tuple[str, ...],
    ) -> None:
        super().__init__(title, names, classes)
        members = _members(path)
        chosen = [members[inside + name] for name in names]
        self.path = os.fspath(path)
        self._start = np.array([member.header_offset for member in chosen], np.int64)
        self._packed = np.array([member.compress_size for member in chosen], np.int64)
        self._check = np.array([member.CRC for member in chosen], np.uint32)
        self._method = np.array([member.compress_type for member in chosen], np.uint8)
        self._open()
        self.shape = self.find_shape()

    def _open(self) -> None:
        self._handle = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_handle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def content(self, i: int) -> bytes:
        data = self._member(i, int(self._packed[i]))
        try:
            if self._method[i] == zipfile.ZIP_DEFLATED:
                packed, unpacker = len(data), zlib.decompressobj(-zlib.MAX_WBITS)
                data = unpacker.decompress(data, unpacked_limit(packed))
                if unpacker.unconsumed_tail:
                    raise Unreadable(self.names[i], "unpacks to more than the limit")
        except zlib.error as error:
            raise Unreadable(self.names[i], f"damaged in the zip file ({error})") from error
        if zlib.crc32(data) != self._check[i]:
            raise Unreadable(self.names[i], "damaged in the zip file (checksum)")
        return data

    def head(self, i: int) -> bytes:
        data = self._member(i, min(int(self._packed[i]), _HEAD))
        if self._method[i] == zipfile.ZIP_DEFLATED:
            try:
                return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _HEAD)
            except zlib.error as error:
                raise Unreadable(self.names[i], f"damaged in the zip file ({error})") from error
        return data

    def _member(self, i: int, count: int) -> bytes:
        """The first `count` packed bytes of a member."""
        if self._method[i] not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unreadable(self.names[i], "packed by a method other than store and deflate")
        try:
            # A member starts with a header of its own: 30 bytes, then a name and extra bytes
            # whose lengths stand at 26 and 28 and may differ from those in the directory.
            start = int(self._start[i])
            header = os.pread(self._handle, 30, start)
            name_length, extra_length = struct.unpack_from("<HH", header, 26)
            return os.pread(self._handle, count, start + 30 + name_length + extra_length)
        except (OSError, struct.error) as error:
            raise Unreadable(self.names[i], f"cannot be read ({error})") from error


def image_names(paths: Iterable[str]) -> list[str]:
    """The image files among `paths`, by class folder and then by the rest of the path.

    Other files are passed over by their ending, and hidden files and macOS's `__MACOSX` by name.
    """
    images = [
        path
        for path in paths
        if path.lower().endswith(EXTENSIONS)
        and not any(part.startswith((".", "__MACOSX")) for part in path.split("/"))
    ]
    return sorted(images, key=lambda path: path.split("/"))


def class_names(title: str, names: Sequence[str]) -> tuple[str, ...]:
    """The sorted class folders of some images, empty where they lie in none.

    Raises:
      UserError: there are no images, images beside class folders, or one class folder alone.
    """
    folders = sorted({_folder(name) for name in names})
    if not folders:
        endings = " ".join(EXTENSIONS)
        raise UserError(f"data.source: {title} holds no images ({endings}); give another path")
    if folders == [""]:
        return ()
    if folders[0] == "":
        loose = next(name for name in names if "/" not in name)
        raise UserError(
            f"data.source: {title} holds images beside its class folders (first: {loose}); "
            "move them into a class folder"
        )
    if len(folders) == 1:
        raise UserError(
            f"data.source: {title} holds one class only ({folders[0]}); add a second class folder, "
            "or give the class folder itself to train without labels"
        )
    return tuple(folders)


def _folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""
