"""Captures of masses -> what caches of key frames keep, as curves and as a map; what one drops."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid.capture.axis import FRAME, Axis
from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, Look, fit_maps, fit_profiles, show_where
from headgrid.charts.frames import FrameAxis, draw_path
from headgrid.charts.heatmap import draw_heatmap
from headgrid.charts.overview import draw_overview
from headgrid.charts.panels import CELLS, TILES, Panels, absent_marks, map_size
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.scales import value_ticks
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.errors import CaptureError
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.tables.budgets import (
    POLICIES,
    SHARES,
    budget_table,
    drop_table,
    rank_keys,
    smallest_budgets,
)
from headgrid.tables.tidy import round_values
from headgrid.text import count_noun, shorten_float, shorten_list

#: The first two colours of seaborn's "colorblind" palette; the most points of a curve.
_COLORS, _MOST = (BAR_COLOR, "#DE8F05"), 200
DROPPED = "headgrid_dropped"


def budget_curves(
    captures: Capture | Iterable[Capture],
    *,
    sink: int = 1,
    shares: Sequence[float] = SHARES,
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

    The ``captures`` are of one layer, those of several runs count together; they and ``sink`` as
    in `headgrid.budget_table`, whose errors are raised. Facetted by head: mean over blocks of
    query frames, one standard deviation to both sides, lines at the ``shares``, and in the titles
    the smallest caches of sinks and recent frames for these. The other options: see `FigureOptions`.

    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> [row["mean"] for row in budget_curves(capture).data.values]
    [0.5, 0.9, 1.0, 0.5, 0.9, 1.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    table = budget_table(listed, sink=sink, pooled=True)
    if len(layers := table["layer"].unique()) > 1:
        raise CaptureError(f"found layers {shorten_list(layers)}, expected captures of one layer")
    first, percents = listed[0], [f"{100 * share:g}\u00a0%" for share in shares]
    small = smallest_budgets(table[table["policy"] == POLICIES[0]], shares=shares)
    told = small.groupby("head")["frames"].agg(lambda sizes: ", ".join(map(str, sizes)))
    heads = tuple((first, head) for head in range(first.num_heads))
    names = [f"H{head} ({told.get(head, 'n/a')})" for _, head in heads]
    panels = Panels(heads, names, columns, "head")
    axis = Axis(FRAME, tuple(range(len(first.key_frames))))
    look = fit_profiles(options, min(columns, len(heads)), axis)
    chart = panels.facet(_draw_panel(panels, shares, look), look, look.profile_title)
    runs = f" of {len(listed)} Runs" if len(listed) > 1 else ""
    over = f"Mean over {count_noun(int(table['blocks'].max()), 'Block')}{runs}"
    own = [f"Layer {layers[0]}: Mass Kept by {_name_cache(sink, first)}", over]
    return finish_chart(
        chart,
        _records(table),
        look,
        title=write_title(options, look, own, listed, 70),
        caption=f"layer {layers[0]}: share of the visible mass that caches keep; {over.lower()}, "
        f"band: one standard deviation to both sides. {POLICIES[0]}: {_name_cache(sink, first)}; "
        f"{POLICIES[1]}: the {first.key_axis.nouns} of largest mass of each query. Lines: "
        f"{', '.join(percents)}; in parentheses the smallest caches of {POLICIES[0]} for these.",
        spacing={"row": look.profile_row_gap, "column": look.profile_column_gap},
        meta={"figure": "budget", "statistic": "mass", "layer": int(layers[0]), "sink": sink},
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

    Layers down, heads across, as in `headgrid.overview`, with its options; ``captures`` and
    ``sink`` as in `headgrid.budget_table`, whose errors are raised. Runs of a layer count together.

    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> budget_map(capture, 0.9).data.values[0]["cache_90"]
    2.0
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    table = budget_table(listed, sink=sink, pooled=True)
    small = smallest_budgets(table[table["policy"] == POLICIES[0]], shares=[share])
    found = small.pivot(index="layer", columns="head", values="frames").astype("float64")
    parts = [found.stack(future_stack=True), found.mean(axis=1).rename_axis("layer")]
    heads, means = (part.rename("mean").reset_index() for part in parts)
    table = pd.concat([heads.astype({"head": "Int64"}), means.assign(head=pd.NA)]).astype(
        {"head": "Int64"}
    )
    runs = Counter(capture.layer_index for capture in listed)
    chart = draw_overview(
        table.astype({"layer": "Int64"}).assign(set="", runs=table["layer"].map(runs), std=np.nan),
        f"cache_{100 * share:g}".replace(".", "_"),
        "mass",
        options,
        description=_name_cache(sink, listed[0]),
        key_name=listed[0].key_axis.name,
    )
    for layer in chart.spec.layer[3:]:  # the numbers, if they have room
        layer.encoding.text["format"] = ".1~f"
    return chart


def _name_cache(sink: int, capture: Capture) -> str:
    first = f"the First {sink} and " if sink else ""
    return f"{first}the Most Recent {capture.key_axis.plural}"


def _draw_panel(panels: Panels, shares: Sequence[float], look: Look) -> Any:
    axis, size = panels.first.key_axis, (look.profile_width, look.profile_height)
    last = len(axis.numbers)
    ticks = [1, *(tick for tick in value_ticks(1, last, 5) if tick > 1 and tick.is_integer())]
    shown = [show_where(panels.border(side, look), "datum.label") for side in ("bottom", "left")]
    x = alt.X("frames:Q", title=f"{axis.plural} Kept").axis(values=ticks, format="d", **shown[0])
    x = x.scale(domain=[1, max(last, 2)], nice=False, zero=False, padding=4)
    y = alt.Y("mean:Q", title="Mass Kept").axis(tickCount=5, **shown[1])
    y = y.scale(domain=[0, 1.04], nice=False)
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolOpacity=1)
    legend.symbolStrokeWidth, legend.offset = 2 * look.line_width, look.title_offset / 4
    color = alt.Color("policy:N", legend=legend).scale(domain=[*POLICIES], range=[*_COLORS])
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=size[0], height=size[1], view=ground)
    curves = base.transform_filter("isValid(datum.mean)").encode(x=x, y=y, color=color)
    ends = {"low": "max(0,datum.mean-datum.std)", "high": "min(1,datum.mean+datum.std)"}
    band = curves.mark_area(opacity=0.2, aria=False).transform_calculate(**ends)
    line = curves.mark_line(strokeWidth=1.5 * look.line_width, aria=False)
    pen: dict[str, Any] = {"color": "#888888", "strokeWidth": 0.5 * look.line_width, "aria": False}
    rules = [
        base.mark_rule(**pen).transform_aggregate(groupby=["head"]).encode(y=alt.datum(share))
        for share in shares
    ]
    inset = shorten_float(2 / look.unit, 6)
    corner = size[0] - inset, size[1] - inset, "bottom", look.profile_title
    return alt.layer(
        *rules,
        band.encode(y=alt.Y("low:Q", title="Mass Kept"), y2="high:Q"),
        line.encode(tooltip=["head:O", "policy:N", "frames:Q", "mean:Q", "std:Q", "least:Q"]),
        *panels.inside_labels(*corner, look),
        *absent_marks(panels, ["head"], size, look),
    )


def _records(table: pd.DataFrame) -> Records:
    """Return a record a point, of not too many; of a head without a value one that says so."""
    last = int(table["frames"].max())
    table = table[table["frames"].isin(np.linspace(1, last, min(last, _MOST)).round())]
    table = table.drop(columns=["run", "layer", "blocks"])
    for name in ("mean", "std", "least"):
        table[name] = round_values(table[name].to_numpy())
    rows = table[table["mean"].notna()].astype(object).to_dict("records")
    records = [{key: value for key, value in row.items() if value == value} for row in rows]
    absent = sorted({*table["head"]} - {row["head"] for row in records})
    return records + [{"head": head, "absent": True} for head in absent]


def draw_dropped(
    capture: Capture, cache: tuple[int, int], options: FigureOptions
) -> alt.FacetChart:
    """Draw the maps of a capture, pale where a cache of so many sinks and recent frames drops."""
    chart: Any = draw_heatmap(capture, options)
    look = fit_maps(options, min(options.columns, capture.num_heads), capture)
    width, height = map_size(capture, look)
    across = FrameAxis(capture.key_axis, width, look)
    upright = FrameAxis(capture.query_axis, height, look, upwards=True)
    paths: dict[str, list[int]] = {}
    for head in range(capture.num_heads):
        seen = ~np.isnan(capture.head_matrix(head))
        mask = seen & (rank_keys(seen, cache[0]) >= sum(cache))
        paths.setdefault(_outline(mask, across, upright), []).append(head)
    above = 1 + max(n for n, layer in enumerate(chart.spec.layer) if layer.name in (CELLS, TILES))
    for number, (path, heads) in enumerate(paths.items()):
        paint = {"fill": "white", "strokeWidth": 0, "opacity": 0.7}
        veil = draw_path(f"{DROPPED}_{number}", path, "head", paint)
        veil = veil.transform_filter(f"indexof({heads},datum.head)>=0")
        chart.spec.layer.insert(above, veil)
    shares = [f"{100 * share:.1f}\u00a0%" for share in drop_table(capture, cache)["dropped"]]
    told = f"Pale: dropped by a cache of {cache[0]} sink and {cache[1]} recent {capture.key_axis.nouns}"
    if not look.inside_labels and options.color_range != "head":
        names = [f"Head {head} (drops {share})" for head, share in enumerate(shares)]
        chart.facet["header"]["labelExpr"] = f"{json.dumps(names)}[datum.value]"
        chart.title.text.append(told)
    chart.description += f" {told}, {', '.join(shares)} of the mass of the heads."
    return chart


def _outline(mask: Any, across: FrameAxis, upright: FrameAxis) -> str:
    """Return the path around the pairs of a mask [query, key], in units of their panel."""
    rows = [np.flatnonzero(np.diff(row, prepend=False, append=False)).tolist() for row in mask]
    path, (keys, queries) = "", (across.frames, upright.frames)
    for ends, group in itertools.groupby(range(len(rows)), rows.__getitem__):
        first, *_, last = [*group] * 2
        top, bottom = upright.span(queries[first], queries[last] + 1)
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            left, right = across.span(keys[start], keys[end - 1] + 1)
            path += f"M{left:g} {top:g}H{right:g}V{bottom:g}H{left:g}Z"
    return path
