"""One layer's recorded frame attention -> the frozen, validated `Capture`.

Axes are always in the order heads, query, key. A pair of frames is *visible* when the model can
attend it (keys up to the end of the query's block) and it was recorded (not NaN).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture import schema
from headgrid.capture.files import let_go
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import FULL, LAST, LIST_KEYS, Array, Blocks, Frames
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError
from headgrid.notebook import Card
from headgrid.text import shorten_list

#: Beyond this, sums and spans of float64 overflow; no attention is near it.
_MAX_VALUE = 1e300


@dataclass(frozen=True, eq=False, repr=False)
class Capture(Card):
    """One layer's frame attention, every head.

    Make one with `Capture.from_array` or `headgrid.load_capture`.

    Attributes
    ----------
    layer_index : int
        From 0.
    full_frame_attention : array or None, shape (heads, query, key), floating
        The statistic of every pair of frames. None: there is the last block's row alone, and
        only the per-head figure is possible.
    last_block_frame_attention : array, shape (heads, key), floating
        The statistic of the last block's queries against every key frame; where it was not
        given the mean over those query rows of the full matrix.
    block_sizes : tuple of int or None
        Frames generated together, block by block. None: every pair is attendable.
    query_frames, key_frames : tuple of int
        Frame numbers along the axes, increasing.
    last_block_query_frames : tuple of int
        Frame numbers that the last-block row is a mean over.
    statistic : str
        What the values are, one of `STATISTICS`.
    run : str
        Name of the run (prompt or seed); what is no text in a folder's name is U+FFFD.
    prompt : str
        As recorded; may hold any character.
    metadata : mapping
        Every other key of the file, kept as it was.
    source : str
        Where the capture came from, for messages.
    warnings : tuple of str
        What is odd about it and how it was handled.

    Raises
    ------
    CaptureError
        Where shapes, types or values do not fit; the text says which.

    Examples
    --------
    >>> capture = Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]], layer=3, block_sizes=[1, 1])
    >>> capture.last_block_query_frames, capture.num_visible, capture.value_range
    ((1,), 3, (1.0, 4.0))
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
    _blocks: Blocks | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        vars(self).update(schema.read_provenance(vars(self)))
        vars(self).update(schema.read_fields(vars(self)))  # frozen is what is checked
        if vars(self)[LAST] is None:
            vars(self)[LAST] = self._mean_of_last_rows(vars(self)[FULL])
        self._check_values()

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
            The statistic of every pair of frames (numpy, or a torch tensor); NaN where nothing
            was recorded.
        last_block : array, shape (heads, key), optional
            The last block's row; by default the mean over the last block's query rows of
            ``array``. One of the two arrays is needed.
        layer : int
        block_sizes : sequence of int, optional
            Frames in each block; by default every pair is attendable.
        query_frames, key_frames : sequence of int, optional
            Frame numbers along the axes; by default 0, 1, 2, ...
        last_block_query_frames : sequence of int, optional
            By default the frames of the last block (the last frame without blocks).
        statistic : str
            ``"logit"`` (mean of q·k·scale, before the softmax), ``"mass"`` (attention after the
            softmax), or another of `STATISTICS`.
        run, prompt, metadata
            Provenance.

        Raises
        ------
        CaptureError
            Where shapes, types or values do not fit; the text says which.

        Examples
        --------
        >>> capture = Capture.from_array(np.eye(4)[None] * 3, block_sizes=[2, 2])
        >>> capture
        <Capture layer 0: logit, 1 head, 4 query x 4 key frames, blocks [2, 2]>
        >>> capture.last_block_frame_attention
        array([[0. , 0. , 1.5, 1.5]])
        """
        fields: tuple[Any, ...] = (layer, array, last_block, block_sizes, query_frames, key_frames)
        fields += (last_block_query_frames, statistic, run, prompt, metadata, "array")
        return cls(*fields)

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
            See the README for the keys. All that headgrid does not know is ``metadata``.
        source, run : str
            Names of the file, for messages, and of the run.
        layer : int, optional
            Used where ``data`` has no ``layer_index``.

        Raises
        ------
        CaptureError
            Where shapes, types or values do not fit; the text says which.

        Examples
        --------
        >>> Capture.from_dict({"full_frame_attention": [[[0.5]]], "is_logits": False}, layer=3)
        <Capture layer 3: mass, 1 head, 1 query x 1 key frames>
        """
        if not isinstance(data, Mapping):
            raise CaptureError(
                f"{source}: found {schema.describe_value(data)}, expected a dictionary with "
                f"{FULL} (heads, query, key) or {LAST} (heads, key)"
            )
        fields: dict[str, Any] = {name: data.get(name) for name in schema.KEYS - {"is_logits"}}
        if fields["layer_index"] is None:
            fields["layer_index"] = layer
        if fields["statistic"] is None:
            fields["statistic"] = schema.read_is_logits(data.get("is_logits"), source)
        return cls(**fields, metadata=data, source=source, run=run)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of the file schema, arrays as numpy arrays.

        Examples
        --------
        >>> data = Capture.from_array([[[1.0]]], layer=3).to_dict()
        >>> data["layer_index"], data["key_frames"], data["full_frame_attention"].shape
        (3, [0], (1, 1, 1))
        """
        names = ("layer_index", FULL, LAST, *LIST_KEYS, "is_logits", "statistic", "prompt")
        values = {name: getattr(self, name) for name in names}
        values |= {name: list(values[name]) for name in LIST_KEYS if values[name] is not None}
        return {**self.metadata, **{k: v for k, v in values.items() if v is not None}}

    def replace(self, **changes: Any) -> Capture:
        """Return a copy with some of run, prompt, metadata, source, layer_index changed.

        Raises
        ------
        CaptureError
            For a field that is bound to the arrays; make a new capture instead.

        Examples
        --------
        >>> Capture.from_array([[[1.0]]]).replace(run="run_000", layer_index=3)
        <Capture run_000, layer 3: logit, 1 head, 1 query x 1 key frames>
        """
        for name in changes.keys() - {"layer_index", "metadata", "prompt", "run", "source"}:
            raise CaptureError(
                f"{name} can not be replaced, expected one of layer_index, metadata, prompt, run, "
                "source; make a new capture with Capture.from_array"
            )
        clean = schema.read_provenance(changes)
        if "layer_index" in changes:
            clean["layer_index"] = schema.read_layer(changes["layer_index"], self.source)
        schema.check_num_heads(clean.get("metadata", {}), self.num_heads, self.source)
        copied = copy.copy(self)
        vars(copied).update(clean)
        return copied

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return len(self.last_block_frame_attention)

    @property
    def is_logits(self) -> bool:
        """Whether the values live on the logit scale: signed, zero in the middle."""
        return "logit" in STATISTICS[self.statistic].base

    @cached_property
    def attendable(self) -> npt.NDArray[np.bool_]:
        """Mask [query, key] of the pairs that the model can attend, recorded or not."""
        return self._attendable_by(self.query_frames)

    def _attendable_by(self, query_frames: Frames) -> npt.NDArray[np.bool_]:
        if self._blocks is None:
            return np.ones((len(query_frames), len(self.key_frames)), dtype=bool)
        return self._blocks.attendable(query_frames, self.key_frames)

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
        matrix = _hide(self.full_frame_attention[head], self.attendable)
        let_go(self.full_frame_attention)
        return matrix

    @cached_property
    def last_block_rows(self) -> Array:
        """The last block's rows [heads, key] as float32 or float64, NaN where unseen."""
        attendable = self._attendable_by(self.last_block_query_frames).any(axis=0)
        return _hide(self.last_block_frame_attention, np.asarray(attendable))

    @cached_property
    def _extents(self) -> list[tuple[float, float, int]]:
        """Smallest and largest visible value and their number, of each head."""
        if self.full_frame_attention is None:
            return list(map(extent, self.last_block_rows))
        return [extent(self.head_matrix(head)) for head in range(self.num_heads)]

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value of the full matrix (of the rows without one)."""
        lows, highs, _ = zip(*self._extents, strict=True)
        return min(lows), max(highs)

    def head_range(self, head: int) -> tuple[float, float]:
        """Return the smallest and largest visible value of one head; (inf, -inf) of none."""
        return self._extents[head][:2]

    def head_visible(self, head: int) -> int:
        """Return the number of visible pairs of one head; 0 without a full matrix."""
        return 0 if self.full_frame_attention is None else self._extents[head][2]

    @property
    def num_visible(self) -> int:
        """Number of visible (head, query, key) triples; 0 without a full matrix."""
        return sum(self.head_visible(head) for head in range(self.num_heads))

    @cached_property
    def value_sketch(self) -> QuantileSketch:
        """Sketch of the visible values of the full matrix (of the rows without one).

        Its quantiles are within 2**-12 of the exact ones; those of many captures merge.
        """
        if self.full_frame_attention is None:
            return QuantileSketch.of(self.last_block_rows)
        heads = (QuantileSketch.of(self.head_matrix(head)) for head in range(self.num_heads))
        return reduce(QuantileSketch.merge, heads)

    def _mean_of_last_rows(self, full: Array) -> Array:
        """Mean over the last block's query rows, of what is visible, [heads, key]."""
        rows = np.searchsorted(self.query_frames, self.last_block_query_frames)
        means = np.full((len(full), len(self.key_frames)), np.nan)
        for head in range(len(means)):
            # Infinities are refused afterwards, by name; NaN of the signalling kind is NaN.
            with np.errstate(over="ignore", invalid="ignore"):
                block = full[head][rows].astype(np.float64)
                seen = self.attendable[rows] & ~np.isnan(block)
                totals = np.where(seen, block, 0.0).sum(axis=0)
            np.divide(totals, seen.sum(axis=0), out=means[head], where=seen.any(axis=0))
        return means

    def _check_values(self) -> None:
        """Refuse infinities in visible cells, and a capture without one; note what else is odd."""
        first = LAST if self.full_frame_attention is None else FULL
        for name, extents in ((first, self._extents), (LAST, [extent(self.last_block_rows)])):
            largest = max(max(-low, high) for low, high, _ in extents)
            if largest <= _MAX_VALUE:
                continue
            values_of = self.head_matrix if name == FULL else self.last_block_rows.__getitem__
            heads = (values_of(head).astype(np.float64) for head in range(self.num_heads))
            cells = np.stack([np.abs(values) > _MAX_VALUE for values in heads])
            count = np.count_nonzero(cells)
            head, *place = np.unravel_index(cells.argmax(), cells.shape)
            axes = [("query", self.query_frames), ("key", self.key_frames)][-len(place) :]
            at = ", ".join(f"{axis} {of[i]}" for (axis, of), i in zip(axes, place, strict=True))
            found = f"values up to {largest:.3g}"
            if largest == math.inf:
                found = f"{count} infinite value{'s' if count > 1 else ''} in visible cells"
            raise CaptureError(
                f"{self.source}: {name} has {found} (head {head}, {at}"
                f"{', ...' if count > 1 else ''}), expected magnitudes up to {_MAX_VALUE:g}; store "
                "NaN where nothing was recorded, or give block_sizes if the future is masked"
            )
        odd, empty = [], [head for head, (_, _, count) in enumerate(self._extents) if not count]
        found = f"{self.source}: {first} has no visible value in {len(empty)} of {self.num_heads} "
        found += f"heads (head {shorten_list(empty)}: every value is NaN or masked)"
        if len(empty) == self.num_heads:
            raise CaptureError(f"{found}, expected at least one finite value")
        if empty:
            odd.append(f"{found}; their panels stay empty, and they have no sink score")
        if self.value_range[0] < 0 and self.statistic in ("mass", "mass_mean", "mass_std"):
            found = f"{self.source}: {first} has values down to {self.value_range[0]:.3g}"
            odd.append(f"{found}, but mass is never negative; correct is_logits or statistic")
        vars(self)["warnings"] = tuple(dict.fromkeys((*self.warnings, *odd)))

    def __repr__(self) -> str:
        heads = f"{self.num_heads} head{'s' if self.num_heads != 1 else ''}"
        shape = f"{len(self.query_frames)} query x {len(self.key_frames)} key frames"
        if self.full_frame_attention is None:
            shape = f"{len(self.key_frames)} key frames, last block only"
        blocks = f", blocks [{shorten_list(self.block_sizes)}]" if self.block_sizes else ""
        name = f"{self.run}, layer" if self.run else "layer"
        return f"<Capture {name} {self.layer_index}: {self.statistic}, {heads}, {shape}{blocks}>"


def _hide(values: Array, attendable: npt.NDArray[np.bool_]) -> Array:
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


def expect_capture(found: object) -> None:
    """Refuse what is no capture."""
    if not isinstance(found, Capture):
        raise CaptureError(
            f"found {type(found).__name__}, expected one Capture; make it with load_capture(path) "
            "or Capture.from_array(array), and draw several one by one"
        )
