"""The example's toy model -> a module to import, and what its attention computed."""

from __future__ import annotations

import runpy
import types
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import all_logits, equal_frames, mean_by_frame, spy

from places import EXAMPLES

toy = types.SimpleNamespace(**runpy.run_path(str(EXAMPLES / "record_toy_model.py")))
TOKENS, FORWARDS, BLOCK = toy.TOKENS, toy.FORWARDS, toy.FRAMES_PER_BLOCK


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return toy.ToyVideoModel(**options).eval()


def brute_matrices(
    model: Any, forward: int, blocks: int = 4, kept: Any = None, cross: bool = False, seed: int = 0
) -> list[np.ndarray]:
    """Matrix (heads, query, key) of each layer from every token's logits.

    ``kept`` gives for the end of a block the key frames that its cache holds.
    """
    with spy(F, "scaled_dot_product_attention") as spied:
        toy.generate(model, blocks, seed)
    layers, frames = len(model.blocks), blocks * BLOCK
    columns = 1 if cross else frames
    matrices = [np.full((4, frames, columns), np.nan) for _ in range(layers)]
    for block in range(blocks):
        end = (block + 1) * BLOCK
        held = [0] if cross else list(range(end)) if kept is None else kept(end)
        for layer, matrix in enumerate(matrices):
            index = ((block * FORWARDS + forward) * layers + layer) * 2 + int(cross)
            q, k, _ = spied.call_args_list[index].args
            means = mean_by_frame(
                all_logits(q, k)[0], equal_frames(BLOCK, TOKENS), equal_frames(len(held), TOKENS)
            )
            matrix[:, end - BLOCK : end, held] = means
    return matrices
