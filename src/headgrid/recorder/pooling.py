"""Queries, keys and frame slices -> exact sums of logits over token pairs, in O(tokens * dim).

The mean over token pairs of ``q·k * scale`` is the product of the mean query and
the mean key. Both are summed in float32 whatever the dtype of the model, frame by
frame, and multiplied in float64: accumulating in bfloat16 loses three digits.
"""

from __future__ import annotations

import torch

from headgrid.recorder.segments import FrameSlices

#: Elements that are converted to float32 at once: 4 MiB of scratch memory.
CHUNK = 2**20


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating dtype of a device (Apple's GPUs have no float64)."""
    return torch.float32 if device.type == "mps" else torch.float64


def pool_sums(tokens: torch.Tensor, slices: FrameSlices) -> torch.Tensor:
    """Sum tokens by frame.

    Parameters
    ----------
    tokens : tensor, shape (batch, heads, tokens, dim), any floating dtype and strides
    slices : FrameSlices

    Returns
    -------
    tensor, shape (batch, heads, slices, dim), float32 (float64 for float64 tokens)
    """
    kept = tokens.dtype if tokens.dtype == torch.float64 else torch.float32
    batch, heads, _, dim = tokens.shape
    sums = torch.empty((batch, heads, len(slices), dim), dtype=kept, device=tokens.device)
    for first, last in slices.runs():
        length = slices.stops[first] - slices.starts[first]
        part = tokens[:, :, slices.starts[first] : slices.stops[last - 1]]
        part = part.unflatten(2, (last - first, length))
        step = max(1, CHUNK // max(1, batch * heads * length * dim))
        for low in range(0, last - first, step):
            chunk = part[:, :, low : low + step]
            target = sums[:, :, first + low : first + low + chunk.shape[2]]
            _sum_chunk(chunk, target)
    return sums


def _sum_chunk(chunk: torch.Tensor, target: torch.Tensor) -> None:
    """Sum (batch, heads, frames, tokens, dim) over tokens into ``target``."""
    if chunk.is_cuda or chunk.dtype == target.dtype:
        target.copy_(chunk.sum(dim=3, dtype=target.dtype))
        return
    # CPU reductions convert their whole input first, so convert it piece by piece.
    tokens = chunk.shape[3]
    step = max(1, CHUNK * tokens // max(1, chunk.numel()))
    target.zero_()
    for low in range(0, tokens, step):
        target.add_(chunk[:, :, :, low : low + step].to(target.dtype).sum(dim=3))


def multiply_sums(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Multiply pooled queries and keys; each key head serves its group of query heads.

    Parameters
    ----------
    queries : tensor, shape (batch, heads, query slices, dim)
    keys : tensor, shape (batch, key heads, key slices, dim)

    Returns
    -------
    tensor, shape (batch, heads, query slices, key slices), float64 where there is one
    """
    wide = wide_dtype(queries.device)
    repeats = queries.shape[1] // keys.shape[1]
    repeated = keys.to(wide).repeat_interleave(repeats, dim=1)
    return queries.to(wide) @ repeated.transpose(2, 3)


def sum_band(
    queries: torch.Tensor,
    keys: torch.Tensor,
    lower: int | None,
    upper: int | None,
) -> tuple[torch.Tensor, int]:
    """Sum ``q_i·k_j`` over the token pairs with ``lower <= j - i <= upper``.

    The sum over a run of keys is a difference of two cumulative sums, so the
    cost is that of reading the tokens, not their product.

    Parameters
    ----------
    queries : tensor, shape (batch, heads, n, dim)
    keys : tensor, shape (batch, key heads, m, dim)
    lower, upper : int or None
        Bounds on ``j - i``; None is no bound.

    Returns
    -------
    sums : tensor, shape (batch, heads)
    pairs : int
        Number of token pairs summed.
    """
    rows, columns = queries.shape[2], keys.shape[2]
    wide = wide_dtype(keys.device)
    cumulative = torch.nn.functional.pad(keys.to(wide).cumsum(2), (0, 0, 1, 0))
    index = torch.arange(rows, device=keys.device)
    stops = torch.full_like(index, columns)
    if upper is not None:
        stops = (index + upper + 1).clamp(0, columns)
    starts = torch.zeros_like(index)
    if lower is not None:
        starts = (index + lower).clamp(0, columns)
    stops = torch.maximum(stops, starts)
    visible = cumulative[:, :, stops] - cumulative[:, :, starts]
    visible = visible.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    total = (queries.to(wide) * visible).sum(dim=(2, 3))
    return total, count_band(rows, columns, lower, upper)


def count_band(rows: int, columns: int, lower: int | None, upper: int | None) -> int:
    """Return the number of pairs (i, j) with ``lower <= j - i <= upper``.

    >>> count_band(3, 3, None, 0), count_band(3, 3, 0, 0), count_band(2, 3, 1, 1)
    (6, 3, 2)
    """
    pairs = 0
    for row in range(rows):
        stop = columns if upper is None else min(columns, max(0, row + upper + 1))
        start = 0 if lower is None else min(columns, max(0, row + lower))
        pairs += max(0, stop - start)
    return pairs
