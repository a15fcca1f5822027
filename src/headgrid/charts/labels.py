"""Labels of places along an axis -> short texts, their direction, and the room that they take."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

from headgrid.capture.axis import Axis
from headgrid.text import clean_text, measure_text, shorten_list

#: A label is at most so many times as long as its letters are high; longer ones end in "…".
_LONGEST = 9.0
#: What the usual labels, numbers, take at the left of a panel.
_USUAL = 1.7
#: Letters of a label that a tooltip shows.
_WHOLE = 500


@lru_cache(maxsize=256)
def short_labels(axis: Axis) -> tuple[str, ...]:
    r"""Return a text for each place: its label on one line, shortened, or its number.

    What would be invisible is shown: a space as "␣", no label at all as a pair of quotes.

    >>> short_labels(Axis("Token", (0, 1, 2), ("cat", "", "\n" + 20 * "long")))
    ('cat', '""', '␣longlonglonglo…')
    """
    if axis.labels is None:
        return tuple(map(str, axis.numbers))
    return tuple(shorten_label(_show(label)) for label in axis.labels)


def shorten_label(text: str, room: float = _LONGEST) -> str:
    """Return as much of a text as has so much room, in heights of its letters."""
    if _measure(text) <= room:
        return text
    widths = itertools.accumulate(map(_measure, text), initial=1.0)  # of the ellipsis
    return text[: max(0, sum(width <= room for width in widths) - 1)] + "…"


@lru_cache(maxsize=2**15)
def _measure(text: str) -> float:
    """Return the width of a text, letters of other scripts and signs as wide as the wide ones."""
    if len(text) != 1:
        return sum(map(_measure, text))
    if text < "\u0530" or unicodedata.category(text)[0] == "M":
        return measure_text(unicodedata.normalize("NFD", text)[0])  # "Ġ" is as wide as "G"
    return max(measure_text(text), 0.75 if text < "\u2000" else 1.0)


def _show(label: str) -> str:
    """Return a label as it can be read: one line, its blanks at the ends made visible."""
    flat = clean_text(label[: 4 * _WHOLE]).replace("\n", " ")
    words = " ".join(flat.split())
    if not words:
        return "␣" * min(len(flat), 3) or '""'
    letters = words.replace(" ", "")
    if {unicodedata.category(letter) for letter in letters} == {"Cf"}:  # of no width, none is drawn
        return " ".join(f"U+{ord(letter):04X}" for letter in letters)
    return "␣" * flat[0].isspace() + words + "␣" * flat[-1].isspace()


def lies_flat(axis: Axis, size: float, step: float) -> bool:
    """Return whether all labels have room side by side below a panel, at so much a place."""
    widths = [_measure(text) * size for text in short_labels(axis)]
    return all((a + b) / 2 + 0.4 * size <= step for a, b in itertools.pairwise([*widths, 0.0]))


def room_below(axis: Axis, size: float, step: float) -> float:
    """Return what labels take below a panel beyond a line of numbers."""
    if axis.labels is None or lies_flat(axis, size, step):
        return 0.0
    return (max(map(_measure, short_labels(axis))) - 1) * size


def room_beside(axis: Axis, size: float) -> float:
    """Return what labels take at the left of a panel beyond the usual numbers."""
    if axis.labels is None:
        return 0.0
    return max(0.0, max(map(_measure, short_labels(axis))) - _USUAL) * size


def label_expression(axis: Axis, ticks: Mapping[int, int]) -> str:
    """Return the Vega expression of the label of each tick, by the frame that stands there."""
    texts = {} if axis.labels is None else dict(zip(axis.numbers, short_labels(axis), strict=True))
    shown = {str(tick): texts.get(frame, frame) for tick, frame in ticks.items()}
    return f"{json.dumps(shown)}[datum.value]"


def whole_labels(axis: Axis, field: str) -> str:
    """Return the Vega expression of the whole label of the place whose number is in a field."""
    labels = [_show(label)[:_WHOLE] for label in axis.labels or ()]
    if list(axis.numbers) == list(range(len(labels))):
        return f"{json.dumps(labels)}[datum.{field}]"
    return f"{json.dumps(dict(zip(axis.numbers, labels, strict=True)))}[datum.{field}]"


def tell_places(axis: Axis, numbers: Sequence[int]) -> str:
    """Return places for a sentence: ``frames [18, 19]``, or with labels ``tokens [3 ('cat')]``."""
    shown = numbers if axis.labels is None else [axis.tell(number) for number in numbers]
    return f"{axis.nouns} [{shorten_list(list(shown), 8 if axis.labels is None else 4)}]"
