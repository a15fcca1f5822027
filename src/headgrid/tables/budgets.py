"""Masses -> the share of them that a cache keeps: sinks and recent key frames, or the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headgrid.capture.form import AXES, expect_alike
from headgrid.capture.model import Capture, expect_capture
from headgrid.errors import CaptureError, OptionError, show_value

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

#: Which key frames a cache of so many keeps; shares of the mass whose smallest caches are told.
POLICIES, SHARES = ("sink+recent", "best"), (0.9, 0.95, 0.99)
#: What rounding may take from a share, and add to the sum of a row.
_SLACK, _EXCESS = 1e-9, 0.05


def budget_table(
    captures: Capture | Iterable[Capture], *, sink: int = 1, pooled: bool = False
) -> pd.DataFrame:
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
    pooled : bool
        Count all captures of a layer, which have to be alike, together. They have no run then.

    Returns
    -------
    DataFrame
        ``run``, ``layer``, ``head``, ``policy``, ``frames`` (kept of the key frames, 1 to all),
        ``blocks`` (of query frames), and over these in float64, 0 to 1, ``mean``, ``std`` (with
        n - 1) and ``least``; NaN where there is no such value.

    Examples
    --------
    >>> capture = Capture.from_array([[[0.5, 0.1, 0.4]]], statistic="mass")
    >>> budget_table(capture).groupby("policy")["mean"].agg(list).to_dict()
    {'best': [0.5, 0.9, 1.0], 'sink+recent': [0.5, 0.9, 1.0]}
    """
    import pandas as pd

    if isinstance(sink, bool) or not isinstance(sink, int) or sink < 0:
        raise OptionError(f"sink is {show_value(sink)}, expected a whole number, 0 or more")
    groups: dict[int, list[Capture]] = {}
    for number, capture in enumerate([captures] if isinstance(captures, Capture) else captures):
        expect_capture(capture)
        groups.setdefault(capture.layer_index if pooled else number, []).append(capture)
    if not groups:
        raise CaptureError("there is no capture, expected at least one, of masses")
    parts = []
    for group in groups.values():
        expect_alike(group, "captures of one layer to share them", ("num_heads", *AXES))
        first = group[0]
        kept = np.stack([_measure(group, head, sink) for head in range(first.num_heads)], axis=1)
        head, policy, frames = (n.reshape(-1) for n in np.indices(kept.shape[1:]))
        part = {"run": "" if pooled else first.run, "layer": first.layer_index, "head": head}
        part |= {"policy": np.array(POLICIES)[policy], "frames": frames + 1}
        part |= dict(zip(("blocks", "mean", "std", "least"), kept.reshape(4, -1), strict=True))
        parts.append(pd.DataFrame(part).astype({"blocks": "int64"}))
    return pd.concat(parts, ignore_index=True)


def smallest_budgets(table: pd.DataFrame, *, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return the smallest cache of each head that keeps shares of its mass.

    Of a `budget_table`, for each of the ``shares``, above 0 and up to 1, and each run, layer, head
    and policy the row of the smallest cache whose mean is at least the share, behind the
    share. A head without a value has none; an `OptionError` where a share is none.

    >>> table = budget_table(Capture.from_array([[[0.1, 0.5, 0.4]]], statistic="mass"))
    >>> smallest_budgets(table, shares=[0.9])[["share", "policy", "frames"]].values.tolist()
    [[0.9, 'sink+recent', 3], [0.9, 'best', 2]]
    """
    import pandas as pd

    parts, curves = [], (table["frames"] == 1).cumsum()
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise OptionError(f"share is {show_value(share)}, expected above 0, and 1 at most")
        found = table[table["mean"] >= share - _SLACK].groupby(curves).head(1)
        parts.append(found.assign(share=share)[["share", *table.columns]])
    return pd.concat(parts, ignore_index=True)


def drop_table(captures: Capture | Iterable[Capture], cache: tuple[int, int]) -> pd.DataFrame:
    """Return what a cache of so many sinks and recent key frames keeps, ``mean``, and drops."""
    table = budget_table(captures, sink=cache[0])
    most = table.groupby((table["frames"] == 1).cumsum())["frames"].transform("max")
    table = table[
        (table["policy"] == POLICIES[0]) & (table["frames"] == most.clip(upper=sum(cache)))
    ]
    return table.drop(columns="policy").assign(dropped=1 - table["mean"]).reset_index(drop=True)


def rank_keys(seen: npt.NDArray[np.bool_], sink: int) -> npt.NDArray[np.int64]:
    """Return in which order a cache takes the keys of each row: sinks, from the last on, unseen."""
    place, count = np.cumsum(seen, axis=1) - 1, seen.sum(axis=1, keepdims=True)
    rank = np.where(place < sink, place, sink + count - 1 - place)
    return np.where(seen, rank, count + np.cumsum(~seen, axis=1) - 1)


def _measure(group: Sequence[Capture], head: int, sink: int) -> Values:
    """Return number, mean, std and least of what is kept of all blocks, [4, policy, frames]."""
    shares = np.concatenate([_keep(capture, head, sink) for capture in group], axis=1)
    count = shares.shape[1]
    found = np.full((4, 2, shares.shape[2]), np.nan)
    found[0] = count
    if count:
        found[1], found[3] = shares.mean(axis=1), shares.min(axis=1)
    if count > 1:
        found[2] = shares.std(axis=1, ddof=1)
    return found


def _keep(capture: Capture, head: int, sink: int) -> Values:
    """Return the share that caches keep of each block with a value, [policy, block, frames]."""
    matrix = _read_masses(capture, head)
    frames = sorted({*capture.query_frames, *capture.key_frames})
    ends = range(1, len(frames)) if capture.block_sizes is None else np.cumsum(capture.block_sizes)
    blocks = np.searchsorted(ends, np.searchsorted(frames, capture.query_frames), side="right")
    asked = np.nansum(matrix, axis=1) > 0
    matrix, blocks = matrix[asked], blocks[asked]
    seen = ~np.isnan(matrix)
    values, ordered = np.where(seen, matrix, 0.0), np.empty((2, *matrix.shape))
    np.put_along_axis(ordered[0], rank_keys(seen, sink), values, axis=1)
    ordered[1] = -np.sort(-values, axis=1)
    kept = np.cumsum(ordered, axis=2)
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    sums = np.add.reduceat(kept / kept[..., -1:], starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=len(blocks))[:, None])


def _read_masses(capture: Capture, head: int) -> Values:
    """Return the matrix of a head; refuse what is no mass of all queries."""
    if capture.statistic != "mass" or capture.full_frame_attention is None:
        found = "the last block's row alone" if capture.statistic == "mass" else capture.statistic
        raise CaptureError(
            f"{capture.source}: holds {found}, expected the mass of every query, token by token, "
            "which nothing pooled gives; record it with headgrid record --statistic mass, or "
            "record(model, statistic='mass')"
        )
    matrix = capture.head_matrix(head).astype(np.float64)
    low, high = np.fmin.reduce(matrix, axis=None), np.nansum(matrix, axis=1).max()
    if low < 0 or high > 1 + _EXCESS:
        found = f"a mass of {low:.3g}" if low < 0 else f"masses of {high:.4g} in a row"
        raise CaptureError(
            f"{capture.source}: head {head} has {found}, expected 0 to 1 in all, as a softmax "
            "leaves them; correct the values, or the statistic"
        )
    return matrix
