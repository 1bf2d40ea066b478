"""Mistakes that a user can mend, told in one line without a traceback."""


class UserError(Exception):
    """Wrong input; the message names the key, the value and the fix.

    The programs print it as one line and leave with status 2; a library caller can catch it.
    """
