"""``headgrid explore`` -> one offline page in which each head of each layer can be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option, path_option
from headgrid.errors import check_choice
from headgrid.options import parse_color_range


@click.command()
@shared.inputs_argument
@path_option(
    "-o --output file FILE.html", "The page, one file that needs nothing else.", required=True
)
@option("--run NAME", "Which run to show, run_002 or SET/run_002; by default the mean over all.")
@option(
    "--runs all|LIST",
    "Runs that the page holds beside their mean, to choose among: all, or names with commas.",
    check=lambda text: text if text == "all" else [name.strip() for name in text.split(",")],
)
@option("--set NAME", "Which set to show, the folder above the runs, where there are several.")
@option(
    "--statistic NAME",
    "What the overview shows first: a column of statistics.csv; by default the sink score.",
    words=shared.measure_names,
)
@option(
    "--color-range RULE|LO,HI",
    "Of the maps at first. symmetric: of the layer that is shown; head: of the head; shared: of "
    "all layers; quantile: of these without the outermost 1 %; or two numbers.",
    "symmetric",
    check=lambda text: parse_color_range(text) if "," in text else text,
)
@shared.palette_option
@option("--title TEXT", "Heading of the page.")
@path_option(
    "--roles FILE.csv",
    "The role of each head, to narrow the list of heads: columns layer, head and role.",
)
@shared.jobs_option
def explore(
    inputs: tuple[str, ...],
    file: Path,
    *,
    run: str | None,
    runs: Any,
    set: str | None,
    jobs: int | None,
    roles: Path | None,
    **options: Any,
) -> None:
    """Write one page to look at every head of every layer in a browser, offline.

    INPUT are captures, or folders of them: RUN/layer0.pt or SET/RUN/layer0.pt.
    """
    from headgrid.capture.files import write_bytes
    from headgrid.capture.folders import place_captures
    from headgrid.web.explorer import choose_runs, name_heads, read_roles, view_runs
    from headgrid.web.explorer_page import ExplorerOptions, write_explorer

    known = None if roles is None else read_roles(roles)
    chosen = ExplorerOptions(roles=known, **options)
    check_choice(f"the suffix of {file.name}", file.suffix.lower(), (".html", ".htm"))
    files, errors = shared.find_files(inputs)
    places = place_captures(files, by="set" if set else None)
    kept = choose_runs(places, run, runs, set)
    found = shared.read_survey([files[n] for n in kept], errors, [*kept.values()], jobs)
    pick = name_heads(files, places, inputs)
    views = view_runs(found, set, pick, several=runs is not None)
    shared.show_path(write_bytes(file, write_explorer(views, chosen).encode("utf-8")))
    shared.stop_if(found.failures)
