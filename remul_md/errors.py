"""The one exception for what a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """A file, option or structure is wrong: the message says what, which value, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
