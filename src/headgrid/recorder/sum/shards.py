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
from headgrid.recorder.place.segments import FrameSlices, Spans, join_spans
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import pool_sums
from headgrid.recorder.sum.matrix import Matrix


def is_running() -> bool:
    """Return whether torch.distributed has been initialised."""
    return bool(dist.is_available() and dist.is_initialized())


def rank() -> int:
    """Return this process's number: torch.distributed's, or the launcher's."""
    return int(dist.get_rank()) if is_running() else int(os.environ.get("RANK", "0"))


def world_size(group: Any = None) -> int:
    """Return the number of processes: torch.distributed's, or the launcher's."""
    size = dist.get_world_size(group) if is_running() else os.environ.get("WORLD_SIZE", "1")
    return int(size)


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
    """Return the part of token positions that lies on one process."""
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
    masked = call.has_mask or call.softcap is not None or call.band != (None, None)
    cached = kind == "self" and call.query.shape[2] != call.key.shape[2]
    if masked or cached:
        found = "has a mask" if masked else "has a cache of keys"
        raise RecordError(
            f"{path}: keys are cut over processes (shard='sequence') and the call {found}, which "
            "needs every key; pass shard='queries' where each process has all keys"
        )


def reduce_pooled(
    tokens: torch.Tensor, own: FrameSlices, whole: FrameSlices, group: Any
) -> torch.Tensor:
    """Pool one process's tokens and add up the sums of all processes."""
    partial = pool_sums(tokens, own)
    batch, heads, _, dim = partial.shape
    sums = partial.new_zeros((batch, heads, len(whole), dim))
    for index, frame in enumerate(own.frames):
        sums[:, :, whole.frames.index(frame)] += partial[:, :, index]
    dist.all_reduce(sums, group=group)
    return sums


def merge_matrices(
    matrices: dict[int, Matrix], covered: Spans, path: str, shard: str, statistic: str, group: Any
) -> Spans:
    """Make every process hold one layer's whole matrices; return the tokens they cover."""
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, (sorted(matrices), covered, path), group=group)
    if len({path for _, _, path in states}) > 1:
        paths = ", ".join(path for _, _, path in states)
        raise RecordError(f"the processes recorded different layers: {paths}; record one model")
    merge = _gather_heads if shard == "heads" else _reduce_matrix
    for number in sorted({number for found, _, _ in states for number in found}):
        merge(matrices.setdefault(number, Matrix(statistic)), group)
    return join_spans(sorted({span for _, covered, _ in states for span in covered}))


def _gather_heads(matrix: Matrix, group: Any) -> None:
    assert matrix.total is not None
    total = matrix.total
    counts = np.broadcast_to(matrix.count, (len(matrix.count), *total.shape[1:])).copy()
    matrix.count = _gather(torch.from_numpy(counts).to(total), group).cpu().numpy()
    matrix.total = _gather(total, group)
    if matrix.variance is not None:
        matrix.variance = _gather(matrix.variance, group)


def _gather(values: torch.Tensor, group: Any) -> torch.Tensor:
    """Put the heads (axis 1) of all processes side by side."""
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, values.contiguous(), group=group)
    return torch.cat(parts, dim=1)


def _reduce_matrix(matrix: Matrix, group: Any) -> None:
    """Add up matrices of different extent over processes; one may have none."""
    states: list[Any] = [None] * dist.get_world_size(group)
    shape = None if matrix.total is None else tuple(matrix.total.shape[:2])
    dist.all_gather_object(states, (shape, matrix.used, matrix.count.shape[:2]), group=group)
    rows, columns = (max(used[axis] for _, used, _ in states) for axis in (0, 1))
    lead = next(shape for shape, _, _ in states if shape is not None)
    counts = np.broadcast_shapes(*[shape for _, _, shape in states])
    largest = matrix.statistic == "max_logit"
    like = torch.empty(0, dtype=torch.float64) if matrix.total is None else matrix.total
    total = like.new_full((*lead, rows, columns), -torch.inf if largest else 0.0)
    count = like.new_zeros((*counts, rows, columns))
    if matrix.total is not None:
        q, k = matrix.used
        total[:, :, :q, :k] = matrix.total[:, :, :q, :k]
        count[:, :, :q, :k] = torch.from_numpy(matrix.count[:, :, :q, :k])
    dist.all_reduce(total, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=group)
    dist.all_reduce(count, group=group)
    matrix.total, matrix.count, matrix.used = total, count.cpu().numpy(), (rows, columns)
