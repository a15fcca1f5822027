"""Scores of many runs -> how stable they are over runs, and how sets of runs agree.

Where a number is undefined (one run, one head, nothing varies) it is NaN, not
an error: a survey asks for many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.errors import OptionError


class RankAgreement(NamedTuple):
    """How alike two sets rank the same items."""

    set_a: str
    set_b: str
    rho: float
    items: int


def icc_oneway(scores: npt.ArrayLike) -> float:
    """Return the intraclass correlation ICC(1,1): one-way random effects, single scores.

    The share of all variance that is between targets, here heads, rather than
    between runs of one head: 1 where every run gives a head the same score, 0
    where a head's scores differ as much as those of different heads. With the
    mean squares between targets (BMS) and within them (WMS) of a one-way
    analysis of variance over ``a`` targets with ``n_i`` runs, ``N`` scores in all,

        ICC(1,1) = (BMS - WMS) / (BMS + (k0 - 1) WMS)
        k0 = (N - sum(n_i^2) / N) / (a - 1)

    where ``k0`` is the number of runs if every target has the same.

    Parameters
    ----------
    scores : array, shape (targets, runs)
        Scores in one unit; what is not finite counts as missing.

    Returns
    -------
    float
        From ``-1 / (k0 - 1)`` to 1; below 0 where targets are more alike than
        chance makes them. NaN for fewer than two targets, where no target has
        two runs, and where nothing varies.

    Raises
    ------
    OptionError
        Where ``scores`` does not have two axes.

    References
    ----------
    Shrout, P. E., Fleiss, J. L. (1979). Intraclass correlations: uses in
    assessing rater reliability. Psychological Bulletin 86(2), 420-428.
    For ``k0``: Donner, A. (1986). A review of inference procedures for the
    intraclass correlation coefficient in the one-way random effects model.
    International Statistical Review 54(1), 67-82.

    Examples
    --------
    The six targets and four judges of Shrout and Fleiss, table 2:

    >>> ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9]]
    >>> round(icc_oneway([*ratings, [6, 2, 4, 7]]), 2)
    0.17
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise OptionError(f"scores has shape {values.shape}, expected (targets, runs)")
    seen = np.isfinite(values)
    count = seen.sum(axis=1)
    # Deviations from one of the target's own scores: equal scores give exactly 0.
    largest = np.where(seen, values, -np.inf).max(axis=1, initial=-np.inf)
    origin = np.where(count > 0, largest, 0.0)
    shifted = np.where(seen, values, origin[:, None]) - origin[:, None]
    offset = shifted.sum(axis=1) / np.maximum(count, 1)
    m2 = np.where(seen, (shifted - offset[:, None]) ** 2, 0.0).sum(axis=1)
    return icc_from_moments(count, origin + offset, m2)


def icc_from_moments(count: npt.ArrayLike, mean: npt.ArrayLike, m2: npt.ArrayLike) -> float:
    """Return the same as `icc_oneway` from the moments of each target over its runs.

    Parameters
    ----------
    count : array of int, shape (targets,)
        Number of runs.
    mean, m2 : array, shape (targets,)
        Their mean (of any value where the count is 0) and the sum of their
        squared deviations from it, as `moments.Moments` has them.

    Returns
    -------
    float
        NaN where `icc_oneway` gives NaN.

    Raises
    ------
    OptionError
        Where the three do not have one axis of the same length.

    Examples
    --------
    >>> icc_from_moments([2, 2], [1.0, 5.0], [0.0, 0.0])
    1.0
    """
    counts = np.asarray(count, dtype=np.float64)
    means, squares = np.asarray(mean, dtype=np.float64), np.asarray(m2, dtype=np.float64)
    if counts.ndim != 1 or not counts.shape == means.shape == squares.shape:
        raise OptionError(
            f"count, mean and m2 have shapes {counts.shape}, {means.shape} and {squares.shape}, "
            "expected (targets,) each"
        )
    filled = counts > 0
    counts, means, squares = counts[filled], means[filled], squares[filled]
    targets, total = len(counts), float(counts.sum())
    if targets < 2 or total <= targets:
        return float("nan")
    from_first = means - means[0]  # equal means give exactly 0
    from_mean = from_first - (counts * from_first).sum() / total
    between = float((counts * from_mean**2).sum()) / (targets - 1)
    within = float(squares.sum()) / (total - targets)
    runs = (total - float((counts**2).sum()) / total) / (targets - 1)
    whole = between + (runs - 1) * within
    return (between - within) / whole if whole > 0 else float("nan")


def rank_agreement(scores: Mapping[str, npt.ArrayLike]) -> list[RankAgreement]:
    """Return Spearman's rank correlation of every pair of sets.

    The Pearson correlation of the ranks, equal scores sharing the mean of
    their ranks (Spearman 1904).

    Parameters
    ----------
    scores : mapping of str to array, shape (items,)
        For each set one score an item, such as a head's mean sink score; the
        same items in the same order in every set. An item that is not finite
        in one of two sets is left out of that pair.

    Returns
    -------
    list of RankAgreement
        ``(set_a, set_b, rho, items)``, the sets in the order of the mapping,
        ``rho`` from -1 to 1 and ``items`` the number that both sets have.
        ``rho`` is NaN for fewer than two items, and where one set gives all
        items the same score.

    Raises
    ------
    OptionError
        Where the sets do not have the same number of items on one axis.

    References
    ----------
    Spearman, C. (1904). The proof and measurement of association between two
    things. American Journal of Psychology 15(1), 72-101.

    Examples
    --------
    >>> rank_agreement({"cats": [0.1, 0.5, 3.0], "dogs": [1.0, 2.0, 9.0]})
    [RankAgreement(set_a='cats', set_b='dogs', rho=1.0, items=3)]
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    first = next(iter(shapes.items()), ("", (0,)))
    for name, shape in shapes.items():
        if len(shape) != 1 or shape != first[1]:
            raise OptionError(
                f"scores of set {name!r} have shape {shape}, those of set {first[0]!r} "
                f"{first[1]}; expected (items,), the same items in every set"
            )
    rows = []
    for (set_a, a), (set_b, b) in combinations(arrays.items(), 2):
        both = np.isfinite(a) & np.isfinite(b)
        rho = _correlate(_rank(a[both]), _rank(b[both]))
        rows.append(RankAgreement(set_a, set_b, rho, int(both.sum())))
    return rows


def _rank(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the ranks, 1 for the smallest; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])


def _correlate(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the Pearson correlation of two rankings; exact sums, as ranks are halves."""
    center = (len(a) + 1) / 2
    a, b = a - center, b - center
    scale = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / scale**0.5 if scale > 0 else float("nan")
