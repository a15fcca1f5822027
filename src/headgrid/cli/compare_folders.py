"""``headgrid compare A/ B/`` -> how the heads of two models differ: tables, figures, a summary."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import find_files, read_survey, show_path, stop
from headgrid.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

    from headgrid.survey.model import Survey


def compare_folders(
    inputs: Sequence[str],
    names: Sequence[str],
    folder: Path,
    *,
    measures: Sequence[str],
    rule: str | None,
    formats: Sequence[str],
    top: int,
    ppi: float,
    style: dict[str, Any],
) -> None:
    """Write what the heads of two folders differ in, and print those that differ most."""
    from headgrid.capture.files import write_bytes
    from headgrid.charts.models import compare_heads
    from headgrid.charts.spec import to_spec
    from headgrid.survey.pairs import compare_models
    from headgrid.web.save import begin_save

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder; choose another one")
    a, b = (_read(path) for path in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notes are printed at the end
        table = compare_models(a, b, *measures)
    lines = [f"A: {names[0]} ({a.description})", f"B: {names[1]} ({b.description})"]
    lines += table.attrs["notes"]
    tables: dict[str, pd.DataFrame] = {"differences": table}
    figures: list[tuple[str, Any, pd.DataFrame]] = []
    for number, name in enumerate(measures):
        part, end = table[table["measure"] == name], f"_{name}" * (number > 0)
        figures += [(f"difference{end}", "map", part), (f"scatter{end}", "scatter", part)]
        lines += _tell(part, name, top)
    if rule is not None:
        tables["roles_from_to"] = changes = _change_roles(a, b, rule)
        figures.append(("roles_from_to", "roles", changes))
        both = changes[["role_a", "role_b"]].dropna().astype(str)
        moved = (both["role_a"] != both["role_b"]).sum()
        lines.append(f"{rule}: {moved} of {len(both)} heads change their role")
    for name, rows in tables.items():
        content = rows.to_csv(index=False, lineterminator="\n")
        show_path(write_bytes(folder / f"{name}.csv", content.encode("utf-8")))
    for name, figure, rows in figures:
        spec = to_spec(compare_heads(rows, figure, names=names, **style), validate=False)
        for format, drawn in zip(formats, begin_save(spec, formats, ppi=ppi)(), strict=True):
            show_path(write_bytes(folder / f"{name}.{format}", drawn))
    click.echo("\n".join(lines))
    if a.failures or b.failures:
        stop(1)


def _read(path: str) -> Survey:
    from headgrid.capture.folders import place_captures

    files, errors = find_files([path])
    return read_survey(files, place_captures(files), errors, None)


def _tell(part: pd.DataFrame, name: str, top: int) -> list[str]:
    """Return how many heads differ in a measure, and those that differ most."""
    change = part["difference"].abs()
    most = change[change > 0].sort_values(ascending=False, kind="stable").index
    found = f"{name}: {len(most)} of {len(part)} heads differ, {part['outlier'].sum()} outliers"
    shown = part.loc[most[:top], ["layer", "head", "a", "b", "difference", "score"]]
    rows = shown.to_string(index=False, float_format="{:.4g}".format)
    return [found, rows] if len(most) else [f"{name}: nothing differs"]


def _change_roles(a: Survey, b: Survey, rule: str) -> pd.DataFrame:
    """Return the roles by a vote of all runs of each, whatever their sets."""
    from headgrid.survey.pairs import role_changes
    from headgrid.survey.roles import head_roles, role_votes

    roles = [head_roles(survey, rule) for survey in (a, b)]
    runs = [found.assign(run=found["set"] + "/" + found["run"], set="") for found in roles]
    return role_changes(*map(role_votes, runs))
