"""Two captures -> one chart: A and B on one colour scale, B - A on its own, head by head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import altair as alt
import pandas as pd

from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts import labels, scales
from headgrid.charts.axes import (
    Records,
    color_channel,
    describe_range,
    facet_panels,
    finish_chart,
    panel_frame,
)
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.look import LOOKS, Look, fit_maps
from headgrid.charts.panels import (
    CELLS,
    Panels,
    cell_marks,
    map_labels,
    map_size,
    nest,
    scale_mark,
    tile_marks,
    unfold,
)
from headgrid.charts.tiles import head_tile, pool_factor
from headgrid.options import (
    CellsName,
    ColorRange,
    ColorRule,
    FigureOptions,
    FontName,
    PaletteName,
    ThemeName,
)
from headgrid.tables.changes import subtract
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import panel_pairs
from headgrid.text import shorten_text

#: Points that the title of a colour bar needs, in lines.
_SHORTEST_BAR = 9
_PARTS = ("A", "B", "B \u2212 A")


def compare(
    a: Capture,
    b: Capture,
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw two captures on one scale, and their difference B - A on its own.

    Parameters
    ----------
    a, b : Capture
        With the same statistic, heads and frames, and a full matrix each.
    columns, palette, color_range, title, cells, theme, font, width
        See `headgrid.FigureOptions`. ``columns`` counts maps of full size: for four of
        them there are two heads in a row, three smaller maps each.

    Returns
    -------
    altair.FacetChart
        For each head A, B and B - A side by side. A rule for the color range is applied
        to A and B together; that of the difference is symmetric around zero.

    Raises
    ------
    CaptureError
        Where the two do not go together, or have no full matrix.
    OptionError
        For an unknown option.

    Examples
    --------
    >>> a, b = (Capture.from_array([[[1.0, 2.0], [3.0, v]]]) for v in (4.0, 9.0))
    >>> compare(a, b).to_dict()["usermeta"]["headgrid"]["difference_range"]
    [-5.0, 5.0]
    """
    return draw_comparison(
        a, b, FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    )


def draw_comparison(a: Capture, b: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the comparison with options that are built already."""
    for capture in (a, b):
        expect_capture(capture)
        capture.head_matrix(0)  # says what is missing
    change = subtract(a, b)
    values = resolve_color_range(options.color_range, [a, b])
    rule = "quantile" if options.color_range == "quantile" else "symmetric"
    changes = resolve_color_range(rule, [change])
    per_row = min(max(1, options.columns // 2), a.num_heads)
    count = -(-len(a.key_frames) // pool_factor(len(a.key_frames)))
    look = fit_maps(options, 3 * per_row, count, panel=LOOKS[options.theme].map_panel / 2)
    trio = _Trio(
        (a, b, change),
        scales.ColorScale(values, scales.palette_for(a.statistic, options.palette)),
        scales.ColorScale(changes, scales.palette_for(change.statistic, options.palette)),
        3 * per_row,
        look,
    )
    vectors = as_vectors(
        f"{a.source}: the comparison",
        trio.captures,
        sum(capture.num_visible for capture in trio.captures),
        options.cells,
    )
    chart, records = trio.draw_cells() if vectors else trio.draw_tiles()
    meta = {
        "figure": "comparison",
        "statistic": a.statistic,
        "a": _name(a),
        "b": _name(b),
        **describe_range(values),
        "difference_range": [changes.low, changes.high],
        "difference_rule": changes.rule,
    }
    return finish_chart(
        chart,
        records,
        _title(a, b, options, look),
        _caption(trio, values, changes),
        {"row": look.map_row_gap, "column": look.map_column_gap},
        meta,
        look,
        options.points,
    )


@dataclass(frozen=True)
class _Trio:
    """A, B and B - A: the panels 0, 1, 2 are of head 0, the next three of head 1."""

    captures: tuple[Capture, Capture, Capture]
    values: scales.ColorScale
    changes: scales.ColorScale
    columns: int
    look: Look

    @property
    def first(self) -> Capture:
        return self.captures[0]

    @cached_property
    def panels(self) -> Panels:
        heads = range(self.first.num_heads)
        names = [f"Head {head}: {part}" for head in heads for part in _PARTS]
        return Panels(
            tuple((capture, head) for head in heads for capture in self.captures),
            f"{json.dumps(names)}[datum.value]",
            self.columns,
            "panel",
            tuple(name.replace("Head ", "H") for name in names),
        )

    def draw_cells(self) -> tuple[alt.FacetChart, Records]:
        """Draw every visible pair as a rectangle."""
        statistic, keys = self.first.statistic, self.first.key_frames
        tooltip = ["head:O", "part:N", "query:O", "key:O", f"{statistic}:Q"]
        layers = [
            cell_marks(self.panels, self.look, name)
            .transform_filter(f"datum.panel%3{sign}2")
            .transform_calculate(color=scale.expression(statistic))
            .encode(**self._color(scale), tooltip=tooltip)
            for name, sign, scale in (
                (CELLS, "<", self.values),
                (f"difference_{CELLS}", "==", self.changes),
            )
        ]
        records = nest(self._table(), statistic, keys, ["panel", "query"])
        chart = unfold(self._facet(layers), statistic, keys, ["panel", "query"])
        chart = chart.transform_calculate(head="floor(datum.panel/3)")
        return chart.transform_calculate(part=f"{json.dumps(_PARTS)}[datum.panel%3]"), records

    def draw_tiles(self) -> tuple[alt.FacetChart, Records]:
        """Draw every map as one image."""
        bars = [
            scale_mark(scale, "datum.panel==0", **self._color(scale))
            for scale in (self.values, self.changes)
        ]
        of_part = (self.values, self.values, self.changes)
        records: Records = [
            {"panel": number, "tile": head_tile(capture, head, of_part[number % 3])}
            for number, (capture, head) in enumerate(self.panels.heads)
        ]
        return self._facet([*bars, tile_marks(self.panels, self.look)]), records

    def _table(self) -> pd.DataFrame:
        """Return the tidy table of all panels, the difference in the column of the statistic."""
        tables = []
        for part, capture in enumerate(self.captures):
            heads = [(capture, head) for head in range(capture.num_heads)]
            table = panel_pairs(heads).rename(columns={capture.statistic: self.first.statistic})
            tables.append(table.assign(panel=3 * table["panel"] + part))
        return pd.concat(tables).sort_values(["panel", "query", "key"], ignore_index=True)

    def _color(self, scale: scales.ColorScale) -> dict[str, Any]:
        """Return the channel of a scale: two channels have two scales, and a colour bar each."""
        rows = self.panels.grid_rows
        height = map_size(self.first, self.look)[1]
        total = rows * height + (rows - 1) * self.look.map_row_gap
        half = (min(total, self.look.bar_length) - 4 * self.look.bar_title) / 2
        half = max(half, _SHORTEST_BAR * self.look.bar_title)
        of_change = scale is self.changes
        shown = self.captures[2:] if of_change else self.captures[:2]
        lows, highs = zip(*(capture.value_range for capture in shown), strict=True)
        title = STATISTICS[shown[0].statistic].title
        name, channel = (
            ("fill", alt.Fill("color:Q")) if of_change else ("color", alt.Color("color:Q"))
        )
        extent = min(lows), max(highs)
        return {name: color_channel(channel, scale, title, extent, half, self.look)}

    def _facet(self, layers: list[alt.Chart]) -> alt.FacetChart:
        width, height = map_size(self.first, self.look)
        frame = panel_frame(width, height, ["panel"], self.look)
        marks = [frame, *layers, *map_labels(self.panels, self.look)]
        panel = alt.layer(*marks).properties(width=width, height=height)
        size = min(self.look.map_title, 9 / self.look.unit)
        return facet_panels(panel, "panel", self.columns, self.look, self.panels.label, size)


def _name(capture: Capture) -> str:
    """Return what to call a capture: its run and layer, else its file, without its folder."""
    if capture.run:
        return f"{shorten_text(capture.run, 60)}, layer {capture.layer_index}"
    name = PurePath(capture.source).name
    known = name not in ("", "array", "capture")
    return shorten_text(name, 60) if known else f"layer {capture.layer_index}"


def _title(a: Capture, b: Capture, options: FigureOptions, look: Look) -> list[str]:
    if options.title is not None:
        return labels.group_title(options.title, [a, b], 100)
    if not look.own_title:
        return []
    layers = sorted({a.layer_index, b.layer_index})
    which = f"Layer {layers[0]}" if len(layers) == 1 else f"Layers {a.layer_index} and {layers[-1]}"
    return [f"{which}: Comparison of 2D Attention Maps", f"A: {_name(a)}. B: {_name(b)}"]


def _caption(trio: _Trio, values: ColorRange, changes: ColorRange) -> str:
    a, b, change = trio.captures
    return (
        f"{STATISTICS[a.statistic].title} of A ({_name(a)}) and B ({_name(b)}) and their "
        f"difference B - A, query x key frame, head by head. Color range of A and B {values.low:g} "
        f"to {values.high:g} ({values.rule}), of the difference {changes.low:g} to "
        f"{changes.high:g} ({changes.rule}). {change.num_visible:,} pairs are seen in both."
    )
