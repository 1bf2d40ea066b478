"""Stopping a run by a signal, once it is at a place where it can go on later."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jaxcl.scale import ProcessGroup, process_group


class Stop:
    """Whether someone asked the run to stop."""

    _asked = False

    def ask(self) -> None:
        """From now on it did."""
        self._asked = True

    def asked(self) -> bool:
        """Whether it did."""  # no field: type checkers take that to stay as it was
        return self._asked


class SharedStop(Stop):
    """Whether any of several processes was asked to stop; all get the same answer at each place."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def ask(self) -> None:
        self._group.ask_stop()

    def asked(self) -> bool:
        self._asked = self._asked or self._group.stops()
        return self._asked


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM ask; a second one stops at once."""
    group = process_group()
    stop = SharedStop(group) if group else Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.ask()
        for signum, handler in before.items():
            signal.signal(signum, handler)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
