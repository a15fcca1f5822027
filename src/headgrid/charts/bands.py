"""Segments of axes -> lines between them in a panel, and their names along its free sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.schema import Array
from headgrid.charts.axes import INK
from headgrid.charts.frames import FrameAxis, draw_path
from headgrid.charts.labels import shorten_label
from headgrid.text import shorten_float, shorten_text, write_number

#: Names of the marks: lines between segments, brackets beside a panel, and names on them.
BORDERS, BRACKETS = "headgrid_borders", "headgrid_brackets"

#: Where brackets and the middle of names stand beside a panel, as shares of a label's size.
_BRACKET, _NAME = 0.45, 1.2


def draw_bands(
    axes: Sequence[FrameAxis],
    size: tuple[float, float],
    by: str,
    *,
    named: bool = True,
    beside: float = 0,
) -> list[alt.Chart]:
    """Return the lines between the segments of a panel, and brackets with their names.

    ``beside`` is the room of what already stands at the right of the panel.
    """
    look, lines, brackets, names = axes[0].look, "", "", []
    width, height = size
    off = shorten_float(_BRACKET * look.tick_label, 4)
    for axis in axes:
        spans = [(s.name, *axis.span(s.start, s.stop)) for s in axis.axis.parts]
        length = height if axis.upwards else width
        for at in sorted({at for _, *ends in spans for at in ends if 0.01 < at < length - 0.01}):
            lines += f"M0 {at:g}h{width:g}" if axis.upwards else f"M{at:g} 0v{height:g}"
        for _, start, end in spans:
            first, last = start + 0.5, end - 0.5
            right = f"M{width + off + beside:g} {first:g}V{last:g}"
            brackets += right if axis.upwards else f"M{first:g} {-off:g}H{last:g}"
        if named and spans:
            names.append(_draw_names(spans, axis, width, by, beside))
    if not brackets:
        return []
    pen: dict[str, Any] = {"filled": False, "stroke": INK, "strokeWidth": look.frame_width}
    step = min(axis.step for axis in axes)  # the middle of each cell stays visible
    line = {**pen, "strokeWidth": min(look.frame_width, shorten_float(0.4 * step, 4))}
    wide = min(3 * look.frame_width, shorten_float(0.8 * step, 4))
    halo = {**pen, "stroke": "white", "strokeWidth": wide}
    paths = [(f"{BORDERS}_halo", lines, halo), (BORDERS, lines, line)] if lines else []
    paths += [(BRACKETS, brackets, pen)] if named else []
    return [*(draw_path(name, path, by, paint) for name, path, paint in paths), *names]


def _draw_names(
    spans: Sequence[tuple[str, float, float]], axis: FrameAxis, width: float, by: str, beside: float
) -> Any:
    """Return the names of segments, each in the middle of its bracket, as far as it has room."""
    size = axis.look.tick_label
    rooms = [(end - start) / size for _, start, end in spans]
    named = [shorten_text(name, 60) for name, *_ in spans]
    texts = [shorten_label(name, room / 1.05) for name, room in zip(named, rooms, strict=True)]
    texts = ["" if text == "…" or text[1:] == "…" else text for text in texts]
    middles = [shorten_float((start + end) / 2, 6) for _, start, end in spans]
    base = _spread(json.dumps(texts), middles, by)
    off = shorten_float(_NAME * size + (beside if axis.upwards else 0), 4)
    place: dict[str, Any] = {"x": alt.X("at:Q", scale=None, axis=None), "y": alt.YValue(-off)}
    if axis.upwards:
        place = {"x": alt.XValue(width + off), "y": alt.Y("at:Q", scale=None, axis=None)}
    upright: dict[str, Any] = {"angle": 90} if axis.upwards else {}
    mark = base.mark_text(**upright, fontSize=size, fill=INK, aria=False)
    return mark.encode(text=alt.Text("name:N"), **place)


def _spread(texts: str, places: Sequence[float], by: str) -> alt.Chart:
    """Return a text for each place of a panel, as ``name`` and ``at``."""
    base = alt.Chart().transform_aggregate(groupby=[by])
    base = base.transform_calculate(name=texts, at=json.dumps(places))
    return base.transform_flatten(["name", "at"])


def draw_sums(axis: FrameAxis, heads: Sequence[tuple[Capture, int]], width: float, by: str) -> Any:
    """Return the sum over the keys that a map shows, at the right of each row with a tick."""
    rows = np.searchsorted(axis.axis.numbers, axis.ticks)
    texts = [[_write_sum(row) for row in of.head_matrix(head)[rows]] for of, head in heads]
    middles = [shorten_float(sum(axis.span(tick, tick + 1)) / 2, 6) for tick in axis.ticks]
    place = {"x": alt.XValue(width + shorten_float(_BRACKET * axis.look.tick_label, 4))}
    mark: dict[str, Any] = {"align": "left", "fontSize": axis.look.tick_label, "fill": INK}
    texts_of = f"{json.dumps(texts)}[datum.{by}]"
    base = _spread(texts_of, middles, by).mark_text(**mark, baseline="middle", aria=False)
    return base.encode(text=alt.Text("name:N"), y=alt.Y("at:Q", scale=None, axis=None), **place)


def _write_sum(row: Array) -> str:
    """Return the sum of a row, nothing of one without a value."""
    total = round(float(np.nansum(row, dtype=np.float64)), 2) + 0.0  # no -0.00
    return "" if np.isnan(row).all() else write_number(total, ".2f")


def tell_segments(capture: Capture) -> str:
    """Return the sentence that names the segments of both axes, if there are any."""
    told = {
        side: ", ".join(f"{shorten_text(s.name, 60)} {s.start}-{s.stop - 1}" for s in axis.parts)
        for side, axis in (("query", capture.query_axis), ("key", capture.key_axis))
    }
    if told["query"] == told["key"]:
        return f"Segments: {told['key']}." if told["key"] else ""
    return " ".join(f"Segments of {s} axis: {text}." for s, text in told.items() if text)
