"""Captures -> long-form DataFrames, one row a visible value; the one place that rounds.

The value column is named by the capture's statistic (`logit`, `mass`, ...), and
query and key are frame numbers. Unseen pairs have no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from headgrid.capture.form import expect_alike
from headgrid.capture.model import Capture
from headgrid.errors import CaptureError

#: Significant digits of a value in a table. A step of the 256-step palette is
#: coarser than the fourth digit, and float16, as most captures are, has hardly more.
DIGITS = 4
_SMALLEST = 1e-290


def pair_table(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return every visible (query, key) pair of every head as a row.

    Parameters
    ----------
    captures : Capture or iterable of Capture
        With a full matrix each, and one statistic for all.

    Returns
    -------
    DataFrame
        Columns ``run`` (str), ``layer``, ``head``, ``query``, ``key`` (int; the
        last two are frame numbers) and the statistic's name (float64, rounded to
        `DIGITS` significant digits), in that order and sorted by it.

    Raises
    ------
    CaptureError
        Where a capture has no full matrix, or statistics differ.

    Examples
    --------
    >>> import numpy as np
    >>> capture = Capture.from_array(np.array([[[1.0, 9.0], [2.0, 3.0]]]), block_sizes=[1, 1])
    >>> print(pair_table(capture).to_string(index=False))
    run  layer  head  query  key  logit
             0     0      0    0    1.0
             0     0      1    0    2.0
             0     0      1    1    3.0
    """
    listed = as_list(captures)
    return _concatenate([_pairs_of(capture) for capture in listed], common_statistic(listed), 3)


def profile_table(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return every visible key of every head's last-block row as a row.

    Returns
    -------
    DataFrame
        Columns ``run``, ``layer``, ``head``, ``key`` (frame number) and the
        statistic's name (rounded as in `pair_table`), in that order and sorted by it.

    Raises
    ------
    CaptureError
        Where statistics differ.

    Examples
    --------
    >>> import numpy as np
    >>> capture = Capture.from_array(last_block=np.array([[0.5, 0.25]]), statistic="mass", layer=3)
    >>> print(profile_table(capture).to_string(index=False))
    run  layer  head  key  mass
             3     0    0  0.50
             3     0    1  0.25
    """
    listed = as_list(captures)
    return _concatenate([_profile_of(capture) for capture in listed], common_statistic(listed), 2)


def as_list(captures: Capture | Iterable[Capture]) -> list[Capture]:
    """Return one capture or several as a list that is not empty.

    Raises
    ------
    CaptureError
        Where there is none.
    """
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    if not listed:
        raise CaptureError("there is no capture, expected at least one")
    return listed


def common_statistic(captures: Sequence[Capture]) -> str:
    """Return the one statistic that all captures hold.

    Raises
    ------
    CaptureError
        Where they differ: a logit and a mass are never mixed under one name.
    """
    expect_alike(captures, "one statistic; handle them separately", ["statistic"])
    return captures[0].statistic


def round_values(values: npt.NDArray[Any], digits: int = DIGITS) -> npt.NDArray[np.float64]:
    """Return values with so many significant digits, as their shortest decimal numbers.

    Parameters
    ----------
    values : array
        Any shape; NaN stays.
    digits : int
        At least 1.

    Returns
    -------
    array of float64, same shape
        Magnitudes below 1e-290, which no axis could span, become 0.

    Examples
    --------
    >>> round_values(np.array([1 / 7, -12345.678, 0.0]))
    array([ 1.429e-01, -1.235e+04,  0.000e+00])
    """
    exact = np.asarray(values, dtype=np.float64)
    size = np.abs(exact)
    usual = (size >= 1e-15) & (size < 1e15)
    with np.errstate(all="ignore"):
        decimals = digits - 1 - np.floor(np.log10(size, where=usual, out=np.zeros_like(size)))
        # Whole numbers and powers of ten are exact here, so one division rounds correctly.
        up, down = 10.0 ** np.maximum(decimals, 0), 10.0 ** np.maximum(-decimals, 0)
        rounded = np.round(exact * up / down) / up * down
    rounded[size < _SMALLEST] = 0.0
    other = ~usual & (size >= _SMALLEST)
    rounded[other] = [float(f"{value:.{digits - 1}e}") for value in exact[other]]
    return np.where(np.isnan(exact), np.nan, rounded + 0.0)  # + 0.0 turns -0.0 into 0.0


def panel_pairs(panels: Sequence[tuple[Capture, int]], field: str = "panel") -> pd.DataFrame:
    """Return every visible pair of chosen heads as a row.

    Parameters
    ----------
    panels : sequence of (Capture, head)
        In the order of their panels; one statistic for all.
    field : str
        Name of a column that numbers them; ``"head"`` where the number is the head's.

    Returns
    -------
    DataFrame
        As of `pair_table`, sorted by panel, with the panel's number in front.

    Examples
    --------
    >>> capture = Capture.from_array(np.array([[[1.0]], [[2.0]]]), layer=7)
    >>> print(panel_pairs([(capture, 1), (capture, 0)]).to_string(index=False))
     panel run  layer  head  query  key  logit
         0          7     1      0    0    2.0
         1          7     0      0    0    1.0
    """
    return _of_panels(panels, field, lambda capture, head: _pairs_of(capture, [head]), 3)


def panel_profiles(panels: Sequence[tuple[Capture, int]], field: str = "panel") -> pd.DataFrame:
    """Return every visible key of the last-block row of chosen heads; see `panel_pairs`."""
    return _of_panels(panels, field, lambda capture, head: _profile_of(capture, [head]), 2)


def _of_panels(
    panels: Sequence[tuple[Capture, int]],
    field: str,
    read: Callable[[Capture, int], dict[str, npt.NDArray[Any]]],
    indices: int,
) -> pd.DataFrame:
    statistic = common_statistic([capture for capture, _ in panels])
    parts = [read(capture, head) for capture, head in panels]
    table = _concatenate(parts, statistic, indices)
    if field != "head":
        lengths = [len(part[statistic]) for part in parts]
        table.insert(0, field, np.repeat(np.arange(len(parts)), lengths))
    return table


def _pairs_of(capture: Capture, chosen: Sequence[int] | None = None) -> dict[str, npt.NDArray[Any]]:
    heads, queries, keys, values = [], [], [], []
    for head in range(capture.num_heads) if chosen is None else chosen:
        matrix = capture.head_matrix(head)
        query, key = np.nonzero(~np.isnan(matrix))
        heads.append(np.full(len(query), head))
        queries.append(np.asarray(capture.query_frames)[query])
        keys.append(np.asarray(capture.key_frames)[key])
        values.append(matrix[query, key])
    return _columns(capture, head=heads, query=queries, key=keys, value=values)


def _profile_of(
    capture: Capture, chosen: Sequence[int] | None = None
) -> dict[str, npt.NDArray[Any]]:
    numbers = np.arange(capture.num_heads) if chosen is None else np.asarray(chosen)
    rows = capture.last_block_rows[numbers]
    row, key = np.nonzero(~np.isnan(rows))
    keys = np.asarray(capture.key_frames)[key]
    return _columns(capture, head=[numbers[row]], key=[keys], value=[rows[row, key]])


def _columns(capture: Capture, **parts: list[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    rows = len(columns["value"])
    columns[capture.statistic] = round_values(columns.pop("value"))
    return {
        # A folder's name may hold bytes that are no UTF-8, which pyarrow's texts must be.
        "run": np.full(
            rows, capture.run.encode("utf-8", "backslashreplace").decode("utf-8"), dtype=object
        ),
        "layer": np.full(rows, capture.layer_index),
        **columns,
    }


def _concatenate(
    parts: list[dict[str, npt.NDArray[Any]]], statistic: str, indices: int
) -> pd.DataFrame:
    names = ["run", "layer", *["head", "query", "key"][:: 1 if indices == 3 else 2], statistic]
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in names})
