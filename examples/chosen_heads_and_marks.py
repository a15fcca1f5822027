"""`heads=` chooses heads, `marks=` draws thin lines: at borders of blocks, or at frames."""

import numpy as np

import headgrid


def chart():
    """Draw two of four heads, with lines where blocks of three frames begin."""
    head, query, key = np.meshgrid(np.arange(4), np.arange(12), np.arange(12), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 2) - 0.2 * key
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 4, layer=4)
    return headgrid.heatmap(capture, heads="1,3", marks="blocks", columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "chosen_heads_and_marks.svg"))
