"""Captures -> titles, axis titles, panel titles and captions.

Every text that data can reach passes `clean_text` here before it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.scales import count_saturated
from headgrid.options import ColorRange, FigureOptions, fill_title
from headgrid.tables.stats import sink_scores
from headgrid.text import shorten_list, shorten_text, wrap_text

#: What goes into SVG and HTML, so that text looks the same where it is opened.
FONT_FAMILY = "Arial, DejaVu Sans, Helvetica, sans-serif"
SERIF_FAMILY = "Times New Roman, DejaVu Serif, Times, serif"


def heatmap_title(capture: Capture, options: FigureOptions, width: float) -> list[str]:
    """Return the title lines of the heatmap for a figure so many points wide."""
    own = f"Layer {capture.layer_index}: 2D Attention Maps (All Heads)"
    frames = f"Query Frames: {_span(capture.query_frames)}, Key Frames: {_span(capture.key_frames)}"
    return [*_title(capture, options, own, width), frames]


def perhead_title(capture: Capture, options: FigureOptions, width: float) -> list[str]:
    """Return the title lines of the per-head grid for a figure so many points wide."""
    own = f"Layer {capture.layer_index}: Per-Head Attention Distribution"
    frames = f"Query: frames [{shorten_list(capture.last_block_query_frames, 8)}]"
    return [*_title(capture, options, own, width), frames]


def group_title(
    template: str, captures: Sequence[Capture], columns: int, layers: Sequence[int] = ()
) -> list[str]:
    """Return the lines of a title for several captures, at most so many columns wide.

    ``{layer}`` and ``{run}`` list all of them, ``{prompt}`` is the one that they share.

    >>> captures = [Capture.from_array(last_block=[[1.0]], layer=n, run="run_0") for n in (3, 15)]
    >>> group_title("Layers {layer} of {run}", captures, 40)
    ['Layers 3, 15 of run_0']
    """
    numbers = sorted({*layers, *(capture.layer_index for capture in captures)})
    runs = dict.fromkeys(capture.run for capture in captures if capture.run)
    prompts = {capture.prompt for capture in captures}
    text = fill_title(
        template,
        layer=shorten_list(numbers),
        run=shorten_list(list(runs)),
        prompt=prompts.pop() if len(prompts) == 1 else "",
    )
    return wrap_text(text, columns)


def sink_titles(capture: Capture) -> list[str]:
    """Return the panel titles of the per-head grid, such as ``H0 (sink=7.14)``."""
    return [f"H{head} (sink={score})" for head, score in enumerate(sink_texts(capture))]


def sink_texts(capture: Capture) -> list[str]:
    """Return each head's sink score as figures print it: ``7.14``, or ``n/a``."""
    largest = float(np.fmax.reduce(np.abs(capture.last_block_rows), axis=None, initial=0.0))
    decimals = 2 if capture.is_logits else 3
    plain = 10.0**-decimals * 5 <= largest < 1e7 or largest == 0
    style = f".{decimals}f" if plain else ".1e"
    return [_score(score, style) for score in sink_scores(capture)]


def heatmap_caption(capture: Capture, color_range: ColorRange, how: str = "") -> str:
    """Return the sentences that say what the heatmap shows, and how, for SVG and spec."""
    total = capture.num_heads * len(capture.query_frames) * len(capture.key_frames)
    saturated = count_saturated(capture, color_range)
    return _caption(
        capture,
        f"{_count(capture.num_heads, 'head')}, query x key frame",
        f"Color range {color_range.low:g} to {color_range.high:g} ({color_range.rule}); "
        f"{saturated:,} of {capture.num_visible:,} values saturate; "
        f"{total - capture.num_visible:,} of {total:,} pairs are unseen."
        + (f" {how}" if how else ""),
    )


def perhead_caption(capture: Capture) -> str:
    """Return the sentence that says what the per-head grid shows, for SVG and spec."""
    unseen = int(np.isnan(capture.last_block_rows).sum())
    return _caption(
        capture,
        f"{_count(capture.num_heads, 'head')}, mean over query frames "
        f"[{shorten_list(capture.last_block_query_frames, 8)}] by key frame",
        "Value axis independent for each head; sink = value at key frame 0 minus the mean "
        f"over the middle keys; {unseen:,} of {capture.last_block_rows.size:,} pairs are unseen.",
    )


def _caption(capture: Capture, what: str, how: str) -> str:
    meaning = STATISTICS[capture.statistic].meaning
    statistic = STATISTICS[capture.statistic].title + (f" ({meaning})" if meaning else "")
    run = f"{shorten_text(capture.run)}, " if capture.run else ""
    prompt = f" Prompt: {shorten_text(capture.prompt)}" if capture.prompt.strip() else ""
    return f"{run}layer {capture.layer_index}: {statistic}, {what}. {how}{prompt}"


def _title(capture: Capture, options: FigureOptions, own: str, width: float) -> list[str]:
    if options.title is None:
        return [own]
    text = fill_title(
        options.title, layer=capture.layer_index, run=capture.run, prompt=capture.prompt
    )
    # Bold Arial of 14 points: 8.1 points a column on average, measured on prose.
    return wrap_text(text, max(24, int(width / 8.1)))


def _score(score: float, style: str) -> str:
    if math.isnan(score):
        return "n/a"
    text = format(score, style)
    return text.removeprefix("-") if float(text) == 0 else text


def _span(frames: tuple[int, ...]) -> str:
    return f"{frames[0]}-{frames[-1]}" if len(frames) > 1 else f"{frames[0]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
