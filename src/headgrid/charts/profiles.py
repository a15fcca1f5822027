"""Heads of captures, in order -> a grid of their profiles, facetted by panel."""

from __future__ import annotations

import json
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import INK, Look, frame_axis, plain_label, show_where
from headgrid.charts.panels import BARS, LINE, POINTS, Panels, absent_marks, mark_absent, nest
from headgrid.charts.scales import value_ticks
from headgrid.charts.spec import Records
from headgrid.tables.stats import sink_scores
from headgrid.tables.tidy import panel_profiles
from headgrid.text import fit_title, shorten_float

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"

_PROFILE_TICKS = 6


def draw_profiles(panels: Panels, look: Look) -> tuple[alt.FacetChart, Records]:
    """Draw the last-block row of each panel as bars with a line; see `draw_maps`.

    Value axes are independent, or one for all where the look says so.
    """
    keys = panels.first.key_frames
    key = frame_axis(alt.X("key:O"), keys, "Key Frame", panels.border("bottom", look), bars=True)
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=look.profile_width, height=look.profile_height, view=ground)
    base = base.encode(x=key, y=_value_axis(panels, look))
    tooltip = panels.tooltip("key:O")
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
    dense = len(keys) > 2 * look.profile_width * look.unit
    inset = shorten_float(2 / look.unit, 6)
    place = look.profile_width - inset, inset, "top", look.profile_title
    size = look.profile_width, look.profile_height
    words = absent_marks(panels, [panels.field], size, look)
    dots = [] if dense else [points]
    panel = alt.layer(bars, line, *dots, *panels.inside_labels(*place, look), *words)
    chart = panels.facet(panel, look, look.profile_title)
    if not look.shared_values:
        chart = chart.resolve_scale(y="independent")
    table, expected = panel_profiles(panels.heads, panels.field), range(len(panels.heads))
    records = nest(table, panels.statistic, keys, [panels.field], expected)
    return panels.unfold(chart, []), mark_absent(records, panels)


def profile_gap(panels: Panels, look: Look) -> float:
    """Return the gap between columns of profiles, wide enough for the labels of the value axes."""
    if look.border_axes:
        return look.profile_column_gap
    longest = max(len(f"{tick:g}") for tick in _ticks(panels))
    return max(look.profile_column_gap, 27 + 4.0 * longest)


def value_extent(panels: Panels, look: Look) -> float:
    """Return the room that ticks and labels of value and frame axes take at most."""
    labels = [*(f"{tick:g}" for tick in _ticks(panels)), *map(str, panels.first.query_frames)]
    room = 0.56 * look.tick_label * max(map(len, labels)) + look.tick_size + look.label_padding
    return shorten_float(room, 4)


def _value_axis(panels: Panels, look: Look) -> Any:
    left, label = panels.border("left", look), plain_label(_ticks(panels))
    scale: dict[str, Any] = {"zero": False, "nice": False, "padding": look.profile_padding}
    if look.shared_values:
        scale["domain"] = list(panels.value_domain or shared_domain(panels, look))
        expression = f"{left or 'true'}?{label}:''"
    else:
        expression = _below_the_top(panels, look, label)
    settings = {
        "grid": True,
        "tickCount": _PROFILE_TICKS,
        "tickWidth": look.value_tick_width,
        **show_where(left, "", panels.extent),
        "labelExpr": expression,
    }
    if panels.extent is None and not look.border_axes:
        settings["minExtent"] = 22
    return alt.Y(
        f"{panels.statistic}:Q",
        title=fit_title(STATISTICS[panels.statistic].title, look.profile_height, look.axis_title),
        scale=alt.Scale(**scale),
        axis=alt.Axis(**settings),
    )


def _row_limits(panels: Panels) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the lowest and the highest value of each profile's axis, zero included."""
    rows = np.stack([capture.last_block_rows[head] for capture, head in panels.heads])
    rows = rows.astype(np.float64)  # the room around them may be beyond float32
    return np.nanmin(rows, axis=1, initial=0.0), np.nanmax(rows, axis=1, initial=0.0)


def shared_domain(panels: Panels, look: Look) -> tuple[float, float]:
    """Return the limits of one value axis for all profiles, with room for their labels."""
    lows, highs = _row_limits(panels)
    low, high = float(lows.min()), float(highs.max())
    span = high - low if high > low else 1.0
    room = 1.6 * look.profile_title / (look.profile_height - 1.6 * look.profile_title)
    top = high + span * (room if look.inside_labels else 0.0)
    return shorten_float(low, 6), shorten_float(top, 6)


def _ticks(panels: Panels) -> list[float]:
    """Return the values, or nearly those, that Vega will label on the value axes of all panels."""
    ends = zip(*_row_limits(panels), strict=True)
    return [tick for low, high in ends for tick in value_ticks(low, high, _PROFILE_TICKS)]


def _below_the_top(panels: Panels, look: Look, label: str) -> str:
    """Return the label expression that leaves out a label at the very top of its panel.

    Half of it would stand above the panel and lift the panel's title out of its row.
    """
    (lows, highs), padding = _row_limits(panels), look.profile_padding
    point = (highs - lows) / (look.profile_height - 2 * padding)
    tops = [shorten_float(top, 6) for top in highs + (padding - 4) * point]
    return f"datum.value>{json.dumps(tops)}[parent.{panels.field}]?'':{label}"


def sink_texts(capture: Capture) -> list[str]:
    """Return each head's sink score as figures print it: ``7.14``, or ``n/a``."""
    largest = float(np.fmax.reduce(np.abs(capture.last_block_rows), axis=None, initial=0.0))
    decimals = 2 if capture.is_logits else 3
    plain = 10.0**-decimals * 5 <= largest < 1e7 or largest == 0
    style = f".{decimals}f" if plain else ".1e"
    texts = (format(score, style) for score in sink_scores(capture))
    return ["n/a" if t == "nan" else t.removeprefix("-") if float(t) == 0 else t for t in texts]
