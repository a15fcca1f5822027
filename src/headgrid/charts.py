"""Tidy tables -> altair charts, facetted by head.

Both charts read one tidy table. It travels in the specification as one record
per row of a matrix, with the row's values as an array that Vega-Lite flattens
again: a quarter of the bytes, and an identical picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid import labels, scales
from headgrid.capture import Capture
from headgrid.errors import CaptureError, RenderError
from headgrid.layout import (
    FRAME_WIDTH,
    INK,
    MAP_SPACING,
    Records,
    color_channel,
    describe_figure,
    facet_by_head,
    finish_chart,
    frame_axis,
    panel_frame,
    short_label,
    tile_axis,
)
from headgrid.options import CellsName, FigureOptions
from headgrid.spec import MAX_MARKS
from headgrid.tidy import pair_table, profile_table
from headgrid.tiles import MAX_PIXELS, describe_tiles, pool_factor, tile_table

#: Names of the marks that the finishing stage may touch.
CELLS, TILES = "headgrid_cells", "headgrid_tiles"
BARS, LINE, POINTS = "headgrid_bars", "headgrid_line", "headgrid_points"

#: Visible cells up to which ``cells="auto"`` draws vector shapes.
VECTOR_CELLS = 150_000

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"
UNSEEN_COLOR = "#ececec"

_PROFILE_WIDTH, _PROFILE_HEIGHT, _PROFILE_PADDING = 204, 144, 7
_PROFILE_TICKS = 6


def heatmap(
    capture: Capture,
    *,
    columns: int = 4,
    palette: scales.PaletteName = "rdbu",
    color_range: scales.ColorRule | tuple[float, float] | scales.ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
) -> alt.FacetChart:
    """Draw every head's query x key matrix as a grid of heatmaps on one colour scale.

    Parameters
    ----------
    capture : Capture
        With a full matrix.
    columns, palette, color_range, title, cells
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
    RenderError
        Where cells are to be vector shapes and are more than can be drawn.

    Examples
    --------
    >>> import numpy as np
    >>> chart = heatmap(Capture.from_array(np.eye(3)[None]))
    >>> chart.to_dict()["facet"]["field"]
    'head'
    """
    options = FigureOptions(
        columns=columns, palette=palette, color_range=color_range, title=title, cells=cells
    )
    return draw_heatmap(capture, options)


def perhead(
    capture: Capture,
    *,
    columns: int = 4,
    palette: scales.PaletteName = "rdbu",
    color_range: scales.ColorRule | tuple[float, float] | scales.ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
) -> alt.FacetChart:
    """Draw every head's last-block row as bars with a line, the sink score over each.

    Parameters
    ----------
    capture : Capture
        With or without a full matrix.
    columns, title
        See `FigureOptions`. The other options are accepted, as all charts share
        them, and change nothing here.

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
    options = FigureOptions(
        columns=columns, palette=palette, color_range=color_range, title=title, cells=cells
    )
    return draw_perhead(capture, options)


def draw_heatmap(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the heatmap grid with options that are built already."""
    _expect_capture(capture)
    color_range = scales.resolve_color_range(options.color_range, [capture])
    scale = scales.ColorScale(color_range, scales.palette_for(capture.statistic, options.palette))
    vectors = _as_vectors(capture, options.cells)
    draw = _draw_cells if vectors else _draw_tiles
    chart, records, width = draw(capture, scale, options)
    how = "" if vectors else describe_tiles(capture)
    figure_width = min(options.columns, capture.num_heads) * (width + 60) + 60
    return finish_chart(
        chart,
        records,
        labels.heatmap_title(capture, options, figure_width),
        labels.heatmap_caption(capture, color_range, how),
        MAP_SPACING,
        describe_figure("heatmap", capture, color_range),
    )


def _expect_capture(found: object) -> None:
    if not isinstance(found, Capture):
        raise CaptureError(
            f"found {type(found).__name__}, expected one Capture; make it with load_capture(path) "
            "or Capture.from_array(array), and draw several one by one"
        )


def _as_vectors(capture: Capture, cells: CellsName) -> bool:
    """Decide how cells are drawn, before anything large is made of them."""
    count = capture.num_visible
    if cells == "vector" and count > MAX_MARKS:
        raise RenderError(
            f"{capture.source}: the heatmap has {count:,} cells, expected at most {MAX_MARKS:,} as "
            "vector shapes, beyond which the renderer runs out of memory; draw them as one image "
            "per head (cells='image', --cells image)"
        )
    longest = max(len(capture.query_frames), len(capture.key_frames))
    return cells == "vector" or (
        cells == "auto" and count <= VECTOR_CELLS and longest <= MAX_PIXELS
    )


def _draw_cells(
    capture: Capture, scale: scales.ColorScale, options: FigureOptions
) -> tuple[alt.FacetChart, Records, int]:
    """Draw every visible pair as a rectangle; return the grid, its data and a panel's width."""
    statistic = capture.statistic
    width = scales.cell_size(len(capture.key_frames)) * len(capture.key_frames)
    height = scales.cell_size(len(capture.query_frames)) * len(capture.query_frames)
    cells = (
        alt.Chart(name=CELLS, view=alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None))
        .mark_rect(aria=False)
        .encode(
            x=frame_axis(alt.X("key:O"), capture.key_frames, "Key Frame"),
            y=frame_axis(alt.Y("query:O"), capture.query_frames, "Query Frame", upwards=True),
            color=color_channel(alt.Color("color:Q"), capture, scale, options, height),
            tooltip=["head:O", "query:O", "key:O", f"{statistic}:Q"],
        )
    )
    panel = alt.layer(panel_frame(width, height), cells).properties(width=width, height=height)
    records = _nest(capture, pair_table(capture), ["head", "query"])
    chart = facet_by_head(panel, options, "'Head ' + datum.value", 11)
    chart = _unfold(chart, statistic, capture.key_frames, ["head", "query"])
    return chart.transform_calculate(color=scale.expression(statistic)), records, width


def _draw_tiles(
    capture: Capture, scale: scales.ColorScale, options: FigureOptions
) -> tuple[alt.FacetChart, Records, int]:
    """Draw every head as one image; return the grid, its data and a panel's width."""
    columns, rows = (
        pool_factor(len(frames)) for frames in (capture.key_frames, capture.query_frames)
    )
    across, down = -(-len(capture.key_frames) // columns), -(-len(capture.query_frames) // rows)
    width, height = scales.cell_size(across) * across, scales.cell_size(down) * down
    tiles = (
        alt.Chart(name=TILES, view=alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None))
        .mark_image(width=width, height=height, aspect=False, smooth=False, aria=False)
        .encode(
            x=tile_axis(alt.X, capture.key_frames, columns, "Key Frame"),
            y=tile_axis(alt.Y, capture.query_frames, rows, "Query Frame"),
            url="tile:N",
        )
    )
    # An image has no colour channel; the frame carries the scale, and its legend.
    frame = (
        panel_frame(width, height)
        .transform_calculate(color=repr(scale.range.low))
        .encode(
            fill=color_channel(alt.Fill("color:Q"), capture, scale, options, height),
            fillOpacity=alt.value(0),
        )
    )
    panel = alt.layer(frame, tiles).properties(width=width, height=height)
    table = tile_table(capture, scale)
    records: Records = [
        {"head": head, "tile": tile}
        for head, tile in zip(table["head"], table["tile"], strict=True)
    ]
    return facet_by_head(panel, options, "'Head ' + datum.value", 11), records, width


def draw_perhead(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the per-head grid with options that are built already."""
    _expect_capture(capture)
    statistic = capture.statistic
    key = frame_axis(
        alt.X("key:O"), capture.key_frames, "Key Frame", inner=0.2, outer=0.1, grid=True
    )
    ticks = _value_ticks(capture)
    value = alt.Y(
        f"{statistic}:Q",
        title=labels.value_title(statistic),
        scale=alt.Scale(zero=False, nice=False, padding=_PROFILE_PADDING),
        axis=alt.Axis(
            grid=True,
            tickCount=_PROFILE_TICKS,
            minExtent=22,
            tickWidth=0.5,  # a wider tick at the very top would lift the panel's title
            labelExpr=_below_the_top(capture, short_label(ticks)),
        ),
    )
    tooltip = ["head:O", "key:O", f"{statistic}:Q"]
    base = alt.Chart(
        width=_PROFILE_WIDTH,
        height=_PROFILE_HEIGHT,
        view=alt.ViewBackground(stroke=INK, strokeWidth=FRAME_WIDTH),
    ).encode(x=key, y=value)
    bars = (
        base.mark_bar(color=BAR_COLOR, opacity=0.85, aria=False, invalid="filter")
        .encode(y2=alt.datum(0), tooltip=tooltip)
        .properties(name=BARS)
    )
    line = base.mark_line(
        color=INK, strokeWidth=1, aria=False, invalid="break-paths-filter-domains"
    ).properties(name=LINE)
    points = (
        base.mark_point(filled=True, color=INK, size=5, opacity=1, aria=False, invalid="filter")
        .encode(tooltip=tooltip)
        .properties(name=POINTS)
    )
    # Beyond two keys a point of width the dots would only blacken the line.
    dense = len(capture.key_frames) > 2 * _PROFILE_WIDTH
    layered = alt.layer(bars, line) if dense else alt.layer(bars, line, points)
    records = _nest(capture, profile_table(capture), ["head"])
    titles = f"{json.dumps(labels.sink_titles(capture))}[datum.value]"
    chart = facet_by_head(layered, options, titles, 10).resolve_scale(y="independent")
    chart = _unfold(chart, statistic, capture.key_frames, ["head"])
    figure_width = min(options.columns, capture.num_heads) * (_PROFILE_WIDTH + 46) + 10
    return finish_chart(
        chart,
        records,
        labels.perhead_title(capture, options, figure_width),
        labels.perhead_caption(capture),
        {"row": 56, "column": max(46.0, 27 + 4.0 * max(map(len, ticks)))},
        describe_figure("perhead", capture, None),
    )


def _nest(capture: Capture, table: pd.DataFrame, index: list[str]) -> Records:
    """Turn a tidy table into one record per row of a matrix, its values as an array.

    The array starts at the first key frame; an unseen pair before the last
    visible one is null, and a head without any visible value has one null.
    """
    position = np.searchsorted(np.asarray(capture.key_frames), table["key"].to_numpy())
    values = table[capture.statistic].to_numpy()
    rows = table[index].to_numpy()
    records: Records = []
    for head in range(capture.num_heads):
        of_head = rows[:, 0] == head
        if not of_head.any():
            records.append({"head": head, capture.statistic: [None]})
            continue
        matrix_rows, inverse = np.unique(rows[of_head], axis=0, return_inverse=True)
        matrix = np.full((len(matrix_rows), len(capture.key_frames)), np.nan)
        matrix[inverse.reshape(-1), position[of_head]] = values[of_head]
        for row, cells in zip(matrix_rows, matrix.tolist(), strict=True):
            numbers = [None if value != value else value for value in cells]
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


def _below_the_top(capture: Capture, text: Any) -> str:
    """Return the label expression that leaves out a label at the very top of its panel.

    Half of it would stand above the panel and lift the panel's title out of its row.
    """
    rows = capture.last_block_rows
    lows, highs = np.nanmin(rows, axis=1, initial=0.0), np.nanmax(rows, axis=1, initial=0.0)
    point = (highs - lows) / (_PROFILE_HEIGHT - 2 * _PROFILE_PADDING)
    tops = [scales.shorten_float(top, 6) for top in highs + (_PROFILE_PADDING - 4) * point]
    otherwise = "datum.label" if text is alt.Undefined else f"({text})"
    return f"datum.value>{json.dumps(tops)}[parent.head]?'':{otherwise}"
