"""`color_range="head"`: each head on a scale of its own, which its title names."""

import numpy as np

import headgrid


def chart():
    """Draw three heads, each ten times as strong as the one before."""
    head, query, key = np.meshgrid(np.arange(3), np.arange(9), np.arange(9), indexing="ij")
    logits = 10.0**head * np.cos((key - query) / 2)
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 3, layer=4)
    return headgrid.heatmap(capture, color_range="head", columns=3)


if __name__ == "__main__":
    print(headgrid.save(chart(), "each_head_its_own_range.svg"))
