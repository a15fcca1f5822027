"""A table across layers and runs -> the trend: one measure over the layers."""

from __future__ import annotations

import json
import math
from typing import Any

import altair as alt
import pandas as pd

from headgrid.capture.form import expected_layers
from headgrid.charts.axes import INK, Look, find_look
from headgrid.charts.overview import expect_values, finish_summary, set_width, summarise
from headgrid.charts.panels import LINE
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.scales import frame_ticks
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.model import Survey
from headgrid.tables.measures import Summary
from headgrid.text import fit_title, shorten_float

#: Name of marks that the finishing stage shortens like those of the profiles.
FAINT = "headgrid_faint"
_OPACITY, _DOT, _MEAN_DOT = 0.45, 12, 14


def trend(
    survey: Survey,
    statistic: str = "sink",
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw one measure by layer: mean and spread over runs, heads as faint lines.

    Parameters
    ----------
    survey : Survey
        From `headgrid.survey`.
    statistic : str
        One of the measures of `headgrid.tables.measures.MEASURES`.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`.

    Returns
    -------
    altair.FacetChart
        The thick line is the mean over heads and runs, the band one standard deviation
        over runs (of the mean over heads) to both sides, each faint line one head's
        mean over runs. Sets stand side by side on one scale.

    Raises
    ------
    OptionError
        For an unknown measure or option.
    CaptureError
        Where no head has the measure.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> rows = [[[3.0, 1.0, 1.0, 0.0]], [[5.0, 1.0, 1.0, 0.0]]]
    >>> found = survey([Capture.from_array(last_block=r, layer=n) for n, r in enumerate(rows)])
    >>> trend(found).to_dict()["title"]["text"]
    ['Sink Score (logits) by Layer']
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    return draw_trend(summarise(survey, statistic), options)


def draw_trend(summary: Summary, options: FigureOptions) -> alt.FacetChart:
    """Draw the trend of a summary with options that are built already."""
    expect_values(summary)
    table = summary.table
    layers = sorted(int(layer) for layer in table["layer"].unique())
    panel = _trend_panel(summary, layers, options)
    band = "band: one standard deviation over runs of the mean over heads, to both sides"
    spread = band if table["std"].notna().any() else "no spread, as there is one run"
    return finish_summary(
        panel,
        summary._replace(table=_with_gaps(table)),
        options,
        {"figure": "trend"},
        by="Layer",
        layers=layers,
        what=" by layer",
        caption=f"Thick line: mean over heads and runs; {spread}; faint lines: each head's mean "
        "over runs.",
    )


def _with_gaps(summary: pd.DataFrame) -> pd.DataFrame:
    """Add rows without a value for layers that a set lacks, so that its lines break there."""
    parts, layers = [summary.astype({"runs": "Int64"})], expected_layers(summary["layer"])
    for _, of_set in parts[0].groupby("set", sort=False):
        first = of_set.drop_duplicates("head")
        unknown = pd.Series(pd.NA, first.index, dtype="Int64")
        blank = first.assign(mean=float("nan"), std=float("nan"), runs=unknown)
        parts += [blank.assign(layer=n) for n in layers if n not in set(of_set["layer"])]
    return pd.concat(parts).astype(parts[0].dtypes)


def _apart(summary: pd.DataFrame) -> list[int]:
    """Return the layers whose neighbors a set lacks, so that no line leads to them."""
    layers, sets = expected_layers(summary["layer"]), summary.groupby("set")["layer"].agg(set)
    step = layers[1] - layers[0] if len(layers) > 1 else 1
    return sorted({int(n) for own in sets for n in own if not own & {n - step, n + step}})


def _value_domain(summary: pd.DataFrame, *, signed: bool) -> tuple[float, float]:
    """Return the ends of the value axis: zero, and a little beyond what lies on its sides."""
    spread = summary["std"].where(summary["head"].isna()).fillna(0)
    low = min(0.0, float((summary["mean"] - spread if signed else summary["mean"]).min()))
    high = max(0.0, float((summary["mean"] + spread).max()))
    room = 0.04 * (high - low or 1.0)
    return shorten_float(low - room * (low < 0), 6), shorten_float(high + room * (high > 0), 6)


def _trend_panel(
    summary: Summary, layers: list[int], options: FigureOptions
) -> alt.LayerChart | alt.FacetChart:
    look, table, name = find_look(options), summary.table, summary.name
    domain = _value_domain(table, signed=summary.diverges)
    width = set_width(options, table["set"].nunique()) or (180 if look.border_axes else 480)
    height = min(width * 0.6, 270)
    apart = _apart(table)
    alone = len(apart) == len(layers)  # then there is no line to draw
    count = layers[-1] - layers[0] + 1
    ticks = list(range(count)) if count <= 12 else frame_ticks(count)
    x = (
        alt.X("layer:Q")
        .title("Layer")
        .scale(domain=[layers[0] - (count == 1), layers[-1] + (count == 1)], nice=False, padding=6)
        .axis(grid=False, values=[layers[0] + tick for tick in ticks], format="d")
    )
    title = fit_title(summary.title, height, look.axis_title)
    y = alt.Y(f"{name}:Q", title=title, scale=alt.Scale(domain=list(domain), nice=False))
    spread = ", \u00b1 1 standard deviation over runs" if table["std"].notna().any() else ""
    names = [f"mean over heads{spread}", "each head"]
    color = _key(names, look, width, dots=alone)
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=width, height=height, view=ground)
    tooltip = ["set:N", "layer:O", f"{name}:Q", "std:Q", "runs:Q"]
    grey: dict[str, Any] = {"opacity": _OPACITY, "aria": False}
    faint, of_head = [], "isValid(datum.head)"
    if not alone:
        thin = base.mark_line(**grey, strokeWidth=0.8 * look.line_width)
        faint.append(thin.transform_filter(of_head))
    if apart:
        dots = base.mark_point(**grey, size=_DOT)
        faint.append(dots.transform_filter(f"{of_head}&&indexof({apart},datum.layer)>=0"))
    shown: Any = {"color": color, "detail": "head:N", "tooltip": ["head:O", *tooltip]}
    faint = [mark.encode(x=x, y=y, **shown) for mark in faint]
    faint[0].name = FAINT
    means = base.transform_filter(f"!{of_head}").encode(x=x)
    low = f"max({domain[0]!r},datum.{name}-datum.std)"  # a mass has no band below zero
    band = means.mark_area(color=BAR_COLOR, opacity=0.25, aria=False)
    band = band.transform_calculate(low=low, high=f"datum.{name}+datum.std")
    band = band.encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    line = means.mark_line(strokeWidth=2 * look.line_width, aria=False)
    line = line.encode(y=y, color=color).properties(name=LINE)
    point: Any = {"filled": True, "color": BAR_COLOR, "opacity": 1}
    points = means.mark_point(**point, size=_MEAN_DOT * look.line_width)
    points = points.encode(y=y, tooltip=tooltip)
    zero = base.mark_rule(color=INK, strokeWidth=0.5 * look.line_width, aria=False)
    zero = zero.transform_aggregate(groupby=["panel"]).encode(y=alt.datum(0))
    inside = [zero] if domain[0] < 0 < domain[1] else []
    inside += [band] if spread else []
    told = f"{json.dumps(names)}[isValid(datum.head)?1:0]"
    return alt.layer(*faint, *inside, line, points).transform_calculate(line=told)


def _key(names: list[str], look: Look, width: float, *, dots: bool) -> alt.Color:
    """Return the colours of mean and heads, with a key over the panels, of lines or else dots."""
    length = 0.48 * look.bar_label * len("".join(names)) + 50
    legend = alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        offset=look.title_offset / 4,
        symbolType="circle" if dots else "stroke",
        symbolStrokeWidth=2 * look.line_width,
        symbolOpacity={"expr": f"datum.index?{_OPACITY}:1"},
    )
    if length > width:
        legend.columns = 1
    if dots:
        full = _MEAN_DOT * look.line_width  # drawn as a ring so thick that it has no hole
        legend.symbolSize = alt.ExprRef(f"datum.index?{_DOT}:{full / 4:g}")
        legend.symbolStrokeWidth = alt.ExprRef(f"datum.index?2:{(full / math.pi) ** 0.5:.4g}")
    scale = alt.Scale(domain=names, range=[BAR_COLOR, "#888888"])
    return alt.Color("line:N", scale=scale, legend=legend)
