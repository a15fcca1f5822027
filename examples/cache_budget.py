"""How many frames a cache needs: the mass of each head that sinks and recent frames keep."""

import numpy as np

import headgrid


def chart():
    """Draw four heads: of a sink, near, at a distance of five frames, and everywhere alike."""
    query, key = np.meshgrid(np.arange(18), np.arange(18), indexing="ij")
    logits = np.stack(
        [6.0 * (key == 0), -np.abs(query - key) / 1.5, 5.0 * (query - key == 5), 0.0 * key]
    )
    seen = key < 3 * (query // 3 + 1)
    weights = np.where(seen, np.exp(logits), 0.0)
    mass = weights / weights.sum(axis=2, keepdims=True)
    capture = headgrid.Capture.from_array(mass, block_sizes=[3] * 6, statistic="mass", layer=2)
    return headgrid.budget_curves(capture, columns=2)


if __name__ == "__main__":
    print(headgrid.save(chart(), "cache_budget.svg"))
