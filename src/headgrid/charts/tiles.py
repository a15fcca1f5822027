"""Matrices with many cells -> one crisp PNG tile per head, pooled where no screen could show all.

A tile never has more pixels than its panel has points: sampling would lose them.
"""

from __future__ import annotations

import base64
import io
from functools import reduce
from typing import Any

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.schema import Array
from headgrid.charts.scales import MAX_PIXELS, STEPS, ColorScale, frame_places, pool_factor
from headgrid.tables.tidy import round_values


def pool_extremes(matrix: Array, rows: int, columns: int) -> Array:
    """Return the value of largest magnitude of each pool of so many rows and columns.

    A mean would make a sink, one column wide, vanish; the extreme keeps it.

    >>> pool_extremes(np.array([[1.0, -5.0, np.nan], [2.0, 3.0, np.nan]]), 2, 2)
    array([[-5., nan]])
    """
    if rows == columns == 1:
        return matrix
    more = [(0, -size % pool) for size, pool in zip(matrix.shape, (rows, columns), strict=True)]
    padded = np.pad(matrix, more, constant_values=np.nan)
    ends = []
    for extreme in (np.fmax, np.fmin):
        pooled = reduce(extreme, (padded[row::rows] for row in range(rows)))
        ends.append(reduce(extreme, (pooled[:, column::columns] for column in range(columns))))
    high, low = ends
    return np.asarray(np.where(high >= -low, high, low))


def head_tile(capture: Capture, head: int, scale: ColorScale, pixels: int = MAX_PIXELS) -> str:
    """Return a head as a PNG in a data URI: query frame 0 at the bottom, nothing where unseen."""
    from PIL import Image

    axes = capture.query_frames, capture.key_frames
    pools = (pool_factor(len(frames), pixels) for frames in axes)
    rows, columns = (np.searchsorted(frame_places(f, pixels), f) for f in axes)
    places = np.full((rows[-1] + 1, columns[-1] + 1), np.nan)
    places[np.ix_(rows, columns)] = capture.head_matrix(head)
    upright = pool_extremes(places, *pools)[::-1]
    unseen = np.isnan(upright)
    # Rounded like every other value in a figure, so that both forms show the same colours.
    steps = scale.steps(round_values(np.where(unseen, 0.0, upright)))
    used = np.flatnonzero(np.bincount(steps[~unseen], minlength=STEPS))
    index = np.searchsorted(used, steps[~unseen])
    packed = io.BytesIO()
    # A twelfth of the time for 7 % more bytes; those of captures of frames stay what they are.
    how: dict[str, Any] = {"compress_level": 6} if capture.key_labels else {"optimize": True}
    if len(used) < 256:
        # One byte a pixel: the colours in use, and one more for "nothing here".
        indexed = np.full(upright.shape, len(used), dtype=np.uint8)
        indexed[~unseen] = index
        image = Image.fromarray(indexed)
        image.putpalette(scale.colors()[used].tobytes() + b"\0\0\0")
        how["transparency"] = len(used)
    else:
        alpha = np.where(unseen, 0, 255).astype(np.uint8)
        image = Image.fromarray(np.dstack([scale.colors()[steps], alpha]))
    image.save(packed, "PNG", **how)
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
