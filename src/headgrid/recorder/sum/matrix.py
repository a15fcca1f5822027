"""Sums of one layer, call after call -> its matrix of frame pairs.

A *block* is the queries of one call, named by their token positions. A block
that is seen again is another *forward* of it (a denoising step, say), and the
option ``forwards`` says which of them count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.fingerprints import HOW_TO_DECLARE, Fingerprints
from headgrid.recorder.place.segments import Segments, Spans, join_spans
from headgrid.recorder.sum.logits import PairSums


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
        if not len(sums.queries) or not len(sums.keys):
            return
        self._grow(sums)
        assert self.total is not None
        for q0, q1 in sums.queries.frame_runs():
            rows = slice(sums.queries.frames[q0], sums.queries.frames[q1 - 1] + 1)
            for k0, k1 in sums.keys.frame_runs():
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
        needed = (max(sums.queries.frames) + 1, max(sums.keys.frames) + 1)
        self.used = (max(self.used[0], needed[0]), max(self.used[1], needed[1]))
        batch, heads = sums.total.shape[:2]
        if self.total is None:
            shape = (batch, heads, *needed)
            self.total = self._blank(sums.total, shape)
            self.count = np.zeros((*sums.count.shape[:2], *needed))
            if sums.variance is not None:
                self.variance = torch.zeros_like(self.total)
            return
        if self.total.shape[:2] != (batch, heads):
            raise RecordError(
                f"this call has {batch} batch elements and {heads} heads, the calls before had "
                f"{self.total.shape[0]} and {self.total.shape[1]}; pass batch=0 or 'mean', or "
                "record one model at a time (model=)"
            )
        counts = np.broadcast_shapes(self.count.shape[:2], sums.count.shape[:2])
        rows, columns = self.total.shape[2:]
        if needed[0] <= rows and needed[1] <= columns and counts == self.count.shape[:2]:
            return
        size = (_enlarge(rows, needed[0]), _enlarge(columns, needed[1]))
        grown = self._blank(self.total, (batch, heads, *size))
        grown[:, :, :rows, :columns] = self.total
        count = np.zeros((*counts, *size))
        count[:, :, :rows, :columns] = self.count
        if self.variance is not None:
            variance = self.variance.new_zeros((batch, heads, *size))
            variance[:, :, :rows, :columns] = self.variance
            self.variance = variance
        self.total, self.count = grown, count

    def _blank(self, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        empty = -torch.inf if self.statistic == "max_logit" else 0.0
        return like.new_full(shape, empty)


def _enlarge(size: int, needed: int) -> int:
    """Return a size that grows by half where it has to, so that growing is seldom."""
    return size if needed <= size else max(needed, size + size // 2)


@dataclass
class LayerFacts:
    """What is known of a layer beside its matrix, for the capture's metadata."""

    number: int
    path: str
    model_class: str
    place: str = ""
    function: str = ""
    dtype: str = ""
    heads: int = 0
    key_heads: int = 0
    head_dim: int = 0
    scale: float = 0.0


@dataclass
class LayerRecord:
    """Everything recorded of one layer."""

    facts: LayerFacts
    statistic: str
    forwards: str | int | None
    calls: int = 0
    seen: dict[Spans, int] = field(default_factory=dict)
    covered: Spans = ()
    matrices: dict[int, Matrix] = field(default_factory=dict)
    latest: dict[Spans, PairSums] = field(default_factory=dict)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)

    def count_forward(self, block: Spans, segments: Segments) -> int:
        """Return which forward of a block this is, from 0."""
        if block in self.seen:
            if self.forwards is None:
                raise RecordError(
                    f"{self.facts.path}: {name_frames(segments, block)} came a second time "
                    f"(at {self.facts.place}); pass forwards='first' (noisiest), 'last' (clean), "
                    "'mean' or 'all' if the model runs each block several times"
                )
            return self.seen[block]
        for start, stop in block:
            for low, high in self.covered:
                if start < high and stop > low:
                    raise RecordError(
                        f"{self.facts.path}: {name_frames(segments, block)} overlap queries seen "
                        f"before (tokens {low} to {high}) without being the same block; the cache "
                        f"has rolled, or positions are wrong: {HOW_TO_DECLARE}"
                    )
        return 0

    def counts(self, forward: int) -> bool:
        """Return whether a forward of a block is recorded."""
        if self.forwards in (None, "first"):
            return forward == 0
        return forward == self.forwards if isinstance(self.forwards, int) else True

    def commit(self, block: Spans, forward: int, sums: PairSums | None) -> None:
        """Enter a call that has run."""
        self.calls += 1
        if block not in self.seen:
            self.covered = join_spans(sorted([*self.covered, *block]))
        self.seen[block] = forward + 1
        if sums is None:
            return
        if self.forwards == "last":
            self.latest[block] = sums
            return
        number = forward if self.forwards == "all" else 0
        self.matrices.setdefault(number, Matrix(self.statistic)).add(sums)

    def finish(self) -> dict[int, Matrix]:
        """Return the matrices by forward (all under 0 unless ``forwards`` is "all")."""
        for sums in self.latest.values():
            self.matrices.setdefault(0, Matrix(self.statistic)).add(sums)
        self.latest.clear()
        return self.matrices


def name_frames(segments: Segments, block: Spans) -> str:
    """Return the frames (or the tokens, where they are no whole frames) of a block."""
    frames = segments.slice_frames(block).frames
    if not frames:
        return f"query tokens {block[0][0]} to {block[-1][1]}"
    numbers = f"{frames[0]}" if frames[0] == frames[-1] else f"{frames[0]}-{frames[-1]}"
    return f"query frames {numbers} (tokens {block[0][0]} to {block[-1][1]})"
