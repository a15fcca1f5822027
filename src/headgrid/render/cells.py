"""Specification of maps -> the same with one cell a panel, and all its cells as numbers.

Vega takes tens of microseconds and a kilobyte for each cell; the finishing stage joins them again.
What is left of the data is enough for axes, titles and colour bars. Only maps that are exactly as
headgrid builds them are cut, and the one cell that Vega draws of each panel must be among ours
(`headgrid.render.svg.cells.merge_cells`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from headgrid.charts.panels import CELLS
from headgrid.charts.scales import match_scale
from headgrid.charts.spec import Records, Spec
from headgrid.render.svg.cells import Cells
from headgrid.render.svg.marks import expect

Node: TypeAlias = Mapping[str, Any]
#: Every mapping in a specification but its data and ``usermeta``, and where it stands.
Nodes: TypeAlias = list[tuple[str, Node]]

_SHIFT = re.compile(r"datum\.position([+-]\d+)?")
_LISTED = re.compile(r"(\[[\d, -]+\])\[datum\.position-1\]")
#: The statistic of a grid, the fields of its panels, and what draws the cells of one colour scale
#: in a panel, or raises one of what Python raises for alien data.
_Grid: TypeAlias = tuple[str, tuple[str, ...], list[Callable[[tuple[Any, ...], Records], Cells]]]
#: The grids of maps of a figure with their records, in the order in which Vega draws them.
Maps: TypeAlias = list[tuple[_Grid, Records]]
#: Which panels of a comparison a layer of cells is for: the first two of three, or the third.
_PANELS = re.compile(r"datum\.panel%3(<|==)2")


def draw_cells(maps: Maps) -> Iterator[Cells]:
    """Yield the cells of every panel that has some."""
    for (statistic, facets, layers), records in maps:
        # A head without values has one record, of no query.
        seen = [record for record in records if record[statistic] != [None]]
        for panel, own in _group(seen, facets).items():
            drawn = (draw(panel, own) for draw in layers)
            yield from (cells for cells in drawn if cells[2].size)


def walk_spec(spec: Spec) -> Nodes:
    """Return every mapping in a specification but its data and ``usermeta``, with its path."""
    found: Nodes = []
    rest: list[tuple[str, Any]] = [("", spec)]
    while rest:
        path, node = rest.pop()
        if isinstance(node, Mapping):
            found.append((path, node))
            is_data = path.rpartition(".")[2] == "data"
            skipped = ("datasets", "usermeta", "values" if is_data else "")
            inner = [(f"{path}.{k}".lstrip("."), v) for k, v in node.items() if k not in skipped]
        elif isinstance(node, (list, tuple)):
            inner = [(f"{path}[{index}]", value) for index, value in enumerate(node)]
        else:
            continue
        rest += reversed(inner)
    return found


def cut_cells(spec: Spec) -> tuple[Spec, Maps]:
    """Return the specification with one cell for each panel of its maps, and all these, or none."""
    try:
        return _cut(spec)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return spec, []  # not built by headgrid


def _cut(spec: Spec) -> tuple[Spec, Maps]:
    # What changes every cell alike, the one that Vega draws shows; these may add or move others.
    configured = {*spec["config"], *spec["config"].get("style", ())}
    expect(not configured & {"mark", "range", "rect", "scale"})
    stack = next((name for name in ("vconcat", "hconcat") if name in spec), "")
    parts: list[Any] = list(spec[stack]) if stack else [spec]
    named, grids = {**spec.get("datasets", {})}, Maps()
    named_by = [part["data"].get("name") for part in parts if "data" in part]
    for number, part in enumerate(parts):
        if grid := _read_grid(part):
            data = part["data"]
            take = named.pop if named_by.count(data.get("name")) == 1 else named.__getitem__
            records = data["values"] if "values" in data else take(data["name"])
            grids.append((grid, records))
            parts[number] = {**part, "data": {"values": [*_first_cells(records, *grid[:2])]}}
    if not grids:
        return spec, []
    rest = {**spec, "datasets": named} if "datasets" in spec else spec
    return ({**rest, stack: parts} if stack else {**rest, **parts[0]}), grids


def _read_grid(grid: Node) -> _Grid | None:
    """Return the layers of cells of a grid, if it has some; a ValueError if it is not ours."""
    panel = grid["spec"]
    layers = [layer for layer in panel["layer"] if str(layer.get("name", "")).endswith(CELLS)]
    if not layers:
        return None
    facet = grid["facet"]
    parts = [facet] if "field" in facet else [facet["row"], facet["column"]]
    facets = tuple(part["field"] for part in parts)
    statistic, keys, shared = read_transform(grid, [*facets, "query"])
    rest = [layer for layer in panel["layer"] if layer not in layers]
    alien = {"encoding", "transform", "projection"} & panel.keys()
    expect(not alien and "encoding" not in grid)
    expect(all(ignores_values(layer, statistic, facets) for layer in rest))
    size = panel["width"], panel["height"]
    drawn = [_read_layer(layer, statistic, facets, keys, size, shared) for layer in layers]
    return statistic, facets, drawn


def read_transform(grid: Node, rows: list[str]) -> tuple[str, list[int] | int, dict[str, str]]:
    """Return what arrays, one for each value of some fields, hold, its keys, and other fields."""
    steps = list(grid["transform"])
    ((name, (statistic,)),) = steps.pop(0).items()
    expect(name == "flatten")
    number = {"op": "row_number", "field": "", "as": "position"}
    expect(steps.pop(0) == {"window": [number], "groupby": rows})
    step = steps.pop(0)
    expect(step.keys() == {"calculate", "as"} and step["as"] == "key")
    listed, shift = (form.fullmatch(step["calculate"]) for form in (_LISTED, _SHIFT))
    expect(bool(listed or shift))
    # The key of every position, or what to add to a position.
    keys = json.loads(listed[1]) if listed else int((shift and shift[1]) or 0) + 1
    return statistic, keys, _read_steps(steps, statistic, {*rows, "key", "position"})


def _read_steps(steps: list[Node], statistic: str, taken: set[str]) -> dict[str, str]:
    """Return the expressions of fields that steps make, all of which leave cells alone."""
    made = [step for step in steps if step != {"filter": f"isValid(datum.{statistic})"}]
    expect(all(step.keys() == {"calculate", "as"} for step in made))
    fields = {step["as"]: step["calculate"] for step in made}
    expect(not fields.keys() & {*taken, statistic})
    return fields


def _read_layer(
    layer: Node,
    statistic: str,
    facets: tuple[str, ...],
    keys: list[int] | int,
    size: tuple[int, int],
    shared: Mapping[str, str],
) -> Callable[[tuple[Any, ...], Records], Cells]:
    known = {"name", "mark", "encoding", "transform", "view"}
    expect(layer.keys() <= known and layer["mark"] == {"type": "rect", "aria": False})
    encoding = dict(layer["encoding"])
    encoding.pop("tooltip", None)
    columns = _read_bands(encoding.pop("x"), "key")
    rows = _read_bands(encoding.pop("y"), "query")
    ((channel, paint),) = encoding.items()
    ours = {"field", "type", "scale", "legend"}
    expect(channel in ("color", "fill") and paint.keys() <= ours)
    only = ""
    steps = list(layer.get("transform", ()))
    if steps and (where := _PANELS.match(str(steps[0].get("filter")))) and facets == ("panel",):
        rest = steps.pop(0)["filter"][where.end() :]
        expect(rest in ("", f"&&isValid(datum.{statistic})"))
        only = where[1]
    fields = {**shared, **_read_steps(steps, statistic, {*facets, "key", "query"})}
    scale = match_scale(paint["scale"], fields[paint["field"]], statistic)
    expect(scale is not None and size[0] % len(columns) == size[1] % len(rows) == 0)
    assert scale is not None
    expect(scale.by in ("", facets[-1]))
    listed = keys if isinstance(keys, list) else [*range(keys, keys + len(columns))]
    cell = size[0] // len(columns), size[1] // len(rows)

    def draw(panel: tuple[Any, ...], records: Records) -> Cells:
        if only and (only == "==") != (panel[0] % 3 == 2):
            return *cell, np.empty((3, 0), dtype=np.int64)
        expect(len({record["query"] for record in records}) == len(records))
        lists = [record[statistic] for record in records]
        lengths = [len(values) for values in lists]
        values = np.array([*chain.from_iterable(lists)], dtype=np.float64)
        column = np.array([columns[key] for key in listed])
        row = np.repeat([rows[record["query"]] for record in records], lengths)
        within = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        seen = values == values
        red, green, blue = scale.of_panel(panel[-1]).rgb(values[seen]).astype(np.int64).T
        color = (red << 16) + (green << 8) + blue
        return *cell, np.stack([column[within[seen]], row[seen], color])

    return draw


def _read_bands(channel: Node, field: str) -> dict[int, int]:
    """Return the place of each frame on an axis of bands without gaps."""
    scale = {**channel["scale"]}
    frames = scale.pop("domain")
    expect(scale == {"paddingInner": 0, "paddingOuter": 0})
    expect(channel["field"] == field and channel["type"] == "ordinal")
    expect(channel.keys() <= {"axis", "field", "scale", "title", "type"})
    return {frame: place for place, frame in enumerate(frames)}


def ignores_values(layer: Node, statistic: str, facets: tuple[str, ...]) -> bool:
    """Return whether a layer has one mark a panel, however many records there are."""
    steps = list(layer.get("transform", ()))
    known = f"isValid(datum.{statistic})"
    if steps and steps[0].get("filter") in (known, f"{known}||datum.absent", "datum.absent"):
        steps.pop(0)
    one = bool(steps) and steps[0].get("aggregate") == [] and "mark" in layer
    return one and set(steps[0].get("groupby", ())) == set(facets)


def _first_cells(records: Records, name: str, facets: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield a record for each panel, cut behind its first value."""
    for own in _group(records, facets).values():
        seen = ((record, n) for record in own for n, v in enumerate(record[name]) if v is not None)
        record, first = next(seen, (own[-1], 0))
        yield {**record, name: record[name][: first + 1]}


def _group(records: Records, facets: tuple[str, ...]) -> dict[tuple[Any, ...], Records]:
    panels: dict[tuple[Any, ...], Records] = {}
    for record in records:
        panels.setdefault(tuple(record[name] for name in facets), []).append(record)
    return panels
