"""``headgrid compare`` -> two captures, or folders of two models, and what changes most."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.pick import check_files, write_figure
from headgrid.cli.shared import (
    PathType,
    format_option,
    option,
    path_option,
    ppi_option,
    read_file,
    show_path,
    style_options,
)
from headgrid.errors import OptionError
from headgrid.options import FigureOptions

if TYPE_CHECKING:
    from headgrid.capture.model import Capture


@click.command()
@click.argument("a", metavar="A", type=PathType())
@click.argument("b", metavar="B", type=PathType())
@path_option(
    "-o --output files FILE|DIR",
    "Of two files the figure; its suffix says the format; give it again for another format. Of two "
    "folders the folder where tables and figures go.",
    required=True,
    multiple=True,
)
@option("--top N", "Rows of the printed table of changes.", 10, type=int)
@path_option("--table FILE.csv", "Of two files: write the change of every pair, largest first.")
@option(
    "--statistic measures NAME",
    "Of two folders: a measure to compare, a column of statistics.csv; sink by default.",
    multiple=True,
)
@option("--rule NAME", "Of two folders: also compare the roles of heads that a rule finds.")
@format_option
@style_options
@ppi_option
def compare(
    a: str,
    b: str,
    files: tuple[Path, ...],
    *,
    top: int,
    table: Path | None,
    measures: tuple[str, ...],
    rule: str | None,
    formats: tuple[str, ...],
    ppi: float,
    **style: Any,
) -> None:
    """Draw captures A and B on one scale and B - A on its own; print the largest changes.

    Folders A and B are two models: writes differences.csv and figures of one measure, and of
    roles with --rule, and prints the heads that differ most.
    """
    options = FigureOptions(**style)
    if top < 1:
        raise OptionError(f"top is {top}, expected a whole number, at least 1")
    if table is not None and table.suffix.lower() != ".csv":
        raise OptionError(f"{table.name}: suffix is {table.suffix!r}, expected .csv")
    if any(map(os.path.isdir, (a, b))):
        from headgrid.cli.compare_folders import compare_folders

        if table is not None:
            raise OptionError("--table is of two files; differences.csv has all of two folders")
        folders = [Path(path).resolve() for path in (a, b)]
        names = _name_apart(folders) or [folder.name for folder in folders]
        more: dict[str, Any] = {"formats": formats, "ppi": ppi, "style": style}
        compare_folders((a, b), files, names, measures, rule, top, **more)
        return
    if measures or rule is not None or formats != ("svg",):
        raise OptionError("A and B are files, expected folders with --statistic, --rule, --format")
    outputs = check_files(files)
    captures = tell_apart(_load(a), _load(b))
    from headgrid.charts.compare import draw_comparison
    from headgrid.tables.changes import change_table

    changes = change_table(*captures, top=top if table is None else None)
    write_figure(draw_comparison(*captures, options), outputs, ppi)
    if table is not None:
        from headgrid.capture.files import write_bytes

        content = changes.to_csv(index=False, lineterminator="\n")
        show_path(write_bytes(table, content.encode("utf-8")))
    title = f"largest changes ({captures[0].statistic}, B - A)"
    if changes.empty:
        click.echo(f"{title}: no pair is seen in both")
    else:
        rows = changes.head(top).to_string(index=False, float_format="{:.4g}".format)
        click.echo(f"{title}\n{rows}")


def tell_apart(a: Capture, b: Capture) -> tuple[Capture, Capture]:
    """Name two captures of one run and layer by the folders in which they differ."""
    if (a.run, a.layer_index) != (b.run, b.layer_index):
        return a, b
    named = _name_apart([Path(capture.source).resolve().parent for capture in (a, b)])
    return (a.replace(run=named[0]), b.replace(run=named[1])) if named else (a, b)


def _name_apart(folders: Sequence[Path]) -> list[str]:
    """Return the ends of two paths, up to the folders in which they differ; nothing if nowhere."""
    parts = [folder.parts[::-1] for folder in folders]
    depth = next((n for n, pair in enumerate(zip(*parts, strict=False)) if pair[0] != pair[1]), -1)
    return ["/".join(reversed(names[: depth + 1])) for names in parts] if depth >= 0 else []


def _load(path: str) -> Capture:
    from headgrid.capture.store import find_captures

    files, failures = find_captures([path])
    for failure in failures:
        raise failure
    return read_file(files[0])
