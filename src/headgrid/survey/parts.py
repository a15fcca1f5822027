"""Capture files -> parts of about equal work; a part -> what it adds to a survey.

Parts follow from the inputs alone, and never from the number of workers: sums of
floats are made in the order of parts, so that every executor gives the same bits.
Everything here runs in workers, and imports numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.capture.folders import CaptureFile, Place
from headgrid.capture.form import CaptureForm
from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridError, unexpected
from headgrid.survey.moments import CaptureMoments
from headgrid.tables.measures import MEASURES, measure_heads

#: A part is one layer of so many runs: few, so that work is spread evenly; more than
#: one, so that what a worker sends back (a mean map, whatever the runs) is small
#: beside what it has read.
RUNS_IN_A_PART = 16

#: Measures of each head of a capture, shape (heads, measures), in the order of `MEASURES`.
Record = npt.NDArray[np.float64]


class Part(NamedTuple):
    """Files that are read by one worker, with their numbers in the whole survey."""

    numbers: tuple[int, ...]
    files: tuple[CaptureFile, ...]


class Measured(NamedTuple):
    """What a survey keeps of one capture, beside its share in the maps."""

    number: int
    layer: int
    digest: str
    record: Record
    warnings: tuple[str, ...]


@dataclass
class Findings:
    """What captures add to a survey, gathered one by one.

    Attributes
    ----------
    measured : list of Measured
        In the order in which they were read.
    failures : dict of int to HeadgridError
        What is wrong with the files that hold no usable capture, by their number.
    forms : dict of CaptureForm to int
        Each form that occurs, with the number of the first file that has it.
    moments : dict of int to CaptureMoments
        Mean and deviation maps of each layer; of the first form only.
    sketch, value_range
        All visible values; of the first form only.
    """

    measured: list[Measured] = field(default_factory=list)
    failures: dict[int, HeadgridError] = field(default_factory=dict)
    forms: dict[CaptureForm, int] = field(default_factory=dict)
    moments: dict[int, CaptureMoments] = field(default_factory=dict)
    sketch: QuantileSketch = field(default_factory=lambda: QuantileSketch.of([]))
    value_range: tuple[float, float] = (math.inf, -math.inf)

    def add(self, number: int, capture: Capture, digest: str = "") -> None:
        """Measure a capture, and add its values to those of the others."""
        columns = measure_heads(capture)
        record = np.stack([columns[name] for name in MEASURES], axis=1)
        self.forms.setdefault(CaptureForm.of(capture), number)
        if len(self.forms) == 1:  # with a second one, the survey will stop
            self._pool(capture)
        prefix = f"{capture.source}: "
        warnings = tuple(text.removeprefix(prefix) for text in capture.warnings)
        self.measured.append(Measured(number, capture.layer_index, digest, record, warnings))

    def _pool(self, capture: Capture) -> None:
        moments, layer = CaptureMoments.of(capture), capture.layer_index
        if layer in self.moments:
            if not STATISTICS[capture.statistic].has_mean:
                return  # the survey will stop
            moments = self.moments[layer].merge(moments)
        self.moments[layer] = moments
        self.sketch = self.sketch.merge(capture.value_sketch)
        (low, high), (least, most) = capture.value_range, self.value_range
        self.value_range = min(low, least), max(high, most)


def split_parts(files: Sequence[CaptureFile], places: Sequence[Place]) -> list[Part]:
    """Split files, which stand in the order of sets, runs and names, into parts.

    A part holds the files of one name (a layer) of some runs of a set; together
    the parts hold every file once.
    """
    parts = []
    for _, of_set in groupby(range(len(files)), key=lambda n: places[n].set):
        runs = [list(run) for _, run in groupby(of_set, key=lambda n: places[n].run)]
        for start in range(0, len(runs), RUNS_IN_A_PART):
            named: dict[str, list[int]] = {}
            for number in (n for run in runs[start : start + RUNS_IN_A_PART] for n in run):
                named.setdefault(files[number].path.stem.casefold(), []).append(number)
            parts += [
                Part(tuple(group), tuple(files[number] for number in group))
                for group in named.values()
            ]
    return parts


def read_part(part: Part) -> Findings:
    """Read the files of a part, each once, and say what they add."""
    from headgrid.capture.store import read_capture

    findings = Findings()
    for number, file in zip(part.numbers, part.files, strict=True):
        try:
            capture, digest = read_capture(file)
            findings.add(number, capture, digest)
        except CaptureError as error:
            findings.failures[number] = error
        except Exception as error:  # noqa: BLE001 - whatever one file does, the others count
            findings.failures[number] = unexpected(str(file.path), error)
    return findings
