"""A table across layers and runs -> the trend: one measure over the layers."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from headgrid.charts.axes import INK, Look, find_look
from headgrid.charts.overview import expect_values, finish_summary, set_width, summarise
from headgrid.charts.panels import LINE
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.scales import frame_ticks
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.model import Survey
from headgrid.tables.measures import measure_title

#: Name of marks that the finishing stage shortens like those of the profiles.
FAINT = "headgrid_faint"


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
    values = summarise(survey, statistic), statistic, survey.statistic, options
    return draw_trend(*values, description=survey.description)


def draw_trend(
    summary: pd.DataFrame,
    name: str,
    statistic: str,
    options: FigureOptions,
    *,
    description: str = "",
) -> alt.FacetChart:
    """Draw the trend of a summary; see `draw_overview` for the parameters."""
    expect_values(summary, name, statistic)
    layers = sorted(int(layer) for layer in summary["layer"].unique())
    look, width = find_look(options), set_width(options, summary)
    panel = _trend_panel(name, measure_title(name, statistic), layers, look, width)
    band = "band: one standard deviation over runs of the mean over heads, to both sides"
    spread = band if summary["std"].notna().any() else "no spread, as there is one run"
    return finish_summary(
        panel,
        summary,
        options,
        {"figure": "trend", "measure": name, "statistic": statistic},
        by="Layer",
        layers=layers,
        caption=f" by layer{', ' + description if description else ''}. Thick line: mean over "
        f"heads and runs; {spread}; faint lines: each head's mean over runs.",
    )


def _trend_panel(
    name: str, title: str, layers: list[int], look: Look, wanted: float | None
) -> alt.LayerChart | alt.FacetChart:
    width = wanted or (180 if look.border_axes else 480)
    height = min(width * 0.6, 270)
    alone = len(layers) == 1  # then there is no line to draw
    count = layers[-1] - layers[0] + 1
    ticks = list(range(count)) if count <= 12 else frame_ticks(count)
    x = (
        alt.X("layer:Q")
        .title("Layer")
        .scale(domain=[layers[0] - alone, layers[-1] + alone], nice=False, padding=6)
        .axis(grid=False, values=[layers[0] + tick for tick in ticks])
    )
    y = alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=False, padding=6))
    of_layer = "!isValid(datum.head)"
    ground = alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width)
    base = alt.Chart(width=width, height=height, view=ground)
    tooltip = ["set:N", "layer:O", f"{name}:Q", "std:Q", "runs:Q"]
    grey: dict[str, Any] = {"color": "#888888", "opacity": 0.45, "aria": False}
    thin = 0.8 * look.line_width
    faint = (
        (base.mark_point(**grey, size=12) if alone else base.mark_line(**grey, strokeWidth=thin))
        .transform_filter("isValid(datum.head)")
        .encode(x=x, y=y, detail="head:N", tooltip=["head:O", *tooltip])
        .properties(name=FAINT)
    )
    band = (
        base.mark_area(color=BAR_COLOR, opacity=0.25, aria=False)
        .transform_filter(f"{of_layer}&&isValid(datum.std)")
        .transform_calculate(low=f"datum.{name}-datum.std", high=f"datum.{name}+datum.std")
        .encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q")
    )
    line = (
        base.mark_line(color=BAR_COLOR, strokeWidth=2 * look.line_width, aria=False)
        .transform_filter(of_layer)
        .encode(x=x, y=y)
        .properties(name=LINE)
    )
    points = (
        base.mark_point(filled=True, color=BAR_COLOR, opacity=1, size=14 * look.line_width)
        .transform_filter(of_layer)
        .encode(x=x, y=y, tooltip=tooltip)
    )
    zero = (
        base.mark_rule(color=INK, strokeWidth=0.5 * look.line_width, aria=False)
        .transform_aggregate(groupby=["panel"])
        .encode(y=alt.datum(0))
    )
    return alt.layer(faint, zero, band, line, points)
