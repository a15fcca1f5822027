"""Captures -> what they must share to be compared, and how they differ where they do not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headgrid.capture.axis import Segment
from headgrid.capture.model import Capture
from headgrid.capture.schema import AXIS_KEYS
from headgrid.errors import CaptureError
from headgrid.text import shorten_list, shorten_text

_NAMES = {
    "statistic": "the statistic",
    "num_heads": "the number of heads",
    "has_matrix": "full_frame_attention",
    "query_frames": "the query frames",
    "key_frames": "the key frames",
    "query_name": "the name of the query axis",
    "key_name": "the name of the key axis",
    "query_labels": "the query labels",
    "key_labels": "the key labels",
    "query_parts": "the query segments",
    "key_parts": "the key segments",
}
#: What captures must share to stand on the same axes.
AXES = ("query_frames", "key_frames", *AXIS_KEYS)


class CaptureForm(NamedTuple):
    """The form of a capture: all but its values, its layer and where it came from."""

    statistic: str
    num_heads: int
    has_matrix: bool
    query_frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    block_sizes: tuple[int, ...] | None
    last_block_query_frames: tuple[int, ...]
    query_name: str
    key_name: str
    query_labels: tuple[str, ...] | None
    key_labels: tuple[str, ...] | None
    query_parts: tuple[Segment, ...]
    key_parts: tuple[Segment, ...]

    @classmethod
    def of(cls, capture: Capture) -> CaptureForm:
        """Return the form of a capture."""
        values = {name: getattr(capture, name) for name in cls._fields if name != "has_matrix"}
        return cls(**values, has_matrix=capture.full_frame_attention is not None)

    def meet(self, other: CaptureForm) -> CaptureForm:
        """Return the form without labels that the other one does not share: words of one prompt."""
        labels = ("query_labels", "key_labels")
        lost = {name: None for name in labels if getattr(self, name) != getattr(other, name)}
        return self._replace(**lost)  # type: ignore[arg-type]

    def differences(
        self, other: CaptureForm, among: Sequence[str] = ()
    ) -> list[tuple[str, str, str]]:
        """Return what differs among the named attributes, or all: its name, and what each has."""
        return [
            (_NAMES.get(name, name), _describe(name, mine), _describe(name, theirs))
            for name, mine, theirs in zip(self._fields, self, other, strict=True)
            if mine != theirs and name in (among or self._fields)
        ]


def expect_alike(captures: Iterable[Capture], purpose: str, among: Sequence[str] = ()) -> None:
    """Refuse captures that differ in attributes of `CaptureForm`: those that matter, or all.

    ``purpose`` ends the message: ``"captures of one sheet to share it; draw them separately"``.
    """
    first: Capture | None = None
    for capture in captures:
        first = first or capture
        for name, mine, theirs in CaptureForm.of(first).differences(CaptureForm.of(capture), among):
            raise CaptureError(
                f"{first.source} and {capture.source} differ in {name}: {mine} and {theirs}; "
                f"expected {purpose}"
            )


def expected_layers(layers: Iterable[int]) -> tuple[int, ...]:
    """Return all layers from the first to the last, at the step that those given have."""
    present = sorted(set(layers))
    step = math.gcd(*(layer - present[0] for layer in present)) or 1
    return tuple(range(present[0], present[-1] + 1, step))


def _describe(name: str, value: object) -> str:
    if name == "has_matrix":
        return "present" if value else "absent"
    if isinstance(value, tuple):
        return f"{len(value)} ({shorten_text(shorten_list(value))})"
    return "absent" if value is None else str(value)
