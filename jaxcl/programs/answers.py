"""How the programs answer a user's mistake."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from jaxcl.errors import UserError
from jaxcl.records import REFUSED, unwritable
from jaxcl.run import Run
from jaxcl.scale import process_group

STOPPED = 130
"""Exit status where Ctrl-C or SIGTERM stopped what can go on later."""


def answered(program: Callable[[], object]) -> None:
    """Runs a program; a `UserError` becomes one line on standard error and exit status 2.

    So does a disk that refuses what is written. Ctrl-C becomes a line and exit status 130. Where
    the reader of its output has left, as `head` does, it ends without a word. Of several processes
    the first one alone prints its output, and one that fails ends all.
    """
    end = _end(program)
    if end.status and (group := process_group()):
        line = end.line.removeprefix("error: ") or f"it ended with status {end.status}"
        group.fail(line, end.status, text=end.line, error=end.error)
    if end.line:
        print(end.line, file=sys.stderr)
    if end.status:
        gc.collect()  # what a failed write left half-done complains where it goes last of all
        sys.exit(end.status)


class _End(NamedTuple):
    """How a program ended: its exit status, the line that says why, and what was raised."""

    status: int = 0
    line: str = ""
    error: BaseException | None = None


def _end(program: Callable[[], object]) -> _End:
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as while modules were imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            program()
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        drop_output()
        return _End(1, "", error)
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
        return _End(STOPPED, "stopped", error)
    except UserError as error:
        return _End(2, f"error: {error}", error)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        drop_output()
        return _End(2, f"error: {unwritable('the output', error)}", error)
    except SystemExit as error:
        if error.code in (None, 0, STOPPED):  # all processes do
            raise
        return _End(error.code if isinstance(error.code, int) else 1, "", error)
    return _End()


def drop_output() -> None:
    """Sends what this process still writes to standard output nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def untrained(run: Run) -> Run:
    """The run before its first step; raises `UserError` that names the option to do without."""
    try:
        return run.untrained()
    except UserError as error:
        raise UserError(f"{error}; or leave that comparison away by --no-compare") from error
