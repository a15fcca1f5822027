"""Captures of masses -> what caches of key frames keep, as curves and as a map; what one drops."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid.capture.axis import FRAME, Axis
from headgrid.capture.model import Capture, expect_capture
from headgrid.charts.axes import INK, Look, find_look, fit_profiles, role_channel, show_where
from headgrid.charts.frames import FrameAxis, draw_path
from headgrid.charts.heatmap import draw_heatmap
from headgrid.charts.overview import draw_overview
from headgrid.charts.panels import CELLS, ENDS, LINE, TILES, Panels
from headgrid.charts.spec import finish_chart, write_title
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.tables.budgets import POLICIES, budget_table, drop_table, rank_keys, smallest_budgets
from headgrid.tables.measures import Summary
from headgrid.text import count_noun, shorten_float, shorten_text

_MOST = 200  # points of a curve


def budget_curves(
    capture: Capture,
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

    Facetted by head: mean over blocks of query frames, one standard deviation to both sides, and in
    the titles the smallest caches of sinks and recent frames for 90, 95 and 99 %. ``capture`` and
    ``sink`` as in `headgrid.budget_table`, whose errors are raised; the others: `FigureOptions`.

    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> [row["mean"] for row in budget_curves(capture).data.values]
    [0.5, 0.9, 1.0, 0.5, 0.9, 1.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    expect_capture(capture)
    table = budget_table(capture, sink=sink)
    small = smallest_budgets(table[table["policy"] == POLICIES[0]])
    sizes = small.groupby("head")["frames"].agg(lambda found: ", ".join(map(str, found)))
    heads, last = range(capture.num_heads), len(capture.key_frames)
    names = [f"H{head} ({sizes.get(head, 'n/a')})" for head in heads]
    panels = Panels(tuple((capture, head) for head in heads), names, columns, "head")
    look = fit_profiles(options, min(columns, len(heads)), Axis(FRAME, tuple(range(last))))
    shown = table["frames"].isin({*range(1, last, -(-last // _MOST)), last})
    records = table[shown].drop(columns=["run", "layer", "blocks"])
    layer, blocks = capture.layer_index, count_noun(int(table["blocks"].max()), "Block")
    own = [f"Layer {layer}: Mass Kept by Caches with {count_noun(sink, 'Sink')}"]
    own += [f"Mean over {blocks}; in Parentheses the Smallest for 90, 95, 99 %"]
    gaps = look.profile_row_gap, look.profile_column_gap
    return finish_chart(
        panels.facet(_draw_panel(panels, look), look, look.profile_title, gaps),
        json.loads(records.to_json(orient="records", double_precision=4)),
        look,
        title=write_title(options, look, own, [capture], 70),
        caption=f"{shorten_text(capture.run)}{', ' if capture.run else ''}layer {layer}: share of "
        f"the visible mass that caches keep, mean over {blocks.lower()} and one standard deviation."
        f" sink+recent: the first {sink} and the most recent {capture.key_axis.nouns}; best: those "
        "of largest mass. In parentheses the smallest of sink+recent for 90, 95 and 99 %.",
        meta={"figure": "budget", "statistic": "mass", "layer": layer, "sink": sink},
    )


def _draw_panel(panels: Panels, look: Look) -> Any:
    axis, size = panels.first.key_axis, (look.profile_width, look.profile_height)
    bottom, left = (show_where(panels.border(s, look), "datum.label") for s in ("bottom", "left"))
    x = alt.X("frames:Q", title=f"{axis.plural} Kept").axis(tickCount=5, tickMinStep=1, **bottom)
    x = x.scale(domain=[0, len(axis.numbers)], padding=4)
    y = alt.Y("mean:Q", title="Mass Kept").axis(tickCount=5, **left).scale(domain=[0, 1.1])
    color = role_channel(alt.Color("policy:N"), POLICIES, look, symbolOpacity=1)
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=size[0], height=size[1], view=ground)
    curves = base.transform_filter("!datum.absent").encode(x=x, y=y, color=color)
    ends = {"low": "max(0,datum.mean-datum.std)", "high": "min(1,datum.mean+datum.std)"}
    band = curves.mark_area(opacity=0.2, aria=False).transform_calculate(**ends)
    told = ["head:O", "policy:N", "frames:Q", "mean:Q", "std:Q", "least:Q"]
    points = curves.mark_point(opacity=0, aria=False).properties(name=ENDS)
    lift = shorten_float(2 / look.unit, 6)  # over the line at zero
    return alt.layer(
        band.encode(y=alt.Y("low:Q", title="Mass Kept"), y2="high:Q"),
        curves.mark_line(strokeWidth=1.5 * look.line_width, aria=False).properties(name=LINE),
        points.encode(tooltip=told),  # in a page; no drawing has them
        *panels.words(size, "bottom", look.profile_title, look, lift=lift),
    ).transform_calculate(absent="!isValid(datum.mean)")


def draw_smallest(small: pd.DataFrame, sink: int, key_name: str, options: FigureOptions) -> Any:
    """Draw the smallest caches of sinks and recent frames for a share as layers x heads."""
    heads = small[small["policy"] == POLICIES[0]].astype({"layer": "Int64", "head": "Int64"})
    heads["set"] = heads["run"].str.rpartition("/")[0]
    together = heads.groupby(["set", "run", "layer"], as_index=False)["frames"].mean()
    runs = pd.concat([heads, together]).groupby(["set", "layer", "head"], dropna=False)["frames"]
    rows = runs.agg(runs="count", mean="mean", std="std").reset_index()
    told = f"{count_noun(sink, 'sink')} and the most recent {Axis(key_name, ()).nouns}"
    summary = Summary(rows, f"cache_{100 * small['share'].max():g}", "mass", key_name, told)
    # The range that is asked for is of masses.
    chart = draw_overview(summary, replace(options, color_range="symmetric"))
    numbers: Any = chart.spec.layer[-1]
    if numbers.mark.type == "text":  # whole ones without decimals
        numbers.encoding.text["format"] = ".1~f"
    return chart


def draw_dropped(capture: Capture, cache: tuple[int, int], options: FigureOptions) -> Any:
    """Draw the maps of a capture, pale where a cache of so many sinks and recent frames drops."""
    dropped, look = drop_table(capture, cache)["dropped"], find_look(options)
    names = [f"Head {head} (drops {share:.1%})" for head, share in enumerate(dropped)]
    names = [name.replace("nan%", "n/a") for name in names]
    told = f"Pale Is Dropped by sink:{cache[0]},recent:{cache[1]}"
    if look.own_title and options.title is None:
        options = replace(options, title=f"Layer {{layer}}: {told}")
    chart: Any = draw_heatmap(capture, options)
    panel, paths = chart.spec, []
    across = FrameAxis(capture.key_axis, panel.width, look)
    upright = FrameAxis(capture.query_axis, panel.height, look, upwards=True)
    for head in range(capture.num_heads):
        seen = ~np.isnan(capture.head_matrix(head))
        mask = seen & (rank_keys(seen, cache[0]) >= sum(cache))
        paths.append(_outline(mask, across, upright))
    shape: Any = {"expr": "datum.path"}
    paint = {"fill": "white", "strokeWidth": 0, "opacity": 0.7}
    veil = draw_path("headgrid_dropped", shape, "head", paint)
    veil = veil.transform_calculate(path=f"{json.dumps(paths)}[datum.head]")
    above = 1 + max(n for n, layer in enumerate(panel.layer) if layer.name in (CELLS, TILES))
    panel.layer.insert(above, veil.transform_filter("datum.path"))
    if not look.inside_labels and options.color_range != "head":
        chart.facet["header"]["labelExpr"] = f"{json.dumps(names)}[datum.value]"
    chart.description += f" {told}: {', '.join(names)}."
    return chart


def _outline(mask: Any, across: FrameAxis, upright: FrameAxis) -> str:
    """Return the path around the pairs of a mask [query, key], in units of their panel."""
    path = ""
    queries, keys = upright.axis.numbers, across.axis.numbers
    for query, row in zip(queries, mask, strict=True):
        top, bottom = upright.span(query, query + 1)
        ends = np.flatnonzero(np.diff(row, prepend=False, append=False))
        for start, end in ends.reshape(-1, 2):
            left, right = across.span(keys[start], keys[end - 1] + 1)
            path += f"M{left:g} {top:g}H{right:g}V{bottom:g}H{left:g}Z"
    return path
