"""Heads of captures, in order -> grids of maps and of profiles, facetted by panel.

Each grid reads one tidy table. It travels in the specification as one record
per row of a matrix, with the row's values as an array that Vega-Lite flattens
again: a quarter of the bytes, and an identical picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd

from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.charts import scales
from headgrid.charts.axes import (
    NOWHERE,
    UNSEEN_COLOR,
    Records,
    color_channel,
    facet_panels,
    fix_extent,
    frame_axis,
    inside_label,
    panel_frame,
    short_label,
    show_where,
    tile_axis,
)
from headgrid.charts.look import INK, Look
from headgrid.charts.tiles import head_tile, pool_factor
from headgrid.errors import CaptureError
from headgrid.tables.tidy import (
    common_statistic,
    pair_table,
    panel_pairs,
    panel_profiles,
    profile_table,
)
from headgrid.text import fit_title, shorten_float, shorten_list, shorten_text

#: Names of the marks that the finishing stage may touch.
CELLS, TILES = "headgrid_cells", "headgrid_tiles"
BARS, LINE, POINTS = "headgrid_bars", "headgrid_line", "headgrid_points"

#: The first colour of seaborn's "colorblind" palette.
BAR_COLOR = "#0173B2"

_PROFILE_TICKS = 6


@dataclass(frozen=True)
class Panels:
    """Which head of which capture each panel of a grid shows.

    Attributes
    ----------
    heads : tuple of (Capture, int)
        In the order of the panels; all with one statistic and the same frames.
    label : str
        Label expression of a panel, over its number in ``datum.value``.
    columns : int
        Panels in a row.
    field : {"head", "panel"}
        Name of the field that numbers the panels from 0.
    inside : tuple of str
        The labels as text, for a look that puts them inside the panels.
    has_keys : bool
        The lowest panels have a key axis, in a look with axes at the border only.
    below : int
        So many of the first panels have others below them, in another grid.
    extent : float, optional
        Room of the ticks and labels of the axes at the left, for grids over each other.
    value_domain : (float, float), optional
        Limits of the value axis, for profiles in several grids on one scale.
    """

    heads: tuple[tuple[Capture, int], ...]
    label: str
    columns: int
    field: str = "head"
    inside: tuple[str, ...] = ()
    has_keys: bool = True
    below: int = 0
    extent: float | None = None
    value_domain: tuple[float, float] | None = None

    @classmethod
    def of_capture(
        cls, capture: Capture, label: str, columns: int, inside: Sequence[str] = ()
    ) -> Panels:
        """Return all heads of one capture."""
        heads = tuple((capture, head) for head in range(capture.num_heads))
        return cls(heads, label, columns, inside=tuple(inside))

    def part(self, start: int, stop: int) -> Panels:
        """Return some of the panels, numbered from 0."""
        return replace(self, heads=self.heads[start:stop]).with_labels(self.inside[start:stop])

    def with_labels(self, names: Sequence[str]) -> Panels:
        """Return the same panels with other labels."""
        return replace(self, label=f"{json.dumps(list(names))}[datum.value]", inside=tuple(names))

    @property
    def first(self) -> Capture:
        """The capture whose frames and statistic stand for all."""
        return self.heads[0][0]

    @property
    def captures(self) -> list[Capture]:
        """Every capture, once."""
        return list({id(capture): capture for capture, _ in self.heads}.values())

    @cached_property
    def rows(self) -> npt.NDArray[Any]:
        """The last-block row of each panel, [panel, key], NaN where unseen."""
        return np.stack([capture.last_block_rows[head] for capture, head in self.heads])

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value of the heads that are shown."""
        lows, highs = zip(*(capture.head_range(head) for capture, head in self.heads), strict=True)
        return min(lows), max(highs)

    @property
    def value_sketch(self) -> QuantileSketch:
        """Sketch of the visible values of the heads that are shown."""
        sketch = QuantileSketch.of([])
        for capture, head in self.heads:
            whole = capture.full_frame_attention is not None
            values = capture.head_matrix(head) if whole else capture.last_block_rows[head]
            sketch = sketch.merge(QuantileSketch.of(values))
        return sketch

    @property
    def statistic(self) -> str:
        """What the values are."""
        return self.first.statistic

    @property
    def grid_rows(self) -> int:
        """Number of rows of the grid."""
        return -(-len(self.heads) // self.columns)

    def border(self, side: str, look: Look) -> str:
        """Return the expression of the panels that have an axis; all of them where it is empty."""
        if not look.border_axes:
            return ""
        if side == "bottom" and not self.has_keys:
            return NOWHERE
        if side == "left":
            return f"(parent.{self.field}%{self.columns}==0)"
        lowest = max(len(self.heads) - self.columns, self.below)
        return f"(parent.{self.field}>={lowest})"

    def lookups(self) -> dict[str, str]:
        """Return expressions of what a panel shows, where its number is not that of the head."""
        if self.field == "head":
            return {}
        listed: dict[str, list[Any]] = {
            "run": [shorten_text(capture.run) for capture, _ in self.heads],
            "layer": [capture.layer_index for capture, _ in self.heads],
            "head": [head for _, head in self.heads],
        }
        return {
            name: f"{json.dumps(values)}[datum.{self.field}]"
            for name, values in listed.items()
            if name != "run" or any(values)
        }

    def tooltip(self, *fields: str) -> list[alt.Tooltip]:
        """Return the fields of a tooltip: what the panel shows, then these."""
        shown = [f"{name}:O" for name in (self.lookups() or ["head"])]
        return [alt.Tooltip(field) for field in [*shown, *fields]]


def draw_maps(
    panels: Panels, scale: scales.ColorScale, look: Look, *, vectors: bool, legend: bool = True
) -> tuple[alt.FacetChart, Records]:
    """Draw the query x key matrix of each panel on one colour scale.

    Parameters
    ----------
    panels : Panels
    scale : ColorScale
    look : Look
    vectors : bool
        Draw every visible pair as a rectangle, or every panel as one image.
    legend : bool
        Draw the colour bar.

    Returns
    -------
    chart, records
        The facetted chart, and the data that belong into it.
    """
    draw = _draw_cells if vectors else _draw_tiles
    panel, records = draw(panels, scale, look, legend)
    chart = facet_panels(panel, panels.field, panels.columns, look, panels.label, look.map_title)
    if vectors:
        statistic = panels.first.statistic
        chart = unfold(chart, statistic, panels.first.key_frames, [panels.field, "query"])
        chart = chart.transform_calculate(color=scale.expression(statistic))
        for name, expression in panels.lookups().items():
            chart = chart.transform_calculate(**{name: expression})
    return chart, records


def map_size(capture: Capture, look: Look) -> tuple[int, int]:
    """Return width and height of a map panel, whole cells (or pixels of tiles) each."""
    target = round(look.map_panel)
    sizes = []
    for frames in (capture.key_frames, capture.query_frames):
        count = -(-len(frames) // pool_factor(len(frames)))
        sizes.append(scales.cell_size(count, target) * count)
    return sizes[0], sizes[1]


def expect_alike(captures: Sequence[Capture], figure: str, *, heads: bool = True) -> None:
    """Refuse captures that can not stand on the same axes and scale.

    Raises
    ------
    CaptureError
        Where statistics or frames differ; the text names both captures.
    """
    common_statistic(captures)
    first = captures[0]
    for capture in captures:
        for name, mine, other in (
            ("query frames", capture.query_frames, first.query_frames),
            ("key frames", capture.key_frames, first.key_frames),
        ):
            if heads and capture.num_heads != first.num_heads:
                raise CaptureError(
                    f"{capture.source} has {capture.num_heads} heads, {first.source} has "
                    f"{first.num_heads}; expected the same in all captures of {figure}; draw them "
                    "separately"
                )
            if mine != other:
                raise CaptureError(
                    f"{capture.source} has {name} {shorten_list(mine)} ({len(mine)}), "
                    f"{first.source} has {shorten_list(other)} ({len(other)}); expected the same "
                    f"in all captures of {figure}; draw them separately"
                )


def _color(
    channel: Any, panels: Panels, scale: scales.ColorScale, look: Look, height: int, legend: bool
) -> Any:
    rows = panels.grid_rows
    length = rows * height + (rows - 1) * look.map_row_gap
    title = STATISTICS[panels.first.statistic].title
    colored = color_channel(channel, scale, title, panels.value_range, length, look)
    return colored if legend else colored.legend(None)


def map_labels(panels: Panels, look: Look) -> list[alt.Chart]:
    """Return labels at the bottom right: a causal map has no data there."""
    if not look.inside_labels:
        return []
    width, height = map_size(panels.first, look)
    inset = shorten_float(2 / look.unit, 6)
    place = (width - inset, height - inset, "bottom")
    return inside_label(panels.inside, panels.field, *place, look.map_title, look)


def cell_marks(panels: Panels, look: Look, name: str = CELLS) -> alt.Chart:
    """Return the cells of a map as rectangles on axes of frames, still without colour."""
    capture = panels.first
    title = fit_title("Query Frame", map_size(capture, look)[1], look.axis_title)
    key = frame_axis(
        alt.X("key:O"), capture.key_frames, "Key Frame", shown=panels.border("bottom", look)
    )
    query = frame_axis(
        alt.Y("query:O"),
        capture.query_frames,
        title,
        upwards=True,
        shown=panels.border("left", look),
        extent=panels.extent,
    )
    cells: alt.Chart = (
        alt.Chart(name=name, view=alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None))
        .mark_rect(aria=False)
        .encode(x=key, y=query)
    )
    return cells


def tile_marks(panels: Panels, look: Look) -> alt.Chart:
    """Return a map as one image, of the field ``tile``, on axes of frames."""
    capture = panels.first
    width, height = map_size(capture, look)
    keys, queries = (pool_factor(len(f)) for f in (capture.key_frames, capture.query_frames))
    title = fit_title("Query Frame", height, look.axis_title)
    bottom, left = (panels.border(side, look) for side in ("bottom", "left"))
    tiles: alt.Chart = (
        alt.Chart(name=TILES, view=alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None))
        .mark_image(width=width, height=height, aspect=False, smooth=False, aria=False)
        .encode(
            x=tile_axis(alt.X, capture.key_frames, keys, "Key Frame", bottom),
            y=tile_axis(alt.Y, capture.query_frames, queries, title, left, panels.extent),
            url=alt.Url("tile:N"),
        )
    )
    return tiles


def scale_mark(scale: scales.ColorScale, where: str, **channel: Any) -> alt.Chart:
    """Return an invisible mark that carries a scale and its legend: images have no colour channel.

    ``where`` is the filter of the one panel that has it.
    """
    mark: alt.Chart = (
        alt.Chart()
        .mark_rect(aria=False, opacity=0)
        .transform_filter(where)
        .transform_calculate(color=repr(scale.range.low))
        .encode(**channel)
    )
    return mark


def _draw_cells(
    panels: Panels, scale: scales.ColorScale, look: Look, legend: bool
) -> tuple[alt.LayerChart | alt.FacetChart, Records]:
    capture, statistic = panels.first, panels.statistic
    width, height = map_size(capture, look)
    cells = cell_marks(panels, look).encode(
        color=_color(alt.Color("color:Q"), panels, scale, look, height, legend),
        tooltip=panels.tooltip("query:O", "key:O", f"{statistic}:Q"),
    )
    frame = panel_frame(width, height, [panels.field], look)
    layers = [frame, cells, *map_labels(panels, look)]
    panel = alt.layer(*layers).properties(width=width, height=height)
    table = (
        pair_table(capture) if panels.field == "head" else panel_pairs(panels.heads, panels.field)
    )
    return panel, nest(table, statistic, capture.key_frames, [panels.field, "query"])


def _draw_tiles(
    panels: Panels, scale: scales.ColorScale, look: Look, legend: bool
) -> tuple[alt.LayerChart | alt.FacetChart, Records]:
    width, height = map_size(panels.first, look)
    # An image has no colour channel; the frame carries the scale, and its legend.
    frame = (
        panel_frame(width, height, [panels.field], look)
        .transform_calculate(color=repr(scale.range.low))
        .encode(
            fill=_color(alt.Fill("color:Q"), panels, scale, look, height, legend),
            fillOpacity=alt.FillOpacityValue(0),
        )
    )
    layers = [frame, tile_marks(panels, look), *map_labels(panels, look)]
    panel = alt.layer(*layers).properties(width=width, height=height)
    records: Records = [
        {panels.field: number, "tile": head_tile(owner, head, scale)}
        for number, (owner, head) in enumerate(panels.heads)
    ]
    return panel, records


def draw_profiles(panels: Panels, look: Look) -> tuple[alt.FacetChart, Records]:
    """Draw the last-block row of each panel as bars with a line.

    Returns
    -------
    chart, records
        The facetted chart, and the data that belong into it. Value axes are
        independent, or one for all where the look says so.
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
        profile_table(capture)
        if panels.field == "head"
        else panel_profiles(panels.heads, panels.field),
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


def nest(
    table: pd.DataFrame,
    statistic: str,
    keys: Sequence[int],
    index: Sequence[str],
    expected: Iterable[int] = (),
) -> Records:
    """Turn a tidy table into one record per row of a matrix, its values as an array.

    Parameters
    ----------
    table : DataFrame
        Sorted by ``index`` and ``key``, whole numbers all.
    statistic : str
        Name of the value column.
    keys : sequence of int
        The key frames along the axis.
    index : sequence of str
        Columns that name a row of a matrix.
    expected : iterable of int
        Values of the first of them that need a record, if only with one null.

    Returns
    -------
    list of dict
        An array starts at the first key frame; an unseen pair before the last
        visible one is null.
    """
    rows = table[list(index)].to_numpy()
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    number = np.cumsum(new) - 1
    position = np.searchsorted(np.asarray(keys), table["key"].to_numpy())
    matrix = np.full((int(new.sum()), len(keys)), np.nan)
    matrix[number, position] = table[statistic].to_numpy()
    ends = np.zeros(len(matrix), dtype=int)
    np.maximum.at(ends, number, position + 1)
    records: Records = []
    for row, cells, end in zip(rows[new].tolist(), matrix.tolist(), ends.tolist(), strict=True):
        numbers = [None if value != value else value for value in cells[:end]]
        records.append({**dict(zip(index, row, strict=True)), statistic: numbers})
    present = {record[index[0]] for record in records}
    absent = [{index[0]: value, statistic: [None]} for value in expected if value not in present]
    return sorted(records + absent, key=lambda record: record[index[0]]) if absent else records


def unfold(
    chart: alt.FacetChart,
    statistic: str,
    keys: Sequence[int],
    index: list[str],
    *,
    keep_unseen: bool = False,
) -> alt.FacetChart:
    """Turn the arrays of `nest` back into one row a value, with its key frame.

    Rows of unseen pairs of a matrix are dropped unless they are to be kept.
    """
    first = keys[0]
    if tuple(keys) == tuple(range(first, first + len(keys))):
        offset = first - 1
        number = f"datum.position{'+' if offset >= 0 else ''}{offset}" if offset else None
    else:
        number = f"{json.dumps(list(keys))}[datum.position-1]"
    position: dict[str, Any] = {"op": "row_number", "field": "", "as": "position"}
    key: dict[str, Any] = {"calculate": number or "datum.position", "as": "key"}
    steps: list[Any] = [
        alt.FlattenTransform(flatten=[statistic]),
        alt.WindowTransform(window=[alt.WindowFieldDef(**position)], groupby=index),
        alt.CalculateTransform(**key),
    ]
    if "query" in index and not keep_unseen:
        steps.append(alt.FilterTransform(filter=f"isValid(datum.{statistic})"))
    # Not the chart's own methods: each of them copies the whole chart.
    unfolded = chart.copy(deep=False)
    unfolded.transform = steps if chart.transform is alt.Undefined else [*chart.transform, *steps]
    return unfolded
