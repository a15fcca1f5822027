"""Arrays that people hold -> the fields of a capture: a batch of one, one head, causal, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headgrid.capture.axis import TOKEN
from headgrid.capture.schema import FULL, LAST, read_array, read_frames, try_array
from headgrid.errors import CaptureError


def fit_arrays(given: Mapping[str, Any], labels: Any, *, causal: bool) -> dict[str, Any]:
    """Return the fields with the two arrays, a batch of one taken off, a lone head's axis put on.

    With the blocks of ``causal``, and ``labels`` on the axes whose places they name.
    """
    fitted = {name: fit_array(given[name], name, axes) for name, axes in ((FULL, 3), (LAST, 2))}
    fields = {**given, **fitted}
    fields |= {name: read_array(fields, name) for name in fitted}
    if causal and (fields[FULL] is not None or fields[LAST] is not None):
        fields |= _make_causal(fields)
    if labels is not None:
        fields |= _spread_labels(labels, fields, causal=causal)
    return fields


def fit_array(value: Any, name: str, axes: int, source: str = "array") -> Any:
    """Return an array without a batch of one, and with the axis that one of a lone head lacks."""
    array = try_array(value)
    if array.dtype.kind == "O":  # absent, or no array, as whoever reads it says
        return value
    if array.ndim == axes + 1:
        if len(array) != 1:
            raise CaptureError(
                f"{source}: {name} has shape {array.shape}, a batch of {len(array)}, expected "
                "(heads, query, key) of one; take one of them (array[0])"
            )
        return array[0]
    return array[None] if array.ndim == axes - 1 and array.size else array


def _make_causal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return blocks of one, and the numbers of queries that are the last of the keys."""
    full, last = fields[FULL], fields[LAST]
    if fields["block_sizes"] is not None:
        raise CaptureError(
            "array: causal and block_sizes are both given, expected one of them; causal means "
            "blocks of one"
        )
    queries, keys = full.shape[1:] if full is not None else (1, last.shape[-1])
    if queries > keys:
        raise CaptureError(
            f"array: {queries} queries against {keys} keys can not be causal, expected at most as "
            "many queries as keys; leave causal out"
        )
    numbers = read_frames(fields, "key_frames") or range(keys)
    asked = read_frames(fields, "query_frames") or numbers[keys - queries :]
    of_keys = {} if full is None else {"query_frames": [*asked]}
    return {"block_sizes": [1] * len({*numbers, *asked}), **of_keys}


def _spread_labels(
    labels: Sequence[object], fields: Mapping[str, Any], *, causal: bool
) -> dict[str, Any]:
    """Return labels for both axes, where they name the places of each beyond doubt."""
    if fields["query_labels"] is not None or fields["key_labels"] is not None:
        raise CaptureError(
            "array: labels and query_labels or key_labels are both given, expected labels for "
            "both axes, or one list for each"
        )
    full = fields[FULL]
    if full is None:
        return {"key_labels": labels, "query_name": fields["query_name"] or TOKEN}
    queries, keys = full.shape[1:]
    if queries == keys:
        return {"query_labels": labels, "key_labels": labels}
    if causal and isinstance(labels, (Sequence, np.ndarray)) and len(labels) == keys:
        return {"query_labels": [*labels][keys - queries :], "key_labels": labels}
    raise CaptureError(
        f"array: labels are given for {queries} queries and {keys} keys, expected as many of both; "
        "give query_labels and key_labels"
    )
