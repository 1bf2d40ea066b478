"""How the programs answer a user's mistake."""

import sys
from collections.abc import Callable

from jaxcl.errors import UserError


def answered(program: Callable[[], object]) -> None:
    """Runs a program; a `UserError` becomes one line on standard error and exit status 2."""
    try:
        program()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
