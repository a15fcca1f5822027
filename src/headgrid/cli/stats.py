"""``headgrid stats`` -> the statistics of captures as text, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import complain, find_files, inputs_argument, option, read_file, stop_if
from headgrid.errors import HeadgridError, check_choice
from headgrid.text import clean_text, quote_text, write_number

if TYPE_CHECKING:
    from headgrid.capture.model import Capture


def _describe(capture: Capture) -> dict[str, Any]:
    """Return what is told of a capture, its heads in a list; NaN where undefined."""
    from headgrid.tables.stats import diagonal_and_first_key, pairs_mean, row_statistics

    diagonal, first_key = map(pairs_mean, diagonal_and_first_key(capture))
    rows = {"head": range(capture.num_heads), **row_statistics(capture)}
    return {
        "run": capture.run,
        "layer": capture.layer_index,
        "statistic": capture.statistic,
        "diagonal_mean": diagonal,
        "first_key_mean": first_key,
        "heads": [dict(zip(rows, head, strict=True)) for head in zip(*rows.values(), strict=True)],
    }


def _write_text(captures: Sequence[Capture]) -> str:
    """Return a paragraph for each capture: its means, then a line for each head."""
    paragraphs = []
    for capture in captures:
        told = _describe(capture)
        run = f"{' '.join(clean_text(capture.run).split())}, layer" if capture.run else "Layer"
        lines = [
            f"{run} {capture.layer_index} ({capture.statistic})",
            f"diagonal mean={write_number(told['diagonal_mean'], '.3f')}, "
            f"first-key mean={write_number(told['first_key_mean'], '.3f')}",
            *_name_ends(capture),
        ]
        for head in told["heads"]:
            values = [
                f"{name}={write_number(head[name], '.3f')}" for name in ("first", "mid", "last")
            ]
            sink = write_number(head["sink"], "+.3f")
            lines.append(f"H{head['head']:2d}: {', '.join(values)}, sink={sink}")
        paragraphs.append("\n".join(lines) + "\n")
    return "\n".join(paragraphs)


def _name_ends(capture: Capture) -> list[str]:
    """Return a line that names the keys of first and last, where keys have labels."""
    from headgrid.tables.stats import visible_groups

    axis, ends = capture.key_axis, {"first": set[int](), "last": set[int]()}
    for _, keys, _ in visible_groups(capture.last_block_rows) if axis.labels else ():
        ends["first"] |= {0} & {axis.numbers[keys[0]]}
        ends["last"].add(axis.numbers[keys[-1]])
    named = [
        f"{end} = {axis.noun} "
        + " or ".join(f"{n} {quote_text(axis.by_number[n], 40)}" for n in sorted(numbers))
        for end, numbers in ends.items()
        if numbers
    ]
    return [", ".join(named)] if named else []


def _write_csv(captures: Sequence[Capture]) -> str:
    """Return CSV with one row a head, and the layer's means behind its own statistics."""
    import pandas as pd

    rows = [told | head for told in map(_describe, captures) for head in told["heads"]]
    columns = ["run", "layer", "statistic", "head", "first", "mid", "last", "sink"]
    columns += ["diagonal_mean", "first_key_mean"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")


def _write_json(captures: Sequence[Capture]) -> str:
    """Return a JSON list with one object a capture; null where undefined."""
    text = json.dumps([*map(_describe, captures)])
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=1) + "\n"


_REPORTS = {"text": _write_text, "csv": _write_csv, "json": _write_json}


@click.command()
@inputs_argument
@option(
    "--format text|csv|json",
    "For people, or for machines.",
    "text",
    check=lambda name: check_choice("format", name, _REPORTS),
)
def stats(inputs: tuple[str, ...], format: str) -> None:
    """Print the statistics of captures: diagonal and first-key means, and each head's sink."""
    from headgrid.capture.folders import place_captures

    files, errors = find_files(inputs)
    captures: list[Capture] = []
    places = place_captures(files)
    several = len({place.set for place in places}) > 1
    for file, place in zip(files, places, strict=True):
        try:
            capture = read_file(file)
            captures.append(capture.replace(run=place.text) if several else capture)
        except HeadgridError as error:
            complain(error)
            errors.append(error)
    click.echo(_REPORTS[format](captures), nl=False)
    stop_if(errors)
