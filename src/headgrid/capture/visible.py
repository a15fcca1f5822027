"""A capture -> its visible values: NaN elsewhere, their extents, and what of them is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headgrid.capture.schema import FULL, LAST, Array
from headgrid.errors import CaptureError
from headgrid.text import shorten_list

if TYPE_CHECKING:
    from headgrid.capture.model import Capture

_Part = tuple[str, list[tuple[float, float, int]], Callable[[int], Array]]

#: Beyond this, sums and spans of float64 overflow; no attention is near it.
_MAX_VALUE = 1e300


def hide(values: Array, attendable: npt.NDArray[np.bool_]) -> Array:
    """Return values as float32 or float64, NaN where they are not visible."""
    values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
    # A signalling NaN becomes a quiet one: it would warn wherever it is converted.
    seen = attendable & ~np.isnan(values)
    return np.where(seen, values, np.asarray(np.nan, dtype=values.dtype))


def mean_of_last_rows(capture: Capture) -> Array:
    """Mean over the last block's query rows, of what is visible, [heads, key]."""
    positions = {frame: position for position, frame in enumerate(capture.query_frames)}
    rows = [positions[frame] for frame in capture.last_block_query_frames]
    assert capture.full_frame_attention is not None
    means = np.full((len(capture.full_frame_attention), len(capture.key_frames)), np.nan)
    for head in range(len(means)):
        # Infinities are refused afterwards, by name; NaN of the signalling kind is NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            block = capture.full_frame_attention[head][rows].astype(np.float64)
            block[~capture.attendable[rows]] = np.nan
            seen = ~np.isnan(block)
            counts = seen.sum(axis=0)
            totals = np.where(seen, block, 0.0).sum(axis=0)
        np.divide(totals, counts, out=means[head], where=counts > 0)
    return means


def extent(values: Array) -> tuple[float, float, int]:
    """Return the smallest and largest number that is not NaN, and how many there are."""
    count = int(values.size - np.count_nonzero(np.isnan(values)))
    if not count:
        return math.inf, -math.inf, 0
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None)), count


def check_values(capture: Capture) -> None:
    """Refuse infinities in visible cells, and heads without one visible cell."""
    rows = capture.last_block_rows
    parts: list[_Part] = [(LAST, list(map(extent, rows)), rows.__getitem__)]
    if capture.full_frame_attention is not None:
        parts.insert(0, (FULL, capture._extents, capture.head_matrix))
    empty = [head for head, (_, _, count) in enumerate(parts[0][1]) if not count]
    if empty:
        which = f"head{'s' if len(empty) > 1 else ''} {shorten_list(empty)}"
        raise CaptureError(
            f"{capture.source}: {parts[0][0]} has no visible value in {len(empty)} of "
            f"{capture.num_heads} heads ({which}: every value is NaN or masked), expected at "
            "least one finite value in every head"
        )
    for name, extents, values_of in parts:
        largest = max(max(-low, high) for low, high, _ in extents)
        if largest == math.inf:
            _refuse_infinities(capture, name, values_of)
        if largest > _MAX_VALUE:
            raise CaptureError(
                f"{capture.source}: {name} has values up to {largest:.3g}, expected magnitudes up "
                f"to {_MAX_VALUE:g}; store NaN where nothing was recorded"
            )


def _refuse_infinities(capture: Capture, name: str, values_of: Callable[[int], Array]) -> None:
    axes = [("query", capture.query_frames), ("key", capture.key_frames)][name == LAST :]
    count = 0
    places: list[str] = []
    for head in range(capture.num_heads):
        found = np.argwhere(np.isinf(values_of(head)))
        count += len(found)
        for cell in found[: 3 - len(places)]:
            at = (f"{axis} {frames[i]}" for (axis, frames), i in zip(axes, cell, strict=True))
            places.append(", ".join([f"head {head}", *at]))
    raise CaptureError(
        f"{capture.source}: {name} has {count} infinite value{'s' if count > 1 else ''} in visible "
        f"cells ({'; '.join(places)}{', ...' if count > 3 else ''}), expected finite numbers; "
        "store NaN where nothing was recorded, or give block_sizes if the future is masked"
    )
