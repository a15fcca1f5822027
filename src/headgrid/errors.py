"""What can go wrong -> one sentence in the user's words.

Every error that headgrid raises on purpose is a `HeadgridError`. The command
line prints its text and nothing else, so a text names what was found, what was
expected, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadgridError(Exception):
    """Base of every error that headgrid raises on purpose."""


class CaptureError(HeadgridError, ValueError):
    """A capture, or the file that should hold one, is not usable."""


class OptionError(HeadgridError, ValueError):
    """An option has a value that it cannot have (wrong usage)."""


class RenderError(HeadgridError, RuntimeError):
    """A specification could not be turned into a picture."""


class OutputError(HeadgridError, OSError):
    """A file or folder could not be written."""


class HeadgridWarning(UserWarning):
    """Something in the input is odd, and was handled as the text says."""


def near_miss(found: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest choice, or ``""``.

    >>> near_miss("svgg", ["svg", "png"])
    "; did you mean 'svg'?"
    >>> near_miss("zzz", ["svg", "png"])
    ''
    """
    close = difflib.get_close_matches(found.lower(), list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_choice(name: str, found: object, choices: Iterable[str]) -> str:
    """Return ``found`` if it is one of ``choices``.

    Raises
    ------
    OptionError
        Otherwise, with the list of choices and the nearest of them.
    """
    listed = list(choices)
    if isinstance(found, str) and found in listed:
        return found
    raise OptionError(
        f"{name} is {found!r}, expected one of {', '.join(listed)}{near_miss(str(found), listed)}"
    )
