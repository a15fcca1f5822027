"""Captures -> what a survey keeps of them: measures of each head, mean maps, a value range.

What files hold is tallied part by part, where an executor says, and merged in the order of
the parts. Everything here runs in workers, and imports numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.capture.folders import Place
from headgrid.capture.form import CaptureForm
from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridError
from headgrid.survey.moments import CaptureMoments
from headgrid.tables.measures import MEASURES, measure_heads


class Input(NamedTuple):
    """A capture that a survey has read; ``digest`` is that of its file, empty without one."""

    place: Place
    layer: int
    source: str
    digest: str
    #: Shape (heads, measures), in the order of `MEASURES`.
    record: npt.NDArray[np.float64]
    warnings: tuple[str, ...]


@dataclass
class Tally:
    """What captures of one form add up to; each counts once, under its place and layer."""

    form: CaptureForm | None = None
    inputs: dict[tuple[Place, int], Input] = field(default_factory=dict)
    #: Moments over the runs of each set and layer.
    maps: dict[tuple[str, int], CaptureMoments] = field(default_factory=dict)
    sketch: QuantileSketch = field(default_factory=lambda: QuantileSketch.of([]))
    value_range: tuple[float, float] = (math.inf, -math.inf)
    #: What is wrong with files that hold no usable capture, by their number.
    failures: dict[int, HeadgridError] = field(default_factory=dict)

    @classmethod
    def of(cls, capture: Capture, place: Place, digest: str = "") -> Tally:
        """Return the tally of one capture."""
        layer, columns = capture.layer_index, measure_heads(capture)
        record = np.stack([columns[name] for name in MEASURES], axis=1)
        odd = tuple(text.removeprefix(f"{capture.source}: ") for text in capture.warnings)
        return cls(
            CaptureForm.of(capture),
            {(place, layer): Input(place, layer, capture.source, digest, record, odd)},
            {(place.set, layer): CaptureMoments.of(capture)},
            capture.value_sketch,
            capture.value_range,
        )

    def merge(self, other: Tally) -> None:
        """Take up the captures of another one, behind those of this one.

        Raises
        ------
        CaptureError
            Where captures can not be compared, have no mean over runs, or are there twice.
        """
        self.failures |= other.failures
        if other.form is None:
            return
        self._check(other)
        self.form = other.form
        self.inputs |= other.inputs
        for key, moments in other.maps.items():
            self.maps[key] = self.maps[key].merge(moments) if key in self.maps else moments
        self.sketch = self.sketch.merge(other.sketch)
        (low, high), (least, most) = self.value_range, other.value_range
        self.value_range = min(low, least), max(high, most)

    def _check(self, other: Tally) -> None:
        """Refuse captures that do not go together with those of this one."""
        assert other.form is not None
        for name, mine, theirs in self.form.differences(other.form) if self.form else ():
            first, second = (next(iter(one.inputs.values())).source for one in (self, other))
            raise CaptureError(
                f"{first} and {second} differ in {name}: {mine} and {theirs}; expected captures "
                "that can be compared, so survey them separately"
            )
        for place, layer in (key for key in other.inputs if key in self.inputs):
            first, second = (one.inputs[place, layer].source for one in (self, other))
            where = f"{place.text}, " if place.text else ""
            raise CaptureError(
                f"{first} and {second} are both {where}layer {layer}, expected one capture for "
                "each set, run and layer; leave one out, or give the runs other names (their "
                "folders, or capture.replace(run=...))"
            )
        if STATISTICS[other.form.statistic].has_mean:
            return
        for key in (key for key in other.maps if key in self.maps):
            first, second = (one._source_of(*key) for one in (self, other))
            raise CaptureError(
                f"{first} and {second} hold {other.form.statistic} of several runs, which has no "
                "mean over runs; survey the captures that they were made of"
            )

    def _source_of(self, set: str, layer: int) -> str:
        inputs = self.inputs.values()
        return next(one.source for one in inputs if (one.place.set, one.layer) == (set, layer))
