"""`value_axis="shared"`: one axis for the profiles of all heads, so that their heights compare."""

import numpy as np

import headgrid


def chart():
    """Draw four profiles, each head stronger than the one before."""
    head, query, key = np.meshgrid(np.arange(4), np.arange(12), np.arange(12), indexing="ij")
    logits = (head + 1) * np.cos((key - query) / 2) - 0.2 * key
    capture = headgrid.Capture.from_array(logits, block_sizes=[3] * 4, layer=4)
    return headgrid.perhead(capture, value_axis="shared", columns=4)


if __name__ == "__main__":
    print(headgrid.save(chart(), "one_value_axis.svg"))
