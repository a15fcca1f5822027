"""Specification -> its parts, its records, and how many marks it will have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headgrid.charts.spec import Spec
from headgrid.errors import RenderError

_PANEL_MARKS = 150  # 150 kB of V8's heap, measured with 9,000 panels; a cell takes about 1 kB

#: The engine reads JSON up to 128 levels; figures have about 12.
MAX_DEPTH = 100


def walk(node: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """Yield path, key and value of everything in a specification but its data and ``usermeta``.

    Raises
    ------
    RenderError
        Where it is nested more than `MAX_DEPTH` levels.
    """
    if depth > MAX_DEPTH:
        raise RenderError(
            f"the specification is nested more than {MAX_DEPTH} levels, expected a Vega-Lite chart"
        )
    if isinstance(node, Mapping):
        for key, value in node.items():
            is_data = key == "values" and path.rpartition(".")[2] == "data"
            if key in ("datasets", "usermeta") or is_data:
                continue
            yield f"{path}.{key}".lstrip("."), str(key), value
            yield from walk(value, f"{path}.{key}", depth + 1)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}[{index}]", depth + 1)


def records_of(spec: Spec) -> Iterator[Any]:
    """Yield every record of the inline data."""
    datasets = spec.get("datasets")
    for records in datasets.values() if isinstance(datasets, Mapping) else ():
        yield from records if isinstance(records, list) else ()
    for part in parts_of(spec):
        data = part.get("data")
        records = data.get("values") if isinstance(data, Mapping) else None
        yield from records if isinstance(records, list) else ()


def parts_of(spec: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a specification and every specification inside it."""
    if not isinstance(spec, Mapping):
        return
    yield spec
    for key in ("layer", "hconcat", "vconcat", "concat"):
        parts = spec.get(key)
        for part in parts if isinstance(parts, (list, tuple)) else ():
            yield from parts_of(part)
    yield from parts_of(spec.get("spec"))


def count_marks(spec: Spec) -> int:
    """Return about how many marks a figure will have, in units of a heatmap's cell.

    Every value is a mark in each layer that draws it; a vertex of a line takes
    half a mark, and a panel with its axes and labels as much as 150.
    """
    marks = [_mark_type(part) for part in parts_of(spec) if "mark" in part]
    # A frame is one mark a panel: its data are aggregated.
    frames = sum("aggregate" in step for part in parts_of(spec) for step in _steps(part))
    weight = sum(0.5 if mark in ("line", "area", "trail") else 1.0 for mark in marks) - frames
    values, panels = 0, set()
    facet = spec.get("facet")
    named = facet.get("field") if isinstance(facet, Mapping) else None
    field = named if isinstance(named, str) else None
    for record in records_of(spec):
        if isinstance(record, Mapping):
            lengths = [len(value) for value in record.values() if isinstance(value, list)]
            values += max(lengths, default=1)
            panels.add(str(record.get(field)))
        else:
            values += 1
    return int(values * max(weight, 1.0)) + _PANEL_MARKS * len(panels)


def _mark_type(part: Mapping[str, Any]) -> str:
    mark = part["mark"]
    return str(mark.get("type") if isinstance(mark, Mapping) else mark)


def _steps(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = part.get("transform")
    return [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
