"""Captures -> long-form DataFrames, one row a visible value; the one place that rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from headgrid.capture.form import expect_alike
from headgrid.capture.model import Capture
from headgrid.capture.schema import Array
from headgrid.errors import CaptureError
from headgrid.options import SMALLEST_SPAN
from headgrid.tables.stats import each_capture

#: Significant digits of a value in a table. A step of the 256-step palette is
#: coarser than the fourth digit, and float16, as most captures are, has hardly more.
DIGITS = 4


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
        `DIGITS` significant digits), in that order and sorted by it. Where an axis of some
        capture has labels, ``query_label`` or ``key_label`` (str) stands behind its number.

    Raises
    ------
    CaptureError
        Where a capture has no full matrix, statistics differ, or there is no capture.

    Examples
    --------
    >>> capture = Capture.from_array([[[1.0, 9.0], [2.0, 3.0]]], block_sizes=[1, 1])
    >>> print(pair_table(capture).to_string(index=False))
    run  layer  head  query  key  logit
             0     0      0    0    1.0
             0     0      1    0    2.0
             0     0      1    1    3.0
    """
    return panel_pairs(_heads_of(captures), "head")


def profile_table(captures: Capture | Iterable[Capture]) -> pd.DataFrame:
    """Return every visible key of every head's last-block row as a row.

    Returns
    -------
    DataFrame
        Columns ``run``, ``layer``, ``head``, ``key`` (frame number) and the
        statistic's name (rounded as in `pair_table`), in that order and sorted by it; with
        ``key_label`` as there.

    Raises
    ------
    CaptureError
        Where statistics differ, or there is no capture.

    Examples
    --------
    >>> capture = Capture.from_array(last_block=[[0.5, 0.25]], statistic="mass", layer=3)
    >>> print(profile_table(capture).to_string(index=False))
    run  layer  head  key  mass
             3     0    0  0.50
             3     0    1  0.25
    """
    return panel_profiles(_heads_of(captures), "head")


def panel_pairs(panels: Sequence[tuple[Capture, int]], field: str = "panel") -> pd.DataFrame:
    """Return every visible pair of chosen heads, in the order of their panels, as a row.

    The columns are those of `pair_table`, with the panel's number in front, under the name
    ``field``; ``"head"`` where the number is the head's.

    >>> capture = Capture.from_array([[[1.0]], [[2.0]]], layer=7)
    >>> print(panel_pairs([(capture, 1), (capture, 0)]).to_string(index=False))
     panel run  layer  head  query  key  logit
         0          7     1      0    0    2.0
         1          7     0      0    0    1.0
    """
    return _table(panels, field, lambda capture, head: capture.head_matrix(head))


def panel_profiles(panels: Sequence[tuple[Capture, int]], field: str = "panel") -> pd.DataFrame:
    """Return every visible key of the last-block row of chosen heads; see `panel_pairs`."""
    return _table(panels, field, lambda capture, head: capture.last_block_rows[head])


def round_values(values: npt.NDArray[Any], digits: int = DIGITS) -> npt.NDArray[np.float64]:
    """Return values, of any shape, with so many significant digits, as shortest decimal numbers.

    NaN stays; magnitudes below 1e-290, which no axis could span, become 0.

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
    rounded[size < SMALLEST_SPAN] = 0.0
    other = ~usual & (size >= SMALLEST_SPAN)
    rounded[other] = [float(f"{value:.{digits - 1}e}") for value in exact[other]]
    return np.where(np.isnan(exact), np.nan, rounded + 0.0)  # + 0.0 turns -0.0 into 0.0


def _heads_of(captures: Capture | Iterable[Capture]) -> list[tuple[Capture, int]]:
    listed = list(each_capture(captures))
    if not listed:
        raise CaptureError("there is no capture, expected at least one")
    return [(capture, head) for capture in listed for head in range(capture.num_heads)]


def _table(
    panels: Sequence[tuple[Capture, int]], field: str, read: Callable[[Capture, int], Array]
) -> pd.DataFrame:
    """Return what is visible in an array of each panel, [query, key] or [key], as rows."""
    captures, heads = zip(*panels, strict=True)
    if len({capture.statistic for capture in captures}) > 1:
        expect_alike(captures, "one statistic; handle them separately", ["statistic"])
    places, values = [], []
    for capture, head in panels:
        found = read(capture, head)
        places.append(np.nonzero(~np.isnan(found)))
        values.append(round_values(found[places[-1]]))
    columns: dict[str, Any] = {} if field == "head" else {field: range(len(panels))}
    columns |= {
        "run": np.array([capture.run for capture in captures], dtype=object),
        "layer": [capture.layer_index for capture in captures],
        "head": heads,
    }
    counts = list(map(len, values))
    columns = {name: np.repeat(column, counts) for name, column in columns.items()}
    for number, side in enumerate(["query", "key"][-len(places[0]) :]):
        axes = [getattr(capture, f"{side}_axis") for capture in captures]
        numbers = [np.asarray(a.numbers)[at[number]] for a, at in zip(axes, places, strict=True)]
        columns[side] = np.concatenate(numbers)
        if any(axis.labels for axis in axes):
            named = [axis.look_up(own) for axis, own in zip(axes, numbers, strict=True)]
            columns[f"{side}_label"] = np.concatenate(named)
    return pd.DataFrame(columns | {captures[0].statistic: np.concatenate(values)})
