"""Which folders of a data set are its splits and which are its classes, by what lies side by side.

    set/train/cat/1.jpg   set/val/cat/1.jpg     splits: train beside val, both with class folders
    set/train/1.jpg       set/test/1.jpg        splits without labels
    set/train/1.jpg       set/bus/1.jpg         classes: train is one of them
    set/photos/cat/1.jpg  set/photos/dog/1.jpg  one folder deeper: read like set/photos

What is read, and what is left out, is told at the start of a run.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaxcl.data.listing import Listing, counted, is_hidden, listing, named
from jaxcl.errors import UserError

TRAIN_NAMES = ("train", "training")
"""Names of a folder or zip file of training images, in any case, with or without `set` behind."""
TEST_NAMES = ("test", "val", "validation", "valid", "testing", "dev")
"""Names of a folder or zip file of test images, likewise; the first that is there is read."""
_USUAL = (".jpg", ".png", ".webp", ".gif", ".tif")  # endings that a message names


class Group(NamedTuple):
    """A folder or zip file of images, as its neighbours see it."""

    size: int
    flat: bool
    """True where images lie in the folder itself, False where all lie in folders inside it."""


@dataclass(frozen=True)
class Place:
    """A folder on disk, a zip file, or a folder inside a zip file."""

    listing: Listing
    inside: str = ""
    """Path of the folder within the listing: empty, or with `/` at its end."""

    @property
    def path(self) -> Path:
        """The zip file, or the folder on disk."""
        path = self.listing.path
        return path / self.inside if path.is_dir() else path

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.listing.path.name}/{self.inside}".rstrip("/")

    @cached_property
    def names(self) -> list[str]:
        """The images of this place, as paths within it."""
        return _within(self.listing.names, self.inside)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The folders that hold images, by name; images beside the folders are called "".

        Zip files with a split's name are among them where one of the names is that of training.
        """
        count, flat = Counter[str](), set[str]()
        for name in self.names:
            top, _, rest = name.partition("/")
            top = top if rest else ""
            count[top] += 1
            if "/" not in rest:
                flat.add(top)
        zips = [name for name in _within(self.listing.zips, self.inside) if _role(name)]
        if any(_role(name) == "train" for name in (*count, *zips)):
            for name in zips:
                count.setdefault(name.partition("/")[0], 0)
        return {
            top: self.part(top).as_group() if top in zips else Group(n, top in flat)
            for top, n in count.items()
        }

    def empty(self) -> list[str]:
        """The folders of this place that hold no image."""
        return [name for name in _within(self.listing.empty, self.inside) if "/" not in name]

    def inner_names(self) -> list[str]:
        """The names of the folders inside this place's folders."""
        return sorted({name.split("/", 2)[1] for name in self.names if name.count("/") > 1})

    def as_group(self) -> Group:
        """This place, as its neighbours see it."""
        return Group(len(self.names), "" in self.innermost().groups)

    def part(self, name: str) -> "Place":
        """A folder of this place, or a zip file in it."""
        if f"{self.inside}{name}" in self.listing.zips:
            return Place(listing(self.path / name))
        return Place(self.listing, f"{self.inside}{name}/")

    def innermost(self, stop: Callable[[str], object] = lambda name: False) -> "Place":
        """This place, or the one folder in it whose own folders hold all the images.

        Args:
          stop: true for names of folders that are not entered.
        """
        groups = self.groups
        if len(groups) != 1:
            return self
        name, group = next(iter(groups.items()))
        if not name or group.flat or stop(name):
            return self
        return self.part(name).innermost(stop)


class Layout(NamedTuple):
    """Where the images of both splits lie."""

    train: Place
    train_rule: str
    """Why the training images are these."""
    test: Place | None
    test_rule: str
    """Why the test images are these."""
    left: list[str]
    """Lines about the images and folders that are not read, each with its reason."""


def find_layout(path: Path) -> Layout:
    """The training and the test images of a folder or a zip file; either may have no image.

    Raises:
      UserError: a folder cannot be read, or may be a split as well as a class.
    """
    whole = Place(listing(path))
    place = whole.innermost(_role)
    groups = place.groups
    if any(_role(name) == "train" for name in groups):
        empty = [name for name in place.empty() if _role(name) == "test"]
        groups = groups | dict.fromkeys(empty, Group(0, flat=False))
    trains, tests = _with_role("train", groups), _with_role("test", groups)
    left = []
    if trains and _is_split(place, groups, trains[0], tests):
        name, test_name = trains[0], _first_like(groups[trains[0]], tests, groups)
        train, rule = place.part(name).innermost(), f"{name} of {place.title}"
        test, test_rule = place.part(test_name) if test_name else None, f"{test_name} beside {name}"
        left = _unused(groups, name, test_name)
    else:
        _refuse_tests_alone(place, groups)
        kind = "class folders" if any(groups) else "images"
        train, rule, test, test_rule = place, f"the {kind} of {place.title}", None, ""
        if {*map(_role, inner := place.inner_names())} >= {"train", "test"}:
            splits = named([name for name in inner if _role(name)])
            rule += f", each with all that its folders {splits} hold"
    if test is None and (test := _neighbour(whole, train)):
        test_rule = f"{test.title} beside {whole.path.name}"
    listings = [whole.listing, train.listing, *([test.listing] if test else [])]
    return Layout(train, rule, test, test_rule, left + _left_out(listings))


def _is_split(place: Place, groups: dict[str, Group], train: str, tests: list[str]) -> bool:
    """True where the folder called train is a split, False where it is a class.

    Raises:
      UserError: it may be either.
    """
    others = [name for name in groups if name and not _role(name)]
    nested = not groups[train].flat or train.endswith(".zip")
    if not others or any(groups[test].flat == groups[train].flat for test in tests):
        return True
    if not nested and not tests:
        return False
    if nested and (tests or train.endswith(".zip") or all(groups[name].flat for name in others)):
        return True
    raise UserError(
        f"data.source: {place.title} holds {train} beside {named(sorted(others))}, so that {train} "
        "may be a split or a class; rename it if it is a class, else "
        + (f"give {place.part(train).path}" if place.path.is_dir() else "take the others away")
    )


def _first_like(train: Group, tests: list[str], groups: dict[str, Group]) -> str:
    """The preferred test folder, before all one that has class folders where training has them."""
    held = [name for name in tests if groups[name].size]
    alike = [name for name in held if groups[name].flat == train.flat]
    return next(iter(alike + held + tests), "")


def _neighbour(whole: Place, train: Place) -> Place | None:
    """The test images beside a folder or zip file that is called train and was itself named."""
    if _role(whole.path.name) != "train":
        return None
    parent, beside = whole.path.resolve().parent, dict[str, Place]()
    entries = parent.iterdir() if os.access(parent, os.R_OK) else ()
    for path in entries:
        if _role(path.name) == "test" and (path.is_dir() or path.suffix.lower() == ".zip"):
            beside[path.name] = Place(listing(path))
    sizes = {name: test.as_group() for name, test in beside.items()}
    name = _first_like(train.as_group(), _with_role("test", sizes), sizes)
    return beside[name] if name else None


def _refuse_tests_alone(place: Place, groups: dict[str, Group]) -> None:
    """Raises `UserError` where there are only folders with names of test splits."""
    if len(groups) > 1 and all(_role(name) == "test" for name in groups):
        raise UserError(
            f"data.source: {place.title} holds {named(sorted(groups))}, and no folder of training "
            f"images that is called {TRAIN_NAMES[0]}; add or rename it, or give one of these alone"
        )


def no_images(place: Place) -> UserError:
    """The error for a place without images, which says what is there instead."""
    found = "; ".join(_left_out([place.listing]))
    return UserError(
        f"data.source: {place.title} holds no images ({' '.join(_USUAL)} and others); give another "
        "path" + (f"; not read: {found}" if found else "")
    )


def _unused(groups: dict[str, Group], train: str, test: str) -> list[str]:
    """The folders beside the splits that are not read, and why."""
    left = []
    for name, (size, _) in sorted(groups.items()):
        if not name:
            left.append(f"{size:,} images beside {train}")
        elif name not in (train, test):
            instead = {"train": train, "test": test}.get(_role(name))
            why = f"since {instead} is read" if instead else "which has no split's name"
            left.append(f"{name} ({size:,} images), {why}")
    return left


def _left_out(listings: list[Listing]) -> list[str]:
    """What a scan left out, in words."""
    left = []
    for one in {id(one): one for one in listings}.values():
        used = {other.path for other in listings}
        zips = sum(one.path / name not in used for name in one.zips)
        if words := counted(one.left + Counter({".zip": zips})):
            left.append(f"in {one.path.name} {words}")
        if one.empty:
            left.append(f"folders without images in {one.path.name}: {named(one.empty)}")
    return left


def _with_role(wanted: str, names: Iterable[str]) -> list[str]:
    """The names of such a split, the preferred ones first, a folder before a zip file."""
    order = TRAIN_NAMES + TEST_NAMES
    found = [name for name in names if _role(name) == wanted]
    return sorted(found, key=lambda name: (order.index(_plain(name)), name.endswith(".zip"), name))


def _role(name: str) -> str:
    """`train` or `test` for the name of a split, else nothing."""
    plain = "" if is_hidden(name) else _plain(name)
    return "train" if plain in TRAIN_NAMES else "test" if plain in TEST_NAMES else ""


def _plain(name: str) -> str:
    """The name of a folder or zip file without case, ending and the word set."""
    name = name.rpartition("/")[2].lower().removesuffix(".zip")
    return name.removesuffix("set").rstrip("-_ ")


def _within(names: list[str], inside: str) -> list[str]:
    """The names inside a folder, as paths within it."""
    if not inside:
        return names
    return [name.removeprefix(inside) for name in names if name.startswith(inside)]
