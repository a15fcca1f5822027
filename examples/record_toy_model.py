"""Record a small video transformer that generates block by block with a KV cache.

    python examples/record_toy_model.py captures
    headgrid render captures -o figures

Each block of frames is denoised in four forwards, and a fifth, clean forward
leaves its keys in the cache. The model knows nothing of headgrid.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

TOKENS, FRAMES_PER_BLOCK, FORWARDS = 12, 3, 5


class SelfAttention(nn.Module):
    """Attends to everything in the cache: sinks at its start, then the latest frames."""

    def __init__(self, width: int, heads: int, sink: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.sink, self.window = heads, sink * TOKENS, (window or 10**6) * TOKENS
        self.project = nn.Linear(width, 3 * width)
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, clean: bool, current_start: int) -> torch.Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.project(x).chunk(3, dim=2)
        )
        if self.keys is not None:
            k, v = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        if k.shape[2] > self.window:
            tail = k.shape[2] - (self.window - self.sink)
            k = torch.cat([k[:, :, : self.sink], k[:, :, tail:]], dim=2)
            v = torch.cat([v[:, :, : self.sink], v[:, :, tail:]], dim=2)
        if clean:
            self.keys, self.values = k, v
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.query, self.both = (
            heads,
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
        )

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        parts = (self.query(x), *self.both(text).chunk(2, dim=2))
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, sink: int, window: int | None) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads, sink, window)
        self.cross_attn = CrossAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: torch.Tensor, text: torch.Tensor, clean: bool, current_start: int
    ) -> torch.Tensor:
        x = x + self.self_attn(self.norm(x), clean=clean, current_start=current_start)
        return x + self.cross_attn(self.norm(x), text)


class ToyVideoModel(nn.Module):
    """A block-causal video transformer over frames of twelve tokens."""

    def __init__(
        self,
        layers: int = 3,
        width: int = 32,
        heads: int = 4,
        sink: int = 0,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(Block(width, heads, sink, window) for _ in range(layers))

    def forward(
        self, x: torch.Tensor, text: torch.Tensor, clean: bool, current_start: int
    ) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, text, clean, current_start=current_start)
        return x


@torch.no_grad()
def generate(model: ToyVideoModel, blocks: int = 4, seed: int = 0) -> torch.Tensor:
    """Return the video (1, tokens, width), block after block, five forwards each."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, TOKENS, model.width, generator=generator)
    for block in model.blocks:
        block.self_attn.keys = block.self_attn.values = None
    made = []
    for index in range(blocks):
        tokens = FRAMES_PER_BLOCK * TOKENS
        x = torch.randn(1, tokens, model.width, generator=generator)
        for step in range(FORWARDS):
            clean = step == FORWARDS - 1
            moved = model(x, text, clean=clean, current_start=index * tokens)
            x = x if clean else 0.7 * x + 0.3 * moved
        made.append(x)
    return torch.cat(made, dim=1)


def main(directory: str) -> None:
    from headgrid.recorder import record

    torch.manual_seed(0)
    model = ToyVideoModel().eval()
    with record(model, tokens_per_frame=TOKENS, forwards="last", prompt="toy") as recording:
        generate(model)
    for path in recording.save(Path(directory)):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "captures")
