"""Parts of one model's attention on many processes -> the whole, on each of them.

Where the token axis is cut, sums and counts are added up; where the heads are
cut, maps are put side by side. A cut may lie in the middle of a frame.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices, Segments, Spans, join_spans
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import pool_sums
from headgrid.recorder.sum.matrix import LayerRecord, Matrix


def is_running() -> bool:
    """Return whether torch.distributed has been initialised."""
    return bool(dist.is_available() and dist.is_initialized())


def rank() -> int:
    """Return this process's number: torch.distributed's, or the launcher's."""
    return int(dist.get_rank()) if is_running() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes: torch.distributed's, or the launcher's."""
    return int(dist.get_world_size()) if is_running() else int(os.environ.get("WORLD_SIZE", "1"))


def check_running(shard: str) -> None:
    """Raise where a sharded recording is asked for in one process."""
    if not is_running():
        raise RecordError(
            f"shard={shard!r} needs torch.distributed, which is not initialised; call "
            "torch.distributed.init_process_group first, or leave shard out"
        )


def find_offset(tokens: int, device: torch.device, group: Any) -> tuple[int, int]:
    """Return where this process's tokens begin, and how many all processes have."""
    own = torch.tensor([tokens], device=device)
    parts = [torch.zeros_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    lengths = [int(part) for part in parts]
    return sum(lengths[: dist.get_rank(group)]), sum(lengths)


def cut_spans(spans: Spans, offset: int, tokens: int) -> Spans:
    """Return the part of token positions that lies on one process.

    >>> cut_spans(((0, 4), (10, 14)), 3, 3)
    ((3, 4), (10, 12))
    """
    found, position = list[tuple[int, int]](), 0
    for start, stop in spans:
        low = max(offset, position) - position + start
        high = min(offset + tokens, position + stop - start) - position + start
        if low < high:
            found.append((low, high))
        position += stop - start
    return tuple(found)


def check_sequence_call(call: AttentionCall, path: str, kind: str) -> None:
    """Raise where a call whose keys are cut needs more than pooled keys."""
    queries, keys = int(call.query.shape[2]), int(call.key.shape[2])
    if kind == "self" and queries != keys:
        raise RecordError(
            f"{path}: keys are cut over processes (shard='sequence'), but this one has {queries} "
            f"query and {keys} key tokens, expected as many; pass shard='queries' where each "
            "process has all keys of the cache"
        )
    if call.has_mask or call.softcap is not None or call.band != (None, None):
        raise RecordError(
            f"{path}: keys are cut over processes (shard='sequence') and the call has a mask, "
            "which needs every key; pass shard='queries' where each process has all keys"
        )


def reduce_pooled(
    tokens: torch.Tensor, spans: Spans, whole: Spans, segments: Segments, group: Any
) -> tuple[torch.Tensor, FrameSlices]:
    """Pool one process's tokens and add up the sums of all processes."""
    own, everything = segments.slice_frames(spans), segments.slice_frames(whole)
    partial = pool_sums(tokens, own)
    batch, heads, _, dim = partial.shape
    sums = partial.new_zeros((batch, heads, len(everything), dim))
    places = {frame: place for place, frame in enumerate(everything.frames)}
    for index, frame in enumerate(own.frames):
        sums[:, :, places[frame]] += partial[:, :, index]
    dist.all_reduce(sums, group=group)
    return sums, everything


def merge_layers(layers: list[LayerRecord], shard: str, group: Any) -> None:
    """Make every process hold the whole matrices of every layer."""
    for layer in layers:
        matrices = layer.finish()
        numbers: list[Any] = [None] * dist.get_world_size(group)
        state = (sorted(matrices), layer.covered, layer.facts.path)
        dist.all_gather_object(numbers, state, group=group)
        if len({path for _, _, path in numbers}) > 1:
            paths = ", ".join(path for _, _, path in numbers)
            raise RecordError(f"the processes recorded different layers: {paths}; record one model")
        layer.covered = join_spans(sorted({span for _, covered, _ in numbers for span in covered}))
        for number in sorted({n for found, _, _ in numbers for n in found}):
            matrix = matrices.setdefault(number, Matrix(layer.statistic))
            if shard == "heads":
                _gather_heads(matrix, group)
            else:
                _reduce_matrix(matrix, group)
        if shard == "heads":
            layer.facts.heads *= dist.get_world_size(group)
            layer.facts.key_heads *= dist.get_world_size(group)


def _gather_heads(matrix: Matrix, group: Any) -> None:
    assert matrix.total is not None
    total = matrix.total
    counts = np.broadcast_to(matrix.count, (len(matrix.count), *total.shape[1:])).copy()
    matrix.count = _gather(torch.from_numpy(counts).to(total), group, dim=1).cpu().numpy()
    matrix.total = _gather(total, group, dim=1)
    if matrix.variance is not None:
        matrix.variance = _gather(matrix.variance, group, dim=1)


def _gather(values: torch.Tensor, group: Any, dim: int) -> torch.Tensor:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, values.contiguous(), group=group)
    return torch.cat(parts, dim=dim)


def _reduce_matrix(matrix: Matrix, group: Any) -> None:
    """Add up matrices of different extent over processes."""
    shapes: list[Any] = [None] * dist.get_world_size(group)
    own = (
        None if matrix.total is None else tuple(matrix.total.shape[:2]),
        matrix.used,
        matrix.count.shape[:2],
    )
    dist.all_gather_object(shapes, own, group=group)
    sizes = [used for _, used, _ in shapes]
    rows, columns = max(q for q, _ in sizes), max(k for _, k in sizes)
    lead = next(shape for shape, _, _ in shapes if shape is not None)
    counts = np.broadcast_shapes(*[shape for _, _, shape in shapes])
    largest = matrix.statistic == "max_logit"
    device = torch.device("cpu") if matrix.total is None else matrix.total.device
    kind = torch.float64 if matrix.total is None else matrix.total.dtype
    total = torch.full((*lead, rows, columns), -torch.inf if largest else 0.0, dtype=kind)
    total = total.to(device)
    count = torch.zeros((*counts, rows, columns), dtype=torch.float64)
    if matrix.total is not None:
        q, k = matrix.used
        total[:, :, :q, :k] = matrix.total[:, :, :q, :k]
        count[:, :, :q, :k] = torch.from_numpy(matrix.count[:, :, :q, :k])
    count = count.to(device, kind)
    dist.all_reduce(total, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=group)
    dist.all_reduce(count, group=group)
    matrix.total, matrix.count, matrix.used = total, count.cpu().numpy(), (rows, columns)
