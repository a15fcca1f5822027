"""Two captures -> their difference, and the table of its largest changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headgrid.capture.form import AXES, expect_alike
from headgrid.capture.model import Capture
from headgrid.capture.schema import AXIS_KEYS, FULL, LAST
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import check_whole

if TYPE_CHECKING:
    import pandas as pd


def subtract(a: Capture, b: Capture) -> Capture:
    """Return B - A as a capture.

    Parameters
    ----------
    a, b : Capture
        With the same statistic, heads and frames.

    Returns
    -------
    Capture
        ``full_frame_attention`` [heads, query, key] and the last-block rows in float64,
        statistic ``logit_difference`` (``mass_difference``, ...); a pair that one of the
        two has not seen is unseen. Layer and run are those of B.

    Raises
    ------
    CaptureError
        Where the two do not go together; the text says in what they differ.

    Examples
    --------
    >>> a, b = (Capture.from_array([[[1.0, 2.0], [3.0, v]]]) for v in (4.0, 9.0))
    >>> subtract(a, b).head_matrix(0)
    array([[0., 0.],
           [0., 5.]])
    """
    expect_comparable(a, b)
    base = STATISTICS[a.statistic].base
    matrices = None
    if a.full_frame_attention is not None:
        pairs = ((a.head_matrix(head), b.head_matrix(head)) for head in range(a.num_heads))
        matrices = np.stack([now.astype(np.float64) - was for was, now in pairs])
    names = ("query_frames", "key_frames", "last_block_query_frames", "block_sizes", *AXIS_KEYS)
    data = {name: getattr(b, name) for name in names} | {"statistic": f"{base}_difference"}
    rows = b.last_block_rows.astype(np.float64) - a.last_block_rows
    data |= {FULL: matrices, LAST: rows, "layer_index": b.layer_index}
    return Capture.from_dict(data, source=f"{b.source} - {a.source}", run=b.run)


def change_table(a: Capture, b: Capture, *, top: int | None = 20) -> pd.DataFrame:
    """Return the pairs that differ most between two captures.

    Parameters
    ----------
    a, b : Capture
        With the same statistic, heads and frames, and a full matrix each.
    top : int or None
        So many rows at most; None: every pair that both have seen.

    Returns
    -------
    DataFrame
        Columns ``head``, ``query``, ``key`` (frame numbers; ``query_label`` and ``key_label``
        behind them where the axes have labels), ``a``, ``b`` and ``difference`` (b - a),
        float64 as the captures hold them, sorted by the magnitude of the difference, largest
        first, then by head, query and key.

    Raises
    ------
    CaptureError
        Where the two do not go together, or have no full matrix.
    OptionError
        Where ``top`` is below 1.

    Examples
    --------
    >>> a, b = (Capture.from_array([[[1.0, 2.0], [3.0, v]]]) for v in (4.0, 9.0))
    >>> print(change_table(a, b, top=1).to_string(index=False))
     head  query  key   a   b  difference
        0      1    1 4.0 9.0         5.0
    """
    import pandas as pd

    if top is not None:
        check_whole("top", top)
    expect_comparable(a, b)
    queries, keys = np.asarray(a.query_frames), np.asarray(a.key_frames)
    parts = []
    for head in range(a.num_heads):
        was, now = (c.head_matrix(head).astype(np.float64) for c in (a, b))
        at = np.nonzero(~np.isnan(was + now))
        values = {"a": was[at], "b": now[at], "difference": now[at] - was[at]}
        frames = {"query": queries[at[0]], "key": keys[at[1]]}
        part = pd.DataFrame({"head": head, **frames, **values})
        if top is not None:  # the first of equal ones stay, and come first
            part = part.loc[part["difference"].abs().nlargest(top).index]
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    order = np.argsort(-table["difference"].abs().to_numpy(), kind="stable")[:top]
    table = table.iloc[order].reset_index(drop=True)
    for side, axis in (("query", a.query_axis), ("key", a.key_axis)):
        if axis.labels:
            place = list(table.columns).index(side) + 1
            table.insert(place, f"{side}_label", axis.look_up(table[side].to_numpy()))
    return table


def expect_comparable(a: Capture, b: Capture) -> None:
    """Refuse captures that can not be subtracted; the text says in what they differ."""
    among = ("statistic", "num_heads", "has_matrix", *AXES)
    expect_alike((a, b), "the same in both; record both alike", among)
