"""Captures, surveys, recordings and colour ranges -> the HTML that a notebook shows of them.

A card is a table of facts beside a small picture: no script, no style sheet, nothing that is
fetched, so that it looks the same everywhere. Text that comes from data is shortened and escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headgrid.capture.axis import Axis
from headgrid.capture.model import Capture
from headgrid.capture.outputs import Layers
from headgrid.capture.schema import Array
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.labels import tell_places
from headgrid.charts.scales import STEPS, ColorScale, palette_for, pool_factor
from headgrid.charts.tiles import pool_extremes
from headgrid.options import ColorRange
from headgrid.survey.model import Survey
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.stats import sink_scores
from headgrid.text import count_noun, shorten_list, shorten_text, write_number
from headgrid.web.places import name_queries

#: Cells of all panels together, beyond which they are pooled: at one byte a pixel and
#: a third more as text, noise of so many cells stays below 150 kB.
CELL_BUDGET = 100_000

_LONGEST, _SHORTEST = 96, 8  # pixels along an axis of a panel
_ENLARGED, _MANY = 64, 24  # small matrices become about so large, or half of it if there are many
_GAP, _WIDTH = 4, 560
# A PNG of one byte a pixel has 256 colours: every other step of the scale, and two more.
_COARSE = 2
_UNSEEN, _PAPER = STEPS // _COARSE, STEPS // _COARSE + 1

_Pixels: TypeAlias = npt.NDArray[np.uint8]

_ALL_SCORES, _SOME_SCORES = 16, 8
_LINES, _LINE_LENGTH = 5, 300

_CARD = """\
<div class="headgrid-card">
<p><strong>{title}</strong></p>
{picture}<table>
<tbody>
{rows}
</tbody>
</table>
</div>"""
_LEFT, _NAME = ' style="text-align: left"', ' style="text-align: left; white-space: nowrap"'


@singledispatch
def show_card(recording: Any) -> str:
    """Return the card of a capture, a survey, a recording or a colour range."""
    options = recording.options
    rows = [
        ("records", f"{options.attention}-attention, {STATISTICS[options.statistic].title}"),
        ("prompt", _prompt(options.prompt or "")),
    ]
    captures: Sequence[Capture] | None = recording.finished
    if captures is None:
        none = "none: its block has not ended, or ended with an exception"
        return _card("Recording", [*rows, ("captures", none)])
    rows.append(("captures", _lines(map(repr, captures))))
    return _show_sinks("Recording", rows, *_score(captures))


@show_card.register
def _show_capture(capture: Capture) -> str:
    color_range = resolve_color_range("symmetric", [capture])
    scale = ColorScale(color_range, palette_for(capture.statistic, "rdbu"))
    full = capture.full_frame_attention is not None
    query, key = capture.query_axis, capture.key_axis
    queries, keys = len(query.numbers), len(key.numbers)
    pairs = capture.num_heads * queries * keys
    unseen = pairs - capture.num_visible if full else 0
    last = capture.last_block_query_frames
    size = f"{keys} key {key.nouns}"
    size = f"{queries} {name_queries(query, key)} x {size}" if full else f"{size}, last block only"
    rows = [
        ("prompt", _prompt(capture.prompt)),
        ("size", escape(f"{count_noun(capture.num_heads, 'head')}, {size}")),
        ("blocks", f"[{shorten_list(capture.block_sizes)}]" if capture.block_sizes else ""),
        ("unseen", f"{unseen:,} of {pairs:,} pairs" if unseen else ""),
        ("last block", escape(f"query {tell_places(query, last)}")),
        ("sink scores", _scores(sink_scores(capture))),
        ("notes", _lines(text.removeprefix(f"{capture.source}: ") for text in capture.warnings)),
        ("colors", draw_colors(scale)),
    ]
    run = f"{shorten_text(capture.run, 80)}, " if capture.run else ""
    title = f"{run}layer {capture.layer_index}: {STATISTICS[capture.statistic].title}"
    return _card(title, rows, draw_heads(capture, scale))


@show_card.register
def _show_layers(layers: Layers) -> str:
    if not layers:
        return _card("No captures", [])
    runs = [run for run in dict.fromkeys(capture.run for capture in layers) if run]
    kinds = dict.fromkeys(STATISTICS[capture.statistic].title for capture in layers)
    prompts = dict.fromkeys(capture.prompt for capture in layers if capture.prompt)
    rows = [
        ("values", escape(shorten_list([*kinds]))),
        ("prompt", _lines(prompts)),
        ("captures", _lines(map(repr, layers))),
    ]
    whose = shorten_text(shorten_list(runs), 80) or "Captures"
    title = f"{whose}: {count_noun(len(layers), 'layer')}"
    return _show_sinks(title, rows, *_score(layers))


@show_card.register
def _show_survey(survey: Survey) -> str:
    sets = [shorten_text(name, 40) for name in survey.sets if name]
    form = survey.form
    query, key = Axis(form.query_name, form.query_frames), Axis(form.key_name, form.key_frames)
    size = f"{len(query.numbers)} {name_queries(query, key)} x {len(key.numbers)} key"
    rows = [
        ("values", STATISTICS[survey.statistic].title + ", " + _span(*survey.value_range)),
        ("holds", survey.description),
        ("sets", escape(shorten_list(sets))),
        ("layers", shorten_list(survey.layers)),
        (escape(key.nouns), escape(size)),
        ("missing", _lines(survey.missing)),
        ("failed", _lines(map(str, survey.failures))),
        ("notes", _lines(survey.warnings)),
    ]
    table = survey.summary("sink").dropna(subset="head")
    means = table.groupby(["layer", "head"])["mean"].mean().unstack()
    scores = means.reindex(index=list(survey.layers)).to_numpy(dtype=float, na_value=np.nan)
    return _show_sinks("Survey", rows, scores, survey.layers)


@show_card.register
def _show_range(color_range: ColorRange) -> str:
    rows = [("rule", escape(shorten_text(color_range.rule)))]
    if color_range.low < 0 < color_range.high:  # otherwise the palette is not known
        rows.append(("colors", draw_colors(ColorScale(color_range, palette_for("logit", "rdbu")))))
    return _card(f"Color range {_span(color_range.low, color_range.high)}", rows)


def _score(captures: Sequence[Capture]) -> tuple[Array, list[int]]:
    """Return the sink scores [capture, head], NaN beyond the heads of one, and their layers."""
    scores = np.full((len(captures), max(capture.num_heads for capture in captures)), np.nan)
    for row, capture in enumerate(captures):
        scores[row, : capture.num_heads] = sink_scores(capture)
    return scores, [capture.layer_index for capture in captures]


def _show_sinks(
    title: str, rows: list[tuple[str, str]], scores: Array, layers: Sequence[int]
) -> str:
    """Return a card with scores [layer, head] as a table of colours, and the largest in words."""
    largest = float(np.nanmax(np.abs(scores), initial=0.0)) or 1.0
    scale = ColorScale(ColorRange(-largest, largest, "symmetric"), palette_for("logit", "rdbu"))
    width = scores.shape[1]
    named = [
        f"{layers[at // width]}:{at % width} {write_number(scores.flat[at], '.3g')}"
        for at in _largest(scores)
        if not np.isnan(scores.flat[at])
    ]
    largest_sinks = "largest sinks (layer:head)", ", ".join(named) or "n/a"
    rows = [*rows, largest_sinks, ("colors", draw_colors(scale))]
    alt = "Sink scores; a row for each layer, a column for each head"
    return _card(title, rows, draw_table(scores, scale, alt))


def _card(title: str, rows: Iterable[tuple[str, str]], picture: str = "") -> str:
    lines = [
        f'<tr><th scope="row"{_NAME}>{name}</th><td{_LEFT}>{html}</td></tr>'
        for name, html in rows
        if html
    ]
    shown = f"<p>{picture}</p>\n" if picture else ""
    return _CARD.format(title=escape(title), picture=shown, rows="\n".join(lines))


def _prompt(prompt: str) -> str:
    # Its own direction: a right-to-left prompt turns nothing around it.
    text = shorten_text(prompt)
    return f'<span dir="auto">{escape(text)}</span>' if text else ""


def _scores(scores: Array) -> str:
    """Return each head's score, or of many heads those with the largest."""
    texts = [f"H{head} {write_number(score, '.3g')}" for head, score in enumerate(scores)]
    if len(texts) <= _ALL_SCORES:
        return ", ".join(texts)
    return f"{', '.join(texts[at] for at in _largest(scores))}, ... (largest first)"


def _largest(scores: Array) -> list[int]:
    """Return the places of the largest scores of a table, row by row; those without one last."""
    flat = scores.ravel()
    order = np.argsort(-np.where(np.isnan(flat), -np.inf, flat), kind="stable")
    return [int(at) for at in order[:_SOME_SCORES]]


def _lines(texts: Iterable[str]) -> str:
    """Return the first of some texts, a line each, and how many more there are."""
    listed = list(texts)
    lines = [escape(shorten_text(text, _LINE_LENGTH)) for text in listed[:_LINES]]
    more = len(listed) - len(lines)
    return "<br>".join([*lines, f"and {more:,} more"] if more else lines)


def _span(low: float, high: float) -> str:
    return f"{write_number(low, '.3g')} to {write_number(high, '.3g')}"


def draw_heads(capture: Capture, scale: ColorScale) -> str:
    """Draw every head's matrix in rows of panels, query frame 0 at the bottom.

    Where the capture has no full matrix, each head is one line of its last block's row.
    """
    heads = capture.num_heads
    noun, key = f"{heads} head{'' if heads == 1 else 's'}", capture.key_axis.noun
    if capture.full_frame_attention is None:
        return draw_table(
            capture.last_block_rows, scale, f"Last-block rows of {noun}, by key {key}"
        )
    side = min(_LONGEST, max(_SHORTEST, math.isqrt(CELL_BUDGET // heads)))
    large = _ENLARGED if heads <= _MANY else _ENLARGED // 2
    shown = min(heads, CELL_BUDGET // _SHORTEST**2)
    matrices = map(capture.head_matrix, range(shown))
    panels = [_draw(matrix, scale, side, large, large)[::-1] for matrix in matrices]
    which = noun if shown == heads else f"the first {shown} of {noun}"
    return _pack(_arrange(panels), scale, f"Maps of {which}, query by key {key}")


def draw_table(values: Array, scale: ColorScale, alt: str) -> str:
    """Draw a table [row, column] with a cell for each value, grey where there is none."""
    return _pack(_draw(values, scale, 300, 480, 12), scale, alt)


def draw_colors(scale: ColorScale) -> str:
    """Draw the colours of a scale between the numbers at its low and its high end."""
    low, high = scale.range.low, scale.range.high
    line = _color(np.linspace(low, high, 128)[None], scale).repeat(12, axis=0)
    picture = _pack(line, scale, f"Colors from {low:g} to {high:g}")
    return f"{write_number(low, '.3g')} {picture} {write_number(high, '.3g')}"


def _draw(values: Array, scale: ColorScale, most: int, large: int, largest: int) -> _Pixels:
    """Draw at most so many cells along an axis, in a room of pixels, each of at most so many."""
    pooled = pool_extremes(values, *(pool_factor(length, most) for length in values.shape))
    height, width = (max(1, min(largest, large // length)) for length in pooled.shape)
    return _color(pooled, scale).repeat(height, axis=0).repeat(width, axis=1)


def _color(values: Array, scale: ColorScale) -> _Pixels:
    unseen = np.isnan(values)
    steps = scale.steps(np.where(unseen, 0.0, values)) // _COARSE
    return np.where(unseen, _UNSEEN, steps).astype(np.uint8)


def _arrange(panels: Sequence[_Pixels]) -> _Pixels:
    """Put panels of one size into rows that are as even as possible."""
    height, width = panels[0].shape
    most = max(1, (_WIDTH + _GAP) // (width + _GAP))
    rows = -(-len(panels) // most)
    columns = -(-len(panels) // rows)
    height, width = height + _GAP, width + _GAP
    paper = np.full((rows * columns, height, width), _PAPER, dtype=np.uint8)
    paper[: len(panels), :-_GAP, :-_GAP] = panels
    grid = paper.reshape(rows, columns, height, width).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width)[:-_GAP, :-_GAP]


def _pack(pixels: _Pixels, scale: ColorScale, alt: str) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    colors = scale.colors()[_COARSE // 2 :: _COARSE].tobytes()
    image.putpalette(colors + b"\xec\xec\xec" + b"\xff\xff\xff")
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True, transparency=_PAPER)
    text = base64.b64encode(packed.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{text}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(alt, quote=True)}">'
    )
