"""The values of a capture -> what of them is visible, how far they reach, what is odd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headgrid.capture.schema import FULL, LAST, Array, Blocks, Frames
from headgrid.errors import CaptureError
from headgrid.text import shorten_list

if TYPE_CHECKING:
    from headgrid.capture.model import Capture

#: Beyond this, sums and spans of float64 overflow; no attention is near it.
_MAX_VALUE = 1e300


def attendable_by(capture: Capture, query_frames: Frames) -> npt.NDArray[np.bool_]:
    """Return the mask [query, key] of the pairs that the model can attend: up to a block's end."""
    blocks: Blocks | None = vars(capture)["_blocks"]
    if blocks is None:
        return np.ones((len(query_frames), len(capture.key_frames)), dtype=bool)
    ends = np.zeros(len(blocks.frames), dtype=np.int64)
    ends[: sum(blocks.sizes)] = np.repeat(np.cumsum(blocks.sizes), blocks.sizes)
    queries, keys = (
        np.searchsorted(blocks.frames, axis) for axis in (query_frames, capture.key_frames)
    )
    return np.asarray(keys[None, :] < ends[queries][:, None])


def hide(values: Array, attendable: npt.NDArray[np.bool_]) -> Array:
    """Return values as float32 or float64, NaN where they are not visible."""
    values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
    # A signalling NaN becomes a quiet one: it would warn wherever it is converted.
    seen = attendable & ~np.isnan(values)
    return np.where(seen, values, np.asarray(np.nan, dtype=values.dtype))


def extent(values: Array) -> tuple[float, float, int]:
    """Return the smallest and largest number that is not NaN, and how many there are."""
    count = int(values.size - np.count_nonzero(np.isnan(values)))
    if not count:
        return math.inf, -math.inf, 0
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None)), count


def mean_of_last_rows(capture: Capture) -> Array:
    """Return the mean over the last block's query rows, of what is visible, [heads, key]."""
    full = capture.full_frame_attention
    assert full is not None
    rows = np.searchsorted(capture.query_frames, capture.last_block_query_frames)
    means = np.full((len(full), len(capture.key_frames)), np.nan)
    for head in range(len(means)):
        # Infinities are refused afterwards, by name; NaN of the signalling kind is NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            block = full[head][rows].astype(np.float64)
            seen = capture.attendable[rows] & ~np.isnan(block)
            totals = np.where(seen, block, 0.0).sum(axis=0)
        np.divide(totals, seen.sum(axis=0), out=means[head], where=seen.any(axis=0))
    return means


def check_values(capture: Capture) -> tuple[str, ...]:
    """Return all warnings; refuse infinities in visible cells, and a capture without a value."""
    source, heads = capture.source, range(capture.num_heads)
    first = LAST if capture.full_frame_attention is None else FULL
    for name, extents in ((first, capture.extents), (LAST, [extent(capture.last_block_rows)])):
        largest = max(max(-low, high) for low, high, _ in extents)
        if largest <= _MAX_VALUE:
            continue
        values_of = capture.head_matrix if name == FULL else capture.last_block_rows.__getitem__
        matrices = (values_of(head).astype(np.float64) for head in heads)
        cells = np.stack([np.abs(values) > _MAX_VALUE for values in matrices])
        count = np.count_nonzero(cells)
        head, *place = np.unravel_index(cells.argmax(), cells.shape)
        axes = [("query", capture.query_axis), ("key", capture.key_axis)][-len(place) :]
        at = ", ".join(
            f"{side} {axis.tell(axis.numbers[i])}"
            for (side, axis), i in zip(axes, place, strict=True)
        )
        found = f"values up to {largest:.3g}"
        if largest == math.inf:
            found = f"{count} infinite value{'s' if count > 1 else ''} in visible cells"
        raise CaptureError(
            f"{source}: {name} has {found} (head {head}, {at}{', ...' if count > 1 else ''}), "
            f"expected magnitudes up to {_MAX_VALUE:g}; store NaN where nothing was recorded, or "
            "give block_sizes if the future is masked"
        )
    odd, empty = [], [head for head, (_, _, count) in enumerate(capture.extents) if not count]
    found = f"{source}: {first} has no visible value in {len(empty)} of {len(heads)} heads (head "
    found += f"{shorten_list(empty)}: every value is NaN or masked)"
    if len(empty) == len(heads):
        raise CaptureError(f"{found}, expected at least one finite value")
    if empty:
        odd.append(f"{found}; their panels stay empty, and they have no sink score")
    if capture.value_range[0] < 0 and capture.statistic in ("mass", "mass_mean", "mass_std"):
        found = f"{source}: {first} has values down to {capture.value_range[0]:.3g}"
        odd.append(f"{found}, but mass is never negative; correct is_logits or statistic")
    return tuple(dict.fromkeys((*capture.warnings, *odd)))
