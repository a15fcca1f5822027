"""What was not recorded is not zero: NaN and future frames stay empty, on grey."""

import numpy as np

import headgrid


def chart():
    """Draw one head in blocks of 1, 2 and 2, one pair of which is missing."""
    query, key = np.meshgrid(np.arange(5), np.arange(5), indexing="ij")
    logits = (query - 2.0 * key)[None]
    logits[0, 3, 1] = np.nan
    return headgrid.heatmap(headgrid.Capture.from_array(logits, block_sizes=[1, 2, 2]))


if __name__ == "__main__":
    print(headgrid.save(chart(), "unseen_frames.svg"))
