"""Marks of panels in Vega's SVG -> short paths: cells by colour, bars, line, points and rules.

Each mark is redrawn only where every item of its group is exactly as headgrid draws
it: a user's own colours, strokes, tooltips or links stay.

Cells become stroked paths in unit coordinates, one a colour: ``m6 2h9`` is nine cells
of row 2. Strokes and not filled rectangles: they take 0.22 MB instead of 0.39 MB at 72
frames, and with ``crispEdges`` resvg and Chromium put the same pixels at every scale;
PDF viewers show seams between filled rectangles, and none between strokes.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from lxml import etree

_Integers: TypeAlias = npt.NDArray[np.int64]
#: Width and height of a panel's cells, and [column, row, color as 0xRRGGBB] of each.
Cells: TypeAlias = tuple[int, int, _Integers]

SVG = "{http://www.w3.org/2000/svg}"
# A prefix comes from a figure that holds the chart as a part.
_CLASSES = re.compile(r"mark-(\w+) role-mark [\w-]*headgrid_(\w+)_marks")
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
NUMBER = re.compile(_NUMBER)
_RECTANGLE = re.compile(rf"M({_NUMBER}),({_NUMBER})h({_NUMBER})v({_NUMBER})h-({_NUMBER})Z")
_POLYLINE = re.compile(rf"(?:[ML]{_NUMBER},{_NUMBER}|Z)+")
_CIRCLE = re.compile(r"M([\d.]+),0A\1,\1,0,1,1,-\1,0A\1,\1,0,1,1,\1,0")
_MOVE = re.compile(rf"translate\(({_NUMBER}),({_NUMBER})\)")
_PLAIN_COLOR = re.compile(r"#[0-9a-fA-F]{6}|#[0-9a-fA-F]{3}|[a-z]+|rgb\([\d, ]+\)")
# A renderer's antialiasing samples at quarters of a pixel: with 2 decimals one edge in a
# hundred falls on another sample, which shows as up to 68 levels in a pixel.
_DECIMALS = 3
_DOT_DECIMALS = _RULE_DECIMALS = 2

_GROUP = re.compile(r'<g class="(mark-rect role-mark [\w-]*headgrid_cells_marks)"([^<>]*)(?<!/)>')
_SIZE = re.compile(r'<path d="M\d{1,6},\d{1,6}h([1-9]\d{0,4})v([1-9]\d{0,4})h-')
_ATTRIBUTES = re.compile(r'(?: aria-hidden="true"| pointer-events="none")*')
_JOINT = ')"/><path d="M'
#: Class of the cells that are joined.
_JOINED = "mark-rect role-mark sheet_headgrid_cells_marks"
_PANEL_PLACE = re.compile(r"translate\((-?\d+),(-?\d+)\)")
_SCALED = re.compile(r"translate\([\d.]+ ([\d.]+)\)scale\((\d+)(?: \d+)?\)")
_START = re.compile(r"m(-?\d+)(?: |(?=-))(-?\d+)")


@lru_cache(maxsize=4096)
def shorten_number(text: str | float) -> str:
    """Return the shortest number that is the same in the renderers' single precision.

    >>> shorten_number("4.357142857142861"), shorten_number("-0"), shorten_number("1e-15")
    ('4.357143', '0', '0')
    """
    number = float(text)
    if abs(number) < 1e-6:
        return "0"
    with np.errstate(over="ignore"):  # what is beyond is infinitely far away
        return np.format_float_positional(np.float32(number), unique=True, trim="-")


def shorten_numbers(text: str) -> str:
    """Shorten every number of a transform or a path."""
    return NUMBER.sub(lambda match: shorten_number(match.group()), text)


def shorten_color(color: str) -> str:
    """Return a colour with three digits where they say the same: ``#aabbcc`` as ``#abc``."""
    if len(color) == 7 and color[0] == "#" and color[1::2] == color[2::2]:
        return f"#{color[1::2]}"
    return color


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
    if re.fullmatch(f"(?:{cell})++", content) is None:
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
    makes no difference to the picture when cells are drawn after the next frame.
    """
    for scope in root.iterfind(f".//{SVG}g[@class='mark-group role-scope cell']"):
        rows: dict[tuple[str, str, str], list[tuple[int, etree._Element]]] = defaultdict(list)
        for panel in scope:
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


def remove(element: etree._Element) -> None:
    """Take an element out of the drawing."""
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def merge_mark(group: etree._Element) -> bool:
    """Redraw the group of a mark if it is as headgrid drew it; return whether headgrid named it."""
    kind = _CLASSES.sub(r"\1 \2", group.get("class", ""))
    merge = _MERGES.get(kind)
    if merge is not None and all(item.tag == f"{SVG}path" and not len(item) for item in group):
        merge(group)
    return merge is not None or kind in ("rect cells", "image tiles")


def merge_rules(group: etree._Element) -> None:
    """Turn the group of parallel grid lines or ticks of one look into one path."""
    looks, segments, places = set(), [], set()
    for item in [line for line in group if line.get("opacity") == "0"]:
        group.remove(item)
    for item in group:
        look = {str(name): str(value) for name, value in item.attrib.items()}
        move = _MOVE.fullmatch(look.pop("transform", ""))
        end = look.pop("x2", ""), look.pop("y2", "")
        plain = all(name.startswith("stroke") or name == "opacity" for name in look)
        upright = end[0] == "0"
        if item.tag != f"{SVG}line" or move is None or "0" not in end or not plain:
            return
        if NUMBER.fullmatch(end[upright]) is None:
            return
        x, y = (_round(place, _RULE_DECIMALS) for place in move.groups())
        command = f"v{shorten_number(end[1])}" if upright else f"h{shorten_number(end[0])}"
        segments.append(f"M{x} {y}{command}")
        places.add((upright, move[1 if upright else 2]))
        looks.add(tuple(look.items()))
    # Lines that cross or lie on each other would show it where they are translucent.
    one_direction = len({upright for upright, _ in places}) == 1
    if len(looks) == 1 and one_direction and len(places) == len(segments):
        group[:] = []
        group.tag = f"{SVG}path"
        group.attrib.update({**dict(looks.pop()), "d": "".join(segments)})
        _shorten_look(group)


def _merge_bars(group: etree._Element) -> None:
    """Draw bars of one look, none over another, as one path of readable rectangles."""
    look = _common_look(group, "d", {"fill", "opacity"})
    found = [_RECTANGLE.fullmatch(item.get("d", "")) for item in group]
    if look is None or any(bar is None or bar[3] != bar[5] for bar in found):
        return
    bars = [tuple(map(float, bar.groups()[:4])) for bar in found if bar is not None]
    ordered = sorted((x, x + width) for x, _, width, _ in bars)
    if any(end > start for (_, end), (start, _) in itertools.pairwise(ordered)):
        return
    moves = _write_moves([bar[:2] for bar in bars], _DECIMALS)
    path = []
    for move, (_, y, width, height) in zip(moves, bars, strict=True):
        # Both ends are rounded, so that all bars keep one base line.
        tall = round(y + height, _DECIMALS) - round(y, _DECIMALS)
        wide = _round(width)
        path.append(f"{move}h{wide}v{_round(tall)}h-{wide}z")
    _replace(group, {**look, "d": "".join(path)})


def _write_moves(places: Sequence[tuple[float, ...]], decimals: int) -> Iterator[str]:
    """Yield the way to each place from the one before, between rounded places: no error grows."""
    x, y = 0.0, 0.0
    for place in places:
        before, (x, y) = (x, y), (round(number, decimals) for number in place)
        across, down = _round(x - before[0], decimals), _round(y - before[1], decimals)
        yield f"m{across}{down}" if down.startswith("-") else f"m{across} {down}"


def _merge_points(group: etree._Element) -> None:
    """Draw opaque dots of one look as one path of segments without length, ended round."""
    look = _common_look(group, "transform", {"d", "fill", "stroke-width", "opacity"})
    moves = [_MOVE.fullmatch(item.get("transform", "")) for item in group]
    circle = _CIRCLE.fullmatch((look or {}).get("d", ""))
    if look is None or circle is None or look.get("opacity", "1") != "1" or None in moves:
        return
    places = [(float(move[1]), float(move[2])) for move in moves if move]
    dots = [f"{move}h0" for move in _write_moves(places, _DOT_DECIMALS)]
    pen = {"stroke-width": _round(2 * float(circle[1])), "stroke-linecap": "round"}
    _replace(group, {"stroke": look["fill"], **pen, "d": "".join(dots)})


def _shorten_paths(group: etree._Element) -> None:
    """Shorten frames, and the vertices of straight lines; every one stays where it is."""
    for item in group:
        path = item.get("d", "")
        if _POLYLINE.fullmatch(path):
            short = NUMBER.sub(lambda match: _round(match.group()), path)
            item.set("d", short.replace(",", " "))
            _shorten_look(item)
        shorten_rectangle(item)


def _merge_steps(group: etree._Element) -> None:
    """Write the outlines of areas that only go along the axes without what lies on the way."""
    for item in group:
        path = item.get("d", "")
        if not _POLYLINE.fullmatch(path):
            continue
        short = []
        for part in filter(None, path.split("Z")):
            points = [
                (_round(x), _round(y)) for x, y in re.findall(f"({_NUMBER}),({_NUMBER})", part)
            ]
            kept = points[:1]
            for at, after in itertools.pairwise([*points[1:], points[0]]):
                if not any(kept[-1][i] == at[i] == after[i] for i in (0, 1)):
                    kept.append(at)
            short.append(f"M{kept[0][0]} {kept[0][1]}")
            for before, (x, y) in itertools.pairwise(kept):
                short.append(
                    f"H{x}" if y == before[1] else f"V{y}" if x == before[0] else f"L{x} {y}"
                )
            short.append("z")
        item.set("d", "".join(short))
        _shorten_look(item)


def shorten_rectangle(item: etree._Element) -> None:
    """Write a frame or a background with the same coordinates in fewer digits."""
    path = item.get("d", "")
    if _RECTANGLE.fullmatch(path):
        item.set("d", shorten_numbers(path).replace(",", " "))
        _shorten_look(item)


_MERGES: dict[str, Callable[[etree._Element], None]] = {
    "rect bars": _merge_bars,
    "area bars": _merge_steps,
    "rect frame": _shorten_paths,
    "line line": _shorten_paths,
    "line faint": _shorten_paths,
    "symbol points": _merge_points,
}


def _common_look(group: etree._Element, own: str, allowed: set[str]) -> dict[str, str] | None:
    """Return the attributes that all items share beside their own one, if they are plain."""
    looks = [{str(k): str(v) for k, v in item.attrib.items() if k != own} for item in group]
    if not looks or any(look != looks[0] for look in looks):
        return None
    fill = looks[0].get("fill", "none")
    visible = fill not in ("none", "transparent") and _PLAIN_COLOR.fullmatch(fill)
    return looks[0] if visible and looks[0].keys() <= allowed else None


def _replace(group: etree._Element, attributes: dict[str, str]) -> None:
    group[:] = []
    _shorten_look(etree.SubElement(group, f"{SVG}path", attributes))


def _shorten_look(item: etree._Element) -> None:
    """Drop attributes that say what holds anyway, and shorten colours."""
    for name in ("opacity", "stroke-width", "stroke-opacity", "fill-opacity"):
        if item.get(name) == "1":
            del item.attrib[name]
    for name in ("fill", "stroke"):
        if name in item.attrib:
            item.set(name, shorten_color(item.get(name, "")))


def _round(number: float | str, decimals: int = _DECIMALS) -> str:
    text = f"{float(number):.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
