"""Every head of every layer as a small map in one figure; layer 2 was not recorded."""

import numpy as np

import headgrid


def captures():
    """Return layers whose bands move away from the diagonal with depth."""
    query, key = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    return [
        headgrid.Capture.from_array(
            np.stack([5 * np.cos((query - key - layer) * (0.3 + 0.2 * head)) for head in range(6)]),
            block_sizes=[3] * 4,
            layer=layer,
        )
        for layer in (0, 1, 3, 4)
    ]


def chart():
    """Draw the sheet on the scale that leaves the outermost 1 % of all values to its ends."""
    return headgrid.sheet(captures(), color_range="quantile")


if __name__ == "__main__":
    print(headgrid.save(chart(), "sheet_of_layers.svg"))
