"""Captures of masses -> what caches of key frames keep, as curves and as a map; what one drops."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid.capture.axis import FRAME, Axis
from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, Look, find_look, fit_profiles, show_where
from headgrid.charts.frames import FrameAxis, draw_path
from headgrid.charts.heatmap import draw_heatmap
from headgrid.charts.overview import draw_overview
from headgrid.charts.panels import CELLS, POINTS, TILES, Panels, absent_marks
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.scales import value_ticks
from headgrid.charts.spec import finish_chart, write_title
from headgrid.errors import CaptureError
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.tables import budgets
from headgrid.tables.budgets import POLICIES, SHARES
from headgrid.text import count_noun, shorten_float, shorten_list, shorten_text

#: The first two colours of seaborn's "colorblind" palette; the most points, and dots, of a curve.
_COLORS, _MOST, _DOTS = (BAR_COLOR, "#DE8F05"), 200, 36


def budget_curves(
    captures: Capture | Iterable[Capture],
    *,
    sink: int = 1,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw the share of each head's mass that caches keep, by the number of key frames in them.

    Facetted by head: mean over blocks of query frames, one standard deviation to both sides, lines
    at 90, 95 and 99 %, and in the titles the smallest caches of sinks and recent frames for these.
    ``captures`` are of one layer, and their runs count together; they and ``sink`` as in
    `headgrid.budget_table`, whose errors are raised. The other options: see `FigureOptions`.

    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> [row["mean"] for row in budget_curves(capture).data.values]
    [0.5, 0.9, 1.0, 0.5, 0.9, 1.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    table = budgets.budget_table(listed, sink=sink, pooled=True)
    if len(layers := table["layer"].unique().tolist()) > 1:
        raise CaptureError(f"found layers {shorten_list(layers)}, expected captures of one layer")
    first, small = listed[0], budgets.smallest_budgets(table[table["policy"] == POLICIES[0]])
    sizes = small.groupby("head")["frames"].agg(lambda found: ", ".join(map(str, found)))
    heads, last = range(first.num_heads), len(first.key_frames)
    names = [f"H{head} ({sizes.get(head, 'n/a')})" for head in heads]
    panels = Panels(tuple((first, head) for head in heads), names, columns, "head")
    look = fit_profiles(options, min(columns, len(heads)), Axis(FRAME, tuple(range(last))))
    chart = panels.facet(_draw_panel(panels, look), look, look.profile_title)
    shown = table["frames"].isin({*range(1, last, -(-last // _MOST)), last})
    records = table[shown].drop(columns=["run", "layer", "blocks"])
    runs = f" of {len(listed)} Runs" if len(listed) > 1 else ""
    run = f"{shorten_text(first.run)}, " if first.run and not runs else ""
    over = f"Mean over {count_noun(int(table['blocks'].max()), 'Block')}{runs}"
    own = [f"Layer {layers[0]}: Mass Kept by Caches with {count_noun(sink, 'Sink')}"]
    own += [f"{over}; in Parentheses the Smallest for 90, 95, 99 %"]
    return finish_chart(
        chart,
        json.loads(records.to_json(orient="records", double_precision=4)),
        look,
        title=write_title(options, look, own, listed, 70),
        caption=f"{run}layer {layers[0]}: share of the visible mass that caches keep, "
        f"{over.lower()}, band: one standard deviation to both sides. sink+recent: the first "
        f"{sink} and the most recent {first.key_axis.nouns}; best: those of largest mass of each "
        "query. Lines: 90, 95, 99 %; in parentheses the smallest of sink+recent for these.",
        spacing={"row": look.profile_row_gap, "column": look.profile_column_gap},
        meta={"figure": "budget", "statistic": "mass", "layer": layers[0], "sink": sink},
        width=options.points,
    )


def budget_map(
    captures: Capture | Iterable[Capture],
    share: float = 0.95,
    *,
    sink: int = 1,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw the smallest cache of sinks and recent frames that keeps a share of a head's mass.

    Layers down, heads across, as in `headgrid.overview`, with its options. Runs of a layer count
    together; ``captures`` and ``sink`` as in `headgrid.budget_table`, whose errors are raised.

    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> budget_map(capture, 0.9).data.values[0]["cache_90"]
    2.0
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    table = budgets.budget_table(listed, sink=sink, pooled=True)
    heads = budgets.smallest_budgets(table[table["policy"] == POLICIES[0]], shares=[share])
    heads = heads[["layer", "head", "frames"]].rename(columns={"frames": "mean"})
    means = heads.groupby("layer", as_index=False)["mean"].mean()
    rows = pd.concat([heads, means]).astype({"layer": "Int64", "head": "Int64", "mean": "float64"})
    runs = rows["layer"].map(Counter(capture.layer_index for capture in listed))
    chart = draw_overview(
        rows.assign(set="", runs=runs, std=np.nan),
        f"cache_{100 * share:g}".replace(".", "_"),
        "mass",
        options,
        description=f"of the first {sink} and the most recent {listed[0].key_axis.nouns}",
        key_name=listed[0].key_axis.name,
    )
    numbers: Any = chart.spec.layer[-1]
    if numbers.mark.type == "text":  # whole ones without decimals
        numbers.encoding.text["format"] = ".1~f"
    return chart


def _draw_panel(panels: Panels, look: Look) -> Any:
    axis, size = panels.first.key_axis, (look.profile_width, look.profile_height)
    last = len(axis.numbers)
    ticks = [1, *(tick for tick in value_ticks(1, last, 5) if tick > 1 and tick.is_integer())]
    shown = [show_where(panels.border(side, look), "datum.label") for side in ("bottom", "left")]
    x = alt.X("frames:Q", title=f"{axis.plural} Kept").axis(values=ticks, format="d", **shown[0])
    x = x.scale(domain=[1, max(last, 2)], nice=False, zero=False, padding=4)
    y = alt.Y("mean:Q", title="Mass Kept").axis(tickCount=5, **shown[1])
    y = y.scale(domain=[0, 1.04], nice=False)
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolOpacity=1)
    legend.symbolStrokeWidth, legend.offset = 2 * look.line_width, look.title_offset / 3
    color = alt.Color("policy:N", legend=legend).scale(domain=[*POLICIES], range=[*_COLORS])
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=size[0], height=size[1], view=ground)
    curves = base.transform_filter("!datum.absent").encode(x=x, y=y, color=color)
    ends = {"low": "max(0,datum.mean-datum.std)", "high": "min(1,datum.mean+datum.std)"}
    band = curves.mark_area(opacity=0.2, aria=False).transform_calculate(**ends)
    told = ["head:O", "policy:N", "frames:Q", "mean:Q", "std:Q", "least:Q"]
    dots = [
        curves.transform_filter(f"datum.policy=='{policy}'")
        .mark_point(filled=True, size=2 * look.point_size, opacity=1, aria=False)
        .encode(tooltip=told)
        .properties(name=f"{'ab'[number]}_{POINTS}")
        for number, policy in enumerate(POLICIES if last <= _DOTS else ())
    ]
    pen: dict[str, Any] = {"color": "#888888", "strokeWidth": 0.5 * look.line_width, "aria": False}
    rules = [
        base.mark_rule(**pen).transform_aggregate(groupby=["head"]).encode(y=alt.datum(share))
        for share in SHARES
    ]
    inset = shorten_float(2 / look.unit, 6)
    corner = size[0] - inset, size[1] - 2 * inset, "bottom", look.profile_title
    return alt.layer(
        *rules,
        band.encode(y=alt.Y("low:Q", title="Mass Kept"), y2="high:Q"),
        curves.mark_line(strokeWidth=1.5 * look.line_width, aria=False),
        *dots,
        *panels.inside_labels(*corner, look),
        *absent_marks(panels, ["head"], size, look),
    ).transform_calculate(absent="!isValid(datum.mean)")


def draw_dropped(capture: Capture, cache: tuple[int, int], options: FigureOptions) -> Any:
    """Draw the maps of a capture, pale where a cache of so many sinks and recent frames drops."""
    dropped = 100 * budgets.drop_table(capture, cache)["dropped"]
    shares = ["n/a" if share != share else f"{share:.1f}\u00a0%" for share in dropped]
    chart: Any = draw_heatmap(capture, options)
    panel, look = chart.spec, find_look(options)
    across = FrameAxis(capture.key_axis, panel.width, look)
    upright = FrameAxis(capture.query_axis, panel.height, look, upwards=True)
    paths: dict[str, list[int]] = {}
    for head in range(capture.num_heads):
        seen = ~np.isnan(capture.head_matrix(head))
        mask = seen & (budgets.rank_keys(seen, cache[0]) >= sum(cache))
        paths.setdefault(_outline(mask, across, upright), []).append(head)
    above = 1 + max(n for n, layer in enumerate(panel.layer) if layer.name in (CELLS, TILES))
    paths.pop("", None)
    for number, (path, heads) in enumerate(paths.items()):
        paint = {"fill": "white", "strokeWidth": 0, "opacity": 0.7}
        veil = draw_path(f"headgrid_dropped_{number}", path, "head", paint)
        panel.layer.insert(above, veil.transform_filter(f"indexof({heads},datum.head)>=0"))
    told = f"Pale: dropped by {cache[0]} sink + {cache[1]} recent {capture.key_axis.nouns}"
    if not look.inside_labels and options.color_range != "head":
        names = [f"Head {head} (drops {share})" for head, share in enumerate(shares)]
        chart.facet["header"]["labelExpr"] = f"{json.dumps(names)}[datum.value]"
        chart.title.text.append(told)
    chart.description += f" {told}, {', '.join(shares)} of the mass of each head."
    return chart


def _outline(mask: Any, across: FrameAxis, upright: FrameAxis) -> str:
    """Return the path around the pairs of a mask [query, key], in units of their panel."""
    rows = [np.flatnonzero(np.diff(row, prepend=False, append=False)).tolist() for row in mask]
    path, keys, queries = "", across.frames, upright.frames
    for ends, group in itertools.groupby(range(len(rows)), rows.__getitem__):
        first, *_, last = [*group] * 2
        top, bottom = upright.span(queries[first], queries[last] + 1)
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            left, right = across.span(keys[start], keys[end - 1] + 1)
            path += f"M{left:g} {top:g}H{right:g}V{bottom:g}H{left:g}Z"
    return path
