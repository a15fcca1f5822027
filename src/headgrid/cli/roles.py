"""``headgrid roles`` -> the role of each head by a rule: tables, a figure, files of programs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import CaptureError, check_choice

if TYPE_CHECKING:
    import pandas as pd

#: Codes of roles, by export and rule; in DuoAttention's, 1 is a head that keeps all keys.
_EXPORTS = {
    "pyramid": {"sign-period": {"Anchor": 1, "Wave": -1, "Veil": 2}},
    "forcing-kv": {"recent-mass": {"static": 0, "dynamic": 1}},
    "duo": {"recent-mass": {"static": 0, "dynamic": 1}, "sink": {"sink": 0, "other": 1}},
}


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
    "-p --parameter parameters NAME...",
    "A parameter of the rule and its number, as in -p share 0.75; for each one more.",
    type=(str, float),
    multiple=True,
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
def roles(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    rule: str,
    parameters: tuple[tuple[str, float], ...],
    exports: tuple[str, ...],
    formats: tuple[str, ...],
    ppi: float,
    **style: Any,
) -> None:
    """Find the role of each head in each run by a rule, and vote over runs.

    Writes roles.csv (each run), votes.csv, agreement.csv (of pairs of runs) and roles.svg.
    """
    from headgrid.batch.survey_files import write_csv, write_figure
    from headgrid.capture.files import write_bytes
    from headgrid.charts.roles import role_map
    from headgrid.options import FigureOptions
    from headgrid.survey.roles import head_roles, role_agreement, role_votes
    from headgrid.survey.rules import find_rule

    find_rule(rule, dict(parameters))
    for export in exports:
        choices = _EXPORTS[check_choice("export", export, _EXPORTS)]
        check_choice(f"rule of export {export}", rule, choices)
    FigureOptions(**style)  # refused before anything is read
    found = shared.read_survey(*shared.find_files(inputs))
    table = head_roles(found, rule, **dict(parameters))
    votes, agreement = role_votes(table), role_agreement(table)
    for name, of_set in votes.groupby("set"):
        for export in exports:
            for file, text in _export(of_set, export, rule).items():
                shared.show_path(write_bytes(folder / str(name) / file, text.encode()))
    for name, rows in {"roles": table, "votes": votes, "agreement": agreement}.items():
        shared.show_path(write_csv(rows, folder / f"{name}.csv"))
    for path in write_figure(folder, "roles", partial(role_map, votes, **style), formats, ppi):
        shared.show_path(path)
    counts = votes.groupby("set")["role"].value_counts(sort=False).unstack()
    summary = agreement.join(counts, on="set")
    click.echo(summary.to_string(index=False, float_format="{:.3g}".format))
    shared.stop_if(found.failures)


def _export(votes: pd.DataFrame, export: str, rule: str) -> dict[str, str]:
    """Return the files, name and text, that a program reads of the votes of one set."""
    codes, places = _EXPORTS[export][rule], votes.set_index(["layer", "head"])
    given = places["role"].astype(object).map(codes).unstack()
    given = given.reindex(range(int(votes["layer"].max()) + 1))
    lacking: Any = given.isna().unstack()
    for head, layer in lacking.index[lacking][:1]:
        raise CaptureError(
            f"set {votes['set'].iloc[0]!a}: layer {layer}, head {head} has no role, expected one "
            f"in all layers from 0 on to export {export}; give captures of all of them"
        )
    rows = given.astype(int)
    if export == "pyramid":
        return {"pyramid.csv": rows.to_csv(header=False, index=False, lineterminator="\n")}
    if export == "duo":
        share = places["share"].unstack()  # of runs in which the head keeps all keys
        scores = share.where(rows == 1, 1 - share).round(6)
        table = scores.to_csv(sep="\t", header=False, index=False, lineterminator="\n")
        sizes = {"sink_size": 128, "recent_size": 256}  # tokens that its other heads keep
        return {"duo/full_attention_heads.tsv": table, "duo/config.json": json.dumps(sizes) + "\n"}
    listed = [
        {"layer_idx": layer}
        | {f"{role}_head": row.index[row == code].tolist() for role, code in codes.items()}
        for layer, row in rows.iterrows()
    ]
    head = {"format": "forcingkv_offline_head_custom2", "profile": str(votes["rule"].iloc[0])}
    whole = {**head, "num_layers": len(rows), "num_heads": rows.shape[1], "layers": listed}
    return {"forcing-kv.json": json.dumps(whole, indent=1) + "\n"}
