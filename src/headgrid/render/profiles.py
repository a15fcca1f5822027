"""Specification of a grid of profiles -> the texts that each panel has of its own.

Numbers are those that Vega finds, bit for bit, before they are rounded. Only how far the title of
an axis is from its panel, beyond the widest label, Vega measures: once for each label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgrid.charts.axes import Look, plain_label
from headgrid.charts.panels import BARS, ENDS, LINE, POINTS
from headgrid.charts.scales import value_ticks
from headgrid.charts.spec import Spec
from headgrid.render.cells import Node, ignores_values, read_transform
from headgrid.render.svg import marks
from headgrid.render.svg.marks import RULE_DECIMALS, expect, round_number, shorten_number
from headgrid.text import measure_text, write_number

#: What marks of values do where there is none.
_INVALID = {BARS: "filter", LINE: "break-paths-filter-domains", POINTS: "filter"}
#: What a value axis says where each panel has its own.
_AXIS = {"grid", "labelExpr", "labelOverlap", "minExtent", "tickCount", "titleOpacity"}
_TITLE = re.compile(r'role-axis-title"[^<>]*><text[^<>]* transform="translate\((-[\d.]+),')


@dataclass(frozen=True)
class Profiles:
    """What each panel has of its own, and the labels of its value axis, if not all share one."""

    spec: Spec
    texts: list[list[str]]
    labels: list[list[str]]

    @property
    def widest(self) -> int:
        """The panel that probably has the widest labels at the left of the figure."""
        first = range(0, len(self.labels), self.spec["columns"])
        return max(first, key=lambda n: max(map(measure_text, self.labels[n]), default=0))

    def write(self, drawn: Sequence[int], draw: Callable[[Spec], str]) -> list[list[str]]:
        """Return the texts of each panel, the titles of axes where a small drawing has them."""
        names = [*dict.fromkeys(text for own in self.labels for text in own)]
        if not names:
            return self.texts
        columns, axis = self.spec["columns"], self.spec["spec"]["layer"][0]["encoding"]["y"]["axis"]
        found = dict(zip(names, _TITLE.findall(draw(self._ruler(names))), strict=True))
        titles = [min((found[text] for text in own), key=float, default="") for own in self.labels]
        # The figure is as wide as the panels that Vega draws make it.
        first = {n: float(title) for n, title in enumerate(titles) if title and n % columns == 0}
        expect(min(first.values()) == min(first[n] for n in drawn if n in first))
        if "titleOpacity" in axis:
            titles = [title if n % columns == 0 else "" for n, title in enumerate(titles)]
        pairs = zip(self.texts, titles, strict=True)
        return [[*own, f' transform="translate({at},'] if at else own for own, at in pairs]

    def _ruler(self, labels: Sequence[str]) -> Spec:
        """Return a figure that has a panel for each label, on an axis with a title."""
        panel, facet = self.spec["spec"], self.spec["facet"]
        y = panel["layer"][0]["encoding"]["y"]
        label = f"{json.dumps(labels)}[parent.{facet['field']}]"
        axis = {**y["axis"], "values": [0], "titleOpacity": 1, "labelExpr": label}
        layer = {"name": LINE, "mark": "line", "encoding": {"y": {**y, "axis": axis}}}
        part = {"facet": {**facet, "header": None}, "spec": {**panel, "layer": [layer]}}
        records = [{facet["field"]: number, y["field"]: [0]} for number in range(len(labels))]
        return {**self.spec, **part, "data": {"values": records}}


def read_profiles(spec: Spec, look: Look, lists: Mapping[str, Any]) -> Profiles:
    """Return the profiles of a grid, or raise one of what Python raises where they are not ours."""
    panel, records, facet = spec["spec"], spec["data"]["values"], spec["facet"]["field"]
    x, y = (panel["layer"][0]["encoding"][name] for name in "xy")
    statistic, keys, _ = read_transform(spec, [facet])
    domain, shared = x["scale"]["domain"], y["scale"].get("domain")
    expect(domain == (keys if isinstance(keys, list) else [*range(keys, keys + len(domain))]))
    expect((x["field"], x["scale"]["type"], y["field"]) == ("key", "band", statistic))
    expect(x["scale"].keys() == {"domain", "paddingInner", "paddingOuter", "type"})
    expect({**y["scale"], "domain": 0} == {"domain": 0, "nice": False, "zero": False})
    expect(shared or (y["axis"].keys() <= _AXIS and not y["axis"]["labelOverlap"]))
    names = [_check_layer(layer, x, y, look, facet) for layer in panel["layer"]]
    expect(all(names.count(name) < 2 for name in (*_INVALID, ENDS)))
    counts = lists.get("tickCount") or [y["axis"]["tickCount"]] * len(records)
    profiles = Profiles(spec, [], [])
    for number, record in enumerate(records):
        seen = [value for value in record[statistic] if value is not None]
        least, most = min([0, *seen]), max([0, *seen])
        low, high = shared or (lists["low"][number], lists["high"][number])
        # Beyond, ticks may be found otherwise.
        expect(1e-15 < high - low < 1e15 and low <= least <= most <= high)

        def place(value: float, low: float = low, high: float = high) -> float:
            return panel["height"] * (1 - (value - low) / (high - low))  # type: ignore[no-any-return]

        # What is at the very top, a dot or a label, would lift the name of the panel.
        expect(place(most) > look.profile_padding / 2)
        paths = _write_marks(record[statistic], x["scale"], panel["width"], place)
        texts = [f' d="{path}"' for name, path in paths.items() if seen and name in names]
        labels: list[str] = []
        if seen and not shared:
            ticks, labels = _find_ticks(low, high, counts[number], y["axis"]["labelExpr"])
            expect(place(ticks[-1]) > 0.59 * look.tick_label)
            texts += _write_axis([*map(place, ticks)], labels, panel["width"], look)
        profiles.texts.append(texts)
        profiles.labels.append(labels)
    return profiles


def _check_layer(layer: Node, x: Node, y: Node, look: Look, facet: str) -> str:
    """Return the name of a layer; a ValueError if it may draw what a panel's texts leave out."""
    name = str(layer.get("name"))
    shown = {channel: part for channel, part in layer["encoding"].items() if channel != "tooltip"}
    if name in _INVALID:
        size, pen = (layer["mark"].get(key, 0) for key in ("size", "strokeWidth"))
        expect(size <= look.point_size and pen <= look.line_width)
        expect(layer["mark"]["invalid"] == _INVALID[name] and "transform" not in layer)
        expect(shown == {"x": x, "y": y, **({"y2": {"datum": 0}} if name == BARS else {})})
    else:
        expect(ignores_values(layer, y["field"], (facet,)))
        ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
        fixed = all("field" not in shown.get(channel, ()) for channel in ends)
        expect(shown == ends if name == ENDS else fixed)
    return name


def _find_ticks(low: float, high: float, count: int, label: str) -> tuple[list[float], list[str]]:
    """Return the ticks of an axis and their labels; a ValueError where Vega may find others."""
    ticks = value_ticks(low, high, count)
    step = ticks[1] - ticks[0]
    expect(all(n == 0 or abs(n - round(n)) > 1e-9 for n in (low / step, high / step)))
    if label != plain_label(()):  # short ones of numbers with many digits
        numbers = [write_number(tick, "e") if tick else "0" for tick in ticks]
        return ticks, [re.sub(r"\.?0+(?=e)", "", number) for number in numbers]
    decimals = max(0, -int(f"{step:.0e}".partition("e")[2]))
    return ticks, [write_number(tick, f",.{decimals}f") for tick in ticks]


def _write_marks(
    values: Sequence[float | None], scale: Node, length: float, place: Callable[[float], float]
) -> dict[str, str]:
    """Return the paths of bars, line and points."""
    inner, outer, count = scale["paddingInner"], scale["paddingOuter"], len(scale["domain"])
    step = length / (count - inner + outer * 2)
    start, band, zero = (length - step * (count - inner)) * 0.5, step * (1 - inner), place(0)
    bars, dots, line = [], [], ""
    for n, value in enumerate(values):
        if value is not None:
            x, y = start + step * n, place(value)
            bars.append((x, min(y, zero), band, abs(zero - y)))
            dots.append((x + band * 0.5, y))
            before, after = [None, *values, None][n : n + 3 : 2]
            line += f"{'ML'[before is not None]}{round_number(dots[-1][0])} {round_number(y)}"
            line += "Z" if before is None and after is None else ""
    return {BARS: marks.write_bars(bars), LINE: line, POINTS: marks.write_dots(dots)}


def _write_axis(places: list[float], labels: list[str], width: float, look: Look) -> list[str]:
    """Return grid, ticks and labels of a value axis, where there is one."""
    ends = map(shorten_number, (width, -look.tick_size))
    rules = ["".join(f"M0 {round_number(y, RULE_DECIMALS)}h{end}" for y in places) for end in ends]
    x, down = shorten_number(-look.tick_size - look.label_padding), int(0.3 * look.tick_label + 0.5)
    texts = [
        f'<text x="{x}" y="{shorten_number(place + down)}">{label}</text>'
        for place, label in zip(places, labels, strict=True)
    ]
    return [*(f' d="{rule}"' for rule in rules), "".join(texts)]
