"""Pooled keys, call after call -> whether a cached frame changed under its number.

A cache that keeps its keys shows the same pooled keys for a frame in every call.
Where they differ, the cache has rolled, or was encoded again, and a matrix that
went by token counts would put frames in wrong places.
"""

from __future__ import annotations

import numpy as np
import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices, Segments, Spans
from headgrid.text import shorten_list

#: Numbers kept of each pooled key: random projections, so that no frame pair collides.
WIDTH = 4


class Fingerprints:
    """What the pooled keys of each frame of one layer looked like when last seen."""

    def __init__(self) -> None:
        self._marks: torch.Tensor | None = None  # [frames, numbers]
        self._known = np.zeros(0, dtype=bool)
        self._suspect: torch.Tensor | None = None  # [frames], on devices that run ahead

    def compare(
        self,
        pooled: torch.Tensor,
        slices: FrameSlices,
        segments: Segments,
        queries: Spans,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, list[int], list[int], str | None]:
        """Compare the keys of a call with those seen before."""
        complete = [
            index
            for index, frame in enumerate(slices.frames)
            if slices.lengths[index] == segments.length(frame)
        ]
        frames = [slices.frames[index] for index in complete]
        marks = _project(pooled, slices)
        problem = None
        if self._marks is not None and self._marks.shape[1] == marks.shape[1]:
            cached = [
                (row, frame)
                for row, frame in zip(complete, frames, strict=True)
                if frame < len(self._known)
                and self._known[frame]
                and not _overlaps(segments.span(frame), queries)
            ]
            if cached:
                problem = self._judge(marks, cached, dtype)
        return marks, complete, frames, problem

    def _judge(
        self, marks: torch.Tensor, cached: list[tuple[int, int]], dtype: torch.dtype
    ) -> str | None:
        assert self._marks is not None
        rows = torch.tensor([row for row, _ in cached], device=marks.device)
        numbers = torch.tensor([frame for _, frame in cached], device=marks.device)
        old, new = self._marks[numbers], marks[rows]
        tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 2e-3
        size = old.abs().amax(dim=1)
        off = (new - old).abs().amax(dim=1) > tolerance * size + 1e-12
        if runs_ahead(marks.device):
            if self._suspect is None or len(self._suspect) < len(self._known):
                grown = torch.zeros(len(self._known), dtype=torch.bool, device=marks.device)
                if self._suspect is not None:
                    grown[: len(self._suspect)] = self._suspect
                self._suspect = grown
            self._suspect[numbers] |= off
            return None
        if not bool(off.any()):
            return None
        wrong = [frame for (_, frame), bad in zip(cached, off.tolist(), strict=True) if bad]
        return self._explain(marks, cached, wrong, tolerance)

    def _explain(
        self,
        marks: torch.Tensor,
        cached: list[tuple[int, int]],
        wrong: list[int],
        tolerance: float,
    ) -> str:
        """Say whether the changed frames are other frames, moved, or new encodings."""
        assert self._marks is not None
        shifts: list[int | None] = []
        for row, frame in cached:
            if frame not in wrong:
                continue
            distance = (self._marks - marks[row]).abs().amax(dim=1)
            size = marks[row].abs().max()
            near = (distance <= tolerance * size).cpu().numpy() & self._known
            found = np.flatnonzero(near)
            shifts.append(int(found[0]) - frame if len(found) else None)
        frames = shorten_list(wrong)
        shift = shifts[0]
        if shift is not None and all(other == shift for other in shifts):
            return (
                f"the keys at frames {frames} are now those of frames "
                f"{shorten_list([f + shift for f in wrong])}: the cache has rolled by {shift} "
                "frames"
            )
        return f"the keys of frames {frames} are not those seen before: {_REASONS}"

    def store(self, marks: torch.Tensor, rows: list[int], frames: list[int]) -> None:
        """Remember the fingerprints of complete frames."""
        if not frames:
            return
        size = max(frames) + 1
        if self._marks is None or self._marks.shape[1] != marks.shape[1]:
            self._marks, self._known = marks.new_zeros(size, marks.shape[1]), np.zeros(size, bool)
        if size > len(self._known):
            grown = marks.new_zeros(2 * size, marks.shape[1])
            grown[: len(self._marks)] = self._marks
            known = np.zeros(2 * size, dtype=bool)
            known[: len(self._known)] = self._known
            self._marks, self._known = grown, known
        where = torch.tensor(frames, device=marks.device)
        self._marks[where] = marks[torch.tensor(rows, device=marks.device)]
        self._known[frames] = True

    def check_deferred(self, path: str) -> None:
        """Raise what a device that runs ahead has found by now."""
        if self._suspect is not None and bool(self._suspect.any()):
            wrong = shorten_list(torch.nonzero(self._suspect).flatten().tolist())
            raise keys_changed(
                path, f"the keys of frames {wrong} are not those seen before: {_REASONS}"
            )


#: How to declare a cache that does not only grow.
HOW_TO_DECLARE = (
    "pass key_position='sink:1,window:6' (frames the cache holds) with "
    "query_position='counted:5' (forwards of a block) or 'argument:current_start'"
)

_REASONS = "the cache has rolled, or its frames were encoded again"


def keys_changed(path: str, problem: str) -> RecordError:
    """Return the error that says what to pass where cached keys changed."""
    return RecordError(
        f"{path}: {problem}; {HOW_TO_DECLARE}, or check_keys=False if the model encodes its cache "
        "again on purpose"
    )


def runs_ahead(device: torch.device) -> bool:
    """Return whether looking at a result would make the host wait for the device."""
    return bool(device.type != "cpu")


def _overlaps(span: tuple[int, int], spans: Spans) -> bool:
    return any(span[0] < stop and span[1] > start for start, stop in spans)


_PROJECTIONS: dict[tuple[int, torch.device], torch.Tensor] = {}


def _project(pooled: torch.Tensor, slices: FrameSlices) -> torch.Tensor:
    """Return the fingerprints (slices, numbers) of pooled keys."""
    dim, device = pooled.shape[3], pooled.device
    if (dim, device) not in _PROJECTIONS:
        generator = torch.Generator().manual_seed(dim)
        _PROJECTIONS[dim, device] = torch.randn(dim, WIDTH, generator=generator).to(device)
    lengths = torch.tensor(slices.lengths, device=device, dtype=torch.float32)
    means = pooled.float() / lengths[None, None, :, None]
    marks = means @ _PROJECTIONS[dim, device]
    return marks.permute(2, 0, 1, 3).flatten(1)
