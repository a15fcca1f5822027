"""Captures -> the printed statistics, as text for people and CSV or JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from headgrid.capture.model import Capture
from headgrid.tables.stats import head_statistics, layer_statistics
from headgrid.text import clean_text

if TYPE_CHECKING:
    import pandas as pd

_HEAD_COLUMNS = ("first", "mid", "last", "sink")
_LAYER_COLUMNS = ("diagonal_mean", "first_key_mean")


def report_text(captures: Sequence[Capture]) -> Iterator[str]:
    """Yield a paragraph for each capture: its means, then a line for each head."""
    for position, capture in enumerate(captures):
        heads, layer = head_statistics(capture), layer_statistics(capture).iloc[0]
        run = f"{_flat(capture.run)}, layer" if capture.run else "Layer"
        lines = [
            f"{run} {capture.layer_index} ({capture.statistic})",
            f"diagonal mean={_number(layer['diagonal_mean'])}, "
            f"first-key mean={_number(layer['first_key_mean'])}",
        ]
        lines += [
            f"H{row.head:2d}: first={_number(row.first)}, mid={_number(row.mid)}, "
            f"last={_number(row.last)}, sink={_number(row.sink, '+.3f')}"
            for row in heads.itertuples(index=False)
        ]
        yield ("\n" if position else "") + "\n".join(lines) + "\n"


def report_csv(captures: Sequence[Capture]) -> Iterator[str]:
    """Yield CSV with one row a head: run, layer, head, first, mid, last, sink, layer's means."""
    yield _merged(captures).to_csv(index=False, lineterminator="\n")


def report_json(captures: Sequence[Capture]) -> Iterator[str]:
    """Yield a JSON list with one object a capture, its heads in a list; null where undefined."""
    layers = []
    for capture in captures:
        heads, layer = head_statistics(capture), layer_statistics(capture).iloc[0]
        layers.append(
            {
                "run": capture.run,
                "layer": capture.layer_index,
                "statistic": capture.statistic,
                **{name: _json_number(layer[name]) for name in _LAYER_COLUMNS},
                "heads": [
                    {"head": int(row["head"])}
                    | {name: _json_number(row[name]) for name in _HEAD_COLUMNS}
                    for _, row in heads.iterrows()
                ],
            }
        )
    yield json.dumps(layers, indent=1, ensure_ascii=True) + "\n"


REPORTS: dict[str, Callable[[Sequence[Capture]], Iterator[str]]] = {
    "text": report_text,
    "csv": report_csv,
    "json": report_json,
}


def _merged(captures: Sequence[Capture]) -> pd.DataFrame:
    heads = head_statistics(captures)
    layers = layer_statistics(captures)[["run", "layer", *_LAYER_COLUMNS]]
    # Row by row, as two captures may share run and layer.
    repeats = [capture.num_heads for capture in captures]
    repeated = layers.loc[layers.index.repeat(repeats)].reset_index(drop=True)
    for name in _LAYER_COLUMNS:
        heads[name] = repeated[name]
    heads.insert(2, "statistic", [c.statistic for c in captures for _ in range(c.num_heads)])
    return heads


def _number(value: Any, spec: str = ".3f") -> str:
    return "n/a" if math.isnan(value) else format(value, spec)


def _json_number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _flat(text: str) -> str:
    return " ".join(clean_text(text).split())
