"""``headgrid explore`` -> one offline page in which each head of each layer can be looked at."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import (
    PathType,
    check_run,
    complain,
    count_jobs,
    inputs_argument,
    show_progress,
    stop,
    warn,
)
from headgrid.errors import OptionError
from headgrid.options import parse_color_range

if TYPE_CHECKING:
    from headgrid.survey.model import Survey
    from headgrid.web.explorer_page import ExplorerOptions

#: Files from which several processes pay: one reads some hundred in the time they need to start.
_SEVERAL = 400


@click.command()
@inputs_argument
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    metavar="FILE.html",
    type=PathType(path_type=Path),
    help="The page, one file that needs nothing else.",
)
@click.option(
    "--run",
    default=None,
    metavar="NAME",
    help="Which run to show, run_002 or SET/run_002; by default the mean over all.",
)
@click.option(
    "--set",
    default=None,
    metavar="NAME",
    help="Which set to show, the folder above the runs, where there are several.",
)
@click.option(
    "--statistic",
    default=None,
    metavar="NAME",
    help="What the overview shows first: a column of statistics.csv; by default the sink score.",
)
@click.option(
    "--color-range",
    default="symmetric",
    show_default=True,
    metavar="RULE|LO,HI",
    help="Of the maps at first. symmetric: of the layer that is shown; quantile: of all layers, "
    "without the outermost 1 %; or two numbers.",
)
@click.option(
    "--palette", default="rdbu", show_default=True, metavar="rdbu|custom", help="Colours."
)
@click.option("--title", default=None, metavar="TEXT", help="Heading of the page.")
@click.option(
    "-j",
    "--jobs",
    type=int,
    default=None,
    metavar="N",
    help="Processes that read files at the same time; one per core where that pays.",
)
def explore(
    inputs: tuple[str, ...],
    file: Path,
    *,
    run: str | None,
    set: str | None,
    jobs: int | None,
    **options: Any,
) -> None:
    """Write one page to look at every head of every layer in a browser, offline.

    INPUT are captures, or folders of them: RUN/layer0.pt or SET/RUN/layer0.pt.
    """
    check_run(jobs, None)
    chosen = _read_options(set=set, **options)
    if file.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"{file.name}: suffix is {file.suffix!r}, expected .html")
    found = _read(inputs, run, set, jobs)
    from headgrid.capture.files import write_bytes
    from headgrid.web.explorer_page import write_explorer

    page = write_explorer(found, chosen)
    click.echo(str(write_bytes(file, page.encode("utf-8"))))
    if found.failures:
        stop(1)


def _read_options(*, color_range: str, **options: Any) -> ExplorerOptions:
    from headgrid.web.explorer_page import ExplorerOptions

    numbers = "," in color_range
    return ExplorerOptions(
        color_range=parse_color_range(color_range) if numbers else color_range, **options
    )


def _read(inputs: tuple[str, ...], run: str | None, set: str | None, jobs: int | None) -> Survey:
    """Read all inputs; say what is wrong with them."""
    from headgrid.batch.processes import open_pool
    from headgrid.capture.folders import find_captures, place_captures
    from headgrid.survey.read import read_files, survey_tally
    from headgrid.web.explorer import select_run

    files, errors = find_captures(inputs)
    for error in errors:
        complain(error)
    if not files:
        stop(1)
    places = place_captures(files, by="set" if set else None)
    files, places = select_run(files, places, run)
    workers = count_jobs(jobs, len(files), least=_SEVERAL)
    with (
        open_pool(workers, None) if workers > 1 else nullcontext() as executor,
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
