"""Heads of captures, in order -> a grid of their profiles, facetted by panel."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import INK, Look, fit_profiles, label_gap, plain_label, show_where
from headgrid.charts.bands import draw_bands
from headgrid.charts.frames import FrameAxis, draw_over, frame_axis
from headgrid.charts.labels import room_beside
from headgrid.charts.panels import BARS, ENDS, LINE, POINTS, Panels, mark_absent
from headgrid.charts.records import nest
from headgrid.charts.scales import value_ticks
from headgrid.charts.spec import Records
from headgrid.options import SMALLEST_SPAN, FigureOptions
from headgrid.tables.stats import sink_scores
from headgrid.tables.tidy import panel_profiles
from headgrid.text import fit_title, shorten_float, write_number

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"

_PROFILE_TICKS, _LEAST_EXTENT = 6, 22
#: Points below which bars would alias into stripes: two pixels of a screen.
_THINNEST = 1.5


def draw_profiles(panels: Panels, look: Look) -> tuple[alt.FacetChart, Records]:
    """Draw the last-block row of each panel as bars with a line; add its data."""
    axis = FrameAxis(panels.first.key_axis, look.profile_width, look, bars=True)
    keys, bottom = axis.places, panels.border("bottom", look)
    key = frame_axis(alt.X, "key:O", axis, f"Key {axis.axis.name}", bottom)
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=look.profile_width, height=look.profile_height, view=ground)
    base = base.encode(x=key, y=_value_axis(panels, look))
    tooltip = panels.tooltip("key")
    fill: dict[str, Any] = {"color": BAR_COLOR, "opacity": 0.85, "aria": False}
    place = look.profile_width / len(keys)
    if 0.8 * place * look.unit >= _THINNEST:
        bars = base.mark_bar(**fill, invalid="filter").encode(y2=alt.Y2Datum(0), tooltip=tooltip)
    else:
        bars = _steps(base.mark_area(**fill, invalid="break-paths-filter-domains"), place)
    # A mitre would overshoot the points of a sharp turn.
    pen: dict[str, Any] = {"color": INK, "strokeWidth": look.line_width, "strokeJoin": "round"}
    line = base.mark_line(**pen, aria=False, invalid="break-paths-filter-domains")
    dot: dict[str, Any] = {"color": INK, "size": look.point_size, "opacity": 1, "aria": False}
    points = base.mark_point(**dot, filled=True, invalid="filter").encode(tooltip=tooltip)
    # Beyond two keys a point of width the dots would only blacken the line.
    dense = len(keys) > 2 * look.profile_width * look.unit
    size = look.profile_width, look.profile_height
    panel = alt.layer(
        bars.properties(name=BARS),
        *([] if look.shared_values else [_value_ends(panels, look)]),
        *draw_over([axis], size, panels.field, panels.marks, panels.first),
        *draw_bands([axis], size, panels.field),
        line.properties(name=LINE),
        *([] if dense else [points.properties(name=POINTS)]),
        *panels.words(size, "top", look.profile_title, look),
    )
    scales = {} if look.shared_values else {"y": "independent"}
    gaps = look.profile_row_gap, look.profile_column_gap
    chart = panels.facet(panel, look, look.profile_title, gaps, **scales)
    table, expected = panel_profiles(panels.heads, panels.field), range(len(panels.heads))
    records = nest(table, panels.statistic, keys, [panels.field], expected)
    return panels.unfold(chart, []), mark_absent(records, panels)


def _steps(area: alt.Chart, place: float) -> Any:
    """Return bars without room between them as one outline: two corners for each value."""
    edges = area.transform_calculate(edge="[datum.position-1,datum.position]")
    corners = edges.transform_flatten(["edge"]).transform_calculate(
        x=f"datum.edge*{shorten_float(place)!r}"
    )
    return corners.encode(x=alt.X("x:Q", scale=None, axis=None), y2=alt.Y2Datum(0))


def fit_grid(options: FigureOptions, panels: Panels) -> Look:
    """Return the look of a grid of profiles, its columns apart by what stands between them."""
    columns, axis = min(panels.columns, len(panels.heads)), panels.first.key_axis
    gap = profile_gap(panels, fit_profiles(options, columns, axis))
    return fit_profiles(options, columns, axis, gap)


def profile_gap(panels: Panels, look: Look) -> float:
    """Return the gap between columns of profiles, wide enough for the labels of their axes."""
    axis = panels.first.key_axis
    gap = max(look.profile_column_gap, label_gap(axis, look, look.profile_width))
    if look.border_axes and look.shared_values:
        return gap
    title = _value_title(panels, look)
    lines = 0 if look.border_axes else 1 if isinstance(title, str) else len(title)
    room = _label_room(map("{:g}".format, _ticks(panels, look)), look)
    room = room if look.border_axes else max(room, _LEAST_EXTENT)
    return max(gap, room + 1.2 * look.axis_title * lines + 1.5 * look.title_padding)


def value_extent(panels: Panels, look: Look) -> float:
    """Return the room that ticks and labels of value and frame axes take at most."""
    labels = [f"{tick:g}" for tick in _ticks(panels, look)]
    query = panels.first.query_axis
    labels += map(str, query.numbers) if query.labels is None else ["000"]  # words go beyond these
    return shorten_float(_label_room(labels, look) + room_beside(query, look.tick_label), 4)


def _label_room(labels: Iterable[str], look: Look) -> float:
    """Return the room that ticks and labels of a value axis take."""
    return 0.56 * look.tick_label * max(map(len, labels)) + look.tick_size + look.label_padding


def _value_ends(panels: Panels, look: Look) -> Any:
    """Return an invisible mark in each panel, which makes its value axis as long as it is."""
    lows, highs = (json.dumps(ends) for ends in zip(*value_limits(panels, look), strict=True))
    ends = alt.Chart(name=ENDS).mark_rule(opacity=0, aria=False)
    ends = ends.transform_aggregate(groupby=[panels.field]).transform_calculate(
        low=f"{lows}[datum.{panels.field}]", high=f"{highs}[datum.{panels.field}]"
    )
    return ends.encode(y=_value_axis(panels, look, "low"), y2="high:Q")


def _value_axis(panels: Panels, look: Look, field: str = "") -> Any:
    left, label = panels.border("left", look), plain_label(_ticks(panels, look))
    scale: dict[str, Any] = {"zero": False, "nice": False}
    limits = value_limits(panels, look)
    if look.shared_values:
        scale["domain"] = list(limits[0])
    none = () if look.shared_values else panels.absent  # no scale is made up for these
    counts = [0 if n in none else _tick_count(ends, look) for n, ends in enumerate(limits)]
    own = {"expr": f"{counts}[parent.{panels.field}]"}
    settings = {
        "grid": True,
        "tickCount": own if len({*counts}) > 1 else counts[0],
        "labelOverlap": False,
        "labelExpr": label,
        **show_where(left if look.shared_values else "", label, panels.extent),
    }
    if left and not look.shared_values:
        settings["titleOpacity"] = {"expr": f"{left}?1:0"}
    if panels.extent is None and not look.border_axes:
        settings["minExtent"] = _LEAST_EXTENT
    return alt.Y(
        f"{field or panels.statistic}:Q",
        title=_value_title(panels, look),
        scale=alt.Scale(**scale),
        axis=alt.Axis(**settings),
    )


def _value_title(panels: Panels, look: Look) -> str | list[str]:
    return fit_title(STATISTICS[panels.statistic].title, look.profile_height, look.axis_title)


def _tick_count(ends: tuple[float, float], look: Look) -> int:
    """Return about how many ticks leave room between their labels: such that there are two."""
    fitting = max(1, min(_PROFILE_TICKS, int(look.profile_height / (2.2 * look.tick_label))))
    counts = range(fitting, fitting + _PROFILE_TICKS)
    return next((n for n in counts if len(value_ticks(*ends, n)) > 1), fitting)


def value_limits(panels: Panels, look: Look) -> list[tuple[float, float]]:
    """Return the ends of each profile's value axis; one pair for all where they share it."""
    if look.shared_values and panels.value_domain:  # with grids over and under this one
        return [panels.value_domain]
    rows = np.stack([capture.last_block_rows[head] for capture, head in panels.heads])
    rows = rows.astype(np.float64)  # the room around them may be beyond float32
    lows, highs = np.nanmin(rows, axis=1, initial=0.0), np.nanmax(rows, axis=1, initial=0.0)
    if look.shared_values:
        lows, highs = lows.min(keepdims=True), highs.max(keepdims=True)
    return [_pad(*ends, look) for ends in zip(lows.tolist(), highs.tolist(), strict=True)]


def _pad(low: float, high: float, look: Look) -> tuple[float, float]:
    """Return the ends of an axis with room around values; bars stand on its end at zero."""
    padding, span = look.profile_padding, high - low if high - low > SMALLEST_SPAN else 1.0
    above = padding + (1.6 * look.profile_title if look.inside_labels else 0)
    height = look.profile_height - above - (padding if low < 0 else 0)
    point = span / max(height, 0.2 * look.profile_height)
    bottom = low - padding * point if low < 0 else low
    top = low + span + above * point
    # Half of a label at the very top would stand over the panel.
    margin = 0.6 * look.tick_label / look.profile_height
    for _ in range(2):  # the last tick may be another one then
        last = value_ticks(bottom, top, _tick_count((bottom, top), look))[-1]
        top = max(top, (last - margin * bottom) / (1 - margin))
    return shorten_float(bottom), shorten_float(top)


def _ticks(panels: Panels, look: Look) -> list[float]:
    """Return the values that Vega will label on the value axes of all panels."""
    limits = value_limits(panels, look)
    return [tick for ends in limits for tick in value_ticks(*ends, _tick_count(ends, look))]


def sink_texts(capture: Capture) -> list[str]:
    """Return each head's sink score as figures print it: ``7.14``, or ``n/a``."""
    largest = float(np.fmax.reduce(np.abs(capture.last_block_rows), axis=None, initial=0.0))
    decimals = 2 if capture.is_logits else 3
    plain = 10.0**-decimals * 5 <= largest < 1e7 or largest == 0
    style = f".{decimals}f" if plain else ".1e"
    rounded = (float(format(score, style)) + 0.0 for score in sink_scores(capture))  # no -0.00
    return [write_number(score, style) for score in rounded]
