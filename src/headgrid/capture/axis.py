"""What stands along an axis of a capture: frames, tokens or segments, by number and label."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError, show_value
from headgrid.text import clean_name, shorten_float, shorten_list, shorten_text

#: What an axis is called where nothing says otherwise, without and with labels.
FRAME, TOKEN = "Frame", "Token"
_LONGEST_NAME = 40

Labels = tuple[str, ...]


class Segment(NamedTuple):
    """A part of an axis with a name: from one number up to, and without, another."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Axis:
    """One axis: what one of its places is called, their numbers, labels and segments, if any."""

    name: str
    numbers: tuple[int, ...]
    labels: Labels | None = None
    parts: tuple[Segment, ...] = ()

    @property
    def plural(self) -> str:
        """The name of several: Frames, Patches."""
        return self.name + ("es" if self.name.endswith(("s", "x", "ch", "sh")) else "s")

    @property
    def noun(self) -> str:
        """The name within a sentence."""
        return self.name.lower()

    @property
    def nouns(self) -> str:
        """The name of several within a sentence."""
        return self.plural.lower()

    @property
    def by_number(self) -> dict[int, str]:
        """The label of each number; empty without labels."""
        return dict(zip(self.numbers, self.labels or (), strict=False))

    def tell(self, number: int) -> str:
        """Return a number for a message, with its label: ``3``, or ``3 ('cat')``."""
        label = self.by_number.get(number)
        return f"{number}" if label is None else f"{number} ('{shorten_text(label, 40)}')"

    def look_up(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
        """Return the label of each number; empty text where there are no labels."""
        labels = np.array(self.labels or [""] * len(self.numbers), dtype=object)
        return labels[np.searchsorted(self.numbers, numbers)]

    def store(self, side: str) -> dict[str, Any]:
        """Return the fields of a file that say what is not usual: name and labels of a side."""
        usual = FRAME if self.labels is None else TOKEN
        fields = {
            f"{side}_name": None if self.name == usual else self.name,
            f"{side}_labels": self.labels and list(self.labels),
            f"{side}_parts": {name: list(ends) for name, *ends in self.parts},
        }
        return {name: value for name, value in fields.items() if value}


def read_axis(given: Mapping[str, Any], side: str, numbers: tuple[int, ...]) -> Axis:
    """Return the axis of ``"query"`` or ``"key"``, of raw fields; refuse those that misfit."""
    labels = _read_labels(given, f"{side}_labels", len(numbers))
    segments = read_segments(given[f"{side}_parts"], side, numbers, given["source"])
    name = given[f"{side}_name"]
    if name is None:
        return Axis(FRAME if labels is None else TOKEN, numbers, labels, segments)
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
        raise CaptureError(
            f"{given['source']}: {side}_name is '{shorten_text(str(name), 60)}', expected what one "
            f"place of the axis is called, 1 to {_LONGEST_NAME} characters ({FRAME}, {TOKEN})"
        )
    return Axis(shorten_text(name, _LONGEST_NAME), numbers, labels, segments)


def read_segments(
    value: Any, side: str, numbers: Sequence[int], source: str
) -> tuple[Segment, ...]:
    """Return the segments of an axis: a mapping of names to ``(start, stop)``, in order.

    ``start`` and ``stop`` (None: to the end) are numbers of the axis. Segments do not overlap.
    """
    if value is None:
        return ()
    # Segments that are made already may be another axis's.
    made = isinstance(value, tuple) and all(isinstance(part, Segment) for part in value)
    last = numbers[-1] + 1
    expected = (
        f"expected a name for each part of the axis with the numbers where it starts and stops, "
        f"from {numbers[0]} to {last}, as in {{'text': (0, 226), 'video': (226, None)}}"
    )
    try:
        parts = value if made else [(name, *ends) for name, ends in value.items()]
        found = [
            Segment(clean_name(str(name)), _read_end(start, numbers[0]), _read_end(stop, last))
            for name, start, stop in parts
        ]
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise CaptureError(f"{source}: {side}_parts is {show_value(value)}, {expected}") from None
    found.sort(key=lambda segment: segment.start)
    for segment, after in itertools.zip_longest(found, found[1:]):
        misfit = ""
        if after is not None and after.start < segment.stop:
            misfit = f"overlaps '{shorten_text(after.name, 40)}'"
        elif segment.start < numbers[0] or segment.stop > last:
            misfit = "reaches beyond the axis"
        elif not any(segment.start <= number < segment.stop for number in numbers):
            misfit = "holds no place of the axis"
        if misfit:
            raise CaptureError(
                f"{source}: {side}_parts has '{shorten_text(segment.name, 40)}' from "
                f"{segment.start} to {segment.stop}, which {misfit}, {expected}"
            )
    return tuple(found)


def _read_end(end: Any, usual: int) -> int:
    if end is not None and int(end) != end:
        raise ValueError
    return usual if end is None else int(end)


def _read_labels(given: Mapping[str, Any], field: str, length: int) -> Labels | None:
    value = given[field]
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = [*value] if value.dtype.kind == "f" else value.tolist()
    expected = f"expected a list of {length:,} texts or numbers, one for each place of that axis"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise CaptureError(f"{given['source']}: {field} is {show_value(value)}, {expected}")
    if len(value) != length:
        listed = shorten_text(shorten_list(value, 4), 100)
        raise CaptureError(
            f"{given['source']}: {field} lists {len(value):,} ({listed}), but that axis has "
            f"{length:,}; {expected}"
        )
    odd = [label for label in value if not isinstance(label, (str, int, float, np.number))]
    if odd:
        raise CaptureError(f"{given['source']}: {field} holds {show_value(odd[0])}, {expected}")
    return tuple(map(_write_label, value))


def _write_label(label: object) -> str:
    """Return a label as text: 0.3 for 0.30000000000000004; no table holds a lone surrogate."""
    is_float = isinstance(label, (float, np.floating))
    return clean_name(str(shorten_float(float(str(label)), 15) if is_float else label))
