"""Marks of panels in Vega's SVG -> short paths: bars, line, points and rules.

Each mark is redrawn only where every item of its group is exactly as headgrid draws
it: a user's own colours, strokes, tooltips or links stay.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
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
# A renderer's antialiasing samples at quarters of a pixel: with 2 decimals one edge in a
# hundred falls on another sample, which shows as up to 68 levels in a pixel.
_DECIMALS = 3
_DOT_DECIMALS = RULE_DECIMALS = 2


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


def expect(condition: bool) -> None:
    """Raise a ValueError where a figure is not as headgrid builds it."""
    if not condition:
        raise ValueError


def remove(element: etree._Element) -> None:
    """Take an element out of the drawing."""
    if (parent := element.getparent()) is not None:
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
        x, y = (round_number(place, RULE_DECIMALS) for place in move.groups())
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
    if not any(end > start for (_, end), (start, _) in itertools.pairwise(ordered)):
        _replace(group, {**look, "d": write_bars(bars)})


def write_bars(bars: Sequence[tuple[float, ...]]) -> str:
    """Return the path of bars (left, top, width, height)."""
    moves = _write_moves([bar[:2] for bar in bars], _DECIMALS)
    path = []
    for move, (_, y, width, height) in zip(moves, bars, strict=True):
        # Both ends are rounded, so that all bars keep one base line.
        tall = round(y + height, _DECIMALS) - round(y, _DECIMALS)
        wide = round_number(width)
        path.append(f"{move}h{wide}v{round_number(tall)}h-{wide}z")
    return "".join(path)


def write_dots(places: Sequence[tuple[float, float]]) -> str:
    """Return the path of dots around places."""
    return "".join(f"{move}h0" for move in _write_moves(places, _DOT_DECIMALS))


def _write_moves(places: Sequence[tuple[float, ...]], decimals: int) -> Iterator[str]:
    """Yield the way to each place from the one before, between rounded places: no error grows."""
    x, y = 0.0, 0.0
    for place in places:
        before, (x, y) = (x, y), (round(number, decimals) for number in place)
        across, down = round_number(x - before[0], decimals), round_number(y - before[1], decimals)
        yield f"m{across}{down}" if down.startswith("-") else f"m{across} {down}"


def _merge_points(group: etree._Element) -> None:
    """Draw opaque dots of one look as one path of segments without length, ended round."""
    look = _common_look(group, "transform", {"d", "fill", "stroke-width", "opacity"})
    moves = [_MOVE.fullmatch(item.get("transform", "")) for item in group]
    circle = _CIRCLE.fullmatch((look or {}).get("d", ""))
    if look is None or circle is None or look.get("opacity", "1") != "1" or None in moves:
        return
    places = [(float(move[1]), float(move[2])) for move in moves if move]
    pen = {"stroke-width": round_number(2 * float(circle[1])), "stroke-linecap": "round"}
    _replace(group, {"stroke": look["fill"], **pen, "d": write_dots(places)})


def _shorten_paths(group: etree._Element) -> None:
    """Shorten frames, and the vertices of straight lines; every one stays where it is."""
    for item in group:
        path = item.get("d", "")
        if _POLYLINE.fullmatch(path):
            short = NUMBER.sub(lambda match: round_number(match.group()), path)
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
                (round_number(x), round_number(y))
                for x, y in re.findall(f"({_NUMBER}),({_NUMBER})", part)
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


def round_number(number: float | str, decimals: int = _DECIMALS) -> str:
    """Return a number with so many decimals at most."""
    text = f"{float(number):.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
