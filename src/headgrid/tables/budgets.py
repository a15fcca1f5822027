"""Masses -> the share of them that a cache keeps: sinks and recent key frames, or the best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, check_whole
from headgrid.tables.stats import each_capture

if TYPE_CHECKING:
    import pandas as pd

#: Which key frames a cache of so many keeps; shares of the mass whose smallest caches are told.
POLICIES, SHARES = ("sink+recent", "best"), (0.9, 0.95, 0.99)
_SLACK, _EXCESS = 1e-9, 0.05  # what rounding may take from a share, and add to the sum of a row


def budget_table(captures: Capture | Iterable[Capture], *, sink: int = 1) -> pd.DataFrame:
    """Return the share of each head's mass that a cache of so many key frames keeps.

    Of the key frames that a query frame sees, ``sink+recent`` keeps the first ``sink`` and then
    the last, its own block's among them, and ``best`` those with the largest masses. The share is
    of what the row holds: 1 where a query sees no more than is kept. A block's share is the mean
    over its query frames; without ``block_sizes`` each of them is a block.

    Parameters
    ----------
    captures : Capture or iterable of Capture
        Of masses, with a full matrix; a `CaptureError` where one has none.
    sink : int
        At least 0; an `OptionError` else.

    Returns
    -------
    DataFrame
        ``run``, ``layer``, ``head``, ``policy``, ``blocks`` (their number), ``frames`` (kept, 1 to
        all), and over the blocks ``mean``, ``std`` (with n - 1) and ``least`` in float64, 0 to 1;
        NaN where there is no such value.

    Examples
    --------
    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> budget_table(capture).groupby("policy")["mean"].agg(list).to_dict()
    {'best': [0.5, 0.9, 1.0], 'sink+recent': [0.5, 0.9, 1.0]}
    """
    import pandas as pd

    check_whole("sink", sink, least=0)
    places, parts = [], []
    for capture in each_capture(captures):
        for head in range(capture.num_heads):
            for policy, shares in zip(POLICIES, _keep(capture, head, sink), strict=True):
                places.append((capture.run, capture.layer_index, head, policy, len(shares)))
                kept = pd.DataFrame(shares, columns=range(1, shares.shape[1] + 1))
                over_blocks = {"mean": kept.mean(), "std": kept.std(), "least": kept.min()}
                parts.append(pd.DataFrame(over_blocks))
    if not parts:
        raise CaptureError("there is no capture, expected at least one, of masses")
    names = ["run", "layer", "head", "policy", "blocks", "frames"]
    return pd.concat(parts, keys=places, names=names).reset_index()


def smallest_budgets(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a `budget_table` that keep each of `SHARES` with the fewest frames."""
    import pandas as pd

    curves, parts = (table["frames"] == 1).cumsum(), []
    for share in SHARES:
        enough = table[table["mean"] >= share - _SLACK].groupby(curves).head(1)
        parts.append(enough.assign(share=share))
    return pd.concat(parts, ignore_index=True)[["share", *table.columns]]


def drop_table(captures: Capture | Iterable[Capture], cache: tuple[int, int]) -> pd.DataFrame:
    """Return what a cache of so many sinks and recent key frames keeps, ``mean``, and drops."""
    table = budget_table(captures, sink=cache[0])
    table = table[(table["policy"] == POLICIES[0]) & (table["frames"] <= sum(cache))]
    table = table.groupby((table["frames"] == 1).cumsum()).tail(1).drop(columns="policy")
    return table.assign(dropped=1 - table["mean"]).reset_index(drop=True)


def rank_keys(seen: npt.NDArray[np.bool_], sink: int) -> npt.NDArray[np.int64]:
    """Return in which order a cache takes the keys of each row: sinks, from the last on, unseen."""
    place, count = np.cumsum(seen, axis=1) - 1, seen.sum(axis=1, keepdims=True)
    rank = np.where(place < sink, place, sink + count - 1 - place)
    return np.where(seen, rank, count + np.cumsum(~seen, axis=1) - 1)


def _keep(capture: Capture, head: int, sink: int) -> npt.NDArray[np.float64]:
    """Return the share that caches keep of each block with a value, [policy, block, frames]."""
    matrix = _read_masses(capture, head)
    frames = sorted({*capture.query_frames, *capture.key_frames})
    ends = range(1, len(frames)) if capture.block_sizes is None else np.cumsum(capture.block_sizes)
    blocks = np.searchsorted(ends, np.searchsorted(frames, capture.query_frames), side="right")
    asked = np.nansum(matrix, axis=1) > 0
    matrix, blocks = matrix[asked], blocks[asked]
    seen = ~np.isnan(matrix)
    values = np.where(seen, matrix, 0.0)
    recent = np.take_along_axis(values, rank_keys(seen, sink).argsort(axis=1), axis=1)
    kept = np.cumsum([recent, -np.sort(-values, axis=1)], axis=2)
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    sums = np.add.reduceat(kept / kept[..., -1:], starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=len(blocks))[:, None])


def _read_masses(capture: Capture, head: int) -> npt.NDArray[np.float64]:
    """Return the matrix of a head; refuse what is no mass of all queries."""
    if capture.statistic != "mass":
        raise CaptureError(
            f"{capture.source}: holds {capture.statistic}, expected masses, token by token, which "
            "nothing pooled gives; record them with headgrid record --statistic mass, or "
            "record(model, statistic='mass')"
        )
    matrix = capture.head_matrix(head).astype(np.float64)
    low, high = np.fmin.reduce(matrix, axis=None), np.nansum(matrix, axis=1).max()
    if low < 0 or high > 1 + _EXCESS:
        raise CaptureError(
            f"{capture.source}: head {head} has masses from {low:.3g}, and up to {high:.4g} in a "
            "row, expected 0 to 1, as a softmax leaves them; correct the values, or the statistic"
        )
    return matrix
