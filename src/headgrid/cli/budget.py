"""``headgrid budget`` -> how much of each head's mass caches keep, and what one of them drops."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import HeadgridError, OptionError, show_value
from headgrid.options import FigureOptions
from headgrid.text import clean_text

if TYPE_CHECKING:
    from headgrid.capture.folders import CaptureFile
    from headgrid.capture.model import Capture
    from headgrid.survey.read import Tally


def _read_cache(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"sink:(\d{1,6}),recent:(\d{1,6})", text.replace(" ", ""))
    if found is None or not int(found[1]) + int(found[2]):
        raise OptionError(f"cache is {show_value(text)}, expected frames, as in sink:1,recent:6")
    return int(found[1]), int(found[2])


def _read_each(
    files: Sequence[CaptureFile], tally: Tally, errors: list[HeadgridError]
) -> Iterator[Capture]:
    """Yield captures one at a time, named by their place, and tally what they are together."""
    from headgrid.capture.folders import Place, place_captures
    from headgrid.capture.store import read_capture
    from headgrid.survey.read import Tally

    with shared.show_progress(len(files)) as advance:
        for file, place in zip(files, place_captures(files), strict=True):
            try:
                capture, digest = read_capture(file)
            except HeadgridError as error:
                shared.complain(error)
                errors.append(error)
            else:
                clean = Place(clean_text(place.set), clean_text(place.run))
                tally.merge(Tally.of(capture, clean, digest))
                tally.maps.clear()  # means over runs
                yield capture.replace(run=clean.text)
            advance(1)


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
    import pandas as pd

    from headgrid.batch.survey_files import write_csv, write_figure
    from headgrid.capture.files import write_bytes
    from headgrid.charts.budgets import budget_curves, draw_dropped, draw_smallest
    from headgrid.survey.read import Tally, survey_tally
    from headgrid.tables.budgets import SHARES, budget_table, drop_table, smallest_budgets

    options = FigureOptions(**style)
    files, errors = shared.find_files(inputs)
    tally, budgets, drops, drawn = Tally(), list[Any](), list[Any](), list[Path]()
    with TemporaryDirectory() as scratch:  # where a capture is refused, none leaves a figure
        write = partial(write_figure, Path(scratch), formats=formats, ppi=ppi)
        for capture in _read_each(files, tally, errors):
            stem = str(Path(capture.run, f"layer{capture.layer_index}"))
            budgets.append(budget_table(capture, sink=sink))
            drawn += write(f"{stem}_budget", partial(budget_curves, capture, sink=sink, **style))
            if cache is not None:
                drops.append(drop_table(capture, cache))
                drawn += write(f"{stem}_dropped", partial(draw_dropped, capture, cache, options))
        found = survey_tally(tally, errors)
        for text in (*found.warnings, *found.missing):
            shared.warn(text)
        table = pd.concat(budgets, ignore_index=True)
        small = smallest_budgets(table)
        sizes = small.groupby(["policy", "share"], sort=False)["frames"].agg(
            ["min", "median", "max"]
        )
        tables, told = {"budget": table, "smallest": small}, [f"smallest caches of heads\n{sizes}"]
        if cache is not None:
            tables["dropped"] = dropped = pd.concat(drops, ignore_index=True)
            worst = dropped.nlargest(10, "dropped").to_string(index=False)
            told.append(f"dropped most by sink:{cache[0]},recent:{cache[1]}\n{worst}")
        for share in SHARES:
            chosen = small[small["share"] == share], sink, found.form.key_name, options
            drawn += write(f"cache_{100 * share:g}", partial(draw_smallest, *chosen))
        for name, rows in tables.items():
            shared.show_path(write_csv(rows.round(6), folder / f"{name}.csv"))
        for path in drawn:
            shared.show_path(write_bytes(folder / path.relative_to(scratch), path.read_bytes()))
    click.echo("\n".join(told))
    shared.stop_if(found.failures)
