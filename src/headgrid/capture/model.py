"""One layer's recorded frame attention -> the frozen, validated `Capture`.

Axes are always in the order heads, query, key, and query and key index frames.
A pair is *visible* when the model can attend it (keys up to the end of the
query's block) and it was recorded (not NaN). Everything below the boundary may
rely on what is checked here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture import schema
from headgrid.capture.blocks import BlockLayout, fit_blocks
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import FULL, LAST, Array
from headgrid.capture.statistic import STATISTICS
from headgrid.capture.visible import check_values, extent, hide, mean_of_last_rows
from headgrid.errors import CaptureError
from headgrid.notebook import Card
from headgrid.text import clean_name, shorten_list


@dataclass(frozen=True, eq=False, repr=False)
class Capture(Card):
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
    _layout: BlockLayout | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._set(**self._clean_provenance(vars(self)))
        full, last = schema.read_arrays(vars(self), self.source)
        frames = schema.read_frame_numbers(vars(self), full, last, self.source)
        blocks: Sequence[int] | int | None = frames["block_sizes"]
        if blocks is None:
            blocks = schema.read_frames_per_block(self.metadata, self.source)
        arrays = [array for array in (full, last) if array is not None]
        axes = frames["query_frames"], frames["key_frames"]
        layout, odd = fit_blocks(self.source, blocks, axes, arrays)
        frames["block_sizes"] = None if layout is None else layout.block_sizes
        frames["last_block_query_frames"] = schema.read_last_frames(
            frames, layout, full, last, self.source
        )
        self._set(
            **frames,
            full_frame_attention=full,
            layer_index=schema.read_layer(self.layer_index, self.source),
            statistic=schema.read_statistic(self.statistic, self.source),
            warnings=(*self.warnings, *(text for text in odd if text not in self.warnings)),
            _layout=layout,
        )
        self._set(last_block_frame_attention=mean_of_last_rows(self) if last is None else last)
        check_values(self)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _clean_provenance(self, given: Mapping[str, Any]) -> dict[str, Any]:
        read: dict[str, Callable[[Any], Any]] = {
            "run": lambda value: clean_name(schema.read_text(value)),
            "prompt": schema.read_text,
            "source": schema.read_text,
            "metadata": schema.read_metadata,
        }
        return {name: clean(given[name]) for name, clean in read.items() if name in given}

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
        data = {
            **(metadata or {}),
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

        Examples
        --------
        >>> Capture.from_dict({"full_frame_attention": [[[0.5]]], "is_logits": False}, layer=3)
        <Capture layer 3: mass, 1 head, 1 query x 1 key frames>
        """
        if not isinstance(data, Mapping):
            raise CaptureError(
                f"{source}: found {type(data).__name__} {getattr(data, 'shape', '')}".rstrip()
                + f", expected a dictionary with {FULL} (heads, query, key) or {LAST} (heads, key)"
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
        data: dict[str, Any] = dict(self.metadata)
        data["layer_index"] = self.layer_index
        if self.full_frame_attention is not None:
            data[FULL] = self.full_frame_attention
        data[LAST] = self.last_block_frame_attention
        for name in ("block_sizes", "query_frames", "key_frames", "last_block_query_frames"):
            if getattr(self, name) is not None:
                data[name] = list(getattr(self, name))
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

        Examples
        --------
        >>> Capture.from_array([[[1.0]]]).replace(run="run_000", layer_index=3)
        <Capture run_000, layer 3: logit, 1 head, 1 query x 1 key frames>
        """
        free = ("layer_index", "metadata", "prompt", "run", "source")
        for name in changes:
            if name not in free:
                raise CaptureError(
                    f"{name} can not be replaced, expected one of {', '.join(free)}; "
                    "make a new capture with Capture.from_array"
                )
        clean = self._clean_provenance(changes)
        if "layer_index" in changes:
            clean["layer_index"] = schema.read_layer(changes["layer_index"], self.source)
        if "metadata" in clean:
            schema.check_num_heads(clean["metadata"], self.num_heads, self.source)
        copied = copy.copy(self)
        copied._set(**clean)
        return copied

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return int(self.last_block_frame_attention.shape[0])

    @property
    def is_logits(self) -> bool:
        """Whether the values live on the logit scale (signed, zero in the middle)."""
        return "logit" in STATISTICS[self.statistic].base

    @cached_property
    def attendable(self) -> npt.NDArray[np.bool_]:
        """Mask [query, key] of the pairs that the model can attend, recorded or not."""
        return self._attendable_by(self.query_frames)

    def _attendable_by(self, query_frames: Sequence[int]) -> npt.NDArray[np.bool_]:
        if self._layout is None:
            return np.ones((len(query_frames), len(self.key_frames)), dtype=bool)
        return self._layout.attendable(query_frames, self.key_frames)

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
        return hide(self.full_frame_attention[head], self.attendable)

    @cached_property
    def last_block_rows(self) -> Array:
        """The last block's rows [heads, key] as float32 or float64, NaN where unseen."""
        attendable = self._attendable_by(self.last_block_query_frames).any(axis=0)
        return hide(self.last_block_frame_attention, np.asarray(attendable))

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
        """Return the smallest and largest visible value of one head, as in `value_range`."""
        low, high, _ = self._extents[head]
        return low, high

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


def expect_capture(found: object) -> None:
    """Refuse what is no capture."""
    if not isinstance(found, Capture):
        raise CaptureError(
            f"found {type(found).__name__}, expected one Capture; make it with load_capture(path) "
            "or Capture.from_array(array), and draw several one by one"
        )
