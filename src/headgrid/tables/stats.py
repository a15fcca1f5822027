"""Captures -> tables of statistics, in float64, over visible pairs only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.files import let_go
from headgrid.capture.model import Capture, expect_capture

if TYPE_CHECKING:
    import pandas as pd


def sink_scores(capture: Capture) -> npt.NDArray[np.float64]:
    """Return each head's attention-sink score.

    ``row[0] - mean(row[1:-1])`` over the visible keys of the last block's row:
    positive where the first frame gets more than the middle ones do.

    Returns
    -------
    array, shape (heads,), float64
        In the unit of the capture's statistic. NaN where key frame 0 is unseen
        or fewer than three keys are visible.

    Examples
    --------
    >>> sink_scores(Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]]))
    array([3.5])
    """
    return row_statistics(capture)["sink"]


def head_statistics(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return the statistics of each head's last-block row.

    Returns
    -------
    DataFrame
        One row per run x layer x head: ``run``, ``layer``, ``head``, ``first``
        (value at key frame 0), ``mid`` (mean over the visible keys between the
        first and the last), ``last`` (value at the last visible key), ``sink``
        (``first - mid``, see `sink_scores`); NaN where there is no such value.

    Examples
    --------
    >>> capture = Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]])
    >>> print(head_statistics(capture).to_string(index=False))
    run  layer  head  first  mid  last  sink
             0     0    5.0  1.5   9.0   3.5
    """
    columns = ["run", "layer", "head", "first", "mid", "last", "sink"]
    return head_table(captures, columns, row_statistics)


def layer_statistics(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return the statistics of each layer's full matrix, over all heads.

    Returns
    -------
    DataFrame
        One row per run x layer: ``run``, ``layer``, ``diagonal_mean`` (visible
        pairs with equal frame numbers), ``first_key_mean`` (visible pairs with
        key frame 0), ``visible`` (number of visible pairs); NaN where no such
        pair is visible or no full matrix was recorded.

    Examples
    --------
    >>> capture = Capture.from_array([[[1.0, 9.0], [2.0, 3.0]]], block_sizes=[1, 1])
    >>> print(layer_statistics(capture).to_string(index=False))
    run  layer  diagonal_mean  first_key_mean  visible
             0            2.0             1.5        3
    """
    import pandas as pd

    rows = []
    for capture in each_capture(captures):
        means = [pairs_mean(pairs) for pairs in diagonal_and_first_key(capture)]
        rows.append((capture.run, capture.layer_index, *means, capture.num_visible))
    columns = ["run", "layer", "diagonal_mean", "first_key_mean", "visible"]
    return pd.DataFrame(rows, columns=columns)


def each_capture(captures: Capture | Iterable[Capture]) -> Iterator[Capture]:
    """Yield the captures, of one or of many; refuse what is none."""
    for capture in captures if isinstance(captures, Iterable) else [captures]:
        expect_capture(capture)
        yield capture


def head_table(
    captures: Capture | Iterable[Capture],
    columns: list[str],
    measure: Callable[[Capture], Mapping[str, object]],
) -> pd.DataFrame:
    """Return a row a head: columns of its place, its statistic, and what is measured of it."""
    import pandas as pd

    parts = []
    for capture in each_capture(captures):
        place = {"set": "", "run": capture.run, "layer": capture.layer_index}
        place |= {"head": np.arange(capture.num_heads), "statistic": capture.statistic}
        parts.append(pd.DataFrame({**place, **measure(capture)}, columns=columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def visible_groups(
    values: npt.NDArray[Any],
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
    """Yield rows [head, key] in groups of heads that see the same keys, nearly always one.

    Of each group the heads, the positions of its keys (at least one, increasing), and the
    values, [head, key], in float64, none of them NaN.
    """
    rows = values.astype(np.float64)
    seen = ~np.isnan(rows)
    if bool((seen == seen[0]).all()):
        patterns, member = seen[:1], np.zeros(len(rows), dtype=np.intp)
    else:
        patterns, member = np.unique(seen, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        heads, keys = np.flatnonzero(member.reshape(-1) == number), np.flatnonzero(pattern)
        if len(keys):
            yield heads, keys, np.ascontiguousarray(rows[np.ix_(heads, keys)])


def row_statistics(capture: Capture) -> dict[str, npt.NDArray[np.float64]]:
    """Return ``first``, ``mid``, ``last`` and ``sink`` of each head, each of shape (heads,)."""
    columns = {name: np.full(capture.num_heads, np.nan) for name in ("first", "mid", "last")}
    has_zero = capture.key_frames[0] == 0
    for heads, keys, rows in visible_groups(capture.last_block_rows):
        if has_zero and keys[0] == 0:
            columns["first"][heads] = rows[:, 0]
        if len(keys) > 2:
            columns["mid"][heads] = rows[:, 1:-1].mean(axis=1)
        columns["last"][heads] = rows[:, -1]
    columns["sink"] = columns["first"] - columns["mid"]
    return columns


def diagonal_and_first_key(
    capture: Capture,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the values with equal frame numbers, and those of key frame 0, [heads, pair].

    Pairs that the model can attend; NaN where they were not recorded. No pair
    without a full matrix.
    """
    matrix = capture.full_frame_attention
    if matrix is None:
        nothing = np.empty((capture.num_heads, 0))
        return nothing, nothing
    equal = np.equal.outer(capture.query_frames, capture.key_frames)
    zero = np.broadcast_to(np.equal(capture.key_frames, 0), equal.shape)
    values = []
    for pairs in (equal, zero):
        queries, keys = np.nonzero(pairs & capture.attendable)
        heads = np.empty((len(matrix), len(queries)))
        for head, found in zip(matrix, heads, strict=True):
            found[:] = head[queries, keys]
            let_go(matrix)
        values.append(heads)
    return values[0], values[1]


def pairs_mean(pairs: npt.NDArray[np.float64]) -> float:
    """Return the mean of all values that are not NaN; NaN where there is none."""
    values = pairs[~np.isnan(pairs)]
    return float(values.mean()) if len(values) else float("nan")
