"""``headgrid explore`` -> one offline page in which each head of each layer can be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headgrid.cli.shared import (
    check_jobs,
    find_files,
    inputs_argument,
    measure_names,
    option,
    palette_option,
    path_option,
    read_survey,
    show_path,
    stop,
)
from headgrid.errors import OptionError
from headgrid.options import parse_color_range


@click.command()
@inputs_argument
@path_option(
    "-o --output file FILE.html", "The page, one file that needs nothing else.", required=True
)
@option("--run NAME", "Which run to show, run_002 or SET/run_002; by default the mean over all.")
@option("--set NAME", "Which set to show, the folder above the runs, where there are several.")
@option(
    "--statistic NAME",
    "What the overview shows first: a column of statistics.csv; by default the sink score.",
    words=measure_names,
)
@option(
    "--color-range RULE|LO,HI",
    "Of the maps at first. symmetric: of the layer that is shown; head: of the head; quantile: of "
    "all layers, without the outermost 1 %; or two numbers.",
    "symmetric",
    check=lambda text: parse_color_range(text) if "," in text else text,
)
@palette_option
@option("--title TEXT", "Heading of the page.")
@option(
    "-j --jobs N",
    "Processes that read files at the same time; one per core where that pays.",
    type=int,
    check=check_jobs,
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
    from headgrid.capture.files import write_bytes
    from headgrid.capture.folders import place_captures
    from headgrid.web.explorer import select_run
    from headgrid.web.explorer_page import ExplorerOptions, write_explorer

    chosen = ExplorerOptions(set=set, **options)
    if file.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"{file.name}: suffix is {file.suffix!r}, expected .html")
    files, errors = find_files(inputs)
    files, places = select_run(files, place_captures(files, by="set" if set else None), run)
    found = read_survey(files, places, errors, jobs)
    show_path(write_bytes(file, write_explorer(found, chosen).encode("utf-8")))
    if found.failures:
        stop(1)
