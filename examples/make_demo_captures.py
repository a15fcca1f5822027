"""Make the synthetic captures that come with headgrid: `python make_demo_captures.py DIR`.

Block-causal logits of 21 frames in blocks of 3 and 12 heads, each a shape that
a reader recognises. Nothing here was recorded from a model.
"""

import argparse
from pathlib import Path

import numpy as np

import headgrid

FRAMES, BLOCK = 21, 3
KINDS = (
    "sink",
    "recent",
    "diagonal",
    "periodic, 6 frames",
    "uniform",
    "own block",
    "sink and recent",
    "first block",
    "periodic, 4 frames",
    "middle",
    "alternating",
    "weak sink",
)


def logits(layer: int) -> np.ndarray:
    """Return [heads, query, key] in the order of `KINDS`; deeper layers have deeper sinks."""
    query, key = np.meshgrid(np.arange(FRAMES), np.arange(FRAMES), indexing="ij")
    distance = query - key
    near = np.exp(-np.abs(distance) / 3.0)
    first = np.exp(-key / 0.7)
    same_block = (query // BLOCK == key // BLOCK).astype(float)
    depth = 1.0 + 0.35 * layer
    shapes = [
        7.5 * depth * first - 1.0,
        6.0 * near - 1.5,
        9.0 * (distance == 0) - 0.8 + 1.5 * near,
        5.0 * np.cos(2 * np.pi * distance / 6) * np.exp(-np.abs(distance) / 18),
        np.full(query.shape, 1.2),
        4.5 * same_block - 0.7,
        5.0 * depth * first + 4.5 * near - 2.0,
        4.0 * depth * (key < BLOCK) - 0.6,
        4.0 * np.cos(2 * np.pi * distance / 4),
        4.0 * np.exp(-(((key - query / 2) / 2.5) ** 2)) - 1.0,
        3.0 * np.where(distance % 2 == 0, 1.0, -1.0),
        2.0 * depth * first + 0.3,
    ]
    # A ripple in place of noise: no random numbers, so the same on every machine.
    head = np.arange(len(shapes))[:, None, None]
    ripple = 0.25 * np.sin(1.7 * query + 2.3 * key + 0.9 * head + layer)
    return np.stack(shapes) + ripple


def capture(layer: int) -> headgrid.Capture:
    """Return the capture of one layer, stored as float16 like most recordings."""
    sizes = [BLOCK] * (FRAMES // BLOCK)
    unseen = np.arange(FRAMES)[None, :] >= (np.arange(FRAMES)[:, None] // BLOCK + 1) * BLOCK
    values = np.where(unseen, 0.0, logits(layer)).astype(np.float16)
    last = values[:, -BLOCK:].astype(np.float64).mean(axis=1).astype(np.float16)
    return headgrid.Capture.from_array(
        values,
        last_block=last,
        layer=layer,
        block_sizes=sizes,
        prompt="synthetic demonstration, not recorded from a model",
        metadata={"num_heads": len(KINDS), "num_frames": FRAMES, "head_kinds": list(KINDS)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the captures go")
    folder = parser.parse_args().directory
    for number in (0, 1):
        print(headgrid.save_capture(capture(number), folder / f"layer{number}.pt"))
