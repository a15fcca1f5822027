"""``headgrid budget`` -> how much of each head's mass caches keep, and what one of them drops."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import (
    complain,
    find_files,
    format_option,
    inputs_argument,
    option,
    path_option,
    ppi_option,
    read_file,
    show_path,
    stop,
    style_options,
)
from headgrid.errors import CaptureError, HeadgridError, OptionError, show_value
from headgrid.options import FigureOptions

if TYPE_CHECKING:
    from headgrid.capture.model import Capture


def _read_cache(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"sink:(\d{1,6}),recent:(\d{1,6})", text.replace(" ", ""))
    if found is None or not int(found[1]) + int(found[2]):
        raise OptionError(f"cache is {show_value(text)}, expected frames, as in sink:1,recent:6")
    return int(found[1]), int(found[2])


@click.command()
@inputs_argument
@path_option("-o --output folder DIR", "Where tables and figures go.", required=True)
@option("--sink N", "So many frames of a cache are the first ones.", 1, type=int)
@option("--cache sink:N,recent:N", "Also tell and draw what this cache drops.", check=_read_cache)
@format_option
@ppi_option
@style_options
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

    Writes budget.csv, smallest.csv, layer{L}_budget with curves, and the smallest caches for
    90, 95 and 99 % as cache_90, ...; of --cache also dropped.csv and RUN/layer{L}_dropped.
    """
    import pandas as pd

    from headgrid.batch.processes import rendering_process
    from headgrid.batch.survey_files import Target, write_csv, write_figure
    from headgrid.capture.folders import place_captures
    from headgrid.tables.budgets import budget_table, drop_table, smallest_budgets

    target = Target(folder, (), formats, FigureOptions(**style), ppi)
    files, errors = find_files(inputs)
    captures, kept = [], []
    for file, place in zip(files, place_captures(files), strict=True):
        try:
            capture = read_file(file).replace(run=place.text)
            kept.append(budget_table(capture, sink=sink))
            captures.append(capture)
        except CaptureError as error:
            complain(error)
            errors.append(error)
    if not captures:
        stop(1)
    figures, table = _list_figures(captures, sink, cache, style), pd.concat(kept, ignore_index=True)
    small = smallest_budgets(table)
    sizes = small.groupby(["policy", "share"], sort=False)["frames"].agg(["min", "median", "max"])
    tables, told = {"budget": table, "smallest": small}, [f"smallest caches of heads\n{sizes}"]
    if cache is not None:
        tables["dropped"] = dropped = drop_table(captures, cache)
        worst = dropped.nlargest(10, "dropped").to_string(index=False)
        told.append(f"dropped most by sink:{cache[0]},recent:{cache[1]}\n{worst}")
    for name, table in tables.items():
        show_path(write_csv(table.round(6), folder / f"{name}.csv"))
    with rendering_process() as executor:
        for name, draw in figures.items():
            try:
                for path in write_figure(name, draw, target, executor, folder):
                    show_path(path)
            except HeadgridError as error:
                complain(error)
                errors.append(error)
    click.echo("\n".join(told))
    if errors:
        stop(1)


def _list_figures(
    captures: list[Capture], sink: int, cache: Any, style: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Return what draws each figure, by its name."""
    from headgrid.charts.budgets import budget_curves, budget_map, draw_dropped
    from headgrid.tables.budgets import SHARES

    figures: dict[str, Callable[[], Any]] = {}
    for layer in sorted({capture.layer_index for capture in captures}):
        alike = [capture for capture in captures if capture.layer_index == layer]
        figures[f"layer{layer}_budget"] = partial(budget_curves, alike, sink=sink, **style)
    own = style | {"color_range": "symmetric", "sink": sink}  # what is asked for is of masses
    for share in SHARES:
        figures[f"cache_{100 * share:g}"] = partial(budget_map, captures, share, **own)
    for capture in captures if cache else ():
        name = str(Path(capture.run, f"layer{capture.layer_index}_dropped"))
        if name in figures:
            raise CaptureError(
                f"{capture.source}: would become {name}, as another input does, expected one of a "
                "name; give a folder that holds both"
            )
        figures[name] = partial(draw_dropped, capture, cache, FigureOptions(**style))
    return figures
