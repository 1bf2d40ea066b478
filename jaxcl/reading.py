"""Files from elsewhere: how they are opened, how much of them is taken, what a failure becomes.

Every reader of a file that someone else may have made goes through here, so that each limit stands
once and any failure while reading X is one line about X. `SECURITY.md` tells users the limits.
"""

import errno
import gzip
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_origin, get_type_hints, is_typeddict

import typeguard

from jaxcl.errors import UserError
from jaxcl.typing import NumpyArray

UNPACKED = 64 << 20
"""Bytes that any packed file may unpack to."""
UNPACKED_TEXT = 8 << 20
"""The same of a packed text, whose lines take longer than their bytes."""
UNPACKED_RATIO = 20
"""Bytes beyond those that a packed file may unpack to, per byte of it."""
JSON_BYTES = 64 << 20
"""Largest JSON file, a tokenizer's say."""
LINE = 1 << 24
"""Longest line of a text, in bytes, and longest field of a table, in characters."""
GZIP = b"\x1f\x8b"
"""How a gzip file begins."""
PIXELS = 100_000_000
"""Largest image."""
LAYERS = 512
"""Most layers of a network that a file describes; no known one has as many."""
WIDER = 16
"""How many times as wide as any tensor of its file a config may be; what is less is told with the
shapes of all tensors that do not fit."""
NETWORKS = 64
"""Most networks in one file."""
TENSORS = 50_000
"""Most tensors in one file."""
PICKLE_STEPS = 2_000_000
"""Most steps of a torch file's pickle; a thousand tensors take 60,000."""
PICKLE_DEPTH = 64
"""Most containers within each other in a torch file."""
REASON = 200
"""Characters of another library's message that are repeated."""


@contextmanager
def reading(what: str | Path, kind: str = "") -> Iterator[None]:
    """Makes any failure inside a `UserError` of one line about what is read.

    Args:
      what: the file or folder, or the key that names it.
      kind: what the file should be: "whole zip file" say.

    Raises:
      UserError: as it was raised inside, or for any other exception. Libraries in Rust end in a
        panic, which is no `Exception`; that too becomes a line.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        known = kind and not (isinstance(error, MemoryError) or getattr(error, "strerror", None))
        said = f"is no {kind}" if known else "cannot be read"
        raise UserError(f"{what} {said} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """What went wrong, in one short line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:REASON]}" if lines else type(error).__name__


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Opens a file for reading, but no pipe and no device, which may never end.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", str(path))
    return file


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in alphabetical order; nothing where there is no such folder.

    Raises:
      UserError: it may not be read. `Path.glob` would say that it is empty.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def unpacked_limit(packed: int, *, text: bool = False) -> int:
    """Bytes that `packed` bytes may become."""
    return (UNPACKED_TEXT if text else UNPACKED) + UNPACKED_RATIO * packed


def check_unpacked(size: int, packed: int, *, text: bool = False) -> None:
    """Raises `ValueError` where so much is no likely content of a file of that size."""
    limit = unpacked_limit(packed, text=text)
    if size > limit:
        raise ValueError(f"{packed:,} bytes unpack to {size:,} or more; the limit is {limit:,}")


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose members together stay within the limit of unpacked bytes.

    Python's reader takes no more of a member than the size that is declared, so that the sum of
    those is what can come of it.

    Raises:
      UserError: it is no whole zip file, or too much is packed in it.
    """
    with ExitStack() as opened:
        with reading(path, "whole zip file"):
            file = opened.enter_context(open_regular(path))
            archive = opened.enter_context(zipfile.ZipFile(file))
            members = archive.infolist()
            check_unpacked(sum(member.file_size for member in members), path.stat().st_size)
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename} is packed by a method beside deflate")
        yield archive


@contextmanager
def text_stream(path: Path) -> "Iterator[BufferedReader[Any]]":
    """The bytes of a text file, unpacked where they begin as gzip does or the name ends in .gz.

    Raises:
      UserError: it cannot be read, or too much is packed in it.
    """
    with ExitStack() as opened:
        with reading(path):
            file = opened.enter_context(open_regular(path))
            start = file.read(len(GZIP))
            file.seek(0)
        packed = start == GZIP or path.suffix.lower() == ".gz"
        content: BufferedReader[Any] = BufferedReader(_Unpacked(file)) if packed else file
        with reading(path, "whole gzip file" if packed else ""):
            yield content


class _Unpacked(RawIOBase):
    """What a gzip file unpacks to, as long as it is within the limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, 0
        self._content = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._content.read(len(buffer))
        self._size += len(part)
        check_unpacked(self._size, self._file.tell(), text=True)
        buffer[: len(part)] = part
        return len(part)


def read_json(path: Path, form: Any = None) -> Any:
    """What a JSON file holds.

    Args:
      path: the file.
      form: the type that it must have: a `TypedDict` for an object, whose other keys are left
        unchecked, or `list` of one; None: anything.

    Raises:
      UserError: it is absent, damaged, too large, or of another form.
    """
    with reading(path):
        try:
            with open_regular(path) as file:
                text = file.read(JSON_BYTES + 1)
        except FileNotFoundError:
            raise UserError(f"{path.parent} holds no {path.name}") from None
        if len(text) > JSON_BYTES:
            raise UserError(f"{path} is larger than {JSON_BYTES:,} bytes, the limit for JSON")
        content = json.loads(text.decode("utf-8-sig"))
    return content if form is None else check_form(content, form, path)


def check_form(content: Any, form: Any, what: str | Path) -> Any:
    """Returns `content` where it has the form of a type, a `TypedDict` above all.

    Raises:
      UserError: it has not; the message names the key.
    """
    every = typeguard.CollectionCheckStrategy.ALL_ITEMS
    try:
        typeguard.check_type(_named(content, form), form, collection_check_strategy=every)
    except typeguard.TypeCheckError as error:
        said = " ".join(str(error).split())[:REASON]
        raise UserError(f"{what}: {said.replace('of dict ', '')}") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply") from error
    return content


def _named(content: Any, form: Any) -> Any:
    """The content without the keys of objects that their form does not name."""
    if isinstance(content, list) and get_origin(form) is list:
        return [_named(item, get_args(form)[0]) for item in content]
    if isinstance(content, dict) and is_typeddict(form):
        forms = get_type_hints(form)
        return {name: _named(item, forms[name]) for name, item in content.items() if name in forms}
    return content


def inside(folder: Path, name: str, source: str | Path) -> Path:
    """The path of what a file names, which must lie in the folder that the user named.

    Args:
      folder: what was named.
      name: relative path in it; "" for the folder itself.
      source: the file that says so.

    Raises:
      UserError: the name leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name.replace("\\", "/")).parts or "\0" in name:
        raise UserError(f"{source} names {name!r}, which lies outside of {folder}; it is not read")
    return folder / name


def check_sizes(
    sizes: Mapping[str, int], tensors: Mapping[str, NumpyArray], source: str | Path
) -> None:
    """Raises `UserError` where a config announces what its file's tensors cannot hold.

    Args:
      sizes: by their key, numbers of layers and of channels, ids, positions.
      tensors: of the file, by name.
      source: the config.
    """
    widest = max((max(tensor.shape, default=0) for tensor in tensors.values()), default=0)
    for key, size in sizes.items():
        layers = "layers" in key
        most = min(len(tensors), LAYERS) if layers else WIDER * widest
        if not 0 <= size <= most:
            there = f"{len(tensors)} tensors, of at most {widest} along a side"
            limit = f", and {LAYERS} layers are the limit" if layers else ""
            raise UserError(f"{source}: {key}={size}, but the file holds {there}{limit}")
