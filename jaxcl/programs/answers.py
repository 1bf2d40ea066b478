"""How the programs answer a user's mistake."""

import gc
import os
import signal
import sys
from collections.abc import Callable

from jaxcl.errors import UserError
from jaxcl.records import REFUSED, unwritable
from jaxcl.run import Run


def answered(program: Callable[[], object]) -> None:
    """Runs a program; a `UserError` becomes one line on standard error and exit status 2.

    So does a disk that refuses what is written. Ctrl-C becomes a line and exit status 130. Where
    the reader of its output has left, as `head` does, it ends without a word.
    """
    status = _status(program)
    if status:
        gc.collect()  # what a failed write left half-done complains where it goes last of all
        sys.exit(status)


def _status(program: Callable[[], object]) -> int:
    try:
        try:
            program()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
        print("stopped", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _drop_output()
        print(f"error: {unwritable('the output', error)}", file=sys.stderr)
        return 2
    return 0


def _drop_output() -> None:
    """What is still to be written out at the exit cannot be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def untrained(run: Run) -> Run:
    """The run before its first step; raises `UserError` that names the option to do without."""
    try:
        return run.untrained()
    except UserError as error:
        raise UserError(f"{error}; or leave that comparison away by --no-compare") from error
