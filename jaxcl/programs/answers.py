"""How the programs answer a user's mistake."""

import os
import sys
from collections.abc import Callable

from jaxcl.errors import UserError
from jaxcl.run import Run


def answered(program: Callable[[], object]) -> None:
    """Runs a program; a `UserError` becomes one line on standard error and exit status 2.

    Where the reader of its output has left, as `head` does, it ends without a word.
    """
    try:
        try:
            program()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(1)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def untrained(run: Run) -> Run:
    """The run before its first step; raises `UserError` that names the option to do without."""
    try:
        return run.untrained()
    except UserError as error:
        raise UserError(f"{error}; or leave that comparison away by --no-compare") from error
