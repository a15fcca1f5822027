"""Bars, line, points, frame, grid lines and ticks of a panel -> one short path each.

Each function looks at the group of one mark in Vega's SVG, and redraws it only
where every item is exactly as headgrid draws it: a user's own colours, strokes,
tooltips or links stay.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from lxml import etree

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
_INVISIBLE = ("none", "transparent")
# A renderer's antialiasing samples at quarters of a pixel: with 2 decimals one edge in a
# hundred falls on another sample, which shows as up to 68 levels in a pixel.
_DECIMALS = 3
_DOT_DECIMALS = 2


def is_named(classes: str) -> bool:
    """Return whether the classes of a group are those of a mark that headgrid named."""
    return _kind(classes) in (*_MERGES, "rect cells", "image tiles")


def merge_mark(group: etree._Element) -> None:
    """Redraw the group of a mark that headgrid named, if it is as headgrid drew it."""
    merge = _MERGES.get(_kind(group.get("class", "")))
    if merge is not None and all(item.tag == f"{SVG}path" and not len(item) for item in group):
        merge(group)


def _kind(classes: str) -> str:
    return _CLASSES.sub(r"\1 \2", classes)


def merge_rules(group: etree._Element) -> None:
    """Turn the group of parallel grid lines or ticks of one look into one path."""
    looks, segments, places = set(), [], set()
    for item in group:
        look = {str(name): str(value) for name, value in item.attrib.items()}
        move = _MOVE.fullmatch(look.pop("transform", ""))
        end = look.pop("x2", ""), look.pop("y2", "")
        plain = all(name.startswith("stroke") or name == "opacity" for name in look)
        if item.tag != f"{SVG}line" or move is None or "0" not in end or not plain:
            return
        upright = end[0] == "0"
        if NUMBER.fullmatch(end[upright]) is None:
            return
        command = f"v{shorten_number(end[1])}" if upright else f"h{shorten_number(end[0])}"
        segments.append(f"M{shorten_number(move[1])} {shorten_number(move[2])}{command}")
        places.add((upright, move[1 if upright else 2]))
        looks.add(tuple(look.items()))
    # Lines that cross or lie on each other would show it where they are translucent.
    one_direction = len({upright for upright, _ in places}) == 1
    if len(looks) == 1 and one_direction and len(places) == len(segments):
        _clear(group)
        group.tag = f"{SVG}path"
        group.attrib.update({**dict(looks.pop()), "d": "".join(segments)})
        _shorten_look(group)


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
    """Return a colour with three digits where they say the same.

    >>> shorten_color("#aabbcc"), shorten_color("#aabbcd"), shorten_color("white")
    ('#abc', '#aabbcd', 'white')
    """
    if len(color) == 7 and color[0] == "#" and color[1::2] == color[2::2]:
        return f"#{color[1::2]}"
    return color


def _merge_bars(group: etree._Element) -> None:
    """Draw bars of one look, none over another, as one path of readable rectangles."""
    look = _common_look(group, ("d",), ("fill", "opacity"))
    found = [_RECTANGLE.fullmatch(item.get("d", "")) for item in group]
    if look is None or not found or any(bar is None or bar[3] != bar[5] for bar in found):
        return
    bars = [tuple(map(float, bar.groups()[:4])) for bar in found if bar is not None]
    ordered = sorted((x, x + width) for x, _, width, _ in bars)
    if any(end > start for (_, end), (start, _) in itertools.pairwise(ordered)):
        return
    path = []
    for x, y, width, height in bars:
        # Both ends are rounded, so that all bars keep one base line.
        tall = round(y + height, _DECIMALS) - round(y, _DECIMALS)
        wide = _round(width)
        path.append(f"M{_round(x)} {_round(y)}h{wide}v{_round(tall)}h-{wide}z")
    _replace(group, {**look, "d": "".join(path)})


def _merge_points(group: etree._Element) -> None:
    """Draw opaque dots of one look as one path of segments without length, ended round."""
    look = _common_look(group, ("transform",), ("d", "fill", "stroke-width", "opacity"))
    moves = [_MOVE.fullmatch(item.get("transform", "")) for item in group]
    circle = _CIRCLE.fullmatch((look or {}).get("d", ""))
    if look is None or circle is None or look.get("opacity", "1") != "1":
        return
    if None in moves:
        return
    dots = [f"M{_round(m[1], _DOT_DECIMALS)} {_round(m[2], _DOT_DECIMALS)}h0" for m in moves if m]
    pen = {"stroke-width": _round(2 * float(circle[1])), "stroke-linecap": "round"}
    _replace(group, {"stroke": look["fill"], **pen, "d": "".join(dots)})


def _shorten_line(group: etree._Element) -> None:
    """Shorten the vertices of straight lines; every one stays, in absolute coordinates."""
    for item in group:
        path = item.get("d", "")
        if _POLYLINE.fullmatch(path):
            short = NUMBER.sub(lambda match: _round(match.group()), path)
            item.set("d", short.replace(",", " "))
            _shorten_look(item)


def shorten_rectangle(item: etree._Element) -> None:
    """Write a frame or a background with the same coordinates in fewer digits."""
    path = item.get("d", "")
    if _RECTANGLE.fullmatch(path):
        item.set("d", shorten_numbers(path).replace(",", " "))
        _shorten_look(item)


def _shorten_frame(group: etree._Element) -> None:
    for item in group:
        shorten_rectangle(item)


_MERGES: dict[str, Callable[[etree._Element], None]] = {
    "rect bars": _merge_bars,
    "rect frame": _shorten_frame,
    "line line": _shorten_line,
    "line faint": _shorten_line,
    "symbol points": _merge_points,
}


def _common_look(
    group: etree._Element, own: Sequence[str], allowed: Sequence[str]
) -> dict[str, str] | None:
    """Return the attributes that all items share beside their own, or None."""
    look: dict[str, str] | None = None
    for item in group:
        rest = {str(name): str(value) for name, value in item.attrib.items() if name not in own}
        if look is not None and rest != look:
            return None
        look = rest
    if look is None:
        return None
    fill = look.get("fill", "none")
    if not look.keys() <= set(allowed) or fill in _INVISIBLE or not _PLAIN_COLOR.fullmatch(fill):
        return None
    return look


def _replace(group: etree._Element, attributes: dict[str, str]) -> None:
    _clear(group)
    _shorten_look(etree.SubElement(group, f"{SVG}path", attributes))


def _clear(group: etree._Element) -> None:
    for item in list(group):
        group.remove(item)


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
