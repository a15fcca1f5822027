"""Captures, surveys, recordings and colour ranges -> the HTML that a notebook shows of them.

A card is a table of facts beside a small picture: no script, no style sheet, nothing
that is fetched, so that it looks the same in a running notebook, in an exported one
and where scripts are taken out. Text that comes from data is shortened and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.options import ColorRange
from headgrid.survey.model import Survey
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.stats import sink_scores
from headgrid.text import shorten_list, shorten_text
from headgrid.web.thumbnails import Thumbnail, draw_colors, draw_heads, draw_table

if TYPE_CHECKING:
    from headgrid.capture.schema import Array

_ALL_SCORES, _SOME_SCORES = 16, 8
_LINES, _LINE_LENGTH = 5, 300
_MINUS = "\u2212"

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
def show_card(value: Any) -> str:
    """Return the card of a capture, a survey, a recording, a colour range or a colour scale."""
    return show_recording(value)


@show_card.register
def show_capture(capture: Capture) -> str:
    """Return a capture's card: prompt, size, blocks, colours, sink scores and all its heads.

    Parameters
    ----------
    capture : Capture

    Returns
    -------
    str
        HTML below 200 kB whatever the capture holds; the same capture gives the same text.

    Examples
    --------
    >>> html = show_capture(Capture.from_array(np.eye(4)[None], prompt="a < b"))
    >>> "a &lt; b" in html, "<img" in html
    (True, True)
    """
    scale = _scale_of(capture)
    full = capture.full_frame_attention is not None
    pairs = capture.num_heads * len(capture.query_frames) * len(capture.key_frames)
    unseen = pairs - capture.num_visible if full else 0
    rows = [
        ("prompt", _prompt(capture.prompt)),
        ("size", _count(capture.num_heads, "head") + ", " + _frames(capture)),
        ("blocks", f"[{shorten_list(capture.block_sizes)}]" if capture.block_sizes else ""),
        ("unseen", f"{unseen:,} of {pairs:,} pairs" if unseen else ""),
        ("last block", f"query frames [{shorten_list(capture.last_block_query_frames, 8)}]"),
        ("sink scores", _scores(sink_scores(capture))),
        ("notes", _lines(text.removeprefix(f"{capture.source}: ") for text in capture.warnings)),
        ("colors", _colors(scale)),
    ]
    run = f"{shorten_text(capture.run, 80)}, " if capture.run else ""
    title = f"{run}layer {capture.layer_index}: {STATISTICS[capture.statistic].title}"
    return _card(title, rows, draw_heads(capture, scale))


@show_card.register
def show_survey(survey: Survey) -> str:
    """Return a survey's card: what it holds, what is missing, and the sink score of every head."""
    sets = [shorten_text(name, 40) for name in survey.sets if name]
    rows = [
        ("values", STATISTICS[survey.statistic].title + ", " + _span(*survey.value_range)),
        ("holds", survey.description),
        ("sets", escape(shorten_list(sets))),
        ("layers", shorten_list(survey.layers)),
        ("frames", f"{len(survey.form.query_frames)} query x {len(survey.form.key_frames)} key"),
        ("missing", _lines(survey.missing)),
        ("failed", _lines(map(str, survey.failures))),
        ("notes", _lines(survey.warnings)),
    ]
    table = survey.summary("sink").dropna(subset="head")
    means = table.groupby(["layer", "head"])["mean"].mean().unstack()
    means = means.reindex(index=list(survey.layers))
    scores = means.to_numpy(dtype=float, na_value=np.nan)
    return _show_sinks("Survey", rows, scores, survey.layers)


def show_recording(recording: Any) -> str:
    """Return a recording's card: what was recorded, and the sink score of every head."""
    options = recording.options
    rows = [
        ("records", f"{options.attention}-attention, {STATISTICS[options.statistic].title}"),
        ("prompt", _prompt(options.prompt or "")),
    ]
    captures: Sequence[Capture] | None = recording.finished
    if captures is None:
        none = "none: its block has not ended, or ended with an exception"
        return _card("Recording", [*rows, ("captures", none)])
    rows.append(("captures", _lines(map(repr, captures), len(captures))))
    heads = max(capture.num_heads for capture in captures)
    scores = np.full((len(captures), heads), np.nan)
    for row, capture in enumerate(captures):
        scores[row, : capture.num_heads] = sink_scores(capture)
    return _show_sinks("Recording", rows, scores, [capture.layer_index for capture in captures])


@show_card.register
def show_color_range(color_range: ColorRange) -> str:
    """Return a colour range's card; with colours where they are sure, on both sides of zero."""
    rows = [("rule", escape(shorten_text(color_range.rule)))]
    if color_range.low < 0 < color_range.high:
        rows.append(("colors", _colors(ColorScale(color_range, palette_for("logit", "rdbu")))))
    return _card(f"Color range {_span(color_range.low, color_range.high)}", rows)


@show_card.register
def show_color_scale(scale: ColorScale) -> str:
    """Return a colour scale's card."""
    return _card(
        f"Color scale {_span(scale.range.low, scale.range.high)}",
        [("palette", scale.palette.name), ("rule", escape(scale.range.rule))],
        draw_colors(scale),
    )


def _show_sinks(
    title: str, rows: list[tuple[str, str]], scores: Array, layers: Sequence[int]
) -> str:
    """Return a card with scores [layer, head] as a table of colours, and the largest in words."""
    largest = float(np.nanmax(np.abs(scores), initial=0.0)) or 1.0
    scale = ColorScale(ColorRange(-largest, largest, "symmetric"), palette_for("logit", "rdbu"))
    flat = scores.ravel()
    order = np.argsort(-np.where(np.isnan(flat), -np.inf, flat), kind="stable")[:_SOME_SCORES]
    named = [
        f"{layers[int(at) // scores.shape[1]]}:{int(at) % scores.shape[1]} {_number(flat[at])}"
        for at in order
        if not np.isnan(flat[at])
    ]
    rows = [
        *rows,
        ("largest sinks (layer:head)", ", ".join(named) or "n/a"),
        ("colors", _colors(scale)),
    ]
    alt = "Sink scores; a row for each layer, a column for each head"
    return _card(title, rows, draw_table(scores, scale, alt))


def _card(title: str, rows: Iterable[tuple[str, str]], picture: Thumbnail | None = None) -> str:
    lines = [
        f'<tr><th scope="row"{_NAME}>{name}</th><td{_LEFT}>{html}</td></tr>'
        for name, html in rows
        if html
    ]
    shown = f"<p>{_image(picture)}</p>\n" if picture else ""
    return _CARD.format(title=escape(title), picture=shown, rows="\n".join(lines))


def _image(picture: Thumbnail) -> str:
    return (
        f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.alt, quote=True)}">'
    )


def _scale_of(capture: Capture) -> ColorScale:
    color_range = resolve_color_range("symmetric", [capture])
    return ColorScale(color_range, palette_for(capture.statistic, "rdbu"))


def _colors(scale: ColorScale) -> str:
    low, high = _number(scale.range.low), _number(scale.range.high)
    return f"{low} {_image(draw_colors(scale))} {high}"


def _prompt(prompt: str) -> str:
    # Its own direction: a right-to-left prompt turns nothing around it.
    text = shorten_text(prompt)
    return f'<span dir="auto">{escape(text)}</span>' if text else ""


def _frames(capture: Capture) -> str:
    if capture.full_frame_attention is None:
        return f"{len(capture.key_frames)} key frames, last block only"
    return f"{len(capture.query_frames)} query x {len(capture.key_frames)} key frames"


def _scores(scores: Array) -> str:
    """Return each head's score, or of many heads those with the largest."""
    texts = [f"H{head} {_number(score)}" for head, score in enumerate(scores)]
    if len(texts) <= _ALL_SCORES:
        return ", ".join(texts)
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    return f"{', '.join(texts[at] for at in order[:_SOME_SCORES])}, ... (largest first)"


def _lines(texts: Iterable[str], total: int | None = None) -> str:
    """Return the first of some texts, a line each, and how many more there are."""
    listed = list(texts)
    lines = [escape(shorten_text(text, _LINE_LENGTH)) for text in listed[:_LINES]]
    more = (total or len(listed)) - len(lines)
    return "<br>".join([*lines, f"and {more:,} more"] if more else lines)


def _span(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3g}".replace("-", _MINUS)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
