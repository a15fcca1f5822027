"""``headgrid compare`` -> two captures and their difference, and a table of the largest changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.pick import files_option, write_figure
from headgrid.cli.shared import (
    PathType,
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
@files_option
@option("--top N", "Rows of the printed table of changes.", 10, type=int)
@path_option("--table FILE.csv", "Write the change of every pair, largest first.")
@style_options
@ppi_option
def compare(
    a: str,
    b: str,
    files: dict[Path, str],
    *,
    top: int,
    table: Path | None,
    ppi: float,
    **style: Any,
) -> None:
    """Draw captures A and B on one scale and B - A on its own; print the largest changes."""
    options = FigureOptions(**style)
    if top < 1:
        raise OptionError(f"top is {top}, expected a whole number, at least 1")
    if table is not None and table.suffix.lower() != ".csv":
        raise OptionError(f"{table.name}: suffix is {table.suffix!r}, expected .csv")
    captures = tell_apart(_load(a), _load(b))
    from headgrid.charts.compare import draw_comparison
    from headgrid.tables.changes import change_table

    changes = change_table(*captures, top=top if table is None else None)
    write_figure(draw_comparison(*captures, options), files, ppi)
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
    parts = [Path(capture.source).resolve().parent.parts[::-1] for capture in (a, b)]
    depth = next((n for n, pair in enumerate(zip(*parts, strict=False)) if pair[0] != pair[1]), -1)
    if depth < 0:
        return a, b
    named = ["/".join(reversed(folders[: depth + 1])) for folders in parts]
    return a.replace(run=named[0]), b.replace(run=named[1])


def _load(path: str) -> Capture:
    from headgrid.capture.store import find_captures, load_capture

    files, failures = find_captures([path])
    for failure in failures:
        raise failure
    if Path(path).is_dir():
        load_capture(path)  # says that it is a folder
    return read_file(files[0])
