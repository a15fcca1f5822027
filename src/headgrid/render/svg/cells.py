"""Cells of maps in Vega's SVG -> short paths, one a colour.

Cells become stroked paths in unit coordinates: ``m6 2h9`` is nine cells of row 2.
Strokes and not filled rectangles: they take 0.22 MB instead of 0.39 MB at 72 frames, and
with ``crispEdges`` resvg and Chromium put the same pixels at every scale; PDF viewers show
seams between filled rectangles, and none between strokes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from lxml import etree

from headgrid.render.svg.marks import SVG, remove, shorten_color

_Integers: TypeAlias = npt.NDArray[np.int64]
#: Width and height of a panel's cells, and [column, row, color as 0xRRGGBB] of each.
Cells: TypeAlias = tuple[int, int, _Integers]

_GROUP = re.compile(r'<g class="(mark-rect role-mark [\w-]*headgrid_cells_marks)"([^<>]*)(?<!/)>')
_SIZE = re.compile(r'<path d="M\d{1,6},\d{1,6}h([1-9]\d{0,4})v([1-9]\d{0,4})h-')
_ATTRIBUTES = re.compile(r'(?: aria-hidden="true"| pointer-events="none")*')
_JOINT = ')"/><path d="M'
#: Class of the lines between segments, which lie over cells.
_BORDERS = "mark-symbol role-mark headgrid_borders_marks"
#: Class of the cells that are joined.
_JOINED = "mark-rect role-mark sheet_headgrid_cells_marks"
_PANEL_PLACE = re.compile(r"translate\((-?\d+),(-?\d+)\)")
_SCALED = re.compile(r"translate\([\d.]+ ([\d.]+)\)scale\((\d+)(?: \d+)?\)")
_START = re.compile(r"m(-?\d+)(?: |(?=-))(-?\d+)")


def merge_cells(raw: str, maps: Iterable[Cells] | None = None) -> str:
    """Return Vega's SVG with the cells of each panel as one path a colour.

    Panels whose cells are not plain (whole coordinates, one size, opaque, none over another,
    nothing but a colour on each) are as they were. An XML parser would take most of the time.
    Where there are ``maps``, Vega has drawn one cell of each, in their order; a LookupError if
    that is not so.
    """
    parts, done, rest = [], 0, None if maps is None else iter(maps)
    for group in _GROUP.finditer(raw):
        end = raw.find("</g>", group.end())
        content = raw[group.end() : end]
        cells = _read_cells(content) if _ATTRIBUTES.fullmatch(group[2]) else None
        if rest is not None and content:
            cells = _complete(cells, next(rest, None))
        if cells is not None:
            parts += [raw[done : group.start()], f'<g class="{group[1]}" ', write_cells(*cells)]
            done = end
    if rest is not None and next(rest, None) is not None:
        raise LookupError("fewer panels than maps")
    return "".join((*parts, raw[done:]))


def _complete(drawn: Cells | None, whole: Cells | None) -> Cells:
    """Return the cells of a map of which Vega has drawn one, as it has drawn it."""
    if drawn is None or whole is None or drawn[:2] != whole[:2] or drawn[2].shape[1] != 1:
        raise LookupError("a panel that is not the map's")
    if not (drawn[2] == whole[2]).all(axis=0).any():
        raise LookupError("a cell that is not the map's")
    return whole


def _read_cells(content: str) -> Cells | None:
    """Return width, height and [column, row, colour as 0xRRGGBB] of cells, if all are plain."""
    size = _SIZE.match(content)
    if size is None:
        return None
    tail = f'h{size[1]}v{size[2]}h-{size[1]}Z" fill="rgb('
    number = r"\d{1,6}"
    cell = rf'<path d="M{number},{number}{re.escape(tail)}{number}, {number}, {number}\)"/>'
    if re.sub(cell, "", content):
        return None
    start, end = len('<path d="M'), -len(')"/>')
    numbers = content[start:end].replace(tail, ",").replace(_JOINT, ",")
    x, y, red, green, blue = np.fromstring(numbers, np.int64, sep=",").reshape(-1, 5).T
    width, height = int(size[1]), int(size[2])
    if (x % width).any() or (y % height).any() or max(red.max(), green.max(), blue.max()) > 255:
        return None
    column, row = x // width, y // height
    if len(np.unique(row * 1_000_000 + column)) < len(row):
        return None
    return width, height, np.stack([column, row, (red << 16) + (green << 8) + blue])


def write_cells(width: int, height: int, cells: _Integers) -> str:
    """Return the remaining attributes and the content of the group."""
    column, row, color = cells
    runs, upright_runs = _find_runs(column, row, color), _find_runs(row, column, color)
    upright = _count_bytes(upright_runs) < _count_bytes(runs)
    # A segment runs through the middle of its cells.
    middle = f"{width / 2:g} 0" if upright else f"0 {height / 2:g}"
    scale = f"{width}" if width == height else f"{width} {height}"
    paths = _write_runs(upright_runs[[1, 0, 2, 3]], "v") if upright else _write_runs(runs, "h")
    transform = f"translate({middle})scale({scale})"
    return f'shape-rendering="crispEdges" transform="{transform}">{paths}'


def _find_runs(along: _Integers, across: _Integers, color: _Integers) -> _Integers:
    """Join neighbours of one colour into runs, sorted by colour, then by place.

    Returns [4, run]: the way along and across the runs from the end of the run before,
    or from the panel's corner where the colour changes; the length; the colour.
    """
    order = np.lexsort((along, across))
    along, across, color = along[order], across[order], color[order]
    new = (np.diff(across) != 0) | (np.diff(along) != 1) | (np.diff(color) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    length = np.diff(starts, append=len(along))
    runs = np.stack([along[starts], across[starts], length, color[starts]])
    runs = runs[:, np.argsort(color[starts], kind="stable")]
    before = runs[:, :-1] * (runs[3, 1:] == runs[3, :-1])
    runs[0, 1:] -= before[0] + before[2]
    runs[1, 1:] -= before[1]
    return runs


def _count_bytes(runs: _Integers) -> int:
    """Return about how many bytes the runs take: their digits and signs, and two letters each."""
    numbers = runs[:3]
    digits = np.searchsorted([10, 100, 1000, 10_000], np.abs(numbers), side="right")
    return int(digits.sum() + (numbers < 0).sum() + 2 * numbers.shape[1])


def _write_runs(runs: _Integers, command: str) -> str:
    """Return one path a colour of runs [x, y, length, colour] along rows (h) or columns (v)."""
    parts: list[str] = []
    current = -1
    for x, y, length, color in runs.T.tolist():
        if color != current:
            parts.append(f'"/><path stroke="{shorten_color(f"#{color:06x}")}" d="')
            current = color
        # A minus sign separates two numbers by itself.
        parts.append(f"m{x} {y}{command}{length}" if y >= 0 else f"m{x}{y}{command}{length}")
    return "".join(parts).removeprefix('"/>') + '"/>'


def join_rows(root: etree._Element) -> None:
    """Join the cells of small maps, one path a colour for a whole row of maps.

    A sheet has hundreds of maps with a few cells of each colour: most of its bytes
    would say again and again which colour follows. Maps do not overlap, so that it
    makes no difference to the picture when cells are drawn after the next frame; lines between
    segments would be below them, so maps that have some stay as they are.
    """
    for scope in root.iterfind(f".//{SVG}g[@class='mark-group role-scope cell']"):
        rows: dict[tuple[str, str, str], list[tuple[int, etree._Element]]] = defaultdict(list)
        for panel in scope:
            if panel.find(f"{SVG}g[@class='{_BORDERS}']") is not None:
                continue
            place = _PANEL_PLACE.fullmatch(panel.get("transform", ""))
            for cells in panel.iterfind(f"{SVG}g[@class='{_JOINED}']"):
                transform = cells.get("transform", "")
                scaled = _SCALED.fullmatch(transform)
                if place is not None and scaled is not None and int(place[1]) % int(scaled[2]) == 0:
                    offset = int(place[1]) // int(scaled[2])
                    rows[place[2], transform, scaled[1]].append((offset, cells))
        for (y, transform, middle), maps in rows.items():
            moved = f" {float(middle) + int(y):g})"
            _join(scope, transform.replace(f" {middle})", moved, 1), maps)


def _join(scope: etree._Element, transform: str, maps: list[tuple[int, etree._Element]]) -> None:
    colors: dict[str, list[str]] = defaultdict(list)
    for offset, cells in maps:
        for item in cells:
            path = item.get("d", "")
            start = _START.match(path)
            if start is None or set(item.attrib) != {"stroke", "d"}:
                return
            separator = "" if start[2].startswith("-") else " "
            moved = f"M{int(start[1]) + offset}{separator}{start[2]}{path[start.end() :]}"
            colors[item.get("stroke", "")].append(moved)
    if not colors:
        return
    look = {"class": _JOINED, "shape-rendering": "crispEdges", "transform": transform}
    joined = etree.SubElement(scope, f"{SVG}g", look)
    for color in sorted(colors):
        etree.SubElement(joined, f"{SVG}path", {"stroke": color, "d": "".join(colors[color])})
    for _, cells in maps:
        remove(cells)
