"""``headgrid compare`` -> two captures, or folders of two models, and what changes most."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli import shared
from headgrid.cli.pick import write_figure
from headgrid.cli.shared import PathType, option, path_option, read_file, show_path
from headgrid.errors import OptionError, check_choice, check_whole
from headgrid.options import FORMATS, FigureOptions, read_format

if TYPE_CHECKING:
    import pandas as pd

    from headgrid.capture.model import Capture


@click.command()
@click.argument("a", metavar="A", type=PathType())
@click.argument("b", metavar="B", type=PathType())
@path_option(
    "-o --output files FILE|DIR",
    "The figure, once for each format, by its suffix; of two folders the folder for all files.",
    required=True,
    multiple=True,
)
@option("--top N", "Rows of the printed table of changes.", 10, type=int)
@path_option("--table FILE.csv", "Of two files: write the change of every pair, largest first.")
@option("--statistic NAME", "Of two folders: the measure to compare, by default sink.")
@option("--rule NAME", "Of two folders: also compare the roles of heads that a rule finds.")
@shared.format_option
@shared.style_options
@shared.ppi_option
def compare(
    a: str,
    b: str,
    files: tuple[Path, ...],
    *,
    top: int,
    table: Path | None,
    statistic: str | None,
    rule: str | None,
    formats: tuple[str, ...],
    ppi: float,
    **style: Any,
) -> None:
    """Draw captures A and B on one scale and B - A on its own; print the largest changes.

    Of folders A and B, of two models: writes tables and figures, and prints heads that differ.
    """
    options = FigureOptions(**style)
    check_whole("top", top)
    if table is not None:
        check_choice(f"the suffix of {table.name}", table.suffix.lower(), [".csv"])
    folders = [Path(path) for path in (a, b) if os.path.isdir(path)]  # noqa: PTH112 - of any name
    if folders:
        alone = len(folders) == 1 or len(files) > 1 or files[0].suffix[1:].lower() in FORMATS
        if alone or table is not None:
            raise OptionError(
                f"{folders[0]}: is a folder, expected another one beside it, of another model, one "
                "-o DIR and no --table"
            )
        _compare_models(folders, files[0], statistic or "sink", rule, top, formats, ppi, style)
        return
    if statistic or rule or formats != ("svg",):
        raise OptionError("A and B are files, expected folders with --statistic, --rule, --format")
    outputs = {file: read_format(file) for file in files}
    captures = tell_apart(_load(a), _load(b))
    from headgrid.batch.survey_files import write_csv
    from headgrid.charts.compare import draw_comparison
    from headgrid.tables.changes import change_table

    changes = change_table(*captures, top=top if table is None else None)
    write_figure(draw_comparison(*captures, options), outputs, ppi)
    if table is not None:
        show_path(write_csv(changes, table))
    none = ": no pair is seen in both" if changes.empty else ""
    _show_changes(f"largest changes ({captures[0].statistic}, B - A){none}", changes.head(top))


def _compare_models(
    folders: Sequence[Path],
    target: Path,
    statistic: str,
    rule: str | None,
    top: int,
    formats: Sequence[str],
    ppi: float,
    style: dict[str, Any],
) -> None:
    """Write what the heads of two folders differ in, and print those that differ most."""
    from headgrid.batch.survey_files import write_csv
    from headgrid.charts.models import compare_heads
    from headgrid.survey.pairs import compare_models, role_changes
    from headgrid.survey.roles import head_roles

    found = [shared.find_files([folder]) for folder in folders]
    a, b = (shared.read_survey(*each) for each in found)
    table = compare_models(a, b, statistic)
    tables = {"difference": table, "scatter": table}
    if rule is not None:
        tables["role_changes"] = role_changes(head_roles(a, rule), head_roles(b, rule))
    names = [folder.resolve().name for folder in folders]
    names = names if names[0] != names[1] else [*map(str, folders)]
    for name, rows in tables.items():
        if name != "scatter":  # which shows what difference.csv holds
            show_path(write_csv(rows, target / f"{name}.csv"))
        chart = compare_heads(rows, name, names=names, **style)  # type: ignore[arg-type]
        write_figure(chart, {target / f"{name}.{format}": format for format in formats}, ppi)
    changed = table[table["difference"].abs() > 0]
    largest = changed.sort_values("difference", key=abs, ascending=False, kind="stable").head(top)
    told = f"{len(changed)} of {len(table)} heads differ ({statistic}, B - A)"
    _show_changes(told, largest[["layer", "head", "a", "b", "difference", "score"]])
    shared.stop_if(a.failures or b.failures)


def _show_changes(title: str, rows: pd.DataFrame) -> None:
    click.echo(title)
    if len(rows):
        click.echo(rows.to_string(index=False, float_format="{:.4g}".format))


def tell_apart(a: Capture, b: Capture) -> tuple[Capture, Capture]:
    """Name two captures of one run and layer by the folders in which they differ."""
    if (a.run, a.layer_index) != (b.run, b.layer_index):
        return a, b
    parts = [Path(capture.source).resolve().parent.parts[::-1] for capture in (a, b)]
    depth = next((n for n, pair in enumerate(zip(*parts, strict=False)) if pair[0] != pair[1]), -1)
    if depth < 0:
        return a, b
    named = ["/".join(reversed(folders[: depth + 1])) for folders in parts]
    return a.replace(run=named[0]), b.replace(run=named[1])


def _load(path: str) -> Capture:
    files, _ = shared.find_files([path])
    return read_file(files[0])
