"""The merged cells of small maps -> one path a colour for a whole row of maps.

A sheet has hundreds of maps with a few cells of each colour: most of its bytes
would say again and again which colour follows. Maps do not overlap, so that it
makes no difference to the picture when cells are drawn after the next frame.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from lxml import etree

from headgrid.render.svg.marks import SVG

#: Class of the cells that are joined.
CLASSES = "mark-rect role-mark sheet_headgrid_cells_marks"
_PANEL = re.compile(r"translate\((-?\d+),(-?\d+)\)")
_CELLS = re.compile(r"translate\(([\d.]+) ([\d.]+)\)scale\((\d+)(?: (\d+))?\)")
_START = re.compile(r"m(-?\d+)(?: |(?=-))(-?\d+)")


def join_rows(root: etree._Element) -> None:
    """Join the cells of the maps of each row; what is not as headgrid draws it stays."""
    for scope in root.iterfind(f".//{SVG}g[@class='mark-group role-scope cell']"):
        rows: dict[tuple[str, str], list[tuple[int, etree._Element]]] = defaultdict(list)
        for panel in scope:
            place = _PANEL.fullmatch(panel.get("transform", ""))
            for cells in panel.iterfind(f"{SVG}g[@class='{CLASSES}']"):
                transform = cells.get("transform", "")
                scale = _CELLS.fullmatch(transform)
                if place is not None and scale is not None and int(place[1]) % int(scale[3]) == 0:
                    rows[place[2], transform].append((int(place[1]) // int(scale[3]), cells))
        for (y, transform), maps in rows.items():
            _join(scope, y, transform, maps)


def _join(
    scope: etree._Element, y: str, transform: str, maps: list[tuple[int, etree._Element]]
) -> None:
    colors: dict[str, list[str]] = defaultdict(list)
    for offset, cells in maps:
        for color, path in _read(cells):
            start = _START.match(path)
            if start is None:
                return
            x, across = int(start[1]) + offset, start[2]
            separator = "" if across.startswith("-") else " "
            colors[color].append(f"M{x}{separator}{across}{path[start.end() :]}")
    if not colors:
        return
    place = _CELLS.fullmatch(transform)
    assert place is not None
    moved = f"{float(place[2]) + int(y):g}"
    joined = etree.SubElement(
        scope,
        f"{SVG}g",
        {
            "class": CLASSES,
            "shape-rendering": "crispEdges",
            "transform": transform.replace(f" {place[2]})", f" {moved})", 1),
        },
    )
    for color in sorted(colors):
        etree.SubElement(joined, f"{SVG}path", {"stroke": color, "d": "".join(colors[color])})
    for _, cells in maps:
        parent = cells.getparent()
        if parent is not None:
            parent.remove(cells)


def _read(cells: etree._Element) -> Iterable[tuple[str, str]]:
    """Return colour and path of each item; an empty path where an item is something else."""
    for item in cells:
        plain = item.tag == f"{SVG}path" and set(item.attrib) == {"stroke", "d"}
        yield (item.get("stroke", ""), item.get("d", "")) if plain else ("", "")
