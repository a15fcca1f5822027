"""Captures of one layer over runs -> captures of their mean and standard deviation.

Means and sums of squared deviations are kept in float64, cell by cell, over the runs that recorded
a cell, and merged by the pairwise update of Chan, T. F., Golub, G. H., LeVeque, R. J. (1983),
Algorithms for computing the sample variance, The American Statistician 37(3), 242-247:

    n = n_a + n_b,  d = mean_b - mean_a
    mean = mean_a + d n_b / n,  m2 = m2_a + m2_b + d^2 n_a n_b / n

The same merges in the same order give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.form import CaptureForm
from headgrid.capture.model import Capture
from headgrid.capture.schema import AXIS_KEYS, FULL, LAST, LIST_KEYS
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError


@dataclass(frozen=True, eq=False)
class Moments:
    """Of many numbers, element by element: how many, their mean (NaN of none), the sum m2 above."""

    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Moments:
        """Return the moments of one value an element; NaN counts as none."""
        mean = np.asarray(values, dtype=np.float64)
        return cls((~np.isnan(mean)).astype(np.int64), mean, np.zeros_like(mean))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the values of both, which have one shape."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        ours = np.where(self.count > 0, self.mean, 0.0)
        with np.errstate(over="ignore"):  # beyond 1e154, an infinite deviation says so
            change = np.where(other.count > 0, other.mean, 0.0) - ours
            mean = np.where(count > 0, ours + change * share, np.nan)
            # In this order a side without values adds nothing, however large the other is.
            m2 = self.m2 + other.m2 + change * (self.count * share) * change
        return Moments(count, mean, m2)

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of the sample (divided by count - 1); NaN below two values."""
        deviation = np.full(self.m2.shape, np.nan)
        np.divide(self.m2, self.count - 1, out=deviation, where=self.count > 1)
        return np.asarray(np.sqrt(deviation))


@dataclass(frozen=True, eq=False, repr=False)
class CaptureMoments:
    """One layer over runs of one form: the moments of every cell; a single run as it was read.

    ``prompt`` is empty where runs have different ones.
    """

    form: CaptureForm
    layer: int
    prompt: str
    runs: int = 1
    #: The run's capture, without its metadata, where there is only one.
    single: Capture | None = None
    #: Shape (heads, query + 1, key), the last block's rows below the full matrix, if there is one.
    cells: Moments | None = None

    @classmethod
    def of(cls, capture: Capture) -> CaptureMoments:
        """Return the moments of one run."""
        lean = capture.replace(metadata={})
        return cls(CaptureForm.of(capture), capture.layer_index, capture.prompt, single=lean)

    def merge(self, other: CaptureMoments) -> CaptureMoments:
        """Return the moments of the runs of both, which have one layer and form, this one's first.

        Refuse deviations and differences, which have no mean.
        """
        if not STATISTICS[self.form.statistic].has_mean:
            names = " and ".join(one.single.source for one in (self, other) if one.single)
            raise CaptureError(
                f"{names} hold {self.form.statistic} of several runs, which has no mean over runs; "
                "survey the captures that they were made of"
            )
        form, runs = self.form.meet(other.form), self.runs + other.runs
        prompt = self.prompt if self.prompt == other.prompt else ""
        cells = self._find_cells().merge(other._find_cells())
        return CaptureMoments(form, self.layer, prompt, runs, cells=cells)

    def mean_capture(self) -> Capture:
        """Return the mean of each cell over the runs that recorded it (NaN: none did).

        In float64, or a single run's values as they are; ``logit_mean`` of logits and of
        means of logits, and so on.
        """
        if (one := self.single) is not None:
            return self._capture("mean", one.full_frame_attention, one.last_block_frame_attention)
        mean = self._find_cells().mean
        return self._capture("mean", mean[:, :-1], mean[:, -1])

    def deviation_capture(self) -> Capture:
        """Return the standard deviation of each cell over several runs, ``logit_std`` and so on.

        In float64, of the sample; NaN where fewer than two runs recorded a cell.
        """
        std = self._find_cells().std
        return self._capture("deviation", std[:, :-1], std[:, -1])

    def _find_cells(self) -> Moments:
        if (one := self.single) is None:
            assert self.cells is not None
            return self.cells
        if (matrix := one.full_frame_attention) is None:
            return Moments.of(one.last_block_rows[:, None])
        heads, queries, keys = matrix.shape
        cells = np.full((heads, queries + 1, keys), np.nan)
        np.copyto(cells[:, :-1], matrix, where=one.attendable)
        cells[:, -1] = one.last_block_rows
        return Moments.of(cells)

    def _capture(self, what: str, full: npt.NDArray[Any] | None, rows: npt.NDArray[Any]) -> Capture:
        base = STATISTICS[self.form.statistic].base
        data = {
            "layer_index": self.layer,
            **{name: getattr(self.form, name) for name in (*LIST_KEYS, *AXIS_KEYS)},
            FULL: full if self.form.has_matrix else None,
            LAST: rows,
            "statistic": f"{base}_{'mean' if what == 'mean' else 'std'}",
            "prompt": self.prompt,
            "num_runs": self.runs,
        }
        run = f"{what} of {self.runs} run{'' if self.runs == 1 else 's'}"
        return Capture.from_dict(data, source=f"{run}, layer {self.layer}", run=run)
