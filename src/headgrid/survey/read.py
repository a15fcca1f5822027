"""Files or captures -> a `Survey` of them; each is read once, where an executor says."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import closing
from itertools import chain
from typing import Literal

from headgrid.capture.folders import CaptureFile, Place, find_captures, place_captures
from headgrid.capture.form import CaptureForm
from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import (
    CaptureError,
    HeadgridError,
    HeadgridWarning,
    OptionError,
    check_choice,
)
from headgrid.survey.model import Input, Survey
from headgrid.survey.moments import CaptureMoments
from headgrid.survey.parts import Findings, Measured, Part, read_part, split_parts
from headgrid.text import clean_text

_Path = str | os.PathLike[str]
Inputs = _Path | Capture | Iterable[_Path] | Iterable[Capture]

_NOTHING = object()

#: Workers that an executor is taken to have where it does not say.
_WORKERS = 16


def survey(
    inputs: Inputs, *, by: Literal["set"] | None = None, executor: Executor | None = None
) -> Survey:
    """Look at many captures together: a whole model, many runs, several sets of runs.

    Parameters
    ----------
    inputs : path, Capture, or iterable of either
        Files and folders that are searched for captures, as
        ``SET/run_000/layer0.pt``; or captures in memory, told apart by their
        ``run``, which are looked at one by one and not kept.
    by : {"set"}, optional
        Name the set also where a single input is the only folder above the runs.
    executor : concurrent.futures.Executor, optional
        Where files are read: threads, processes, or a cluster. The result has
        the same bits with every executor.

    Returns
    -------
    Survey

    Raises
    ------
    CaptureError
        Where no capture is usable, where captures can not be compared (they
        differ in statistic, heads, frames or blocks), or where one layer of a
        run is there twice.

    Warns
    -----
    HeadgridWarning
        For each file that is not usable, for layers that a run lacks, and where
        something in a file is odd.

    Examples
    --------
    >>> rows = {"run_0": [5.0, 1.0, 1.0, 2.0], "run_1": [7.0, 1.0, 1.0, 2.0]}
    >>> captures = [Capture.from_array(last_block=[row], run=run) for run, row in rows.items()]
    >>> survey(captures)
    <Survey of 2 captures: 2 runs, 1 layer x 1 head, logit>
    >>> print(survey(captures).summary().to_string(index=False))
    set  layer  head  runs  mean      std
             0     0     2   5.0 1.414214
             0  <NA>     2   5.0 1.414214
    """
    if by is not None:
        check_choice("by", by, ["set"])
    if isinstance(inputs, (str, os.PathLike, Capture)):
        given: Iterator[_Path | Capture] = iter([inputs])
    elif isinstance(inputs, Iterable):
        given = iter(inputs)
    else:
        raise OptionError(
            f"inputs is {type(inputs).__name__}, expected paths, or captures; give a folder"
        )
    first: object = next(given, _NOTHING)
    errors: list[CaptureError] = []
    if isinstance(first, Capture):
        tally = _read_captures(chain([first], given))
    else:
        paths: list[_Path] = []
        for path in () if first is _NOTHING else (first, *given):
            if not isinstance(path, (str, os.PathLike)):
                raise OptionError(
                    f"inputs hold a {type(path).__name__}, expected paths only, or captures only"
                )
            paths.append(path)
        files, errors = find_captures(paths)
        tally = read_files(files, place_captures(files, by=by), executor=executor)
    found = survey_tally(tally, errors)
    for text in (*map(str, found.failures), *found.warnings, *found.missing):
        warnings.warn(text, HeadgridWarning, stacklevel=2)
    return found


class Tally:
    """What a survey knows after some of its parts; it grows by a table row a head."""

    def __init__(self, sources: Iterable[str] = (), places: Iterable[Place] = ()) -> None:
        self.sources = list(sources)
        self.places = list(places)
        self.form: CaptureForm | None = None
        self.inputs: dict[tuple[Place, int], Input] = {}
        self.maps: dict[tuple[str, int], CaptureMoments] = {}
        self.sketch = QuantileSketch.of([])
        self.value_range = math.inf, -math.inf
        self.failures: dict[int, HeadgridError] = {}  # by the number of the file
        self.odd: dict[str, tuple[int, int]] = {}  # a warning: its first file, how many files
        self._first_of_form = 0

    def add(self, findings: Findings) -> None:
        """Take up what the next part has found.

        Raises
        ------
        CaptureError
            Where a capture can not be compared with the others, or is there twice.
        """
        for form, number in findings.forms.items():
            self._check_form(form, number)
        for found in findings.measured:
            self._add_capture(found)
        for layer, moments in findings.moments.items():
            key = self.places[findings.measured[0].number].set, layer
            self.maps[key] = self.maps[key].merge(moments) if key in self.maps else moments
        self.failures |= findings.failures
        self.sketch = self.sketch.merge(findings.sketch)
        low, high = findings.value_range
        self.value_range = min(low, self.value_range[0]), max(high, self.value_range[1])

    def _check_form(self, form: CaptureForm, number: int) -> None:
        if self.form is None:
            self.form, self._first_of_form = form, number
        for name, mine, theirs in self.form.differences(form):
            raise CaptureError(
                f"{self.sources[self._first_of_form]} and {self.sources[number]} differ in {name}: "
                f"{mine} and {theirs}; expected captures that can be compared, so survey them "
                "separately"
            )

    def _add_capture(self, found: Measured) -> None:
        place, layer = self.places[found.number], found.layer
        source = self.sources[found.number]
        if (place, layer) in self.inputs:
            where = f"{place.text}, " if place.text else ""
            raise CaptureError(
                f"{self.inputs[place, layer].source} and {source} are both {where}layer {layer}, "
                "expected one capture for each set, run and layer; leave one out, or give the runs "
                "other names (their folders, or capture.replace(run=...))"
            )
        if self.form is not None and not STATISTICS[self.form.statistic].has_mean:
            for other in self.inputs.values():
                if (other.place.set, other.layer) == (place.set, layer):
                    raise CaptureError(
                        f"{other.source} and {source} hold {self.form.statistic} of several runs, "
                        "which has no mean over runs; survey the captures that they were made of"
                    )
        self.inputs[place, layer] = Input(place, layer, source, found.digest, found.record)
        for text in found.warnings:
            number, count = self.odd.get(text, (found.number, 0))
            self.odd[text] = min(number, found.number), count + 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd in the files, once for each kind, in the order of the files."""
        texts = []
        for text, (number, count) in sorted(self.odd.items(), key=lambda item: item[1]):
            more = f" (and {count - 1:,} more files)" if count > 1 else ""
            texts.append(f"{self.sources[number]}: {text}{more}")
        return tuple(texts)


def read_files(
    files: Sequence[CaptureFile],
    places: Sequence[Place],
    *,
    executor: Executor | None = None,
    advance: Callable[[int], None] = lambda files: None,
) -> Tally:
    """Read every file once, and tally what it holds.

    Parameters
    ----------
    files, places
        From `find_captures` and `place_captures`; in any order.
    executor : concurrent.futures.Executor, optional
        Where files are read; by default here. The result does not depend on it.
    advance : callable
        Called with the number of files of each part that is done.

    Raises
    ------
    CaptureError
        Where captures can not be compared, or one is there twice.
    HeadgridError
        Where a process of the executor has died.
    """
    order = sorted(range(len(files)), key=lambda n: (places[n].order, files[n].order))
    listed = [files[n] for n in order]
    clean = {place: Place(clean_text(place.set), clean_text(place.run)) for place in {*places}}
    cleaned = [clean[places[n]] for n in order]
    parts = split_parts(listed, cleaned)
    tally = Tally([str(file.path) for file in listed], cleaned)
    try:
        with closing(_read_parts(parts, executor)) as results:
            for part, findings in zip(parts, results, strict=True):
                tally.add(findings)
                advance(len(part.files))
    except BrokenExecutor as error:
        raise HeadgridError(
            "a worker process has died, most likely for want of memory; use fewer (--jobs)"
        ) from error
    return tally


def survey_tally(tally: Tally, errors: Sequence[HeadgridError] = ()) -> Survey:
    """Return the survey of a finished tally.

    Parameters
    ----------
    tally : Tally
    errors : sequence of HeadgridError
        What was wrong with inputs before any file was read.

    Raises
    ------
    CaptureError
        Where it holds no capture.
    """
    failures = (*errors, *(error for _, error in sorted(tally.failures.items())))
    if tally.form is None:
        first = f"; the first: {failures[0]}" if failures else ""
        raise CaptureError(
            f"none of {len(failures)} inputs is a usable capture, expected at least one{first}"
        )
    order = {place: place.order for place in {*tally.places}}
    inputs = sorted(tally.inputs.values(), key=lambda one: (order[one.place], one.layer))
    values = tally.value_range, tally.sketch
    return Survey(tally.form, failures, tally.warnings, *values, tuple(inputs), tally.maps)


def _read_captures(captures: Iterable[object]) -> Tally:
    """Tally captures in memory, each looked at once; their run names tell them apart."""
    tally = Tally()
    for number, capture in enumerate(captures):
        if not isinstance(capture, Capture):
            raise OptionError(
                f"inputs hold a {type(capture).__name__} beside captures, expected captures only, "
                "or paths only"
            )
        tally.sources.append(capture.source)
        tally.places.append(Place("", clean_text(capture.run)))
        findings = Findings()
        findings.add(number, capture)
        tally.add(findings)
    return tally


def _read_parts(parts: Sequence[Part], executor: Executor | None) -> Generator[Findings]:
    """Yield what each part holds, in order; few wait at a time, which bounds memory."""
    if executor is None:
        yield from map(read_part, parts)
        return
    window = 2 * (getattr(executor, "_max_workers", 0) or _WORKERS) + 2
    waiting: deque[Future[Findings]] = deque()
    try:
        for part in parts:
            waiting.append(executor.submit(read_part, part))
            if len(waiting) == window:
                yield waiting[0].result()
                waiting.popleft()
        for future in waiting:
            yield future.result()
    finally:
        for future in waiting:
            future.cancel()
