"""Values -> their pooled quantiles, in one pass, in bounded memory, with a stated error.

The quantiles of many captures are those of all their values together, never means or extremes of
each capture's own. A sketch of each is small, and merging is exact: counts in fixed buckets are
added, so that every order of files and workers gives the same bytes (with t-digest it does not,
and KLL draws random numbers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import OptionError

#: Bits of the mantissa that tell buckets apart. float16 has 10 and bfloat16 7:
#: their values (but the tiniest) are centres of buckets, and lose nothing.
MANTISSA_BITS = 11

#: Largest error of a value of the sample, as a share of its magnitude: half a bucket.
RELATIVE_ERROR = 2.0 ** -(MANTISSA_BITS + 1)

_DROPPED_BITS = 52 - MANTISSA_BITS
_HALF_BUCKET = 1 << (_DROPPED_BITS - 1)
_MAGNITUDE = (1 << 63) - 1

#: So many values are looked at together: 8 MB of each intermediate array.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class QuantileSketch:
    """How many values fell into each of a fixed set of narrow buckets.

    A bucket holds the float64 numbers that agree in sign, exponent and, rounded to the nearest,
    in the first 11 bits of the mantissa; that of zero also magnitudes below 2**-1034. Only buckets
    that hold a value are stored, by their increasing numbers: of attention between 1e-6 and 100 up
    to 110,000, 1.3 MB, of one capture a few thousand.
    """

    buckets: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.ArrayLike) -> QuantileSketch:
        """Return the sketch of values, finite or NaN, which is left out, looked at in pieces."""
        flat = np.asarray(values).reshape(-1)
        sketch = _count_buckets(flat[:_CHUNK])
        for start in range(_CHUNK, len(flat), _CHUNK):
            sketch = sketch.merge(_count_buckets(flat[start : start + _CHUNK]))
        return sketch

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Return the sketch of the values of both: exact, and the same in any order."""
        if not len(self.buckets) or not len(other.buckets):
            return self if len(self.buckets) else other
        buckets = np.concatenate([self.buckets, other.buckets])
        counts = np.concatenate([self.counts, other.counts])
        order = np.argsort(buckets, kind="stable")
        buckets, counts = buckets[order], counts[order]
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        return QuantileSketch(buckets[starts], np.add.reduceat(counts, starts))

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def smallest_positive(self) -> float:
        """The smallest value above 0, as exact as `quantile`; infinity where there is none."""
        positive = self.buckets[self.buckets > 0]
        return float(_centers(positive[:1])[0]) if len(positive) else math.inf

    def quantile(self, q: float) -> float:
        """Return the value below which a share ``q`` (0 to 1) of the values lies; NaN of none.

        Defined as numpy's default is: the values, sorted, stand at 0 to 1 in equal steps, with
        straight lines between them. Each value stands at the centre of its bucket, so the result
        is off by at most `RELATIVE_ERROR` times the larger magnitude of the two neighbours.
        """
        if not 0 <= q <= 1:
            raise OptionError(f"quantile is {q}, expected a share from 0 to 1, as in 0.99")
        count = self.count
        if not count:
            return float("nan")
        position = float(q) * (count - 1)
        rank = min(int(position), count - 1)
        ranks = [rank, min(rank + 1, count - 1)]
        at = np.searchsorted(np.cumsum(self.counts), ranks, side="right")
        low, high = (float(value) for value in _centers(self.buckets[at]))
        return low + (high - low) * (position - rank)


def _count_buckets(values: npt.NDArray[Any]) -> QuantileSketch:
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    bits = numbers.view(np.int64)
    keys = (((bits & _MAGNITUDE) + _HALF_BUCKET) >> _DROPPED_BITS).astype(np.int32)
    np.negative(keys, out=keys, where=bits < 0)
    buckets, counts = np.unique(keys, return_counts=True)
    return QuantileSketch(buckets, counts.astype(np.int64))


def _centers(buckets: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the value in the middle of each bucket."""
    magnitudes = (np.abs(buckets.astype(np.int64)) << _DROPPED_BITS).view(np.float64)
    return np.where(buckets < 0, -magnitudes, magnitudes)
