"""`color_range="minmax"`: from the smallest value to the largest; white stays at zero."""

import numpy as np

import headgrid


def chart():
    """Draw two heads with more below zero than above."""
    head, query, key = np.meshgrid(np.arange(2), np.arange(9), np.arange(9), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 2) - 0.2 * key
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 3, layer=4)
    return headgrid.heatmap(capture, color_range="minmax", columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "range_from_least_to_most.svg"))
