"""Theme, width and frames -> sizes, axes and colour bars that charts share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture
from headgrid.charts.scales import (
    MAX_PIXELS,
    ColorScale,
    cell_size,
    count_pixels,
    frame_places,
    labeled_frames,
    pool_factor,
    saturates,
    value_ticks,
)
from headgrid.errors import OptionError
from headgrid.options import BLOCKS, FONT_FAMILY, SERIF_FAMILY, FigureOptions
from headgrid.text import fit_title, shorten_float, shorten_list, write_number

INK, UNSEEN_COLOR = "#000000", "#dddddd"
#: What `show_where` takes for an axis that no panel has.
NOWHERE = "false"

_COLORBAR_TICKS, _SMALLEST_PANEL = 7, 36
#: A colour bar is at least so many times as long as its labels are high.
_SHORTEST_BAR = 8


@dataclass(frozen=True)
class Look:
    """Every size, weight and gap of a figure, in units of which a cell takes a whole number.

    A unit is a point, unless a width is wanted: then it is what makes the cells of the panels
    whole, and all other lengths are divided by it, so that text keeps its size in points.
    """

    family: str = FONT_FAMILY
    theme: str = "default"
    border_axes: bool = False  # axes stand at the border of the grid only
    inside_labels: bool = False  # a panel's label stands inside it, not over it
    shared_values: bool = False  # all profiles have one value axis
    own_title: bool = True
    unit: float = 1.0  # points that a unit of the chart stands for
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
    tick_width: float = 0.8
    frame_width: float = 0.8
    line_width: float = 1
    grid_width: float = 0.8  # no wider than the frame, which hides its ends
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
            if type(value) in (int, float) and name not in ("unit", "map_panel")
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
    tick_width=0.4,
    frame_width=0.4,
    line_width=0.6,
    grid_width=0.4,
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
    padding=1,
)

_LOOKS = {"default": Look(), "paper": _PAPER}
_FAMILIES = {"sans": FONT_FAMILY, "serif": SERIF_FAMILY}


def find_look(options: FigureOptions, panel: float | None = None) -> Look:
    """Return the look that is asked for, without regard to the width; panels of so many points."""
    look = replace(_LOOKS[options.theme], family=_FAMILIES[options.font])
    return look if panel is None else replace(look, map_panel=panel)


def restore_look(stored: Mapping[str, Any]) -> Look:
    """Return the look that `store_look` has described, as far as a configuration needs it."""
    look = _LOOKS.get(str(stored.get("theme")), Look())
    look = replace(look, family=_FAMILIES.get(str(stored.get("font")), look.family))
    unit = stored.get("unit", 1.0)
    return look.divided(float(unit)) if isinstance(unit, (int, float)) and unit > 0 else look


def store_look(look: Look) -> dict[str, Any]:
    """Return what ``usermeta`` says of a look: nothing of the usual one."""
    font = next(name for name, family in _FAMILIES.items() if family == look.family)
    stored = {"theme": look.theme, "font": font, "unit": look.unit}
    usual = {"theme": "default", "font": "sans", "unit": 1.0}
    return {name: value for name, value in stored.items() if value != usual[name]}


def fit_maps(
    options: FigureOptions, columns: int, frames: Sequence[int], panel: float | None = None
) -> Look:
    """Return the look of maps of key frames, in the figure's width or else of that size."""
    look, count = find_look(options, panel), count_pixels(len(frame_places(frames)))
    gap = max(look.map_column_gap, label_gap(frames, look, look.map_panel))
    look = replace(look, map_column_gap=shorten_float(gap, 4))
    if options.points is None:
        return look
    beside = look.bar_offset + look.bar_thickness + look.bar_room
    fixed = look.left_room + (columns - 1) * look.map_column_gap + beside + 2 * look.padding
    wanted = panel_width(options.points, fixed, columns)
    width = cell_size(count, round(wanted)) * count
    height = shorten_float(look.profile_height / look.profile_width * width, 6)
    look, panel = look.divided(shorten_float(wanted / width, 6)), float(width)
    return replace(look, map_panel=panel, profile_width=panel, profile_height=height)


def fit_profiles(options: FigureOptions, columns: int, gap: float = 0) -> Look:
    """Return the look of a grid of profiles of the wanted width, so far apart at least."""
    look = find_look(options)
    look = replace(look, profile_column_gap=max(look.profile_column_gap, gap))
    if options.points is None:
        return look
    fixed = look.left_room + (columns - 1) * look.profile_column_gap + 2 * look.padding
    width = panel_width(options.points, fixed, columns)
    height = shorten_float(look.profile_height * min(1.0, width / look.profile_width), 6)
    return replace(look, profile_width=shorten_float(width, 6), profile_height=height)


def label_gap(frames: Sequence[int], look: Look, width: float) -> float:
    """Return the gap at which the labels at the ends of two axes of so much width are apart."""
    letters = len(f"{frames[0]}{frames[-1]}")
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


@dataclass(frozen=True)
class FrameAxis:
    """Frames along an axis so long: a place for each, and a blank one in each gap."""

    frames: Sequence[int]
    length: float
    look: Look
    upwards: bool = False
    bars: bool = False
    pixels: int = MAX_PIXELS

    @cached_property
    def places(self) -> list[int]:
        """The frames, and a number between them for each gap."""
        return frame_places(self.frames, self.pixels)

    @property
    def ticks(self) -> list[int]:
        """The frames that have a tick."""
        longest = max(len(str(frame)) for frame in (self.frames[0], self.frames[-1]))
        letters = 1.2 if self.upwards else 0.56 * longest + 0.3
        room = letters * self.look.tick_label / (self.length / len(self.places))
        return labeled_frames(self.frames, self.places, room)

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Start and end of each gap, in units from the left or the top."""
        step, known = self.length / len(self.places), set(self.frames)
        places = self.places[::-1] if self.upwards else self.places
        numbers = [number for number, place in enumerate(places) if place not in known]
        return [(shorten_float(n * step, 6), shorten_float((n + 1) * step, 6)) for n in numbers]

    def lines(self, marks: Sequence[int | str], capture: Capture) -> list[float]:
        """Return where marks are, in units from the left or the top."""
        frames = sorted({*capture.query_frames, *capture.key_frames})
        known, at = set(self.frames), []
        for mark in marks:
            if mark == BLOCKS:
                ends = np.cumsum(_expect_blocks(capture))[:-1]
                starts = {frames[end] for end in ends.tolist() if end < len(frames)}
                at += [
                    number
                    for number, place in enumerate(self.places)
                    if number and place in starts and self.places[number - 1] in known
                ]
            elif mark not in frames:
                raise OptionError(
                    f"{capture.source}: marks has {mark}, which is no frame, expected "
                    f"{shorten_list(frames)} or {BLOCKS}"
                )
            elif mark in known:
                at.append(self.places.index(mark) + 0.5)
        step = self.length / len(self.places)
        return [shorten_float(self.length - n * step if self.upwards else n * step, 6) for n in at]


def _expect_blocks(capture: Capture) -> Sequence[int]:
    if capture.block_sizes is None:
        raise OptionError(
            f"{capture.source}: marks has {BLOCKS}, but nothing says which frames were generated "
            "together; name frames, or give block_sizes"
        )
    return capture.block_sizes


def frame_axis(
    channel: Any,
    axis: FrameAxis,
    title: str | list[str],
    shown: str = "",
    *,
    extent: float | None = None,
) -> Any:
    """Give a channel an axis of frames: a band for each, ticks at some, a grid behind bars.

    ``shown`` is the expression of the panels that have ticks, labels and title; all where empty.
    """
    places, bars = axis.places, axis.bars
    gaps = {"paddingInner": 0.2 if bars else 0, "paddingOuter": 0.1 if bars else 0}
    return (
        channel.title(None if shown == NOWHERE else title)
        .scale(domain=places[::-1] if axis.upwards else places, **gaps)
        .axis(**_axis(axis.ticks, bars), **show_where(shown, "datum.label", extent))
    )


def tile_axis(
    channel: Any,
    axis: FrameAxis,
    title: str | list[str],
    shown: str = "",
    *,
    extent: float | None = None,
) -> Any:
    """Place a tile in the middle of an axis that counts frames from 0, whatever their numbers."""
    pool, places = pool_factor(len(axis.frames), axis.pixels), axis.places
    end = -(-len(places) // pool) * pool
    ticks = {places.index(frame): frame for frame in axis.ticks}
    label = f"{json.dumps({str(tick): frame for tick, frame in ticks.items()})}[datum.value]"
    text = {"title": None if shown == NOWHERE else title, "labelExpr": label}
    return (
        channel(datum=(end - 1) / 2, type="quantitative")
        .scale(domain=[-0.5, end - 0.5], nice=False, zero=False)
        .axis(**_axis([*ticks]), **{**text, **show_where(shown, label, extent)})
    )


def _axis(ticks: list[int], grid: bool = False) -> dict[str, Any]:
    return {"grid": grid, "values": ticks, "labelAngle": 0, "labelOverlap": False, "zindex": 0}


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
) -> Any:
    """Give a channel the colour scale, with a bar that says where values, from to, saturate."""
    low, high = scale.range.low, scale.range.high
    length = min(max(length, _SHORTEST_BAR * look.bar_label), look.bar_length)
    count = max(1, min(_COLORBAR_TICKS, int(length / (2.2 * look.bar_label))))
    ticks = value_ticks(low, high, count)
    legend: dict[str, Any] = {
        "title": fit_title(title, length, look.bar_title),
        "orient": "right",
        "gradientLength": length,
        "titleOrient": "right",
        "tickCount": count,
        "labelExpr": short_label(ticks),
    }
    if isinstance(legend["title"], list):  # the lines grow towards the labels
        legend["titlePadding"] = 5 + 1.2 * look.bar_title * (len(legend["title"]) - 1)
    signs = zip((low, high), saturates(values, scale.range), "\u2264\u2265", strict=True)
    ends = {end: f"{sign}\u2009" for end, beyond, sign in signs if beyond}
    if ends:
        legend |= _mark_ends(ends, ticks, scale)
    domain, colors = (list(part) for part in zip(*scale.stops, strict=True))
    return channel.scale(
        domain=domain, range=colors, interpolate="rgb", clamp=True, type="linear"
    ).legend(alt.Legend(**legend))


def _mark_ends(
    ends: Mapping[float, str], ticks: Sequence[float], scale: ColorScale
) -> dict[str, Any]:
    """Let a colour bar say at its ends that values beyond them have the same colour."""
    low, high = scale.range.low, scale.range.high
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    kept = [tick for tick in ticks if all(abs(tick - end) > 0.6 * step for end in ends)]
    label = plain_label(ticks)
    for end, sign in ends.items():
        shown = json.dumps(f"{sign}{write_number(end, '.3g')}", ensure_ascii=False)
        label = f"datum.value{'<=' if end == low else '>='}{end!r}?{shown}:{label}"
    # An end must not give way to another label.
    return {"values": sorted([*kept, *ends]), "labelExpr": label, "labelOverlap": False}


def short_label(ticks: Collection[float]) -> Any:
    """Return the label expression that writes 2e-5 where plain decimals would be long."""
    texts = [f"{tick:g}" for tick in ticks]
    if any("e" in text or len(text) > 7 for text in texts):
        return "datum.value ? format(datum.value, '~e') : '0'"
    return alt.Undefined


def plain_label(ticks: Collection[float]) -> str:
    """Return the label expression of `short_label` as a part of another."""
    label = short_label(ticks)
    return "datum.label" if label is alt.Undefined else f"({label})"
