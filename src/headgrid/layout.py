"""Frames, options and colour scales -> the grid, axes, colour bar and look that charts share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import altair as alt

from headgrid import labels, scales
from headgrid.capture import Capture
from headgrid.inert import InertDisplay
from headgrid.options import FigureOptions
from headgrid.spec import Spec

Records: TypeAlias = list[dict[str, Any]]

#: Name of the frame around a heatmap's panel; the finishing stage may touch it.
FRAME = "headgrid_frame"
INK = "#000000"
FRAME_WIDTH = 0.8
#: Points between heatmap panels, for axis labels and titles.
MAP_SPACING = {"row": 60, "column": 62}

_COLORBAR_TICKS = 7
_COLORBAR_LENGTH = 750  # three rows of panels


class Grid(InertDisplay, alt.FacetChart):
    """An altair facet chart whose look lies under what a user configures.

    ``configure_axis(labelFontSize=9)`` changes that one setting, and not all
    others back to Vega-Lite's; a chart that is put beside another leaves its look
    and its ``usermeta`` out, as only the outermost chart may have them.
    """

    def to_dict(
        self,
        validate: bool = True,
        *,
        format: Literal["vega-lite", "vega"] = "vega-lite",
        ignore: list[str] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Spec:
        """Return the Vega-Lite specification, as every altair chart does."""
        outermost = (context or {}).get("top_level", True)
        if format != "vega-lite":  # altair compiles what it gets from a call without format
            return super().to_dict(validate, format=format, ignore=ignore, context=context)
        spec: Spec = super().to_dict(validate, ignore=ignore, context=context)
        if outermost:
            chosen = {} if self.config is alt.Undefined else _as_dict(self.config)
            spec["config"] = _overlay(_overlay(spec.get("config") or {}, _config()), chosen)
        else:
            spec.pop("usermeta", None)
        return spec


def _as_dict(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = config if isinstance(config, dict) else config.to_dict()
    return found


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one nested dictionary over another."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _overlay(below, value)
        merged[key] = value
    return merged


def facet_by_head(chart: Any, options: FigureOptions, title: str, size: int) -> alt.FacetChart:
    """Facet a panel by head, each panel with its own axes; ``title`` is a label expression."""
    header = alt.Header(title=None, labelExpr=title, labelFontSize=size)
    facet = alt.Facet("head:O", header=header)
    data = alt.InlineData(values=[])  # `finish_chart` puts the records in
    grid = Grid(spec=chart, facet=facet, data=data, columns=options.columns)
    resolved: alt.FacetChart = grid.resolve_axis(x="independent", y="independent")
    return resolved


def frame_axis(
    channel: Any,
    frames: Sequence[int],
    title: str,
    *,
    upwards: bool = False,
    inner: float = 0,
    outer: float = 0,
    grid: bool = False,
) -> Any:
    """Give a channel an axis of frames: a band for each, ticks at some, frame 0 at the bottom."""
    domain = list(frames)[::-1] if upwards else list(frames)
    ticks = [frames[position] for position in scales.frame_ticks(len(frames))]
    return (
        channel.title(title)
        .scale(domain=domain, paddingInner=inner, paddingOuter=outer)
        .axis(grid=grid, values=ticks, labelAngle=0, labelOverlap=False, zindex=0)
    )


def tile_axis(channel: Any, frames: Sequence[int], pool: int, title: str) -> Any:
    """Place a tile in the middle of an axis that counts frames from 0, whatever their numbers."""
    end = -(-len(frames) // pool) * pool
    ticks = scales.frame_ticks(len(frames))
    numbers = {str(tick): frames[tick] for tick in ticks}
    return (
        channel(datum=(end - 1) / 2, type="quantitative")
        .scale(domain=[-0.5, end - 0.5], nice=False, zero=False)
        .axis(
            title=title,
            grid=False,
            values=ticks,
            labelAngle=0,
            zindex=0,
            labelOverlap=False,
            labelExpr=f"{json.dumps(numbers)}[datum.value]",
        )
    )


def panel_frame(width: float, height: float) -> alt.Chart:
    """Return a frame around a panel, outside it: a view's own would lie under the cells."""
    out = FRAME_WIDTH / 2
    frame: alt.Chart = (
        alt.Chart(name=FRAME)
        .mark_rect(filled=False, stroke=INK, strokeWidth=FRAME_WIDTH, aria=False)
        .transform_aggregate(groupby=["head"])
        .encode(
            x=alt.value(-out),
            x2=alt.value(width + out),
            y=alt.value(-out),
            y2=alt.value(height + out),
        )
    )
    return frame


def color_channel(
    channel: Any,
    capture: Capture,
    scale: scales.ColorScale,
    options: FigureOptions,
    panel: int,
) -> Any:
    """Give a channel the colour scale, with a colour bar as high as the grid of panels."""
    values, colors = zip(*scale.stops, strict=True)
    rows = math.ceil(capture.num_heads / options.columns)
    gap = MAP_SPACING["row"]
    low, high = scale.range.low, scale.range.high
    ticks = [f"{tick:g}" for tick in scales.value_ticks(low, high, _COLORBAR_TICKS)]
    legend = alt.Legend(
        title=labels.value_title(capture.statistic),
        orient="right",
        gradientLength=min(rows * panel + (rows - 1) * gap, _COLORBAR_LENGTH),
        titleOrient="right",
        tickCount=_COLORBAR_TICKS,
        labelExpr=short_label(ticks),
    )
    return channel.scale(
        domain=list(values), range=list(colors), interpolate="rgb", clamp=True, type="linear"
    ).legend(legend)


def short_label(ticks: Sequence[str]) -> Any:
    """Return the label expression that writes 2e-5 where plain decimals would be long."""
    if any("e" in tick or len(tick) > 7 for tick in ticks):
        return "datum.value ? format(datum.value, '~e') : '0'"
    return alt.Undefined


def finish_chart(
    chart: alt.FacetChart,
    records: Records,
    title: list[str],
    caption: str,
    spacing: Mapping[str, float],
    usermeta: dict[str, Any],
) -> alt.FacetChart:
    """Add data, title, caption and look to a facetted chart."""
    finished: alt.FacetChart = chart.properties(
        title=alt.TitleParams(text=title, anchor="middle", offset=16),
        description=caption,
        usermeta={"headgrid": {**usermeta, "caption": caption}},
        spacing=spacing,
        bounds="flush",
    )
    # Records that are there while altair builds the chart are validated and copied one by
    # one, again and again: ten times the time of all else.
    inline = alt.InlineData(values=[])
    inline.values = records
    finished.data = inline
    return finished


def _config() -> dict[str, Any]:
    """Return the look of both figures."""
    ink = {"labelColor": INK, "titleColor": INK, "labelLimit": 0, "titleLimit": 0}
    return {
        "font": labels.FONT_FAMILY,
        "background": "white",
        "padding": 8,
        "title": {"fontSize": 14, "fontWeight": "bold", "color": INK, "limit": 0},
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
            "tickColor": INK,
            "tickSize": 3,
            "tickWidth": 0.8,
            "titleFontSize": 9,
            "titleFontWeight": "normal",
            "titlePadding": 4,
            **ink,
        },
    }


def describe_figure(
    figure: str, capture: Capture, color_range: scales.ColorRange | None
) -> dict[str, Any]:
    """Return what the specification's ``usermeta`` says of the figure."""
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
