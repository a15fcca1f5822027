"""Sums over frame pairs, call after call -> one matrix that grows with the frames seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices

#: Frames that there is room for from the start.
_ROOM = 32


@dataclass
class PairSums:
    """What one call adds to the matrix of frame pairs.

    ``total``, (batch, heads, query slices, key slices), is a sum over what ``count`` counts (the
    maximum, for max_logit): token pairs (logit) or query tokens (after the softmax), 0 where
    hidden. ``count`` has 1 for a batch or heads that do not differ. ``variance`` is that of
    ``total`` where query tokens were sampled.
    """

    queries: FrameSlices
    keys: FrameSlices
    total: torch.Tensor
    count: npt.NDArray[np.float64]
    variance: torch.Tensor | None = None


class Matrix:
    """Sums and counts over frame pairs that grow with the frames that are seen."""

    def __init__(self, statistic: str) -> None:
        self.statistic = statistic
        self.total: torch.Tensor | None = None
        self.count: npt.NDArray[np.float64] = np.zeros((1, 1, 0, 0))
        self.variance: torch.Tensor | None = None
        self.used = (0, 0)

    def add(self, sums: PairSums) -> None:
        """Add what one call saw."""
        self._grow(sums)
        assert self.total is not None
        for q0, q1 in sums.queries.frame_runs:
            rows = slice(sums.queries.frames[q0], sums.queries.frames[q1 - 1] + 1)
            for k0, k1 in sums.keys.frame_runs:
                columns = slice(sums.keys.frames[k0], sums.keys.frames[k1 - 1] + 1)
                part = sums.total[:, :, q0:q1, k0:k1]
                target = self.total[:, :, rows, columns]
                if self.statistic == "max_logit":
                    torch.maximum(target, part, out=target)
                else:
                    target += part
                self.count[:, :, rows, columns] += sums.count[:, :, q0:q1, k0:k1]
                if sums.variance is not None and self.variance is not None:
                    self.variance[:, :, rows, columns] += sums.variance[:, :, q0:q1, k0:k1]

    def _grow(self, sums: PairSums) -> None:
        """Make room, more than needed, so that growing is seldom."""
        needed = (max(sums.queries.frames) + 1, max(sums.keys.frames) + 1)
        self.used = (max(self.used[0], needed[0]), max(self.used[1], needed[1]))
        batch, heads = sums.total.shape[:2]
        if self.total is None:
            self.total = sums.total.new_zeros((batch, heads, 0, 0))
            self.variance = None if sums.variance is None else self.total.clone()
        if self.total.shape[:2] != (batch, heads):
            raise RecordError(
                f"this call has {batch} batch elements and {heads} heads, the calls before had "
                f"{self.total.shape[0]} and {self.total.shape[1]}; pass batch=0 or 'mean', or "
                "record one model at a time (model=)"
            )
        counts = np.broadcast_shapes(self.count.shape[:2], sums.count.shape[:2])
        rows, columns = self.total.shape[2:]
        sizes = [
            size if enough <= size else max(enough, size + size // 2, _ROOM)
            for size, enough in zip((rows, columns), needed, strict=True)
        ]
        if sizes == [rows, columns] and counts == self.count.shape[:2]:
            return
        more = (0, sizes[1] - columns, 0, sizes[0] - rows)
        empty = -torch.inf if self.statistic == "max_logit" else 0.0
        self.total = torch.nn.functional.pad(self.total, more, value=empty)
        if self.variance is not None:
            self.variance = torch.nn.functional.pad(self.variance, more)
        wide = np.broadcast_to(self.count, (*counts, rows, columns))
        self.count = np.pad(wide, ((0, 0), (0, 0), (0, more[3]), (0, more[1])))
