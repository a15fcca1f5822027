"""Attention that comes as arrays alone, from a model or a file -> captures of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headgrid.capture import schema
from headgrid.capture.arrays import fit_arrays
from headgrid.capture.files import let_go
from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, Array
from headgrid.errors import CaptureError

#: How far from 1 a row of masses may be: they were rounded to the 8 bits of bfloat16, or summed so.
_TOLERANCE = 2**-7


def read_bare(array: Array, *, source: str, layer: int | None, run: str) -> Capture:
    """Return the capture of a file that holds one array, with a warning of what it was taken for.

    Values of which none is negative and every row sums to 1 are masses, all others logits.
    """
    if array.ndim == 4 and len(array) != 1:
        raise CaptureError(
            f"{source}: the array has shape {array.shape}, a batch of {len(array)}, expected "
            "(heads, query, key); save one of them (array[0])"
        )
    given: dict[str, Any] = dict.fromkeys(schema.KEYS - {"is_logits"})
    given |= {"layer_index": layer, "statistic": "logit", "source": source, "run": run}
    given |= {**fit_arrays(array, None), "metadata": {}, "warnings": ()}
    full = schema.read_fields(given)[FULL]  # of a checked shape: what follows takes its time
    sums, is_causal = _look(full)
    taken = "logits, as some value is negative or some row does not sum to 1"
    if _are_one(sums) and not any((head < 0).any() for head in _heads(full)):
        taken = "attention after the softmax, as no value is negative and every row sums to 1"
        given["statistic"] = "mass"
        if is_causal:
            taken += ", and for causal, as all above the diagonal is 0"
            given["block_sizes"] = [1] * full.shape[1]
    warning = (
        f"{source}: holds an array alone, which was taken for {taken}; to say otherwise, save a "
        f"dictionary with {FULL}, statistic and block_sizes (Capture.from_array, save_capture)"
    )
    return Capture(**given | {"warnings": (warning,)})


@np.errstate(over="ignore", invalid="ignore")
def _look(matrix: Array) -> tuple[Array, bool]:
    """Return the sums of all rows that hold a value, and whether all above the diagonal is 0."""
    sums, is_causal = [], matrix.shape[1] == matrix.shape[2] > 1
    for head in _heads(matrix):
        of_rows = np.asarray(np.nansum(head, axis=1, dtype=np.float64))
        sums.append(of_rows[~np.isnan(head).all(axis=1)])
        is_causal = is_causal and not np.nan_to_num(np.triu(head, 1)).any()
    return np.concatenate(sums), bool(is_causal)


def _heads(matrix: Array) -> Iterator[Array]:
    for head in matrix:
        yield head
        let_go(matrix)


def _are_one(sums: Array) -> bool:
    return bool((abs(sums - 1) <= _TOLERANCE).all())
