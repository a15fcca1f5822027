"""Specification -> a refusal where a number in it makes the engine do more than it survives.

The engine's heap ends at 1.4 GB, and the process with it. A few bytes are enough:
a thousand million ticks, bins or steps, a step of a thousand-millionth, or lists
that multiply. The limits are far above what can be seen in a figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from headgrid.charts.spec import MAX_MARKS, Spec
from headgrid.errors import RenderError
from headgrid.render.anatomy import parts_of, records_of, walk
from headgrid.text import shorten_text

#: The largest number that may stand under a key. An axis has a tick every 40 points.
_LARGEST = {
    "tickCount": 2_000,
    "maxbins": 10_000,
    "steps": 10_000,
    "width": 100_000,
    "height": 100_000,
    "continuousWidth": 100_000,
    "continuousHeight": 100_000,
    "gradientLength": 100_000,
    "columns": 100_000,
    "order": 100,
}
#: The smallest step of quantiles, as a share, and of a graticule in degrees.
_SMALLEST_SHARE = 1e-4
_SMALLEST_DEGREES = 0.1
_MAX_LINES = 1_000
_MAX_COPIES = 1_000
_MAX_VALUES = 10_000


def refuse_amounts(spec: Spec) -> None:
    """Refuse a specification that asks for absurd amounts.

    Raises
    ------
    RenderError
        With the number, and where it stands.

    Examples
    --------
    >>> refuse_amounts({"mark": "bar", "config": {"axis": {"tickCount": 10**9}}})
    Traceback (most recent call last):
        ...
    headgrid.errors.RenderError: the specification has 1000000000 at config.axis.tickCount, \
expected at most 2,000, beyond which the renderer runs out of time or memory
    """
    for path, key, value in walk(spec):
        most = _find_limit(path, key, value)
        if most is not None:
            raise _too_much(shorten_text(str(value), 60), path, most)
    rows = _count_rows(spec)
    if rows > MAX_MARKS:
        raise _too_much(f"{rows:,.0f} rows", "transform", f"at most {MAX_MARKS:,}")


def count_sequence(sequence: Any) -> float:
    """Return how many rows or values a sequence has that is given by start, stop and step."""
    try:
        step = abs(float(sequence.get("step", 1)))
        return abs(float(sequence["stop"]) - float(sequence.get("start", 0))) / step
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError):
        return math.inf


def _find_limit(path: str, key: str, value: Any) -> str | None:
    """Return what is expected in the place of a value that is too much."""
    most = _LARGEST.get(key)
    if most is not None and _is_number(value) and not abs(value) <= most:
        return f"at most {most:,}"
    if key == "step" and _is_number(value) and not abs(value) <= _LARGEST["width"]:
        return f"at most {_LARGEST['width']:,}"
    if key == "graticule" and any(step < _SMALLEST_DEGREES for step in _steps(value)):
        return f"steps of at least {_SMALLEST_DEGREES:g}"
    if key == "transform" and any(step < _SMALLEST_SHARE for step in _shares(value)):
        return f"steps of at least {_SMALLEST_SHARE:g}"
    if key == "keyvals" and isinstance(value, Mapping) and count_sequence(value) > _MAX_VALUES:
        return f"at most {_MAX_VALUES:,} values"
    if key in ("text", "title", "subtitle") and isinstance(value, list) and len(value) > _MAX_LINES:
        return f"at most {_MAX_LINES:,} lines"
    if key == "repeat" and _count_copies(value) > _MAX_COPIES:
        return f"at most {_MAX_COPIES:,} copies"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _steps(value: Any) -> list[float]:
    """Return the numbers of a graticule's steps."""
    found = value if isinstance(value, Mapping) else {}
    steps = [found.get(name) for name in ("step", "stepMajor", "stepMinor")]
    sizes: list[Any] = [
        size for step in steps for size in (step if isinstance(step, list) else [step])
    ]
    return [abs(size) for size in sizes if _is_number(size)]


def _shares(transforms: Any) -> list[float]:
    """Return the steps of all quantiles."""
    steps = transforms if isinstance(transforms, list) else []
    found: list[Any] = [
        step.get("step") for step in steps if isinstance(step, Mapping) and "quantile" in step
    ]
    return [abs(step) for step in found if _is_number(step)]


def _count_copies(value: Any) -> int:
    if isinstance(value, Mapping):
        return math.prod(len(part) for part in value.values() if isinstance(part, list))
    return len(value) if isinstance(value, list) else 0


def _count_rows(spec: Spec) -> float:
    """Return how many rows the transforms of a part may make of the data, at most."""
    records = [record for record in records_of(spec) if isinstance(record, Mapping)]
    rows, factor = max(len(records), 1), 1.0
    longest: dict[str, int] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, list):
                longest[str(name)] = max(longest.get(str(name), 1), len(value))
    for part in parts_of(spec):
        factor = max(factor, math.prod(_factors(part.get("transform"), longest)))
    # Records of lists are counted, one by one, where marks are; here they multiply.
    return rows * factor if factor > max(longest.values(), default=1) else 0.0


def _factors(transforms: Any, longest: Mapping[str, int]) -> Iterable[float]:
    for step in transforms if isinstance(transforms, list) else ():
        for name in ("flatten", "fold"):
            fields = step.get(name) if isinstance(step, Mapping) else None
            if isinstance(fields, list) and name == "fold":
                yield max(len(fields), 1)
            elif isinstance(fields, list):
                yield max((longest.get(str(field), 1) for field in fields), default=1)


def _too_much(found: str, path: str, expected: str) -> RenderError:
    return RenderError(
        f"the specification has {found} at {shorten_text(path, 80)}, expected "
        f"{expected}, beyond which the renderer runs out of time or memory"
    )
