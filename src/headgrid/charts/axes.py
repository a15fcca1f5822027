"""Theme, width and frames -> sizes, axes and colour bars that charts share."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from headgrid.capture.axis import Axis
from headgrid.capture.model import Capture
from headgrid.charts.labels import room_below, room_beside
from headgrid.charts.scales import (
    ColorScale,
    cell_size,
    count_pixels,
    frame_places,
    saturates,
    value_ticks,
)
from headgrid.errors import OptionError
from headgrid.options import FONT_FAMILY, SERIF_FAMILY, FigureOptions
from headgrid.text import fit_title, shorten_float, write_number

INK, UNSEEN_COLOR = "#000000", "#dddddd"
#: What `show_where` takes for an axis that no panel has.
NOWHERE = "false"
#: Name of an invisible mark, which the finishing stage leaves out.
KEY = "headgrid_hidden_key"

_COLORBAR_TICKS, _SMALLEST_PANEL = 7, 36
# Labels of values, as Vega writes them, and as 2e-5.
_DECIMALS = "datum.label"
_EXPONENTS = "datum.value ? replace(format(datum.value,'~e'),'e-','e\u2212') : '0'"
# Those of seaborn's "colorblind" palette, in an order that parts the first ones most.
_ROLE_COLORS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#56b4e9", "#cc78bc", "#ca9161"]
#: What brackets and names of segments take beside a panel, as a share of a label's size.
_SEGMENTS = 1.9
#: A colour bar is at least so many times as long as its labels are high.
_SHORTEST_BAR = 8


@dataclass(frozen=True)
class Look:
    """Every size, weight and gap of a figure, in units of which a cell takes a whole number.

    A unit is a point, unless a width is wanted: then it is what makes the cells of the panels
    whole, and all other lengths are divided by it, so that text keeps its size in points.
    """

    theme: str = "default"
    font: str = "sans"
    border_axes: bool = False  # axes stand at the border of the grid only
    inside_labels: bool = False  # a panel's label stands inside it, not over it
    shared_values: bool = False  # all profiles have one value axis
    own_title: bool = True
    vectors: bool = False  # maps have a whole point for every cell, however many
    unit: float = 1.0  # points that a unit of the chart stands for
    width: float | None = None  # of the whole figure in points, where one is wanted
    figure_title: float = 14
    title_offset: float = 16
    map_title: float = 11
    profile_title: float = 10
    axis_title: float = 9
    tick_label: float = 7
    bar_label: float = 9
    bar_title: float = 10
    bar_thickness: float = 20
    bar_offset: float = 24
    bar_length: float = 750  # three rows of panels
    bar_room: float = 60  # what the labels and the title of the colour bar take
    title_padding: float = 4
    label_padding: float = 2
    header_padding: float = 5
    tick_size: float = 3
    frame_width: float = 0.8  # of frames, ticks and grid
    line_width: float = 1
    point_size: float = 5  # an area, as Vega has it
    map_panel: float = 216
    map_row_gap: float = 60
    map_column_gap: float = 62
    profile_width: float = 204
    profile_height: float = 144
    profile_padding: float = 7
    profile_row_gap: float = 56
    profile_column_gap: float = 46
    stack_gap: float = 18
    left_room: float = 36  # what the axis of the first column takes
    padding: float = 8

    def divided(self, unit: float) -> Look:
        """Return the look for a unit of so many points."""
        if unit == 1:
            return self
        changes: dict[str, Any] = {
            name: shorten_float(value / unit, 6)
            for name, value in vars(self).items()
            if type(value) in (int, float) and name not in ("unit", "width", "map_panel")
        }
        changes["point_size"] = shorten_float(self.point_size / unit**2, 6)
        return replace(self, **changes, unit=unit)


_PAPER = Look(
    theme="paper",
    border_axes=True,
    inside_labels=True,
    shared_values=True,
    own_title=False,
    figure_title=8,
    title_offset=6,
    map_title=7,
    profile_title=7,
    axis_title=7,
    tick_label=6,
    bar_label=6,
    bar_title=7,
    bar_thickness=7,
    bar_offset=8,
    bar_room=28,
    title_padding=2,
    label_padding=1.5,
    header_padding=2,
    tick_size=2,
    frame_width=0.4,
    line_width=0.6,
    point_size=1.4,
    map_panel=84,
    map_row_gap=6,
    map_column_gap=6,
    profile_width=84,
    profile_height=56,
    profile_padding=3,
    profile_row_gap=6,
    profile_column_gap=6,
    stack_gap=5,
    left_room=24,
    padding=2.5,  # half a label of a colour bar stands over the panels
)

_LOOKS = {"default": Look(), "paper": _PAPER}
FAMILIES = {"sans": FONT_FAMILY, "serif": SERIF_FAMILY}


def find_look(options: FigureOptions) -> Look:
    """Return the look that is asked for, its sizes without regard to the width."""
    look = replace(_LOOKS[options.theme], font=options.font, width=options.points)
    asked = options.value_axis
    return replace(look, shared_values=asked == "shared") if asked else look


def restore_look(stored: Mapping[str, Any]) -> Look:
    """Return the look that `store_look` has described, as far as a configuration needs it."""
    look = _LOOKS.get(str(stored.get("theme")), Look())
    font, unit = str(stored.get("font")), stored.get("unit", 1.0)
    look = replace(look, font=font if font in FAMILIES else look.font)
    return look.divided(float(unit)) if isinstance(unit, (int, float)) and unit > 0 else look


def store_look(look: Look) -> dict[str, Any]:
    """Return what ``usermeta`` says of a look: nothing of the usual one."""
    stored = {name: getattr(look, name) for name in ("theme", "font", "unit", "width")}
    return {name: value for name, value in stored.items() if value != getattr(Look, name)}


def fit_maps(
    options: FigureOptions,
    columns: int,
    capture: Capture,
    *,
    vectors: bool = False,
    share: float = 1,
) -> Look:
    """Return the look of a capture's maps, in the figure's width or of a share of the usual one."""
    axis = capture.key_axis
    look = _make_room(find_look(options), capture.query_axis, axis, options.sums)
    look = replace(look, vectors=vectors, map_panel=share * look.map_panel)
    count = len(frame_places(axis.numbers))
    count = count if vectors else count_pixels(count)
    words = room_beside(capture.query_axis, look.tick_label)
    gap = look.map_column_gap + (0 if look.border_axes else words)
    gap = max(gap, label_gap(axis, look, look.map_panel))
    left, gap = shorten_float(look.left_room + words, 4), shorten_float(gap, 4)
    look = replace(look, map_column_gap=gap, left_room=left)
    if options.points is None:
        return _lower(look, axis, cell_size(count, round(look.map_panel)))
    beside = look.bar_offset + look.bar_thickness + look.bar_room
    fixed = look.left_room + (columns - 1) * look.map_column_gap + beside + 2 * look.padding
    wanted = panel_width(options.points, fixed, columns)
    width = cell_size(count, round(wanted)) * count
    height = shorten_float(look.profile_height / look.profile_width * width, 6)
    look, panel = look.divided(shorten_float(wanted / width, 6)), float(width)
    look = replace(look, map_panel=panel, profile_width=panel, profile_height=height)
    return _lower(look, axis, width / count)


def _make_room(look: Look, query: Axis | None, key: Axis, sums: bool = False) -> Look:
    """Return the look with room over the panels, and at their right, for segments and sums."""
    room = shorten_float(_SEGMENTS * look.tick_label, 4)
    over, beside = (room if axis and axis.parts else 0 for axis in (key, query))
    beside += sums_room(look) if sums else 0
    return replace(
        look,
        header_padding=look.header_padding + over,
        map_row_gap=look.map_row_gap + over,
        profile_row_gap=look.profile_row_gap + over,
        stack_gap=look.stack_gap + over,
        map_column_gap=look.map_column_gap + beside,
        bar_offset=look.bar_offset + beside,
    )


def sums_room(look: Look) -> float:
    """Return the room of the sums of rows at the right of a map."""
    return shorten_float(2.6 * look.tick_label, 4)


def _lower(look: Look, axis: Axis, step: float) -> Look:
    """Return the look with rows so far apart that the labels of a key axis have room."""
    room = 0 if look.border_axes else room_below(axis, look.tick_label, step)
    if not room:
        return look
    gaps = (look.map_row_gap, look.profile_row_gap)
    maps, profiles = (shorten_float(gap + room, 4) for gap in gaps)
    return replace(look, map_row_gap=maps, profile_row_gap=profiles)


def fit_profiles(options: FigureOptions, columns: int, axis: Axis, gap: float = 0) -> Look:
    """Return the look of a grid of profiles of the wanted width, so far apart at least."""
    look = _make_room(find_look(options), None, axis)
    look = replace(look, profile_column_gap=max(look.profile_column_gap, gap))
    width = look.profile_width
    if options.points is not None:
        fixed = look.left_room + (columns - 1) * look.profile_column_gap + 2 * look.padding
        width = panel_width(options.points, fixed, columns)
        height = shorten_float(look.profile_height * min(1.0, width / look.profile_width), 6)
        look = replace(look, profile_width=shorten_float(width, 6), profile_height=height)
    return _lower(look, axis, width / len(axis.numbers))


def label_gap(axis: Axis, look: Look, width: float) -> float:
    """Return the gap at which the labels at the ends of two axes of so much width are apart."""
    frames = axis.numbers
    letters = 0 if axis.labels else len(f"{frames[0]}{frames[-1]}")  # words lie within, or upright
    return (0.56 * letters / 2 + 0.3) * look.tick_label - width / len(frames)


def panel_width(points: float, fixed: float, columns: int, smallest: float = 0) -> float:
    """Return what a width of the figure leaves for a panel, if that is enough."""
    width = (points - fixed) / columns
    if width < (smallest or _SMALLEST_PANEL):
        fewer = "draw fewer panels in a row (columns=, --columns), choose theme='paper' (--theme "
        raise OptionError(
            f"width is {points:g} pt, which leaves {max(width, 0):.0f} pt for each of {columns} "
            f"panels in a row, expected at least {smallest or _SMALLEST_PANEL} pt; "
            f"{'' if smallest else f'{fewer}paper), or '}widen it"
        )
    return width


def show_where(shown: str, label: str, extent: float | None = None) -> dict[str, Any]:
    """Return the settings of an axis that is there in some panels only, with a title that far."""
    settings: dict[str, Any] = {} if extent is None else {"minExtent": extent, "maxExtent": extent}
    if not shown:
        return settings
    if shown == NOWHERE:
        return {**settings, "labels": False, "ticks": False}
    opacity = {"expr": f"{shown}?1:0"}
    settings |= {"tickOpacity": opacity, "titleOpacity": opacity}
    return {**settings, "labelExpr": f"{shown}?{label}:''"}


def color_channel(
    channel: Any,
    scale: ColorScale,
    title: str,
    values: tuple[float, float],
    length: float,
    look: Look,
    *,
    below: bool = False,
) -> Any:
    """Give a channel the colour scale, and a bar that says where values, from to, saturate."""
    length = min(max(length, _SHORTEST_BAR * look.bar_label), look.bar_length)
    count = max(1, min(_COLORBAR_TICKS, int(length / (2.2 * look.bar_label))))
    side = "bottom" if below else "right"
    legend: dict[str, Any] = {
        "title": fit_title(title, length, look.bar_title),
        "orient": side,
        "gradientLength": length,
        "titleOrient": side,
        "tickCount": count,
        **(_own_ticks(scale, count, values) or _value_ticks(scale, count, values)),
    }
    if below:
        legend |= {"direction": "horizontal", "titleAnchor": "middle", "titlePadding": 2}
    elif isinstance(legend["title"], list):  # the lines grow towards the labels
        legend["titlePadding"] = 5 + 1.2 * look.bar_title * (len(legend["title"]) - 1)
    domain, colors = (list(part) for part in zip(*scale.stops, strict=True))
    ours: dict[str, Any] = {"interpolate": "rgb", "clamp": True, "type": "linear"}
    return channel.scale(domain=domain, range=colors, **ours).legend(alt.Legend(**legend))


def role_channel(channel: Any, names: Sequence[str], look: Look, **key: Any) -> Any:
    """Give a channel the colours of roles, with a key over the panels that names them."""
    if len(names) > (most := len(_ROLE_COLORS)):
        raise OptionError(f"found {len(names)} roles, expected at most {most}; join some of them")
    place = {"offset": look.title_offset / 2, "symbolSize": look.bar_label**2, **key}
    legend = alt.Legend(orient="top", title=None, symbolType="square", **place)
    return channel.scale(domain=[*names], range=_ROLE_COLORS[: len(names)]).legend(legend)


def _own_ticks(scale: ColorScale, count: int, values: tuple[float, float]) -> dict[str, Any]:
    """Return the ticks of a bar whose numbers are no values: shares of a largest, or decades."""
    low, high = (int(end) if end.is_integer() else end for end in scale.ends)
    shown: dict[float, str] = {}
    if scale.units:
        words = {-1: "\u2212max", 0: "0", 1: "max"}
        shown |= {n: text for n, text in words.items() if low <= n <= high}
    elif scale.is_log:
        step = max(1, math.ceil((high - low) / count))
        whole = range(math.floor(high), math.ceil(low) - 1, -step)
        shown |= {n: _write_decade(n) for n in whole}
        below, above = saturates(values, scale.range)
        if below:  # the foot of the bar stands for all that is less
            zero = "0, " if values[0] <= 0 else ""
            shown[low] = f"{zero}\u2264\u2009{_write_decade(low)}"
        if above:
            shown[high] = f"\u2265\u2009{_write_decade(high)}"
    else:
        return {}
    texts = json.dumps(shown, ensure_ascii=False)
    return {"values": sorted(shown), "labelExpr": f"{texts}[datum.value]", "labelOverlap": False}


def _write_decade(power: float) -> str:
    style = ".3g" if power % 1 else "g" if -3 < power < 4 else ".0e"
    return write_number(10.0**power, style)


def _value_ticks(scale: ColorScale, count: int, values: tuple[float, float]) -> dict[str, Any]:
    """Return the ticks of a bar that says at its ends that values beyond have the same colour."""
    low, high = scale.range.low, scale.range.high
    ticks = value_ticks(low, high, count)
    signs = zip((low, high), saturates(values, scale.range), "\u2264\u2265", strict=True)
    ends = {end: sign for end, beyond, sign in signs if beyond}
    label = plain_label(ticks)
    if not ends:
        return {} if label == _DECIMALS else {"labelExpr": _EXPONENTS}
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    kept = [tick for tick in ticks if all(abs(tick - end) > 0.6 * step for end in ends)]
    for end, sign in ends.items():
        shown = json.dumps(f"{sign}\u2009{write_number(end, '.3g')}", ensure_ascii=False)
        label = f"datum.value{'<=' if end == low else '>='}{end!r}?{shown}:{label}"
    # An end must not give way to another label.
    return {"values": sorted([*kept, *ends]), "labelExpr": label, "labelOverlap": False}


def plain_label(ticks: Collection[float]) -> str:
    """Return the expression of a label, as a part of others: 2e-5 where decimals would be long."""
    texts = [f"{tick:g}" for tick in ticks]
    is_long = any("e" in text or len(text) > 7 for text in texts)
    return f"({_EXPONENTS})" if is_long else _DECIMALS


def unseen_key(by: str, look: Look) -> Any:
    """Return an invisible mark whose legend, below the colour bar, says what grey means."""
    size = shorten_float((0.9 * look.bar_label) ** 2, 6)
    legend = alt.Legend(title=None, orient="right", symbolSize=size, labelOffset=look.tick_size)
    legend.symbolStrokeWidth = look.frame_width
    mark = alt.Chart(name=KEY).mark_point(fill=UNSEEN_COLOR, stroke=INK, opacity=0, aria=False)
    mark = mark.transform_aggregate(groupby=[by]).transform_calculate(grey="'not seen'")
    scale = alt.Scale(domain=["not seen"], range=["square"])
    shape = alt.Shape("grey:N", scale=scale, legend=legend)
    return mark.encode(x=alt.XValue(0), y=alt.YValue(0), shape=shape)
