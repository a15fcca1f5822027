"""Token positions -> the frames they belong to, as slices of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from headgrid.errors import OptionError
from headgrid.text import shorten_list

#: Token positions in the order in which they lie in a tensor: ``(start, stop)`` pieces.
Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FrameSlices:
    """Slices of a token axis, each within one frame: frame numbers, and token indices.

    ``tokens`` is the length of the axis, with the tokens that lie in no frame.
    """

    frames: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    tokens: int

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens in each slice."""
        return tuple(b - a for a, b in zip(self.starts, self.stops, strict=True))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """``(first, last + 1)`` of slices that are equally long and adjoin each other."""
        lengths, starts, stops = self.lengths, self.starts, self.stops
        return _split(
            len(self), lambda i: lengths[i] == lengths[i - 1] and starts[i] == stops[i - 1]
        )

    @cached_property
    def frame_runs(self) -> list[tuple[int, int]]:
        """``(first, last + 1)`` of slices whose frame numbers count up by one."""
        return _split(len(self), lambda i: self.frames[i] == self.frames[i - 1] + 1)

    def frame_lengths(self) -> dict[int, int]:
        """Return the number of tokens of each frame."""
        found: dict[int, int] = {}
        for frame, length in zip(self.frames, self.lengths, strict=True):
            found[frame] = found.get(frame, 0) + length
        return found


def _split(length: int, belongs: Callable[[int], bool]) -> list[tuple[int, int]]:
    """Cut 0 ... length into runs; a place begins one where it does not belong to the last."""
    starts = [place for place in range(length) if place == 0 or not belongs(place)]
    return list(pairwise([*starts, length]))


@dataclass(frozen=True)
class Segments:
    """Which token position belongs to which frame."""

    tokens_per_frame: int | None = None
    bounds: tuple[tuple[int, int], ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the frames are not known yet."""
        return self.tokens_per_frame is None and not self.bounds

    @classmethod
    def equal(cls, tokens_per_frame: int, name: str = "tokens_per_frame") -> Segments:
        """Every frame has so many tokens."""
        if not isinstance(tokens_per_frame, int) or tokens_per_frame < 1:
            raise OptionError(
                f"{name} is {tokens_per_frame!r}, expected a whole number, at least 1"
            )
        return cls(tokens_per_frame=tokens_per_frame)

    @classmethod
    def explicit(cls, boundaries: Sequence[Any], name: str = "segments") -> Segments:
        """Frames between boundaries ``[0, 5, 12]``, or as pairs ``[(0, 5), (6, 12)]``."""
        items = list(boundaries)
        try:
            if items and isinstance(items[0], Sequence):
                pairs = [(int(start), int(stop)) for start, stop in items]
            else:
                pairs = list(pairwise(int(item) for item in items))
        except (TypeError, ValueError):
            pairs = []
        flat = [position for pair in pairs for position in pair]
        ordered = all(a < b for a, b in pairs) and all(a <= b for a, b in pairwise(flat))
        if not pairs or not ordered or flat[0] < 0:
            raise OptionError(
                f"{name} is {shorten_list(items)}, expected token positions from 0 that increase, "
                "[0, 5, 12], or pairs of them, [(0, 5), (6, 12)]"
            )
        return cls(bounds=tuple(pairs))

    def length(self, frame: int) -> int:
        """Return the number of tokens of a frame."""
        start, stop = self.span(frame)
        return stop - start

    def span(self, frame: int) -> tuple[int, int]:
        """Return the token positions of a frame."""
        if self.tokens_per_frame is not None:
            return frame * self.tokens_per_frame, (frame + 1) * self.tokens_per_frame
        return self.bounds[frame]

    def slice_frames(self, spans: Spans) -> FrameSlices:
        """Return the slices of a tensor whose tokens lie at ``spans``; some may be in no frame."""
        return _slice_frames(self, spans)

    def describe(self) -> str:
        """Return the segments in a few words."""
        if self.tokens_per_frame is not None:
            return f"{self.tokens_per_frame} tokens per frame"
        if self.is_open:
            return "the frames that the model states"
        return (
            f"{len(self.bounds)} segments over tokens {self.bounds[0][0]} to {self.bounds[-1][1]}"
        )


@lru_cache(maxsize=512)  # every layer asks for the same
def _slice_frames(segments: Segments, spans: Spans) -> FrameSlices:
    frames: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    size, offset = segments.tokens_per_frame, 0
    near = range(len(segments.bounds))
    for start, stop in spans:
        if size is not None:
            near = range(start // size, math.ceil(stop / size))
        for frame in near:
            low, high = segments.span(frame)
            if low < stop and high > start:
                frames.append(frame)
                starts.append(offset + max(start, low) - start)
                stops.append(offset + min(stop, high) - start)
        offset += stop - start
    return FrameSlices(tuple(frames), tuple(starts), tuple(stops), offset)


def join_spans(spans: Iterable[tuple[int, int]]) -> Spans:
    """Return spans in the same order, those joined that touch the one before."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def overlap(span: tuple[int, int], spans: Spans) -> bool:
    """Return whether a span shares a position with others."""
    return any(span[0] < stop and span[1] > start for start, stop in spans)


def count_tokens(spans: Spans) -> int:
    """Return the number of token positions in spans."""
    return sum(stop - start for start, stop in spans)


def fitting_frame_sizes(tokens: int, wanted: int) -> str:
    """Return the divisors of a token count that lie nearest to a wanted frame size, in words."""
    divisors = [size for size in range(1, tokens + 1) if tokens % size == 0]
    near = [str(size) for size in sorted(sorted(divisors, key=lambda n: abs(n - wanted))[:3])]
    choices = " or ".join(part for part in (", ".join(near[:-1]), near[-1]) if part)
    return f"{choices} tokens per frame would fit"
