"""Two captures -> one chart: A and B on one colour scale, B - A on its own, head by head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.schema import Array
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import Look, color_channel, fit_maps, unseen_key
from headgrid.charts.frames import tell_pairs
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.panels import (
    CELLS,
    Panels,
    map_marks,
    map_size,
    pair_records,
    scale_mark,
    tile_records,
)
from headgrid.charts.scales import ColorScale, find_scale
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.tables.changes import expect_comparable
from headgrid.text import shorten_text

_PARTS = ("A", "B", "B \u2212 A")


def compare(
    a: Capture,
    b: Capture,
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
    """Draw two captures on one scale, and their difference B - A on its own.

    Parameters
    ----------
    a, b : Capture
        With the same statistic, heads and frames, and a full matrix each.
    columns, palette, color_range, title, cells, theme, font, width
        See `headgrid.FigureOptions`. ``columns`` counts maps of full size: for four of
        them there are two heads in a row, three smaller maps each.

    Returns
    -------
    altair.FacetChart
        For each head A, B and B - A side by side. A rule for the color range is applied
        to A and B together; that of the difference is symmetric around zero.

    Raises
    ------
    CaptureError
        Where the two do not go together, or have no full matrix.
    OptionError
        For an unknown option.

    Examples
    --------
    >>> a, b = (Capture.from_array([[[1.0, 2.0], [3.0, v]]]) for v in (4.0, 9.0))
    >>> compare(a, b).to_dict()["usermeta"]["headgrid"]["difference_range"]
    [-5.0, 5.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    return draw_comparison(a, b, options)


def draw_comparison(a: Capture, b: Capture, options: FigureOptions) -> alt.FacetChart:
    """Draw the comparison with options that are built already."""
    for capture in (a, b):
        expect_capture(capture)
        capture.head_matrix(0)  # says what is missing
    expect_comparable(a, b)
    change = _Change(a, b)
    rule: ColorChoice = "quantile" if options.color_range == "quantile" else "symmetric"
    scales = [find_scale([a, b], options), find_scale([change], replace(options, color_range=rule))]
    shown = copy(change)
    vars(shown)["statistic"] = a.statistic  # the table of all panels has one column of values
    panels = _find_panels((a, b, shown), options)
    cells = a.num_visible + b.num_visible + change.num_visible
    vectors = as_vectors(f"{a.source}: the comparison", a, cells, options.cells)
    look = fit_maps(options, panels.columns, a, vectors=vectors, share=0.5)
    below = _beside(panels, look) < 9 * look.bar_title  # what the title of a bar needs
    if below and options.points is not None:
        wider = options.points + (look.bar_offset + look.bar_thickness + look.bar_room) * look.unit
        wide = replace(options, width=wider)
        look = fit_maps(wide, panels.columns, a, vectors=vectors, share=0.5)
        look = replace(look, width=options.points)
    if options.title is not None or not look.own_title:
        panels = _name_runs(panels, a, b, look)  # which the figure's own title would tell
    chart, records = _draw(panels, change, scales, look, vectors, below=below)
    layers = dict.fromkeys((a.layer_index, b.layer_index))
    which = f"Layer{'s' * (len(layers) > 1)} {' and '.join(map(str, layers))}"
    own = f"{which}: Comparison of 2D Attention Maps", f"A: {_name(a)}. B: {_name(b)}"
    meta = {"figure": "comparison", "statistic": a.statistic, "a": _name(a), "b": _name(b)}
    of_change = {"difference_range": scales[1].meta["color_range"], "difference_rule": rule}
    return finish_chart(
        chart,
        records,
        look,
        title=write_title(options, look, own, [a, b], 100),
        caption=f"{STATISTICS[a.statistic].title} of A ({_name(a)}) and B ({_name(b)}) and their "
        f"difference B \u2212 A, {tell_pairs(a)}, head by head. Color range of A and B "
        f"{scales[0].text}, of the difference {scales[1].text}. {change.num_visible:,} pairs are "
        "seen in both.",
        meta={**meta, **scales[0].meta, **of_change},
    )


class _Change(Capture):
    """B - A, each head's matrix made as it is read: a large one is never held whole."""

    def __init__(self, a: Capture, b: Capture) -> None:
        own = {"_pair": (a, b), "statistic": f"{STATISTICS[a.statistic].base}_difference"}
        vars(self).update({field.name: vars(b)[field.name] for field in fields(b)} | own)

    def head_matrix(self, head: int) -> Array:
        a, b = vars(self)["_pair"]
        return np.asarray(b.head_matrix(head).astype(np.float64) - a.head_matrix(head))


def _find_panels(parts: Sequence[Capture], options: FigureOptions) -> Panels:
    """Return the panels: 0, 1 and 2 are A, B and B - A of head 0, the next three of head 1."""
    heads, word = range(parts[0].num_heads), "H" if options.theme == "paper" else "Head "
    return Panels(
        tuple((part, head) for head in heads for part in parts),
        [f"{word}{head}: {part}" for head in heads for part in _PARTS],
        3 * min(max(1, options.columns // 2), len(heads)),
        fields={"head:O": "floor(datum.panel/3)", "part:N": f"{json.dumps(_PARTS)}[datum.panel%3]"},
    )


def _name_runs(panels: Panels, a: Capture, b: Capture, look: Look) -> Panels:
    """Return the panels with the run of A and B, or their layer, in their names if that fits."""
    apart = (a.run, b.run) if a.run != b.run else (f"L{a.layer_index}", f"L{b.layer_index}")
    told = [f" ({shorten_text(name, 24)})" if name else "" for name in apart]
    if told[0] == told[1]:
        return panels
    names = [f"{name}{(*told, '')[n % 3]}" for n, name in enumerate(panels.names)]
    fits = max(map(len, names)) * 0.6 * min(look.map_title, 9 / look.unit) <= look.map_panel
    return replace(panels, names=names) if fits else panels


def _draw(
    panels: Panels,
    change: _Change,
    scales: Sequence[ColorScale],
    look: Look,
    vectors: bool,
    *,
    below: bool,
) -> tuple[alt.FacetChart, Records]:
    """Draw every visible pair as a rectangle, or every map as one image."""
    (a, _), (b, _) = panels.heads[:2]
    length, keys = _beside(panels, look), list[Any]()
    if below and panels.unseen:
        keys = [unseen_key(panels.field, look)]
        keys[0].encoding.shape["legend"]["orient"] = "bottom"
    if below:
        room = 8 * look.bar_label if keys else 0
        width = map_size(panels.first, look)[0] + look.map_column_gap
        length = (panels.columns * width - look.map_column_gap - room) / 2 - 2 * look.bar_label
    lows, highs = zip(a.value_range, b.value_range, strict=True)
    titles = [STATISTICS[part.statistic].title for part in (a, change)]
    bar: Any = {"length": length, "look": look, "below": below}
    # Two channels have two scales, and of two fields they have a colour bar each.
    color, fill = alt.Color("color:Q"), alt.Fill("change:Q")
    color = color_channel(color, scales[0], titles[0], (min(lows), max(highs)), **bar)
    fill = color_channel(fill, scales[1], titles[1], change.value_range, **bar)
    both: list[tuple[ColorScale, dict[str, Any], str, str, str]] = [
        (scales[0], {"color": color}, "color", "<", CELLS),
        (scales[1], {"fill": fill}, "change", "==", f"difference_{CELLS}"),
    ]
    size = min(look.map_title, 9 / look.unit)
    known = f"&&isValid(datum.{a.statistic})" if panels.absent else ""
    if vectors:
        layers = [
            map_marks(panels, look, vectors=True, name=name)
            .transform_filter(f"datum.panel%3{sign}2{known}")
            .transform_calculate(**{field: scale.expression(a.statistic)})
            .encode(**channel, tooltip=panels.tooltip("query", "key"))
            for scale, channel, field, sign, name in both
        ]
        chart = panels.facet_maps([*layers, *keys], look, letters=size, has_key=not below)
        return panels.unfold(chart, ["query"]), pair_records(panels)
    bars = [
        scale_mark(scale, "datum.panel==0", field, **channel) for scale, channel, field, *_ in both
    ]
    tiles = map_marks(panels, look, vectors=False)
    chart = panels.facet_maps([*bars, tiles, *keys], look, letters=size, has_key=not below)
    return chart, tile_records(panels, lambda number: scales[number % 3 == 2])


def _beside(panels: Panels, look: Look) -> float:
    """Return the length of each of two color bars over each other, beside the panels."""
    total = panels.bar_length(map_size(panels.first, look)[1], look)
    return (min(total, look.bar_length) - 4 * look.bar_title) / 2


def _name(capture: Capture) -> str:
    """Return what to call a capture: its run and layer, else its file, without its folder."""
    if capture.run:
        return f"{shorten_text(capture.run, 60)}, layer {capture.layer_index}"
    name = PurePath(capture.source).name
    known = name not in ("", "array", "capture")
    return shorten_text(name, 60) if known else f"layer {capture.layer_index}"
