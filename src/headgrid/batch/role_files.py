"""Roles of heads -> tables, the figure, and the files that programs with head roles read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headgrid.capture.files import write_bytes
from headgrid.errors import CaptureError, OptionError
from headgrid.options import FigureOptions
from headgrid.tables.rules import RULES
from headgrid.text import shorten_list

if TYPE_CHECKING:
    import pandas as pd

#: The file of each export, and what it holds for each role; the same for every set.
EXPORTS: Mapping[str, Mapping[str, int]] = {
    "pyramid": {"Anchor": 1, "Wave": -1, "Veil": 2},
    "forcing-kv": {"static": 0, "dynamic": 1},
    "duo": {"static": 0, "dynamic": 1, "sink": 0, "other": 1},
}


@dataclass(frozen=True)
class RoleTarget:
    """Where roles are written, and what they become there."""

    folder: Path
    rule: str
    formats: tuple[str, ...]
    options: FigureOptions
    ppi: float = 300
    exports: tuple[str, ...] = ()
    #: Tokens at the start and at the end that a streaming head keeps, for ``duo``.
    sizes: tuple[int, int] = (128, 256)

    def __post_init__(self) -> None:
        for export in self.exports:
            fits = [name for name, rule in RULES.items() if {*rule.roles} <= {*EXPORTS[export]}]
            if self.rule not in fits:
                raise OptionError(
                    f"export {export} has no place for the roles of {self.rule} "
                    f"({', '.join(RULES[self.rule].roles)}), expected rule {' or '.join(fits)}"
                )


def write_roles(roles: pd.DataFrame, target: RoleTarget) -> Iterator[Path]:
    """Write the tables and the figure of roles and what they are exported to; yield each file."""
    from headgrid.charts.roles import role_map
    from headgrid.charts.spec import to_spec
    from headgrid.survey.roles import role_agreement, role_votes
    from headgrid.web.save import begin_save

    votes, folder = role_votes(roles), target.folder
    # What can not be exported is told before anything is written.
    exported = {
        folder / name / path: content
        for name, of_set in votes.groupby("set", sort=False)
        for export in target.exports
        for path, content in _WRITERS[export](_check(of_set, export), target).items()
    }
    tables = {"roles": roles, "votes": votes}
    if (agreement := role_agreement(roles))["pairs"].any():
        tables["agreement"] = agreement
    for name, table in tables.items():
        text = table.to_csv(index=False, lineterminator="\n")
        yield write_bytes(folder / f"{name}.csv", text.encode("utf-8", "surrogateescape"))
    spec = to_spec(role_map(votes, **vars(target.options)), validate=False)
    contents = begin_save(spec, target.formats, ppi=target.ppi)()
    for format, content in zip(target.formats, contents, strict=True):
        yield write_bytes(folder / f"roles.{format}", content)
    for path, content in exported.items():
        yield write_bytes(path, content.encode("ascii"))
