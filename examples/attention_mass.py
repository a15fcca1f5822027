"""Attention after the softmax: a mass, never negative, drawn in viridis from zero."""

import numpy as np

import headgrid


def chart():
    """Draw three heads whose rows sum to one over the visible keys."""
    head, query, key = np.meshgrid(np.arange(3), np.arange(10), np.arange(10), indexing="ij")
    weights = 1.0 / (1 + head * np.abs(query - key) + (2 - head) * key)
    weights = np.where(key <= query, weights, 0.0)
    mass = weights / weights.sum(axis=2, keepdims=True)
    capture = headgrid.Capture.from_array(mass, block_sizes=[1] * 10, statistic="mass", layer=5)
    return headgrid.heatmap(capture, columns=3)


if __name__ == "__main__":
    print(headgrid.save(chart(), "attention_mass.svg"))
