"""One capture -> its two figures: altair charts facetted by head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import Look, fit_maps
from headgrid.charts.bands import tell_segments
from headgrid.charts.frames import tell_gaps, tell_pairs, tell_span
from headgrid.charts.grids import VALUE_AXES
from headgrid.charts.labels import tell_places
from headgrid.charts.panels import Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles, fit_grid, sink_texts
from headgrid.charts.scales import MAX_PIXELS, ColorScale, count_saturated, find_scale, pool_factor
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.errors import HeadgridWarning, OptionError, RenderError
from headgrid.options import (
    CellsName,
    ColorChoice,
    FigureOptions,
    FontName,
    Numbers,
    PaletteName,
    ThemeName,
    ValueAxisName,
)
from headgrid.tables.ranges import propose_log
from headgrid.text import count_noun, shorten_list, shorten_text

#: Visible cells up to which ``cells="auto"`` draws vector shapes.
VECTOR_CELLS = 150_000
#: Ten bytes each in the SVG, where every cell has another colour than its neighbors.
_MAX_CELLS = 10_000_000


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
    heads: Numbers | None = None,
    marks: str | Sequence[int | str] = (),
    sums: bool = False,
) -> alt.FacetChart:
    """Draw every head's query x key matrix as a grid of heatmaps on one colour scale.

    Parameters
    ----------
    capture : Capture
        With a full matrix.
    columns, palette, color_range, title, cells, theme, font, width, heads, marks, sums
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
    chart = draw_heatmap(capture, replace(options, heads=heads, marks=marks, sums=sums))
    if told := propose_log(capture, color_range):
        warnings.warn(told, HeadgridWarning, stacklevel=2)
    return chart


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
    value_axis: ValueAxisName | None = None,
    heads: Numbers | None = None,
    marks: str | Sequence[int | str] = (),
) -> alt.FacetChart:
    """Draw every head's last-block row as bars with a line, the sink score over each.

    Parameters
    ----------
    capture : Capture
        With or without a full matrix.
    columns, title, theme, font, width, value_axis, heads, marks
        See `FigureOptions`. The other options are accepted, as all charts share
        them, and change nothing here.

    Returns
    -------
    altair.FacetChart
        Facetted by head, with a value axis for each unless they share one.

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
    chosen = replace(options, value_axis=value_axis, heads=heads, marks=marks)
    return draw_perhead(capture, chosen)


def draw_heatmap(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the heatmap grid with options that are built already."""
    expect_capture(capture)
    capture.head_matrix(0)  # says what is missing
    names = [f"Head {head}" for head in range(capture.num_heads)]
    panels = _find_panels(capture, options, names, "'Head ' + datum.value")
    heads = [head for _, head in panels.heads]
    shown = [panels if options.heads else capture]
    scale = find_scale(shown, options, panels.heads, panels.field)
    visible = sum(map(capture.head_visible, heads))
    vectors = as_vectors(f"{capture.source}: the heatmap", capture, visible, options.cells)
    columns = min(options.columns, len(heads))
    if options.sums and not STATISTICS[capture.statistic].adds_up:
        raise OptionError(
            f"{capture.source}: sums of rows are asked for, and the values are "
            f"{capture.statistic}, expected mass; leave sums out (--sums)"
        )
    look = fit_maps(options, columns, capture, vectors=vectors)
    panels, ranges = _name_ranges(panels, scale, look) if scale.units else (panels, "")
    chart, records = draw_maps(panels, scale, look, vectors=vectors)
    own = f"Layer {capture.layer_index}: 2D Attention Maps ({_name_heads(options)})"
    frames = f"Query {tell_span(capture.query_axis)}, Key {tell_span(capture.key_axis)}"
    width = columns * (map_size(capture, look)[0] + 60) + 60
    saturated = 0 if scale.units else count_saturated(capture, scale.range, heads)
    total = len(heads) * len(capture.query_frames) * len(capture.key_frames)
    told = (
        f"{tell_pairs(capture)}. Color range {scale.text}; {saturated:,} of {visible:,} values "
        f"saturate; {total - visible:,} of {total:,} pairs are unseen.",
        tell_gaps(query=capture.query_axis, key=capture.key_axis),
        tell_segments(capture),
        "Numbers at the right: sums over the keys that are shown." if options.sums else "",
        ranges or (_count_zeros(capture, heads) if scale.is_log else ""),
        "" if vectors else _describe_tiles(capture),
    )
    meta = {"figure": "heatmap", **scale.meta}
    return _finish(chart, records, look, capture, options, (own, frames), width, told, meta)


def draw_perhead(capture: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the per-head grid with options that are built already."""
    expect_capture(capture)
    names = [f"H{head} (sink={score})" for head, score in enumerate(sink_texts(capture))]
    panels = _find_panels(capture, options, names)
    heads = [head for _, head in panels.heads]
    look = fit_grid(options, panels)
    room, scores = look.profile_width, ""
    room += 0 if look.inside_labels else look.profile_column_gap
    if 0.56 * look.profile_title * max(map(len, panels.names)) > room:
        scores = f"Panels: {', '.join(panels.names)}."
        panels = replace(panels, names=[f"H{head}" for head in heads])
    chart, records = draw_profiles(panels, look)
    which = "" if options.heads is None else f" ({_name_heads(options)})"
    own = f"Layer {capture.layer_index}: Per-Head Attention Distribution{which}"
    key, frames = capture.key_axis, tell_places(capture.query_axis, capture.last_block_query_frames)
    broken = tell_gaps(key=key)
    span = f", Key {tell_span(key)}" if broken else ""
    rows = capture.last_block_rows[heads]
    axis = VALUE_AXES["shared" if look.shared_values else "independent"]
    caption = (
        f"mean over query {frames} by key {key.noun}. {axis}; sink = value at key {key.noun} "
        f"{key.tell(0)} minus the mean over the middle keys; {int(np.isnan(rows).sum()):,} of "
        f"{rows.size:,} pairs are unseen."
    )
    title, told = (own, f"Query: {frames}{span}"), (caption, broken, scores, tell_segments(capture))
    width = min(options.columns, len(heads)) * (look.profile_width + 46) + 10
    meta = {"figure": "perhead"}
    return _finish(chart, records, look, capture, options, title, width, told, meta)


def as_vectors(
    figure: str, first: Capture, count: int, cells: CellsName, pixels: int = MAX_PIXELS
) -> bool:
    """Decide how ``count`` cells are drawn, before anything large is made of them."""
    if cells == "vector" and count > _MAX_CELLS:
        raise RenderError(
            f"{figure} has {count:,} cells as vector shapes, an SVG of up to {count / 1e5:,.0f} "
            f"MB, expected at most {_MAX_CELLS / 1e5:g} MB; draw them as images (cells='image', "
            "--cells image)"
        )
    longest = max(len(first.query_frames), len(first.key_frames))
    return cells == "vector" or (cells == "auto" and count <= VECTOR_CELLS and longest <= pixels)


def _find_panels(
    capture: Capture, options: FigureOptions, names: Sequence[str], label: str = ""
) -> Panels:
    """Return the panels of the heads that are asked for; of all, they are numbered like these."""
    heads: Any = range(capture.num_heads) if options.heads is None else options.heads
    for head in heads:
        if head >= capture.num_heads:
            raise OptionError(
                f"{capture.source}: there is no head {head} in layer {capture.layer_index}, "
                f"expected 0 to {capture.num_heads - 1}; choose other heads (heads=, --heads)"
            )
    shown, some = [names[head] for head in heads], [*heads] != [*range(capture.num_heads)]
    named = (shown, options.columns, "panel" if some else "head", "" if some else label)
    return Panels(
        tuple((capture, head) for head in heads), *named, marks=options.marks, sums=options.sums
    )


def _name_ranges(panels: Panels, scale: ColorScale, look: Look) -> tuple[Panels, str]:
    """Name each head's range in its title where it has room, or in a sentence of the caption."""
    room: float = map_size(panels.first, look)[0]
    room += 0 if look.inside_labels else look.map_column_gap
    for word in ("Head ", "H"):
        plain = [f"{word}{head}" for _, head in panels.heads]
        names = scale.names(plain, panels.absent)
        if 0.6 * look.map_title * max(map(len, names)) <= room:
            return replace(panels, names=names, label=""), ""
    return replace(panels, names=plain, label=""), f"Ranges: {', '.join(names)}."


def _name_heads(options: FigureOptions) -> str:
    heads: Any = options.heads
    if heads is None:
        return "All Heads"
    return f"Head{'' if len(heads) == 1 else 's'} {shorten_list(heads, 12)}"


def _finish(
    chart: alt.FacetChart,
    records: Records,
    look: Look,
    capture: Capture,
    options: FigureOptions,
    title: tuple[str, str],
    width: float,
    told: Sequence[str],
    meta: dict[str, Any],
) -> alt.FacetChart:
    """Finish a figure of one capture, so many points wide: ``title`` is its own and the frames."""
    # Bold Arial of 14 points: 8.1 points a column on average, measured on prose.
    lines = write_title(options, look, title[:1], [capture], max(24, int(width / 8.1)))
    statistic = STATISTICS[capture.statistic]
    meaning = f" ({statistic.meaning})" if statistic.meaning else ""
    run, prompt = shorten_text(capture.run), shorten_text(capture.prompt)
    heads = count_noun(capture.num_heads, "head")
    if options.heads is not None:
        heads = f"{_name_heads(options).lower()} of {capture.num_heads}"
    sentences = " ".join(filter(None, (*told, prompt and f"Prompt: {prompt}")))
    own = {"statistic": capture.statistic, "layer": capture.layer_index}
    return finish_chart(
        chart,
        records,
        look,
        title=[*lines, title[1]] if lines else [],
        caption=f"{run}{run and ', '}layer {capture.layer_index}: {statistic.title}{meaning}, "
        f"{heads}, {sentences}",
        meta={**own, "run": run, "prompt": prompt, **meta},
    )


def _count_zeros(capture: Capture, heads: Sequence[int]) -> str:
    zeros = sum(int(np.count_nonzero(capture.head_matrix(head) == 0)) for head in heads)
    verb = "has" if zeros == 1 else "have"
    return f"{count_noun(zeros, 'value')} of 0 {verb} the color of the lowest." if zeros else ""


def _describe_tiles(capture: Capture) -> str:
    rows, columns = pool_factor(len(capture.query_frames)), pool_factor(len(capture.key_frames))
    if rows == columns == 1:
        return "Each head is an image, one pixel a cell."
    nouns = capture.key_axis.nouns
    return (
        f"Each head is an image; a pixel pools {rows} query x {columns} key {nouns} and shows the "
        "value of largest magnitude."
    )
