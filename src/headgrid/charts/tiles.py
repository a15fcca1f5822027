"""Matrices with many cells -> one crisp PNG tile per head, pooled where no screen could show all.

A tile has one pixel per cell (or per pool of cells) and never more pixels than
its panel has points, as pixels would be lost to sampling otherwise.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.schema import Array
from headgrid.charts.scales import ColorScale
from headgrid.tables.tidy import round_values

if TYPE_CHECKING:
    import pandas as pd

#: Cells along an axis beyond which they are pooled: a panel of so many points.
MAX_PIXELS = 512


def pool_factor(count: int, pixels: int = MAX_PIXELS) -> int:
    """Return how many frames along an axis share a pixel, of at most so many pixels.

    >>> [pool_factor(count) for count in (200, 512, 513, 4096)]
    [1, 1, 2, 8]
    """
    return -(-count // pixels)


def pool_extremes(matrix: Array, rows: int, columns: int) -> Array:
    """Return the value of largest magnitude of each pool of so many rows and columns.

    Parameters
    ----------
    matrix : array, shape (query, key)
        NaN where unseen.
    rows, columns : int
        Size of a pool; the last one of an axis may be smaller.

    Returns
    -------
    array, shape (ceil(query / rows), ceil(key / columns))
        NaN where a pool has no visible value. A mean would make a sink, one
        column wide, vanish; the extreme keeps it.

    Examples
    --------
    >>> pool_extremes(np.array([[1.0, -5.0, np.nan], [2.0, 3.0, np.nan]]), 2, 2)
    array([[-5., nan]])
    """
    if rows == columns == 1:
        return matrix
    starts = np.arange(0, matrix.shape[0], rows), np.arange(0, matrix.shape[1], columns)
    high = np.fmax.reduceat(np.fmax.reduceat(matrix, starts[0], axis=0), starts[1], axis=1)
    low = np.fmin.reduceat(np.fmin.reduceat(matrix, starts[0], axis=0), starts[1], axis=1)
    return np.asarray(np.where(high >= -low, high, low))


def tile_table(capture: Capture, scale: ColorScale) -> pd.DataFrame:
    """Return one row a head with its tile.

    Returns
    -------
    DataFrame
        Columns ``run``, ``layer``, ``head``, ``tile``: a PNG as a data URI, query
        frame 0 at the bottom, transparent where unseen.
    """
    import pandas as pd

    tiles = [head_tile(capture, head, scale) for head in range(capture.num_heads)]
    return pd.DataFrame(
        {
            "run": capture.run,
            "layer": capture.layer_index,
            "head": range(capture.num_heads),
            "tile": tiles,
        }
    )


def head_tile(capture: Capture, head: int, scale: ColorScale, pixels: int = MAX_PIXELS) -> str:
    """Return one head's tile as a data URI; see `tile_table`."""
    rows = pool_factor(len(capture.query_frames), pixels)
    columns = pool_factor(len(capture.key_frames), pixels)
    return _data_uri(pool_extremes(capture.head_matrix(head), rows, columns), scale)


def describe_tiles(capture: Capture) -> str:
    """Return the sentence of the caption that says how cells became pixels."""
    rows = pool_factor(len(capture.query_frames))
    columns = pool_factor(len(capture.key_frames))
    if rows == columns == 1:
        return "Each head is an image, one pixel a cell."
    return (
        f"Each head is an image; a pixel pools {rows} query x {columns} key frames and shows the "
        "value of largest magnitude."
    )


def _data_uri(matrix: Array, scale: ColorScale) -> str:
    from PIL import Image

    upright = matrix[::-1]
    unseen = np.isnan(upright)
    # Rounded like every other value in a figure, so that both forms show the same colours.
    steps = scale.steps(round_values(np.where(unseen, 0.0, upright)))
    used, index = np.unique(steps[~unseen], return_inverse=True)
    packed = io.BytesIO()
    if len(used) < 256:
        # One byte a pixel: the colours in use, and one more for "nothing here".
        pixels = np.full(upright.shape, len(used), dtype=np.uint8)
        pixels[~unseen] = index
        image = Image.fromarray(pixels)
        image.putpalette(scale.colors()[used].tobytes() + b"\0\0\0")
        image.save(packed, "PNG", optimize=True, transparency=len(used))
    else:
        alpha = np.where(unseen, 0, 255).astype(np.uint8)
        Image.fromarray(np.dstack([scale.colors()[steps], alpha])).save(
            packed, "PNG", optimize=True
        )
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
