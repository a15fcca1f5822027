"""Raw values of a capture's keys -> checked arrays, frame numbers and names.

Every function takes the mapping and the name of a key, and raises a
`CaptureError` that names the source, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.blocks import MAX_FRAMES
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, near_miss
from headgrid.text import quote_text, shorten_list, shorten_text

Array = npt.NDArray[Any]

FULL = "full_frame_attention"
LAST = "last_block_frame_attention"

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


def read_array(
    data: Mapping[str, Any], name: str, axes: tuple[str, ...], source: str
) -> Array | None:
    """Return the array of a key, floating point and with these axes, or None where absent."""
    if name not in data:
        return None
    expected = f"expected ({', '.join(axes)})"
    try:
        array = as_array(data[name])
    except (TypeError, ValueError, RuntimeError) as error:
        raise CaptureError(
            f"{source}: {name} is not an array ({str(error).splitlines()[0]}), {expected}"
        ) from None
    if array.dtype.kind not in "fiu":
        found = (
            f"is {type(data[name]).__name__}"
            if array.ndim == 0
            else f"has {_show(array.dtype)} values"
        )
        raise CaptureError(f"{source}: {name} {found}, expected real numbers (float16 to float64)")
    if array.ndim != len(axes):
        raise CaptureError(f"{source}: {name} has shape {array.shape}, {expected}")
    if 0 in array.shape:
        empty = axes[array.shape.index(0)]
        noun = "heads" if empty == "heads" else f"{empty} frames"
        raise CaptureError(
            f"{source}: {name} has shape {array.shape}, that is zero {noun}; "
            f"{expected}, each at least 1"
        )
    for axis, size in zip(axes, array.shape, strict=True):
        most = MAX_HEADS if axis == "heads" else MAX_FRAMES
        if size > most:
            raise CaptureError(
                f"{source}: {name} has shape {array.shape}, {expected} with at most {most:,} "
                f"{'heads' if axis == 'heads' else f'{axis} frames'}; store fewer, or pool them"
            )
    if array.dtype.kind in "iu" or array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity is refused by name, where it is visible
            array = array.astype(np.float64)
    view = array.view()
    view.flags.writeable = False  # a capture is frozen, and so are its arrays
    return view


def check_head_counts(
    full: Array | None, last: Array | None, data: Mapping[str, Any], source: str
) -> None:
    """Refuse arrays, or a stated ``num_heads``, that disagree."""
    if full is not None and last is not None:
        if full.shape[0] != last.shape[0]:
            raise CaptureError(
                f"{source}: head counts disagree: {full.shape[0]} in {FULL} {full.shape}, "
                f"{last.shape[0]} in {LAST} {last.shape}; expected the same heads in both"
            )
        if full.shape[2] != last.shape[1]:
            raise CaptureError(
                f"{source}: key counts disagree: {full.shape[2]} in {FULL} {full.shape}, "
                f"{last.shape[1]} in {LAST} {last.shape}; expected the same key frames in both"
            )
    heads = (full if full is not None else last).shape[0]  # type: ignore[union-attr]
    stated = data.get("num_heads", heads)
    try:
        agrees = read_int(stated) == heads
    except (TypeError, ValueError, OverflowError, RuntimeError):
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


def read_frames(data: Mapping[str, Any], name: str, source: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list-like key, or None where absent or empty."""
    if name not in data:
        return None
    try:
        values = as_array(data[name])
        if values.ndim != 1:
            raise ValueError(name)
        if len(values) > MAX_FRAMES:
            raise CaptureError(
                f"{source}: {name} lists {len(values):,} numbers, expected at most {MAX_FRAMES:,}"
            )
        numbers = tuple(read_int(value) for value in values)
    except CaptureError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise CaptureError(
            f"{source}: {name} is {_show(data[name])}, expected a list of whole numbers"
        ) from None
    if name != "block_sizes" and not numbers:
        return None
    return numbers


def check_increasing(frames: tuple[int, ...], name: str, source: str) -> None:
    """Refuse frame numbers that are negative or do not increase."""
    if frames[0] < 0 or frames[-1] >= _MAX_FRAME or any(b <= a for a, b in pairwise(frames)):
        raise CaptureError(
            f"{source}: {name} is {shorten_list(frames)}, expected frame numbers from 0 that "
            f"increase, below {_MAX_FRAME:,}, one for each entry of the axis"
        )


def read_axis(
    data: Mapping[str, Any],
    name: str,
    length: int,
    blocks: tuple[int, ...] | None,
    source: str,
) -> tuple[int, ...]:
    """Return the frame numbers along an axis; 0, 1, 2, ... where absent."""
    frames = read_frames(data, name, source)
    if frames is None:
        return tuple(range(length))
    if len(frames) < length and blocks and frames == tuple(range(sum(blocks))):
        return tuple(range(length))  # the frames that were never recorded are not listed
    if len(frames) != length:
        raise CaptureError(
            f"{source}: {name} lists {len(frames)} frames, but that axis has {length}; "
            "expected one frame number for each"
        )
    check_increasing(frames, name, source)
    return frames


def read_layer(data: Mapping[str, Any], layer: int | None, source: str) -> int:
    """Return the layer number, from the file name where the key is absent."""
    if "layer_index" not in data:
        if layer is None:
            raise CaptureError(
                f"{source}: layer_index is absent, expected a whole number; add it, or name the "
                "file layer<number> (layer3.pt)"
            )
        return layer
    try:
        number = read_int(data["layer_index"])
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = -1
    if number < 0:
        shown = quote_text(str(data["layer_index"]), 60)
        raise CaptureError(f"{source}: layer_index is {shown}, expected a whole number from 0")
    return number


def read_statistic(data: Mapping[str, Any], source: str) -> str:
    """Return what the values are; from ``is_logits`` where the key is absent."""
    if "statistic" not in data:
        return "logit" if _read_bool(data, "is_logits", source) else "mass"
    statistic = data["statistic"]
    if isinstance(statistic, str) and statistic in STATISTICS:
        return statistic
    shown = _show(statistic)
    raise CaptureError(
        f"{source}: statistic is '{shown}', expected one of {', '.join(STATISTICS)}"
        f"{near_miss(shown, STATISTICS)}"
    )


def _read_bool(data: Mapping[str, Any], name: str, source: str) -> bool:
    value = data.get(name, True)
    try:
        flags = as_array(value)
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a sparse tensor
        flags = np.empty(0)
    if flags.size != 1 or flags.dtype.kind not in "biuf" or flags.item() not in (0, 1):
        raise CaptureError(f"{source}: {name} is '{_show(value)}', expected True or False")
    return bool(flags.item())


def _show(value: Any) -> str:
    """Return a value of a file for a message."""
    return shorten_text(str(value), 60)


def read_text(data: Mapping[str, Any], name: str) -> str:
    """Return a key as text, a list joined by bars; empty where absent."""
    value = data.get(name, "")
    if isinstance(value, (list, tuple)):
        return " | ".join(str(part) for part in value)
    return str(value)


def describe_keys(data: Mapping[str, Any], source: str) -> str:
    """Return what keys there are instead, with the near miss of an array."""
    names = [_show(key) for key in data]
    if not names:
        return "the file holds no keys at all"
    for name in names[:_MAX_KEYS]:
        for wanted in (FULL, LAST):
            if near_miss(name, [wanted]):
                return f"there is {name!r}, did you mean {wanted!r}?"
    return f"there are {shorten_list(names)}"
