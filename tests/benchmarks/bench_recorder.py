"""What recording costs: ``python -m tests.benchmarks.bench_recorder``.

The size is that of one block of Wan2.1-1.3B at a small resolution: three query
frames against 21 key frames of 390 tokens, 12 heads of 128.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from headgrid.recorder import RecordError, record
from headgrid.recorder.place.segments import Segments
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import pool_sums, sum_logits
from headgrid.recorder.sum.masks import plan_call

TOKENS, QUERY_FRAMES, KEY_FRAMES, HEADS, DIM = 390, 3, 21, 12, 128
SCALE = DIM**-0.5


def tensors(dtype: torch.dtype, *, tokens_first: bool = False) -> tuple[Any, Any]:
    """Queries and keys (1, heads, tokens, dim); or the same seen through a transpose."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for frames in (QUERY_FRAMES, KEY_FRAMES):
        x = torch.randn(1, HEADS, frames * TOKENS, DIM, generator=generator).to(dtype)
        parts.append(x.transpose(1, 2).contiguous().transpose(1, 2) if tokens_first else x)
    return parts[0], parts[1]


def pool(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The recorder's way."""
    frames = Segments.equal(TOKENS)
    queries = frames.slice_frames((((KEY_FRAMES - QUERY_FRAMES) * TOKENS, KEY_FRAMES * TOKENS),))
    keys = frames.slice_frames(((0, KEY_FRAMES * TOKENS),))
    call = AttentionCall(q, k, scale=SCALE)
    plans = plan_call(call, queries, keys)
    return sum_logits(call, queries, keys, plans, pool_sums(k, keys)).totals[0] / TOKENS**2


def multiply_in_chunks(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """What patched models do: Q·K^T of one frame pair after the other, then its mean."""
    means = torch.zeros(1, HEADS, QUERY_FRAMES, KEY_FRAMES)
    for i, queries in enumerate(q.split(TOKENS, dim=2)):
        for j, keys in enumerate(k.split(TOKENS, dim=2)):
            logits = torch.matmul(queries.float(), keys.float().transpose(2, 3)) * SCALE
            means[:, :, i, j] = logits.mean(dim=(2, 3))
    return means


def best(function: Callable[[], object], repeats: int) -> float:
    """Least seconds of several runs."""
    return min(timeit.repeat(function, number=1, repeat=repeats))


class SelfAttention(nn.Module):
    """A layer of attention over given tensors."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k)


class Layers(nn.Module):
    """Several of them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SelfAttention() for _ in range(count))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> None:
        for layer in self.layers:
            layer(q, k)


def run_layers(model: Layers, q: Any, k: Any, layers: Any) -> float:
    """Seconds of a forward inside a recording, entering and leaving it included."""

    def run() -> None:
        with record(model, tokens_per_frame=TOKENS, layers=layers, gaps="keep"):
            model(q, k)

    return best(run, 1)


def compare_pooling(repeats: int) -> None:
    """Print pooling beside the chunked loop and the attention call."""
    print("one call: pooling / chunked Q·K^T / attention, ms; times faster; share")
    for dtype in (torch.float32, torch.bfloat16):
        for tokens_first in (False, True):
            q, k = tensors(dtype, tokens_first=tokens_first)
            pool(q, k)
            pooled = chunked = call = float("inf")
            for _ in range(repeats):  # in turn, so that a busy machine slows all three
                pooled = min(pooled, best(lambda q=q, k=k: pool(q, k), 5))
                chunked = min(chunked, best(lambda q=q, k=k: multiply_in_chunks(q, k), 1))
                attend = F.scaled_dot_product_attention
                call = min(call, best(lambda q=q, k=k, f=attend: f(q, k, k), 1))
            off = (pool(q, k) - multiply_in_chunks(q, k)).abs().max()
            layout = "tokens first" if tokens_first else "heads first"
            print(
                f"  {str(dtype)[6:]:9} {layout:12} {pooled * 1e3:7.1f} {chunked * 1e3:9.1f} "
                f"{call * 1e3:8.1f}   {chunked / pooled:6.0f}x  {pooled / call:6.2%}  "
                f"(differ by {off:.1e})"
            )


def compare_layers(count: int, repeats: int) -> None:
    """Print a forward with no, one and all layers recorded, runs interleaved."""
    q, k = tensors(torch.float32)
    model = Layers(count)
    seconds: dict[str, list[float]] = {"none": [], "one": [], "all": []}
    for _ in range(repeats):
        seconds["none"].append(best(lambda: model(q, k), 1))
        seconds["one"].append(run_layers(model, q, k, 0))
        seconds["all"].append(run_layers(model, q, k, None))
    none, one, every = (min(seconds[name]) for name in ("none", "one", "all"))
    print(
        f"{count} layers: bare {none:.3f} s, one recorded {one:.3f} s, all recorded {every:.3f} s: "
        f"all cost {every / one - 1:+.1%} of one, {every / none - 1:+.1%} of none"
    )


def compare_run(count: int, repeats: int) -> None:
    """Print the recorder's own time in a causal run, block by block, beside the attention's."""
    queries, keys = (torch.randn(1, HEADS, KEY_FRAMES * TOKENS, DIM) for _ in range(2))
    ends = [frames * TOKENS for frames in range(QUERY_FRAMES, KEY_FRAMES + 1, QUERY_FRAMES)]
    model, attend, inside = Layers(count), F.scaled_dot_product_attention, [0.0]

    def timed(query: Any, key: Any, value: Any) -> Any:
        start = time.perf_counter()
        found = attend(query, key, value)
        inside[0] += time.perf_counter() - start
        return found

    def run() -> None:
        with record(model, tokens_per_frame=TOKENS):
            for end in ends:
                model(queries[:, :, end - QUERY_FRAMES * TOKENS : end], keys[:, :, :end])

    own, shares = [], []
    with mock.patch.object(F, "scaled_dot_product_attention", timed):
        for _ in range(repeats):
            inside[0] = 0.0
            own.append((best(run, 1) - inside[0]) * 1e3)
            shares.append(own[-1] / inside[0] / 10)
    low, middle, high = statistics.quantiles(shares, n=4)
    print(
        f"a causal run of {count} layers: the recorder takes {statistics.median(own):.0f} ms, "
        f"{middle:.2f}% of the attention (quartiles {low:.2f}% and {high:.2f}%)"
    )


def compare_opening(repeats: int) -> None:
    """Print what opening and closing cost without a call."""
    seconds = timeit.repeat(_open_and_close, number=1, repeat=repeats)
    print(f"opening and closing: {statistics.median(seconds) * 1e3:.0f} ms")


def _open_and_close() -> None:
    with contextlib.suppress(RecordError), record(tokens_per_frame=1):
        pass


if __name__ == "__main__":
    with torch.no_grad():
        compare_pooling(repeats=3)
        compare_opening(repeats=9)
        compare_layers(6, repeats=5)
        compare_run(1, repeats=9)
        compare_run(6, repeats=3)
