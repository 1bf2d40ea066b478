"""Images in class folders, on disk or inside a zip file."""

import os
import struct
import weakref
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxcl.data.examples import (
    Examples,
    Source,
    SplitName,
    Subset,
    Unreadable,
    described,
    hold_out,
)
from jaxcl.data.layout import Place, find_layout, no_images
from jaxcl.data.pixels import decode, header_size
from jaxcl.errors import UserError
from jaxcl.reading import open_regular, reading, reason, unpacked_limit
from jaxcl.typing import Int, NumpyArray

SHAPE_LIMIT = 200_000
"""Larger sets are taken to hold images of different sizes, and are known by their names and labels
alone: asking for every file would take long."""
_HEAD = 1 << 16


@dataclass(frozen=True)
class Images(Source):
    """Images in class folders: a folder or a zip file of them.

    Understood are class folders (`cat/0001.jpg`), and a folder called `train` or `training` beside
    one called `test`, `val`, `validation`, `valid`, `testing` or `dev`, in any case, each a folder
    or a zip file, with class folders in them. All of it may lie some folders deeper, and `train`
    itself may be given. A folder called `train` that holds images itself, beside folders of other
    names, is a class. Without a test split a share of every class is set aside, the same in every
    run. Images that lie in no class folder have no labels.
    """

    path: str
    """The folder or zip file."""
    holdout: float = 0.1
    """Share of every class set aside for testing where there is no test split; 0 for none."""

    def split(self, name: SplitName) -> Examples:
        """The images in the order of class and file name; labels count the sorted class names."""
        if not 0 <= self.holdout < 1:
            raise UserError(f"holdout={self.holdout} of Images is no share; use 0 up to 0.5")
        layout = find_layout(self._existing_path())
        train = _files(layout.train)
        left = {"left out": "; ".join(layout.left)} if layout.left else {}
        if layout.test is not None:
            if name == "test":
                return _files(layout.test, train.classes)
            try:
                test = f"{described(_files(layout.test, train.classes))}; {layout.test_rule}"
            except UserError as error:  # of interest to a run that evaluates, which asks for it
                test = f"{layout.test_rule} cannot be used: {error}"
        elif self.holdout == 0:
            if name == "test":
                raise UserError(
                    f"data.source={self.path} has no test images and holdout=0 of Images; "
                    "add a test folder, or write holdout=0.1 in the config"
                )
            test = "none, since no test folder was found and holdout=0"
        else:
            parts = hold_out(train.labels, float(self.holdout))
            held = Subset(train, parts.test)
            if name == "test":
                return held
            train = Subset(train, parts.train)
            share = f"{self.holdout:g} of every class" if train.classes else f"{self.holdout:g}"
            test = f"{described(held)}; {share}, held out since no test folder was found"
        train.about = {"train set": f"{described(train)}; {layout.train_rule}", "test set": test}
        train.about |= left
        return train

    def _existing_path(self) -> Path:
        path = Path(self.path).expanduser().absolute()
        forms = "give a folder or zip of class folders, tfds:NAME or digits"
        if not path.exists():
            raise UserError(f"data.source={self.path} does not exist; {forms}")
        if path.is_file() and not zipfile.is_zipfile(path):
            try:
                with path.open("rb") as file:
                    cut = file.read(4) == b"PK\x03\x04"
            except OSError as error:
                raise UserError(f"data.source={self.path}: {error.strerror}") from error
            if cut:
                raise UserError(
                    f"data.source={self.path} is a zip file whose end is missing; copy it again"
                )
            raise UserError(f"data.source={self.path} is neither a folder nor a zip file; {forms}")
        return path


def _files(place: Place, classes: tuple[str, ...] | None = None) -> Examples:
    """The images of a place, labelled by their place in `classes`; None: by its own folders."""
    place = place.innermost((classes or ()).__contains__)
    names = place.names
    if not names:
        raise no_images(place)
    known = class_names(place.title, names) if classes is None else classes
    if place.path.is_dir():
        return FolderFiles(place.title, place.path, names, known)
    return ZipFiles(place, known)


class Files(Examples):
    """Image files listed by name; a subclass says how to read one."""

    def __init__(self, title: str, names: Sequence[str], classes: tuple[str, ...]) -> None:
        """Takes the images of a place.

        Args:
          title: what messages call the set.
          names: paths with `/`, the class folder first, in the order of a listing.
          classes: class names in label order, from the training images.

        Raises:
          UserError: the folders are no class folders, or not those of `classes`.
        """
        self.title = title
        self.names = tuple(names)
        self.classes = classes
        if unknown := sorted(set(_folders(title, names)) - {""} - set(classes)):
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
    def sizes(self) -> Int[NumpyArray, "n"]:
        """[n] int64 bytes of the files; -1 of one that is not there any more."""

    def fingerprint(self) -> str:
        if len(self) > SHAPE_LIMIT:
            return self._fingerprint()
        return self._fingerprint(self.sizes())

    @abstractmethod
    def content(self, i: int) -> bytes:
        """The whole file; raises `Unreadable`."""

    @abstractmethod
    def head(self, i: int) -> bytes:
        """The first bytes of the file, enough for most headers; raises `Unreadable`."""

    def read(self, i: int) -> tuple[bytes, int]:
        return self.content(i), int(self._labels[i])

    @cached_property
    def shape(self) -> tuple[int, int, int] | None:  # type: ignore[override]
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

    def sizes(self) -> Int[NumpyArray, "n"]:
        def size(name: str) -> int:
            try:
                return Path(self.folder, name).stat().st_size
            except OSError:
                return -1

        return np.array([size(name) for name in self.names], np.int64)

    def content(self, i: int) -> bytes:
        return self._read(i, -1)

    def head(self, i: int) -> bytes:
        return self._read(i, _HEAD)

    def _read(self, i: int, count: int) -> bytes:
        try:
            with open_regular(Path(self.folder, self.names[i])) as file:
                return file.read(count)
        except OSError as error:
            link = Path(self.folder, self.names[i]).is_symlink()
            lost = link and isinstance(error, FileNotFoundError)
            said = "a link that leads nowhere" if lost else reason(error)
            raise Unreadable(self.names[i], said) from error


class ZipFiles(Files):
    """Image files in a zip file, read by place, so that any number of threads share one handle."""

    def __init__(self, place: Place, classes: tuple[str, ...]) -> None:
        super().__init__(place.title, place.names, classes)
        members = place.listing.members
        chosen = [members[place.inside + name] for name in self.names]
        self.path = os.fspath(place.path)
        with reading(self.path):  # a damaged directory may hold numbers of 64 bits
            self._start = np.array([member.header_offset for member in chosen], np.int64)
            self._packed = np.array([member.compress_size for member in chosen], np.int64)
            self._check = np.array([member.CRC for member in chosen], np.uint32)
            self._size = np.array([member.file_size for member in chosen], np.int64)
            self._method = np.array([member.compress_type for member in chosen], np.uint16)
        self._locked = np.array([member.flag_bits & 1 for member in chosen], bool)
        self._open()

    def _open(self) -> None:
        self._handle = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_handle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def sizes(self) -> Int[NumpyArray, "n"]:
        return self._size

    def content(self, i: int) -> bytes:
        data = self._unpacked(i, self._member(i, int(self._packed[i])), int(self._size[i]))
        if len(data) != self._size[i] or zlib.crc32(data) != self._check[i]:
            raise Unreadable(self.names[i], "damaged in the zip file (checksum)")
        return data

    def head(self, i: int) -> bytes:
        return self._unpacked(i, self._member(i, min(int(self._packed[i]), _HEAD)), _HEAD)

    def _unpacked(self, i: int, data: bytes, size: int) -> bytes:
        """The first `size` bytes of what was packed."""
        if self._method[i] == zipfile.ZIP_STORED:
            return data
        if size > unpacked_limit(len(data)):
            raise Unreadable(self.names[i], "unpacks to more than the limit")
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size) if size else b""
        except zlib.error as error:
            raise Unreadable(self.names[i], f"damaged in the zip file ({error})") from error

    def _member(self, i: int, count: int) -> bytes:
        """The first `count` packed bytes of a member."""
        method = int(self._method[i])
        if self._locked[i]:
            raise Unreadable(self.names[i], "protected by a password; pack it again without one")
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            name = zipfile.compressor_names.get(method, f"method {method}")  # type: ignore[attr-defined]
            raise Unreadable(self.names[i], f"packed by {name}; pack it again by store or deflate")
        # A member starts with a header of its own: 30 bytes, then a name and extra bytes
        # whose lengths stand at 26 and 28 and may differ from those in the directory.
        start = int(self._start[i])
        try:
            header = os.pread(self._handle, 30, start)
            if len(header) == 30:
                start += 30 + sum(struct.unpack_from("<HH", header, 26))
                data = os.pread(self._handle, count, start)
                if len(data) == count:
                    return data
        except OSError as error:
            raise Unreadable(self.names[i], error.strerror or str(error)) from error
        raise Unreadable(self.names[i], "beyond the end of the zip file, which is cut short")


def class_names(title: str, names: Sequence[str]) -> tuple[str, ...]:
    """The sorted class folders of training images, empty where they lie in none.

    Raises:
      UserError: images beside class folders, or one class folder alone.
    """
    folders = _folders(title, names)
    if folders == [""]:
        return ()
    if len(folders) == 1:
        raise UserError(
            f"data.source: {title} holds one class only ({folders[0]}); add a second class folder, "
            "or give the class folder itself to train without labels"
        )
    return tuple(folders)


def _folders(title: str, names: Sequence[str]) -> list[str]:
    """The sorted class folders of some images, "" for images in none."""
    folders = sorted({_folder(name) for name in names})
    if folders[:1] == [""] and len(folders) > 1:
        loose = next(name for name in names if "/" not in name)
        raise UserError(
            f"data.source: {title} holds images beside its class folders (first: {loose}); "
            "move them into a class folder"
        )
    return folders


def _folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""
