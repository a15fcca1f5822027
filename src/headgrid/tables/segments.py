"""Captures with segments -> how much each part of the queries gives to each part of the keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headgrid.capture.axis import Axis, Segment
from headgrid.capture.form import expect_alike
from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError
from headgrid.tables.stats import each_capture

if TYPE_CHECKING:
    import pandas as pd


def segment_table(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return the statistic of every pair of segments of every head.

    Parameters
    ----------
    captures : Capture or iterable of Capture
        With segments of queries or keys (`Capture.with_segments`); an axis without any is one
        segment, ``all``. Without a full matrix, the queries are the ``last block``.

    Returns
    -------
    DataFrame
        Columns ``run``, ``layer``, ``head``, ``query_segment``, ``key_segment`` and the
        statistic's name, float64, not rounded. Of masses, what a query of the segment gives to
        all keys of the other together (0 to what it can not see), mean over its queries; of
        other statistics the mean over visible pairs. NaN where no pair is visible.

    Raises
    ------
    CaptureError
        Where a capture has no segments, or statistics differ.

    Examples
    --------
    >>> capture = Capture.from_array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], statistic="mass")
    >>> table = segment_table(capture.with_segments(key={"text": (0, 1), "video": (1, None)}))
    >>> print(table.round(3).to_string(index=False))
    run  layer  head query_segment key_segment  mass
             0     0           all        text   0.3
             0     0           all       video   0.7
    """
    import pandas as pd

    listed, rows = list(each_capture(captures)), []
    expect_alike(listed, "one statistic; handle them separately", ["statistic"])
    for capture in listed:
        if not capture.query_axis.parts and not capture.key_axis.parts:
            raise CaptureError(
                f"{capture.source}: has no segments, expected named parts of its axes; give them "
                "with capture.with_segments({'text': (0, 226), 'video': (226, None)})"
            )
        for head in range(capture.num_heads):
            place = (capture.run, capture.layer_index, head)
            rows += [(*place, *names, value) for *names, value in _sum_parts(capture, head)]
    statistic = listed[0].statistic if listed else "logit"
    columns = ["run", "layer", "head", "query_segment", "key_segment", statistic]
    return pd.DataFrame(rows, columns=columns)


def _sum_parts(capture: Capture, head: int) -> Iterable[tuple[str, str, float]]:
    if capture.full_frame_attention is None:
        matrix = capture.last_block_rows[head][None].astype(np.float64)
        of_queries = [("last block", np.ones(1, dtype=bool))]
    else:
        matrix = capture.head_matrix(head).astype(np.float64)
        of_queries = _masks(capture.query_axis)
    sums = STATISTICS[capture.statistic].adds_up
    asked = ~np.isnan(matrix).all(axis=1)
    for query, rows in of_queries:
        for key, columns in _masks(capture.key_axis):
            part = matrix[np.ix_(rows, columns)]
            seen = ~np.isnan(part)
            count = asked[rows].sum() if sums else seen.sum()
            total = np.where(seen, part, 0.0).sum()
            yield query, key, float(total / count) if seen.any() else float("nan")


def _masks(axis: Axis) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Return the name and the places of each segment."""
    numbers = np.asarray(axis.numbers)
    parts = axis.parts or (Segment("all", axis.numbers[0], axis.numbers[-1] + 1),)
    return [(name, (numbers >= start) & (numbers < stop)) for name, start, stop in parts]
