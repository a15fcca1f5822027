"""Specification of a grid of many panels -> the same with some rows, and the texts of all panels.

Vega takes milliseconds for a panel, to measure labels that are alike in most. What tells panels
apart is written here (`headgrid.render.svg.panels`), where a grid is all ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from headgrid.charts.axes import Look, plain_label, restore_look
from headgrid.charts.spec import Spec, configure
from headgrid.render.cells import Maps, draw_cells, walk_spec
from headgrid.render.profiles import Profiles, read_profiles
from headgrid.render.svg.cells import Cells, write_cells
from headgrid.render.svg.marks import expect
from headgrid.render.svg.panels import Panels
from headgrid.text import measure_text

#: Grids of no more panels are drawn by Vega alone.
MANY = 100

_PARTS = {"$schema", "bounds", "columns", "config", "data", "description", "facet", "resolve"}
_PARTS |= {"spacing", "spec", "title", "transform", "usermeta"}
#: All that our panels say; of these, only expressions and fields tell panels apart.
_KEYS = re.compile(
    r"aggregate|align|anchor|aria|as|axis|baseline|calculate|clamp|color|datum|domain|encoding|expr|field|"
    r"fill|filled|filter|font(Size|Weight)|gradientLength|grid|groupby|height|interpolate|invalid|"
    r"label(Angle|Expr|FontSize|Offset|Overlap|Padding)|layer|legend|mark|minExtent|name|nice|offset|opacity|"
    r"orient|padding(Inner|Outer)|range|scale|shape|size|stroke(Join|Width)?|symbol(Size|StrokeWidth)|"
    r"text|tick(Count|Opacity)|title(Opacity|Orient|Padding)?|tooltip|transform|type|values?|view|"
    r"width|[xy]2?|zero|zindex"
)
#: Channels that show a field, and which; a legend of any other would be of unknown height.
_FIELDS = {"color": "color", "shape": "grey", "text": "label", "x": "key", "y": "query"}
# Letters whose widths are known.
_NAME = re.compile(r"[0-9A-Za-z ().,:;/=%+\u00b1\u2212-]+")
#: The cells of the maps that are drawn, if any, and all panels: with what draws a small figure.
Written: TypeAlias = tuple[list[Cells] | None, Panels]
Write: TypeAlias = Callable[[Callable[[Spec], str]], Written]


def cut_rows(spec: Spec, maps: Maps) -> list[tuple[Spec, Write]]:
    """Return a grid with the rows that are enough; nothing where it is small or not all ours."""
    try:
        return [_cut(spec, maps)] if len(maps) < 2 else []
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return []  # not built by headgrid


def _cut(spec: Spec, maps: Maps) -> tuple[Spec, Write]:
    records, columns, panel = spec["data"]["values"], spec["columns"], spec["spec"]
    field, count = spec["facet"]["field"], len(records)
    expect(count > MANY and [record[field] for record in records] == [*range(count)])
    look = restore_look(spec["usermeta"]["headgrid"])
    config = {name: part for name, part in spec["config"].items() if name != "view"}  # altair's
    expect(spec.keys() <= _PARTS and config == configure(look) and spec["bounds"] == "flush")
    expect(len(spec["data"]) == 1 and panel.keys() <= {"height", "layer", "view", "width"})
    pitch, rows = panel["height"] + spec["spacing"]["row"], -(-count // columns)
    lists = _read_lists(spec, count, look, {"tooltip"} if maps else {"tooltip", "y", "y2"})
    scales = {"scale": {"y": "independent"}} if "low" in lists else {}
    expect(spec["resolve"] == {"axis": dict.fromkeys("xy", "independent"), **scales})
    names = lists.get("header") or lists.get("label") or [f"Head {n}" for n in range(count)]
    room = panel["width"] / 1.2 / (look.map_title if maps else look.profile_title)
    expect(all(_NAME.fullmatch(name) and measure_text(name) <= room for name in names))
    statistic = spec["transform"][0]["flatten"][0]
    kinds = [(n % columns, record[statistic][-1] is None) for n, record in enumerate(records)]
    expect([empty for _, empty in kinds] == [record.get("absent", False) for record in records])
    # The first rows reach below the colour bar, the last have axes of their own.
    bar = look.bar_length if maps else 0
    chosen = {*range(2 + math.ceil(1.2 * bar / pitch)), rows - 2, rows - 1}
    chosen |= {kinds.index(kind) // columns for kind in {*kinds}}
    source = maps if maps else read_profiles(spec, look, lists)
    if isinstance(source, Profiles):
        chosen.add(source.widest // columns)
    drawn = [number for number in range(count) if number // columns in chosen]
    expect(pitch % 1 == 0 and len(drawn) < count / 2)
    some = {**spec, "data": {"values": [records[number] for number in drawn]}}
    panels = Panels(columns, int(pitch), drawn, kinds, [[f">{name}<"] for name in names])
    return some, partial(_write, source, panels)


def _write(source: Maps | Profiles, panels: Panels, draw: Callable[[Spec], str]) -> Written:
    cells = None
    if isinstance(source, Profiles):
        texts = source.write(panels.drawn, draw)
    else:
        rest = draw_cells(source)
        maps = [None if empty else next(rest, None) for _, empty in panels.kinds]
        expect(next(rest, None) is None)
        texts = [[write_cells(*found)] if found else [] for found in maps]
        cells = [found for number in panels.drawn if (found := maps[number])]
    pairs = zip(texts, panels.texts, strict=True)
    return cells, replace(panels, texts=[[*own, *name] for own, name in pairs])


def _read_lists(spec: Spec, count: int, look: Look, free: set[str]) -> dict[str, Any]:
    """Return what expressions list for each panel; a ValueError if anything is not ours."""
    facet, columns, title = spec["facet"], spec["columns"], {*spec.get("title", ())}
    expect(len(facet) == 3 and title <= {"anchor", "offset", "text"})
    label = "|".join(re.escape(plain_label([tick])) for tick in (1, 1e-9))
    ours = re.compile(
        rf"{label}|'Head ' \+ datum\.value|''|'not seen'|datum\.absent|isValid\(datum\.\w+\)|"
        rf"\(parent\.{facet['field']}(%{columns}==0|>={count - columns})\)\?(1:0|({label}):'')"
    )
    listed = re.compile(rf"(\[.*\])\[(datum\.value|(datum|parent)\.{facet['field']})\]", re.DOTALL)
    lists: dict[str, Any] = {}
    ours_alone = {"header": facet["header"], "spec": spec["spec"]}
    for path, node in walk_spec(ours_alone)[1:]:
        owner = path.rpartition(".")[2].partition("[")[0]
        expect(all(map(_KEYS.fullmatch, node)) and node.get("orient", "right") == "right")
        expect(owner in free or node.get("field") in (None, _FIELDS.get(owner)))
        expect(owner != "shape" or len(node["scale"]["domain"]) == 1)
        if owner == "legend":
            bar = node.get("gradientLength", 0) <= look.bar_length
            expect(bar and len(str(node["title"])) < 100)
            continue
        for key in {"calculate", "expr", "filter", "labelExpr"} & node.keys():
            if not ours.fullmatch(node[key]):
                expect(owner in ("header", "transform", "tickCount"))
                values = json.loads(listed.sub(r"\1", node[key]))
                expect(len(values) == count and node.get("as") != facet["field"])
                expect(lists.setdefault(node.get("as", owner), values) == values)
    return lists
