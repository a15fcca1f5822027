"""One layer's recorded frame attention -> the frozen, validated `Capture`.

Axes are always in the order heads, query, key, and query and key index frames.
A pair is *visible* when the model can attend it (keys up to the end of the
query's block) and it was recorded (not NaN). Everything below the boundary may
rely on what is checked here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.blocks import BlockLayout, layout_blocks, split_into_blocks
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import (
    FULL,
    LAST,
    Array,
    check_head_counts,
    check_increasing,
    describe_keys,
    read_array,
    read_axis,
    read_frames,
    read_int,
    read_layer,
    read_statistic,
    read_text,
)
from headgrid.errors import CaptureError
from headgrid.text import clean_name, shorten_list, shorten_text

_SCHEMA = {
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

#: Beyond this, sums and spans of float64 overflow; no attention is near it.
_MAX_VALUE = 1e300


@dataclass(frozen=True, eq=False, repr=False)
class Capture:
    """One layer's frame attention, every head.

    Build one with `Capture.from_array` or `headgrid.load_capture`; change one
    with `Capture.replace`.

    Attributes
    ----------
    layer_index : int
        Number of the layer, 0 or more.
    full_frame_attention : array or None, shape (heads, query, key), floating
        The statistic of every pair of frames. None: only the last block's row
        was recorded, and only the per-head figure is possible.
    last_block_frame_attention : array, shape (heads, key), floating
        The statistic of the last block's queries against every key frame; the
        mean over those query rows of the full matrix where it was not given.
    block_sizes : tuple of int or None
        Frames generated together, block by block. None: every pair is attendable.
    query_frames, key_frames : tuple of int
        The frame numbers along the axes, increasing.
    last_block_query_frames : tuple of int
        The frame numbers that the last-block row is a mean over.
    statistic : str
        What the values are, one of `STATISTICS`.
    run : str
        Name of the run (prompt or seed) this layer belongs to; may be empty. What is
        no text in a folder's name is U+FFFD, as no table could hold it.
    prompt : str
        The prompt, as recorded; may be empty, and may hold any character.
    metadata : mapping
        Every other key of the file, kept as it was.
    source : str
        Where the capture came from, for messages.
    """

    layer_index: int
    full_frame_attention: Array | None
    last_block_frame_attention: Array
    block_sizes: tuple[int, ...] | None
    query_frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    last_block_query_frames: tuple[int, ...]
    statistic: str = "logit"
    run: str = ""
    prompt: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = "capture"
    warnings: tuple[str, ...] = ()
    _layout: BlockLayout | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", clean_name(self.run))

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike | None = None,
        *,
        last_block: npt.ArrayLike | None = None,
        layer: int = 0,
        block_sizes: Sequence[int] | None = None,
        query_frames: Sequence[int] | None = None,
        key_frames: Sequence[int] | None = None,
        last_block_query_frames: Sequence[int] | None = None,
        statistic: str = "logit",
        run: str = "",
        prompt: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Capture:
        """Make a capture of arrays one already has.

        Parameters
        ----------
        array : array, shape (heads, query, key), optional
            The statistic of every pair of frames (numpy, or a torch tensor);
            NaN where nothing was recorded.
        last_block : array, shape (heads, key), optional
            The last block's row; by default the mean over the last block's
            query rows of ``array``. One of the two arrays is needed.
        layer : int
            Number of the layer.
        block_sizes : sequence of int, optional
            Frames in each block; by default every pair is attendable.
        query_frames, key_frames : sequence of int, optional
            Frame numbers along the axes; by default 0, 1, 2, ...
        last_block_query_frames : sequence of int, optional
            By default the frames of the last block (of the last frame without blocks).
        statistic : str
            ``"logit"`` (mean of q·k·scale, before the softmax), ``"mass"``
            (attention after the softmax), or another of `STATISTICS`.
        run, prompt, metadata
            Provenance.

        Returns
        -------
        Capture

        Raises
        ------
        CaptureError
            Where shapes, types or values do not fit; the text says which.

        Examples
        --------
        >>> import numpy as np
        >>> capture = Capture.from_array(np.eye(4)[None] * 3, block_sizes=[2, 2])
        >>> capture
        <Capture layer 0: logit, 1 head, 4 query x 4 key frames, blocks [2, 2]>
        >>> capture.last_block_frame_attention
        array([[0. , 0. , 1.5, 1.5]])
        """
        data: dict[str, Any] = dict(metadata or {})
        data.update(
            {
                "layer_index": layer,
                FULL: array,
                LAST: last_block,
                "block_sizes": block_sizes,
                "query_frames": query_frames,
                "key_frames": key_frames,
                "last_block_query_frames": last_block_query_frames,
                "statistic": statistic,
                "prompt": prompt,
            }
        )
        return cls.from_dict(data, source="array", run=run)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        source: str = "capture",
        layer: int | None = None,
        run: str = "",
    ) -> Capture:
        """Make a capture of a dictionary with the keys of the file schema.

        Parameters
        ----------
        data : mapping
            See the README for the keys. Keys that headgrid does not know are
            kept in ``metadata``.
        source : str
            Name of the file, for messages.
        layer : int, optional
            Layer number to use where ``data`` has no ``layer_index``.
        run : str
            Name of the run.

        Raises
        ------
        CaptureError
            Where shapes, types or values do not fit; the text says which.
        """
        return _read_schema(data, source, layer, run)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of the file schema, arrays as numpy arrays."""
        data: dict[str, Any] = dict(self.metadata)
        data["layer_index"] = self.layer_index
        if self.full_frame_attention is not None:
            data[FULL] = self.full_frame_attention
        data[LAST] = self.last_block_frame_attention
        if self.block_sizes is not None:
            data["block_sizes"] = list(self.block_sizes)
        data["query_frames"] = list(self.query_frames)
        data["key_frames"] = list(self.key_frames)
        data["last_block_query_frames"] = list(self.last_block_query_frames)
        data["is_logits"] = self.is_logits
        data["statistic"] = self.statistic
        data["prompt"] = self.prompt
        return data

    def replace(self, **changes: Any) -> Capture:
        """Return a copy with some of run, prompt, metadata, source, layer_index changed.

        Raises
        ------
        CaptureError
            For a field that is bound to the arrays; make a new capture instead.
        """
        free = {"run", "prompt", "metadata", "source", "layer_index"}
        for name in changes:
            if name not in free:
                raise CaptureError(
                    f"{name} can not be replaced, expected one of {', '.join(sorted(free))}; "
                    "make a new capture with Capture.from_array"
                )
        if "layer_index" in changes:
            changes["layer_index"] = read_layer(changes, None, self.source)
        for name in ("run", "prompt", "source"):
            if changes.get(name, "") is None:
                changes[name] = ""
        return replace(self, **changes)

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return int(self.last_block_frame_attention.shape[0])

    @property
    def is_logits(self) -> bool:
        """Whether the values live on the logit scale (signed, zero in the middle)."""
        return "logit" in self.statistic

    @cached_property
    def attendable(self) -> npt.NDArray[np.bool_]:
        """Mask [query, key] of the pairs that the model can attend, recorded or not."""
        if self._layout is None:
            return np.ones((len(self.query_frames), len(self.key_frames)), dtype=bool)
        return self._layout.attendable(self.query_frames, self.key_frames)

    @cached_property
    def _last_attendable(self) -> npt.NDArray[np.bool_]:
        if self._layout is None:
            return np.ones(len(self.key_frames), dtype=bool)
        mask = self._layout.attendable(self.last_block_query_frames, self.key_frames)
        return np.asarray(mask.any(axis=0))

    def head_matrix(self, head: int) -> Array:
        """Return one head's matrix [query, key] as float32 or float64, NaN where unseen.

        Made anew on each call, so that a large capture is never held twice.

        Raises
        ------
        CaptureError
            Where the capture holds no full matrix.
        """
        if self.full_frame_attention is None:
            raise CaptureError(
                f"{self.source}: {FULL} is absent, expected an array (heads, query, key); only "
                "the per-head figure is possible without it (--figure perhead)"
            )
        matrix = _at_least_float32(self.full_frame_attention[head])
        # A signalling NaN becomes a quiet one: it would warn wherever it is converted.
        seen = self.attendable & ~np.isnan(matrix)
        return np.where(seen, matrix, np.asarray(np.nan, dtype=matrix.dtype))

    @cached_property
    def last_block_rows(self) -> Array:
        """The last block's rows [heads, key] as float32 or float64, NaN where unseen."""
        rows = _at_least_float32(self.last_block_frame_attention)
        seen = self._last_attendable & ~np.isnan(rows)
        return np.where(seen, rows, np.asarray(np.nan, dtype=rows.dtype))

    @cached_property
    def _extents(self) -> list[tuple[float, float, int]]:
        """Smallest and largest visible value and their number, of each head."""
        heads = range(self.num_heads)
        if self.full_frame_attention is None:
            return [_extent(self.last_block_rows[head]) for head in heads]
        return [_extent(self.head_matrix(head)) for head in heads]

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value of the full matrix (of the rows without one)."""
        lows, highs, _ = zip(*self._extents, strict=True)
        return min(lows), max(highs)

    def head_range(self, head: int) -> tuple[float, float]:
        """Return the smallest and largest visible value of one head, as in `value_range`."""
        low, high, _ = self._extents[head]
        return low, high

    def head_visible(self, head: int) -> int:
        """Return the number of visible pairs of one head; 0 without a full matrix."""
        return 0 if self.full_frame_attention is None else self._extents[head][2]

    @property
    def num_visible(self) -> int:
        """Number of visible (head, query, key) triples; 0 without a full matrix."""
        if self.full_frame_attention is None:
            return 0
        return sum(count for _, _, count in self._extents)

    @cached_property
    def value_sketch(self) -> QuantileSketch:
        """Sketch of the visible values of the full matrix (of the rows without one).

        Its ``quantile(0.99)`` is within 2**-12 of the exact one, and sketches of
        many captures merge into that of all their values.
        """
        if self.full_frame_attention is None:
            return QuantileSketch.of(self.last_block_rows)
        heads = (QuantileSketch.of(head[self.attendable]) for head in self.full_frame_attention)
        return reduce(QuantileSketch.merge, heads)

    def __repr__(self) -> str:
        heads = f"{self.num_heads} head{'s' if self.num_heads != 1 else ''}"
        shape = f"{len(self.query_frames)} query x {len(self.key_frames)} key frames"
        if self.full_frame_attention is None:
            shape = f"{len(self.key_frames)} key frames, last block only"
        blocks = f", blocks [{shorten_list(self.block_sizes)}]" if self.block_sizes else ""
        run = f"{self.run}, " if self.run else ""
        return (
            f"<Capture {run}layer {self.layer_index}: {self.statistic}, {heads}, {shape}{blocks}>"
        )

    def _repr_html_(self) -> str:
        from headgrid.web.cards import show_capture

        return show_capture(self)


def expect_capture(found: object) -> None:
    """Refuse what is no capture."""
    if not isinstance(found, Capture):
        raise CaptureError(
            f"found {type(found).__name__}, expected one Capture; make it with load_capture(path) "
            "or Capture.from_array(array), and draw several one by one"
        )


def _read_schema(data: Mapping[str, Any], source: str, layer: int | None, run: str) -> Capture:
    if not isinstance(data, Mapping):
        raise CaptureError(
            f"{source}: found {type(data).__name__}, expected a dictionary with {FULL} "
            f"(heads, query, key) or {LAST} (heads, key)"
        )
    given = {key: value for key, value in data.items() if value is not None}
    full = read_array(given, FULL, ("heads", "query", "key"), source)
    last = read_array(given, LAST, ("heads", "key"), source)
    if full is None and last is None:
        raise CaptureError(
            f"{source}: neither {FULL} (heads, query, key) nor {LAST} (heads, key) is there; "
            f"{describe_keys(given, source)}"
        )
    check_head_counts(full, last, given, source)
    keys = (full if full is not None else last).shape[-1]  # type: ignore[union-attr]
    blocks = read_frames(given, "block_sizes", source)
    key_frames = read_axis(given, "key_frames", keys, blocks, source)
    last_frames = read_frames(given, "last_block_query_frames", source)
    if full is not None:
        query_frames = read_axis(given, "query_frames", full.shape[1], blocks, source)
    else:
        query_frames = read_frames(given, "query_frames", source) or last_frames or key_frames[-1:]
        check_increasing(query_frames, "query_frames", source)
    warnings: list[str] = []
    layout = _fit_blocks(given, blocks, full, last, query_frames, key_frames, source, warnings)
    if last_frames is None:
        last_frames = layout.last_block() if layout is not None else query_frames[-1:]
        if full is not None:
            known = {*query_frames}
            last_frames = tuple(f for f in last_frames if f in known) or query_frames[-1:]
    _check_last_frames(last_frames, layout, query_frames, last is None, source)
    capture = Capture(
        layer_index=read_layer(given, layer, source),
        full_frame_attention=full,
        last_block_frame_attention=np.empty((0, 0)) if last is None else last,
        block_sizes=None if layout is None else layout.block_sizes,
        query_frames=query_frames,
        key_frames=key_frames,
        last_block_query_frames=last_frames,
        statistic=read_statistic(given, source),
        run=run,
        prompt=read_text(given, "prompt"),
        metadata={key: value for key, value in data.items() if key not in _SCHEMA},
        source=source,
        warnings=tuple(warnings),
        _layout=layout,
    )
    if last is None:
        capture = replace(capture, last_block_frame_attention=_mean_of_last_rows(capture))
    _check_values(capture)
    return capture


def _at_least_float32(values: Array) -> Array:
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values


def _fit_blocks(
    data: Mapping[str, Any],
    blocks: tuple[int, ...] | None,
    full: Array | None,
    last: Array | None,
    query_frames: tuple[int, ...],
    key_frames: tuple[int, ...],
    source: str,
    warnings: list[str],
) -> BlockLayout | None:
    frames = tuple(sorted({*query_frames, *key_frames}))
    if blocks is None:
        per_block = data.get("num_frame_per_block")
        if per_block is None:
            return None
        try:
            per_block = read_int(per_block)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            per_block = 0
        if per_block < 1:
            shown = shorten_text(repr(data["num_frame_per_block"]), 60)
            raise CaptureError(
                f"{source}: num_frame_per_block is {shown}, expected a whole number, at least 1"
            )
        blocks = split_into_blocks(len(frames), per_block)
        if blocks[-1] != per_block and len(blocks) > 1:
            warnings.append(
                f"{source}: {len(frames)} frames are not whole blocks of {per_block} "
                f"(num_frame_per_block); the last block is taken to be {blocks[-1]} frames; "
                "store block_sizes to say otherwise"
            )
    holds_data = np.zeros(len(frames), dtype=bool)
    if sum(blocks) < len(frames):  # only then it matters
        positions = {frame: position for position, frame in enumerate(frames)}
        for array in (full, last):
            if array is not None:
                _mark_data(holds_data, array, query_frames, key_frames, positions)
    layout = layout_blocks(source, blocks, frames, holds_data)
    if layout.missing:
        lost = " and hold values that are not drawn" if _any_of(holds_data, layout) else ""
        warnings.append(
            f"{source}: block_sizes sum to {sum(blocks)}, but there are {len(frames)} frames; "
            f"frames {shorten_list(layout.missing)} lie beyond the last block{lost}: "
            "they count as never recorded and stay unseen"
        )
    return layout


def _any_of(holds_data: npt.NDArray[np.bool_], layout: BlockLayout) -> bool:
    return bool(holds_data[-len(layout.missing) :].any())


def _mark_data(
    holds_data: npt.NDArray[np.bool_],
    array: Array,
    query_frames: tuple[int, ...],
    key_frames: tuple[int, ...],
    positions: Mapping[int, int],
) -> None:
    """Set the flag of every frame that has a value other than 0 and NaN in ``array``."""
    keys = np.zeros(array.shape[-1], dtype=bool)
    queries = np.zeros(array.shape[1] if array.ndim == 3 else 0, dtype=bool)
    for head in array:
        recorded = (head != 0) & ~np.isnan(head)
        keys |= recorded.reshape(-1, recorded.shape[-1]).any(axis=0)
        if queries.size:
            queries |= recorded.any(axis=1)
    for frames, flags in ((key_frames, keys), (query_frames, queries)):
        for frame, flag in zip(frames, flags, strict=False):
            holds_data[positions[frame]] |= flag


def _check_last_frames(
    last_frames: tuple[int, ...],
    layout: BlockLayout | None,
    query_frames: tuple[int, ...],
    derive: bool,
    source: str,
) -> None:
    if len({*last_frames}) < len(last_frames):
        raise CaptureError(
            f"{source}: last_block_query_frames is {shorten_list(last_frames)}, which names a "
            "frame twice, expected each query frame of the last block once"
        )
    known = set(query_frames) if derive or layout is None else {*layout.frames}
    unknown = [frame for frame in last_frames if frame not in known]
    if unknown and (derive or layout is not None):
        raise CaptureError(
            f"{source}: last_block_query_frames names frame {unknown[0]}, expected some of the "
            f"query frames ({shorten_list(query_frames)})"
        )


def _mean_of_last_rows(capture: Capture) -> Array:
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


def _extent(values: Array) -> tuple[float, float, int]:
    """Return the smallest and largest number that is not NaN, and how many there are."""
    count = int(values.size - np.count_nonzero(np.isnan(values)))
    if not count:
        return math.inf, -math.inf, 0
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None)), count


def _check_values(capture: Capture) -> None:
    """Refuse infinities in visible cells, and heads without one visible cell."""
    name = LAST if capture.full_frame_attention is None else FULL
    empty = [head for head, (_, _, count) in enumerate(capture._extents) if not count]
    if empty:
        raise CaptureError(_no_cell(capture, name, empty))
    largest = max(max(-low, high) for low, high, _ in capture._extents)
    if math.isinf(largest):
        _refuse_infinities(capture)
    elif largest > _MAX_VALUE:
        raise CaptureError(_too_large(capture, name, largest))
    rows = capture.last_block_rows
    found = np.argwhere(np.isinf(rows))
    if len(found):
        where = "; ".join(f"head {h}, key {capture.key_frames[k]}" for h, k in found[:3])
        raise CaptureError(_infinite(capture, LAST, len(found), where))
    largest = float(np.fmax.reduce(np.abs(rows), axis=None, initial=0.0))
    if largest > _MAX_VALUE:
        raise CaptureError(_too_large(capture, LAST, largest))


def _refuse_infinities(capture: Capture) -> None:
    count = 0
    first: list[str] = []
    for head in range(capture.num_heads if capture.full_frame_attention is not None else 0):
        found = np.argwhere(np.isinf(capture.head_matrix(head)))
        count += len(found)
        first += [
            f"head {head}, query {capture.query_frames[q]}, key {capture.key_frames[k]}"
            for q, k in found[: 3 - len(first)]
        ]
    if count:
        raise CaptureError(_infinite(capture, FULL, count, "; ".join(first)))


def _too_large(capture: Capture, name: str, largest: float) -> str:
    return (
        f"{capture.source}: {name} has values up to {largest:.3g}, expected magnitudes up to "
        f"{_MAX_VALUE:g}; store NaN where nothing was recorded"
    )


def _infinite(capture: Capture, name: str, count: int, where: str) -> str:
    more = ", ..." if count > 3 else ""
    return (
        f"{capture.source}: {name} has {count} infinite value{'s' if count > 1 else ''} in visible "
        f"cells ({where}{more}), expected finite numbers; store NaN where nothing was recorded, "
        "or give block_sizes if the future is masked"
    )


def _no_cell(capture: Capture, name: str, heads: list[int]) -> str:
    which = f"head{'s' if len(heads) > 1 else ''} {shorten_list(heads)}"
    return (
        f"{capture.source}: {name} has no visible value in {len(heads)} of {capture.num_heads} "
        f"heads ({which}: every value is NaN or masked), expected at least one finite value in "
        "every head"
    )
