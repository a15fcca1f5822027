"""Small captures whose values are known, without random numbers."""

import numpy as np

from headgrid import Capture


def waves(heads, queries, keys, *, scale=1.0, mass=False):
    """Return [heads, query, key]: every head, row and column different, both signs."""
    h, q, k = np.meshgrid(np.arange(heads), np.arange(queries), np.arange(keys), indexing="ij")
    values = np.sin(1.3 * q - 0.7 * k + 2.1 * h) + 0.6 * np.cos(0.9 * k + h) + 0.25 * (k == 0)
    return scale * (np.abs(values) if mass else values)


def block_capture(heads=2, blocks=(2, 2), *, scale=1.0, statistic="logit", **options):
    """Return a block-causal capture; unseen pairs hold 0, as in real files."""
    frames = sum(blocks)
    ends = np.repeat(np.cumsum(blocks), blocks)
    values = waves(heads, frames, frames, scale=scale, mass=statistic == "mass")
    values = np.where(np.arange(frames)[None, :] < ends[:, None], values, 0.0)
    return Capture.from_array(values, block_sizes=list(blocks), statistic=statistic, **options)


def visible_pairs(blocks):
    """Return the number of visible pairs of one head, counted one by one."""
    count, end = 0, 0
    for size in blocks:
        end += size
        count += size * end
    return count
