"""What stands along an axis of a capture: frames, tokens or segments, by number and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError
from headgrid.text import shorten_list, shorten_text

#: What an axis is called where nothing says otherwise, without and with labels.
FRAME, TOKEN = "Frame", "Token"
_LONGEST_NAME = 40

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One axis: what one of its places is called, their numbers, and labels if they have some."""

    name: str
    numbers: tuple[int, ...]
    labels: Labels | None = None

    @property
    def plural(self) -> str:
        """The name of several.

        >>> Axis("Frame", (0, 1)).plural, Axis("Patch", (0,)).plural
        ('Frames', 'Patches')
        """
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
        name = {} if self.name == usual else {f"{side}_name": self.name}
        return name if self.labels is None else {**name, f"{side}_labels": list(self.labels)}


def read_axis(given: Mapping[str, Any], side: str, numbers: tuple[int, ...]) -> Axis:
    """Return the axis of ``"query"`` or ``"key"``, of raw fields; a `CaptureError` if they misfit.

    Labels are text, or numbers; two may be the same.
    """
    labels = _read_labels(given, f"{side}_labels", len(numbers))
    name = given[f"{side}_name"]
    if name is None:
        return Axis(FRAME if labels is None else TOKEN, numbers, labels)
    name = name.item() if isinstance(name, np.generic) else name
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME:
        raise CaptureError(
            f"{given['source']}: {side}_name is '{shorten_text(str(name), 60)}', expected what one "
            f"place of the axis is called, 1 to {_LONGEST_NAME} characters ({FRAME}, {TOKEN})"
        )
    return Axis(shorten_text(name, _LONGEST_NAME), numbers, labels)


def _read_labels(given: Mapping[str, Any], field: str, length: int) -> Labels | None:
    value = given[field]
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    expected = f"expected a list of {length:,} texts or numbers, one for each place of that axis"
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise CaptureError(
            f"{given['source']}: {field} is {shorten_text(repr(value), 60)}, {expected}"
        )
    if len(value) != length:
        raise CaptureError(
            f"{given['source']}: {field} lists {len(value):,} ({shorten_list(value, 4)}), but that "
            f"axis has {length:,}; {expected}"
        )
    odd = [label for label in value if not isinstance(label, (str, int, float, np.number))]
    if odd:
        found = shorten_text(repr(odd[0]), 60)
        raise CaptureError(f"{given['source']}: {field} holds {found}, {expected}")
    return tuple(map(str, value))
