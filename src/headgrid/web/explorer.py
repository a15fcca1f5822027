"""Captures, their files or a survey of them -> the page in which each head can be looked at."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from headgrid.capture.files import write_bytes
from headgrid.capture.folders import CaptureFile, Place, find_captures, place_captures
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, describe_error, near_miss
from headgrid.options import PaletteName
from headgrid.survey.model import Survey
from headgrid.survey.read import Inputs, Tally, choose_set, read_files, split_inputs, survey_tally
from headgrid.text import clean_text, shorten_list, shorten_text
from headgrid.web.explorer_page import ExplorerOptions, View, write_explorer

if TYPE_CHECKING:
    import pandas as pd

#: Runs that a page holds beside their mean.
Runs: TypeAlias = Literal["all"] | Sequence[str]

_ONE_SET = "a page shows one set (set=, --set), or one run of it (run=, --run)"


def explore(
    inputs: Inputs | Survey,
    path: str | os.PathLike[str],
    *,
    run: str | None = None,
    runs: Runs | None = None,
    set: str | None = None,
    statistic: str | None = None,
    color_range: str | tuple[float, float] = "symmetric",
    palette: PaletteName = "rdbu",
    title: str | None = None,
    roles: pd.DataFrame | str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> Path:
    """Write one offline page in which every head of every layer can be looked at.

    It opens on the most telling head, that of the largest magnitude of the shown measure. Beyond
    256 places along an axis neighbours share one, of which the value of largest magnitude is
    shown; the page says so.

    Parameters
    ----------
    inputs : path, Capture, iterable of either, or Survey
        As `headgrid.survey` takes them, or what it has returned.
    path : path
        The page to write, ``explorer.html``.
    run : str, optional
        Which run to show: the name of its folder, or the end of its path. By default
        the mean over all runs.
    runs : "all" or list of str, optional
        Runs that the page holds beside their mean, to choose among: all of a set, or those named.
        Each takes as much room as a page of its own.
    set : str, optional
        Which set to show; needed where there are several and no run is named.
    statistic : str, optional
        The measure that the overview shows first, a column of ``Survey.statistics``; by
        default the sink score, or the first that has values.
    color_range : {"symmetric", "head", "shared", "quantile"} or (low, high)
        Colour range of the maps when the page opens: of the layer or the head that is shown, of
        all layers, of these without the outermost 1 % of their values, or fixed.
    palette : {"rdbu", "custom"}
        Diverging palette of signed statistics.
    title : str, optional
        Heading of the page.
    roles : DataFrame or path of a CSV file, optional
        Columns ``layer``, ``head`` and ``role``, one row a head; others are ignored. The list of
        heads shows them and can be narrowed to one; a head without a row has "-".
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
        For an unknown run, set or option, with the choices, and for roles that are none.
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> from headgrid import Capture
    >>> captures = [Capture.from_array([[[3.0, 0.0], [2.0, 1.0]]], layer=n) for n in (0, 1)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = explore(captures, f"{folder}/explorer.html")
    ...     page.read_text("utf-8")[:15]
    '<!doctype html>'
    """
    known = None if roles is None else read_roles(roles)
    options = ExplorerOptions(statistic, color_range, palette, title, known)
    if isinstance(inputs, Survey):
        if run is not None or runs is not None:
            raise OptionError(
                f"run is {run or runs!r} and a survey was given, which holds no single runs; give "
                "the captures or their folder instead"
            )
        views = view_runs(inputs, set)
    else:
        views = _read_views(inputs, run, runs, set, executor)
    return write_bytes(Path(path), write_explorer(views, options).encode("utf-8"))


def choose_runs(
    places: Sequence[Place], run: str | None, runs: Runs | None, set: str | None
) -> dict[int, Place]:
    """Return which of some captures a page holds, by number, each with its place.

    Where the page holds several runs to choose among, each of them is a set.
    """
    names = [place.text for place in places]
    if run is not None and runs is not None:
        raise OptionError(f"run is {run!r} and runs is {runs!r}, expected one of the two")
    if runs == "all":
        chosen = choose_set(list(dict.fromkeys(place.set for place in places)), set, _ONE_SET)
        wanted = [place.text for place in places if place.set == chosen]
    else:
        asked = [run] if run is not None else [runs] if isinstance(runs, str) else runs
        wanted = names if asked is None else [_match_run(names, one) for one in asked]
    return {
        number: place if runs is None else Place(place.text, "")
        for number, place in enumerate(places)
        if place.text in wanted
    }


def name_heads(
    files: Sequence[CaptureFile], places: Sequence[Place], inputs: Iterable[object]
) -> tuple[str, dict[str, str]]:
    """Return how ``headgrid pick`` begins for these files, and how it names each place's run."""
    words = [f"./{text}" if text.startswith("-") else text for text in map(str, inputs)]
    plain = [place.text for place in place_captures(files)]  # pick knows no set by name
    several = len({*plain}) > 1
    pairs = zip(places, plain, strict=True)
    heads = {place.text: shlex.quote(f"{text}/") if several else "" for place, text in pairs}
    return shlex.join(["headgrid", "pick", *words]), heads


def view_runs(
    found: Survey,
    set: str | None,
    pick: tuple[str, Mapping[str, str]] = ("", {}),
    *,
    several: bool = False,
) -> list[View]:
    """Return what a page shows of a survey: a set, or the mean of several and each of them."""
    sets = found.sets if several else [choose_set(found.sets, set, _ONE_SET)]
    views = [View(found, name, *pick) for name in sets]
    if len(views) > 1 and STATISTICS[found.statistic].has_mean:
        views.insert(0, View(found.pooled(), "", *pick))
    return views


def read_roles(table: pd.DataFrame | str | os.PathLike[str]) -> dict[tuple[int, int], str]:
    """Return the role of each head of a table, or a CSV file, that has one, by layer and head.

    >>> import pandas as pd
    >>> read_roles(pd.DataFrame({"layer": [3, 3], "head": [0, 1], "role": ["sink", None]}))
    {(3, 0): 'sink'}
    """
    import pandas as pd

    source, columns = "roles", ["layer", "head", "role"]
    if isinstance(table, (str, os.PathLike)):
        source = str(table)
        try:
            table = pd.read_csv(table, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise OptionError(
                f"{source}: {describe_error(error)}, expected a CSV file with a row a head"
            ) from None
    if missing := [name for name in columns if name not in getattr(table, "columns", ())]:
        raise OptionError(
            f"{source}: there is no column {missing[0]}, expected layer, head and role, one row a "
            "head"
        )
    roles: dict[tuple[int, int], str] = {}
    for *place, role in table[columns].astype(object).to_numpy().tolist():
        layer, head = (str(number).removesuffix(".0") for number in place)
        key = (int(layer), int(head)) if layer.isdecimal() and head.isdecimal() else None
        if key is None or key in roles:
            raise OptionError(
                f"{source}: a row has layer {shorten_text(layer, 20)!r} and head "
                f"{shorten_text(head, 20)!r}, expected whole numbers, and one row a head; of "
                "several runs give their votes (votes.csv, headgrid.role_votes)"
            )
        roles[key] = "" if pd.isna(role) else shorten_text(str(role), 60).strip()
    return {key: role for key, role in roles.items() if role}


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


def _read_views(
    inputs: Inputs, run: str | None, runs: Runs | None, set: str | None, executor: Executor | None
) -> list[View]:
    captures, paths = split_inputs(inputs)
    pick: tuple[str, dict[str, str]] = ("", {})
    if given := list(captures):
        places = [Place("", clean_text(one.run)) for one in given]
        chosen = choose_runs(places, run, runs, set)
        tally, errors = Tally(), list[CaptureError]()
        for number, place in chosen.items():
            tally.merge(Tally.of(given[number], place))
    else:
        files, errors = find_captures(paths)
        places = place_captures(files, by="set" if set else None)
        chosen = choose_runs(places, run, runs, set) if files else {}
        pick = name_heads(files, places, paths)
        tally = read_files([files[n] for n in chosen], [*chosen.values()], executor=executor)
    found = survey_tally(tally, errors)
    for text in (*map(str, found.failures), *found.warnings, *found.missing):
        warnings.warn(text, HeadgridWarning, stacklevel=3)
    return view_runs(found, set, pick, several=runs is not None)
