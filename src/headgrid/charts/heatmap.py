"""One capture -> its two figures: altair charts facetted by head."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt

from headgrid.capture.model import Capture, expect_capture
from headgrid.charts import labels, scales
from headgrid.charts.axes import describe_figure, finish_chart
from headgrid.charts.look import fit_maps, fit_profiles
from headgrid.charts.panels import Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles, profile_gap
from headgrid.charts.spec import MAX_MARKS
from headgrid.charts.tiles import MAX_PIXELS, describe_tiles
from headgrid.errors import RenderError
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

#: Visible cells up to which ``cells="auto"`` draws vector shapes.
VECTOR_CELLS = 150_000


def heatmap(
    capture: Capture,
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw every head's query x key matrix as a grid of heatmaps on one colour scale.

    Parameters
    ----------
    capture : Capture
        With a full matrix.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`.

    Returns
    -------
    altair.FacetChart
        Facetted by head; displays by itself in a notebook, can be customised
        and saved with altair, or written with `headgrid.save`.

    Raises
    ------
    CaptureError
        Where the capture has no full matrix.
    OptionError
        Where an option has a value that it cannot have.
    RenderError
        Where cells are to be vector shapes and are more than can be drawn.

    Examples
    --------
    >>> import numpy as np
    >>> chart = heatmap(Capture.from_array(np.eye(3)[None]))
    >>> chart.to_dict()["facet"]["field"]
    'head'
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    return draw_heatmap(capture, options)


def perhead(
    capture: Capture,
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw every head's last-block row as bars with a line, the sink score over each.

    Parameters
    ----------
    capture : Capture
        With or without a full matrix.
    columns, title, theme, font, width
        See `FigureOptions`. The other options are accepted, as all charts share
        them, and change nothing here.

    Returns
    -------
    altair.FacetChart
        Facetted by head, with an independent value axis for each.

    Raises
    ------
    OptionError
        Where an option has a value that it cannot have.

    Examples
    --------
    >>> chart = perhead(Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]]))
    >>> chart.to_dict()["facet"]["header"]["labelExpr"]
    '["H0 (sink=3.50)"][datum.value]'
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    return draw_perhead(capture, options)


def draw_heatmap(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the heatmap grid with options that are built already."""
    expect_capture(capture)
    color_range = resolve_color_range(options.color_range, [capture])
    scale = scales.ColorScale(color_range, scales.palette_for(capture.statistic, options.palette))
    vectors = as_vectors(
        f"{capture.source}: the heatmap", [capture], capture.num_visible, options.cells
    )
    columns = min(options.columns, capture.num_heads)
    look = fit_maps(options, columns, len(capture.key_frames))
    names = [f"Head {head}" for head in range(capture.num_heads)]
    panels = Panels.of_capture(capture, "'Head ' + datum.value", options.columns, names)
    chart, records = draw_maps(panels, scale, look, vectors=vectors)
    how = "" if vectors else describe_tiles(capture)
    figure_width = columns * (map_size(capture, look)[0] + 60) + 60
    title = labels.heatmap_title(capture, options, figure_width)
    return finish_chart(
        chart,
        records,
        title if look.own_title or options.title is not None else [],
        labels.heatmap_caption(capture, color_range, how),
        {"row": look.map_row_gap, "column": look.map_column_gap},
        describe_figure("heatmap", capture, color_range),
        look,
        options.points,
    )


def draw_perhead(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the per-head grid with options that are built already."""
    expect_capture(capture)
    columns = min(options.columns, capture.num_heads)
    look = fit_profiles(options, columns)
    names = labels.sink_titles(capture)
    panels = Panels.of_capture(capture, f"{json.dumps(names)}[datum.value]", options.columns, names)
    chart, records = draw_profiles(panels, look)
    title = labels.perhead_title(capture, options, columns * (look.profile_width + 46) + 10)
    return finish_chart(
        chart,
        records,
        title if look.own_title or options.title is not None else [],
        labels.perhead_caption(capture),
        {"row": look.profile_row_gap, "column": profile_gap(panels, look)},
        describe_figure("perhead", capture, None),
        look,
        options.points,
    )


def as_vectors(
    figure: str, captures: Sequence[Capture], count: int, cells: CellsName, pixels: int = MAX_PIXELS
) -> bool:
    """Decide how ``count`` cells are drawn, before anything large is made of them.

    Raises
    ------
    RenderError
        Where they are to be vector shapes and are more than can be drawn.
    """
    if cells == "vector" and count > MAX_MARKS:
        raise RenderError(
            f"{figure} has {count:,} cells, expected at most {MAX_MARKS:,} as vector shapes, "
            "beyond which the renderer runs out of memory; draw them as images (cells='image', "
            "--cells image)"
        )
    longest = max(max(len(c.query_frames), len(c.key_frames)) for c in captures)
    return cells == "vector" or (cells == "auto" and count <= VECTOR_CELLS and longest <= pixels)
