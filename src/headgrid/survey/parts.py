"""Capture files -> parts of about equal work; a part -> what it adds to a survey.

Parts follow from the inputs alone, and never from the number of workers: sums of
floats are made in the order of parts, so that every number of workers gives the
same bits. Everything here runs in workers, and imports numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridError, unexpected
from headgrid.survey.moments import CaptureMoments
from headgrid.tables.measures import MEASURES, measure_heads
from headgrid.text import shorten_list

if TYPE_CHECKING:
    from headgrid.capture.folders import CaptureFile, Place
    from headgrid.survey.spool import Record

#: Names of the measures, in the order of a record's columns.
COLUMNS = tuple(MEASURES)

#: A part is one layer of so many runs: few, so that work is spread evenly and little
#: is lost with a killed process; more than one, so that what a worker sends back
#: (a mean map, whatever the runs) is small beside what it has read.
RUNS_IN_A_PART = 16

_NAMES = {
    "statistic": "the statistic",
    "num_heads": "the number of heads",
    "query_frames": "the query frames",
    "key_frames": "the key frames",
    "block_sizes": "block_sizes",
    "last_block_query_frames": "last_block_query_frames",
    "full": "full_frame_attention",
}


@dataclass(frozen=True)
class Form:
    """What all captures of a survey have in common, since they are to be compared."""

    statistic: str
    num_heads: int
    full: bool
    query_frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    block_sizes: tuple[int, ...] | None
    last_block_query_frames: tuple[int, ...]

    @classmethod
    def of(cls, capture: Capture) -> Form:
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

    def differences(self, other: Form) -> Iterator[tuple[str, str, str]]:
        """Yield what differs: its name, and what each of the two has there."""
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if mine != theirs:
                yield _NAMES[part.name], _describe(part.name, mine), _describe(part.name, theirs)


@dataclass(frozen=True)
class Part:
    """Files that are read by one worker, with their numbers in the whole survey."""

    numbers: tuple[int, ...]
    files: tuple[CaptureFile, ...]


@dataclass(frozen=True)
class Measured:
    """What a survey keeps of a capture: a record [heads, measures], and where it came from."""

    number: int
    digest: str
    layer: int
    record: Record
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A file that holds no usable capture."""

    number: int
    digest: str
    error: HeadgridError


@dataclass
class Findings:
    """What captures add to a survey, gathered one by one.

    Attributes
    ----------
    files : list of Measured or Failed
        In the order in which they were read.
    forms : list of (number, Form)
        Each form that occurs, with the number of the first file that has it.
    moments : dict
        Mean and deviation maps of each layer; of the first form only.
    sketch, value_range
        All visible values; of the first form only.
    """

    files: list[Measured | Failed] = field(default_factory=list)
    forms: list[tuple[int, Form]] = field(default_factory=list)
    moments: dict[int, CaptureMoments] = field(default_factory=dict)
    sketch: QuantileSketch = field(default_factory=lambda: QuantileSketch.of([]))
    value_range: tuple[float, float] = (math.inf, -math.inf)

    def add(self, number: int, capture: Capture, digest: str = "") -> None:
        """Measure a capture, and add its values to those of the others."""
        columns = measure_heads(capture)
        record = np.stack([columns[name] for name in COLUMNS], axis=1)
        form = Form.of(capture)
        if not self.forms or form == self.forms[0][1]:
            self._pool(capture)
        if form not in [known for _, known in self.forms]:
            self.forms.append((number, form))  # with a second one, the survey will stop
        prefix = f"{capture.source}: "
        warnings = tuple(text.removeprefix(prefix) for text in capture.warnings)
        self.files.append(Measured(number, digest, capture.layer_index, record, warnings))

    def _pool(self, capture: Capture) -> None:
        moments, layer = CaptureMoments.of(capture), capture.layer_index
        if layer in self.moments:
            if not STATISTICS[capture.statistic].has_mean:
                return  # the survey will stop
            moments = self.moments[layer].merge(moments)
        sketch = self.sketch.merge(capture.value_sketch)
        (low, high), (least, most) = capture.value_range, self.value_range
        self.moments[layer], self.sketch = moments, sketch
        self.value_range = min(low, least), max(high, most)


def split_parts(files: Sequence[CaptureFile], places: Sequence[Place]) -> list[Part]:
    """Split the files of a survey: files of one name (a layer) of some runs of a set.

    Parameters
    ----------
    files, places
        In the order of sets, runs and names.

    Returns
    -------
    list of Part
        Together they hold every file once.
    """
    parts = []
    numbers = range(len(files))
    for _, of_set in groupby(numbers, key=lambda n: places[n].set):
        runs = [list(run) for _, run in groupby(of_set, key=lambda n: places[n].run)]
        for start in range(0, len(runs), RUNS_IN_A_PART):
            chunk = [number for run in runs[start : start + RUNS_IN_A_PART] for number in run]
            named: dict[str, list[int]] = {}
            for number in chunk:
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
            findings.files.append(Failed(number, digest_file(file), error))
        except Exception as error:  # noqa: BLE001 - whatever one file does, the others count
            failure = unexpected(str(file.path), error)
            findings.files.append(Failed(number, digest_file(file), failure))
    return findings


def digest_part(part: Part) -> list[str]:
    """Return the digest of the content of each file of a part; empty where unreadable."""
    return [digest_file(file) for file in part.files]


def digest_file(file: CaptureFile) -> str:
    """Return the digest of a file's content as `read_capture` does, or an empty text."""
    from headgrid.capture.files import hash_file

    try:
        return hash_file(file.path) if file.path.is_file() else ""
    except (OSError, ValueError):
        return ""


def _describe(name: str, value: Any) -> str:
    if name == "full":
        return "present" if value else "absent"
    if value is None:
        return "absent"
    if isinstance(value, tuple):
        return f"{len(value)} ({shorten_list(value)})"
    return str(value)
