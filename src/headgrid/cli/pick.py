"""``headgrid pick`` -> one figure of chosen heads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import CaptureError, check_choice
from headgrid.options import FigureOptions, read_format

if TYPE_CHECKING:
    from headgrid.capture.folders import CaptureFile
    from headgrid.capture.model import Capture
    from headgrid.charts.pick import HeadName, Source


@click.command()
@shared.inputs_argument
@option(
    "--head heads [RUN/]LAYER:HEAD",
    "A panel, such as 3:0 or run_002/28:2; give it again for each.",
    multiple=True,
    required=True,
)
@shared.path_option(
    "-o --output files FILE",
    "The figure; its suffix says the format. Give it again for another format.",
    required=True,
    multiple=True,
    check=lambda files: {file: read_format(file) for file in files},
)
@option("--figure heatmap|perhead|both", "Maps, profiles, or both in paired rows.", "heatmap")
@shared.style_options
@shared.profile_options
@shared.ppi_option
def pick(
    inputs: tuple[str, ...],
    heads: tuple[str, ...],
    files: dict[Path, str],
    *,
    figure: str,
    ppi: float,
    **style: Any,
) -> None:
    """Draw chosen heads side by side, on one scale, with letters, for a paper.

    Prints the files, then a caption that says what each panel shows.
    """
    from headgrid.charts.pick import PICK_FIGURES, HeadName, draw_pick, select_heads

    options = FigureOptions(**style)
    check_choice("figure", figure, PICK_FIGURES)
    names = [HeadName.read(head) for head in heads]
    found, failures = shared.find_files(inputs)
    chosen = select_heads(_find_sources(found, names), names)
    chart: Any = draw_pick(chosen, figure, options)  # type: ignore[arg-type]
    write_figure(chart, files, ppi)
    shared.stop_if(failures)


def write_figure(chart: Any, files: Mapping[Path, str], ppi: float) -> None:
    """Write a chart to files, in each one's format, and print their names and the caption."""
    from headgrid.capture.files import write_bytes
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    spec = to_spec(chart, validate=False)
    contents = begin_save(spec, [*files.values()], ppi=ppi)()
    for file, content in zip(files, contents, strict=True):
        shared.show_path(write_bytes(file, content))
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
        elif any(name.is_in(place.text) for name in names):
            capture = shared.read_file(file)
            sources.append(
                Source(place.text, capture.layer_index, partial(capture.replace, run=run))
            )
    return sources


def _load(file: CaptureFile, run: str, layer: int) -> Capture:
    capture = shared.read_file(file)
    if capture.layer_index != layer:
        raise CaptureError(
            f"{file.path}: holds layer {capture.layer_index}, expected layer {layer}, as its name "
            "says; rename the file"
        )
    return capture.replace(run=run)
