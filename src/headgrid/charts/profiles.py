"""Heads of captures, in order -> a grid of their profiles, facetted by panel."""

from __future__ import annotations

import json
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from headgrid.capture.statistic import STATISTICS
from headgrid.charts import scales
from headgrid.charts.axes import (
    Records,
    facet_panels,
    fix_extent,
    frame_axis,
    inside_label,
    short_label,
    show_where,
)
from headgrid.charts.look import INK, Look
from headgrid.charts.panels import BARS, LINE, POINTS, Panels, nest, unfold
from headgrid.tables.tidy import panel_profiles
from headgrid.text import fit_title, shorten_float

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"

_PROFILE_TICKS = 6


def draw_profiles(panels: Panels, look: Look) -> tuple[alt.FacetChart, Records]:
    """Draw the last-block row of each panel as bars with a line; see `draw_maps`.

    Value axes are independent, or one for all where the look says so.
    """
    capture = panels.first
    statistic = capture.statistic
    key = frame_axis(
        alt.X("key:O"),
        capture.key_frames,
        "Key Frame",
        inner=0.2,
        outer=0.1,
        grid=True,
        shown=panels.border("bottom", look),
    )
    value = _value_axis(panels, look)
    base = alt.Chart(
        width=look.profile_width,
        height=look.profile_height,
        view=alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width),
    ).encode(x=key, y=value)
    tooltip = panels.tooltip("key:O", f"{statistic}:Q")
    bars = (
        base.mark_bar(color=BAR_COLOR, opacity=0.85, aria=False, invalid="filter")
        .encode(y2=alt.Y2Datum(0), tooltip=tooltip)
        .properties(name=BARS)
    )
    line = base.mark_line(
        color=INK, strokeWidth=look.line_width, aria=False, invalid="break-paths-filter-domains"
    ).properties(name=LINE)
    points = (
        base.mark_point(
            filled=True, color=INK, size=look.point_size, opacity=1, aria=False, invalid="filter"
        )
        .encode(tooltip=tooltip)
        .properties(name=POINTS)
    )
    # Beyond two keys a point of width the dots would only blacken the line.
    dense = len(capture.key_frames) > 2 * look.profile_width * look.unit
    layers = [bars, line] if dense else [bars, line, points]
    if look.inside_labels:
        inset = shorten_float(2 / look.unit, 6)
        place = (look.profile_width - inset, inset, "top")
        layers += inside_label(panels.inside, panels.field, *place, look.profile_title, look)
    records = nest(
        panel_profiles(panels.heads, panels.field),
        statistic,
        capture.key_frames,
        [panels.field],
        expected=range(len(panels.heads)),
    )
    chart = facet_panels(
        alt.layer(*layers), panels.field, panels.columns, look, panels.label, look.profile_title
    )
    if not look.shared_values:
        chart = chart.resolve_scale(y="independent")
    chart = unfold(chart, statistic, capture.key_frames, [panels.field])
    for name, expression in panels.lookups().items():
        chart = chart.transform_calculate(**{name: expression})
    return chart, records


def profile_gap(panels: Panels, look: Look) -> float:
    """Return the gap between columns of profiles, wide enough for the labels of the value axes."""
    if look.border_axes:
        return look.profile_column_gap
    longest = max(map(len, _value_ticks(panels)))
    return max(look.profile_column_gap, 27 + 4.0 * longest)


def value_extent(panels: Panels, look: Look) -> float:
    """Return the room that ticks and labels of value and frame axes take at most."""
    frames = map(str, panels.first.query_frames)
    longest = max(len(label) for label in [*_value_ticks(panels), *frames])
    room = 0.56 * look.tick_label * longest + look.tick_size + look.label_padding
    return shorten_float(room, 4)


def _value_axis(panels: Panels, look: Look) -> Any:
    statistic = panels.first.statistic
    text = short_label(_value_ticks(panels))
    scale: dict[str, Any] = {"zero": False, "nice": False, "padding": look.profile_padding}
    if look.shared_values:
        scale["domain"] = list(panels.value_domain or shared_domain(panels, look))
        label = "datum.label" if text is alt.Undefined else f"({text})"
        expression = f"{panels.border('left', look) or 'true'}?{label}:''"
    else:
        expression = _below_the_top(panels, look, text)
    settings = {
        "grid": True,
        "tickCount": _PROFILE_TICKS,
        "tickWidth": look.value_tick_width,
        **show_where(panels.border("left", look), ""),
        "labelExpr": expression,
    }
    if panels.extent is not None:
        settings |= fix_extent(panels.extent)
    elif not look.border_axes:
        settings["minExtent"] = 22
    return alt.Y(
        f"{statistic}:Q",
        title=fit_title(STATISTICS[statistic].title, look.profile_height, look.axis_title),
        scale=alt.Scale(**scale),
        axis=alt.Axis(**settings),
    )


def _row_limits(panels: Panels) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the lowest and the highest value of each profile's axis, zero included."""
    rows = panels.rows.astype(np.float64)  # the room around them may be beyond float32
    return np.nanmin(rows, axis=1, initial=0.0), np.nanmax(rows, axis=1, initial=0.0)


def shared_domain(panels: Panels, look: Look) -> tuple[float, float]:
    """Return the limits of one value axis for all profiles, with room for their labels."""
    lows, highs = _row_limits(panels)
    low, high = float(lows.min()), float(highs.max())
    span = high - low if high > low else 1.0
    room = 1.6 * look.profile_title / (look.profile_height - 1.6 * look.profile_title)
    top = high + span * (room if look.inside_labels else 0.0)
    return shorten_float(low, 6), shorten_float(top, 6)


def _value_ticks(panels: Panels) -> list[str]:
    """Return the labels, or nearly those, that Vega will put on the value axes of all panels."""
    lows, highs = _row_limits(panels)
    ticks = (scales.value_ticks(*ends, _PROFILE_TICKS) for ends in zip(lows, highs, strict=True))
    return [f"{tick:g}" for panel in ticks for tick in panel]


def _below_the_top(panels: Panels, look: Look, text: Any) -> str:
    """Return the label expression that leaves out a label at the very top of its panel.

    Half of it would stand above the panel and lift the panel's title out of its row.
    """
    lows, highs = _row_limits(panels)
    padding = look.profile_padding
    point = (highs - lows) / (look.profile_height - 2 * padding)
    tops = [shorten_float(top, 6) for top in highs + (padding - 4) * point]
    otherwise = "datum.label" if text is alt.Undefined else f"({text})"
    return f"datum.value>{json.dumps(tops)}[parent.{panels.field}]?'':{otherwise}"
