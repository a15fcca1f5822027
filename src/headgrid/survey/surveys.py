"""Many captures -> a `Survey` of them; files are read once, by as many workers as there are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import Literal

from headgrid.capture.folders import find_captures, place_captures
from headgrid.capture.model import Capture
from headgrid.errors import (
    CaptureError,
    HeadgridError,
    HeadgridWarning,
    OptionError,
    check_choice,
)
from headgrid.survey.reading import read_captures, read_files
from headgrid.survey.surveyed import Survey
from headgrid.survey.tally import Tally

__all__ = ["Survey", "survey", "survey_tally"]

_Path = str | os.PathLike[str]
Inputs = _Path | Capture | Iterable[_Path] | Iterable[Capture]

_NOTHING = object()


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
    found = survey_tally(*_read(inputs, by, executor))
    for text in (*map(str, found.failures), *found.warnings, *found.missing):
        warnings.warn(text, HeadgridWarning, stacklevel=2)
    return found


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
    return Survey(tally.form, failures, tuple(tally.warnings), tally)


def _read(
    inputs: Inputs, by: Literal["set"] | None, executor: Executor | None
) -> tuple[Tally, list[CaptureError]]:
    if isinstance(inputs, (str, os.PathLike)):
        paths: list[_Path] = [inputs]
    else:
        if not isinstance(inputs, (Capture, Iterable)):
            raise OptionError(
                f"inputs is {type(inputs).__name__}, expected paths, or captures; give a folder"
            )
        given = iter([inputs] if isinstance(inputs, Capture) else inputs)
        first = next(given, _NOTHING)
        if isinstance(first, Capture):
            return read_captures(chain([first], given)), []  # type: ignore[arg-type]
        paths = [] if first is _NOTHING else [first, *given]  # type: ignore[list-item]
        for path in paths:
            if not isinstance(path, (str, os.PathLike)):
                raise OptionError(
                    f"inputs hold a {type(path).__name__}, expected paths only, or captures only"
                )
    files, errors = find_captures(paths)
    return read_files(files, place_captures(files, by=by), executor=executor), errors
