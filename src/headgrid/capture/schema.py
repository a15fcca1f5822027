"""Raw values of a capture's keys -> checked arrays, frame numbers and names.

Every function raises a `CaptureError` that names the source, what was found and
what was expected. An absent key is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.blocks import MAX_FRAMES, BlockLayout
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, near_miss
from headgrid.text import quote_text, shorten_list, shorten_text

Array = npt.NDArray[Any]

FULL = "full_frame_attention"
LAST = "last_block_frame_attention"

#: What headgrid knows; all else is metadata.
KEYS = frozenset(
    {
        "layer_index",
        FULL,
        LAST,
        "block_sizes",
        "query_frames",
        "key_frames",
        "last_block_query_frames",
        "is_logits",
        "statistic",
        "prompt",
    }
)

# What `read_int` and `as_array` raise for what is no number or no array.
_NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)

#: The axes are drawn in floating-point numbers, and labels have their limits.
_MAX_FRAME = 10**8

#: A head takes some 20 µs to read; a file of a few bytes can claim millions.
MAX_HEADS = 10_000

#: Of a file's keys, so many are looked at for a near miss.
_MAX_KEYS = 200


def as_array(value: Any) -> Array:
    """Return a numpy view of an array or a torch tensor (bfloat16 and smaller as float32)."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and str(tensor.dtype) not in (
            "torch.float16",
            "torch.float32",
            "torch.float64",
        ):
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "fiu":
        floating = value.data.astype(value.dtype if value.dtype.kind == "f" else np.float64)
        return np.asarray(np.where(np.ma.getmaskarray(value), np.nan, floating))  # not recorded
    return np.asarray(value)


def read_arrays(given: Mapping[str, Any], source: str) -> tuple[Array | None, Array | None]:
    """Return the full matrix and the last rows, of which one may be None."""
    full = _read_array(given[FULL], FULL, ("heads", "query", "key"), source)
    last = _read_array(given[LAST], LAST, ("heads", "key"), source)
    if full is None and last is None:
        raise CaptureError(
            f"{source}: neither {FULL} (heads, query, key) nor {LAST} (heads, key) is there; "
            f"{_describe_keys(given)}"
        )
    if full is not None and last is not None:
        for axis, at in (("head", 0), ("key", -1)):
            if full.shape[at] != last.shape[at]:
                noun = "heads" if axis == "head" else "key frames"
                raise CaptureError(
                    f"{source}: {axis} counts disagree: {full.shape[at]} in {FULL} {full.shape}, "
                    f"{last.shape[at]} in {LAST} {last.shape}; expected the same {noun} in both"
                )
    heads = (full if full is not None else last).shape[0]  # type: ignore[union-attr]
    check_num_heads(given["metadata"], heads, source)
    return full, last


def _read_array(value: Any, name: str, axes: tuple[str, ...], source: str) -> Array | None:
    if value is None:
        return None
    expected = f"expected ({', '.join(axes)})"
    try:
        array = as_array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CaptureError(
            f"{source}: {name} is not an array ({str(error).splitlines()[0]}), {expected}"
        ) from None
    if array.dtype.kind not in "fiu":
        found = (
            f"is {type(value).__name__}" if array.ndim == 0 else f"has {_show(array.dtype)} values"
        )
        raise CaptureError(f"{source}: {name} {found}, expected real numbers (float16 to float64)")
    if array.ndim != len(axes):
        raise CaptureError(f"{source}: {name} has shape {array.shape}, {expected}")
    for axis, size in zip(axes, array.shape, strict=True):
        most, noun = (MAX_HEADS, axis) if axis == "heads" else (MAX_FRAMES, f"{axis} frames")
        if not 0 < size <= most:
            raise CaptureError(
                f"{source}: {name} has shape {array.shape}"
                f"{'' if size else f', that is zero {noun}'}, {expected} with at most {most:,} "
                f"{noun}{'; store fewer, or pool them' if size else ', and at least 1'}"
            )
    if array.dtype.kind in "iu" or array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity is refused by name, where it is visible
            array = array.astype(np.float64)
    view = array.view()
    view.flags.writeable = False  # a capture is frozen, and so are its arrays
    return view


def check_num_heads(metadata: Mapping[str, Any], heads: int, source: str) -> None:
    """Refuse a stated ``num_heads`` that disagrees with the arrays."""
    stated = metadata.get("num_heads")
    if stated is None:
        return
    try:
        agrees = read_int(stated) == heads
    except _NO_NUMBER:
        agrees = False
    if not agrees:
        raise CaptureError(
            f"{source}: head counts disagree: num_heads says {_show(stated)}, the arrays hold "
            f"{heads}; expected the same number (correct or omit num_heads)"
        )


def read_int(value: Any) -> int:
    """Return an int from an int, a numpy or torch scalar, or a whole float."""
    number = as_array(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or number.item() != int(number.item()):
        raise ValueError(value)
    return int(number.item())


def _read_frames(value: Any, name: str, source: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list-like key, or None where absent or empty."""
    if value is None:
        return None
    try:
        values = as_array(value)
        if values.ndim != 1:
            raise ValueError(name)
        if len(values) > MAX_FRAMES:
            raise CaptureError(
                f"{source}: {name} lists {len(values):,} numbers, expected at most {MAX_FRAMES:,}"
            )
        numbers = tuple(map(read_int, values))
    except CaptureError:
        raise
    except _NO_NUMBER:
        raise CaptureError(
            f"{source}: {name} is {_show(value)}, expected a list of whole numbers"
        ) from None
    if name != "block_sizes" and not numbers:
        return None
    return numbers


def _check_increasing(frames: tuple[int, ...], name: str, source: str) -> None:
    """Refuse frame numbers that are negative or do not increase."""
    if frames[0] < 0 or frames[-1] >= _MAX_FRAME or any(b <= a for a, b in pairwise(frames)):
        raise CaptureError(
            f"{source}: {name} is {shorten_list(frames)}, expected frame numbers from 0 that "
            f"increase, below {_MAX_FRAME:,}, one for each entry of the axis"
        )


def read_frame_numbers(
    given: Mapping[str, Any], full: Array | None, last: Array | None, source: str
) -> dict[str, Any]:
    """Return what is said of frames, the frame numbers along the axes among it."""
    keys = (full if full is not None else last).shape[-1]  # type: ignore[union-attr]
    blocks = _read_frames(given["block_sizes"], "block_sizes", source)
    key_frames = _read_axis(given["key_frames"], "key_frames", keys, blocks, source)
    name = "last_block_query_frames"
    last_frames = _read_frames(given[name], name, source)
    if full is not None:
        queries = _read_axis(given["query_frames"], "query_frames", full.shape[1], blocks, source)
    else:
        stated = _read_frames(given["query_frames"], "query_frames", source)
        queries = stated or last_frames or key_frames[-1:]
        _check_increasing(queries, "query_frames", source)
    return {
        "block_sizes": blocks,
        "query_frames": queries,
        "key_frames": key_frames,
        name: last_frames,
    }


def read_last_frames(
    frames: Mapping[str, Any],
    layout: BlockLayout | None,
    full: Array | None,
    last: Array | None,
    source: str,
) -> tuple[int, ...]:
    """Return the frames of the last rows, by default the last block's that are queries."""
    queries: tuple[int, ...] = frames["query_frames"]
    last_frames: tuple[int, ...] | None = frames["last_block_query_frames"]
    if last_frames is None:
        last_frames = layout.last_block() if layout is not None else queries[-1:]
        if full is not None:
            last_frames = tuple(f for f in last_frames if f in {*queries}) or queries[-1:]
    if len({*last_frames}) < len(last_frames):
        raise CaptureError(
            f"{source}: last_block_query_frames is {shorten_list(last_frames)}, which names a "
            "frame twice, expected each query frame of the last block once"
        )
    if last is None or layout is not None:
        known = {*queries} if last is None or layout is None else {*layout.frames}
        unknown = [frame for frame in last_frames if frame not in known]
        if unknown:
            raise CaptureError(
                f"{source}: last_block_query_frames names frame {unknown[0]}, expected some of the "
                f"query frames ({shorten_list(queries)})"
            )
    return last_frames


def read_frames_per_block(metadata: Mapping[str, Any], source: str) -> int | None:
    """Return how many frames each block has, where that is all that is said of blocks."""
    value = metadata.get("num_frame_per_block")
    if value is None:
        return None
    try:
        number = read_int(value)
    except _NO_NUMBER:
        number = 0
    if number < 1:
        shown = shorten_text(repr(value), 60)
        raise CaptureError(
            f"{source}: num_frame_per_block is {shown}, expected a whole number, at least 1"
        )
    return number


def _read_axis(
    value: Any, name: str, length: int, blocks: tuple[int, ...] | None, source: str
) -> tuple[int, ...]:
    """Return the frame numbers along an axis; 0, 1, 2, ... where absent."""
    frames = _read_frames(value, name, source)
    if frames is None:
        return tuple(range(length))
    if len(frames) < length and blocks and frames == tuple(range(sum(blocks))):
        return tuple(range(length))  # the frames that were never recorded are not listed
    if len(frames) != length:
        raise CaptureError(
            f"{source}: {name} lists {len(frames)} frames, but that axis has {length}; "
            "expected one frame number for each"
        )
    _check_increasing(frames, name, source)
    return frames


def read_layer(value: Any, source: str) -> int:
    """Return the layer number."""
    if value is None:
        raise CaptureError(
            f"{source}: layer_index is absent, expected a whole number; add it, or name the "
            "file layer<number> (layer3.pt)"
        )
    try:
        number = read_int(value)
    except _NO_NUMBER:
        number = -1
    if number < 0:
        shown = quote_text(str(value), 60)
        raise CaptureError(f"{source}: layer_index is {shown}, expected a whole number from 0")
    return number


def read_statistic(value: Any, source: str) -> str:
    """Return what the values are."""
    if isinstance(value, str) and value in STATISTICS:
        return value
    shown = _show(value)
    raise CaptureError(
        f"{source}: statistic is '{shown}', expected one of {', '.join(STATISTICS)}"
        f"{near_miss(shown, STATISTICS)}"
    )


def read_is_logits(value: Any, source: str) -> str:
    """Return the statistic that the key ``is_logits`` stands for."""
    try:
        flags = as_array(True if value is None else value)
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a sparse tensor
        flags = np.empty(0)
    if flags.size != 1 or flags.dtype.kind not in "biuf" or flags.item() not in (0, 1):
        raise CaptureError(f"{source}: is_logits is '{_show(value)}', expected True or False")
    return "logit" if flags.item() else "mass"


def _show(value: Any) -> str:
    """Return a value of a file for a message."""
    return shorten_text(str(value), 60)


def read_text(value: Any) -> str:
    """Return a value as text, a list joined by bars; empty where absent."""
    if isinstance(value, (list, tuple)):
        return " | ".join(str(part) for part in value)
    return "" if value is None else str(value)


def read_metadata(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keys that headgrid does not know."""
    return {key: kept for key, kept in (value or {}).items() if key not in KEYS}


def _describe_keys(given: Mapping[str, Any]) -> str:
    """Return what keys there are instead, with the near miss of an array."""
    known = sorted(
        name
        for name in KEYS - {"layer_index", "statistic", "prompt"}
        if given.get(name) is not None
    )
    names = [_show(key) for key in (*given["metadata"], *known)]
    if not names:
        return "there is nothing like them"
    for name in names[:_MAX_KEYS]:
        for wanted in (FULL, LAST):
            if near_miss(name, [wanted]):
                return f"there is {name!r}, did you mean {wanted!r}?"
    return f"there are {shorten_list(names)}"
