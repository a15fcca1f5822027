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
    frame_axis,
    inside_label,
    panel_frame,
    tile_axis,
)
from headgrid.charts.look import Look
from headgrid.charts.tiles import MAX_PIXELS, head_tile, pool_factor
from headgrid.tables.tidy import (
    panel_pairs,
)
from headgrid.text import fit_title, shorten_float, shorten_text

#: Names of the marks that the finishing stage may touch.
CELLS, TILES = "headgrid_cells", "headgrid_tiles"
BARS, LINE, POINTS = "headgrid_bars", "headgrid_line", "headgrid_points"


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
    """Draw each panel's query x key matrix: every visible pair a rectangle, or a panel an image.

    The records that come with the chart are the data that belong into it.
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


def map_size(capture: Capture, look: Look, pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height of a map panel, whole cells (or pixels of tiles) each."""
    target = round(look.map_panel)
    sizes = []
    for frames in (capture.key_frames, capture.query_frames):
        count = -(-len(frames) // pool_factor(len(frames), pixels))
        sizes.append(scales.cell_size(count, target) * count)
    return sizes[0], sizes[1]


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
    """Return an invisible mark, in one panel, for a scale's legend: images have no colour."""
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
    table = panel_pairs(panels.heads, panels.field)
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


def nest(
    table: pd.DataFrame,
    statistic: str,
    keys: Sequence[int],
    index: Sequence[str],
    expected: Iterable[int] = (),
) -> Records:
    """Turn a tidy table into one record per row of a matrix, its values as an array.

    The table is sorted by ``index`` (the columns that name a row) and ``key``. An array starts
    at the first key frame; an unseen pair before the last visible one is null. Each of
    ``expected``, values of the first column, has a record, if only with one null.
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
