"""Capture files -> the finished tally of a survey, in one pass, by as many workers as there are.

Every few seconds the state is saved, so that a pass that is cut short in any way
can be taken up where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from headgrid._version import __version__
from headgrid.batch.processes import map_in_order
from headgrid.capture.folders import CaptureFile, Place
from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, HeadgridError, OptionError
from headgrid.survey.parts import COLUMNS, Findings, Part, digest_part, read_part, split_parts
from headgrid.survey.tally import Tally
from headgrid.text import clean_text

_Result = TypeVar("_Result")

#: Seconds between two saved states; more where saving takes long.
_SAVE_SECONDS = 3.0
_SAVE_SHARE = 20

#: Workers that an executor is taken to have where it does not say.
_WORKERS = 16


def read_files(
    files: Sequence[CaptureFile],
    places: Sequence[Place],
    *,
    executor: Executor | None = None,
    folder: Path | None = None,
    resume: bool = False,
    advance: Callable[[int], None] = lambda files: None,
) -> Tally:
    """Read every file once, and tally what it holds.

    Parameters
    ----------
    files, places
        From `find_captures` and `place_captures`; in any order.
    executor : concurrent.futures.Executor, optional
        Where files are read; by default here. The result does not depend on it.
    folder : Path, optional
        Where the state is kept; by default in memory, so that nothing of an
        interrupted pass is left.
    resume : bool
        Take up the state in the folder, if it is of these files as they are now;
        otherwise it is removed.
    advance : callable
        Called with the number of files of each part that is done.

    Raises
    ------
    CaptureError
        Where captures can not be compared, or one is there twice. The state is
        then removed.
    OutputError
        Where the state can not be written.
    """
    order = sorted(range(len(files)), key=lambda n: (places[n].order, files[n].order))
    listed = [files[n] for n in order]
    clean = {place: Place(clean_text(place.set), clean_text(place.run)) for place in {*places}}
    cleaned = [clean[places[n]] for n in order]
    parts = split_parts(listed, cleaned)
    fingerprint = _fingerprint(listed, cleaned)
    tally = None
    if resume:
        tally = _take_up(folder, listed, cleaned, parts, fingerprint, executor)
    tally = tally or _start(folder, listed, cleaned)
    done, left = parts[: tally.parts], parts[tally.parts :]
    advance(sum(len(part.files) for part in done))
    saver = _Saver(tally, fingerprint)
    try:
        with closing(_map(read_part, left, executor)) as results:
            for part, findings in zip(left, results, strict=True):
                tally.add(findings)
                advance(len(part.files))
                saver.save_in_time()
    except KeyboardInterrupt:
        saver.save()
        tally.spool.close()
        raise
    except CaptureError:
        tally.spool.close()
        remove_state(folder)
        raise
    except BrokenExecutor as error:
        saver.save()
        tally.spool.close()
        raise HeadgridError(
            "a worker process has died, most likely for want of memory; use fewer (--jobs), and "
            "go on with --resume"
        ) from error
    saver.save()
    return tally


def read_captures(captures: Iterable[Capture]) -> Tally:
    """Tally captures that are in memory, each looked at once; their run names tell them apart.

    Raises
    ------
    CaptureError
        Where captures can not be compared, or one is there twice.
    OptionError
        For anything that is no capture.
    """
    tally = Tally()
    for capture in captures:
        if not isinstance(capture, Capture):
            raise OptionError(
                f"inputs hold a {type(capture).__name__} beside captures, expected captures only, "
                "or paths only"
            )
        findings = Findings()
        findings.add(tally.expect(capture.source, Place("", clean_text(capture.run))), capture)
        tally.add(findings)
    return tally


def remove_state(folder: Path | None) -> None:
    """Remove the state folder, if there is one."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class _Saver:
    """Save a tally now and then."""

    def __init__(self, tally: Tally, fingerprint: str) -> None:
        self._tally = tally
        self._fingerprint = fingerprint
        self._due = time.monotonic() + _SAVE_SECONDS

    def save(self) -> None:
        self._tally.save(self._fingerprint)

    def save_in_time(self) -> None:
        started = time.monotonic()
        if started < self._due:
            return
        self.save()
        ended = time.monotonic()
        self._due = ended + max(_SAVE_SECONDS, _SAVE_SHARE * (ended - started))


def _start(folder: Path | None, files: Sequence[CaptureFile], places: Sequence[Place]) -> Tally:
    remove_state(folder)
    tally = Tally(folder)
    for file, place in zip(files, places, strict=True):
        tally.expect(str(file.path), place)
    return tally


def _take_up(
    folder: Path | None,
    files: Sequence[CaptureFile],
    places: Sequence[Place],
    parts: Sequence[Part],
    fingerprint: str,
    executor: Executor | None,
) -> Tally | None:
    """Return the saved tally, or None where there is none of these files as they are."""
    if folder is None or not folder.is_dir():
        return None
    tally = Tally(folder)
    for file, place in zip(files, places, strict=True):
        tally.expect(str(file.path), place)
    if not tally.take_up(fingerprint):
        tally.spool.close()
        return None
    done = parts[: tally.parts]
    with closing(_map(digest_part, done, executor)) as digests:
        for part, found in zip(done, digests, strict=True):
            if found != [tally.digests[number] for number in part.numbers]:
                tally.spool.close()
                return None
    return tally


def _fingerprint(files: Sequence[CaptureFile], places: Sequence[Place]) -> str:
    """Return what tells apart: these files, and the code that reads them."""
    names = [
        [place.set, place.run, file.path.name] for file, place in zip(files, places, strict=True)
    ]
    about = [__version__, np.__version__, COLUMNS, names]
    return hashlib.sha256(json.dumps(about).encode("ascii")).hexdigest()


def _map(
    function: Callable[[Part], _Result], parts: Sequence[Part], executor: Executor | None
) -> Generator[_Result]:
    if executor is None:
        yield from map(function, parts)
        return
    workers: int = getattr(executor, "_max_workers", 0) or getattr(executor, "_jobs", _WORKERS)
    yield from map_in_order(executor, function, parts, window=2 * workers + 2)
