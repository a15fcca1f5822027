"""Token positions -> the frames they belong to, as slices of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any

from headgrid.errors import OptionError, check_whole
from headgrid.text import shorten_list

#: Token positions in the order in which they lie in a tensor: ``(start, stop)`` pieces.
Spans = tuple[tuple[int, int], ...]
#: What ``segments`` takes.
Boundaries = Sequence[Any] | Mapping[str, Sequence[int]]


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
    """Which token position belongs to which frame, or to a place of its own.

    ``names`` has the parts that the user named, from one frame up to, and without, another.
    """

    tokens_per_frame: int | None = None
    bounds: tuple[tuple[int, int], ...] = ()
    names: tuple[tuple[str, int, int], ...] = ()
    is_pooled: bool = True

    @property
    def is_open(self) -> bool:
        """Whether the frames are not known yet."""
        return self.tokens_per_frame is None and not self.bounds

    @classmethod
    def equal(cls, tokens_per_frame: int, name: str = "tokens_per_frame") -> Segments:
        """Every frame has so many tokens."""
        return cls(tokens_per_frame=check_whole(name, tokens_per_frame))

    @classmethod
    def explicit(cls, boundaries: Boundaries, name: str = "segments") -> Segments:
        """Frames between boundaries ``[0, 5, 12]``, as pairs ``[(0, 5), (6, 12)]``, or by name.

        ``{"text": (0, 5), "video": (5, 35, 10)}``: the third number cuts a part into frames.
        """
        if isinstance(boundaries, Mapping):
            return cls._named(boundaries, name)
        items = list(boundaries)
        try:
            if items and isinstance(items[0], Sequence):
                pairs = [(start, stop) for start, stop in map(_whole_numbers, items)]
            else:
                pairs = list(pairwise(_whole_numbers(items)))
        except (TypeError, ValueError, OverflowError):
            pairs = []
        flat = [position for pair in pairs for position in pair]
        ordered = all(a < b for a, b in pairs) and all(a <= b for a, b in pairwise(flat))
        if not pairs or not ordered or flat[0] < 0:
            raise OptionError(
                f"{name} is {shorten_list(items)}, expected token positions from 0 that increase, "
                "[0, 5, 12], or pairs of them, [(0, 5), (6, 12)]"
            )
        return cls(bounds=tuple(pairs))

    @classmethod
    def _named(cls, parts: Mapping[str, Sequence[int]], name: str) -> Segments:
        bounds: list[tuple[int, int]] = []
        names: list[tuple[str, int, int]] = []
        for part, ends in parts.items():
            try:
                start, stop, *given = _whole_numbers(ends)
                (size,) = given or (stop - start,)
            except (TypeError, ValueError, OverflowError):
                start = stop = size = 0
            follows = not bounds or start >= bounds[-1][1]
            fits = 0 <= start < stop and size >= 1 and (stop - start) % size == 0
            if not fits or not follows:
                raise OptionError(
                    f"{name} has {part}: {ends}, expected (start, stop) or (start, stop, tokens "
                    "per frame) in token positions from 0, in whole frames, each part behind the "
                    "one before"
                )
            first = len(bounds)
            bounds += [(at, at + size) for at in range(start, stop, size)]
            names.append((str(part), first, len(bounds)))
        if not bounds:
            raise OptionError(f"{name} names no part, expected {{'text': (0, 226)}} or the like")
        return cls(bounds=tuple(bounds), names=tuple(names))

    def unpooled(self) -> Segments:
        """Return the segments with a place for every token."""
        if not self.bounds:
            return Segments(tokens_per_frame=1, is_pooled=False)
        firsts = [0, *accumulate(stop - start for start, stop in self.bounds)]
        return Segments(
            bounds=tuple((at, at + 1) for span in self.bounds for at in range(*span)),
            names=tuple((name, firsts[a], firsts[b]) for name, a, b in self.names),
            is_pooled=False,
        )

    def label(self, count: int, words: Sequence[str] | None) -> tuple[str | None, list[str] | None]:
        """Return name and labels of an axis with so many places.

        ``words`` are those of all places, or of those that are one token.
        """
        single = [frame for frame in range(count) if self.length(frame) == 1]
        labels: list[str] | None = None
        if self.names:
            labels = [""] * count
            for name, first, stop in self.names:
                several = stop - first > 1
                for frame in range(first, min(stop, count)):
                    labels[frame] = f"{name} {frame - first}" if several else name
        if words is not None:
            places = range(count) if len(words) == count else single
            labels = labels or [str(frame) for frame in range(count)]
            for place, word in zip(places, words, strict=True):
                labels[place] = word
        called = None if self.is_pooled and labels is None else "Token"
        if self.names and len(self.names) == count:
            called = "Segment"
        elif len(single) < count and labels is not None:
            called = "Place"
        return called, labels

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


def _whole_numbers(values: Sequence[Any]) -> list[int]:
    found = [int(value) for value in values]
    if found != [*values]:
        raise ValueError
    return found


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
