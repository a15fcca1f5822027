"""Captures of many layers -> the sheet: every head of every layer as a small map, in one figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from headgrid.capture.form import expect_alike, expected_layers
from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts import labels, scales
from headgrid.charts.axes import (
    UNSEEN_COLOR,
    Grid,
    Records,
    color_channel,
    describe_range,
    finish_chart,
    frame_axis,
    panel_frame,
    tile_axis,
)
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.look import Look, find_look
from headgrid.charts.overview import Surveyed
from headgrid.charts.panels import CELLS, TILES, map_size, nest, scale_mark, unfold
from headgrid.charts.tiles import head_tile, pool_factor
from headgrid.errors import CaptureError, OptionError
from headgrid.options import (
    CellsName,
    ColorRange,
    ColorRule,
    FigureOptions,
    FontName,
    PaletteName,
    ThemeName,
)
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import pair_table
from headgrid.text import shorten_text

#: Pixels along an axis of a small map beyond which frames are pooled.
MAX_PIXELS = 72
_PANEL = 44
_GAP = 4
#: How far the outer labels of a map's axis stand from its corners.
_INSET = 2
_LEFT_ROOM, _BAR_ROOM = 64, 60


def sheet(
    source: Surveyed | Iterable[Capture],
    *,
    set: str | None = None,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "quantile",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw every head of every layer as a small map on one colour scale.

    Parameters
    ----------
    source : Survey or iterable of Capture
        With a full matrix each, one capture a layer, with the same heads, frames and
        statistic. Of a survey over several runs, the mean over runs.
    set : str, optional
        Which set of a survey; needed where there are several.
    color_range
        Applied to all maps together. A few heads of the last layers are far larger
        than all others, so that the usual range leaves the outermost 1 % of the
        values to its ends.
    columns, palette, title, cells, theme, font, width
        See `FigureOptions`. ``columns`` changes nothing here.

    Returns
    -------
    altair.FacetChart
        A row for each layer, a column for each head. The place of a missing layer
        stays blank.

    Raises
    ------
    CaptureError
        Where captures do not go together, or have no full matrix.
    OptionError
        For an unknown option or set.
    RenderError
        Where cells are to be vector shapes and are more than can be drawn.

    Examples
    --------
    >>> layers = [Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]] * 2, layer=n) for n in (0, 2)]
    >>> sheet(layers).to_dict()["usermeta"]["headgrid"]["layers"]
    [0, 2]
    """
    chosen = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    if isinstance(source, Iterable):
        captures = list(source)
        for capture in captures:
            expect_capture(capture)
        by_layer = {capture.layer_index: capture for capture in captures}
        if len(by_layer) < len(captures):
            raise CaptureError(
                f"{len(captures)} captures are of {len(by_layer)} layers, expected one capture for "
                "each layer; give one run, or a survey, which draws the mean over runs"
            )
        return draw_sheet(by_layer, chosen)
    name = _choose_set(source.sets, set)
    of_set = {layer: c for (owner, layer), c in source.captures.items() if owner == name}
    where = f"set {shorten_text(name)}" if len(source.sets) > 1 else source.description
    return draw_sheet(of_set, chosen, layers=source.layers, description=where)


def draw_sheet(
    captures: Mapping[int, Capture],
    options: FigureOptions,
    *,
    layers: Sequence[int] | None = None,
    description: str = "",
) -> alt.FacetChart:
    """Draw the sheet of one capture a layer, with options that are built already.

    ``layers`` are the rows; where not given, those of the captures, and what is missing
    between them at their regular step.
    """
    shown = [captures[layer] for layer in sorted(captures)]
    if not shown:
        raise CaptureError("there is no capture for the sheet, expected at least one")
    for capture in shown:
        capture.head_matrix(0)  # says what is missing
    expect_alike(
        shown,
        "captures of one sheet to share it; draw them separately",
        ["statistic", "num_heads", "query_frames", "key_frames"],
    )
    rows = tuple(layers) if layers is not None else expected_layers(captures)
    color_range = resolve_color_range(options.color_range, shown)
    statistic = shown[0].statistic
    scale = scales.ColorScale(color_range, scales.palette_for(statistic, options.palette))
    maps = _Sheet(shown, rows, scale, _fit(options, shown[0]))
    count = sum(capture.num_visible for capture in shown)
    vectors = as_vectors("the sheet", shown, count, options.cells, MAX_PIXELS)
    chart, records = maps.draw_cells() if vectors else maps.draw_tiles()
    meta = {"figure": "sheet", "statistic": statistic, "layers": list(rows)}
    return finish_chart(
        chart,
        records,
        _title(options, maps),
        _caption(maps, vectors, description),
        maps._gap,
        {**meta, **describe_range(color_range)},
        maps.look,
        options.points,
    )


@dataclass(frozen=True)
class _Sheet:
    """What the sheet shows: captures in the order of their layers, on the rows of a grid."""

    captures: list[Capture]
    layers: tuple[int, ...]
    scale: scales.ColorScale
    look: Look

    @property
    def first(self) -> Capture:
        return self.captures[0]

    @property
    def missing(self) -> list[int]:
        present = {capture.layer_index for capture in self.captures}
        return [layer for layer in self.layers if layer not in present]

    @property
    def _gap(self) -> float:
        """Gap between maps: whole cells, so that the finishing stage can join their rows."""
        width = self._size[0] * pool_factor(len(self.first.key_frames), MAX_PIXELS)
        cell = max(1, width // len(self.first.key_frames))
        if cell > 2 * _GAP / self.look.unit:
            return _GAP / self.look.unit
        return max(1, round(_GAP / self.look.unit / cell)) * cell

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height of a map in whole units."""
        return map_size(self.first, self.look, MAX_PIXELS)

    def draw_cells(self) -> tuple[alt.FacetChart, Records]:
        """Draw every visible pair as a rectangle."""
        statistic, keys = self.first.statistic, self.first.key_frames
        queries = self.first.query_frames
        index = ["layer", "head", "query"]
        known = f"isValid(datum.{statistic})"
        cells = (
            alt.Chart(name=f"sheet_{CELLS}")
            .mark_rect(aria=False)
            .transform_filter(known)
            .encode(
                x=_ends(frame_axis(alt.X("key:O"), keys, ""), (keys[0], keys[-1]), ()),
                y=_ends(
                    frame_axis(alt.Y("query:O"), queries, "", upwards=True),
                    (queries[0], queries[-1]),
                    self.missing,
                ),
                color=self._color(alt.Color("color:Q")),
                tooltip=["layer:O", "head:O", "query:O", "key:O", f"{statistic}:Q"],
            )
        )
        records = nest(pair_table(self.captures), statistic, keys, index)
        records += [
            {"layer": layer, "head": 0, "query": queries[0], statistic: [None]}
            for layer in self.missing
        ]
        frame = self._frame(known)
        chart = unfold(self._facet([frame, cells]), statistic, keys, index, keep_unseen=True)
        return chart.transform_calculate(color=self.scale.expression(statistic)), records

    def draw_tiles(self) -> tuple[alt.FacetChart, Records]:
        """Draw every map as one image."""
        width, height = self._size
        axes = [
            _ends(
                tile_axis(channel, frames, pool_factor(len(frames), MAX_PIXELS), ""),
                (0, len(frames) - 1),
                missing,
            )
            for channel, frames, missing in (
                (alt.X, self.first.key_frames, []),
                (alt.Y, self.first.query_frames, self.missing),
            )
        ]
        tiles = (
            alt.Chart(name=TILES)
            .mark_image(width=width, height=height, aspect=False, smooth=False, aria=False)
            .transform_filter("!datum.missing")
            .encode(x=axes[0], y=axes[1], url="tile:N")
        )
        where = f"datum.layer=={self.first.layer_index}&&datum.head==0"
        legend = scale_mark(self.scale, where, fill=self._color(alt.Fill("color:Q")))
        records: Records = [
            {
                "layer": capture.layer_index,
                "head": head,
                "tile": head_tile(capture, head, self.scale, MAX_PIXELS),
            }
            for capture in self.captures
            for head in range(capture.num_heads)
        ]
        # Every record names a picture; that of a missing layer is never drawn.
        records += [{**records[0], "layer": layer, "missing": True} for layer in self.missing]
        return self._facet([self._frame("!datum.missing"), legend, tiles]), records

    def _color(self, channel: Any) -> Any:
        height = self._size[1]
        lows, highs = zip(*(capture.value_range for capture in self.captures), strict=True)
        length = len(self.layers) * (height + self._gap) - self._gap
        return color_channel(
            channel,
            self.scale,
            STATISTICS[self.first.statistic].title,
            (min(lows), max(highs)),
            length,
            self.look,
        )

    def _frame(self, known: str) -> alt.Chart:
        """Return the frame and the ground of a map, where there is one."""
        frame = panel_frame(*self._size, ["layer", "head"], self.look, fill=UNSEEN_COLOR)
        frame.transform = [alt.FilterTransform(filter=known), *frame.transform]
        return frame

    def _facet(self, layers: list[alt.Chart]) -> alt.FacetChart:
        width, height = self._size
        panel = alt.layer(*layers).properties(
            width=width, height=height, view=alt.ViewBackground(stroke=None)
        )
        size = self.look.bar_label
        row = alt.Row("layer:O").header(
            title=None,
            labelExpr="'Layer ' + datum.value",
            labelFontSize=size,
            labelAngle=0,
            labelAlign="left",
            labelBaseline="middle",
        )
        longest = len(f"Head {self.first.num_heads - 1}") * 0.6 * size
        spelled = longest <= width + self._gap - 2
        header = (
            alt.Header(title=None, labelExpr="'Head ' + datum.value", labelFontSize=size)
            if spelled  # else the word once, the numbers over their columns
            else alt.Header(title="Head", titleFontSize=size, titlePadding=2, labelFontSize=size)
        )
        column = alt.Column("head:O").header(header)
        return Grid(
            spec=panel,
            facet=alt.FacetMapping(row=row, column=column),
            data=alt.InlineData(values=[]),
        )


def _ends(channel: Any, ends: Sequence[int], missing: Sequence[int]) -> Any:
    """Keep the first and the last tick of an axis: a small map has no room for more.

    They stand flush with the map, so that neighbours do not run into each other; the
    row of a missing layer has none.
    """
    axis = dict(channel["axis"])
    axis |= {"values": list(dict.fromkeys(ends)), "title": None, "labelFlush": True}
    axis["labelFlushOffset"] = -_INSET
    if missing:
        shown = f"indexof({json.dumps(list(missing))},parent.layer)<0"
        # Invisible labels keep the width that lines up the rows' names.
        axis |= {name: {"expr": f"{shown}?1:0"} for name in ("tickOpacity", "labelOpacity")}
    channel["axis"] = axis
    return channel


def _fit(options: FigureOptions, capture: Capture) -> Look:
    """Return the look of a sheet: that of the theme, with smaller maps."""
    look = find_look(options)
    across = capture.num_heads
    count = -(-len(capture.key_frames) // pool_factor(len(capture.key_frames), MAX_PIXELS))
    look = replace(look, map_panel=_PANEL, tick_size=2, header_padding=4, tick_label=6)
    if options.points is None:
        return look
    fixed = _LEFT_ROOM + (across - 1) * _GAP + _BAR_ROOM + 2 * look.padding
    panel = (options.points - fixed) / across
    if panel < 8:
        raise OptionError(
            f"width is {options.points:g} pt, which leaves {max(panel, 0):.0f} pt for each of "
            f"{across} maps in a row, expected at least 8 pt; widen the sheet"
        )
    cells = scales.cell_size(count, round(panel)) * count
    return replace(look.divided(panel / cells), map_panel=float(cells))


def _choose_set(sets: Sequence[str], wanted: str | None) -> str:
    if wanted is None and len(sets) == 1:
        return sets[0]
    if wanted is not None and wanted in sets:
        return wanted
    listed = ", ".join(repr(shorten_text(name, 40)) for name in sets)
    found = "not given" if wanted is None else repr(shorten_text(wanted, 40))
    raise OptionError(f"set is {found}, expected one of {listed}; a sheet shows one set")


def _title(options: FigureOptions, maps: _Sheet) -> list[str]:
    if options.title is not None:
        return labels.group_title(options.title, maps.captures, 100)
    if not maps.look.own_title:
        return []
    several = len(maps.layers) > 1
    which = f"Layers {maps.layers[0]}-{maps.layers[-1]}" if several else f"Layer {maps.layers[0]}"
    runs = {capture.run for capture in maps.captures}
    of = f" ({shorten_text(maps.first.run, 40)})" if len(runs) == 1 and maps.first.run else ""
    queries, keys = (
        f"{frames[0]}-{frames[-1]}" for frames in (maps.first.query_frames, maps.first.key_frames)
    )
    return [
        f"{which}: 2D Attention Maps (All Heads){of}",
        f"Query Frames: {queries} (upwards), Key Frames: {keys} (to the right)",
    ]


def _caption(maps: _Sheet, vectors: bool, description: str) -> str:
    color_range = maps.scale.range
    saturated = sum(scales.count_saturated(c, color_range) for c in maps.captures)
    visible = sum(c.num_visible for c in maps.captures)
    pooled = max(
        pool_factor(len(frames), MAX_PIXELS)
        for frames in (maps.first.query_frames, maps.first.key_frames)
    )
    sentences = [
        f"{STATISTICS[maps.first.statistic].title}, a small map (query x key frame) for each "
        f"head (column) of each layer (row){', ' + description if description else ''}.",
        f"Color range {color_range.low:g} to {color_range.high:g} ({color_range.rule}); "
        f"{saturated:,} of {visible:,} values saturate.",
    ]
    if not vectors:
        sentences.append("Each map is an image.")
    if pooled > 1:
        sentences.append(
            f"A pixel pools {pooled} frames along an axis and shows the value of largest magnitude."
        )
    if maps.missing:
        sentences.append(f"Missing layers: {', '.join(map(str, maps.missing))}.")
    return " ".join(sentences)
