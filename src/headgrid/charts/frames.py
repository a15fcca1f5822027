"""Frames along an axis -> places, ticks, gaps and lines; the axes of maps and profiles."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.axis import Axis
from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, NOWHERE, Look, show_where
from headgrid.charts.labels import label_expression, lies_flat, shorten_label
from headgrid.charts.scales import MAX_PIXELS, frame_places, frame_runs, frame_ticks, pool_factor
from headgrid.errors import OptionError
from headgrid.options import BLOCKS
from headgrid.text import shorten_float, shorten_list

#: Names of the lines at chosen frames, and of the bands in gaps.
MARKS, GAPS = "headgrid_marks", "headgrid_gaps"

#: Words along an axis; Vega takes half a millisecond for each.
_MOST_WORDS = 36


@dataclass(frozen=True)
class FrameAxis:
    """What stands along an axis so long: a place for each, and a blank one in each gap."""

    axis: Axis
    length: float
    look: Look
    upwards: bool = False
    bars: bool = False
    pixels: int = MAX_PIXELS

    @cached_property
    def places(self) -> list[int]:
        """The frames, and a number between them for each gap."""
        return frame_places(self.axis.numbers, self.pixels)

    @cached_property
    def step(self) -> float:
        """What a place takes, of as many as whole pools of pixels have."""
        pool = 1 if self.bars else pool_factor(len(self.places), self.pixels)
        return self.length / (-(-len(self.places) // pool) * pool)

    @property
    def ticks(self) -> list[int]:
        """The frames that have a tick: all of up to 12, else ends of runs and some between."""
        frames, place = self.axis.numbers, {frame: n for n, frame in enumerate(self.places)}
        upright, words = self.upwards or self.upright_labels, self.axis.labels is not None

        def fit(a: int, b: int) -> bool:
            room = (1.0 if upright else 0.28 * len(f"{a}{b}") + 0.23) * self.look.tick_label
            if words:  # more than so many are not looked up by eye
                room = max(room, self.length / _MOST_WORDS)
            return room <= 1.0001 * abs(place[a] - place[b]) * self.step

        few, chosen = len(frames) <= 12, list[int]()
        if (words and not upright) or (few and not words and all(map(fit, frames, frames[1:]))):
            return [*frames]
        runs = frame_runs(frames) if len(place) > len(frames) else [frames]
        ends = [frames[0], frames[-1], *(run[n] for n in (0, -1) for run in runs)]
        regular = [range(0, len(run), 2) if few else frame_ticks(len(run)) for run in runs]
        inner = [run[n] for run, ticks in zip(runs, regular, strict=True) for n in ticks]
        for frame in frames if words else (*ends, *inner):
            if all(fit(frame, other) for other in reversed(chosen)):
                chosen.append(frame)
        return sorted(chosen)

    @cached_property
    def upright_labels(self) -> bool:
        """Whether labels below the panel stand upright, as they have no room side by side."""
        axis, size = self.axis, self.look.tick_label
        return not (self.upwards or axis.labels is None or lies_flat(axis, size, self.step))

    def span(self, start: int, stop: int) -> tuple[float, float]:
        """Return where the frames from one to (without) another lie, from the left or the top."""
        within = [n for n, place in enumerate(self.places) if start <= place < stop]
        ends = within[0] * self.step, (within[-1] + 1) * self.step
        if self.upwards:
            ends = self.length - ends[1], self.length - ends[0]
        return shorten_float(ends[0], 6), shorten_float(ends[1], 6)

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Start and end of each gap, in units from the left or the top."""
        known, places = set(self.axis.numbers), self.places[:: -1 if self.upwards else 1]
        return [self.span(place, place + 1) for place in places if place not in known]

    def lines(self, marks: Sequence[int | str], capture: Capture) -> list[float]:
        """Return where marks are, in units from the left or the top."""
        frames, at = sorted({*capture.query_frames, *capture.key_frames}), []
        known = {*self.axis.numbers}
        if unknown := [mark for mark in marks if mark not in (*frames, BLOCKS)]:
            raise OptionError(
                f"{capture.source}: marks has {unknown[0]}, which is no frame, expected "
                f"{shorten_list(frames)} or {BLOCKS}"
            )
        if BLOCKS in marks and capture.block_sizes is None:
            raise OptionError(
                f"{capture.source}: marks has {BLOCKS}, but nothing says which frames were "
                "generated together; name frames, or give block_sizes"
            )
        ends = np.cumsum(capture.block_sizes or ()).tolist() if BLOCKS in marks else []
        starts = {frames[end] for end in ends if end < len(frames)}
        for number, place in enumerate(self.places):
            if number and place in starts and self.places[number - 1] in known:
                at.append(float(number))
            if place in marks and place in known:
                at.append(number + 0.5)
        places = (number * self.step for number in at)
        return [shorten_float(self.length - x if self.upwards else x, 6) for x in places]


def frame_axis(
    channel: Any,
    field: str,
    axis: FrameAxis,
    title: str | list[str] | None,
    shown: str = "",
    *,
    extent: float | None = None,
) -> Any:
    """Return a channel with an axis of frames, ticks at some of them, a grid behind bars.

    Of a field, each frame has a band; without one, a tile lies in the middle of an axis that
    counts frames from 0, whatever their numbers. ``shown`` is the expression of the panels that
    have ticks, labels and title; all where empty.
    """
    places, ticks = axis.places, {frame: frame for frame in axis.ticks}
    if not field:
        ticks = {places.index(frame): frame for frame in ticks}
    title = None if shown == NOWHERE else title
    if isinstance(title, str) and not axis.upwards:  # shorter than to reach that of the next panel
        gap = axis.look.profile_column_gap if axis.bars else axis.look.map_column_gap
        title = shorten_label(title, (axis.length + 0.9 * gap) / axis.look.axis_title)
    own = field and axis.axis.labels is None
    label = "datum.label" if own else label_expression(axis.axis, ticks)
    settings: dict[str, Any] = {"grid": axis.bars, "values": [*ticks], "labelAngle": 0}
    if axis.upright_labels:
        settings |= {"labelAngle": -90, "labelAlign": "right", "labelBaseline": "middle"}
    settings |= {"labelOverlap": False, "zindex": 0} | ({} if own else {"labelExpr": label})
    settings |= show_where(shown, label, extent)
    if not field:
        end = round(axis.length / axis.step)  # whole pools of places
        tile = channel(datum=(end - 1) / 2, type="quantitative")
        tile = tile.scale(domain=[-0.5, end - 0.5], nice=False, zero=False)
        return tile.axis(**settings, labelFlush=False, title=title)
    gaps: dict[str, Any] = {"paddingInner": 0, "paddingOuter": 0}
    if axis.bars:  # for the line over them Vega-Lite would take points
        gaps = {"paddingInner": 0.2, "paddingOuter": 0.1, "type": "band"}
    band = channel(field, title=title)
    return band.scale(domain=places[::-1] if axis.upwards else places, **gaps).axis(**settings)


def span_frames(frames: Sequence[int]) -> str:
    """Return the frames from first to last: ``0-20``, or ``0-2, 15-20`` where they have gaps.

    >>> span_frames([0, 1, 2, 15]), span_frames([0, 2, 4])
    ('0-2, 15', '0-4 by 2')
    """
    steps = {after - frame for frame, after in itertools.pairwise(frames)}
    if len(steps) == 1 and steps != {1}:
        return f"{frames[0]}-{frames[-1]} by {steps.pop()}"
    ends = ([run[0], run[-1]] for run in frame_runs(frames))
    return shorten_list(["-".join(map(str, dict.fromkeys(run))) for run in ends])


def tell_span(axis: Axis) -> str:
    """Return what stands on an axis, for a title: ``Frames: 0-20``."""
    return f"{axis.plural}: {span_frames(axis.numbers)}"


def tell_pairs(capture: Capture) -> str:
    """Return what a pair is, for a caption: ``query x key frame``."""
    query, key = capture.query_axis.noun, capture.key_axis.noun
    return f"query {'' if query == key else f'{query} '}x key {key}"


def tell_gaps(**axes: Axis) -> str:
    """Return the sentence that says which frames are left out, if there are any."""
    broken = [
        f"{side} {axis.nouns} {span_frames(axis.numbers)}"
        for side, axis in axes.items()
        if len(frame_runs(axis.numbers)) > 1
    ]
    return f"Axes are broken: {', '.join(broken)}." if broken else ""


def draw_over(
    axes: Sequence[FrameAxis],
    size: tuple[float, float],
    by: str,
    marks: Sequence[int | str],
    capture: Capture,
) -> list[alt.Chart]:
    """Return lines at chosen frames of a panel, and white bands that break it in its gaps."""
    look, lines, bands = axes[0].look, "", ""
    out = shorten_float(2 * look.frame_width, 4)  # a band breaks the frame as well
    for axis in axes:
        for at in axis.lines(marks, capture):
            lines += f"M0 {at:g}h{size[0]:g}" if axis.upwards else f"M{at:g} 0v{size[1]:g}"
        for start, end in axis.gaps:
            (x, y), (w, h) = (start, -out), (end - start, size[1] + 2 * out)
            if axis.upwards:
                (x, y), (w, h) = (-out, start), (size[0] + 2 * out, end - start)
            bands += f"M{x:g} {y:g}h{w:g}v{h:g}h{-w:g}z"
    pen = {"filled": False, "stroke": INK, "strokeWidth": look.frame_width, "opacity": 0.6}
    paths = (MARKS, lines, pen), (GAPS, bands, {"fill": "white", "strokeWidth": 0})
    return [draw_path(name, path, by, paint) for name, path, paint in paths if path]


def draw_path(name: str, path: str, by: str, paint: Mapping[str, Any]) -> Any:
    """Return one mark in each panel, of a path in its units from its top left corner."""
    look: dict[str, Any] = {"opacity": 1, **paint}
    shape = alt.Chart(name=name).mark_point(shape=path, size=4, aria=False, **look)
    return shape.transform_aggregate(groupby=[by]).encode(x=alt.XValue(0), y=alt.YValue(0))
