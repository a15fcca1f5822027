"""Raw values of a capture's keys -> checked arrays, frame numbers, blocks and names.

Every function raises a `CaptureError` that names the source, what was found and
what was expected. An absent key is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.capture.axis import read_axis
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, near_miss
from headgrid.text import clean_name, shorten_list, shorten_text

Array = npt.NDArray[Any]
Frames = tuple[int, ...]
Given = Mapping[str, Any]

FULL = "full_frame_attention"
LAST = "last_block_frame_attention"
#: Keys whose values are lists of whole numbers.
LIST_KEYS = ("block_sizes", "query_frames", "key_frames", "last_block_query_frames")
#: What the axes are called, the labels along them, and the names of their parts.
_AXIS = ("name", "labels", "parts")
AXIS_KEYS = tuple(f"{side}_{part}" for side in ("query", "key") for part in _AXIS)
#: What headgrid knows; all else is metadata.
KEYS = frozenset(
    {"layer_index", FULL, LAST, *LIST_KEYS, *AXIS_KEYS, "is_logits", "statistic", "prompt"}
)

#: Frames along an axis, or in all blocks: a file of a few bytes can claim any number.
MAX_FRAMES = 20_000
#: A head takes some 20 µs to read; a file of a few bytes can claim millions.
MAX_HEADS = 10_000
#: The axes are drawn in floating-point numbers, and labels have their limits.
_MAX_FRAME = 10**8
_FLOATS = ("torch.float16", "torch.float32", "torch.float64")
# What is raised for what is no array, or no whole number.
_NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)


class Blocks(NamedTuple):
    """All frames of queries and keys, in order; those beyond the last block were never recorded."""

    frames: Frames
    sizes: Frames


def as_array(value: Any) -> Array:
    """Return a numpy view of an array or a torch tensor (bfloat16 and smaller as float32)."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and str(tensor.dtype) not in _FLOATS:
            tensor = tensor.float()
        return np.asarray(tensor.numpy())
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "fiu":
        floating = value.data.astype(value.dtype if value.dtype.kind == "f" else np.float64)
        return np.asarray(np.where(np.ma.getmaskarray(value), np.nan, floating))  # not recorded
    return np.asarray(value)


def try_array(value: Any) -> Array:
    """Return a numpy view as `as_array` does; of what is no array an empty one of objects."""
    try:
        return as_array(value)
    except _NO_NUMBER:
        return np.empty((0, 0), object)


def read_fields(given: Given) -> dict[str, Any]:
    """Return the checked fields of a capture, of raw ones with clean provenance."""
    full, last = read_array(given, FULL), read_array(given, LAST)
    arrays = [array for array in (full, last) if array is not None]
    if not arrays:
        raise CaptureError(
            f"{given['source']}: neither {FULL} (heads, query, key) nor {LAST} (heads, key) is "
            f"there; {_describe_keys(given)}"
        )
    for axis, at, noun in (("head", 0, "heads"), ("key", -1, "key frames")):
        if arrays[0].shape[at] != arrays[-1].shape[at]:
            raise CaptureError(
                f"{given['source']}: {axis} counts disagree: {arrays[0].shape[at]} in {FULL} "
                f"{arrays[0].shape}, {arrays[1].shape[at]} in {LAST} {arrays[1].shape}; expected "
                f"the same {noun} in both"
            )
    check_num_heads(given["metadata"], len(arrays[0]), given["source"])
    sizes = read_frames(given, "block_sizes")
    last_frames = read_frames(given, "last_block_query_frames")
    keys = _read_axis(given, "key_frames", arrays[0].shape[-1], sizes)
    if full is not None:
        queries = _read_axis(given, "query_frames", full.shape[1], sizes)
    else:
        queries = read_frames(given, "query_frames") or last_frames or keys[-1:]
        _check_increasing(given, "query_frames", queries)
    blocks, odd = _fit_blocks(given, sizes, (queries, keys), arrays)
    axes = {side: read_axis(given, side, of) for side, of in (("query", queries), ("key", keys))}
    return {
        "layer_index": read_layer(given["layer_index"], given["source"]),
        FULL: full,
        LAST: last,
        "block_sizes": None if blocks is None else blocks.sizes,
        "query_frames": queries,
        "key_frames": keys,
        "last_block_query_frames": _fit_last(given, last_frames, queries, blocks),
        "statistic": _read_statistic(given["statistic"], given["source"]),
        "warnings": tuple(dict.fromkeys((*given["warnings"], *odd))),
        "_blocks": blocks,
        **{f"{side}_{part}": getattr(of, part) for side, of in axes.items() for part in _AXIS},
    }


def read_array(given: Given, name: str) -> Array | None:
    """Return one of the two arrays, floating and read-only; None where it is absent."""
    value, source = given[name], given["source"]
    if value is None:
        return None
    axes = ("heads", "query", "key") if name == FULL else ("heads", "key")
    expected = f"expected ({', '.join(axes)})"
    try:
        array = as_array(value)
    except _NO_NUMBER as error:
        raise CaptureError(
            f"{source}: {name} is not an array ({str(error).splitlines()[0]}), {expected}"
        ) from None
    if array.dtype.kind not in "fiu":
        found = f"has {_show(array.dtype)} values" if array.ndim else f"is {describe_value(value)}"
        raise CaptureError(
            f"{source}: {name} {found}, expected real numbers (float16 to float64), as a dense "
            "array (tensor.to_dense(), tensor.dequantize())"
        )
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
    if stated is not None and _read_int(stated) != heads:
        raise CaptureError(
            f"{source}: head counts disagree: num_heads says {_show(stated)}, the arrays hold "
            f"{heads}; expected the same number (correct or omit num_heads)"
        )


def _read_int(value: Any, kinds: str = "iuf") -> int | None:
    """Return an int from an int, a numpy or torch scalar, or a whole float; None from others."""
    number = try_array(value)
    if number.size != 1 or number.dtype.kind not in kinds:
        return None
    return int(number.item()) if float(number.item()).is_integer() else None


def _read_whole(value: Any, name: str, source: str, least: int) -> int:
    number = _read_int(value)
    if number is None or number < least:
        raise CaptureError(
            f"{source}: {name} is '{_show(value)}', expected a whole number, at least {least}"
        )
    return number


def read_layer(value: Any, source: str) -> int:
    """Return the layer number."""
    if value is None:
        raise CaptureError(
            f"{source}: layer_index is absent, expected a whole number; add it, or name the "
            "file layer<number> (layer3.pt)"
        )
    return _read_whole(value, "layer_index", source, 0)


def read_frames(given: Given, name: str) -> Frames | None:
    """Return the whole numbers of a list-like key; None where it is absent, or names no frame."""
    value, source = given[name], given["source"]
    if value is None:
        return None
    values = try_array(value)
    if values.ndim == 1 and len(values) > MAX_FRAMES:
        raise CaptureError(
            f"{source}: {name} lists {len(values):,} numbers, expected at most {MAX_FRAMES:,}"
        )
    numbers = tuple(map(_read_int, values)) if values.ndim == 1 else (None,)
    if None in numbers:
        raise CaptureError(f"{source}: {name} is {_show(value)}, expected a list of whole numbers")
    return numbers if numbers or name == "block_sizes" else None  # type: ignore[return-value]


def _read_axis(given: Given, name: str, length: int, sizes: Frames | None) -> Frames:
    """Return the frame numbers along an axis; 0, 1, 2, ... where absent."""
    frames = read_frames(given, name)
    if frames is None:
        return tuple(range(length))
    if len(frames) < length and sizes and frames == tuple(range(sum(sizes))):
        return tuple(range(length))  # the frames that were never recorded are not listed
    if len(frames) != length:
        raise CaptureError(
            f"{given['source']}: {name} lists {len(frames)} frames, but that axis has {length}; "
            "expected one frame number for each"
        )
    _check_increasing(given, name, frames)
    return frames


def _check_increasing(given: Given, name: str, frames: Frames) -> None:
    """Refuse frame numbers that are negative or do not increase."""
    if frames[0] < 0 or frames[-1] >= _MAX_FRAME or any(b <= a for a, b in pairwise(frames)):
        raise CaptureError(
            f"{given['source']}: {name} is {shorten_list(frames)}, expected frame numbers from 0 "
            f"that increase, below {_MAX_FRAME:,}, one for each entry of the axis"
        )


def _fit_blocks(
    given: Given,
    sizes: Frames | None,
    axes: tuple[Frames, Frames],
    arrays: Sequence[Array],
) -> tuple[Blocks | None, list[str]]:
    """Return the blocks over the frames of the axes, and what is odd about them."""
    source, frames = given["source"], tuple(sorted({*axes[0], *axes[1]}))
    odd: list[str] = []
    if sizes is None:
        per_block = given["metadata"].get("num_frame_per_block")
        if per_block is None:
            return None, odd
        size = _read_whole(per_block, "num_frame_per_block", source, 1)
        full, rest = divmod(len(frames), size)
        sizes = (size,) * full + (rest,) * (rest > 0)
        if rest and full:
            odd.append(
                f"{source}: {len(frames)} frames are not whole blocks of {size} "
                f"(num_frame_per_block); the last block is taken to be {rest} frames; store "
                "block_sizes to say otherwise"
            )
    if not sizes or min(sizes) < 1:
        raise _misfit(source, f"is [{shorten_list(sizes)}]", "frames in each block, at least 1")
    total = f"sum to {sum(sizes)} ({shorten_list(sizes)})"
    misfit = f"{total}, but there are {len(frames)} frames ({shorten_list(frames)})"
    if sum(sizes) > MAX_FRAMES:
        raise _misfit(source, total, f"at most {MAX_FRAMES:,} frames")
    if sum(sizes) > len(frames):
        if frames == tuple(range(len(frames))) or frames[-1] >= sum(sizes):
            raise _misfit(source, misfit, f"block sizes that sum to {len(frames)}")
        return Blocks(tuple(range(sum(sizes))), sizes), odd
    missing = frames[sum(sizes) :]
    if missing:
        queries, keys = (np.isin(axis, missing) for axis in axes)
        held = any(
            np.nan_to_num(part).any()
            for array in arrays
            for head in array  # one by one: a large capture is never held twice
            for part in (head[..., keys], head[queries] if array.ndim == 3 else head[:0])
        )
        if held and len(missing) >= max(sizes):  # real files carry few stale values
            raise _misfit(source, misfit, f"block sizes that sum to {len(frames)}")
        odd.append(
            f"{source}: block_sizes sum to {sum(sizes)}, but there are {len(frames)} frames; "
            f"frames {shorten_list(missing)} lie beyond the last block"
            f"{' and hold values that are not drawn' if held else ''}: "
            "they count as never recorded and stay unseen"
        )
    return Blocks(frames, sizes), odd


def _misfit(source: str, found: str, expected: str) -> CaptureError:
    return CaptureError(
        f"{source}: block_sizes {found}, expected {expected}; correct block_sizes, or omit them "
        "if every frame attends every frame"
    )


def _fit_last(
    given: Given, frames: Frames | None, queries: Frames, blocks: Blocks | None
) -> Frames:
    """Return the frames of the last rows, by default the last block's that are queries."""
    if frames is None:
        frames = queries[-1:]
        if blocks is not None:
            frames = blocks.frames[: sum(blocks.sizes)][-blocks.sizes[-1] :]
        if given[FULL] is not None:
            recorded = {*queries}
            frames = tuple(frame for frame in frames if frame in recorded) or queries[-1:]
    if len({*frames}) < len(frames):
        raise CaptureError(
            f"{given['source']}: last_block_query_frames is {shorten_list(frames)}, which names a "
            "frame twice, expected each query frame of the last block once"
        )
    known = {*(queries if given[LAST] is None else blocks.frames if blocks else frames)}
    unknown = [frame for frame in frames if frame not in known]
    if unknown:
        raise CaptureError(
            f"{given['source']}: last_block_query_frames names frame {unknown[0]}, expected some "
            f"of the query frames ({shorten_list(queries)})"
        )
    return frames


def _read_statistic(value: Any, source: str) -> str:
    if isinstance(value, str) and value in STATISTICS:
        return value
    raise CaptureError(
        f"{source}: statistic is '{_show(value)}', expected one of {', '.join(STATISTICS)}"
        f"{near_miss(_show(value), STATISTICS)}"
    )


def read_is_logits(value: Any, source: str) -> str:
    """Return the statistic that the key ``is_logits`` stands for."""
    flag = 1 if value is None else _read_int(value, "biuf")
    if flag not in (0, 1):
        raise CaptureError(f"{source}: is_logits is '{_show(value)}', expected True or False")
    return "logit" if flag else "mass"


def _show(value: Any) -> str:
    """Return a value of a file for a message."""
    return shorten_text(str(value), 60)


def describe_value(value: Any) -> str:
    """Return what kind of value a file holds, for a message."""
    if isinstance(value, str):
        return f"the text '{_show(value)}'"
    return f"{type(value).__name__} {getattr(value, 'shape', '')}".rstrip()


def read_provenance(given: Given) -> dict[str, Any]:
    """Return what is given of run, prompt, source and metadata, as text and a dictionary."""
    clean: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("run", "prompt", "source"):
            parts = value if isinstance(value, (list, tuple)) else [value]
            text = "" if value is None else " | ".join(map(str, parts))
            clean[name] = clean_name(text) if name == "run" else text
        elif name == "metadata":
            clean[name] = {key: kept for key, kept in (value or {}).items() if key not in KEYS}
    return clean


def _describe_keys(given: Given) -> str:
    """Return what keys there are instead, with the near miss of an array."""
    known = [name for name in ("is_logits", *LIST_KEYS) if given.get(name) is not None]
    names = [_show(key) for key in (*given["metadata"], *known)]
    for name in names[:200]:  # a file may have any number
        for wanted in (FULL, LAST):
            if near_miss(name, [wanted]):
                return f"there is {name!r}, did you mean {wanted!r}?"
    return f"there are {shorten_list(names)}" if names else "there is nothing like them"
