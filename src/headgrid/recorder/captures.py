"""Layers' sums -> captures, with the provenance of each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid._version import __version__
from headgrid.capture.model import Capture
from headgrid.errors import HeadgridWarning, RecordError
from headgrid.recorder.layer import LayerRecord, name_frames
from headgrid.recorder.place.segments import Segments, fitting_frame_sizes
from headgrid.recorder.sum.matrix import Matrix
from headgrid.text import count_noun, quote_text, shorten_list

Array = npt.NDArray[Any]

#: Packages whose versions are written into a capture, where they are loaded.
PACKAGES = ("torch", "transformers", "diffusers", "flash_attn", "xformers", "numpy")


def build_captures(layers: Sequence[LayerRecord], seen: str) -> list[Capture]:
    """Return a capture of every layer, forward and batch element that is kept.

    ``seen`` ends the messages: the attention calls of the run.
    """
    for layer in layers:
        layer.finish(alone=len(layers) == 1)
    for layer in layers:
        if layer.options.shard in ("queries", "heads"):
            layer.merge_processes()
    for layer in layers:
        _check_coverage(layer, seen)
    captures: list[Capture] = []
    for layer in layers:
        for number, matrix in sorted(layer.matrices.items()):
            values, errors = _divide(matrix, layer.path)
            forward = number if layer.options.forwards == "all" else None
            if layer.options.batch != "all":
                captures.append(_make_capture(layer, *_mean(values, errors), forward))
                continue
            for element, parts in enumerate(zip(values, errors, strict=True)):
                captures.append(_make_capture(layer, *parts, forward, element))
    return sorted(captures, key=lambda capture: (capture.run, capture.layer_index))


def _divide(matrix: Matrix, path: str) -> tuple[Array, Array]:
    """Return means (batch, heads, query, key), NaN where nothing was seen, and their errors."""
    sums = matrix.take()
    total, *variance = sums.totals.numpy()
    count = np.broadcast_to(sums.count, total.shape)
    errors, seen = np.zeros((len(total), 1, 1, 1)), count > 0
    if not np.isfinite(total[seen]).all():
        query, key = np.argwhere(seen & ~np.isfinite(total))[0, 2:]
        raise RecordError(
            f"{path}: query frame {query} or key frame {key} hold NaN or infinity, expected "
            "numbers; run the model in float32, or pass segments that leave padding out"
        )
    if matrix.statistic == "max_logit":
        return np.where(seen, total, np.nan), errors
    divisor = count
    if matrix.statistic in ("mass", "entropy"):
        # A key frame that only some of a frame's query tokens attend has mass 0 for the others.
        divisor = np.broadcast_to(count.max(axis=3, keepdims=True), total.shape)
    values = np.divide(total, divisor, out=np.full(total.shape, np.nan), where=seen)
    if variance:
        errors = np.divide(np.sqrt(variance[0]), divisor, out=np.zeros(total.shape), where=seen)
    return values, errors


def _mean(values: Array, errors: Array) -> tuple[Array, Array]:
    """Return the mean over the batch elements in which a pair was seen, and its error."""
    counts = (~np.isnan(values)).sum(axis=0)
    empty = np.full(values.shape[1:], np.nan)
    mean = np.divide(np.nansum(values, axis=0), counts, out=empty, where=counts > 0)
    return mean, np.sqrt((errors**2).sum(axis=0)) / len(errors)


def _make_capture(
    layer: LayerRecord,
    values: Array,
    errors: Array,
    forward: int | None,
    element: int | None = None,
) -> Capture:
    options, seen = layer.options, ~np.isnan(values)
    if not seen.any(axis=(1, 2)).all():
        raise RecordError(
            f"{layer.path}: no frame pair is visible in the mask of this layer's calls; "
            "pass segments that lie on the unmasked tokens"
        )
    blocks = infer_blocks(np.asarray(seen.any(axis=0))) if options.attention == "self" else None
    metadata, names = _describe(layer, values, blocks), []
    if forward is not None:
        metadata["forward"] = forward
        names.append(f"forward_{forward:03d}")
    if element is not None:
        metadata["batch_element"] = element
        names.append(f"batch_{element:03d}")
    if options.sample is not None:
        metadata["sampling_error_max"] = float(errors.max())
        metadata["sampling_error_mean"] = float(errors[seen].mean())
    labels, segments = _label_axes(layer, values.shape[1:])
    capture = Capture.from_array(
        values.astype(np.float32),
        layer=layer.number,
        block_sizes=blocks,
        statistic=options.statistic,
        run="_".join(names),
        prompt=layer.prompt,
        metadata=metadata,
        **labels,
    )
    return capture.with_segments(**segments)


def _label_axes(
    layer: LayerRecord, shape: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return names and labels of the axes, and segments; words that do not fit are left out."""
    labels, parts = dict[str, Any](), dict[str, Any]()
    for side, count in zip(("query", "key"), shape, strict=True):
        segments: Segments = getattr(layer.options, f"{side}_segments")
        words = getattr(layer.options, f"{side}_labels")
        tokens = sum(segments.length(frame) == 1 for frame in range(count))
        if words is not None and len(words) not in (count, tokens):
            warnings.warn(
                f"{layer.path}: {side}_labels lists {len(words)} words for {tokens} tokens; "
                "expected one for each, so they are left out",
                HeadgridWarning,
                stacklevel=8,
            )
            words = None
        labels[f"{side}_name"], labels[f"{side}_labels"] = segments.label(count, words)
        parts[side] = {name: (first, min(stop, count)) for name, first, stop in segments.names}
    return labels, parts


def _describe(layer: LayerRecord, values: Array, blocks: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the provenance: the seed's keys, and where, how and of what it was recorded."""
    options, size = layer.options, layer.options.query_segments.tokens_per_frame
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
    versions = {name: str(version) for name, version in loaded.items() if version is not None}
    data: dict[str, Any] = {
        **options.metadata,
        "num_frames": int(values.shape[2]),
        "num_heads": int(values.shape[0]),
        "extraction_method": "headgrid.record",
        "observation": options.describe(),
        **layer.facts,
        "calls": layer.calls,
        "forwards_a_block": sorted({*layer.seen.values()}),
        "packages": {"headgrid": __version__, **versions},
    }
    if size is not None:
        data |= {"frame_seq_length": size, "tokens_per_frame": size}
    else:
        data["query_segments"] = [list(pair) for pair in options.query_segments.bounds]
    if blocks and len(set(blocks)) == 1:
        data["num_frame_per_block"] = blocks[0]
    return data


def infer_blocks(seen: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the block sizes that explain which frame pairs were seen, or None.

    Every query of a block attends up to the end of the block, and no further.
    """
    if seen.shape[0] != seen.shape[1] or not seen.any(axis=1).all():
        return None
    ends = seen.shape[1] - seen[:, ::-1].argmax(axis=1)
    stops = np.unique(ends)
    sizes = np.diff(stops, prepend=0)
    return tuple(sizes.tolist()) if np.array_equal(np.repeat(stops, sizes), ends) else None


def summarize(captures: Sequence[Capture]) -> str:
    """Return what one run's captures hold, in a sentence."""
    first, facts = captures[0], captures[0].metadata
    observed, times = facts["observation"], facts["forwards_a_block"]
    calls = {(c.metadata["stream"], c.layer_index): c.metadata["calls"] for c in captures}
    streams, layers = ({*part} for part in zip(*calls, strict=True))
    parts = [f"{count_noun(len(layers), 'layer')} x {count_noun(first.num_heads, 'head')}"]
    parts += [f"{len(streams)} streams"] * (len(streams) > 1)
    if blocks := first.block_sizes:
        sizes = "-".join(str(size) for size in sorted({*blocks}))
        parts.append(f"{count_noun(len(blocks), 'block')} of {sizes} frame{'s' * (sizes != '1')}")
    if times[-1] > 1:
        each = "-".join(str(count) for count in times)
        parts.append(f"{each} forwards a block ({observed['forwards']} kept)")
    parts.append(count_noun(sum(calls.values()), "call"))
    size, stated = facts.get("tokens_per_frame"), facts["frames_stated"]
    told = stated if stated.startswith(f"{size} ") else f"{size} tokens"
    frames = f"{len(first.query_frames)} x {len(first.key_frames)} {first.key_axis.nouns}"
    parts.append(f"{frames} of {told}" if size else frames)
    parts += [observed["key_position"]] * observed["key_position"].startswith("sink")
    others = ", ".join(facts["other_models"])
    return (
        f"{facts['model_class']}: {', '.join(parts)}"
        + (f"; prompt {quote_text(first.prompt)}" if first.prompt else "")
        + (f"; ran too and was not recorded: {others}" if others else "")
    )


def _check_coverage(layer: LayerRecord, seen: str) -> None:
    """Raise where a query frame was never seen, or only in part."""
    path, wanted, segments = layer.path, layer.options.forwards, layer.options.query_segments
    if not layer.matrices:
        raise RecordError(
            f"{path}: nothing was recorded in this layer; its queries lie in no frame, or "
            f"the forward asked for never came; {seen}"
        )
    if isinstance(wanted, int):
        short = [block for block, times in layer.seen.items() if times <= wanted]
        if short:
            raise RecordError(
                f"{path}: {name_frames(segments, short[0])} ran {layer.seen[short[0]]} times, but "
                f"forwards is {wanted} (counted from 0); pass the number of a forward that every "
                f"block has, or 'last'; {seen}"
            )
    if layer.options.gaps == "keep":
        return
    found = segments.slice_frames(layer.covered).frame_lengths()
    last = len(segments.bounds) if segments.tokens_per_frame is None else max(found) + 1
    missing = [frame for frame in range(last) if frame not in found]
    tokens = shorten_list([f"{start} to {stop}" for start, stop in layer.covered])
    if missing:
        raise RecordError(
            f"{path}: query frames {shorten_list(missing)} of {last} were never seen (tokens "
            f"seen: {tokens}); record from the first block on, correct the "
            f"positions or segments, or pass gaps='keep' to leave them empty; {seen}"
        )
    for frame, length in found.items():
        if length == segments.length(frame):
            continue
        size = segments.tokens_per_frame
        fits = "" if size is None else f"{fitting_frame_sizes(layer.covered[-1][1], size)}; "
        raise RecordError(
            f"{path}: query frame {frame} got {length} of its {segments.length(frame)} tokens "
            f"(tokens seen: {tokens}); {fits}pass segments that end where the tokens end, or "
            f"gaps='keep' for a mean over those seen; {seen}"
        )
