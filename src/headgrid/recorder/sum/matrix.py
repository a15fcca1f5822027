"""Sums over frame pairs, call after call -> one matrix that grows with the frames seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices, Segments

#: Frames that there is room for from the start.
_ROOM = 32


@dataclass
class PairSums:
    """What one call adds to the matrix of frame pairs.

    ``totals``, (1 or 2, batch, heads, query slices, key slices), has a sum over what ``count``
    counts (the maximum, for max_logit): token pairs (logit) or query tokens (after the softmax), 0
    where hidden; and the variance of that sum where query tokens were sampled. ``count`` has 1 for
    a batch or heads that do not differ.
    """

    queries: FrameSlices
    keys: FrameSlices
    totals: torch.Tensor
    count: npt.NDArray[np.float64]


class Matrix:
    """Sums and counts over frame pairs, of the shape of the first, that grow with the frames."""

    def __init__(self, statistic: str, first: PairSums) -> None:
        self.statistic = statistic
        self.totals = first.totals[..., :0, :0]
        self.count: npt.NDArray[np.float64] = np.zeros((1, 1, 0, 0))
        self.used = (0, 0)

    def add(self, sums: PairSums) -> None:
        """Add what one call saw."""
        self._grow(sums)
        for q0, q1 in sums.queries.frame_runs:
            rows = slice(sums.queries.frames[q0], sums.queries.frames[q1 - 1] + 1)
            for k0, k1 in sums.keys.frame_runs:
                columns = slice(sums.keys.frames[k0], sums.keys.frames[k1 - 1] + 1)
                target = self.totals[..., rows, columns]
                part = sums.totals[..., q0:q1, k0:k1]
                if self.statistic == "max_logit":
                    torch.maximum(target, part, out=target)
                else:
                    target += part
                self.count[..., rows, columns] += sums.count[..., q0:q1, k0:k1]

    def take(self) -> PairSums:
        """Return all that was added as what one call would add, on the host."""
        rows, columns = self.used
        places = Segments.equal(1)
        return PairSums(
            places.slice_frames(((0, rows),)),
            places.slice_frames(((0, columns),)),
            self.totals[..., :rows, :columns].cpu(),
            self.count[..., :rows, :columns],
        )

    def _grow(self, sums: PairSums) -> None:
        """Make room, more than needed, so that growing is seldom."""
        needed = (max(sums.queries.frames) + 1, max(sums.keys.frames) + 1)
        self.used = (max(self.used[0], needed[0]), max(self.used[1], needed[1]))
        _, batch, heads, rows, columns = self.totals.shape
        if sums.totals.shape[1:3] != (batch, heads):
            raise RecordError(
                f"this call has {sums.totals.shape[1]} batch elements and {sums.totals.shape[2]} "
                f"heads, the calls before had {batch} and {heads}; pass batch=0 or 'mean', or "
                "record one model at a time (model=)"
            )
        counts = np.broadcast_shapes(self.count.shape[:2], sums.count.shape[:2])
        sizes = [
            size if enough <= size else max(enough, size + size // 2, _ROOM)
            for size, enough in zip((rows, columns), needed, strict=True)
        ]
        if sizes == [rows, columns] and counts == self.count.shape[:2]:
            return
        more = (0, sizes[1] - columns, 0, sizes[0] - rows)
        empty = -torch.inf if self.statistic == "max_logit" else 0.0
        self.totals = torch.nn.functional.pad(self.totals, more, value=empty)
        wide = np.broadcast_to(self.count, (*counts, rows, columns))
        self.count = np.pad(wide, ((0, 0), (0, 0), (0, more[3]), (0, more[1])))
