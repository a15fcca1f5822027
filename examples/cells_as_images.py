"""`cells="image"`: cells as one picture for each head, which stays small where there are many."""

import numpy as np

import headgrid


def chart():
    """Draw two heads of 90 frames."""
    head, query, key = np.meshgrid(np.arange(2), np.arange(90), np.arange(90), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 9) - 0.02 * key
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 30, layer=4)
    return headgrid.heatmap(capture, cells="image", columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "cells_as_images.svg"))
