"""Captures -> tables of statistics, in float64, over visible pairs only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture import Capture

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
    return _row_statistics(capture)["sink"]


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
    rows: list[dict[str, Any]] = []
    for capture in _iterate(captures):
        columns = _row_statistics(capture)
        rows += [
            {"run": capture.run, "layer": capture.layer_index, "head": head}
            | {name: float(values[head]) for name, values in columns.items()}
            for head in range(capture.num_heads)
        ]
    return _frame(rows, ["run", "layer", "head", "first", "mid", "last", "sink"])


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
    rows = []
    for capture in _iterate(captures):
        diagonal, first_key = _matrix_means(capture)
        rows.append(
            {
                "run": capture.run,
                "layer": capture.layer_index,
                "diagonal_mean": diagonal,
                "first_key_mean": first_key,
                "visible": capture.num_visible,
            }
        )
    return _frame(rows, ["run", "layer", "diagonal_mean", "first_key_mean", "visible"])


def _iterate(captures: Capture | Iterable[Capture]) -> Iterable[Capture]:
    return [captures] if isinstance(captures, Capture) else captures


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=columns)


def _row_statistics(capture: Capture) -> dict[str, npt.NDArray[np.float64]]:
    rows = capture.last_block_rows.astype(np.float64)
    columns = {name: np.full(len(rows), np.nan) for name in ("first", "mid", "last")}
    has_zero = capture.key_frames[0] == 0
    for head, row in enumerate(rows):
        visible = row[~np.isnan(row)]
        if has_zero:
            columns["first"][head] = row[0]
        if len(visible):
            columns["last"][head] = visible[-1]
        if len(visible) > 2:
            columns["mid"][head] = visible[1:-1].mean()
    columns["sink"] = columns["first"] - columns["mid"]
    return columns


def _matrix_means(capture: Capture) -> tuple[float, float]:
    if capture.full_frame_attention is None:
        return float("nan"), float("nan")
    equal = np.equal.outer(capture.query_frames, capture.key_frames)
    diagonal, first = [], []
    for head in range(capture.num_heads):
        matrix = capture.head_matrix(head)
        diagonal.append(matrix[equal].astype(np.float64))
        if capture.key_frames[0] == 0:
            first.append(matrix[:, 0].astype(np.float64))
    return _mean(diagonal), _mean(first)


def _mean(parts: list[npt.NDArray[np.float64]]) -> float:
    values = np.concatenate(parts) if parts else np.empty(0)
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if len(seen) else float("nan")
