"""``headgrid survey`` -> tables, maps and figures of many captures in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import (
    check_formats,
    check_list,
    check_ppi,
    check_run,
    complain,
    count_jobs,
    format_option,
    inputs_argument,
    locate_inputs,
    make_options,
    output_option,
    ppi_option,
    run_options,
    show_path,
    show_progress,
    stop,
    warn,
)
from headgrid.errors import CaptureError, HeadgridError, OutputError, check_choice

if TYPE_CHECKING:
    from headgrid.batch.survey_files import Figures, Target
    from headgrid.capture.folders import CaptureFile
    from headgrid.survey.model import Survey

#: Files from which several processes pay: one reads some hundred in the time they need to start.
_SEVERAL = 400


@click.command()
@inputs_argument
@output_option("Where tables, maps and figures go.", required=True)
@click.option(
    "--by",
    default=None,
    metavar="set",
    help="Compare sets, the folders above the runs, side by side: also a single input's own.",
)
@click.option(
    "--statistic",
    "statistics",
    multiple=True,
    metavar="NAME",
    help="One more measure to draw and compare, beside the sink score: a column of statistics.csv.",
)
@format_option
@ppi_option
@click.option(
    "--color-range",
    default="quantile",
    show_default=True,
    metavar="RULE|LO,HI",
    help="Of the sheet, over all values of all inputs. quantile: symmetric, without the outermost "
    "1 % of them; symmetric or shared: the largest magnitude; minmax; or two numbers.",
)
@click.option(
    "--palette", default="rdbu", show_default=True, metavar="rdbu|custom", help="Colours."
)
@click.option(
    "--theme", default="default", show_default=True, metavar="default|paper", help="Look."
)
@click.option(
    "--cells",
    default="auto",
    show_default=True,
    metavar="auto|vector|image",
    help="The sheet's cells as vector shapes, or as one PNG tile per head.",
)
@run_options
def survey(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    by: str | None,
    jobs: int | None,
    dask: str | None,
    resume: bool,
    **options: Any,
) -> None:
    """Look at many captures together: layers, heads, runs and sets.

    Writes statistics.csv and .parquet, heads.csv, stability.csv, overview, trend and
    sheet; for several runs mean/ and deviation/; for several sets agreement.csv.
    Folders are SET/RUN/layer0.pt or RUN/layer0.pt.
    """
    from headgrid.batch.survey_files import Target

    check_run(jobs, dask)
    if by is not None:
        check_choice("by", by, ["set"])
    target = Target(folder, _read_options(**options), by, resume)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a folder; choose another one")
    given = locate_inputs(inputs, dask)
    found = _read(given, target, jobs, dask)
    if found is not None and (_write(found, target, given) or found.failures):
        stop(1)


def _read_options(*, statistics: Sequence[str], formats: str, ppi: float, **style: Any) -> Figures:
    from headgrid.batch.survey_files import Figures
    from headgrid.tables.measures import MEASURES

    names = check_list("statistic", ["sink", *statistics], tuple(MEASURES))
    return Figures(names, check_formats(formats), make_options(**style), check_ppi(ppi))


def _read(given: list[Path], target: Target, jobs: int | None, dask: str | None) -> Survey | None:
    """Read all inputs and say what is wrong with them; None where everything is made already."""
    from headgrid.batch.processes import open_pool
    from headgrid.capture.folders import find_captures, place_captures
    from headgrid.survey.read import read_files, survey_tally

    files, errors = find_captures(given)
    for error in errors:
        complain(error)
    files = _leave_out_own(files, target.folder)
    if not files:
        stop(1)
    places = place_captures(files, by="set" if target.by else None)
    if target.resume and not errors and target.is_finished(files, places):
        return None
    jobs = count_jobs(jobs, len(files), least=_SEVERAL)
    with (
        open_pool(jobs, dask) if jobs > 1 or dask is not None else nullcontext() as executor,
        show_progress(len(files), "reading", "files") as advance,
    ):

        def count(done: int) -> None:
            for _ in range(done):
                advance()

        tally = read_files(files, places, executor=executor, advance=count)
    for _, failure in sorted(tally.failures.items()):
        complain(failure)
    found = survey_tally(tally, errors)
    for text in (*found.warnings, *found.missing):
        warn(text)
    return found


def _leave_out_own(files: Sequence[CaptureFile], folder: Path) -> list[CaptureFile]:
    """Leave out the maps that an earlier survey has written below its inputs.

    Where they are themselves the input, they stay.
    """
    from headgrid.batch.survey_files import MAPS

    own = [Path(os.path.realpath(folder / name)) for name in MAPS]

    def is_own(file: CaptureFile) -> bool:
        path, root = Path(os.path.realpath(file.path)), Path(os.path.realpath(file.root))
        return any(path.is_relative_to(maps) and not root.is_relative_to(maps) for maps in own)

    kept = [file for file in files if not is_own(file)]
    if files and not kept:
        raise CaptureError(
            f"{files[0].root}: holds no capture but those that a survey has written into {folder}, "
            "expected the captures that it was made of"
        )
    return kept


def _write(found: Survey, target: Target, given: list[Path]) -> bool:
    """Write everything and print the files that were written; return whether any failed."""
    from headgrid.batch.processes import rendering_process
    from headgrid.batch.survey_files import write_survey

    failed = False
    with rendering_process() as executor:
        for outcome in write_survey(found, target, given, executor=executor):
            if isinstance(outcome, HeadgridError):
                failed = True
                complain(outcome)
            else:
                show_path(outcome)
    return failed
