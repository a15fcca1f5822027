"""``headgrid roles`` -> the role of each head by a rule: tables, a figure, files of programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import OptionError, show_value


def _read_parameters(given: tuple[str, ...]) -> dict[str, float]:
    """Return the numbers of NAME=VALUE texts by their names."""
    found: dict[str, float] = {}
    for name, _, value in (text.partition("=") for text in given):
        try:
            number = float(value)
        except ValueError:
            told = f"parameter {name} is {show_value(value)}, expected a number, as in share=0.75"
            raise OptionError(told) from None
        found[name] = int(number) if number.is_integer() else number
    return found


@click.command()
@shared.inputs_argument
@shared.path_option("-o --output folder DIR", "Where tables and figures go.", required=True)
@option(
    "--rule NAME",
    "sign-period (of logits: Anchor, Wave, Veil); recent-mass (of masses: static, dynamic); "
    "three-mass (of masses: first, middle, current); sink (of any statistic: sink, other).",
    "sign-period",
)
@option(
    "-p --parameter parameters NAME=VALUE",
    "A parameter of the rule, as in share=0.75; for each one more.",
    multiple=True,
    check=_read_parameters,
)
@option(
    "--export exports NAME",
    "Write what a program reads: pyramid, of sign-period; forcing-kv, of recent-mass; duo, of "
    "recent-mass or sink.",
    multiple=True,
)
@shared.format_option
@shared.ppi_option
@option("--theme default|paper", "Look.", "default")
@shared.width_option
@option("-j --jobs N", "Processes that read files.", type=int, check=shared.check_jobs)
def roles(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    rule: str,
    parameters: dict[str, float],
    exports: tuple[str, ...],
    formats: tuple[str, ...],
    ppi: float,
    jobs: int | None,
    **style: Any,
) -> None:
    """Find the role of each head in each run by a rule, and vote over runs.

    Writes roles.csv (each run), votes.csv, agreement.csv (several runs) and roles.svg.
    """
    from headgrid.batch.role_files import check_exports, export_roles
    from headgrid.capture.files import write_bytes
    from headgrid.capture.folders import place_captures
    from headgrid.charts.roles import role_map
    from headgrid.options import FigureOptions
    from headgrid.survey.roles import head_roles, role_agreement, role_votes
    from headgrid.tables.rules import find_rule
    from headgrid.web.save import save

    find_rule(rule, parameters)
    check_exports(exports, rule)
    FigureOptions(**style)
    files, errors = shared.find_files(inputs)
    found = shared.read_survey(files, place_captures(files), errors, jobs)
    table = head_roles(found, rule, **parameters)
    votes, agreement = role_votes(table), role_agreement(table)
    sets: dict[Any, Any] = dict(list(votes.groupby("set", sort=False)))
    texts: dict[str, str] = {}
    for name, of_set in sets.items():
        for export in exports:
            written = export_roles(of_set, export)
            texts |= {f"{name}/{file}" if name else file: text for file, text in written.items()}
    tables = {"roles": table, "votes": votes}
    tables |= {"agreement": agreement} if agreement["pairs"].any() else {}
    for name, rows in tables.items():
        texts[f"{name}.csv"] = rows.to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        shared.show_path(write_bytes(folder / name, text.encode("utf-8")))
    chart = role_map(votes, **style)
    for format in formats:
        shared.show_path(save(chart, folder / f"roles.{format}", ppi=ppi))
    row: Any
    for row in agreement.itertuples():
        counts = sets[row.set]["role"].value_counts(sort=False)
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        kappa = f"{row.kappa:.2f}".replace("nan", "n/a")
        same = f"; {row.runs} runs agree on {row.share:.1%} of the heads, kappa {kappa}"
        click.echo(f"{f'{row.set}: ' if row.set else ''}{told}{same if row.pairs else ''}")
    if found.failures:
        shared.stop(1)
