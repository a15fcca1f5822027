"""Frame counts -> synthetic captures of that size, unquantised, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import headgrid


def make(frames: int, heads: int = 12, block: int = 3, layer: int = 0) -> headgrid.Capture:
    """Return block-causal logits: waves along the diagonals, and a sink in every other head."""
    query, key = np.meshgrid(np.arange(frames), np.arange(frames), indexing="ij")
    shapes = []
    for head in range(heads):
        wave = (2 + head) * np.cos((query - key) * (0.3 + 0.05 * head)) * np.exp(-key / frames)
        ripple = 0.3 * np.sin(1.7 * query + 2.3 * key * (1 + layer) + head)
        shapes.append(wave + ripple + (6.0 if head % 2 else 0.0) * (key == 0))
    unseen = key >= (query // block + 1) * block
    values = np.where(unseen, 0.0, np.stack(shapes)).astype(np.float32)
    sizes = [block] * (frames // block) + ([frames % block] if frames % block else [])
    return headgrid.Capture.from_array(values, block_sizes=sizes, layer=layer)


def write(folder: Path, frames: int, layers: int = 1) -> list[Path]:
    """Write so many layers of captures; return their paths."""
    return [
        headgrid.save_capture(make(frames, layer=layer), folder / f"{frames}" / f"layer{layer}.pt")
        for layer in range(layers)
    ]
