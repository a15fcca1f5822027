"""`color_range="quantile"`: without the outermost 1 % of values, which are drawn as the ends."""

import numpy as np

import headgrid


def chart():
    """Draw two heads, one pair of which is ten times as strong as all others."""
    head, query, key = np.meshgrid(np.arange(2), np.arange(9), np.arange(9), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 2) - 0.2 * key
    logits[0, 8, 0] = 30.0
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 3, layer=4)
    return headgrid.heatmap(capture, color_range="quantile", columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "range_without_outliers.svg"))
