"""``headgrid stats`` -> the statistics of captures as text, CSV or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headgrid.cli.shared import exit_with, inputs_argument
from headgrid.errors import HeadgridError, check_choice

if TYPE_CHECKING:
    from headgrid.capture.model import Capture


@click.command()
@inputs_argument
@click.option(
    "--format",
    "format",
    default="text",
    show_default=True,
    metavar="text|csv|json",
    help="For people, or for machines.",
)
def stats(inputs: tuple[str, ...], format: str) -> None:
    """Print the statistics of captures: diagonal and first-key means, and each head's sink."""
    from headgrid.batch.run import read_capture
    from headgrid.capture.folders import place_captures
    from headgrid.capture.store import find_captures
    from headgrid.tables.report import REPORTS

    write = REPORTS[check_choice("format", format, REPORTS)]
    files, failures = find_captures(inputs)
    captures: list[Capture] = []
    errors: list[HeadgridError] = [*failures]
    places = place_captures(files)
    several = len({place.set for place in places}) > 1
    for file, place in zip(files, places, strict=True):
        try:
            capture = read_capture(file)
            captures.append(capture.replace(run=place.text) if several else capture)
        except HeadgridError as error:
            errors.append(error)
    for text in write(captures):
        click.echo(text, nl=False)
    exit_with(errors)
