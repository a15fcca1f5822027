"""Roles of heads -> the files that programs with roles of heads read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from headgrid.errors import CaptureError, OptionError, check_choice
from headgrid.tables.rules import RULES

if TYPE_CHECKING:
    import pandas as pd

#: What each export has for a role; in DuoAttention's, 1 is a head that keeps all keys.
EXPORTS = {
    "pyramid": {"Anchor": 1, "Wave": -1, "Veil": 2},
    "forcing-kv": {"static": 0, "dynamic": 1},
    "duo": {"static": 0, "dynamic": 1, "sink": 0, "other": 1},
}
#: Tokens that DuoAttention's other heads keep where nothing else is said.
_SIZES = {"sink_size": 128, "recent_size": 256}


def check_exports(exports: Iterable[str], rule: str) -> None:
    """Refuse exports that have no place for the roles of a rule."""
    for export in exports:
        codes = EXPORTS[check_choice("export", export, EXPORTS)]
        fitting = [name for name, (_, roles) in RULES.items() if {*roles} <= {*codes}]
        if rule not in fitting:
            raise OptionError(
                f"export {export} has no place for the roles of rule {rule}, expected those of "
                f"{' or '.join(fitting)}; choose that rule"
            )


def export_roles(votes: pd.DataFrame, export: str) -> dict[str, str]:
    """Return the files, name and text, that a program reads of the votes of one set."""
    name, places = str(votes["set"].iloc[0]), votes.set_index(["layer", "head"])
    layers, heads = (range(int(votes[axis].max()) + 1) for axis in ("layer", "head"))
    given = places["role"].astype(object).map(EXPORTS[export]).unstack().reindex(layers)
    for layer, head in np.argwhere(given.isna().to_numpy())[:1]:
        raise CaptureError(
            f"{f'set {name}: ' if name else ''}layer {layer}, head {head} has no role, expected "
            f"one in all layers from 0 on to export {export}; give captures of all of them"
        )
    rows = given.astype(int).to_numpy().tolist()
    if export == "pyramid":
        return {"pyramid.csv": _write_rows(rows, ",")}
    if export == "duo":
        share = places["share"].unstack()  # of runs in which the head keeps all keys
        scores = share.where(given == 1, 1 - share).round(6).to_numpy().tolist()
        sizes = json.dumps(_SIZES) + "\n"
        scored = {"full_attention_heads.tsv": _write_rows(scores, "\t"), "config.json": sizes}
        return {f"duo/{file}": text for file, text in scored.items()}
    listed = [
        {"layer_idx": layer}
        | {f"{role}_head": [h for h in heads if row[h] == n] for role, n in EXPORTS[export].items()}
        for layer, row in enumerate(rows)
    ]
    head = {"format": "forcingkv_offline_head_custom2", "profile": f"recent-mass {name}".strip()}
    whole = {**head, "num_layers": len(layers), "num_heads": len(heads), "layers": listed}
    return {"forcing-kv.json": json.dumps(whole, indent=1) + "\n"}


def _write_rows(rows: list[list[float]], between: str) -> str:
    return "".join(between.join(map(str, row)) + "\n" for row in rows)
