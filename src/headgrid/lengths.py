"""Text with a unit -> a length in points."""

from __future__ import annotations

import math
import re
from contextlib import suppress

from headgrid.errors import OptionError, show_value

#: Points of 1/72 inch in each unit.
UNITS = {"pt": 1.0, "in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4}
_LENGTH = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*")
#: Narrower nothing can be read; wider no renderer's page can be.
_SHORTEST, _LONGEST = 36.0, 14_400.0


def read_length(name: str, value: object) -> float:
    """Return a length in points.

    Parameters
    ----------
    name : str
        What it is the length of, for the message.
    value : float or str
        Points, or a number with one of the units pt, in, cm and mm.

    Raises
    ------
    OptionError
        For anything else, and for lengths outside 36 to 14,400 points (half an
        inch to 200 inches, the largest page of a PDF).

    Examples
    --------
    >>> read_length("width", "13.97cm"), read_length("width", 396)
    (396.0, 396.0)
    """
    points = math.nan
    if isinstance(value, str):
        found = _LENGTH.fullmatch(value)
        if found and (found[2].lower() or "pt") in UNITS:
            points = float(found[1]) * UNITS[found[2].lower() or "pt"]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # of a whole number with hundreds of digits
            points = float(value)
    if not _SHORTEST <= points <= _LONGEST:
        size = f", that is {points:,.4g} pt" if math.isfinite(points) else ""
        raise OptionError(
            f"{name} is {show_value(value)}{size}, expected points or a number with one of "
            f"{', '.join(UNITS)} (13.97cm), {_SHORTEST:g} to {_LONGEST:,.0f} points in all"
        )
    return round(points, 6)
