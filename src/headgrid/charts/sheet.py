"""Captures of many layers -> the sheet: every head of every layer as a small map, in one figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import altair as alt

from headgrid.capture.form import AXES, expect_alike, expected_layers
from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import (
    UNSEEN_COLOR,
    Look,
    color_channel,
    find_look,
    panel_width,
    unseen_key,
)
from headgrid.charts.bands import draw_bands, tell_segments
from headgrid.charts.frames import FrameAxis, draw_over, tell_gaps, tell_pairs, tell_span
from headgrid.charts.grids import Grid
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.labels import tell_places
from headgrid.charts.panels import (
    CELLS,
    Panels,
    absent_marks,
    map_axes,
    map_marks,
    map_size,
    panel_frame,
    scale_mark,
)
from headgrid.charts.records import nest, unfold
from headgrid.charts.scales import (
    ColorScale,
    cell_size,
    count_pixels,
    count_saturated,
    find_scale,
    frame_places,
    pool_factor,
)
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.charts.tiles import head_tile
from headgrid.errors import CaptureError
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.model import Survey
from headgrid.survey.read import choose_set
from headgrid.tables.stats import each_capture
from headgrid.tables.tidy import panel_pairs
from headgrid.text import shorten_text

#: Pixels along an axis of a small map beyond which frames are pooled.
MAX_PIXELS = 72
_PANEL, _GAP, _SMALLEST = 44, 4, 8
#: Points from top to bottom of A4 within margins of 2 cm, which a sheet for a paper keeps to.
_PAGE = 728


def sheet(
    source: Survey | Iterable[Capture],
    *,
    set: str | None = None,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "quantile",
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
        Applied to all maps together; of a survey, to all values of its inputs. A few heads of
        the last layers are far larger than all others, so that the usual range leaves the
        outermost 1 % of the values to its ends.
    columns, palette, title, cells, theme, font, width
        See `FigureOptions`. ``columns`` changes nothing here.

    Returns
    -------
    altair.FacetChart
        A row for each layer, a column for each head; blank where a layer is missing.

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
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    if isinstance(source, Survey):
        name = choose_set(source.sets, set, "a sheet shows one set")
        return draw_set(source, name if len(source.sets) > 1 else None, options)
    captures = list(each_capture(source))
    by_layer = {capture.layer_index: capture for capture in captures}
    if len(by_layer) < len(captures):
        raise CaptureError(
            f"{len(captures)} captures are of {len(by_layer)} layers, expected one capture for "
            "each layer; give one run, or a survey, which draws the mean over runs"
        )
    return draw_sheet(by_layer, options)


def draw_set(survey: Survey, set: str | None, options: FigureOptions) -> alt.FacetChart:
    """Draw the sheet of one set of a survey, or of all of them together; a rule is of all."""
    captures = survey.pooled_captures() if set is None else survey.captures_of(set)
    where = survey.description if set is None else f"set {shorten_text(set)}"
    options = replace(options, color_range=survey.color_range(options.color_range))
    return draw_sheet(captures, options, layers=survey.layers, description=where)


def draw_sheet(
    captures: Mapping[int, Capture],
    options: FigureOptions,
    *,
    layers: Sequence[int] | None = None,
    description: str = "",
) -> alt.FacetChart:
    """Draw the sheet of one capture a layer, with options that are built already.

    ``layers`` are the rows; where not given, those of the captures and the gaps between them.
    """
    shown = [captures[layer] for layer in sorted(captures)]
    if not shown:
        raise CaptureError("there is no capture for the sheet, expected at least one")
    for capture in shown:
        capture.head_matrix(0)  # says what is missing
    purpose = "captures of one sheet to share it; draw them separately"
    expect_alike(shown, purpose, ["statistic", "num_heads", *AXES])
    rows = tuple(layers) if layers is not None else expected_layers(captures)
    look, gap = _fit(options, shown[0], rows)
    maps = _Sheet(shown, rows, find_scale(shown, options), look, gap)
    vectors = as_vectors("the sheet", shown[0], maps.visible, options.cells, MAX_PIXELS)
    chart, records = maps.draw(vectors=vectors)
    meta = {"figure": "sheet", "statistic": shown[0].statistic, "layers": list(rows)}
    return finish_chart(
        chart,
        records,
        maps.look,
        title=write_title(options, maps.look, maps.title(), shown, 100),
        caption=maps.caption(vectors, description),
        meta={**meta, **maps.scale.meta},
    )


@dataclass(frozen=True)
class _Sheet:
    """What the sheet shows: captures in the order of their layers, on the rows of a grid."""

    captures: list[Capture]
    layers: tuple[int, ...]
    scale: ColorScale
    look: Look
    column_gap: float  # in points

    @property
    def first(self) -> Capture:
        return self.captures[0]

    @cached_property
    def panels(self) -> Panels:
        heads = range(self.first.num_heads)
        return Panels(tuple((capture, head) for capture in self.captures for head in heads), [], 1)

    @property
    def visible(self) -> int:
        return sum(capture.num_visible for capture in self.captures)

    @property
    def missing(self) -> list[int]:
        present = {capture.layer_index for capture in self.captures}
        return [layer for layer in self.layers if layer not in present]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a map in whole units."""
        return map_size(self.first, self.look, MAX_PIXELS)

    @property
    def cell(self) -> int:
        """Width of a cell in whole units."""
        return self.size[0] // count_pixels(len(self.axes[0].places), MAX_PIXELS)

    @cached_property
    def axes(self) -> tuple[FrameAxis, FrameAxis]:
        return map_axes(self.first, self.look, MAX_PIXELS)

    def whole(self, points: float) -> float:
        """Return a gap between maps: whole cells, so that the finishing stage can join rows."""
        gap = points / self.look.unit
        return gap if self.cell > 2 * gap else max(1, round(gap / self.cell)) * self.cell

    def draw(self, *, vectors: bool) -> tuple[alt.FacetChart, Records]:
        """Draw every visible pair as a rectangle, or every map as one image."""
        panels, look, keys = self.panels, self.look, self.axes[0].places
        statistic, index = panels.statistic, ["layer", "head", "query"]
        known = f"isValid(datum.{statistic})" if vectors else "!datum.missing"
        absent = [(panels.heads[n][0].layer_index, panels.heads[n][1]) for n in panels.absent]
        framed = f"{known}||datum.absent" if absent and vectors else known
        frame = panel_frame(*self.size, index[:2], look, fill=UNSEEN_COLOR)
        frame.transform = [alt.FilterTransform(filter=framed), *frame.transform]
        over = [*self._draw_over(framed), *absent_marks(panels, index[:2], self.size, look)]
        options: dict[str, Any] = {"name": f"sheet_{CELLS}", "pixels": MAX_PIXELS}
        marks = map_marks(panels, look, vectors=vectors, **options).transform_filter(known)
        marks.view = alt.Undefined
        self._keep_ends(marks, vectors)
        gap = self.whole(_GAP)
        length = len(self.layers) * (self.size[1] + gap) - gap
        length -= 1.2 * look.bar_label + 8 if panels.unseen else 0
        channel = alt.Color("color:Q") if vectors else alt.Fill("color:Q")
        title = STATISTICS[statistic].title
        color = color_channel(channel, self.scale, title, panels.value_range, length, look)
        records: Records
        if vectors:
            tooltip = ["layer:O", "head:O", "query:O", "key:O", f"{statistic}:Q"]
            chart = self._facet([frame, marks.encode(color=color, tooltip=tooltip), *over])
            chart = unfold(chart, statistic, keys, index, keep_unseen=True)
            records = nest(panel_pairs(panels.heads), statistic, keys, index)
            blank = {"head": 0, "query": self.first.query_frames[0], statistic: [None]}
            records += [{**blank, "layer": layer} for layer in self.missing]
            records += [{**blank, "layer": of, "head": n, "absent": True} for of, n in absent]
            return chart.transform_calculate(color=self.scale.expression(statistic)), records
        where = f"datum.layer=={self.first.layer_index}&&datum.head==0"
        records = [
            {"layer": c.layer_index, "head": n, "tile": head_tile(c, n, self.scale, MAX_PIXELS)}
            for c, n in panels.heads
        ]
        # Every record names a picture; that of a missing layer is never drawn.
        never = {**records[0], "missing": True}
        for number in panels.absent:
            records[number]["absent"] = True
        records += [{**never, "layer": layer} for layer in self.missing]
        legend = scale_mark(self.scale, where, fill=color)
        return self._facet([frame, legend, marks, *over]), records

    def _draw_over(self, where: str) -> list[Any]:
        """Return white bands that break each map in the gaps of its frames, and the key of grey."""
        marks: list[Any] = draw_over(self.axes, self.size, "head", (), self.first)
        marks += draw_bands(self.axes, self.size, "head", named=False)
        marks += [unseen_key("head", self.look)] if self.panels.unseen else []
        for mark in marks:
            mark.transform[0].groupby = ["layer", "head"]
            mark.transform.insert(0, alt.FilterTransform(filter=where))
        return marks

    def _keep_ends(self, marks: alt.Chart, vectors: bool) -> None:
        """Keep the first and the last tick of both axes: a small map has no room for more.

        The row of a missing layer has none, nor has every second map where labels would touch.
        """
        encoding: Any = marks.encoding
        heads, layers = [*range(self.first.num_heads)], [*self.layers[::-1]]
        fields = ("head", heads, self.first.key_frames), ("layer", layers, self.first.query_frames)
        for upright, (field, maps, frames) in enumerate(fields):
            channel, step = (encoding.x, encoding.y)[upright], self._label_step(frames, upright)
            ends = [0, len(self.axes[upright].places) - 1]
            ends = [frames[0], frames[-1]] if vectors else ends
            values = [*dict.fromkeys(ends)] if step else []
            axis = {**dict(channel["axis"]), "values": values, "title": None, "labelFlush": False}
            shown = [n for n in maps[:: step or 1] if not upright or n not in self.missing]
            if len(shown) < len(maps):
                where = f"indexof({json.dumps(shown)},parent.{field})<0?0:1"
                # Invisible labels keep the width that lines up the rows' names.
                axis |= {name: {"expr": where} for name in ("tickOpacity", "labelOpacity")}
            channel["axis"] = axis
            if vectors:
                channel["title"] = ""

    def _label_step(self, frames: Sequence[int], upright: int) -> int:
        """Return whether every map has labels, or every second, or (0) none, as they would touch.

        They stand at their ticks, in the middle of the first and the last cell.
        """
        size, gap = self.look.tick_label, self.whole(_GAP if upright else self.column_gap)
        lengths = [0.72 * size if upright else 0.556 * size * len(f"{frames[n]}") for n in (0, -1)]
        room, between = sum(lengths) / 2 + 1 / self.look.unit, gap + self.cell
        if len(frames) > 1 and room > self.size[upright] - self.cell:
            return 0
        return 1 if room <= between else 2

    def _facet(self, layers: list[alt.Chart]) -> alt.FacetChart:
        width, height = self.size
        ground, size = alt.ViewBackground(stroke=None), self.look.bar_label
        panel = alt.layer(*layers).properties(width=width, height=height, view=ground)
        upright: dict[str, Any] = {"labelAngle": 0, "labelAlign": "left", "labelBaseline": "middle"}
        upright |= {"title": None, "labelFontSize": size}
        row = alt.Header(labelExpr="'Layer ' + datum.value", **upright)
        room = width + self.whole(self.column_gap) - 2
        number = f"{self.first.num_heads - 1}"
        fitting = (w for w in ("Head ", "H") if len(w + number) * 0.6 * size <= room)
        label = f"'{next(fitting, '')}' + datum.value"
        header = alt.Header(title=None, labelExpr=label, labelFontSize=size)
        down, across = alt.Row("layer:O").header(row), alt.Column("head:O").header(header)
        facet = alt.FacetMapping(row=down, column=across)
        gaps = {"row": self.whole(_GAP), "column": self.whole(self.column_gap)}
        return Grid(spec=panel, facet=facet, data=alt.InlineData(values=[]), spacing=gaps)

    def title(self) -> list[str]:
        several = len(self.layers) > 1
        ends = f"s {self.layers[0]}-{self.layers[-1]}" if several else f" {self.layers[0]}"
        runs = {capture.run for capture in self.captures}
        of = f" ({shorten_text(self.first.run, 40)})" if len(runs) == 1 and self.first.run else ""
        queries, keys = tell_span(self.first.query_axis), tell_span(self.first.key_axis)
        axes = f"Query {queries} (upwards), Key {keys} (to the right)"
        return [f"Layer{ends}: 2D Attention Maps (All Heads){of}", axes]

    def caption(self, vectors: bool, description: str) -> str:
        saturated = sum(count_saturated(capture, self.scale.range) for capture in self.captures)
        queries, keys = self.first.query_axis, self.first.key_axis
        counts = [len(keys.numbers), len(queries.numbers)]
        total = len(self.panels.heads) * math.prod(counts)
        pooled = max(pool_factor(count, MAX_PIXELS) for count in counts)
        caption = (
            f"{STATISTICS[self.first.statistic].title}, a small map ({tell_pairs(self.first)}) for "
            "each head (column) of each layer (row)"
            f"{', ' + description if description else ''}. Color range {self.scale.text}; "
            f"{saturated:,} of {self.visible:,} values saturate; {total - self.visible:,} of "
            f"{total:,} pairs are unseen."
        )
        caption += "" if vectors else " Each map is an image."
        if pooled > 1:
            pixel = f" A pixel pools {pooled} {keys.nouns} along an axis"
            caption += f"{pixel} and shows the value of largest magnitude."
        caption += f" Keys: {tell_places(keys, keys.numbers)}." if keys.labels else ""
        told = tell_gaps(query=queries, key=keys) or tell_segments(self.first)
        if [len(axis.places) for axis in self.axes] == counts:  # there is no room for a band
            told = told.replace("Axes are broken", "Frames are left out, without a break")
        missing = ", ".join(map(str, self.missing))
        return f"{caption} {told}".rstrip() + (f" Missing layers: {missing}." if missing else "")


def _fit(options: FigureOptions, capture: Capture, layers: Sequence[int]) -> tuple[Look, float]:
    """Return the look of small maps, and the gap between columns in points.

    A sheet for a paper is no higher than a page; what a wanted width leaves is then in the gaps.
    """
    look = replace(find_look(options), map_panel=_PANEL, border_axes=False)
    look = replace(look, tick_size=2, header_padding=4, tick_label=6)
    paper = look.theme == "paper"
    count, high = (
        count_pixels(len(frame_places(frames, MAX_PIXELS)), MAX_PIXELS)
        for frames in (capture.key_frames, capture.query_frames)
    )
    around = 7 * look.bar_label + 3 * look.figure_title * (options.title is not None)
    tall = ((_PAGE - around) / len(layers) - _GAP) * count / high if paper else math.inf
    if options.points is None and tall >= cell_size(count, _PANEL) * count:
        return look, _GAP
    across, tall = capture.num_heads, max(_SMALLEST, tall)
    names = 0.6 * look.bar_label * len(f"Layer {layers[-1]}") + 0.556 * 6 * len(f"{high}")
    beside = look.bar_offset + look.bar_thickness + look.bar_room + 2 * look.padding
    fixed = names + look.header_padding + look.tick_size + look.label_padding + beside
    points = options.points or fixed + across * (tall + _GAP) - _GAP
    wide = panel_width(points, fixed + (across - 1) * _GAP, across, _SMALLEST)
    panel = min(wide, tall)
    cells = cell_size(count, round(panel)) * count
    look = replace(look.divided(panel / cells), map_panel=float(cells), width=points)
    return look, _GAP + (wide - panel) * across / max(1, across - 1)
