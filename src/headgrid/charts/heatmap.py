"""One capture -> its two figures: altair charts facetted by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import Look, fit_maps, fit_profiles
from headgrid.charts.panels import Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles, profile_gap, sink_texts
from headgrid.charts.scales import MAX_PIXELS, count_saturated, find_scale, pool_factor
from headgrid.charts.spec import MAX_MARKS, finish_chart, write_title
from headgrid.errors import RenderError
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.text import shorten_list, shorten_text

#: Visible cells up to which ``cells="auto"`` draws vector shapes.
VECTOR_CELLS = 150_000


def heatmap(
    capture: Capture,
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
    color_range: ColorChoice = "symmetric",
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
    scale = find_scale([capture], options)
    figure, visible = f"{capture.source}: the heatmap", capture.num_visible
    vectors = as_vectors(figure, capture, visible, options.cells)
    columns = min(options.columns, capture.num_heads)
    look = fit_maps(options, columns, len(capture.key_frames))
    names = [f"Head {head}" for head in range(capture.num_heads)]
    panels = Panels(_all_heads(capture), names, options.columns, "head", "'Head ' + datum.value")
    chart, records = draw_maps(panels, scale, look, vectors=vectors)
    queries, keys = (_span(frames) for frames in (capture.query_frames, capture.key_frames))
    own = f"Layer {capture.layer_index}: 2D Attention Maps (All Heads)"
    frames = f"Query Frames: {queries}, Key Frames: {keys}"
    width = columns * (map_size(capture, look)[0] + 60) + 60
    saturated = count_saturated(capture, scale.range)
    total = capture.num_heads * len(capture.query_frames) * len(capture.key_frames)
    return finish_chart(
        chart,
        records,
        look,
        title=_title(options, look, own, frames, capture, width),
        caption=_caption(
            capture,
            f"query x key frame. Color range {scale.text}; {saturated:,} of {visible:,} values "
            f"saturate; {total - visible:,} of {total:,} pairs are unseen.",
            "" if vectors else _describe_tiles(capture),
        ),
        spacing={"row": look.map_row_gap, "column": look.map_column_gap},
        meta={**_describe("heatmap", capture), **scale.meta},
        width=options.points,
    )


def draw_perhead(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the per-head grid with options that are built already."""
    expect_capture(capture)
    columns = min(options.columns, capture.num_heads)
    look = fit_profiles(options, columns)
    panels = Panels(_all_heads(capture), sink_titles(capture), options.columns, "head")
    chart, records = draw_profiles(panels, look)
    own = f"Layer {capture.layer_index}: Per-Head Attention Distribution"
    frames = f"frames [{shorten_list(capture.last_block_query_frames, 8)}]"
    unseen, pairs = int(np.isnan(capture.last_block_rows).sum()), capture.last_block_rows.size
    caption = (
        f"mean over query {frames} by key frame. A value axis for each head; sink = "
        "value at key frame 0 minus the mean over the middle keys; "
        f"{unseen:,} of {pairs:,} pairs are unseen."
    )
    width = columns * (look.profile_width + 46) + 10
    return finish_chart(
        chart,
        records,
        look,
        title=_title(options, look, own, f"Query: {frames}", capture, width),
        caption=_caption(capture, caption),
        spacing={"row": look.profile_row_gap, "column": profile_gap(panels, look)},
        meta=_describe("perhead", capture),
        width=options.points,
    )


def as_vectors(
    figure: str, first: Capture, count: int, cells: CellsName, pixels: int = MAX_PIXELS
) -> bool:
    """Decide how ``count`` cells are drawn, before anything large is made of them."""
    if cells == "vector" and count > MAX_MARKS:
        raise RenderError(
            f"{figure} has {count:,} cells, expected at most {MAX_MARKS:,} as vector shapes, "
            "beyond which the renderer runs out of memory; draw them as images (cells='image', "
            "--cells image)"
        )
    longest = max(len(first.query_frames), len(first.key_frames))
    return cells == "vector" or (cells == "auto" and count <= VECTOR_CELLS and longest <= pixels)


def _all_heads(capture: Capture) -> tuple[tuple[Capture, int], ...]:
    return tuple((capture, head) for head in range(capture.num_heads))


def sink_titles(capture: Capture) -> list[str]:
    """Return the panel titles of the per-head grid, such as ``H0 (sink=7.14)``."""
    return [f"H{head} (sink={score})" for head, score in enumerate(sink_texts(capture))]


def _title(
    options: FigureOptions, look: Look, own: str, frames: str, capture: Capture, width: float
) -> list[str]:
    """Return the title of a figure so many points wide, the frames in the last line."""
    # Bold Arial of 14 points: 8.1 points a column on average, measured on prose.
    lines = write_title(options, look, [own], [capture], max(24, int(width / 8.1)))
    return [*lines, frames] if lines else []


def _caption(capture: Capture, *sentences: str) -> str:
    statistic = STATISTICS[capture.statistic]
    meaning = f" ({statistic.meaning})" if statistic.meaning else ""
    run = f"{shorten_text(capture.run)}, " if capture.run else ""
    heads = f"{capture.num_heads} head{'' if capture.num_heads == 1 else 's'}"
    prompt = f"Prompt: {shorten_text(capture.prompt)}" if capture.prompt.strip() else ""
    told = " ".join(filter(None, (*sentences, prompt)))
    return f"{run}layer {capture.layer_index}: {statistic.title}{meaning}, {heads}, {told}"


def _describe(figure: str, capture: Capture) -> dict[str, Any]:
    """Return what ``usermeta`` says of the figure of one capture."""
    return {
        "figure": figure,
        "statistic": capture.statistic,
        "layer": capture.layer_index,
        "run": shorten_text(capture.run),
        "prompt": shorten_text(capture.prompt),
    }


def _describe_tiles(capture: Capture) -> str:
    """Return the sentence that says how cells became pixels."""
    rows, columns = pool_factor(len(capture.query_frames)), pool_factor(len(capture.key_frames))
    if rows == columns == 1:
        return "Each head is an image, one pixel a cell."
    return (
        f"Each head is an image; a pixel pools {rows} query x {columns} key frames and shows the "
        "value of largest magnitude."
    )


def _span(frames: Sequence[int]) -> str:
    return f"{frames[0]}-{frames[-1]}" if len(frames) > 1 else f"{frames[0]}"
