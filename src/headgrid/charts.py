"""Tidy tables -> altair charts, facetted by head.

Both charts read one tidy table. It travels in the specification as one record
per row of a matrix, with the row's values as an array that Vega-Lite flattens
again: a quarter of the bytes, and an identical picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid import labels, scales
from headgrid.capture import Capture
from headgrid.options import FigureOptions
from headgrid.tidy import pair_table, profile_table, round_rows

#: Names of the marks that the finishing stage may touch.
CELLS, FRAME = "headgrid_cells", "headgrid_frame"
BARS, LINE, POINTS = "headgrid_bars", "headgrid_line", "headgrid_points"

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"
UNSEEN_COLOR = "#ececec"

_PROFILE_WIDTH, _PROFILE_HEIGHT = 204, 144
_MAP_SPACING = {"row": 60, "column": 62}
_PROFILE_TICKS = 6
_INK = "#000000"
_FRAME_WIDTH = 0.8


def heatmap(
    capture: Capture,
    *,
    columns: int = 4,
    palette: scales.PaletteName = "rdbu",
    color_range: scales.ColorRule | tuple[float, float] | scales.ColorRange = "symmetric",
    title: str | None = None,
) -> alt.FacetChart:
    """Draw every head's query x key matrix as a grid of heatmaps on one colour scale.

    Parameters
    ----------
    capture : Capture
        With a full matrix.
    columns, palette, color_range, title
        See `FigureOptions`.

    Returns
    -------
    altair.FacetChart
        Facetted by head; displays by itself in a notebook, can be customised
        and saved with altair, or written with `headgrid.save`.

    Raises
    ------
    CaptureError
        Where the capture has no full matrix.
    OptionError
        Where an option has a value that it cannot have.

    Examples
    --------
    >>> import numpy as np
    >>> chart = heatmap(Capture.from_array(np.eye(3)[None]))
    >>> chart.to_dict()["facet"]["field"]
    'head'
    """
    return draw_heatmap(
        capture,
        FigureOptions(columns=columns, palette=palette, color_range=color_range, title=title),
    )


def perhead(
    capture: Capture,
    *,
    columns: int = 4,
    palette: scales.PaletteName = "rdbu",
    color_range: scales.ColorRule | tuple[float, float] | scales.ColorRange = "symmetric",
    title: str | None = None,
) -> alt.FacetChart:
    """Draw every head's last-block row as bars with a line, the sink score over each.

    Parameters
    ----------
    capture : Capture
        With or without a full matrix.
    columns, title
        See `FigureOptions`. ``palette`` and ``color_range`` are accepted, as all
        charts share their options, and change nothing here.

    Returns
    -------
    altair.FacetChart
        Facetted by head, with an independent value axis for each.

    Raises
    ------
    OptionError
        Where an option has a value that it cannot have.

    Examples
    --------
    >>> chart = perhead(Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]]))
    >>> chart.to_dict()["facet"]["header"]["labelExpr"]
    '["H0 (sink=3.50)"][datum.value]'
    """
    return draw_perhead(
        capture,
        FigureOptions(columns=columns, palette=palette, color_range=color_range, title=title),
    )


def draw_heatmap(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the heatmap grid with options that are built already."""
    statistic = capture.statistic
    color_range = scales.resolve_color_range(options.color_range, [capture])
    scale = scales.ColorScale(color_range, scales.palette_for(statistic, options.palette))
    width = scales.cell_size(len(capture.key_frames)) * len(capture.key_frames)
    height = scales.cell_size(len(capture.query_frames)) * len(capture.query_frames)
    rows = math.ceil(capture.num_heads / options.columns)
    bar = min(rows * height + (rows - 1) * _MAP_SPACING["row"], 3 * 210 + 2 * _MAP_SPACING["row"])
    cells = (
        alt.Chart(name=CELLS, view=alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None))
        .mark_rect(aria=False)
        .encode(
            x=_frame_axis(alt.X("key:O"), capture.key_frames, "Key Frame"),
            y=_frame_axis(alt.Y("query:O"), capture.query_frames, "Query Frame", upwards=True),
            color=alt.Color("color:Q", scale=_color_scale(scale), legend=_colorbar(capture, bar)),
            tooltip=["head:O", "query:O", "key:O", f"{statistic}:Q"],
        )
    )
    panel = alt.layer(cells, _frame(width, height)).properties(width=width, height=height)
    records = _nest(capture, pair_table(capture), ["head", "query"])
    chart = _facet(panel, records, options, "'Head ' + datum.value", 11)
    chart = _unfold(chart, statistic, capture.key_frames, ["head", "query"])
    chart = chart.transform_calculate(color=scale.expression(statistic))
    figure_width = options.columns * (width + 40)
    return _finish(
        chart,
        labels.heatmap_title(capture, options, figure_width),
        labels.heatmap_caption(capture, color_range),
        _MAP_SPACING,
        _usermeta("heatmap", capture, color_range),
    )


def draw_perhead(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the per-head grid with options that are built already."""
    statistic = capture.statistic
    key = _frame_axis(
        alt.X("key:O"), capture.key_frames, "Key Frame", inner=0.2, outer=0.1, grid=True
    )
    ticks = _value_ticks(capture)
    value = alt.Y(
        f"{statistic}:Q",
        title=labels.value_title(statistic),
        scale=alt.Scale(zero=False, nice=False, padding=7),
        axis=alt.Axis(
            grid=True, tickCount=_PROFILE_TICKS, minExtent=22, format=_value_format(ticks)
        ),
    )
    tooltip = ["head:O", "key:O", f"{statistic}:Q"]
    base = alt.Chart(
        width=_PROFILE_WIDTH,
        height=_PROFILE_HEIGHT,
        view=alt.ViewBackground(stroke=_INK, strokeWidth=_FRAME_WIDTH),
    ).encode(x=key, y=value)
    bars = (
        base.mark_bar(color=BAR_COLOR, opacity=0.85, aria=False, invalid="filter")
        .encode(y2=alt.datum(0), tooltip=tooltip)
        .properties(name=BARS)
    )
    line = base.mark_line(
        color=_INK, strokeWidth=1, aria=False, invalid="break-paths-filter-domains"
    ).properties(name=LINE)
    points = (
        base.mark_point(filled=True, color=_INK, size=5, opacity=1, aria=False, invalid="filter")
        .encode(tooltip=tooltip)
        .properties(name=POINTS)
    )
    layered = alt.layer(bars, line, points)
    records = _nest(capture, profile_table(capture), ["head"])
    titles = f"{json.dumps(labels.sink_titles(capture))}[datum.value]"
    chart = _facet(layered, records, options, titles, 10).resolve_scale(y="independent")
    chart = _unfold(chart, statistic, capture.key_frames, ["head"])
    return _finish(
        chart,
        labels.perhead_title(capture, options, options.columns * (_PROFILE_WIDTH + 42)),
        labels.perhead_caption(capture),
        {"row": 56, "column": max(46.0, 27 + 4.0 * max(map(len, ticks)))},
        _usermeta("perhead", capture, None),
    )


def _nest(capture: Capture, table: pd.DataFrame, index: list[str]) -> list[dict[str, Any]]:
    """Turn a tidy table into one record per row of a matrix, its values as an array.

    The array starts at the first key frame; an unseen pair before the last
    visible one is null, and a head without any visible value has one null.
    """
    position = np.searchsorted(np.asarray(capture.key_frames), table["key"].to_numpy())
    values = table[capture.statistic].to_numpy()
    rows = table[index].to_numpy()
    records: list[dict[str, Any]] = []
    for head in range(capture.num_heads):
        of_head = rows[:, 0] == head
        if not of_head.any():
            records.append({"head": head, capture.statistic: [None]})
            continue
        matrix_rows, inverse = np.unique(rows[of_head], axis=0, return_inverse=True)
        matrix = np.full((len(matrix_rows), len(capture.key_frames)), np.nan)
        matrix[inverse.reshape(-1), position[of_head]] = values[of_head]
        for row, numbers in zip(matrix_rows, round_rows(matrix), strict=True):
            while numbers[-1] is None:
                numbers.pop()
            record: dict[str, Any] = dict(zip(index, map(int, row), strict=True))
            records.append(record | {capture.statistic: numbers})
    return records


def _unfold(
    chart: alt.FacetChart, statistic: str, keys: Sequence[int], index: list[str]
) -> alt.FacetChart:
    """Turn the arrays of `_nest` back into one row a value, with its key frame."""
    first = keys[0]
    if tuple(keys) == tuple(range(first, first + len(keys))):
        offset = first - 1
        number = f"datum.position{'+' if offset >= 0 else ''}{offset}" if offset else None
    else:
        number = f"{json.dumps(list(keys))}[datum.position-1]"
    unfolded = (
        chart.transform_flatten([statistic])
        .transform_window(position="row_number()", groupby=index)
        .transform_calculate(key=number or "datum.position")
    )
    return (
        unfolded.transform_filter(f"isValid(datum.{statistic})") if "query" in index else unfolded
    )


def _value_ticks(capture: Capture) -> list[str]:
    """Return the labels, or nearly those, that Vega will put on the value axes of all heads."""
    rows = capture.last_block_rows
    lows, highs = np.nanmin(rows, axis=1, initial=0.0), np.nanmax(rows, axis=1, initial=0.0)
    ticks = (scales.value_ticks(*ends, _PROFILE_TICKS) for ends in zip(lows, highs, strict=True))
    return [f"{tick:g}" for head in ticks for tick in head]


def _value_format(ticks: Sequence[str]) -> Any:
    """Return a compact number format where plain decimals would be long."""
    return "~g" if any("e" in tick or len(tick) > 6 for tick in ticks) else alt.Undefined


def _facet(
    chart: Any,
    records: list[dict[str, Any]],
    options: FigureOptions,
    title: str,
    size: int,
) -> alt.FacetChart:
    header = alt.Header(title=None, labelExpr=title, labelFontSize=size)
    facet = alt.Facet("head:O", header=header)
    # InlineData, unlike Data, is not validated value by value.
    data = alt.InlineData(values=records)
    return chart.facet(facet=facet, data=data, columns=options.columns).resolve_axis(
        x="independent", y="independent"
    )


def _frame_axis(
    channel: Any,
    frames: Sequence[int],
    title: str,
    *,
    upwards: bool = False,
    inner: float = 0,
    outer: float = 0,
    grid: bool = False,
) -> Any:
    domain = list(frames)[::-1] if upwards else list(frames)
    ticks = [frames[position] for position in scales.frame_ticks(len(frames))]
    return (
        channel.title(title)
        .scale(domain=domain, paddingInner=inner, paddingOuter=outer)
        .axis(grid=grid, values=ticks, labelAngle=0, labelOverlap=False)
    )


def _frame(width: float, height: float) -> alt.Chart:
    """Return a frame around a panel, outside it: a view's own would lie under the cells."""
    out = _FRAME_WIDTH / 2
    frame: alt.Chart = (
        alt.Chart(name=FRAME)
        .mark_rect(filled=False, stroke=_INK, strokeWidth=_FRAME_WIDTH, aria=False)
        .transform_aggregate(groupby=["head"])
        .encode(
            x=alt.value(-out),
            x2=alt.value(width + out),
            y=alt.value(-out),
            y2=alt.value(height + out),
        )
    )
    return frame


def _color_scale(scale: scales.ColorScale) -> alt.Scale:
    values, colors = zip(*scale.stops, strict=True)
    return alt.Scale(
        domain=list(values), range=list(colors), interpolate="rgb", clamp=True, type="linear"
    )


def _colorbar(capture: Capture, length: float) -> alt.Legend:
    return alt.Legend(
        title=labels.value_title(capture.statistic),
        orient="right",
        gradientLength=length,
        titleOrient="right",
        tickCount=7,
    )


def _finish(
    chart: alt.FacetChart,
    title: list[str],
    caption: str,
    spacing: Mapping[str, float],
    usermeta: dict[str, Any],
) -> alt.FacetChart:
    return chart.properties(
        title=alt.TitleParams(text=title, anchor="middle", offset=16),
        description=caption,
        usermeta={"headgrid": {**usermeta, "caption": caption}},
        spacing=spacing,
        bounds="flush",
        padding=8,
        config=_config(),
    )


def _config() -> dict[str, Any]:
    """Return the look of both figures; what a user configures on the chart goes before it."""
    ink = {"labelColor": _INK, "titleColor": _INK, "labelLimit": 0, "titleLimit": 0}
    return {
        "font": labels.FONT_FAMILY,
        "background": "white",
        "title": {"fontSize": 14, "fontWeight": "bold", "color": _INK, "limit": 0},
        "header": {"labelFontWeight": "bold", "labelPadding": 5, **ink},
        "legend": {
            "gradientThickness": 20,
            "labelFontSize": 9,
            "titleFontSize": 10,
            "titleFontWeight": "normal",
            "offset": 24,
            **ink,
        },
        "axis": {
            "domain": False,
            "gridColor": "#b0b0b0",
            "gridOpacity": 0.3,
            "labelFontSize": 7,
            "labelPadding": 2,
            "tickColor": _INK,
            "tickSize": 3,
            "tickWidth": 0.8,
            "titleFontSize": 9,
            "titleFontWeight": "normal",
            "titlePadding": 4,
            **ink,
        },
    }


def _usermeta(
    figure: str, capture: Capture, color_range: scales.ColorRange | None
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "figure": figure,
        "statistic": capture.statistic,
        "layer": capture.layer_index,
        "run": labels.shorten_text(capture.run),
        "prompt": labels.shorten_text(capture.prompt),
    }
    if color_range is not None:
        meta["color_range"] = [color_range.low, color_range.high]
        meta["color_rule"] = color_range.rule
    return meta
