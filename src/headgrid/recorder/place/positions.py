"""A call's token counts -> the positions of its query and key tokens in the sequence.

An attention function is told how many query and key tokens there are, never which.
A *policy* says which: read from the lengths (growing caches), counted, read from
an argument of the model, stated for sinks and rolling windows, or a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headgrid.errors import OptionError, RecordError, near_miss
from headgrid.recorder.place.segments import Segments, Spans, count_tokens, join_spans
from headgrid.recorder.watch.sites import CallSite


@dataclass(frozen=True)
class CallInfo:
    """What a policy may look at."""

    layer: int  #: number of the layer
    path: str  #: its module path
    index: int  #: number of attention calls that this layer has made before
    query_tokens: int
    key_tokens: int
    query_segments: Segments  #: the frames of each axis
    key_segments: Segments
    site: CallSite  #: the running modules and their arguments
    last: Spans | None = None  #: where the latest self-attention call put its query tokens
    query: Spans = ()  #: where this call's query tokens lie; known to key policies only


class Policy:
    """Says where a call's tokens lie, in their order; its text is what the captures tell of it."""

    text = ""

    def __str__(self) -> str:
        return self.text.format(self)

    def __call__(self, info: CallInfo) -> Spans:
        """Return the token positions."""
        return self._place(info)

    def _place(self, info: CallInfo) -> Spans:
        raise NotImplementedError


class Growing(Policy):
    """Keys are all tokens so far; queries are the last of them."""

    text = "growing"

    def _place(self, info: CallInfo) -> Spans:
        if info.query:
            return ((0, info.key_tokens),)
        start = info.key_tokens - info.query_tokens
        if start < 0:
            raise RecordError(
                f"{info.path}: {info.query_tokens} query tokens but only {info.key_tokens} key "
                "tokens, so the cache does not hold the queries' own keys; pass query_position= "
                "and key_position= as callables, or attention='cross'"
            )
        return ((start, info.key_tokens),)


class LikeSelf(Policy):
    """Cross-attention queries lie where the latest self-attention put the same tokens."""

    text = "as in self-attention"

    def _place(self, info: CallInfo) -> Spans:
        if info.last is not None and count_tokens(info.last) == info.query_tokens:
            return info.last
        return ((0, info.query_tokens),)


class Whole(Policy):
    """The tokens are the first ones, all of them."""

    text = "all tokens from the first"

    def _place(self, info: CallInfo) -> Spans:
        return ((0, info.key_tokens if info.query else info.query_tokens),)


@dataclass(frozen=True)
class Counted(Policy):
    """Blocks of queries follow one another, each in so many forwards (the clean one included)."""

    forwards: int = 1
    text = "counted, {0.forwards} forwards a block"

    def _place(self, info: CallInfo) -> Spans:
        start = (info.index // self.forwards) * info.query_tokens
        return ((start, start + info.query_tokens),)


@dataclass(frozen=True)
class FromArgument(Policy):
    """A keyword argument of a running module (``current_start``) is the first query token."""

    name: str
    text = "argument {0.name}"

    def _place(self, info: CallInfo) -> Spans:
        value = info.site.argument(self.name)
        try:
            start = int(value)
        except (TypeError, ValueError):
            names = sorted({name for part in info.site.arguments for name in part})
            raise RecordError(
                f"{info.path}: no running module was called with a number {self.name!r}; the "
                f"arguments seen are {', '.join(names) or 'none'}"
                f"{near_miss(self.name, names)}"
            ) from None
        return ((start, start + info.query_tokens),)


@dataclass(frozen=True)
class SinkWindow(Policy):
    """The cache holds the first ``sink`` frames and the latest ones, ``window`` in all.

    The current block's frames count among them.
    """

    sink: int
    window: int
    text = "sink of {0.sink} and window of {0.window} frames in all"

    def _place(self, info: CallInfo) -> Spans:
        segments = info.key_segments
        end = info.query[-1][1]
        frames = segments.slice_frames(((0, end),)).frames
        if len(frames) <= self.window:
            spans: Spans = ((0, end),)
        else:
            first = segments.span(frames[len(frames) - (self.window - self.sink)])[0]
            spans = ((first, end),)
            if self.sink:
                spans = ((0, segments.span(frames[self.sink - 1])[1]), *spans)
        if count_tokens(spans) != info.key_tokens:
            raise RecordError(
                f"{info.path}: key_position says {self}, which is "
                f"{count_tokens(spans)} key tokens for queries up to token {end}, but the call "
                f"has {info.key_tokens}; state the sink and window the model really uses"
            )
        return spans


@dataclass(frozen=True)
class FromCallable(Policy):
    """A function of the user's gives one frame number a frame, or the first frame's."""

    function: Callable[[CallInfo], Any]
    axis: str

    def _place(self, info: CallInfo) -> Spans:
        answer = self.function(info)
        segments = info.query_segments if self.axis == "query" else info.key_segments
        tokens = info.query_tokens if self.axis == "query" else info.key_tokens
        if isinstance(answer, torch.Tensor):
            answer = answer.tolist()
        if isinstance(answer, Sequence):
            spans = join_spans(segments.span(int(frame)) for frame in answer)
        else:
            start = segments.span(int(answer))[0]
            spans = ((start, start + tokens),)
        if count_tokens(spans) != tokens:
            raise RecordError(
                f"{info.path}: {self.axis}_position returned {answer!r}, which is "
                f"{count_tokens(spans)} tokens, but the call has {tokens} {self.axis} tokens; "
                "return one frame number for each frame in the tensor, or the first one"
            )
        return spans

    def __str__(self) -> str:
        return f"callable {getattr(self.function, '__name__', type(self.function).__name__)}"


_SIMPLE = {"growing": Growing(), "whole": Whole(), "self": LikeSelf()}
_EXAMPLES = (*_SIMPLE, "counted:5", "argument:current_start", "sink:1,window:6")


def read_policy(value: Any, axis: str) -> Policy:
    """Return the policy that an option states: as text, as a function, or as a policy."""
    if isinstance(value, Policy):
        return value
    if callable(value):
        return FromCallable(value, axis)
    policy = _read_text(value, axis) if isinstance(value, str) else None
    if policy is None:
        raise OptionError(
            f"{axis}_position is {value!r}, expected one of growing, whole, self, "
            "counted:FORWARDS, argument:NAME, window:FRAMES, sink:FRAMES,window:FRAMES (counted "
            "and argument place queries, sink and window keys), or a callable"
            f"{near_miss(str(value), _EXAMPLES)}"
        )
    return policy


def _read_text(text: str, axis: str) -> Policy | None:
    if text in _SIMPLE:
        return _SIMPLE[text]
    fields = dict(part.split(":", 1) for part in text.split(",") if ":" in part)
    try:
        match axis, sorted(fields):
            case "query", ["counted"] if int(fields["counted"]) > 0:
                return Counted(int(fields["counted"]))
            case "query", ["argument"] if fields["argument"]:
                return FromArgument(fields["argument"])
            case "key", ["window"] | ["sink", "window"]:
                sink, window = int(fields.get("sink", 0)), int(fields["window"])
                return SinkWindow(sink, window) if 0 <= sink < window else None
    except ValueError:
        pass
    return None
