"""Mistakes that a user can mend, told in one line without a traceback."""

from importlib.util import find_spec


class UserError(Exception):
    """Wrong input; the message names the key, the value and the fix.

    The programs print it as one line and leave with status 2; a library caller can catch it.
    """


def need(package: str, key: str, otherwise: str) -> None:
    """Raises `UserError` where a package that only some runs need is not installed.

    Args:
      package: its name, for Python and for pip.
      key: what needs it.
      otherwise: what can be done without it.
    """
    if find_spec(package) is None:
        raise UserError(
            f"{key} needs {package}, which is not installed; pip install {package}, {otherwise}"
        )
