"""One process trains in a run directory at a time: a lock that says whose it is."""

import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxcl.errors import UserError
from jaxcl.records import writing
from jaxcl.scale import process_group

LOCK = ".lock"
SEEN_WITHIN = 10.0
"""Seconds after which what one process wrote is seen by all on a disk that they share."""
BEAT = 15.0
"""Seconds between two signs of life for other hosts: the time at which the lock was changed."""
PATIENCE = 90.0
"""Seconds without a sign of life after which an owner on another host counts as gone."""


class Owner:
    """This process's hold on a run directory.

    Args:
      run: the directory, which is made where it is absent.
      tell: called with each line that the user should read.

    Raises:
      UserError: another process trains there, or the lock cannot be written.
    """

    def __init__(self, run: Path, tell: Callable[[str], None]) -> None:
        if run.exists() and not run.is_dir():
            raise UserError(f"{run} is no directory; use another --dir")
        self.run, self._path, self._tell = run, run / LOCK, tell
        self._made = [p for p in (run, *run.parents) if not p.exists()]
        self._end, self._file = threading.Event(), -1
        self._beats: threading.Thread | None = None
        try:
            with writing(run):
                run.mkdir(parents=True, exist_ok=True)
                sole = self._open()
                self._take(sole)
        except BaseException:
            self.release()
            raise
        self._beats = threading.Thread(target=self._beat, daemon=True, name="run_owner")
        self._beats.start()

    def check(self) -> None:
        """Raises `UserError` where the directory is gone, or no longer this process's."""
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            raise UserError(f"{self.run} was removed while it was trained in") from None
        if not same:
            raise UserError(f"{self.run} was taken over by another process while it was trained in")

    def release(self) -> None:
        """Lets go; a directory that was made for this and is still empty is removed."""
        self._end.set()
        if self._beats:
            self._beats.join()
        if self._file >= 0:
            with suppress(UserError, OSError):
                self.check()
                self._path.unlink()
            os.close(self._file)
            self._file = -1
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _open(self) -> bool:
        """Opens and locks the file; False where this file system locks nothing."""
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sole = True
            except BlockingIOError:
                self._refuse(self._read())
            except OSError:
                sole = False
            with suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                    return sole
            os.close(self._file)  # its last owner has just removed it

    def _take(self, sole: bool) -> None:
        before = self._read()
        if before is not None:
            if before.get("host") != socket.gethostname() or not sole:
                self._watch(before)
            self._tell(f"{self.run} was left by {_who(before)}, which is gone; it is taken over")
        start = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "start": start}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(owner).encode(), 0)

    def _watch(self, before: dict[str, Any]) -> None:
        """Waits for a sign of life; its own clock alone matters, not that of the other host."""
        self._tell(
            f"{self.run} belongs to {_who(before)}; waiting {PATIENCE:g} s for a sign of life"
        )
        seen, until = os.fstat(self._file).st_mtime_ns, time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(min(1.0, PATIENCE))
            if os.fstat(self._file).st_mtime_ns != seen:
                self._refuse(before)

    def _refuse(self, owner: dict[str, Any] | None) -> None:
        os.close(self._file)
        self._file = -1
        raise UserError(
            f"{self.run} is in use by {_who(owner or {})}; wait until it ends, or use another --dir"
        )

    def _read(self) -> dict[str, Any] | None:
        """Who wrote the lock; None where it is empty, {} where it cannot be read."""
        content = os.pread(self._file, 4096, 0)
        if not content:
            return None
        try:
            owner = json.loads(content)
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) else {}

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with suppress(OSError):
                os.utime(self._file)


@contextmanager
def owning(run: Path) -> Iterator[Callable[[], None]]:
    """Holds a run directory while something is done there; gives the check that it is still held.

    Where several processes train, the first one holds it for all.

    Raises:
      UserError: another process trains there, the lock cannot be written, or not all processes of
        this run see the directory.
    """
    group = process_group()
    if group and group.rank:
        group.gathered("")  # the first one has it
        _check_shared(run, group.rank)
        yield lambda: None
        return
    owner = Owner(run, lambda line: print(line, file=sys.stderr))
    try:
        if group:
            group.cleaners.append(owner.release)
            group.gathered("")
        yield owner.check
    finally:
        owner.release()


def _check_shared(run: Path, rank: int) -> None:
    """Waits a little for the lock to be seen here: disks over a network may be late."""
    until = time.monotonic() + SEEN_WITHIN
    while not (run / LOCK).exists():
        if time.monotonic() > until:
            raise UserError(
                f"process {rank} does not see {run.absolute()} as process 0 does; use a --dir on a "
                "disk that all processes share"
            )
        time.sleep(0.1)


def _who(owner: dict[str, Any]) -> str:
    if "pid" not in owner:
        return "another process"
    return f"process {owner['pid']} on {owner.get('host')} since {owner.get('start')}"
