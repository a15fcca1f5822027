"""The cells of heatmap panels, one path each -> one stroked path a colour.

Neighbours of one colour are one segment in unit coordinates: ``m6 2h9`` is nine
cells of row 2. The text is read and written without an XML parser, which would
take most of the time at 72 frames.

Strokes and not filled rectangles: they take 0.22 MB instead of 0.39 MB at 72
frames, and with ``crispEdges`` resvg and Chromium put the same pixels at every
scale (edges of neighbours are the same floating-point numbers); PDF viewers show
seams between filled rectangles, and none between strokes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from lxml import etree

from headgrid.render.svg.marks import SVG, shorten_color

_Integers: TypeAlias = npt.NDArray[np.int64]

_GROUP = re.compile(r'<g class="(mark-rect role-mark [\w-]*headgrid_cells_marks)"([^<>]*)>')
_SIZE = re.compile(r'<path d="M\d{1,6},\d{1,6}h([1-9]\d{0,4})v([1-9]\d{0,4})h-')
_ATTRIBUTES = re.compile(r'(?: aria-hidden="true"| pointer-events="none")*')
_JOINT = ')"/><path d="M'
#: Class of the cells that are joined.
_JOINED = "mark-rect role-mark sheet_headgrid_cells_marks"
_PANEL_PLACE = re.compile(r"translate\((-?\d+),(-?\d+)\)")
_SCALED = re.compile(r"translate\(([\d.]+) ([\d.]+)\)scale\((\d+)(?: (\d+))?\)")
_START = re.compile(r"m(-?\d+)(?: |(?=-))(-?\d+)")


@dataclass(frozen=True)
class _Cells:
    """Cells of one size: column and row of each, and its colour as 0xRRGGBB."""

    width: int
    height: int
    column: _Integers
    row: _Integers
    color: _Integers


@dataclass(frozen=True)
class _Runs:
    """Cells of one colour side by side: the first one, their number, and the colour.

    ``along`` counts in the direction of the runs, ``across`` from one to the next.
    """

    along: _Integers
    across: _Integers
    length: _Integers
    color: _Integers

    def moves(self) -> tuple[_Integers, _Integers]:
        """Return the way from the end of each run to the start of the next of its colour."""
        follows = self.color[1:] == self.color[:-1]
        along, across = self.along.copy(), self.across.copy()
        along[1:] -= (self.along + self.length)[:-1] * follows
        across[1:] -= self.across[:-1] * follows
        return along, across


def merge_cells(raw: str) -> str:
    """Return Vega's SVG with the cells of each panel as one path a colour.

    Panels whose cells are not plain (whole coordinates, one size, opaque,
    none over another, nothing but a colour on each) are as they were.
    """
    parts, done = [], 0
    for group in _GROUP.finditer(raw):
        end = raw.find("</g>", group.end())
        cells = _read(raw[group.end() : end]) if _ATTRIBUTES.fullmatch(group[2]) else None
        if cells is not None:
            parts += [raw[done : group.start()], f'<g class="{group[1]}" ', _write(cells)]
            done = end
    return "".join((*parts, raw[done:]))


def _read(content: str) -> _Cells | None:
    """Return the cells of a group, or None where one is not as expected."""
    size = _SIZE.match(content)
    if size is None:
        return None
    tail = f'h{size[1]}v{size[2]}h-{size[1]}Z" fill="rgb('
    number = r"\d{1,6}"
    cell = rf'<path d="M{number},{number}{re.escape(tail)}{number}, {number}, {number}\)"/>'
    if re.fullmatch(f"(?:{cell})++", content) is None:
        return None
    start, end = len('<path d="M'), -len(')"/>')
    numbers = content[start:end].replace(tail, ",").replace(_JOINT, ",")
    x, y, *rgb = np.fromstring(numbers, np.int64, sep=",").reshape(-1, 5).T
    width, height = int(size[1]), int(size[2])
    if (x % width).any() or (y % height).any() or max(channel.max() for channel in rgb) > 255:
        return None
    column, row = x // width, y // height
    if len(np.unique(row * 1_000_000 + column)) < len(row):
        return None
    return _Cells(width, height, column, row, (rgb[0] << 16) + (rgb[1] << 8) + rgb[2])


def _write(cells: _Cells) -> str:
    """Return the remaining attributes and the content of the group."""
    rows = _find_runs(cells.column, cells.row, cells.color)
    columns = _find_runs(cells.row, cells.column, cells.color)
    upright = _count_bytes(columns) < _count_bytes(rows)
    width, height = cells.width, cells.height
    # A segment runs through the middle of its cells.
    middle = f"{_half(width)} 0" if upright else f"0 {_half(height)}"
    scale = f"{width}" if width == height else f"{width} {height}"
    transform = f"translate({middle})scale({scale})"
    paths = _write_runs(columns, "v") if upright else _write_runs(rows, "h")
    return f'shape-rendering="crispEdges" transform="{transform}">{paths}'


def _find_runs(along: _Integers, across: _Integers, color: _Integers) -> _Runs:
    """Join neighbours of one colour, and sort the runs by colour, then by place."""
    order = np.lexsort((along, across))
    along, across, color = along[order], across[order], color[order]
    new = (np.diff(across) != 0) | (np.diff(along) != 1) | (np.diff(color) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    length = np.diff(starts, append=len(along))
    starts_color = color[starts]
    order = np.argsort(starts_color, kind="stable")
    starts = starts[order]
    return _Runs(along[starts], across[starts], length[order], starts_color[order])


def _count_bytes(runs: _Runs) -> int:
    """Return about how many bytes the runs take: their digits and signs, and two letters each."""
    numbers = np.concatenate([*runs.moves(), runs.length])
    digits = np.searchsorted([10, 100, 1000, 10_000], np.abs(numbers), side="right")
    return int(digits.sum() + (numbers < 0).sum()) + 2 * len(runs.length)


def _write_runs(runs: _Runs, command: str) -> str:
    """Return one path a colour; ``command`` is h for runs along rows, v along columns."""
    parts: list[str] = []
    moves = np.stack(runs.moves() if command == "h" else runs.moves()[::-1])
    current = -1
    for x, y, length, color in zip(
        *moves.tolist(), runs.length.tolist(), runs.color.tolist(), strict=True
    ):
        if color != current:
            parts.append(f'"/><path stroke="{shorten_color(f"#{color:06x}")}" d="')
            current = color
        # A minus sign separates two numbers by itself.
        parts.append(f"m{x} {y}{command}{length}" if y >= 0 else f"m{x}{y}{command}{length}")
    return "".join(parts).removeprefix('"/>') + '"/>'


def _half(size: int) -> str:
    return f"{size / 2:g}"


def join_rows(root: etree._Element) -> None:
    """Join the cells of small maps, one path a colour for a whole row of maps.

    A sheet has hundreds of maps with a few cells of each colour: most of its bytes
    would say again and again which colour follows. Maps do not overlap, so that it
    makes no difference to the picture when cells are drawn after the next frame.
    """
    for scope in root.iterfind(f".//{SVG}g[@class='mark-group role-scope cell']"):
        rows: dict[tuple[str, str], list[tuple[int, etree._Element]]] = defaultdict(list)
        for panel in scope:
            place = _PANEL_PLACE.fullmatch(panel.get("transform", ""))
            for cells in panel.iterfind(f"{SVG}g[@class='{_JOINED}']"):
                transform = cells.get("transform", "")
                scale = _SCALED.fullmatch(transform)
                if place is not None and scale is not None and int(place[1]) % int(scale[3]) == 0:
                    rows[place[2], transform].append((int(place[1]) // int(scale[3]), cells))
        for (y, transform), maps in rows.items():
            _join(scope, y, transform, maps)


def _join(
    scope: etree._Element, y: str, transform: str, maps: list[tuple[int, etree._Element]]
) -> None:
    colors: dict[str, list[str]] = defaultdict(list)
    for offset, cells in maps:
        for color, path in _read_paths(cells):
            start = _START.match(path)
            if start is None:
                return
            x, across = int(start[1]) + offset, start[2]
            separator = "" if across.startswith("-") else " "
            colors[color].append(f"M{x}{separator}{across}{path[start.end() :]}")
    if not colors:
        return
    place = _SCALED.fullmatch(transform)
    assert place is not None
    moved = f"{float(place[2]) + int(y):g}"
    joined = etree.SubElement(
        scope,
        f"{SVG}g",
        {
            "class": _JOINED,
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


def _read_paths(cells: etree._Element) -> Iterable[tuple[str, str]]:
    """Return colour and path of each item; an empty path where an item is something else."""
    for item in cells:
        plain = item.tag == f"{SVG}path" and set(item.attrib) == {"stroke", "d"}
        yield (item.get("stroke", ""), item.get("d", "")) if plain else ("", "")
