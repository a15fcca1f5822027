"""`theme="paper"` and `width=`: small text, hairlines, and the exact width of a column."""

import numpy as np

import headgrid


def chart():
    """Draw four heads, 8.4 cm wide."""
    head, query, key = np.meshgrid(np.arange(4), np.arange(12), np.arange(12), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 2) - 0.2 * key
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 4, layer=4)
    return headgrid.heatmap(capture, theme="paper", width="8.4cm", columns=4)


if __name__ == "__main__":
    print(headgrid.save(chart(), "maps_for_a_paper.svg"))
