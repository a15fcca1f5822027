"""What can go wrong -> one sentence in the user's words.

Every error that headgrid raises on purpose is a `HeadgridError`. The command line prints
its text alone: what was found, what was expected, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral

from headgrid.text import shorten_text


class HeadgridError(Exception):
    """Base of every error that headgrid raises on purpose."""


class CaptureError(HeadgridError, ValueError):
    """A capture, or the file that should hold one, is not usable."""


class OptionError(HeadgridError, ValueError):
    """An option has a value that it cannot have (wrong usage)."""


class RenderError(HeadgridError, RuntimeError):
    """A specification could not be turned into a picture."""


class RecordError(HeadgridError, RuntimeError):
    """The model's attention calls do not fit what was asked of the recorder."""


class OutputError(HeadgridError, OSError):
    """A file or folder could not be written."""


class HeadgridWarning(UserWarning):
    """Something in the input is odd, and was handled as the text says."""


def near_miss(found: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest choice, or ``""``."""
    close = difflib.get_close_matches(found.lower(), list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def explain(source: str, error: Exception) -> HeadgridError:
    """Return an error in the user's words: itself, or what headgrid did not foresee."""
    from concurrent.futures import BrokenExecutor

    if isinstance(error, HeadgridError):
        return error
    if isinstance(error, BrokenExecutor):
        return RenderError(f"{source}: {error}")
    found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return HeadgridError(
        f"{source}: internal error ({found}); please report it, with the output of the same "
        "command under HEADGRID_DEBUG=1"
    )


def check_choice(name: str, found: object, choices: Iterable[str]) -> str:
    """Return ``found`` if it is one of ``choices``; else the error tells them, and the nearest."""
    listed = list(choices)
    if isinstance(found, str) and found in listed:
        return found
    hint = near_miss(found[:80], listed) if isinstance(found, str) else ""
    expected = f"{'one of ' * (len(listed) > 1)}{', '.join(listed)}"
    raise OptionError(f"{name} is {show_value(found)}, expected {expected}{hint}")


def check_whole(name: str, found: object, least: int = 1) -> int:
    """Return ``found`` if it is a whole number, of Python or numpy, that is large enough."""
    if isinstance(found, bool) or not isinstance(found, Integral) or int(found) < least:
        raise OptionError(
            f"{name} is {show_value(found)}, expected a whole number, at least {least}"
        )
    return int(found)


def damaged(source: str, finding: str, expected: str) -> CaptureError:
    """Return the error for a file whose content contradicts itself."""
    return CaptureError(
        f"{source}: the file is damaged ({finding}), expected {expected}; copy or record it anew"
    )


def describe_error(error: BaseException) -> str:
    """Return why an operation failed, on one short line."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = shorten_text(getattr(error, "strerror", None) or str(error).partition("\n")[0], 90)
    return f"can not be opened ({text})" if isinstance(error, OSError) else text


def show_value(value: object) -> str:
    """Return what somebody gave for a message: as Python writes it, and short."""
    try:
        return shorten_text(repr(value), 80)
    except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
        return f"a {type(value).__name__}"
