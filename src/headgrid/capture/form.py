"""Captures -> what they must share to be compared, and how they differ where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from headgrid.capture.model import Capture
from headgrid.errors import CaptureError
from headgrid.text import shorten_list

_NAMES = {
    "statistic": "the statistic",
    "num_heads": "the number of heads",
    "has_matrix": "full_frame_attention",
    "query_frames": "the query frames",
    "key_frames": "the key frames",
    "block_sizes": "block_sizes",
    "last_block_query_frames": "last_block_query_frames",
}


class Difference(NamedTuple):
    """What two captures do not share: its name, and what each of them has, for a message."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class CaptureForm:
    """The form of a capture: all but its values, its layer and where it came from.

    Attributes
    ----------
    statistic : str
    num_heads : int
    has_matrix : bool
        Whether there is a full matrix, or the last block's row alone.
    query_frames, key_frames, last_block_query_frames : tuple of int
    block_sizes : tuple of int or None
        As `headgrid.Capture` has them.
    """

    statistic: str
    num_heads: int
    has_matrix: bool
    query_frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    block_sizes: tuple[int, ...] | None
    last_block_query_frames: tuple[int, ...]

    @classmethod
    def of(cls, capture: Capture) -> CaptureForm:
        """Return the form of a capture."""
        return cls(
            capture.statistic,
            capture.num_heads,
            capture.full_frame_attention is not None,
            capture.query_frames,
            capture.key_frames,
            capture.block_sizes,
            capture.last_block_query_frames,
        )

    def differences(self, other: CaptureForm, among: Sequence[str] = ()) -> list[Difference]:
        """Return what differs.

        Parameters
        ----------
        other : CaptureForm
        among : sequence of str
            The attributes that matter; all of them where none is named.

        Examples
        --------
        >>> a, b = (CaptureForm.of(Capture.from_array([[[1.0] * n]])) for n in (2, 3))
        >>> a.differences(b)
        [Difference(name='the key frames', first='2 (0, 1)', second='3 (0, 1, 2)')]
        """
        found = []
        for name in among or [part.name for part in fields(self)]:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(
                    Difference(_NAMES[name], *(_describe(name, v) for v in (mine, theirs)))
                )
        return found


def expect_alike(captures: Iterable[Capture], purpose: str, among: Sequence[str] = ()) -> None:
    """Refuse captures that differ in what matters for a purpose.

    Parameters
    ----------
    captures : iterable of Capture
    purpose : str
        What the captures are for and what to do, for the end of the message:
        ``"captures of one sheet to share it; draw them separately"``.
    among : sequence of str
        The attributes of `CaptureForm` that matter; all of them where none is named.

    Raises
    ------
    CaptureError
        Names the two captures, what differs, and what each of them has.
    """
    first: Capture | None = None
    for capture in captures:
        if first is None:
            first = capture
        for name, mine, theirs in CaptureForm.of(first).differences(CaptureForm.of(capture), among):
            raise CaptureError(
                f"{first.source} and {capture.source} differ in {name}: {mine} and {theirs}; "
                f"expected {purpose}"
            )


def _describe(name: str, value: object) -> str:
    if name == "has_matrix":
        return "present" if value else "absent"
    if isinstance(value, tuple):
        return f"{len(value)} ({shorten_list(value)})"
    return "absent" if value is None else str(value)
