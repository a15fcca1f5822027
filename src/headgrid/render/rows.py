"""Specification of a grid of many maps -> the same with some rows, and the texts of all panels.

Vega takes milliseconds for a panel, to measure labels that are alike in all. What tells panels
apart, cells and names, is written here (`headgrid.render.svg.panels`), where a grid is all ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from headgrid.charts.axes import Look, restore_look
from headgrid.charts.spec import Spec, configure
from headgrid.render.cells import Maps, Node, expect
from headgrid.render.svg.cells import Cells, write_cells
from headgrid.render.svg.panels import Panels
from headgrid.text import measure_text

#: Grids of no more panels are drawn by Vega alone.
MANY = 100

_PARTS = {"$schema", "bounds", "columns", "config", "data", "description", "facet", "resolve"}
_PARTS |= {"spacing", "spec", "title", "transform", "usermeta"}
#: All that our panels say; of these, only expressions and fields tell panels apart.
_KEYS = re.compile(
    r"aggregate|align|anchor|aria|as|axis|baseline|calculate|clamp|color|domain|encoding|expr|field|"
    r"fill|filled|filter|font(Size|Weight)|gradientLength|grid|groupby|height|interpolate|"
    r"label(Angle|Expr|FontSize|Offset|Overlap|Padding)|layer|legend|mark|name|offset|opacity|"
    r"orient|padding(Inner|Outer)|range|scale|shape|size|stroke(Width)?|symbol(Size|StrokeWidth)|"
    r"text|tick(Count|Opacity)|title(Opacity|Orient|Padding)?|tooltip|transform|type|values?|view|"
    r"width|[xy]2?|zindex"
)
#: Channels that show a field, and which; a legend of any other would be of unknown height.
_FIELDS = {"color": "color", "shape": "grey", "text": "label", "x": "key", "y": "query"}
# Letters whose widths are known.
_NAME = re.compile(r"[0-9A-Za-z ().,:;/=%\u00b1\u2212-]+")
#: What returns the cells of the maps that are drawn, and all panels.
Write: TypeAlias = Callable[[], tuple[list[Cells], Panels]]


def cut_rows(spec: Spec, maps: Maps) -> list[tuple[Spec, Write]]:
    """Return a grid with the rows that are enough; nothing where it is small or not all ours."""
    try:
        return [_cut(spec, maps)] if len(maps.grids) == 1 else []
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return []  # not built by headgrid


def _cut(spec: Spec, maps: Maps) -> tuple[Spec, Write]:
    records, columns, panel = spec["data"]["values"], spec["columns"], spec["spec"]
    field, count = spec["facet"]["field"], len(records)
    expect(count > MANY and [record[field] for record in records] == [*range(count)])
    look = restore_look(spec["usermeta"]["headgrid"])
    config = {name: part for name, part in spec["config"].items() if name != "view"}  # altair's
    expect(spec.keys() <= _PARTS and config == configure(look) and spec["bounds"] == "flush")
    pitch, rows = panel["height"] + spec["spacing"]["row"], -(-count // columns)
    expect(pitch % 1 == 0 and spec["resolve"] == {"axis": dict.fromkeys("xy", "independent")})
    lists = _read_lists(spec, count, look)
    names = lists.get("header") or lists.get("label") or [f"Head {n}" for n in range(count)]
    room = panel["width"] / 1.2 / look.map_title
    expect(all(_NAME.fullmatch(name) and measure_text(name) <= room for name in names))
    statistic = spec["transform"][0]["flatten"][0]
    kinds = [(n % columns, record[statistic][-1] is None) for n, record in enumerate(records)]
    expect([empty for _, empty in kinds] == [record.get("absent", False) for record in records])
    # The first rows reach below the colour bar, the last have axes of their own.
    chosen = {*range(2 + math.ceil(1.2 * look.bar_length / pitch)), rows - 2, rows - 1}
    chosen |= {kinds.index(kind) // columns for kind in {*kinds}}
    drawn = [number for number in range(count) if number // columns in chosen]
    expect(len(drawn) < count / 2)
    some = {**spec, "data": {"values": [records[number] for number in drawn]}}
    panels = Panels(columns, int(pitch), drawn, kinds, [[f">{name}<"] for name in names])
    return some, partial(_write, maps, panels)


def _write(maps: Maps, panels: Panels) -> tuple[list[Cells], Panels]:
    rest = maps.cells()
    cells = [None if empty else next(rest, None) for _, empty in panels.kinds]
    expect(next(rest, None) is None)
    pairs = zip(cells, panels.texts, strict=True)
    texts = [[*name, write_cells(*found)] if found else name for found, name in pairs]
    drawn = (cells[number] for number in panels.drawn)
    return [found for found in drawn if found], replace(panels, texts=texts)


def _read_lists(spec: Spec, count: int, look: Look) -> dict[str, Any]:
    """Return what expressions list for each panel; a ValueError if anything is not ours."""
    facet, columns, title = spec["facet"], spec["columns"], {*spec.get("title", ())}
    expect(len(facet) == 3 and title <= {"anchor", "offset", "text"})
    ours = re.compile(
        r"'Head ' \+ datum\.value|''|'not seen'|datum\.absent|isValid\(datum\.\w+\)|"
        rf"\(parent\.{facet['field']}(%{columns}==0|>={count - columns})\)\?(1:0|datum\.label:'')"
    )
    listed = re.compile(rf"(\[.*\])\[datum\.({facet['field']}|value)\]", re.DOTALL)
    lists: dict[str, Any] = {}
    for owner, node in (*_nodes("header", facet["header"]), *_nodes("", spec["spec"])):
        expect(all(map(_KEYS.fullmatch, node)) and node.get("orient", "right") == "right")
        expect(owner == "tooltip" or node.get("field") in (None, _FIELDS.get(owner)))
        expect(owner != "shape" or len(node["scale"]["domain"]) == 1)
        if owner == "legend":
            bar = node.get("gradientLength", 0) <= look.bar_length
            expect(bar and len(str(node["title"])) < 100)
            continue
        for key in {"calculate", "expr", "filter", "labelExpr"} & node.keys():
            if not ours.fullmatch(node[key]):
                expect(owner in ("header", "transform"))
                values = json.loads(listed.sub(r"\1", node[key]))
                expect(len(values) == count)
                expect(lists.setdefault(node.get("as", owner), values) == values)
    return lists


def _nodes(owner: str, part: Any) -> Iterator[tuple[str, Node]]:
    """Yield every mapping, and under which key it stands."""
    if isinstance(part, Mapping):
        yield owner, part
        for key, inner in part.items():
            yield from _nodes(key, inner)
    for inner in part if isinstance(part, list) else ():
        yield from _nodes(owner, inner)
