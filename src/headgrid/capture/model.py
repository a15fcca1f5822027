"""One layer's recorded frame attention -> the frozen, validated `Capture`.

Axes are always in the order heads, query, key. A pair of frames is *visible* when the model can
attend it (keys up to the end of the query's block) and it was recorded (not NaN).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture import schema
from headgrid.capture.arrays import fit_arrays
from headgrid.capture.axis import Axis, Segment, read_segments
from headgrid.capture.files import let_go
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import FULL, LAST, LIST_KEYS, Array, Blocks
from headgrid.capture.statistic import STATISTICS
from headgrid.capture.values import attendable_by, check_values, extent, hide, mean_of_last_rows
from headgrid.errors import CaptureError
from headgrid.notebook import Card
from headgrid.text import shorten_list


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
    query_name, key_name : str
        What one place of the axis is called: ``"Frame"``, ``"Token"``, ...
    query_labels, key_labels : tuple of str or None
        A label for each place of the axis, as words; None: the frame numbers stand for them.
    query_parts, key_parts : tuple of Segment
        Named parts of the axis: ``name``, ``start`` and ``stop``; see `with_segments`.

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
    query_name: str | None = None
    key_name: str | None = None
    query_labels: Sequence[str] | None = None
    key_labels: Sequence[str] | None = None
    query_parts: Sequence[Segment] | None = None
    key_parts: Sequence[Segment] | None = None
    _blocks: Blocks | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        vars(self).update(schema.read_provenance(vars(self)))
        vars(self).update(schema.read_fields(vars(self)))  # frozen is what is checked
        if vars(self)[LAST] is None:
            vars(self)[LAST] = mean_of_last_rows(self)
        vars(self)["warnings"] = check_values(self)

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
        causal: bool = False,
        labels: Sequence[object] | None = None,
        query_labels: Sequence[object] | None = None,
        key_labels: Sequence[object] | None = None,
        query_name: str | None = None,
        key_name: str | None = None,
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
            was recorded. A batch of one, or the [query, key] of one head, is taken as well.
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
        causal : bool
            Each query attends the keys up to its own; fewer queries than keys are the last ones.
        labels : sequence of str or number, optional
            A label for each place of both axes, or of one (``query_labels``, ``key_labels``).
        query_name, key_name : str, optional
            What one place is called; by default ``"Token"`` with labels, ``"Frame"`` without.
        statistic : str
            ``"logit"`` (q·k·scale before the softmax), ``"mass"`` (after it), or another of them.
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
        >>> Capture.from_array([[1.0, 9.0], [0.5, 0.5]], causal=True, labels=["The", "cat"])
        <Capture layer 0: logit, 1 head, 2 query x 2 key tokens, blocks [1, 1]>
        """
        fields: dict[str, Any] = {FULL: array, LAST: last_block, "layer_index": layer}
        fields |= {"block_sizes": block_sizes, "query_frames": query_frames}
        fields |= {"key_frames": key_frames, "last_block_query_frames": last_block_query_frames}
        fields |= {"query_labels": query_labels, "key_labels": key_labels}
        fields |= {"query_name": query_name, "key_name": key_name, "statistic": statistic}
        fields |= {"run": run, "prompt": prompt, "metadata": metadata or {}, "source": "array"}
        return cls(**fit_arrays(fields, labels, causal=causal))

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
            The documentation lists the keys. All that headgrid does not know is ``metadata``.
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
                f"{FULL} (heads, query, key) or {LAST} (heads, key); of what a model of "
                "transformers returned headgrid.from_attentions makes captures"
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
        values |= {**self.query_axis.store("query"), **self.key_axis.store("key")}
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

    def with_segments(
        self,
        segments: Mapping[str, tuple[int, int | None]] | None = None,
        *,
        query: Mapping[str, tuple[int, int | None]] | None = None,
        key: Mapping[str, tuple[int, int | None]] | None = None,
    ) -> Capture:
        """Return a copy whose axes have named parts: bands in figures, sums in `segment_table`.

        ``segments`` are those of both axes, ``query`` and ``key`` of one: from one number of the
        axis up to, and without, another (None: to the end). A `CaptureError` where parts overlap
        or lie outside of the axis.

        >>> Capture.from_array(np.eye(4)).with_segments({"text": (0, 1)}).key_parts
        (Segment(name='text', start=0, stop=1),)
        """
        copied = copy.copy(self)
        for side, own, of in (("query", query, self.query_frames), ("key", key, self.key_frames)):
            if (wanted := segments if own is None else own) is not None:
                vars(copied)[f"{side}_parts"] = read_segments(wanted, side, of, self.source)
        return copied

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return len(self.last_block_frame_attention)

    @property
    def is_logits(self) -> bool:
        """Whether the values live on the logit scale: signed, zero in the middle."""
        return "logit" in STATISTICS[self.statistic].base

    @property
    def query_axis(self) -> Axis:
        """Name, numbers and labels of what asks."""
        return self._axis("query")

    @property
    def key_axis(self) -> Axis:
        """Name, numbers and labels of what is attended."""
        return self._axis("key")

    def _axis(self, side: str) -> Axis:
        parts = ("name", "frames", "labels", "parts")
        return Axis(*(vars(self)[f"{side}_{part}"] for part in parts))

    @cached_property
    def attendable(self) -> npt.NDArray[np.bool_]:
        """Mask [query, key] of the pairs that the model can attend, recorded or not."""
        return attendable_by(self, self.query_frames)

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
        matrix = hide(self.full_frame_attention[head], self.attendable)
        let_go(self.full_frame_attention)
        return matrix

    @cached_property
    def last_block_rows(self) -> Array:
        """The last block's rows [heads, key] as float32 or float64, NaN where unseen."""
        attendable = attendable_by(self, self.last_block_query_frames).any(axis=0)
        return hide(self.last_block_frame_attention, np.asarray(attendable))

    @cached_property
    def extents(self) -> list[tuple[float, float, int]]:
        """Smallest and largest visible value and their number, of each head."""
        if self.full_frame_attention is None:
            return list(map(extent, self.last_block_rows))
        return [extent(self.head_matrix(head)) for head in range(self.num_heads)]

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value of the full matrix (of the rows without one)."""
        lows, highs, _ = zip(*self.extents, strict=True)
        return min(lows), max(highs)

    def head_range(self, head: int) -> tuple[float, float]:
        """Return the smallest and largest visible value of one head; (inf, -inf) of none."""
        return self.extents[head][:2]

    def head_visible(self, head: int) -> int:
        """Return the number of visible pairs of one head; 0 without a full matrix."""
        return 0 if self.full_frame_attention is None else self.extents[head][2]

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

    def __repr__(self) -> str:
        heads = f"{self.num_heads} head{'s' if self.num_heads != 1 else ''}"
        keys = f"{len(self.key_frames)} key {self.key_axis.nouns}"
        queries = self.query_axis.nouns
        queries = "" if queries == self.key_axis.nouns else f"{queries} "
        shape = f"{len(self.query_frames)} query {queries}x {keys}"
        if self.full_frame_attention is None:
            shape = f"{keys}, last block only"
        blocks = f", blocks [{shorten_list(self.block_sizes)}]" if self.block_sizes else ""
        name = f"{self.run}, layer" if self.run else "layer"
        return f"<Capture {name} {self.layer_index}: {self.statistic}, {heads}, {shape}{blocks}>"


def expect_capture(found: object) -> None:
    """Refuse what is no capture."""
    if not isinstance(found, Capture):
        raise CaptureError(
            f"found {type(found).__name__}, expected one Capture; make it with load_capture(path) "
            "or Capture.from_array(array), and draw several one by one"
        )
