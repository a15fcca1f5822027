"""Tables of values <-> records that travel: one for each row of a matrix, with an array.

Vega-Lite flattens the arrays again: a quarter of the bytes, and an identical picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from headgrid.charts.spec import Records


def nest(
    table: pd.DataFrame,
    statistic: str,
    keys: Sequence[int],
    index: Sequence[str],
    expected: Iterable[int] = (),
) -> Records:
    """Turn a table, sorted by ``index`` and ``key``, into a record per row of a matrix: an array.

    An unseen pair before the last visible one is null. Each of ``expected``, values of the first
    column, has a record, if only with one null.
    """
    rows = table[list(index)].to_numpy()
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    number = np.cumsum(new) - 1
    position = np.searchsorted(np.asarray(keys), table["key"].to_numpy())
    matrix = np.full((int(new.sum()), len(keys)), np.nan)
    matrix[number, position] = table[statistic].to_numpy()
    ends = np.zeros(len(matrix), dtype=int)
    np.maximum.at(ends, number, position + 1)
    records: Records = []
    for row, cells, end in zip(rows[new].tolist(), matrix.tolist(), ends.tolist(), strict=True):
        numbers = [None if value != value else value for value in cells[:end]]
        records.append({**dict(zip(index, row, strict=True)), statistic: numbers})
    present = {record[index[0]] for record in records}
    absent = [{index[0]: value, statistic: [None]} for value in expected if value not in present]
    return sorted(records + absent, key=lambda record: record[index[0]]) if absent else records


def unfold(
    chart: alt.FacetChart,
    statistic: str,
    keys: Sequence[int],
    index: list[str],
    *,
    keep_unseen: bool = False,
) -> alt.FacetChart:
    """Let a chart turn the arrays of `nest` into rows again; in a matrix, of what is seen."""
    first = keys[0]
    if list(keys) == list(range(first, first + len(keys))):
        number = f"datum.position{first - 1:+d}".removesuffix("+0")
    else:
        number = f"{json.dumps(list(keys))}[datum.position-1]"
    position: dict[str, Any] = {"op": "row_number", "field": "", "as": "position"}
    key: dict[str, Any] = {"calculate": number, "as": "key"}
    steps: list[Any] = [
        alt.FlattenTransform(flatten=[statistic]),
        alt.WindowTransform(window=[alt.WindowFieldDef(**position)], groupby=index),
        alt.CalculateTransform(**key),
    ]
    if "query" in index and not keep_unseen:
        steps.append(alt.FilterTransform(filter=f"isValid(datum.{statistic})"))
    chart.transform = steps
    return chart
