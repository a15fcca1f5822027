"""Pooled keys, call after call -> whether a cached frame changed under its number.

A cache that keeps its keys shows the same pooled keys for a frame in every call.
Where they differ, the cache has rolled, or was encoded again, and a matrix that
went by token counts would put frames in wrong places.
"""

from __future__ import annotations

import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices, Segments, Spans, overlap
from headgrid.text import shorten_list

#: Calls with cached keys after which two caches that alternate have shown themselves.
LOOKS = 4


def how_to_declare(window: int, sink: int, name: str = "current_start") -> str:
    """Return how to declare a cache that holds so many frames, and sinks among them."""
    held = f"sink:{sink},window:{window}" if sink else f"window:{window}"
    return (
        f"pass key_position='{held}' (frames the cache holds, as seen) with "
        f"query_position='argument:{name}' (in tokens) or 'counted:5' (forwards of a block)"
    )


class Fingerprints:
    """What the pooled keys of each frame of one layer looked like when last seen."""

    def __init__(self) -> None:
        self._marks: dict[int, torch.Tensor] = {}
        self._before: dict[int, torch.Tensor] = {}  # those that the latest replaced
        self._compared = 0
        # Which frames have changed, and whether to keys of two calls before: by the frames
        # compared and the number held. Devices that run ahead are asked at the end.
        self._suspects: dict[tuple[tuple[int, ...], int], tuple[torch.Tensor, torch.Tensor]] = {}

    def check(
        self,
        path: str,
        pooled: torch.Tensor,
        slices: FrameSlices,
        segments: Segments,
        queries: Spans,
        dtype: torch.dtype,
    ) -> dict[int, torch.Tensor]:
        """Compare the cached keys of a call with those seen before; return those to remember."""
        found = zip(slices.frames, pooled.unbind(2), slices.lengths, strict=True)
        marks = {frame: mark for frame, mark, size in found if size == segments.length(frame)}
        known = [frame for frame in marks if frame in self._marks]
        frames = tuple(frame for frame in known if not overlap(segments.span(frame), queries))
        if frames and marks[frames[0]].shape == self._marks[frames[0]].shape:
            key = (frames, len(marks))
            new = torch.stack([marks.pop(frame) for frame in frames])
            off = _differ(self._marks, frames, new, dtype)
            back = torch.zeros_like(off[0])  # whether the keys are those of two calls before
            self._compared += 1
            if self._compared <= LOOKS and all(frame in self._before for frame in frames):
                back = ~_differ(self._before, frames, new, dtype).any()
            earlier = self._suspects.get(key, (torch.zeros_like(off), back))
            self._suspects[key] = (earlier[0] | off, earlier[1] | (off.any() & back))
            if not runs_ahead(off.device):
                self.check_deferred(path)
        return marks

    def store(self, marks: dict[int, torch.Tensor]) -> None:
        """Remember the keys of complete frames, as copies."""
        self._before |= {f: self._marks[f] for f in marks if f in self._marks}
        self._marks |= {frame: mark.clone() for frame, mark in marks.items()}

    def check_deferred(self, path: str) -> None:
        """Raise what a device that runs ahead has found by now."""
        for (frames, window), (off, back) in self._suspects.items():
            wrong = [frame for frame, bad in zip(frames, off.tolist(), strict=True) if bad]
            if wrong and back:
                raise RecordError(
                    f"{path}: two caches alternate (conditional and unconditional?): the keys of "
                    f"frames {shorten_list(frames)} are those seen two calls before; pass stream=0 "
                    "or stream=1 for one of them, or stream='both'"
                )
            if wrong:
                raise RecordError(
                    f"{path}: the keys of frames {shorten_list(wrong)} are not those seen before: "
                    "the cache has rolled, or its frames were encoded again; "
                    f"{how_to_declare(window, frames.index(wrong[0]))}, or "
                    "check_keys=False if the model encodes its cache again on purpose"
                )
        self._suspects.clear()


def _differ(
    marks: dict[int, torch.Tensor], frames: tuple[int, ...], new: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return which frames have other keys than those remembered: (batch, heads, dim) of each."""
    old = torch.stack([marks[frame] for frame in frames])
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 2e-3
    norm = torch.linalg.vector_norm
    moved, size = (norm(part, dim=3).amax(dim=(1, 2)) for part in (new - old, old))
    return moved > tolerance * size + 1e-12


def runs_ahead(device: torch.device) -> bool:
    """Return whether looking at a result would make the host wait for the device."""
    return bool(device.type != "cpu")
