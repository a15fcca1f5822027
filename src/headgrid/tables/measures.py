"""One capture -> the measures of each of its heads, in float64, over visible keys only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.capture.axis import FRAME, Axis
from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import check_choice, check_whole
from headgrid.tables.stats import (
    diagonal_and_first_key,
    head_table,
    pairs_mean,
    row_statistics,
    visible_groups,
)

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, npt.NDArray[np.float64]]

#: The recent band is so many of the last visible keys.
RECENT_KEYS = 4


@dataclass(frozen=True)
class Measure:
    """What a number of a head is: the title of its axis, a sentence about it, unit and sign.

    The unit is ``"statistic"`` where values have the capture's unit, and empty where they
    have none. The sign is ``"two"`` where values always lie on both sides of zero, ``"one"``
    where they never do, ``"statistic"`` where they do if the capture's values do.
    """

    title: str
    description: str
    unit: str = "statistic"
    sign: Literal["two", "one", "statistic"] = "statistic"


#: Every measure, in the order of the columns.
MEASURES = {
    "first": Measure("First Key", "value of the last-block row at key frame 0"),
    "mid": Measure(
        "Middle Keys", "mean of the last-block row without its first and last visible key"
    ),
    "last": Measure("Last Key", "value of the last-block row at the last visible key"),
    "sink": Measure("Sink Score", "first \u2212 mid; positive means an attention sink", sign="two"),
    "diagonal_mean": Measure(
        "Layer's Diagonal", "mean over all heads' visible pairs with equal frame numbers"
    ),
    "first_key_mean": Measure(
        "Layer's First Key", "mean over all heads' visible pairs with key frame 0"
    ),
    "head_diagonal_mean": Measure(
        "Diagonal", "mean over the head's visible pairs with equal frame numbers"
    ),
    "head_first_key_mean": Measure(
        "First Key, All Queries", "mean over the head's visible pairs with key frame 0"
    ),
    "entropy": Measure(
        "Entropy of the Row",
        "entropy of the last-block row, normalised to sum 1; of masses only",
        "nats",
        "one",
    ),
    "effective_keys": Measure(
        "Effective Number of Keys", "exp(entropy): keys that share the attention", "keys", "one"
    ),
    "positive_share": Measure(
        "Share of Positive Keys", "share of the last-block row's keys above 0", "", "one"
    ),
    "sink_band": Measure("Sink Band", "value of the last-block row at key frame 0"),
    "middle_band": Measure(
        "Middle Band", "mean of the last-block row between the sink and the recent band"
    ),
    "recent_band": Measure(
        "Recent Band", "mean of the last-block row over its last visible keys, never key 0"
    ),
    "sink_band_keys": Measure("Keys in the Sink Band", "width of the sink band", "keys", "one"),
    "middle_band_keys": Measure(
        "Keys in the Middle Band", "width of the middle band", "keys", "one"
    ),
    "recent_band_keys": Measure(
        "Keys in the Recent Band", "width of the recent band", "keys", "one"
    ),
    "period": Measure(
        "Dominant Period", "strongest period of the last-block row along keys", "frames", "one"
    ),
}

#: Measures that count keys: whole numbers in a table.
COUNTS = tuple(name for name in MEASURES if name.endswith("_band_keys"))


def measure_heads(capture: Capture, *, recent_keys: int = RECENT_KEYS) -> Columns:
    """Return every measure of every head, each of shape (heads,), in the order of `MEASURES`.

    NaN where there is no such value, as without a full matrix for means over it; of
    ``recent_keys``, at least 1, see `measure_table`.
    """
    check_whole("recent_keys", recent_keys)
    diagonal, first_key = diagonal_and_first_key(capture)
    found = row_statistics(capture) | {
        "diagonal_mean": np.full(capture.num_heads, pairs_mean(diagonal)),
        "first_key_mean": np.full(capture.num_heads, pairs_mean(first_key)),
        "head_diagonal_mean": _mean_of_each(diagonal),
        "head_first_key_mean": _mean_of_each(first_key),
    }
    for name in MEASURES.keys() - found.keys():  # what stays of a row without a visible key
        found[name] = np.full(capture.num_heads, 0.0 if name.endswith("_band_keys") else np.nan)
    for heads, keys, rows in visible_groups(capture.last_block_rows):
        measures = _band_measures(rows, capture.key_frames[keys[0]] == 0, recent_keys)
        measures["positive_share"] = (rows > 0).mean(axis=1)
        measures["period"] = dominant_periods(rows, [capture.key_frames[key] for key in keys])
        if capture.statistic == "mass":
            measures["entropy"] = entropies = _row_entropies(rows)
            measures["effective_keys"] = _exactly(np.exp, entropies)
        for name, values in measures.items():
            found[name][heads] = values
    return {name: found[name] for name in MEASURES}


def dominant_periods(rows: npt.ArrayLike, key_frames: Iterable[int]) -> npt.NDArray[np.float64]:
    """Return the period, in frames, that is strongest in each row [heads, keys] along the keys.

    The first difference of the row (which takes the level away and weakens slow changes),
    times a Hann window, goes through a real FFT; of the bins of power without bin 0, the
    strongest, bin k, gives the period N / k times the step between frames, for N differences.
    Of equally strong bins the longest period counts. NaN where there are fewer than 5 keys,
    where the frame numbers have no constant step, and for a row that does not vary.

    Only the periods N, N/2, N/3, ... to two steps can be told apart. A trend across the row
    leaks into the first bins, so that a period of N or N/2 may be no more than a slope; the
    window is 0 at both ends, so a jump there, a sink for one, does not count.

    >>> frames = np.arange(25)
    >>> dominant_periods([np.sin(2 * np.pi * frames / 6), 0.0 * frames], frames)
    array([ 6., nan])
    """
    values, frames = np.asarray(rows, dtype=np.float64), np.asarray(list(key_frames))
    periods = np.full(len(values), np.nan)
    steps = np.diff(frames)
    if len(frames) < 5 or bool((steps != steps[0]).any()):  # fewer make less than two bins
        return periods
    changes = np.diff(values, axis=1) * np.hanning(len(steps))
    largest = np.abs(changes).max(axis=1)
    varies = largest > 0
    spectrum = np.fft.rfft(changes[varies] / largest[varies, None], axis=1)[:, 1:]
    power = spectrum.real**2 + spectrum.imag**2
    # Bins that are equal but for rounding count as equal: every machine finds the same one.
    strong = power >= power.max(axis=1, keepdims=True) * (1 - 1e-9)
    periods[varies] = len(steps) * float(steps[0]) / (strong.argmax(axis=1) + 1)
    return periods


class Summary(NamedTuple):
    """One measure of all heads over runs, and what it was measured of.

    The table has ``set``, ``layer``, ``head`` (missing in a layer's mean over heads), ``runs``,
    ``mean`` and ``std``; ``key_name`` is what a key is called.

    >>> import pandas as pd
    >>> period = Summary(pd.DataFrame(), "period", "logit", "Patch")
    >>> period.title, period.diverges
    ('Dominant Period (patches)', False)
    """

    table: pd.DataFrame
    name: str
    statistic: str
    key_name: str = FRAME
    description: str = ""

    @property
    def measure(self) -> Measure:
        """The measure, or one that no survey has: ``cache_95``, the smallest cache for 95 %."""
        if self.name in ("cache_90", "cache_95", "cache_99"):
            share = self.name[-2:]
            told = f"fewest key frames that keep {share} % of the mass, on average over blocks"
            return Measure(f"Smallest Cache for {share}\u00a0%", told, "frames", "one")
        return MEASURES[check_choice("measure", self.name, MEASURES)]

    @property
    def title(self) -> str:
        """The measure with its unit."""
        unit = self.measure.unit
        if unit == "statistic":
            unit = STATISTICS[self.statistic].unit
        elif unit == "frames":
            unit = Axis(self.key_name, ()).nouns
        return f"{self.measure.title} ({unit})" if unit else self.measure.title

    @property
    def meaning(self) -> str:
        """The sentence about the measure, with what a key is called."""
        return self.measure.description.replace("frame", Axis(self.key_name, ()).noun)

    @property
    def diverges(self) -> bool:
        """Whether the measure has two signs, with zero in the middle."""
        sign = self.measure.sign
        return STATISTICS[self.statistic].signed if sign == "statistic" else sign == "two"


def measure_table(
    captures: Capture | Iterable[Capture], *, recent_keys: int = RECENT_KEYS
) -> pd.DataFrame:
    """Return the measures of every head, tidy.

    Parameters
    ----------
    captures : Capture or iterable of Capture
        With a full matrix or with the last block's row alone; read once, and none is kept.
    recent_keys : int
        Width of the recent band, at least 1.

    Returns
    -------
    DataFrame
        One row per run x layer x head, in the order of the captures: ``set`` (empty),
        ``run``, ``layer``, ``head``, ``statistic``, then in float64, not rounded, and NaN
        where there is no such value:

        ``first``, ``mid``, ``last``, ``sink``
            As `headgrid.head_statistics` has them.
        ``diagonal_mean``, ``first_key_mean``
            The layer's, as `headgrid.layer_statistics` has them, the same for
            every head; ``head_diagonal_mean`` and ``head_first_key_mean`` are
            the head's own. NaN without a full matrix.
        ``entropy``, ``effective_keys``
            ``-sum(p ln p)`` in nats, 0 to ln(keys), and its exponential, 1 to
            keys, where ``p`` is the last-block row divided by its sum. Only
            where the statistic is ``mass``; NaN for a row with a negative
            value or without a positive one.
        ``positive_share``
            Share of the row's visible keys whose value is above 0.
        ``sink_band``, ``middle_band``, ``recent_band``
            Means of the row over key frame 0, over the last ``recent_keys``
            visible keys but never key frame 0, and over the visible keys that
            are left; ``sink_band_keys``, ``middle_band_keys`` and
            ``recent_band_keys`` (int) are the numbers of keys in them.
        ``period``
            See `headgrid.tables.measures.dominant_periods`.

    Raises
    ------
    OptionError
        Where ``recent_keys`` is not a whole number of at least 1.

    Examples
    --------
    >>> table = measure_table(Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]], layer=3))
    >>> print(table[["layer", "head", "statistic", "first", "sink"]].to_string(index=False))
     layer  head statistic  first  sink
         3     0     logit    5.0   3.5
    """
    columns = ["set", "run", "layer", "head", "statistic", *MEASURES]
    table = head_table(captures, columns, partial(measure_heads, recent_keys=recent_keys))
    return table.astype(dict.fromkeys(COUNTS, "int64"))


def _mean_of_each(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each row, NaN left out; NaN for a row without a value."""
    seen = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(seen, rows, 0.0).sum(axis=1) / seen.sum(axis=1))


def _band_measures(
    rows: npt.NDArray[np.float64], has_zero: bool, recent_keys: int
) -> dict[str, npt.NDArray[np.float64] | float]:
    """Return the means and widths of the three bands that part the visible keys."""
    start = 1 if has_zero else 0
    recent = max(start, rows.shape[1] - recent_keys)
    bands = {"sink": rows[:, :start], "middle": rows[:, start:recent], "recent": rows[:, recent:]}
    measures: dict[str, npt.NDArray[np.float64] | float] = {}
    for name, band in bands.items():
        measures[f"{name}_band"] = _mean_of_each(band)
        measures[f"{name}_band_keys"] = float(band.shape[1])
    return measures


def _row_entropies(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return -sum(p ln p) of each row of masses, 0 ln 0 being 0."""
    largest = rows.max(axis=1, keepdims=True)
    valid = (rows >= 0).all(axis=1) & (largest[:, 0] > 0)
    shares = rows[valid] / largest[valid]
    shares /= shares.sum(axis=1, keepdims=True)
    logs = _exactly(np.log, np.where(shares > 0, shares, 1.0))
    entropies = np.full(len(rows), np.nan)
    entropies[valid] = np.maximum(-(shares * logs).sum(axis=1), 0.0)
    return entropies


def _exactly(function: np.ufunc, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a function's values by way of extended precision.

    numpy's own logarithm and exponential in double precision differ in the last
    bit from one kind of processor to the next, and so would the files they go into.
    """
    return np.asarray(function(values.astype(np.longdouble)), dtype=np.float64)
