"""Parts of one model's attention on many processes -> the whole, on each of them.

Where the token axis is cut, sums and counts are added up; where the heads are
cut, maps are put side by side. A cut may lie in the middle of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices, Spans, join_spans
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import pool_sums
from headgrid.recorder.sum.matrix import Matrix, PairSums


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


def name_folder(shard: str | None) -> str:
    """Return the folder of a process that does not share its model with the others, or ""."""
    return f"rank_{rank()}" if shard is None and world_size() > 1 else ""


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
    own = {number: matrix.take() for number, matrix in matrices.items()}
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, (own, covered, path), group=group)
    if len({path for _, _, path in states}) > 1:
        paths = ", ".join(path for _, _, path in states)
        raise RecordError(f"the processes recorded different layers: {paths}; record one model")
    for number in sorted({number for found, _, _ in states for number in found}):
        parts = [found[number] for found, _, _ in states if number in found]
        parts = [_join_heads(parts)] if shard == "heads" else parts
        matrices[number] = Matrix(statistic, parts[0])
        for part in parts:
            matrices[number].add(part)
    return join_spans(sorted({span for _, covered, _ in states for span in covered}))


def _join_heads(parts: Sequence[PairSums]) -> PairSums:
    """Put the heads of all processes side by side."""
    counts = [np.broadcast_to(part.count, part.totals.shape[1:]) for part in parts]
    totals = torch.cat([part.totals for part in parts], dim=2)
    return replace(parts[0], totals=totals, count=np.concatenate(counts, axis=1))
