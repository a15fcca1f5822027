"""`color_range="log"`: masses in decades, where a sink hides all else."""

import numpy as np

import headgrid


def chart():
    """Draw two heads that give nearly all to their first key."""
    head, query, key = np.meshgrid(np.arange(2), np.arange(10), np.arange(10), indexing="ij")
    weights = np.where(key == 0, 100.0 * (head + 1), np.exp((key - query) / 2.0))
    weights = np.where(key <= query, weights, 0.0)
    mass = weights / weights.sum(axis=2, keepdims=True)
    capture = headgrid.Capture.from_array(mass, causal=True, statistic="mass", layer=4)
    return headgrid.heatmap(capture, color_range="log", columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "masses_in_decades.svg"))
