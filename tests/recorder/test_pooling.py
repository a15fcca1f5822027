"""Pooled queries and keys -> the mean logit, against float64 brute force."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder_brute import all_logits, equal_frames, largest_difference, mean_by_frame

from headgrid.recorder.place.segments import Segments
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import pool_sums, sum_band, sum_logits
from headgrid.recorder.sum.masks import plan_call

TOKENS, QUERY_FRAMES, KEY_FRAMES, HEADS, DIM = 390, 2, 9, 2, 64


def large_logits(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Queries and keys whose mean logits by frame reach about 25, and those means."""
    generator = torch.Generator().manual_seed(1)
    shape_q = (1, HEADS, QUERY_FRAMES * TOKENS, DIM)
    shape_k = (1, HEADS, KEY_FRAMES * TOKENS, DIM)
    shift_q = torch.randn(1, HEADS, QUERY_FRAMES, 1, DIM, generator=generator)
    shift_k = torch.randn(1, HEADS, KEY_FRAMES, 1, DIM, generator=generator)
    q = torch.randn(shape_q, generator=generator).unflatten(2, (QUERY_FRAMES, TOKENS))
    k = torch.randn(shape_k, generator=generator).unflatten(2, (KEY_FRAMES, TOKENS))
    q, k = (q + 2.8 * shift_q).flatten(2, 3), (k + 2.8 * shift_k).flatten(2, 3)
    q, k = q.to(dtype), k.to(dtype)
    means = mean_by_frame(
        all_logits(q, k)[0], equal_frames(QUERY_FRAMES, TOKENS), equal_frames(KEY_FRAMES, TOKENS)
    )
    return q, k, means


def pooled_logits(q: torch.Tensor, k: torch.Tensor, rows: Segments, columns: Segments) -> Any:
    call = AttentionCall(q, k, scale=q.shape[-1] ** -0.5)
    queries, keys = rows.slice_frames(((0, q.shape[2]),)), columns.slice_frames(((0, k.shape[2]),))
    sums = sum_logits(call, queries, keys, plan_call(call, queries, keys), pool_sums(k, keys))
    return sums.totals[0, 0].numpy() / sums.count[0]


def accumulated_in_bfloat16(q: torch.Tensor, k: torch.Tensor) -> np.ndarray:
    """The same product with means that are summed in bfloat16, which the recorder must not do."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x[:, :, :1].expand(-1, -1, x.shape[2] // TOKENS, -1))
        for token in x.bfloat16().unflatten(2, (-1, TOKENS)).unbind(3):
            total = (total.bfloat16() + token).bfloat16()
        return total.double() / TOKENS

    return (mean(q) @ mean(k).transpose(2, 3) * q.shape[-1] ** -0.5)[0].numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mean_logits_equal_brute_force_where_bfloat16_sums_would_not(dtype: torch.dtype) -> None:
    q, k, expected = large_logits(dtype)
    assert 15 < np.abs(expected).max() <= 25
    frames = Segments.equal(TOKENS)
    assert largest_difference(pooled_logits(q, k, frames, frames), expected) < 5e-5
    assert largest_difference(accumulated_in_bfloat16(q, k), expected) > 5e-5


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 300),
    order=st.permutations(range(3)),
    step=st.integers(1, 2),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_frames_of_any_size_in_any_layout_are_summed(
    tokens: int, order: list[int], step: int, dtype: torch.dtype
) -> None:
    shape = torch.Size([2, 3 * tokens + 1, 4 * step])  # of heads, tokens and features
    back = [order.index(axis) for axis in range(3)]
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn([shape[axis] for axis in order], generator=generator).permute(back)
    x = x.to(dtype)[None, ..., ::step]
    slices = Segments.equal(tokens).slice_frames(((0, x.shape[2]),))
    ends = zip(slices.starts, slices.stops, strict=True)
    expected = torch.stack([x[:, :, start:stop].double().sum(2) for start, stop in ends], dim=2)
    assert (pool_sums(x, slices) - expected).abs().max() < 1e-6 * tokens


def test_ragged_segments_with_grouped_heads_are_exact() -> None:
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(1, 6, 40, 16, generator=generator)
    k = torch.randn(1, 2, 57, 16, generator=generator)
    rows, columns = [(0, 1), (1, 14), (14, 40)], [(0, 20), (22, 23), (23, 57)]
    found = pooled_logits(q, k, Segments.explicit(rows), Segments.explicit(columns))
    assert largest_difference(found, mean_by_frame(all_logits(q, k)[0], rows, columns)) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    lower=st.none() | st.integers(-10, 10),
    upper=st.none() | st.integers(-10, 10),
)
def test_a_diagonal_band_is_summed_by_cumulative_sums(
    rows: int, columns: int, lower: int | None, upper: int | None
) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    q = torch.randn(1, 4, rows, 5, generator=generator)
    k = torch.randn(1, 2, columns, 5, generator=generator)
    offset = torch.arange(columns)[None] - torch.arange(rows)[:, None]
    seen = torch.ones(rows, columns, dtype=torch.bool)
    if lower is not None:
        seen &= offset >= lower
    if upper is not None:
        seen &= offset <= upper
    total, pairs = sum_band(q, k, (lower, upper))
    expected = torch.where(seen, all_logits(q, k, 1.0)[0], 0.0).sum((1, 2))
    assert pairs == int(seen.sum())
    assert torch.allclose(total[0].double(), expected, atol=1e-5)
