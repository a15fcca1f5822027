"""Specifications in a test suite: compare with a golden file, explain the difference, refresh.

In a test, with the fixture that headgrid's pytest plugin brings::

    def test_the_heatmap_of_layer_3(headgrid_golden):
        headgrid_golden(headgrid.heatmap(capture), "layer3_heatmap")

compares with ``specs/layer3_heatmap.vl.json``; ``pytest --headgrid-refresh``
writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from headgrid.capture.files import write_bytes
from headgrid.charts.spec import ChartLike, Spec, to_json, to_spec
from headgrid.errors import HeadgridError, describe_error, show_value
from headgrid.render.cells import walk_spec

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SUFFIX",
    "GoldenMismatchError",
    "assert_matches_golden",
    "compare_specs",
    "find_orphans",
    "read_table",
]

_Cell: TypeAlias = tuple[tuple[str, Any], ...]

SUFFIX = ".vl.json"
_SHOWN = 10


class GoldenMismatchError(HeadgridError, AssertionError):
    """A specification is not the one in the golden file."""


def assert_matches_golden(
    chart: ChartLike | Mapping[str, Any],
    golden: str | Path,
    *,
    refresh: bool = False,
    tolerance: float = 0.0,
) -> None:
    """Compare a chart, or a specification, with its golden file ``NAME.vl.json``.

    With ``refresh`` the file is written instead. A value may differ by ``tolerance``, in
    the unit of the statistic.

    Raises
    ------
    GoldenMismatchError
        Where the file is missing, or differs: the text says which encodings and
        which cells (head, query, key, old, new).
    """
    __tracebackhide__ = True  # pytest shows the test and what differs, not this module
    path = Path(golden)
    remedy = "refresh it (pytest --headgrid-refresh) and look at what it draws"
    if refresh:
        write_bytes(path, to_json(chart).encode("utf-8"))
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        found = describe_error(error)
    except ValueError as error:
        found = f"is not JSON ({describe_error(error)})"
    else:
        found = "" if isinstance(old, Mapping) else f"holds a {type(old).__name__}"
    if found:
        raise GoldenMismatchError(f"{path}: {found}, expected a golden specification; {remedy}")
    differences = compare_specs(old, chart, tolerance=tolerance)
    if differences:
        raise GoldenMismatchError(
            f"{path.name}: the chart differs from the golden specification\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\n  refresh with pytest --headgrid-refresh if the change is meant"
        )


def compare_specs(
    old: ChartLike | Mapping[str, Any],
    new: ChartLike | Mapping[str, Any],
    *,
    tolerance: float = 0.0,
) -> list[str]:
    """Return what differs between two specifications, a line each; empty where nothing does.

    >>> old = {"mark": "bar", "encoding": {"x": {"field": "a"}}}
    >>> compare_specs(old, {"mark": "bar", "encoding": {"x": {"field": "b"}}})
    ["encoding.x.field: 'a' -> 'b'"]
    """
    # Through JSON, so that tuples equal lists and 1.0 equals what a file gives back.
    before, after = (json.loads(to_json(spec)) for spec in (old, new))
    lines = list(_compare(before | {"data": None}, after | {"data": None}, ""))
    cells_before, cells_after = _cells(before), _cells(after)
    names = _value_names(before), _value_names(after)
    if names[0] != names[1]:
        lines.append(f"the values are named {', '.join(names[1])} and were {', '.join(names[0])}")
    changed = []
    for cell in dict.fromkeys([*cells_before, *cells_after]):
        was, now = cells_before.get(cell), cells_after.get(cell)
        if was != now and not _close(was, now, tolerance):
            where = ", ".join(f"{name} {value}" for name, value in cell)
            changed.append(f"  {where}: {_short(was)} -> {_short(now)}")
    if changed:
        lines += [f"{len(changed)} of {len(cells_after)} cells differ", *changed[:_SHOWN]]
    if len(changed) > _SHOWN:
        lines.append(f"  ... and {len(changed) - _SHOWN} more")
    return lines


def read_table(chart: ChartLike | Mapping[str, Any]) -> pd.DataFrame:
    """Return the tidy table that a specification holds, one row a visible value.

    Of what `heatmap` or `perhead` returned, or of a golden file's content: columns ``head``,
    ``query`` (for a heatmap), ``key`` and the statistic, rounded as the figure shows it.
    Cells that are drawn as images hold no values, which is a `HeadgridError`.

    >>> from headgrid import Capture, perhead
    >>> print(read_table(perhead(Capture.from_array(last_block=[[5.0, 1.5]]))))
       head  key  logit
    0     0    0    5.0
    1     0    1    1.5
    """
    import pandas as pd

    spec = to_spec(chart)
    names = _value_names(spec)
    if len(names) != 1:
        raise HeadgridError(
            "the specification holds no values by frame, expected one that heatmap or perhead "
            "made; cells that were drawn as an image can not be read back (use cells='vector')"
        )
    cells = {cell: number for cell, number in _cells(spec).items() if number is not None}
    return pd.DataFrame([dict(cell) | {names[0]: number} for cell, number in cells.items()])


def find_orphans(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Return the golden files in a folder that belong to none of the names, without suffix."""
    known = {f"{name}{SUFFIX}" for name in names}
    return sorted(p.name for p in Path(folder).glob(f"*{SUFFIX}") if p.name not in known)


def _records(spec: Spec) -> list[Any]:
    data = spec.get("data")
    records = data.get("values") if isinstance(data, Mapping) else None
    return records if isinstance(records, list) else []


def _value_names(spec: Spec) -> list[str]:
    return sorted({name for record in _records(spec) for name in _arrays(record)})


def _cells(spec: Spec) -> dict[_Cell, Any]:
    """Return every value by what identifies it: (("head", 0), ("query", 1), ("key", 2))."""
    keys = _key_frames(spec)
    cells: dict[_Cell, Any] = {}
    for row, record in enumerate(_records(spec)):
        arrays = _arrays(record)
        if not arrays:
            cells[("row", row),] = record
        index = tuple((name, value) for name, value in record.items() if name not in arrays)
        for name, values in arrays.items():
            column = index if len(arrays) == 1 else (*index, ("column", name))
            for position, value in enumerate(values):
                cell = (*column, ("key", keys[position] if position < len(keys) else position))
                while cell in cells:
                    cell = (*cell, ("again", row))
                cells[cell] = value
    return cells


def _arrays(record: Any) -> dict[str, list[Any]]:
    if not isinstance(record, Mapping):
        return {}
    return {str(name): value for name, value in record.items() if isinstance(value, list)}


def _key_frames(spec: Spec) -> list[Any]:
    """Return the domain of the first scale over the field ``key``."""
    for _, node in walk_spec(spec):
        match node:
            case {"field": "key", "scale": {"domain": [_, *_] as frames}}:
                return list(frames)
    return []


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            below = f"{path}.{key}".lstrip(".")
            if key not in new:
                yield f"{below}: {_short(old[key])} is gone"
            elif key not in old:
                yield f"{below}: {_short(new[key])} is new"
            else:
                yield from _compare(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _compare(before, after, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {_short(old)} -> {_short(new)}"


def _close(was: Any, now: Any, tolerance: float) -> bool:
    numbers = isinstance(was, (int, float)) and isinstance(now, (int, float))
    return numbers and abs(was - now) <= tolerance


def _short(value: Any) -> str:
    return "nothing" if value is None else show_value(value)
