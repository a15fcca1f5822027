"""Layers' sums -> captures, with one copy from the device and the provenance of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headgrid._version import __version__
from headgrid.capture.model import Capture
from headgrid.errors import RecordError
from headgrid.recorder.options import RecordOptions
from headgrid.recorder.place.segments import Segments, fitting_frame_sizes
from headgrid.recorder.sum import shards
from headgrid.recorder.sum.matrix import LayerRecord, Matrix
from headgrid.recorder.watch.sites import list_sites
from headgrid.text import shorten_list

Array = npt.NDArray[Any]

#: Packages whose versions are written into a capture, where they are loaded.
PACKAGES = ("torch", "transformers", "diffusers", "flash_attn", "xformers", "numpy")


def build_captures(
    layers: Sequence[LayerRecord], options: RecordOptions, sites: Mapping[str, int]
) -> list[Capture]:
    """Return a capture of every layer, forward and batch element that is kept."""
    for layer in layers:
        layer.finish()
        layer.fingerprints.check_deferred(layer.facts.path)
    if options.shard is not None and options.shard != "sequence":
        shards.merge_layers(list(layers), options.shard, options.group)
    for layer in layers:
        _check_coverage(layer, options.query_segments, options.gaps, sites)
    found = [(layer, n, m) for layer in layers for n, m in sorted(layer.matrices.items())]
    totals = copy_together([_trim(matrix, matrix.total) for _, _, matrix in found])
    variances: list[Array | None] = [None] * len(found)
    if options.sample is not None:
        variances = [*copy_together([_trim(m, m.variance) for _, _, m in found])]
    captures: list[Capture] = []
    for (layer, number, matrix), total, variance in zip(found, totals, variances, strict=True):
        values, errors = _divide(matrix, total, variance)
        forward = number if options.forwards == "all" else None
        captures += _split_batch(layer, options, values, errors, forward)
    return sorted(captures, key=lambda capture: (capture.run, capture.layer_index))


def _trim(matrix: Matrix, values: torch.Tensor | None) -> torch.Tensor:
    assert values is not None
    return values[:, :, : matrix.used[0], : matrix.used[1]]


def copy_together(tensors: Sequence[torch.Tensor]) -> list[Array]:
    """Copy tensors to the host, all of one device in a single transfer."""
    copied: dict[int, Array] = {}
    devices = {tensor.device for tensor in tensors}
    for device in devices:
        own = [index for index, tensor in enumerate(tensors) if tensor.device == device]
        flat = torch.cat([tensors[index].flatten() for index in own]).cpu().numpy()
        offset = 0
        for index in own:
            size = tensors[index].numel()
            copied[index] = flat[offset : offset + size].reshape(tuple(tensors[index].shape))
            offset += size
    return [copied[index] for index in range(len(tensors))]


def _divide(matrix: Matrix, total: Array, variance: Array | None) -> tuple[Array, Array | None]:
    """Return means (batch, heads, query, key), NaN where nothing was seen, and their errors."""
    count = np.broadcast_to(matrix.count[:, :, : matrix.used[0], : matrix.used[1]], total.shape)
    seen = count > 0
    divisor = count
    if matrix.statistic in ("mass", "entropy"):
        # A key frame that only some of a frame's query tokens attend has mass 0 for the others.
        divisor = np.broadcast_to(count.max(axis=3, keepdims=True), total.shape)
    if matrix.statistic == "max_logit":
        return np.where(seen, total, np.nan), None
    values = np.full(total.shape, np.nan)
    np.divide(total, divisor, out=values, where=seen)
    if variance is None:
        return values, None
    errors = np.zeros(total.shape)
    np.divide(np.sqrt(variance), divisor, out=errors, where=seen)
    return values, errors


def _split_batch(
    layer: LayerRecord,
    options: RecordOptions,
    values: Array,
    errors: Array | None,
    forward: int | None,
) -> list[Capture]:
    names = [] if forward is None else [f"forward_{forward:03d}"]
    if options.batch != "all":
        seen = ~np.isnan(values)
        sums, counts = np.where(seen, values, 0.0).sum(axis=0), seen.sum(axis=0)
        mean = np.full(sums.shape, np.nan)
        np.divide(sums, counts, out=mean, where=counts > 0)
        error = None if errors is None else np.sqrt((errors**2).sum(axis=0)) / len(errors)
        return [_make_capture(layer, options, mean, error, "_".join(names), forward, None)]
    return [
        _make_capture(
            layer,
            options,
            values[element],
            None if errors is None else errors[element],
            "_".join([*names, f"batch_{element:03d}"]),
            forward,
            element,
        )
        for element in range(len(values))
    ]


def _make_capture(
    layer: LayerRecord,
    options: RecordOptions,
    values: Array,
    errors: Array | None,
    run: str,
    forward: int | None,
    element: int | None,
) -> Capture:
    blocks = infer_blocks(_seen_anywhere(values)) if options.attention == "self" else None
    metadata = _describe(layer, options, values, blocks)
    if forward is not None:
        metadata["forward"] = forward
    if element is not None:
        metadata["batch_element"] = element
    if errors is not None:
        metadata["sampling_error_max"] = float(errors.max())
        metadata["sampling_error_mean"] = float(errors[~np.isnan(values)].mean())
    if np.isnan(values).all(axis=(1, 2)).any():
        raise RecordError(
            f"{layer.facts.path}: no frame pair is visible in the mask of this layer's calls; "
            "pass segments that lie on the unmasked tokens"
        )
    return Capture.from_array(
        values.astype(np.float32),
        layer=layer.facts.number,
        block_sizes=blocks,
        statistic=options.statistic,
        run=run,
        prompt=options.prompt,
        metadata=metadata,
    )


def _seen_anywhere(values: Array) -> npt.NDArray[np.bool_]:
    """Return for each frame pair whether any head has a value, (query, key)."""
    return np.asarray((~np.isnan(values)).any(axis=0))


def _describe(
    layer: LayerRecord, options: RecordOptions, values: Array, blocks: tuple[int, ...] | None
) -> dict[str, Any]:
    """Return the provenance: the seed's keys, and where, how and of what it was recorded."""
    facts, size = layer.facts, options.query_segments.tokens_per_frame
    data: dict[str, Any] = dict(options.metadata)
    data |= {
        "num_frames": int(values.shape[2]),
        "num_heads": int(values.shape[0]),
        "extraction_method": "headgrid.record",
        "observation": options.describe(),
        "model_class": facts.model_class,
        "module_path": facts.path,
        "attention_function": facts.function,
        "call_site": facts.place,
        "dtype": facts.dtype,
        "head_dim": facts.head_dim,
        "num_key_heads": facts.key_heads,
        "scale": facts.scale,
        "calls": layer.calls,
        "packages": _versions(),
    }
    if size is not None:
        data |= {"frame_seq_length": size, "tokens_per_frame": size}
    else:
        bounds = options.query_segments.bounds
        data["query_segments"] = [list(pair) for pair in bounds]
    if blocks and len(set(blocks)) == 1:
        data["num_frame_per_block"] = blocks[0]
    return data


def _versions() -> dict[str, str]:

    found = {"headgrid": __version__}
    for name in PACKAGES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def infer_blocks(seen: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the block sizes that explain which frame pairs were seen, or None.

    Every query of a block attends up to the end of the block, and no further.

    Examples
    --------
    >>> import numpy as np
    >>> infer_blocks(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=bool))
    (2, 1)
    """
    if seen.shape[0] != seen.shape[1] or not seen.any(axis=1).all():
        return None
    ends = seen.shape[1] - seen[:, ::-1].argmax(axis=1)
    sizes: list[int] = []
    start = 0
    while start < len(ends):
        end = int(ends[start])
        if end <= start or (ends[start:end] != end).any():
            return None
        sizes.append(end - start)
        start = end
    return tuple(sizes)


def _check_coverage(
    layer: LayerRecord, segments: Segments, gaps: str, sites: Mapping[str, int]
) -> None:
    """Raise where a query frame was never seen, or only in part."""
    facts = layer.facts
    seen = list_sites(f"{site} x{times}" for site, times in sites.items())
    if not layer.matrices or all(matrix.total is None for matrix in layer.matrices.values()):
        raise RecordError(
            f"{facts.path}: nothing was recorded in this layer; its queries lie in no frame, or "
            f"the forward asked for never came; {seen}"
        )
    if gaps == "keep":
        return
    found = dict[int, int]()
    slices = segments.slice_frames(layer.covered)
    for frame, length in zip(slices.frames, slices.lengths, strict=True):
        found[frame] = found.get(frame, 0) + length
    last = len(segments.bounds) if segments.tokens_per_frame is None else max(found) + 1
    missing = [frame for frame in range(last) if frame not in found]
    if missing:
        raise RecordError(
            f"{facts.path}: query frames {shorten_list(missing)} of {last} were never seen (tokens "
            f"seen: {_name_spans(layer.covered)}); record from the first block on, correct the "
            f"positions or segments, or pass gaps='keep' to leave them empty; {seen}"
        )
    cut = [frame for frame, length in found.items() if length < segments.length(frame)]
    if cut:
        frame, size = cut[0], segments.tokens_per_frame
        tokens = layer.covered[-1][1]
        fits = f"{fitting_frame_sizes(tokens, size)}; " if size is not None else ""
        spans = _name_spans(layer.covered)
        raise RecordError(
            f"{facts.path}: query frame {frame} got {found[frame]} of its "
            f"{segments.length(frame)} tokens (tokens seen: {spans}); {fits}pass "
            "segments that end where the tokens end, or gaps='keep' for a mean over those seen; "
            f"{seen}"
        )


def _name_spans(spans: Sequence[tuple[int, int]]) -> str:
    return shorten_list([f"{start} to {stop}" for start, stop in spans])
