"""Which images lie in a folder or a zip file, from one scan that counts what it leaves out."""

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from jaxcl.data.pixels import EXTENSIONS
from jaxcl.errors import UserError
from jaxcl.reading import reason

_SYSTEM = ("__MACOSX", "lost+found")  # folders that operating systems leave behind
_SHOWN = 6  # kinds and names that a line lists before it counts the others


@dataclass
class Listing:
    """The images of a folder or a zip file, and what beside them is not read."""

    path: Path
    names: list[str]
    """Paths of the images within `path`, with `/`, by folder and then by file name."""
    left: Counter[str] = field(default_factory=Counter)
    """Entries that are not read, by kind."""
    empty: list[str] = field(default_factory=list)
    """Folders that hold no image, without those inside them."""
    zips: list[str] = field(default_factory=list)
    """Zip files in a folder, as paths within it; they are not counted in `left`."""
    members: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    """Where each image lies in a zip file."""


def listing(path: Path) -> Listing:
    """The images of a folder or a zip file.

    Read are files whose ending is one of `EXTENSIONS`. Links are followed, except back into a
    folder that holds the link. Hidden files and folders and those of operating systems are left
    out.

    Raises:
      UserError: a folder or the zip file cannot be read.
    """
    if path.is_dir():
        return _folder_listing(path)
    state = path.stat()
    return _zip_listing(path, (state.st_mtime_ns, state.st_size))


def plain_path(name: str) -> str:
    """The path of a file inside a folder or an archive, as it is compared here.

    Archives and lists that people write may have `\\` between folders, and `/` or `./` in front.
    """
    return PurePosixPath(name.replace("\\", "/").lstrip("/")).as_posix()


def counted(left: Counter[str]) -> str:
    """What was left out, in words: the most frequent kinds first."""
    kinds = sorted((+left).items(), key=lambda item: (-item[1], item[0]))
    words = [f"{count:,} {kind}" for kind, count in kinds[:_SHOWN]]
    if more := sum(count for _, count in kinds[_SHOWN:]):
        words.append(f"{more:,} of other kinds")
    return ", ".join(words)


def named(names: list[str]) -> str:
    """Some names, the first of them written out."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def ending_kind(name: str) -> str:
    """The kind of a file that is left out for its ending."""
    return PurePosixPath(name).suffix.lower() or "without ending"


def is_hidden(name: str) -> bool:
    """True for the name of a file or folder that people do not see or operating systems made."""
    return name.startswith((".", *_SYSTEM))


def _folder_listing(path: Path) -> Listing:
    """Scans a folder; asks the system about folders and links, not about every file."""
    found, folders = Listing(path, []), list[str]()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(path),))]
    while waiting:
        inside, above = waiting.pop()
        for entry in _entries(path, inside):
            name = inside + entry.name
            if is_hidden(entry.name):
                found.left["hidden"] += 1
            elif _is_folder(entry):
                own = _identity(path / name)
                if own in above:
                    found.left["linked back to a folder that holds them"] += 1
                    continue
                folders.append(name)
                waiting.append((f"{name}/", (*above, own)))
            elif name.lower().endswith(".zip"):
                found.zips.append(name)
            elif not name.lower().endswith(EXTENSIONS):
                found.left[ending_kind(name)] += 1
            elif _is_file(entry):
                found.names.append(name)
            else:
                found.left["that are no plain files"] += 1
    return _completed(found, folders)


def _entries(path: Path, inside: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(path / inside) as entries:
            yield from entries
    except OSError as error:
        raise UserError(
            f"data.source: the folder {path / inside} cannot be read ({error.strerror}); "
            "make it readable or remove it"
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        state = folder.stat()
    except OSError as error:
        raise UserError(
            f"data.source: the folder {folder} cannot be read ({error.strerror}); "
            "make it readable or remove it"
        ) from error
    return state.st_dev, state.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """True for files, and for links that lead nowhere: reading says what is wrong with those."""
    if not entry.is_symlink():
        return entry.is_file()
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


@lru_cache(maxsize=4)  # a large directory takes seconds to parse, and is asked for several times
def _zip_listing(path: Path, changed: tuple[int, int]) -> Listing:
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
    except Exception as error:  # besides BadZipFile, whatever zipfile meets in a damaged one
        raise UserError(
            f"data.source={path} cannot be read as a zip file ({reason(error)}); "
            "copy or pack it again"
        ) from error
    found, folders = Listing(path, []), list[str]()
    for member in members:
        name = plain_path(member.filename)
        parts = name.split("/")
        if ".." in parts:
            found.left["that lead out of the archive"] += 1
        elif any(map(is_hidden, parts)):
            found.left["hidden"] += member.filename[-1:] not in ("/", "\\")
        elif member.filename.endswith(("/", "\\")):
            folders.append(name)
        elif not name.lower().endswith(EXTENSIONS):
            found.left[ending_kind(name)] += 1
            folders += parts[:-1] and ["/".join(parts[:-1])]
        else:
            found.left["replaced by a later one of the same name"] += name in found.members
            found.members[name] = member
    found.names = list(found.members)
    return _completed(found, folders)


def _completed(found: Listing, folders: list[str]) -> Listing:
    """Sorts the images, and finds the folders that hold none."""
    # By folder and then by name: `a/1` stands before `a-b/1`, as no character sorts before NUL.
    found.names.sort(key=lambda name: name.replace("/", "\0"))
    full = set[str]()
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in (*found.names, *found.zips)):
        while folder and folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    empty = {folder for folder in folders if folder not in full}
    found.empty = sorted(f for f in empty if f.rpartition("/")[0] not in empty)
    return found
