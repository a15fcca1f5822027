"""``headgrid stats`` -> the statistics of captures as text, CSV or JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import exit_with, inputs_argument, option, read_file
from headgrid.errors import HeadgridError, check_choice
from headgrid.text import clean_text, quote_text, write_number

if TYPE_CHECKING:
    import pandas as pd

    from headgrid.capture.model import Capture


_LAYER_COLUMNS = ("diagonal_mean", "first_key_mean")


def _write_text(captures: Sequence[Capture]) -> str:
    """Return a paragraph for each capture: its means, then a line for each head."""
    from headgrid.tables.stats import head_statistics, layer_statistics

    paragraphs = []
    for capture in captures:
        heads, layer = head_statistics(capture), layer_statistics(capture).iloc[0]
        run = f"{' '.join(clean_text(capture.run).split())}, layer" if capture.run else "Layer"
        lines = [
            f"{run} {capture.layer_index} ({capture.statistic})",
            f"diagonal mean={_number(layer['diagonal_mean'])}, "
            f"first-key mean={_number(layer['first_key_mean'])}",
            *_name_ends(capture),
        ]
        lines += [
            f"H{row.head:2d}: first={_number(row.first)}, mid={_number(row.mid)}, "
            f"last={_number(row.last)}, sink={_number(row.sink, '+.3f')}"
            for row in heads.itertuples(index=False)
        ]
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
    """Return CSV with one row a head: run, layer, head, first, mid, last, sink, layer's means."""
    from headgrid.tables.stats import head_statistics, layer_statistics

    heads = head_statistics(captures)
    layers = layer_statistics(captures)
    # Row by row, as two captures may share run and layer.
    repeated = layers.loc[layers.index.repeat([capture.num_heads for capture in captures])]
    heads[[*_LAYER_COLUMNS]] = repeated[[*_LAYER_COLUMNS]].to_numpy()
    heads.insert(2, "statistic", [c.statistic for c in captures for _ in range(c.num_heads)])
    return heads.to_csv(index=False, lineterminator="\n")


def _write_json(captures: Sequence[Capture]) -> str:
    """Return a JSON list with one object a capture, its heads in a list; null where undefined."""
    import json

    from headgrid.tables.stats import head_statistics, layer_statistics

    def to_records(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
        chosen = table[[*names]].astype(object)
        return chosen.where(chosen.notna(), None).to_dict("records")  # type: ignore[return-value]

    layers = [
        {"run": capture.run, "layer": capture.layer_index, "statistic": capture.statistic}
        | to_records(layer_statistics(capture), _LAYER_COLUMNS)[0]
        | {"heads": to_records(head_statistics(capture), ("head", "first", "mid", "last", "sink"))}
        for capture in captures
    ]
    return json.dumps(layers, indent=1, ensure_ascii=True) + "\n"


_REPORTS: dict[str, Callable[[Sequence[Capture]], str]] = {
    "text": _write_text,
    "csv": _write_csv,
    "json": _write_json,
}


def _number(value: Any, spec: str = ".3f") -> str:
    return "n/a" if math.isnan(value) else write_number(value, spec)


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
    from headgrid.capture.folders import find_captures, place_captures

    files, failures = find_captures(inputs)
    captures: list[Capture] = []
    errors: list[HeadgridError] = [*failures]
    places = place_captures(files)
    several = len({place.set for place in places}) > 1
    for file, place in zip(files, places, strict=True):
        try:
            capture = read_file(file)
            captures.append(capture.replace(run=place.text) if several else capture)
        except HeadgridError as error:
            errors.append(error)
    click.echo(_REPORTS[format](captures), nl=False)
    exit_with(errors)
