"""Small files of a run: written whole, kept twice, read with a check.

A record is a JSON object that holds the hash of its own content under "sha256"; a second copy of it
lies in the folder `.copies` beside it. Records of earlier versions have neither and are read too.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxcl.errors import UserError

COPIES, HASH, PART, DAMAGED = ".copies", "sha256", ".part", ".damaged"

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
REFUSED = (*_FULL, errno.EROFS)
"""Numbers of errors that only writing meets: a full disk, a read-only one."""


class Unwritable(UserError):
    """A file cannot be written; the message names it and the cause."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an error of the operating system within into one line with its cause.

    Raises:
      Unwritable: `path`, or the file that the error names, cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise Unwritable(unwritable(path, error)) from error


def unwritable(path: object, error: OSError) -> str:
    """The line that names a file which cannot be written, the cause and what to do."""
    place, reason = error.filename or path, error.strerror or str(error)
    fix = "; free space there" if error.errno in _FULL else ""
    fix = "; make it writable" if error.errno in _CLOSED else fix
    return f"cannot write {place} ({reason}){fix}"


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file in a folder that is there; an older one is replaced when all is on disk.

    Raises:
      Unwritable: it cannot be written; what was there before is kept.
    """
    part = path.with_name(path.name + PART)
    with writing(path):
        try:
            with part.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Writes a record and its second copy.

    Raises:
      Unwritable: one of them cannot be written.
    """
    text = json.dumps(sealed(content), indent=1) + "\n"
    copy = _copy_of(path)
    with writing(copy):
        copy.parent.mkdir(exist_ok=True)
    write_whole(copy, text)
    write_whole(path, text)


def has_record(path: Path) -> bool:
    """Whether the record or its second copy is there."""
    return path.is_file() or _copy_of(path).is_file()


def read_record(path: Path, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The content of a record; a damaged one is told and replaced by its second copy.

    Args:
      path: the record.
      tell: called with a line that the user should read; None: a warning of `logging`.

    Raises:
      UserError: neither the record nor its copy is whole.
    """
    tell = tell or logging.getLogger(__name__).warning
    own, problem = _whole(path)
    copy, _ = _whole(_copy_of(path))
    if own is not None and (HASH in own or copy is None or HASH not in copy):
        return _content(own)
    if copy is None or HASH not in copy:
        raise UserError(f"{path} is damaged ({problem}), and there is no whole copy of it")
    told = f"{path} is damaged ({problem or 'its hash is missing'}); its second copy is used"
    with suppress(OSError, Unwritable):  # one may read where one may not write
        if path.exists():
            path.replace(path.with_name(path.name + DAMAGED))
            told += f", and it is kept as {path.name}{DAMAGED}"
        write_whole(path, json.dumps(copy, indent=1) + "\n")
    tell(told)
    return _content(copy)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its hash."""
    return {**content, HASH: _hash(content)}


def unsealed(found: bytes) -> dict[str, Any]:
    """What `sealed` was given, from JSON; without a hash, as earlier versions wrote it, as it is.

    Raises:
      ValueError: it is no JSON object, or not the one that the hash belongs to.
    """
    return _content(_parsed(found))


def _copy_of(path: Path) -> Path:
    return path.parent / COPIES / path.name


def _whole(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON object of a file with its hash, or None and what is wrong with it."""
    try:
        return _parsed(path.read_bytes()), ""
    except FileNotFoundError:
        return None, "it is missing"
    except OSError as error:
        return None, error.strerror or str(error)
    except json.JSONDecodeError as error:
        return None, f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return None, str(error)


def _parsed(found: bytes) -> dict[str, Any]:
    try:
        stored = json.loads(found.decode())
    except UnicodeDecodeError as error:
        raise ValueError("it is no text") from error
    if not isinstance(stored, dict):
        raise ValueError("it holds no JSON object")
    if HASH in stored and stored[HASH] != _hash(_content(stored)):
        raise ValueError("it is not as it was written")
    return stored


def _content(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name != HASH}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
