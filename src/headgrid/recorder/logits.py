"""One attention call and its frames -> sums of logits and numbers of token pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headgrid.recorder.calls import AttentionCall
from headgrid.recorder.masks import CUT, WHOLE, PairPlan, iterate_elements, plan_pairs
from headgrid.recorder.pooling import multiply_sums, pool_sums, sum_band
from headgrid.recorder.segments import FrameSlices


@dataclass
class PairSums:
    """What one call adds to the matrix of frame pairs.

    Attributes
    ----------
    queries, keys : FrameSlices
    total : tensor, shape (batch, heads, query slices, key slices)
        Sum over what `count` counts (the maximum, for max_logit).
    count : array, shape (batch or 1, heads or 1, query slices, key slices), float64
        Token pairs (logit) or query tokens (after the softmax); 0 where hidden.
    variance : tensor or None, shape of ``total``
        Variance of ``total`` where query tokens were sampled.
    """

    queries: FrameSlices
    keys: FrameSlices
    total: torch.Tensor
    count: npt.NDArray[np.float64]
    variance: torch.Tensor | None = None


def sum_logits(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    plans: list[PairPlan] | None = None,
    pooled_keys: torch.Tensor | None = None,
    pooled_queries: torch.Tensor | None = None,
) -> PairSums:
    """Sum ``q·k * scale`` plus any constant bias over the visible token pairs of frame pairs.

    Parameters
    ----------
    call : AttentionCall
    queries, keys : FrameSlices
        Frames of the call's tokens.
    plans : list of PairPlan, optional
        What the masks leave, one for the whole batch or one an element; read
        from the call where not given.
    pooled_keys, pooled_queries : tensor, optional
        Sums of `pool_sums` that are known already.

    Raises
    ------
    RecordError
        Where a mask is not constant over a frame pair; see `plan_pairs`.
    """
    if plans is None:
        plans = [plan_pairs(call, queries, keys, e) for e in iterate_elements(call)]
    if pooled_queries is None:
        pooled_queries = pool_sums(call.query, queries)
    if pooled_keys is None:
        pooled_keys = pool_sums(call.key, keys)
    total = multiply_sums(pooled_queries, pooled_keys) * call.scale
    pairs = np.outer(queries.lengths, keys.lengths).astype(np.float64)
    counts = np.stack([pairs * (plan.state == WHOLE) for plan in plans])[:, None]
    elements = total.shape[0]
    for element in range(elements):
        plan = plans[element if len(plans) > 1 else 0]
        if (plan.state != WHOLE).any():
            whole = torch.from_numpy(plan.state == WHOLE).to(total.device)
            total[element] *= whole
        for (row, column), band in plan.bands.items():
            if plan.state[row, column] != CUT:
                continue
            _fill_cut(call, queries, keys, total, counts, element, row, column, band)
        if plan.bias is not None:
            count = counts[element if len(plans) > 1 else 0, 0]
            weights = torch.from_numpy(count).to(total.device, total.dtype)
            total[element] += plan.bias.to(total.dtype) * weights
    return PairSums(queries, keys, total, counts)


def _fill_cut(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    total: torch.Tensor,
    counts: npt.NDArray[np.float64],
    element: int,
    row: int,
    column: int,
    band: tuple[int | None, int | None],
) -> None:
    """Sum one frame pair that a causal diagonal cuts, for one batch element."""
    own = slice(element, element + 1)
    query = call.query[own, :, queries.starts[row] : queries.stops[row]]
    key = call.key[own, :, keys.starts[column] : keys.stops[column]]
    summed, pairs = sum_band(query, key, *band)
    total[element, :, row, column] = summed[0] * call.scale
    counts[min(element, len(counts) - 1), 0, row, column] = pairs
