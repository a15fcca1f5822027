"""``headgrid budget`` -> how much of each head's mass caches keep, and what one of them drops."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import OptionError, show_value
from headgrid.options import FigureOptions


def _read_cache(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"sink:(\d{1,6}),recent:(\d{1,6})", text.replace(" ", ""))
    if found is None or not int(found[1]) + int(found[2]):
        raise OptionError(f"cache is {show_value(text)}, expected frames, as in sink:1,recent:6")
    return int(found[1]), int(found[2])


@click.command()
@shared.inputs_argument
@shared.path_option("-o --output folder DIR", "Where tables and figures go.", required=True)
@option("--sink N", "So many frames of a cache are the first ones.", 1, type=int)
@option("--cache sink:N,recent:N", "Also tell and draw what this cache drops.", check=_read_cache)
@shared.format_option
@shared.ppi_option
@shared.style_options
def budget(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    sink: int,
    cache: tuple[int, int] | None,
    formats: tuple[str, ...],
    ppi: float,
    **style: Any,
) -> None:
    """Tell how much of each head's attention mass a cache of some key frames keeps.

    Writes budget.csv, smallest.csv, RUN/layer{L}_budget with curves, and the smallest caches for
    90, 95 and 99 % as cache_90, ...; of --cache also dropped.csv and RUN/layer{L}_dropped.
    """
    from headgrid.batch.survey_files import Target, write_csv, write_figure
    from headgrid.capture.folders import place_captures
    from headgrid.capture.store import read_capture
    from headgrid.charts.budgets import budget_curves, draw_dropped, draw_smallest
    from headgrid.tables.budgets import SHARES, budget_table, drop_table, smallest_budgets

    target = Target(folder, (), formats, FigureOptions(**style), ppi)
    files, errors = shared.find_files(inputs)
    found = shared.read_survey(files, place_captures(files), errors, None)
    runs = {one.source: one.place.text for one in found.inputs()}
    usable = [file for file in files if str(file.path) in runs]
    captures = [read_capture(file)[0].replace(run=runs[str(file.path)]) for file in usable]
    table = budget_table(captures, sink=sink)
    small = smallest_budgets(table)
    sizes = small.groupby(["policy", "share"], sort=False)["frames"].agg(["min", "median", "max"])
    tables, told = {"budget": table, "smallest": small}, [f"smallest caches of heads\n{sizes}"]
    if cache is not None:
        tables["dropped"] = dropped = drop_table(captures, cache)
        worst = dropped.nlargest(10, "dropped").to_string(index=False)
        told.append(f"dropped most by sink:{cache[0]},recent:{cache[1]}\n{worst}")
    for name, rows in tables.items():
        shared.show_path(write_csv(rows.round(6), folder / f"{name}.csv"))
    figures: dict[str, Any] = {}
    for capture in captures:
        name = str(Path(capture.run, f"layer{capture.layer_index}"))
        figures[f"{name}_budget"] = partial(budget_curves, capture, sink=sink, **style)
        if cache is not None:
            figures[f"{name}_dropped"] = partial(draw_dropped, capture, cache, target.options)
    for share in SHARES:
        chosen = small[small["share"] == share], sink, found.form.key_name, target.options
        figures[f"cache_{100 * share:g}"] = partial(draw_smallest, *chosen)
    for name, draw in figures.items():
        for path in write_figure(name, draw, target, None, folder):
            shared.show_path(path)
    click.echo("\n".join(told))
    if found.failures:
        shared.stop(1)
