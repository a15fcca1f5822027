"""``headgrid survey`` -> tables, maps and figures of many captures in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
    from concurrent.futures import Executor

    from headgrid.batch.manifest import Manifest
    from headgrid.batch.survey_files import Figures
    from headgrid.capture.folders import CaptureFile
    from headgrid.survey.surveys import Survey

#: Where the state of an unfinished survey lies, below the folder of its output.
STATE = ".headgrid-survey"

#: Folders of the maps over runs that a survey writes.
MAPS = ("mean", "deviation")

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
    check_run(jobs, dask)
    if by is not None:
        check_choice("by", by, ["set"])
    wanted = _read_options(**options)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder; choose another one")
    work = _Work(locate_inputs(inputs, dask), folder, "set" if by else None, jobs, dask, resume)
    with _leave_no_empty_folder(folder):
        found = _read(work)
    errors = [*found.failures, *_write(found, work, wanted)]
    if errors:
        stop(1)


@dataclass(frozen=True)
class _Work:
    """What is read, where it goes, and who does it."""

    inputs: list[Path]
    folder: Path
    by: Literal["set"] | None
    jobs: int | None
    dask: str | None
    resume: bool

    @property
    def state(self) -> Path:
        return self.folder / STATE

    def open_pool(self, files: int) -> AbstractContextManager[Executor | None]:
        """Give where files are read; None for this process."""
        from headgrid.batch.processes import open_pool

        jobs = count_jobs(self.jobs, files, least=_SEVERAL)
        return open_pool(jobs, self.dask) if jobs > 1 or self.dask is not None else nullcontext()


def _read_options(
    *,
    statistics: Sequence[str],
    formats: str,
    ppi: float,
    **style: Any,
) -> Figures:
    from headgrid.batch.survey_files import Figures
    from headgrid.tables.measures import MEASURES

    names = check_list("statistic", ["sink", *statistics], tuple(MEASURES))
    return Figures(names, check_formats(formats), make_options(**style), check_ppi(ppi))


def _read(work: _Work) -> Survey:
    """Read all inputs; say what is wrong with them."""
    from headgrid.capture.folders import find_captures, place_captures
    from headgrid.survey.reading import read_files, remove_state
    from headgrid.survey.surveys import survey_tally

    files, errors = find_captures(work.inputs)
    for error in errors:
        complain(error)
    files = _leave_out_own(files, work.folder)
    if not files:
        stop(1)
    places = place_captures(files, by=work.by)
    with (
        work.open_pool(len(files)) as executor,
        show_progress(len(files), "reading", "files") as advance,
    ):

        def count(done: int) -> None:
            for _ in range(done):
                advance()

        tally = read_files(
            files,
            places,
            executor=executor,
            folder=work.state,
            resume=work.resume,
            advance=count,
        )
    for _, failure in sorted(tally.failures.items()):
        complain(failure)
    if tally.form is None:
        remove_state(work.state)
    found = survey_tally(tally, errors)
    for text in (*found.warnings, *found.missing):
        warn(text)
    return found


def _leave_out_own(files: Sequence[CaptureFile], folder: Path) -> list[CaptureFile]:
    """Leave out the maps that an earlier survey has written below its inputs.

    Where they are themselves the input, they stay.
    """
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


def _write(found: Survey, work: _Work, wanted: Figures) -> list[HeadgridError]:
    """Write everything, print the files that were written, and return what failed."""
    from headgrid.batch.processes import rendering_process
    from headgrid.batch.survey_files import has_values, write_survey
    from headgrid.survey.reading import remove_state

    color_range = found.color_range(wanted.options.color_range)
    wanted = replace(wanted, options=replace(wanted.options, color_range=color_range))
    errors: list[HeadgridError] = []
    for name in wanted.statistics:
        if not has_values(found, name):
            warn(
                f"{name} has no value in any head, as the captures hold {found.statistic}; it is "
                "not drawn"
            )
    if not found.form.full:
        warn("the captures hold no full matrix, so there is no sheet")
    with rendering_process() as executor, _open_manifest(found, work, wanted) as manifest:
        for outcome in write_survey(found, work.folder, wanted, manifest, executor=executor):
            if isinstance(outcome, HeadgridError):
                errors.append(outcome)
                complain(outcome)
            else:
                show_path(outcome)
    found.close()
    if not errors:
        remove_state(work.state)
    return errors


@contextmanager
def _open_manifest(found: Survey, work: _Work, wanted: Figures) -> Iterator[Manifest]:
    """Give the list of what was read and made; it is written however the block ends."""
    from headgrid.batch.manifest import Manifest
    from headgrid.capture.files import remove_leftovers

    if work.resume:
        deeper = [p for name in (*MAPS, "sheet") for p in work.folder.glob(f"{name}/**/")]
        remove_leftovers([work.folder, *deeper])
    range_ = found.color_range(wanted.options.color_range)
    options = asdict(wanted) | {"by": work.by}
    manifest = Manifest(
        work.folder,
        "survey",
        options,
        color_range=(range_.low, range_.high),
        resume=work.resume,
    )
    with manifest:
        _list_inputs(found, work, manifest)
        yield manifest


def _list_inputs(found: Survey, work: _Work, manifest: Manifest) -> None:
    from headgrid.batch.manifest import name_inputs

    names = name_inputs([Path(capture.source) for capture in found.inputs()], work.inputs)
    for name, capture in zip(names, found.inputs(), strict=True):
        manifest.add(name, capture.digest, {})


@contextmanager
def _leave_no_empty_folder(folder: Path) -> Iterator[None]:
    """Remove the folders that were made for an output that does not come to be."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except HeadgridError:
        for path in made:
            with suppress(OSError):  # it holds something after all, or was not made
                path.rmdir()
        raise
