"""Matrices -> one small PNG that shows them all, drawn without the engine.

What a notebook shows beside the facts of a capture: quick (milliseconds), small
whatever the number of heads and frames, and the same bytes for the same values.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.schema import Array
from headgrid.charts.scales import STEPS, ColorScale, pool_factor
from headgrid.charts.tiles import pool_extremes

#: Cells of all panels together, beyond which they are pooled: at one byte a pixel and
#: a third more as text, noise of so many cells stays below 150 kB.
CELL_BUDGET = 100_000

_LONGEST, _SHORTEST = 96, 8  # pixels along an axis of a panel
_ENLARGED, _MANY = 64, 24  # small matrices become about so large, or half of it if there are many
_GAP, _WIDTH = 4, 560
# A PNG of one byte a pixel has 256 colours: every other step of the scale, and two more.
_COARSE = 2
_UNSEEN, _PAPER = STEPS // _COARSE, STEPS // _COARSE + 1
_UNSEEN_RGB = (236, 236, 236)

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: a data URI, its size in pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str


def draw_heads(capture: Capture, scale: ColorScale) -> Thumbnail:
    """Draw every head's matrix in rows of panels, query frame 0 at the bottom.

    Where the capture has no full matrix, each head is one line of its last block's row.

    Examples
    --------
    >>> from headgrid.charts.scales import palette_for
    >>> from headgrid.tables.ranges import resolve_color_range
    >>> capture = Capture.from_array(np.eye(4)[None].repeat(3, axis=0))
    >>> color_range = resolve_color_range("symmetric", [capture])
    >>> thumbnail = draw_heads(capture, ColorScale(color_range, palette_for("logit", "rdbu")))
    >>> thumbnail.width, thumbnail.height, thumbnail.alt
    (200, 64, 'Maps of 3 heads, query by key frame')
    """
    heads = capture.num_heads
    noun = f"{heads} head{'' if heads == 1 else 's'}"
    if capture.full_frame_attention is None:
        columns = pool_factor(capture.last_block_rows.shape[1], _WIDTH)
        rows = pool_factor(heads, max(1, CELL_BUDGET // _WIDTH))
        lines = _color(pool_extremes(capture.last_block_rows, rows, columns), scale)
        size = max(1, min(_WIDTH // lines.shape[1], 12)), max(1, min(240 // lines.shape[0], 12))
        return _pack(_enlarge(lines, *size), scale, f"Last-block rows of {noun}, by key frame")
    side = int(min(_LONGEST, max(_SHORTEST, math.isqrt(CELL_BUDGET // heads))))
    large = _ENLARGED if heads <= _MANY else _ENLARGED // 2
    shown = min(heads, CELL_BUDGET // _SHORTEST**2)
    panels = [_draw_panel(capture.head_matrix(head), scale, side, large) for head in range(shown)]
    which = noun if shown == heads else f"the first {shown} of {noun}"
    return _pack(_arrange(panels), scale, f"Maps of {which}, query by key frame")


def draw_table(values: Array, scale: ColorScale, alt: str) -> Thumbnail:
    """Draw a table [row, column] with a square for each value, grey where there is none."""
    pools = (pool_factor(length, 300) for length in values.shape)
    cells = _color(pool_extremes(values, *pools), scale)
    size = max(1, min(12, 480 // max(cells.shape)))
    return _pack(_enlarge(cells, size, size), scale, alt)


def draw_colors(scale: ColorScale) -> Thumbnail:
    """Draw the colours of a scale from its low to its high end."""
    low, high = scale.range.low, scale.range.high
    line = np.linspace(low, high, 128)[None]
    return _pack(_enlarge(_color(line, scale), 1, 12), scale, f"Colors from {low:g} to {high:g}")


def _draw_panel(matrix: Array, scale: ColorScale, side: int, large: int) -> _Pixels:
    pooled = pool_extremes(matrix, *(pool_factor(length, side) for length in matrix.shape))
    size = max(1, large // max(pooled.shape))
    return _enlarge(_color(pooled[::-1], scale), size, size)


def _color(values: Array, scale: ColorScale) -> _Pixels:
    """Return the palette index of each value."""
    unseen = np.isnan(values)
    steps = scale.steps(np.where(unseen, 0.0, values)) // _COARSE
    return np.where(unseen, _UNSEEN, steps).astype(np.uint8)


def _enlarge(pixels: _Pixels, width: int, height: int) -> _Pixels:
    return pixels.repeat(height, axis=0).repeat(width, axis=1)


def _arrange(panels: Sequence[_Pixels]) -> _Pixels:
    """Put panels of one size into rows that are as even as possible."""
    height, width = panels[0].shape
    most = max(1, (_WIDTH + _GAP) // (width + _GAP))
    rows = -(-len(panels) // most)
    columns = -(-len(panels) // rows)
    size = rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP
    paper = np.full(size, _PAPER, dtype=np.uint8)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        paper[top : top + height, left : left + width] = panel
    return paper


def _pack(pixels: _Pixels, scale: ColorScale, alt: str) -> Thumbnail:
    from PIL import Image

    image = Image.fromarray(pixels)
    colors = scale.colors()[_COARSE // 2 :: _COARSE].tobytes()
    image.putpalette(colors + bytes(_UNSEEN_RGB) + b"\xff\xff\xff")
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True, transparency=_PAPER)
    text = base64.b64encode(packed.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/png;base64,{text}", image.width, image.height, alt)
