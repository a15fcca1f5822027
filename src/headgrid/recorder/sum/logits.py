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
from headgrid.recorder.sum.masks import CUT, WHOLE, Band, PairPlan, plan_call
from headgrid.recorder.sum.matrix import PairSums

#: Elements that are converted to float32 at once: 4 MiB of scratch memory.
CHUNK = 2**20


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating dtype of a device (Apple's GPUs have no float64)."""
    return torch.float32 if device.type == "mps" else torch.float64


def pool_sums(tokens: torch.Tensor, slices: FrameSlices) -> torch.Tensor:
    """Sum (batch, heads, tokens, dim) by frame."""
    kept = tokens.dtype if tokens.dtype == torch.float64 else torch.float32
    batch, heads, _, dim = tokens.shape
    sums = torch.empty((batch, heads, len(slices), dim), dtype=kept, device=tokens.device)
    for first, last in slices.runs:
        length = slices.stops[first] - slices.starts[first]
        part = tokens[:, :, slices.starts[first] : slices.stops[last - 1]]
        part = part.unflatten(2, (last - first, length))
        step = max(1, CHUNK // max(1, batch * heads * length * dim))
        for low in range(0, last - first, step):
            chunk = part[:, :, low : low + step]
            _sum_chunk(chunk, sums[:, :, first + low : first + low + chunk.shape[2]])
    return sums


def _sum_chunk(chunk: torch.Tensor, target: torch.Tensor) -> None:
    """Sum (batch, heads, frames, tokens, dim) over tokens into ``target``."""
    if chunk.is_cuda or chunk.dtype == target.dtype:
        target.copy_(chunk.sum(dim=3, dtype=target.dtype))
        return
    # CPU reductions convert their whole input first, so convert it piece by piece.
    step = max(1, CHUNK * chunk.shape[3] // max(1, chunk.numel()))
    target.zero_()
    for part in chunk.split(step, dim=3):
        target.add_(part.to(target.dtype).sum(dim=3))


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


def sum_logits(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    plans: list[PairPlan] | None = None,
    pooled_keys: torch.Tensor | None = None,
    pooled_queries: torch.Tensor | None = None,
) -> PairSums:
    """Sum ``q·k * scale`` plus any constant bias over the visible token pairs of frame pairs."""
    if plans is None:
        plans = plan_call(call, queries, keys)
    if pooled_queries is None:
        pooled_queries = pool_sums(call.query, queries)
    if pooled_keys is None:
        pooled_keys = pool_sums(call.key, keys)
    wide = wide_dtype(pooled_keys.device)
    each = pooled_keys.to(wide).repeat_interleave(call.group, dim=1)  # serves a group of heads
    total = pooled_queries.to(wide) @ each.transpose(2, 3) * call.scale
    pairs = np.outer(queries.lengths, keys.lengths).astype(np.float64)
    counts = np.stack([pairs * (plan.state == WHOLE) for plan in plans])[:, None]
    for element in range(total.shape[0]):
        place = element if len(plans) > 1 else 0
        plan, count = plans[place], counts[place, 0]
        if (plan.state != WHOLE).any():
            total[element] *= torch.from_numpy(plan.state == WHOLE).to(total.device)
        own = slice(element, element + 1)
        for row, column in np.argwhere(plan.state == CUT):
            summed, count[row, column] = sum_band(
                call.query[own, :, queries.starts[row] : queries.stops[row]],
                call.key[own, :, keys.starts[column] : keys.stops[column]],
                plan.bands[row, column],
            )
            total[element, :, row, column] = summed[0] * call.scale
        if plan.bias is not None:
            weights = torch.from_numpy(count).to(total.device, total.dtype)
            total[element] += plan.bias.to(total.dtype) * weights
    return PairSums(queries, keys, total, counts)
