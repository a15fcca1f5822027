"""``headgrid pick`` -> one figure of chosen heads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import (
    PathType,
    check_ppi,
    exit_with,
    inputs_argument,
    make_options,
    ppi_option,
    show_path,
    style_options,
    warn,
)
from headgrid.errors import CaptureError, check_choice

if TYPE_CHECKING:
    from headgrid.capture.model import Capture
    from headgrid.capture.store import CaptureFile
    from headgrid.charts.pick import HeadName, Source


def files_option(command: Any) -> Any:
    """Add the option for the files that one figure is written to, their formats by suffix."""
    return click.option(
        "-o",
        "--output",
        "files",
        required=True,
        multiple=True,
        metavar="FILE",
        type=PathType(path_type=Path),
        help="The figure; its suffix says the format. Give it again for another format.",
    )(command)


@click.command()
@inputs_argument
@click.option(
    "--head",
    "heads",
    multiple=True,
    required=True,
    metavar="[RUN/]LAYER:HEAD",
    help="A panel, such as 3:0 or run_002/28:2; give it again for each.",
)
@files_option
@click.option(
    "--figure",
    default="heatmap",
    show_default=True,
    metavar="heatmap|perhead|both",
    help="Maps, profiles, or both in paired rows.",
)
@style_options
@ppi_option
def pick(
    inputs: tuple[str, ...],
    heads: tuple[str, ...],
    files: tuple[Path, ...],
    *,
    figure: str,
    ppi: float,
    **style: Any,
) -> None:
    """Draw chosen heads side by side, on one scale, with letters, for a paper.

    Prints the files, then a caption that says what each panel shows.
    """
    from headgrid.charts.pick import PICK_FIGURES, HeadName, draw_pick, select_heads

    options = make_options(**style)
    check_choice("figure", figure, PICK_FIGURES)
    check_ppi(ppi)
    check_files(files)
    names = [HeadName.read(head) for head in heads]
    from headgrid.capture.store import find_captures

    found, failures = find_captures(inputs)
    if failures and not found:
        exit_with(failures)
    chosen = select_heads(_find_sources(found, names), names)
    chart: Any = draw_pick(chosen, figure, options)  # type: ignore[arg-type]
    write_figure(chart, files, ppi)
    exit_with(failures)


def check_files(files: Sequence[Path]) -> None:
    """Refuse files of an unknown format before anything is read.

    Raises
    ------
    OptionError
        With the choices.
    """
    from headgrid.options import FORMATS

    for file in files:
        suffix = file.suffix.lower().removeprefix(".")
        check_choice(f"the suffix of {file.name}", suffix, FORMATS)


def write_figure(chart: Any, files: Sequence[Path], ppi: float) -> None:
    """Write a chart to files, in each one's format, and print their names and the caption."""
    from headgrid.capture.files import write_bytes
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    spec = to_spec(chart, validate=False)
    formats = [file.suffix.lower().removeprefix(".") for file in files]
    contents = begin_save(spec, formats, ppi=ppi)()
    for file, content in zip(files, contents, strict=True):
        show_path(write_bytes(file, content))
    click.echo(spec["description"])


def _find_sources(files: Sequence[CaptureFile], names: Sequence[HeadName]) -> list[Source]:
    """Return what may be meant; only files whose name does not say their layer are read here."""
    from headgrid.capture.folders import place_captures
    from headgrid.charts.pick import Source

    places = place_captures(files)
    sets = {place.set for place in places}
    sources = []
    for file, place in zip(files, places, strict=True):
        run = place.text if len(sets) > 1 else place.run
        named = re.search(r"layer[_-]?(\d{1,9})", file.path.stem, re.IGNORECASE)
        if named:
            layer = int(named[1])
            sources.append(Source(place.text, layer, partial(_load, file, run, layer)))
        elif any(Source(place.text, 0, partial(_load, file, run)).is_of(n.run) for n in names):
            capture = _load(file, run)
            sources.append(Source(place.text, capture.layer_index, partial(_itself, capture)))
    return sources


def _itself(capture: Capture) -> Capture:
    return capture


def _load(file: CaptureFile, run: str, layer: int | None = None) -> Capture:
    from headgrid.capture.store import read_capture

    capture, _ = read_capture(file)
    if layer is not None and capture.layer_index != layer:
        raise CaptureError(
            f"{file.path}: holds layer {capture.layer_index}, expected layer {layer}, as its name "
            "says; rename the file"
        )
    for text in capture.warnings:
        warn(text)
    return capture.replace(run=run)
