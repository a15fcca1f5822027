"""Files or captures -> a `Survey` of them; each is read once, where an executor says."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from typing import Any, Literal, TypeAlias

import numpy as np

from headgrid.capture import store
from headgrid.capture.folders import CaptureFile, Place, find_captures, place_captures
from headgrid.capture.form import CaptureForm
from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import Array
from headgrid.capture.values import hide
from headgrid.errors import (
    CaptureError,
    HeadgridError,
    HeadgridWarning,
    OptionError,
    check_choice,
    explain,
)
from headgrid.survey.calls import submit_in_order
from headgrid.survey.model import Input, Survey
from headgrid.survey.moments import CaptureMoments
from headgrid.tables.measures import MEASURES, measure_heads
from headgrid.text import clean_text, shorten_list, shorten_text

_Path = str | os.PathLike[str]
Inputs = _Path | Capture | Iterable[_Path] | Iterable[Capture]

#: A part is one layer of so many runs: few, so that work is spread evenly; more than
#: one, so that what a worker sends back (a mean map, whatever the runs) is small
#: beside what it has read.
RUNS_IN_A_PART = 16

#: A file, and where its capture stands among the others.
Placed: TypeAlias = tuple[CaptureFile, Place]


@dataclass
class Tally:
    """What captures of one form add up to; each counts once, under its place and layer."""

    form: CaptureForm | None = None
    inputs: dict[tuple[Place, int], Input] = field(default_factory=dict)
    #: Moments over the runs of each set and layer.
    maps: dict[tuple[str, int], CaptureMoments] = field(default_factory=dict)
    sketch: QuantileSketch = field(default_factory=lambda: QuantileSketch.of([]))
    value_range: tuple[float, float] = (math.inf, -math.inf)
    #: The first two forms, which differ in labels, each with the place and layer that it was in.
    forms: dict[CaptureForm, tuple[Place, int]] = field(default_factory=dict)
    #: What is wrong with files that hold no usable capture.
    failures: list[HeadgridError] = field(default_factory=list)

    @classmethod
    def of(cls, capture: Capture, place: Place, digest: str = "") -> Tally:
        """Return the tally of one capture."""
        layer, columns = capture.layer_index, measure_heads(capture)
        record = np.stack([columns[name] for name in MEASURES], axis=1)
        rows = capture.last_block_rows, _last_query(capture)
        odd = tuple(text.removeprefix(f"{capture.source}: ") for text in capture.warnings)
        form = CaptureForm.of(capture)
        return cls(
            form,
            {(place, layer): Input(place, layer, capture.source, digest, record, odd, *rows)},
            {(place.set, layer): CaptureMoments.of(capture)},
            capture.value_sketch,
            capture.value_range,
            {form: (place, layer)},
        )

    def merge(self, other: Tally) -> None:
        """Take up another one's captures, behind these; refuse those that do not go together."""
        self.failures += other.failures
        if other.form is None:
            return
        self._check(other)
        self.form = self.form.meet(other.form) if self.form else other.form
        for form, where in other.forms.items():
            if len(self.forms) < 2:
                self.forms.setdefault(form, where)
        self.inputs |= other.inputs
        for key, moments in other.maps.items():
            self.maps[key] = self.maps[key].merge(moments) if key in self.maps else moments
        self.sketch = self.sketch.merge(other.sketch)
        (low, high), (least, most) = self.value_range, other.value_range
        self.value_range = min(low, least), max(high, most)

    def _check(self, other: Tally) -> None:
        """Refuse captures that do not go together with those of this one."""
        assert other.form is not None
        mine, theirs = self.form or other.form, other.form
        for name, one, two in mine.meet(theirs).differences(theirs.meet(mine)):
            first, second = (next(iter(one.inputs.values())).source for one in (self, other))
            raise CaptureError(
                f"{first} and {second} differ in {name}: {one} and {two}; expected captures "
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


def _last_query(capture: Capture) -> Array:
    """Return the rows [heads, key] of the last query frame recorded, else those of the block."""
    matrix = capture.full_frame_attention
    if matrix is not None:
        for query in range(matrix.shape[1])[::-1]:
            row = hide(matrix[:, query], capture.attendable[query])
            if not np.isnan(row).all():
                return row
    return capture.last_block_rows


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
        For each file that is not usable, for layers that a run lacks, where something in a
        file is odd, and where labels differ, so that numbers take their place.

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
    captures, paths = split_inputs(inputs)
    files, errors = find_captures(paths)
    tally = read_files(files, place_captures(files, by=by), executor=executor)
    for capture in captures:
        tally.merge(Tally.of(capture, Place("", clean_text(capture.run))))
    found = survey_tally(tally, errors)
    for text in (*map(str, found.failures), *found.warnings, *found.missing):
        warnings.warn(text, HeadgridWarning, stacklevel=2)
    return found


def read_files(
    files: Sequence[CaptureFile],
    places: Sequence[Place],
    *,
    executor: Executor | None = None,
    advance: Callable[[int], None] = lambda files: None,
) -> Tally:
    """Read every file once, in whatever order they stand, and tally what they hold.

    ``places`` are those of `place_captures`; ``advance`` is called with the number of
    files of each part that is done. Captures that can not be compared are an error.
    """
    clean = {place: Place(clean_text(place.set), clean_text(place.run)) for place in {*places}}
    named: dict[str, str] = {}
    for place in places:
        for shown, own in ((clean[place].set, place.set), (clean[place].text, place.text)):
            if named.setdefault(shown, own) != own:
                raise CaptureError(
                    f"{named[shown]!a} and {own!a} differ only in what can not be printed, both "
                    f"are {shown!r}, expected folders with names of their own; rename one of them"
                )
    both = zip(files, places, strict=True)
    ordered = sorted(both, key=lambda one: (one[1].order, one[0].order))
    parts = split_parts([(file, clean[place]) for file, place in ordered])
    tally = Tally()
    try:
        with closing(_read_parts(parts, executor)) as results:
            for part, found in zip(parts, results, strict=True):
                tally.merge(found)
                advance(len(part))
    except BrokenExecutor as error:
        raise HeadgridError(
            "a worker process has died, most likely for want of memory; use fewer (--jobs)"
        ) from error
    return tally


def survey_tally(tally: Tally, errors: Sequence[HeadgridError] = ()) -> Survey:
    """Return the survey of a finished tally; ``errors`` came up before any file was read."""
    failures = (*errors, *tally.failures)
    if tally.form is None:
        told = f"; the first: {failures[0]}" if failures else ""
        raise CaptureError(
            f"none of {len(failures)} inputs is a usable capture, expected at least one{told}"
        )
    order = {place: place.order for place, _ in tally.inputs}
    inputs = sorted(tally.inputs.values(), key=lambda one: (order[one.place], one.layer))
    values = tally.value_range, tally.sketch
    odd = _warnings_of(inputs)
    if len(tally.forms) > 1:
        (form, first), (other, second) = tally.forms.items()
        name, mine, theirs = form.differences(other)[0]
        both = [of.text or "an unnamed run" for of, _ in (first, second)]
        if first[0] == second[0]:
            both = [f"layer {layer}" for _, layer in (first, second)]
        odd += (
            f"{' and '.join(both)} differ in {name}: {mine} and {theirs}; what is made of both "
            "shows plain numbers instead of labels",
        )
    return Survey(tally.form, failures, odd, *values, tuple(inputs), tally.maps)


def _warnings_of(inputs: Sequence[Input]) -> tuple[str, ...]:
    """Return what was odd in the files, once for each kind, with the first that it was in."""
    sources: dict[str, list[str]] = {}
    for one in inputs:
        for text in one.warnings:
            sources.setdefault(text, []).append(one.source)
    return tuple(
        f"{first}: {text}{f' (and {len(more):,} more files)' if more else ''}"
        for text, (first, *more) in sources.items()
    )


def split_inputs(inputs: Inputs) -> tuple[Iterator[Capture], list[_Path]]:
    """Return the captures, one by one, or else the paths; refuse what holds both, or neither."""
    given: Any = [inputs] if isinstance(inputs, (str, os.PathLike, Capture)) else inputs
    if not isinstance(given, Iterable):
        raise OptionError(
            f"inputs is {type(inputs).__name__}, expected paths, or captures; give a folder"
        )
    rest = iter(given)
    first = list(islice(rest, 1))
    if first and isinstance(first[0], Capture):
        return _expect(Capture, chain(first, rest)), []
    return iter(()), [*_expect((str, os.PathLike), chain(first, rest))]


def _expect(kind: Any, inputs: Iterable[Any]) -> Iterator[Any]:
    for one in inputs:
        if not isinstance(one, kind):
            raise OptionError(
                f"inputs hold {type(one).__name__}, expected paths only, or captures only"
            )
        yield one


def choose_set(sets: Sequence[str], wanted: str | None, remedy: str) -> str:
    """Return the one set that is shown; an unknown one is refused, and none of several."""
    chosen = sets[0] if wanted is None and len(sets) == 1 else wanted
    if chosen is not None and chosen in sets:
        return chosen
    listed = shorten_list([shorten_text(name, 40) or "(none)" for name in sets])
    found = "not given" if wanted is None else repr(shorten_text(wanted, 40))
    raise OptionError(f"set is {found}, expected one of {listed}; {remedy}")


def split_parts(files: Sequence[Placed]) -> list[list[Placed]]:
    """Split files, which stand in the order of sets, runs and names, into parts.

    A part holds the files of one name (a layer) of some runs of a set. Parts follow from
    the files alone and never from the number of workers: sums of floats are made in their
    order, so that every executor gives the same bits.
    """
    parts: list[list[Placed]] = []
    for _, of_set in groupby(files, key=lambda one: one[1].set):
        runs = [list(run) for _, run in groupby(of_set, key=lambda one: one[1].run)]
        for start in range(0, len(runs), RUNS_IN_A_PART):
            named: dict[str, list[Placed]] = {}
            for file, place in chain(*runs[start : start + RUNS_IN_A_PART]):
                named.setdefault(file.path.stem.casefold(), []).append((file, place))
            parts += named.values()
    return parts


def read_part(part: Sequence[Placed]) -> Tally:
    """Read the files of a part, each once, and tally what they hold."""
    tally = Tally()
    for file, place in part:
        try:
            capture, digest = store.read_capture(file)
            found = Tally.of(capture, place, digest)
        except Exception as error:  # noqa: BLE001 - whatever one file does, the others count
            found = Tally(failures=[explain(str(file.path), error)])
        tally.merge(found)
    return tally


def _read_parts(parts: Sequence[list[Placed]], executor: Executor | None) -> Generator[Tally]:
    """Yield what each part holds, in order."""
    if executor is None:
        yield from map(read_part, parts)
        return
    # Two for each worker; an executor that does not say how many it has may have 16.
    window = 2 * (getattr(executor, "_max_workers", 0) or 16) + 2
    with closing(submit_in_order(executor, read_part, parts, window=window)) as calls:
        for _, call in calls:
            yield call.result()
