"""What another prompt changes: A and B on one scale, B - A on its own, the largest changes."""

import numpy as np

import headgrid


def captures():
    """Return one layer of two runs; in the second a head looks at frame 0 more."""
    query, key = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    shape = 4.0 / (1 + np.abs(query - key)) - 1.0
    before = np.stack([shape, -0.5 * shape])
    after = before + np.stack([2.5 * (key == 0), 0.1 * (query - key)])
    return [
        headgrid.Capture.from_array(values, block_sizes=[3] * 3, layer=7, run=run)
        for run, values in (("run_000", before), ("run_001", after))
    ]


def chart():
    """Draw the comparison."""
    return headgrid.compare(*captures())


if __name__ == "__main__":
    print(headgrid.save(chart(), "compare_two_runs.svg"))
