"""Captures, their files or a survey of them -> the page in which each head can be looked at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from headgrid.capture.files import write_bytes
from headgrid.capture.folders import CaptureFile, Place, find_captures, place_captures
from headgrid.capture.model import Capture
from headgrid.errors import HeadgridWarning, OptionError, near_miss
from headgrid.options import PaletteName
from headgrid.survey.model import Survey
from headgrid.survey.read import Inputs, read_files, survey, survey_tally
from headgrid.text import shorten_list, shorten_text
from headgrid.web.explorer_page import ExplorerOptions, write_explorer


def explore(
    inputs: Inputs | Survey,
    path: str | os.PathLike[str],
    *,
    run: str | None = None,
    set: str | None = None,
    statistic: str | None = None,
    color_range: str | tuple[float, float] = "symmetric",
    palette: PaletteName = "rdbu",
    title: str | None = None,
    executor: Executor | None = None,
) -> Path:
    """Write one offline page in which every head of every layer can be looked at.

    Beyond 256 places along an axis neighbours share one, of which the value of largest magnitude
    is shown; the page says so.

    Parameters
    ----------
    inputs : path, Capture, iterable of either, or Survey
        As `headgrid.survey` takes them, or what it has returned.
    path : path
        The page to write, ``explorer.html``.
    run : str, optional
        Which run to show: the name of its folder, or the end of its path. By default
        the mean over all runs.
    set : str, optional
        Which set to show; needed where there are several and no run is named.
    statistic : str, optional
        The measure that the overview shows first, a column of ``Survey.statistics``; by
        default the sink score, or the first that has values.
    color_range : {"symmetric", "head", "quantile"} or (low, high)
        Colour range of the maps when the page opens: of the layer or the head that is shown, of
        all layers without the outermost 1 % of their values, or fixed.
    palette : {"rdbu", "custom"}
        Diverging palette of signed statistics.
    title : str, optional
        Heading of the page.
    executor : concurrent.futures.Executor, optional
        Where files are read; by default here.

    Returns
    -------
    Path
        The file written. It is whole, or not there; the same input gives the same bytes.

    Raises
    ------
    CaptureError
        Where no capture is usable, or they can not be compared or are too large for a page.
    OptionError
        For an unknown run, set or option, with the choices.
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> captures = [Capture.from_array([[[3.0, 0.0], [2.0, 1.0]]], layer=n) for n in (0, 1)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = explore(captures, f"{folder}/explorer.html")
    ...     page.read_text("utf-8")[:15]
    '<!doctype html>'
    """
    options = ExplorerOptions(set, statistic, color_range, palette, title)
    if isinstance(inputs, Survey):
        if run is not None:
            raise OptionError(
                f"run is {run!r} and a survey was given, which holds no single runs; give the "
                "captures or their folder instead"
            )
        found = inputs
    else:
        found = _survey_run(inputs, run, "set" if set else None, executor)
    return write_bytes(Path(path), write_explorer(found, options).encode("utf-8"))


def select_run(
    files: Sequence[CaptureFile], places: Sequence[Place], run: str | None
) -> tuple[list[CaptureFile], list[Place]]:
    """Return files and places of the run of that name; all of them where none is named."""
    if run is None:
        return list(files), list(places)
    chosen = _match_run([place.text for place in places], run)
    kept = [number for number, place in enumerate(places) if place.text == chosen]
    return [files[number] for number in kept], [places[number] for number in kept]


def _match_run(names: Sequence[str], run: str) -> str:
    known = list(dict.fromkeys(name for name in names if name))
    wanted = run.strip("/")
    found = [name for name in known if name == wanted or name.endswith(f"/{wanted}")]
    if len(found) == 1 or wanted in found:
        return wanted if wanted in found else found[0]
    listed = shorten_list([shorten_text(name, 60) for name in found or known])
    means = f"which is in {len(found)} sets, " if found else ""
    hint = "" if found else near_miss(wanted, known)
    raise OptionError(
        f"run is {shorten_text(run, 60)!r}, {means}expected one of "
        f"{listed or 'none, as the captures are not in runs'}{hint}"
    )


def _survey_run(
    inputs: Inputs, run: str | None, by: Literal["set"] | None, executor: Executor | None
) -> Survey:
    single = (str, os.PathLike, Capture)
    given: list[object] = [inputs] if isinstance(inputs, single) else list(inputs)
    captures = [one for one in given if isinstance(one, Capture)]
    if captures and run is not None:
        name = _match_run([capture.run for capture in captures], run)
        return survey([capture for capture in captures if capture.run == name])
    if captures or run is None:
        return survey(given, by=by, executor=executor)  # type: ignore[arg-type]
    files, errors = find_captures(given)  # type: ignore[arg-type]
    chosen = select_run(files, place_captures(files, by=by), run) if files else ([], [])
    found = survey_tally(read_files(*chosen, executor=executor), errors)
    for text in (*map(str, found.failures), *found.warnings, *found.missing):
        warnings.warn(text, HeadgridWarning, stacklevel=3)
    return found
