"""Queries, keys and frame slices -> exact sums of logits over token pairs, in O(tokens * dim).

The mean over token pairs of ``q·k * scale`` is the product of the mean query and
the mean key. Both are summed in float32 whatever the dtype of the model, frame by
frame, and multiplied in float64: accumulating in bfloat16 loses three digits.
"""

from __future__ import annotations

import numpy as np
import torch

from headgrid.recorder.place.segments import FrameSlices
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.masks import Band, PairPlan
from headgrid.recorder.sum.matrix import PairSums

#: Elements that are converted to float32 at once: 16 MiB of scratch memory.
CHUNK = 2**22
#: Rows that are added at once on the CPU.
FEW = 16


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating dtype of a device (Apple's GPUs have no float64)."""
    return torch.float32 if device.type == "mps" else torch.float64


def pool_sums(tokens: torch.Tensor, slices: FrameSlices) -> torch.Tensor:
    """Sum (batch, heads, tokens, dim) by frame.

    In as few operations as memory allows: where the processor is busy with other work, each may
    wait for its threads.
    """
    kept = tokens.dtype if tokens.dtype == torch.float64 else torch.float32
    batch, heads, _, dim = tokens.shape
    width = max(1, batch * heads * dim)
    sums = torch.empty((batch, heads, len(slices), dim), dtype=kept, device=tokens.device)
    axis = 1 if tokens.stride(1) < tokens.stride(2) else 2  # of tokens as they lie in memory
    tokens, frames = tokens.transpose(axis, 2), sums.transpose(axis, 2)
    for first, last in slices.runs:
        start, stop = slices.starts[first], slices.stops[last - 1]
        part = tokens.narrow(axis, start, stop - start)
        part = part.unflatten(axis, (last - first, slices.lengths[first]))
        target = frames.narrow(axis, first, last - first)
        if part.is_cuda:
            torch.sum(part, dim=axis + 1, dtype=kept, out=target)
        elif part.dtype == kept:
            target.copy_(_sum_rows(part, axis + 1))
        else:  # CPU reductions convert their whole input first, so convert it piece by piece.
            target.zero_()
            several = max(1, CHUNK // (width * part.shape[axis + 1]))
            chunks = zip(part.split(several, axis), target.split(several, axis), strict=True)
            for chunk, into in chunks:
                for piece in chunk.split(max(1, CHUNK // (width * several)), axis + 1):
                    into.add_(_sum_rows(piece.to(kept), axis + 1))
    return sums


def _sum_rows(rows: torch.Tensor, axis: int) -> torch.Tensor:
    """Sum over an axis, a few long rows at a time, as torch reads these faster than many."""
    while (size := rows.shape[axis]) > FEW:
        few = next((few for few in range(FEW, FEW // 2, -1) if size % few == 0), size)
        rows = rows.unflatten(axis, (few, size // few)).sum(axis)
    return rows.squeeze(axis) if rows.shape[axis] == 1 else rows.sum(axis)


def sum_band(queries: torch.Tensor, keys: torch.Tensor, band: Band) -> tuple[torch.Tensor, int]:
    """Sum ``q_i·k_j`` over the token pairs with ``lower <= j - i <= upper``, and count them.

    The sum over a run of keys is a difference of two cumulative sums, so the
    cost is that of reading the tokens, not their product.
    """
    rows, columns = queries.shape[2], keys.shape[2]
    lower = -rows if band[0] is None else band[0]
    upper = columns if band[1] is None else band[1]
    starts = (torch.arange(rows) + lower).clamp(0, columns)
    stops = torch.maximum((torch.arange(rows) + upper + 1).clamp(0, columns), starts)
    pairs = int((stops - starts).sum())
    wide = wide_dtype(keys.device)
    cumulative = torch.nn.functional.pad(keys.to(wide).cumsum(2), (0, 0, 1, 0))
    visible = cumulative[:, :, stops.to(keys.device)] - cumulative[:, :, starts.to(keys.device)]
    visible = visible.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    return (queries.to(wide) * visible).sum(dim=(2, 3)), pairs


def _multiply(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Multiply small matrices, without the threads for which torch would wait on a busy CPU."""
    if one.device.type == "cpu":
        return torch.from_numpy(one.numpy() @ other.numpy())
    return one @ other


def sum_logits(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    plans: list[PairPlan],
    pooled_keys: torch.Tensor,
    pooled_queries: torch.Tensor | None = None,
) -> PairSums:
    """Sum ``q·k * scale`` plus any constant bias over the visible token pairs of frame pairs."""
    if pooled_queries is None:
        pooled_queries = pool_sums(call.query, queries)
    wide = wide_dtype(pooled_keys.device)
    each = pooled_keys.to(wide)
    if call.group > 1:  # a key head serves a group of heads
        each = each.repeat_interleave(call.group, dim=1)
    total = _multiply(pooled_queries.to(wide), each.transpose(2, 3)) * call.scale
    pairs = np.outer(queries.lengths, keys.lengths).astype(np.float64)
    counts = np.stack([pairs * plan.whole for plan in plans])[:, None]
    for element in range(total.shape[0]):
        place = element if len(plans) > 1 else 0
        plan, count = plans[place], counts[place, 0]
        if not plan.whole.all():
            total[element] *= torch.from_numpy(plan.whole).to(total.device)
        own = slice(element, element + 1)
        for (row, column), band in plan.bands.items():
            summed, count[row, column] = sum_band(
                call.query[own, :, queries.starts[row] : queries.stops[row]],
                call.key[own, :, keys.starts[column] : keys.stops[column]],
                band,
            )
            total[element, :, row, column] = summed[0] * call.scale
        if plan.bias is not None:
            weights = torch.from_numpy(count).to(total.device, total.dtype)
            total[element] += plan.bias.to(total.dtype) * weights
    return PairSums(queries, keys, total[None], counts)
