"""The last block's rows alone -> bars for each head, with its sink score."""

import numpy as np

import headgrid


def chart():
    """Draw six heads, from a plain one to a deep attention sink."""
    head, key = np.meshgrid(np.arange(6), np.arange(21), indexing="ij")
    rows = head * 2.0 / (1 + key * key) + 3.0 / (1 + (20 - key)) - 0.1 * (key % 3)
    capture = headgrid.Capture.from_array(
        last_block=rows, layer=3, last_block_query_frames=[18, 19, 20]
    )
    return headgrid.perhead(capture, columns=3)


if __name__ == "__main__":
    print(headgrid.save(chart(), "perhead_from_array.svg"))
