"""Heads of captures, in order -> a grid of their maps, facetted by panel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import altair as alt

from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import (
    INK,
    NOWHERE,
    UNSEEN_COLOR,
    Look,
    color_channel,
    sums_room,
    unseen_key,
)
from headgrid.charts.bands import draw_bands, draw_sums
from headgrid.charts.frames import FrameAxis, draw_over, frame_axis
from headgrid.charts.grids import Grid
from headgrid.charts.labels import whole_labels
from headgrid.charts.records import nest, unfold
from headgrid.charts.scales import MAX_PIXELS, ColorScale, cell_size, count_pixels, frame_places
from headgrid.charts.spec import Records
from headgrid.charts.tiles import head_tile
from headgrid.tables.tidy import panel_pairs
from headgrid.text import fit_title, shorten_float, shorten_text

#: Names of the marks that the finishing stage may touch.
CELLS, TILES, FRAME = "headgrid_cells", "headgrid_tiles", "headgrid_frame"
LABELS, HALO = "headgrid_labels", "headgrid_halo"
BARS, LINE, POINTS = "headgrid_bars", "headgrid_line", "headgrid_points"
#: Invisible marks, which the finishing stage leaves out.
ENDS = "headgrid_hidden_ends"


@dataclass(frozen=True)
class Panels:
    """Which head of which capture each panel of a grid shows; all of one statistic and frames."""

    heads: tuple[tuple[Capture, int], ...]
    names: Sequence[str]
    columns: int
    field: str = "panel"  # numbers the panels from 0; "head" for all heads of one capture
    label: str = ""  # expression of a panel's name over `datum.value`, in place of the names
    below: int = 0  # so many of the first panels have others below them, in another grid
    extent: float | None = None  # room of the axes at the left, for grids over each other
    value_domain: tuple[float, float] | None = None  # of profiles in several grids on one scale
    fields: Mapping[str, str] | None = None  # in place of `lookups`
    sums: bool = False  # each map has the sum of its rows at the right
    marks: Sequence[int | str] = ()  # frames, and "blocks", where thin lines are drawn

    def part(self, start: int, stop: int) -> Panels:
        """Return some of the panels, numbered from 0."""
        return replace(self, heads=self.heads[start:stop], names=self.names[start:stop])

    @property
    def first(self) -> Capture:
        """The capture whose frames and statistic stand for all."""
        return self.heads[0][0]

    @property
    def statistic(self) -> str:
        """What the values are."""
        return self.first.statistic

    @cached_property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value of the heads that are shown."""
        lows, highs = zip(*(capture.head_range(head) for capture, head in self.heads), strict=True)
        return min(lows), max(highs)

    @property
    def value_sketch(self) -> QuantileSketch:
        """Sketch of the visible values of the heads that are shown."""
        values = (capture.head_matrix(head) for capture, head in self.heads)
        return reduce(QuantileSketch.merge, map(QuantileSketch.of, values))

    @cached_property
    def absent(self) -> list[int]:
        """Numbers of the panels whose head has no value."""
        ranges = [capture.head_range(head) for capture, head in self.heads]
        return [number for number, (low, high) in enumerate(ranges) if not low <= high]

    @property
    def unseen(self) -> bool:
        """Whether a map has pairs without a value."""
        size = len(self.first.query_frames) * len(self.first.key_frames)
        return any(capture.head_visible(head) < size for capture, head in self.heads)

    def bar_length(self, panel: float, look: Look) -> float:
        """Return the height of a grid of maps so high, less the room of the key below the bar."""
        rows = -(-len(self.heads) // self.columns)
        key = 1.2 * look.bar_label + 8 if self.unseen else 0
        return rows * panel + (rows - 1) * look.map_row_gap - key

    def border(self, side: str, look: Look) -> str:
        """Return the expression of the panels that have an axis; all of them where it is empty."""
        if not look.border_axes:
            return ""
        if side == "left":
            return f"(parent.{self.field}%{self.columns}==0)"
        if self.below >= len(self.heads):
            return NOWHERE
        lowest = max(len(self.heads) - self.columns, self.below)
        return f"(parent.{self.field}>={lowest})"

    def lookups(self) -> Mapping[str, str]:
        """Return fields that say what a panel shows, where its number is not that of the head."""
        if self.fields is not None or self.field == "head":
            return self.fields or {}
        runs = [shorten_text(capture.run) for capture, _ in self.heads]
        listed: dict[str, list[Any]] = {"run:O": runs} if any(runs) else {}
        listed["layer:O"] = [capture.layer_index for capture, _ in self.heads]
        listed["head:O"] = [head for _, head in self.heads]
        field = f"[datum.{self.field}]"
        return {name: f"{json.dumps(values)}{field}" for name, values in listed.items()}

    def tooltip(self, *fields: str) -> list[alt.Tooltip]:
        """Return the fields of a tooltip: what the panel shows, then these sides and the value."""
        axes = {"query": self.first.query_axis, "key": self.first.key_axis}
        named = [side for side in fields if axes[side].labels]
        shown = [f"{side}:O" for side in fields] + [f"{side}_label:N" for side in named]
        names = [*(self.lookups() or ["head:O"]), *shown, f"{self.statistic}:Q"]
        return [alt.Tooltip(name) for name in names]  # altair takes milliseconds for text

    def facet(
        self, panel: Any, look: Look, size: float, gaps: tuple[float, float], **scales: Any
    ) -> alt.FacetChart:
        """Facet a panel, under its name of that size, with gaps between rows and columns."""
        label = self.label or f"{json.dumps(list(self.names))}[datum.value]"
        header = alt.Header(title=None, labelExpr=label, labelFontSize=size)
        if look.inside_labels:  # Vega-Lite ignores `labels: false` for facets that wrap
            header = alt.Header(title=None, labelExpr="''", labelFontSize=0, labelPadding=0)
        spacing = {"row": gaps[0], "column": gaps[1]}
        return facet_panels(panel, self.field, header, self.columns, spacing, **scales)

    def unfold(
        self, chart: alt.FacetChart, index: Sequence[str], scale: ColorScale | None = None
    ) -> alt.FacetChart:
        """Turn arrays back into values, with their colour on a scale and what the panel shows."""
        names, whole = [self.field, *index], bool(self.absent)
        places = frame_places(self.first.key_frames)
        chart = unfold(chart, self.statistic, places, names, keep_unseen=whole)
        steps = {} if scale is None else {"color": scale.expression(self.statistic)}
        steps |= {name.partition(":")[0]: text for name, text in self.lookups().items()}
        axes = [("query", self.first.query_axis)] * ("query" in index)
        for side, axis in [*axes, ("key", self.first.key_axis)]:
            if axis.labels:
                steps[f"{side}_label"] = whole_labels(axis, side)
        for name, text in steps.items():
            chart.transform.append(alt.CalculateTransform(calculate=text, **{"as": name}))
        return chart

    def facet_maps(
        self,
        layers: Sequence[Any],
        look: Look,
        frame: alt.Chart | None = None,
        letters: float | None = None,
        *,
        has_key: bool = True,
    ) -> alt.FacetChart:
        """Facet the layers of a map, within a frame and with its name; say once what grey means."""
        width, height = size = map_size(self.first, look)
        # Labels stand at the bottom right: a causal map has no data there.
        words = self.words(size, "bottom", look.map_title, look)
        frame = frame or panel_frame(width, height, [self.field], look)
        axes, beside = map_axes(self.first, look), sums_room(look) if self.sums else 0
        over = draw_over(axes, size, self.field, self.marks, self.first)
        over += draw_bands(axes, size, self.field, beside=beside)
        over += [draw_sums(axes[1], self.heads, width, self.field)] if self.sums else []
        key = [unseen_key(self.field, look)] if has_key and self.unseen else []
        panel = alt.layer(frame, *layers, *over, *words, *key, width=width, height=height)
        gaps = look.map_row_gap, look.map_column_gap
        return self.facet(panel, look, letters or look.map_title, gaps)

    def words(
        self, size: tuple[float, float], baseline: str, letters: float, look: Look, lift: float = 0
    ) -> list[alt.Chart]:
        """Return what is written in a panel: its label, over a white halo, and what is absent."""
        absent = absent_marks(self, [self.field], size, look)
        if not look.inside_labels:
            return absent
        inset = shorten_float(2 / look.unit, 6)
        x, y = size[0] - inset, inset if baseline == "top" else size[1] - inset - lift
        name = f"{json.dumps(list(self.names))}[datum.{self.field}]"
        base = alt.Chart().transform_aggregate(groupby=[self.field]).transform_calculate(label=name)
        base = base.encode(text=alt.Text("label:N"), x=alt.XValue(x), y=alt.YValue(y))
        text: dict[str, Any] = {"align": "right", "baseline": baseline, "fontSize": letters}
        text |= {"fontWeight": "bold", "aria": False}
        halo = base.mark_text(**text, fill="white", stroke="white", strokeWidth=inset)
        label = base.mark_text(**text, fill=INK).properties(name=LABELS)
        return [halo.properties(name=HALO), label, *absent]


def facet_panels(
    panel: Any, field: str, header: alt.Header, columns: int, spacing: Any, **scales: Any
) -> alt.FacetChart:
    """Facet a panel by a field, each panel with its own axes, and scales where that is said."""
    facet = alt.Facet(f"{field}:O", header=header)
    data = alt.InlineData(values=[])  # `finish_chart` puts the records in
    resolve = alt.Resolve(axis=alt.AxisResolveMap(x="independent", y="independent"))
    if scales:
        resolve.scale = alt.ScaleResolveMap(**scales)
    # Not the chart's own methods: each of them copies the whole chart.
    layout: dict[str, Any] = {"columns": columns, "spacing": spacing, "resolve": resolve}
    return Grid(spec=panel, facet=facet, data=data, **layout)


def draw_maps(
    panels: Panels, scale: ColorScale, look: Look, *, vectors: bool, legend: bool = True
) -> tuple[alt.FacetChart, Records]:
    """Draw each panel's matrix, a visible pair a rectangle or a panel an image; add its data."""
    width, height = map_size(panels.first, look)
    length = panels.bar_length(height, look)
    channel = alt.Color("color:Q") if vectors else alt.Fill("color:Q")
    title = STATISTICS[panels.statistic].title + (", each head" if scale.units else "")
    color = color_channel(channel, scale, title, panels.value_range, length, look)
    color = color if legend else color.legend(None)
    marks = map_marks(panels, look, vectors=vectors)
    if vectors:
        marks = marks.encode(color=color, tooltip=panels.tooltip("query", "key"))
        if panels.absent:
            marks = marks.transform_filter(f"isValid(datum.{panels.statistic})")
        chart = panels.unfold(panels.facet_maps([marks], look, has_key=legend), ["query"], scale)
        return chart, pair_records(panels)
    # An image has no colour channel; the frame carries the scale, and its legend.
    frame = panel_frame(width, height, [panels.field], look)
    frame = frame.transform_calculate(color=repr(scale.range.low))
    frame = frame.encode(fill=color, fillOpacity=alt.FillOpacityValue(0))
    chart = panels.facet_maps([marks], look, frame, has_key=legend)
    return chart, tile_records(panels, scale.of_panel)


def map_size(capture: Capture, look: Look, pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height of a map panel, whole cells (or pixels of tiles) each."""
    axes = (frame_places(f, pixels) for f in (capture.key_frames, capture.query_frames))
    counts = (len(p) if look.vectors else count_pixels(len(p), pixels) for p in axes)
    width, height = (cell_size(count, round(look.map_panel)) * count for count in counts)
    return width, height


def map_axes(capture: Capture, look: Look, pixels: int = MAX_PIXELS) -> tuple[FrameAxis, FrameAxis]:
    """Return the axes of a map, to the right and upwards; a small map has no room for words."""
    width, height = map_size(capture, look, pixels)
    key, query = capture.key_axis, capture.query_axis
    if pixels < MAX_PIXELS:
        key, query = replace(key, labels=None), replace(query, labels=None)
    upright = FrameAxis(query, height, look, upwards=True, pixels=pixels)
    return FrameAxis(key, width, look, pixels=pixels), upright


def panel_frame(
    width: float, height: float, groupby: Sequence[str], look: Look, fill: str | None = None
) -> Any:
    """Return a frame around a panel, outside it: a view's own would lie under the cells."""
    out = shorten_float(look.frame_width / 2)
    body: dict[str, Any] = {"filled": False} if fill is None else {"fill": fill}
    body |= {"stroke": INK, "strokeWidth": look.frame_width, "aria": False}
    frame = alt.Chart(name=FRAME).mark_rect(**body)
    return frame.transform_aggregate(groupby=list(groupby)).encode(
        x=alt.XValue(-out),
        x2=alt.X2Value(width + out),
        y=alt.YValue(-out),
        y2=alt.Y2Value(height + out),
    )


def map_marks(
    panels: Panels, look: Look, *, vectors: bool, name: str = CELLS, pixels: int = MAX_PIXELS
) -> Any:
    """Return a map's cells, still without colour, or its image of field ``tile``, on its axes."""
    across, upright = map_axes(panels.first, look, pixels)
    title = fit_title(f"Query {upright.axis.name}", upright.length, look.axis_title)
    bottom, left = panels.border("bottom", look), panels.border("left", look)
    fields = ("key:O", "query:O") if vectors else ("", "")
    x = frame_axis(alt.X, fields[0], across, f"Key {across.axis.name}", bottom)
    y = frame_axis(alt.Y, fields[1], upright, title, left, extent=panels.extent)
    ground = alt.ViewBackground(fill=UNSEEN_COLOR, stroke=None)
    if vectors:
        return alt.Chart(name=name, view=ground).mark_rect(aria=False).encode(x=x, y=y)
    size: dict[str, Any] = {"width": across.length, "height": upright.length, "aspect": False}
    marks = alt.Chart(name=TILES, view=ground).mark_image(**size, smooth=False, aria=False)
    return marks.encode(x=x, y=y, url=alt.Url("tile:N"))


def scale_mark(scale: ColorScale, where: str, field: str = "color", **channel: Any) -> Any:
    """Return an invisible mark, in one panel, for a scale's legend: images have no colour."""
    mark = alt.Chart().mark_rect(aria=False, opacity=0).transform_filter(where)
    return mark.transform_calculate(**{field: repr(scale.range.low)}).encode(**channel)


def pair_records(panels: Panels) -> Records:
    """Return the visible pairs of all panels, one record a row of a matrix."""
    table, keys = panel_pairs(panels.heads, panels.field), frame_places(panels.first.key_frames)
    records = nest(table, panels.statistic, keys, [panels.field, "query"], panels.absent)
    return mark_absent(records, panels)


def tile_records(panels: Panels, scale_of: Callable[[int], ColorScale]) -> Records:
    """Return the image of each panel, on the scale of its number."""
    records: Records = [
        {panels.field: number, "tile": head_tile(capture, head, scale_of(number))}
        for number, (capture, head) in enumerate(panels.heads)
    ]
    return mark_absent(records, panels)


def mark_absent(records: Records, panels: Panels) -> Records:
    """Mark the records of panels whose head has no value."""
    absent = set(panels.absent)
    return [{**r, "absent": True} if r[panels.field] in absent else r for r in records]


def absent_marks(
    panels: Panels, groupby: Sequence[str], size: tuple[float, float], look: Look
) -> list[alt.Chart]:
    """Return the words in a panel whose head has no value, where there is one."""
    if not panels.absent:
        return []
    text = alt.Chart().transform_filter("datum.absent").transform_aggregate(groupby=[*groupby])
    letters = min(look.axis_title, size[0] / 7)
    words = text.mark_text(text="not recorded", fontSize=letters, fill=INK, aria=False)
    return [words.encode(x=alt.XValue(size[0] / 2), y=alt.YValue(size[1] / 2))]
