"""Captures -> titles, axis titles, panel titles and captions.

Every text that data can reach passes `clean_text` here before it is drawn.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np

from headgrid.capture import Capture
from headgrid.frames import shorten_list
from headgrid.options import FigureOptions, fill_title
from headgrid.scales import ColorRange, count_saturated
from headgrid.stats import sink_scores

#: What goes into SVG and HTML, so that text looks the same where it is opened.
FONT_FAMILY = "Arial, DejaVu Sans, Helvetica, sans-serif"
SERIF_FAMILY = "Times New Roman, DejaVu Serif, Times, serif"

_BASE_TITLES = {
    "logit": "Attention Logits",
    "mass": "Attention Mass",
    "entropy": "Attention Entropy (nats)",
    "max_logit": "Maximum Attention Logit",
}
_DERIVED_TITLES = {
    "": "{}",
    "mean": "Mean {}",
    "std": "Std. Dev. of {}",
    "difference": "Difference of {}",
}
_VALUE_TITLES = {
    f"{base}_{derived}" if derived else base: pattern.format(title)
    for base, title in _BASE_TITLES.items()
    for derived, pattern in _DERIVED_TITLES.items()
}

_BASE_MEANINGS = {
    "logit": "mean over token pairs of q·k·scale, before the softmax",
    "mass": "attention after the softmax",
    "entropy": "-p·ln p of the attention p after the softmax, summed over a frame's keys",
    "max_logit": "largest q·k·scale of the token pairs, before the softmax",
}
_DERIVED_MEANINGS = {
    "": "{}",
    "mean": "mean over runs of: {}",
    "std": "standard deviation over runs, with n - 1, of: {}",
    "difference": "difference of two captures of: {}",
}
_VALUE_MEANINGS = {
    f"{base}_{derived}" if derived else base: pattern.format(meaning)
    for base, meaning in _BASE_MEANINGS.items()
    for derived, pattern in _DERIVED_MEANINGS.items()
}

_MAX_LINES = 4
#: Average width of a letter as a share of its size: measured on Liberation Sans.
_LETTER = 0.48
_PROMPT_LENGTH = 200
# Line and paragraph separators break the expressions that Vega makes of text.
# Overrides of the writing direction would mirror whatever follows them.
_SEPARATORS = {
    "\u202d": "\ufffd",
    "\u202e": "\ufffd",
    "\u2028": " ",
    "\u2029": " ",
    "\t": " ",
    "\u0085": " ",
}


def clean_text(text: str) -> str:
    r"""Return text that is safe to draw: control characters made visible.

    Control characters end the process inside the renderer, and lone surrogates
    have no UTF-8. C0 controls become their control pictures, all else that is
    no character becomes U+FFFD; line ends become ``\n``.

    >>> clean_text("a\x1b[31mb\r\nc")
    'a␛[31mb\nc'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(_clean_character(character) for character in text)


def wrap_text(text: str, width: int, lines: int = _MAX_LINES) -> list[str]:
    """Return text in lines of at most ``width`` columns, at most so many, ended by "…" if cut.

    A wide (East Asian) character counts two columns, a combining one none.

    >>> wrap_text("one two three", 8)
    ['one two', 'three']
    >>> wrap_text("one two three four", 8, lines=2)
    ['one two', 'three…']
    """
    wrapped: list[str] = []
    for paragraph in clean_text(text[: 64 * width * lines]).split("\n"):
        wrapped += _wrap_paragraph(paragraph, width)
        if len(wrapped) > lines:
            break
    while len(wrapped) > 1 and not wrapped[-1]:
        wrapped.pop()
    if len(wrapped) <= lines:
        return wrapped
    return [*wrapped[: lines - 1], _truncate(wrapped[lines - 1], width - 1).rstrip() + "…"]


def shorten_text(text: str, length: int = _PROMPT_LENGTH) -> str:
    """Return clean text on one line, cut to about ``length`` characters."""
    flat = " ".join(clean_text(text[: 4 * length]).split())
    cut = len(flat) > length or len(text) > 4 * length
    return flat[: length - 1] + "…" if cut else flat


def fit_title(text: str, length: float, size: float) -> str | list[str]:
    """Return a title that stands along so much room, in several lines where one is too long.

    >>> fit_title("Attention Logits", 100, 7), fit_title("Attention Logits", 40, 7)
    ('Attention Logits', ['Attention', 'Logits'])
    """
    longest = max(map(_text_columns, text.split()), default=1)
    lines = wrap_text(text, max(longest, int(length / (_LETTER * size))))
    return text if len(lines) == 1 else lines


def value_title(statistic: str) -> str:
    """Return the title of the value axis and of the colour bar."""
    return _VALUE_TITLES[statistic]


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
    meaning = _VALUE_MEANINGS.get(capture.statistic, "")
    statistic = value_title(capture.statistic) + (f" ({meaning})" if meaning else "")
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


def _clean_character(character: str) -> str:
    if character == "\n":
        return character
    if character in _SEPARATORS:
        return _SEPARATORS[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    no_character = unicodedata.category(character) in ("Cc", "Cs") or (code & 0xFFFE) == 0xFFFE
    return "\ufffd" if no_character or 0xFDD0 <= code <= 0xFDEF else character


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _text_columns(text: str) -> int:
    return sum(_columns(character) for character in text)


def _truncate(text: str, width: int) -> str:
    used = 0
    for position, character in enumerate(text):
        used += _columns(character)
        if used > width:
            return text[:position]
    return text


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in paragraph.split(" "):
        candidate = f"{line} {word}" if line else word
        if _text_columns(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while _text_columns(word) > width:  # a word without spaces, as in Chinese
            head = _truncate(word, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line]
