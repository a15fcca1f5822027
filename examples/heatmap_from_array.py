"""Attention logits in an array -> a heatmap for each head."""

import numpy as np

import headgrid


def chart():
    """Draw four heads over nine frames, generated in blocks of three."""
    head, query, key = np.meshgrid(np.arange(4), np.arange(9), np.arange(9), indexing="ij")
    distance = np.abs(query - key)
    logits = np.where(head % 2 == 0, 8.0 / (1 + key) - 2, 6.0 / (1 + distance) - 1.5)
    capture = headgrid.Capture.from_array(
        logits + 0.5 * head, layer=7, block_sizes=[3, 3, 3], prompt="a lighthouse at dusk"
    )
    return headgrid.heatmap(capture)


if __name__ == "__main__":
    print(headgrid.save(chart(), "heatmap_from_array.svg"))
