"""What two processes do in the tests of sharded recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import nn

TOKENS, FRAMES, HEADS, CUT = 6, 4, 4, 15  # the cut lies in the middle of frame 2
LENGTH = TOKENS * FRAMES


class Attention(nn.Module):
    """Attends to tensors that are put into it."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, mask: Any = None) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(2))

    def forward(self, *args: Any) -> None:
        for layer in self.layers:
            layer(*args)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, grouped keys, and a token-causal mask, the same on every process."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, HEADS, LENGTH, 8, generator=generator)
    k = torch.randn(1, 2, LENGTH, 8, generator=generator)
    return q, k, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def own_part(rank: int, shard: str, masked: bool) -> tuple[Any, ...]:
    q, k, mask = tensors()
    rows = slice(0, CUT) if rank == 0 else slice(CUT, LENGTH)
    seen = mask if masked else None
    if shard == "heads":
        return q[:, 2 * rank : 2 * rank + 2], k[:, rank : rank + 1], seen
    if shard == "queries":
        return q[:, :, rows], k, None if seen is None else seen[rows]
    return q[:, :, rows], k[:, :, rows], seen


#: What is cut, the statistic, and whether a token-causal mask is given.
CASES = (
    ("sequence", "logit", False),
    ("queries", "logit", True),
    ("queries", "mass", True),
    ("queries", "max_logit", False),
    ("heads", "logit", True),
    ("heads", "mass", False),
)


def record_parts(rank: int, folder: str) -> None:
    """Record one process's part of each case, an error, and three prompts shared by two."""
    from headgrid.recorder import RecordError, record, record_runs

    dist.init_process_group("gloo", init_method=f"file://{folder}/join", rank=rank, world_size=2)
    for index, (shard, statistic, masked) in enumerate(CASES):
        model = Model()
        options: Any = {"shard": shard, "statistic": statistic, "tokens_per_frame": TOKENS}
        with record(model, **options) as recording:
            model(*own_part(rank, shard, masked))
        written = recording.save(Path(folder) / f"captures{index}")
        assert bool(written) == (rank == 0)
        found = [torch.from_numpy(c.full_frame_attention) for c in recording.captures]
        torch.save(found, Path(folder) / f"case{index}_rank{rank}.pt")
    model = Model()
    try:
        with record(model, shard="sequence", tokens_per_frame=TOKENS):
            model(*own_part(rank, "sequence", masked=True))
    except RecordError as error:
        (Path(folder) / f"error_rank{rank}.txt").write_text(str(error))
    q, k, _ = tensors()

    def generate(prompt: str, seed: int) -> None:
        model(q * len(prompt), k * seed, None)

    prompts, runs = ["a", "bb", "ccc"], Path(folder) / "runs"
    record_runs(model, prompts, generate, runs, seeds=[1, 2, 3], tokens_per_frame=TOKENS)
    dist.destroy_process_group()
