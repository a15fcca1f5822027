"""``headgrid compare A/ B/`` -> how the heads of two models differ: tables, figures, a summary."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import check_list, find_files, read_survey, show_path, stop
from headgrid.errors import OptionError
from headgrid.options import FORMATS

if TYPE_CHECKING:
    import pandas as pd

    from headgrid.survey.model import Survey


def compare_folders(
    inputs: Sequence[str],
    outputs: Sequence[Path],
    names: Sequence[str],
    measures: Sequence[str],
    rule: str | None,
    top: int,
    *,
    formats: Sequence[str],
    ppi: float,
    style: dict[str, Any],
) -> None:
    """Write what the heads of two folders differ in, and print those that differ most."""
    from headgrid.capture.files import write_bytes
    from headgrid.charts.models import compare_heads
    from headgrid.survey.pairs import compare_models, role_changes
    from headgrid.survey.roles import head_roles
    from headgrid.tables.measures import MEASURES
    from headgrid.web.save import save

    for path in inputs:
        if not Path(path).is_dir():
            raise OptionError(
                f"{path}: is no folder, expected the captures of two models, or two files"
            )
    folder = outputs[0]
    if len(outputs) > 1 or folder.suffix[1:].lower() in FORMATS or folder.is_file():
        raise OptionError(f"{folder}: expected one folder for what two folders differ in")
    measures = check_list("statistic", measures or ("sink",), tuple(MEASURES))
    a, b = (_read(path) for path in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notes are printed at the end
        table = compare_models(a, b, *measures)
    lines = [f"A: {names[0]} ({a.description})", f"B: {names[1]} ({b.description})"]
    lines += table.attrs["notes"]
    tables: dict[str, pd.DataFrame] = {"differences": table}
    figures: list[tuple[str, Any, pd.DataFrame]] = []
    for name in measures:
        part, end = table[table["measure"] == name], "" if name == measures[0] else f"_{name}"
        figures += [(f"difference{end}", "map", part), (f"scatter{end}", "scatter", part)]
        lines.append(_tell(part, name, top))
    if rule is not None:
        changes = role_changes(head_roles(a, rule), head_roles(b, rule))
        tables["roles_from_to"] = changes
        figures.append(("roles_from_to", "roles", changes))
        both = changes[["role_a", "role_b"]].dropna().astype(str)
        moved = (both["role_a"] != both["role_b"]).sum()
        lines.append(f"{rule}: {moved} of {len(both)} heads change their role")
    for name, rows in tables.items():
        content = rows.to_csv(index=False, lineterminator="\n")
        show_path(write_bytes(folder / f"{name}.csv", content.encode("utf-8")))
    for name, figure, rows in figures:
        chart = compare_heads(rows, figure, names=names, **style)
        for format in formats:
            show_path(save(chart, folder / f"{name}.{format}", ppi=ppi))
    click.echo("\n".join(lines))
    if a.failures or b.failures:
        stop(1)


def _read(path: str) -> Survey:
    from headgrid.capture.folders import place_captures

    files, errors = find_files([path])
    return read_survey(files, place_captures(files), errors, None)


def _tell(part: pd.DataFrame, name: str, top: int) -> str:
    """Return how many heads differ in a measure, and those that differ most."""
    change = part["difference"].abs()
    most = change[change > 0].sort_values(ascending=False, kind="stable").index
    if not len(most):
        return f"{name}: nothing differs in {len(part)} heads"
    shown = part.loc[most[:top], ["layer", "head", "a", "b", "difference", "score"]]
    found = f"{len(most)} of {len(part)} heads differ, {part['outlier'].sum()} outliers"
    return f"{name}: {found}\n{shown.to_string(index=False, float_format='{:.4g}'.format)}"
