"""Colour bars in Vega's SVG -> the same with true colours, ticks, and titles that read upwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from lxml import etree

from headgrid.render.svg.marks import SVG, shorten_number

#: Offset, 0 to 1, and colour of each stop of a colour bar.
Stops: TypeAlias = Sequence[tuple[float, str]]

_BAR = re.compile(r"M0[ ,]0h([\d.]+)v([\d.]+)")
_TURNED = re.compile(r"translate\(([^(),]+),([^(),]+)\)rotate\(90\)")


def set_gradients(root: etree._Element, scales: Sequence[Stops]) -> None:
    """Give each colour bar its true stops, where it is clear whose they are."""
    gradients = list(root.iter(f"{SVG}linearGradient"))
    if len(scales) == 1:
        scales = [*scales] * len(gradients)
    if len(scales) != len(gradients):
        return
    for gradient, stops in zip(gradients, scales, strict=True):
        # Both ends tell whether the stops are of this scale.
        ends = [stop.get("stop-color") for stop in gradient][:: max(len(gradient) - 1, 1)]
        if ends == [_rgb(stops[0][1]), _rgb(stops[-1][1])]:
            gradient[:] = []
            for offset, color in stops:
                place = f"{offset:.6f}".rstrip("0").rstrip(".")
                etree.SubElement(gradient, f"{SVG}stop", {"offset": place, "stop-color": color})


def dress_bars(root: etree._Element) -> None:
    """Give colour bars ticks, and let their titles read upwards, which Vega turns downwards."""
    for bar in root.iterfind(f".//{SVG}g[@class='mark-rect role-legend-gradient']/../.."):
        _dress(bar)


def _dress(bar: etree._Element) -> None:
    box = bar.find(f".//{SVG}g[@class='mark-rect role-legend-gradient']/{SVG}path")
    found = None if box is None else _BAR.match(box.get("d", ""))
    if box is None or found is None or float(box.get("stroke-width", "0")) == 0:
        return  # a user wants no outline
    wide, high = float(found[1]), float(found[2])
    ticks = []
    for label in bar.iterfind(f".//{SVG}g[@class='mark-text role-legend-label']/{SVG}text[@y]"):
        x, y = float(label.get("x", "0")), float(label.get("y", "0"))
        size = _font_size(label)
        if wide > high:  # the bar lies below the figure
            reach = shorten_number(round(0.6 * (y - 0.79 * size - high), 2))
            ticks.append(f"M{shorten_number(x)} {found[2]}v{reach}")
            continue
        if not wide < x:  # labels at its left
            return
        # How far below their place Vega has the base lines of labels; at the ends, inside the bar.
        # A label stands at its tick, there as well.
        ends = {float(round(0.79 * size)): 0.0, high - round(0.21 * size): high}
        place = next((ends[end] for end in ends if abs(y - end) < 1e-4), y - round(0.3 * size))
        reach = shorten_number(round(0.6 * (x - wide), 2))
        ticks.append(f"M{found[1]} {shorten_number(place)}h{reach}")
        label.set("y", shorten_number(float(place) + round(0.3 * size)))
    box.attrib.pop("opacity", "")
    look = {name: box.get(name, "") for name in ("stroke", "stroke-width")}
    own = {"class": "mark-rule role-legend-tick", **look, "d": "".join(ticks)}
    etree.SubElement(bar[0], f"{SVG}path", own)
    for title in bar.iterfind(f"{SVG}g[@class='mark-text role-legend-title']/{SVG}text"):
        turned = _TURNED.fullmatch(title.get("transform", ""))
        if turned:
            # Letters have 0.72 of their size above the base line and 0.21 below.
            width = 0.51 * _font_size(title) - sum(float(line.get("dy", "0")) for line in title)
            left = shorten_number(float(turned[1]) + width)
            # Vega has titles of several lines above the middle of their bars.
            middle = title.get("text-anchor") == "middle"
            at = shorten_number(high / 2) if middle else turned[2]
            title.set("transform", f"translate({left},{at})rotate(-90)")


def _font_size(text: etree._Element) -> float:
    parent = text.getparent()
    own = text.get("font-size") or (None if parent is None else parent.get("font-size"))
    return float(own.removesuffix("px")) if own else 0.0


def _rgb(color: str) -> str:
    """Return ``#rrggbb`` as Vega writes it."""
    channels = [str(int(digits, 16)) for digits in re.findall("[0-9a-fA-F]{2}", color)]
    return f"rgb({', '.join(channels)})"
