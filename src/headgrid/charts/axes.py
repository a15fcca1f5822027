"""Frames, colour scales and a look -> the grid, axes, colour bar and text that charts share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import altair as alt

from headgrid.capture.model import Capture
from headgrid.charts import scales
from headgrid.charts.display import Grid as Grid
from headgrid.charts.display import Stack as Stack
from headgrid.charts.look import INK, Look, store_look
from headgrid.options import ColorRange
from headgrid.text import fit_title, shorten_float, shorten_text

Records: TypeAlias = list[dict[str, Any]]
Drawn = TypeVar("Drawn")

#: Names of marks that the finishing stage may touch.
FRAME, LABELS, HALO = "headgrid_frame", "headgrid_labels", "headgrid_halo"
UNSEEN_COLOR = "#dddddd"
#: What `show_where` takes for an axis that no panel has.
NOWHERE = "false"

_COLORBAR_TICKS = 7
#: A colour bar is at least so many times as long as its labels are high.
_SHORTEST_BAR = 8


def facet_panels(
    chart: Any, field: str, columns: int, look: Look, title: str, size: float
) -> alt.FacetChart:
    """Facet a panel by a field, each panel with its own axes; ``title`` is a label expression."""
    if look.inside_labels:
        # Vega-Lite ignores `labels: false` for facets that wrap.
        header = alt.Header(title=None, labelExpr="''", labelFontSize=0, labelPadding=0)
    else:
        header = alt.Header(title=None, labelExpr=title, labelFontSize=size)
    facet = alt.Facet(f"{field}:O", header=header)
    data = alt.InlineData(values=[])  # `finish_chart` puts the records in
    grid = Grid(spec=chart, facet=facet, data=data, columns=columns)
    resolved: alt.FacetChart = grid.resolve_axis(x="independent", y="independent")
    return resolved


def frame_axis(
    channel: Any,
    frames: Sequence[int],
    title: str | list[str],
    *,
    upwards: bool = False,
    inner: float = 0,
    outer: float = 0,
    grid: bool = False,
    shown: str = "",
    extent: float | None = None,
) -> Any:
    """Give a channel an axis of frames: a band for each, ticks at some, frame 0 at the bottom.

    ``shown`` is the expression of the panels that have ticks, labels and title; all
    where empty. ``extent`` fixes the room of ticks and labels.
    """
    domain = list(frames)[::-1] if upwards else list(frames)
    ticks = [frames[position] for position in scales.frame_ticks(len(frames))]
    return (
        channel.title(None if shown == NOWHERE else title)
        .scale(domain=domain, paddingInner=inner, paddingOuter=outer)
        .axis(
            grid=grid,
            values=ticks,
            labelAngle=0,
            labelOverlap=False,
            zindex=0,
            **show_where(shown, "datum.label"),
            **fix_extent(extent),
        )
    )


def fix_extent(extent: float | None) -> dict[str, Any]:
    """Return the settings of an axis whose title stands at a fixed distance."""
    return {} if extent is None else {"minExtent": extent, "maxExtent": extent}


def show_where(shown: str, label: str) -> dict[str, Any]:
    """Return the settings of an axis that is there in some panels only."""
    if not shown:
        return {}
    if shown == NOWHERE:
        return {"labels": False, "ticks": False}
    return {
        "labelExpr": f"{shown}?{label}:''",
        "tickOpacity": {"expr": f"{shown}?1:0"},
        "titleOpacity": {"expr": f"{shown}?1:0"},
    }


def tile_axis(
    channel: Any,
    frames: Sequence[int],
    pool: int,
    title: str | list[str],
    shown: str = "",
    extent: float | None = None,
) -> Any:
    """Place a tile in the middle of an axis that counts frames from 0, whatever their numbers."""
    end = -(-len(frames) // pool) * pool
    ticks = scales.frame_ticks(len(frames))
    numbers = {str(tick): frames[tick] for tick in ticks}
    label = f"{json.dumps(numbers)}[datum.value]"
    return (
        channel(datum=(end - 1) / 2, type="quantitative")
        .scale(domain=[-0.5, end - 0.5], nice=False, zero=False)
        .axis(
            **{
                "title": None if shown == NOWHERE else title,
                "grid": False,
                "values": ticks,
                "labelAngle": 0,
                "zindex": 0,
                "labelOverlap": False,
                "labelExpr": label,
                **show_where(shown, label),
                **fix_extent(extent),
            }
        )
    )


def panel_frame(
    width: float, height: float, groupby: Sequence[str], look: Look, fill: str | None = None
) -> alt.Chart:
    """Return a frame around a panel, outside it: a view's own would lie under the cells."""
    out = shorten_float(look.frame_width / 2)
    body = {"filled": False} if fill is None else {"fill": fill}
    frame: alt.Chart = (
        alt.Chart(name=FRAME)
        .mark_rect(**body, stroke=INK, strokeWidth=look.frame_width, aria=False)
        .transform_aggregate(groupby=list(groupby))
        .encode(
            x=alt.XValue(-out),
            x2=alt.X2Value(width + out),
            y=alt.YValue(-out),
            y2=alt.Y2Value(height + out),
        )
    )
    return frame


def inside_label(
    texts: Sequence[str], field: str, x: float, y: float, baseline: str, size: float, look: Look
) -> list[alt.Chart]:
    """Return a panel's label at its right border: the text, over a halo of the paper's white."""
    base = (
        alt.Chart()
        .transform_aggregate(groupby=[field])
        .transform_calculate(label=f"{json.dumps(list(texts))}[datum.{field}]")
        .encode(text=alt.Text("label:N"), x=alt.XValue(x), y=alt.YValue(y))
    )
    text: dict[str, Any] = {
        "align": "right",
        "baseline": baseline,
        "fontSize": size,
        "fontWeight": "bold",
    }
    halo = shorten_float(2 / look.unit, 6)
    return [
        base.mark_text(
            **text, fill="white", stroke="white", strokeWidth=halo, aria=False
        ).properties(name=HALO),
        base.mark_text(**text, fill=INK, aria=False).properties(name=LABELS),
    ]


def color_channel(
    channel: Any,
    scale: scales.ColorScale,
    title: str,
    values: tuple[float, float],
    length: float,
    look: Look,
) -> Any:
    """Give a channel the colour scale, with a colour bar of a length that says where it saturates.

    ``values`` are the smallest and the largest value that are drawn.
    """
    domain, colors = zip(*scale.stops, strict=True)
    low, high = scale.range.low, scale.range.high
    length = min(max(length, _SHORTEST_BAR * look.bar_label), look.bar_length)
    count = max(1, min(_COLORBAR_TICKS, int(length / (2.2 * look.bar_label))))
    numbers = scales.value_ticks(low, high, count)
    ticks = [f"{tick:g}" for tick in numbers]
    legend = alt.Legend(
        title=fit_title(title, length, look.bar_title),
        orient="right",
        gradientLength=length,
        titleOrient="right",
        tickCount=count,
        labelExpr=short_label(ticks),
    )
    if isinstance(legend.title, list):  # the lines grow towards the labels
        legend.titlePadding = 5 + 1.2 * look.bar_title * (len(legend.title) - 1)
    below, above = scales.saturates(values, scale.range)
    ends = {
        **({low: "\u2264\u2009"} if below else {}),
        **({high: "\u2265\u2009"} if above else {}),
    }
    if ends:
        legend = _mark_ends(legend, ends, numbers, scale.range, short_label(ticks))
    return channel.scale(
        domain=list(domain), range=list(colors), interpolate="rgb", clamp=True, type="linear"
    ).legend(legend)


def _mark_ends(
    legend: alt.Legend,
    ends: Mapping[float, str],
    ticks: Sequence[float],
    color_range: ColorRange,
    text: Any,
) -> alt.Legend:
    """Let a colour bar say at its ends that values beyond them have the same colour."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else color_range.high - color_range.low
    kept = [tick for tick in ticks if all(abs(tick - end) > 0.6 * step for end in ends)]
    otherwise = "datum.label" if text is alt.Undefined else f"({text})"
    for end, sign in ends.items():
        shown = json.dumps(f"{sign}{end:.3g}".replace("-", "\u2212"), ensure_ascii=False)
        test = "datum.value<=" if end == color_range.low else "datum.value>="
        otherwise = f"{test}{end!r}?{shown}:{otherwise}"
    legend.values = sorted([*kept, *ends])
    legend.labelExpr = otherwise
    legend.labelOverlap = False  # an end must not give way
    return legend


def short_label(ticks: Collection[str]) -> Any:
    """Return the label expression that writes 2e-5 where plain decimals would be long."""
    if any("e" in tick or len(tick) > 7 for tick in ticks):
        return "datum.value ? format(datum.value, '~e') : '0'"
    return alt.Undefined


def finish_chart(
    chart: Drawn,
    records: Records | None,
    title: Sequence[str],
    caption: str,
    spacing: Mapping[str, float] | float,
    usermeta: Mapping[str, Any],
    look: Look,
    width: float | None = None,
) -> Drawn:
    """Add data, title, caption and look to a composed chart.

    ``records`` is None where the parts have data of their own. ``width`` is what the
    figure shall have in points; it goes with the look into ``usermeta``, where
    `headgrid.render.convert` finds it.
    """
    stored = {**usermeta, **store_look(look), "caption": caption}
    if width is not None:
        stored["width"] = width
    composed: Any = chart
    if title:
        text = alt.TitleParams(text=list(title), anchor="middle", offset=look.title_offset)
        composed = composed.properties(title=text)
    finished: Drawn = composed.properties(
        description=caption,
        usermeta={"headgrid": stored},
        spacing=spacing,
        # A grid has no size of its own in the layout of what stands over it.
        bounds="full" if isinstance(chart, Stack) else "flush",
    )
    return finished if records is None else fill(finished, records)


def fill(chart: Drawn, records: Records) -> Drawn:
    """Put data into a chart that is otherwise ready."""
    # Records that are there while altair builds the chart are validated and copied one by
    # one, again and again: ten times the time of all else.
    inline = alt.InlineData(values=[])
    inline.values = records
    chart.data = inline  # type: ignore[attr-defined]
    return chart


def describe_figure(
    figure: str, capture: Capture, color_range: ColorRange | None
) -> dict[str, Any]:
    """Return what the specification's ``usermeta`` says of the figure of one capture."""
    meta: dict[str, Any] = {
        "figure": figure,
        "statistic": capture.statistic,
        "layer": capture.layer_index,
        "run": shorten_text(capture.run),
        "prompt": shorten_text(capture.prompt),
    }
    return {**meta, **describe_range(color_range)}


def describe_range(color_range: ColorRange | None) -> dict[str, Any]:
    """Return what ``usermeta`` says of a colour range."""
    if color_range is None:
        return {}
    return {"color_range": [color_range.low, color_range.high], "color_rule": color_range.rule}
