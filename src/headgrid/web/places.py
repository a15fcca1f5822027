"""A capture -> the places along its axes that a page shows: pooled where there are many, named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unicodedata import bidirectional

import numpy as np

from headgrid.capture.axis import FRAME, Axis, Segment
from headgrid.capture.model import Capture
from headgrid.charts.labels import short_labels
from headgrid.charts.scales import pool_factor
from headgrid.charts.tiles import pool_extremes
from headgrid.text import quote_text, shorten_text

#: Places along an axis of a page; of more, so many neighbours share one that none is left out.
MAX_PLACES = 256

_LABEL, _QUOTED = 500, 40  # letters of a label in a tooltip, and within a sentence
# What turns the direction of text ends with the label that holds it.
_DIRECTIONS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def pool_sizes(capture: Capture) -> tuple[int, int]:
    """Return how many queries, and how many keys, share a place."""
    queries = 1 if capture.full_frame_attention is None else len(capture.query_frames)
    return pool_factor(queries, MAX_PLACES), pool_factor(len(capture.key_frames), MAX_PLACES)


def pool_capture(capture: Capture) -> Capture:
    """Return a capture of at most `MAX_PLACES` places an axis, or the same one where it has them.

    A value is that of largest magnitude among those that share its pair of places, and a place
    has the first of their numbers.

    >>> long = Capture.from_array(np.arange(512.0)[None, None, :], key_labels=[*range(512)])
    >>> short = pool_capture(long)
    >>> short.last_block_rows.shape, short.key_frames[:3], short.key_labels[:2]
    ((1, 256), (0, 2, 4), ('0 … 1', '2 … 3'))
    """
    queries, keys = capture.query_axis, capture.key_axis
    matrices = capture.full_frame_attention is not None
    rows, columns = pool_sizes(capture)
    if rows == columns == 1:
        return capture
    heads = range(capture.num_heads if matrices else 0)
    maps = [pool_extremes(capture.head_matrix(head), rows, columns) for head in heads]
    queries, keys = _pool_axis(queries, rows), _pool_axis(keys, columns)
    pooled = Capture.from_array(
        np.stack(maps) if maps else None,
        last_block=pool_extremes(capture.last_block_rows, 1, columns),
        layer=capture.layer_index,
        query_frames=queries.numbers,
        key_frames=keys.numbers,
        last_block_query_frames=capture.last_block_query_frames,
        query_labels=queries.labels,
        key_labels=keys.labels,
        query_name=queries.name,
        key_name=keys.name,
        statistic=capture.statistic,
    )
    query, key = ({name: (a, b) for name, a, b in axis.parts} for axis in (queries, keys))
    return pooled.with_segments(query=query, key=key)


def name_places(axis: Axis, size: int = 1) -> dict[int, dict[str, str]]:
    """Return what a page says of each place of so many neighbours; nothing where numbers say all.

    >>> name_places(Axis("Token", (0, 1, 2), ("The", "cat", "")), 2)[0]
    {'name': "tokens 0–1 'The … cat'", 'span': '0–1', 'label': 'The … cat'}
    """
    if axis.labels is None and axis.name == FRAME and size == 1:
        return {}
    pooled, spans = _pool_axis(axis, size), _spans(axis.numbers, size, "–")
    names = {}
    for number, span, label in zip(
        pooled.numbers, spans, pooled.labels or [""] * len(spans), strict=True
    ):
        name = f"{axis.nouns if '–' in span else axis.noun} {span}"
        name = f"{name} {_quote(label)}" if label else name
        names[number] = {"name": name, "span": span, "label": label}
    return names


def name_queries(query: Axis, key: Axis) -> str:
    """Return what queries are called beside keys: ``query``, or ``query segments`` if another."""
    return "query" if query.name == key.name else f"query {query.nouns}"


def _pool_axis(axis: Axis, size: int) -> Axis:
    """Return the axis of pools: first numbers, first and last labels, segments they start in."""
    numbers = axis.numbers[::size]
    within = [(s.name, [n for n in numbers if s.start <= n < s.stop]) for s in axis.parts]
    parts = tuple(Segment(name, at[0], at[-1] + 1) for name, at in within if at)
    pooled = replace(axis, numbers=numbers, parts=parts)
    if axis.labels is None:
        return pooled
    shown = [
        shorten_text(label, _LABEL) if short.endswith("…") else short
        for label, short in zip(axis.labels, short_labels(axis), strict=True)
    ]
    return replace(pooled, labels=tuple(_spans(shown, size, " … ")))


def _spans(items: Sequence[object], size: int, mark: str) -> list[str]:
    """Return the first and the last of each so many items."""
    pools = (items[start : start + size] for start in range(0, len(items), size))
    return [f"{p[0]}{mark}{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in pools]


def _quote(label: str) -> str:
    text = quote_text(label, _QUOTED).translate(_DIRECTIONS)
    leftwards = any(bidirectional(letter) in ("R", "AL") for letter in text)
    return f"\u2068{text}\u2069" if leftwards else text
