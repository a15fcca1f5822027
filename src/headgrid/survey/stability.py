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


class RankAgreement(NamedTuple):
    """How alike two sets rank the items that both have."""

    set_a: str
    set_b: str
    rho: float
    items: int


def icc_oneway(count: npt.ArrayLike, mean: npt.ArrayLike, m2: npt.ArrayLike) -> float:
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
    count : array of int, shape (targets,)
        Number of runs.
    mean, m2 : array, shape (targets,)
        Their mean (of any value where the count is 0) and the sum of their
        squared deviations from it, as `headgrid.survey.moments.Moments` has them.

    Returns
    -------
    float
        From ``-1 / (k0 - 1)`` to 1; below 0 where targets are more alike than
        chance makes them. NaN for fewer than two targets, where no target has
        two runs, and where nothing varies.

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
    >>> scores = np.array([*ratings, [6, 2, 4, 7]])
    >>> round(icc_oneway([4] * 6, scores.mean(axis=1), 4 * scores.var(axis=1)), 2)
    0.17
    """
    counts = np.asarray(count, dtype=np.float64)
    means, squares = np.asarray(mean, dtype=np.float64), np.asarray(m2, dtype=np.float64)
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


def rank_agreement(scores: Mapping[str, npt.NDArray[np.float64]]) -> list[RankAgreement]:
    """Return Spearman's rank correlation of every pair of sets.

    Parameters
    ----------
    scores : mapping of str to array, shape (items,)
        For each set one score an item, such as a head's mean sink score; the
        same items in the same order in every set. An item that is NaN in one of
        two sets is left out of that pair.

    Returns
    -------
    list of RankAgreement
        In the order of the mapping, ``rho`` from -1 to 1; NaN for fewer than two
        items, and where one set gives all items the same score.

    Examples
    --------
    >>> rank_agreement({"cats": [0.1, 0.5, 3.0], "dogs": [1.0, 2.0, 9.0]})
    [RankAgreement(set_a='cats', set_b='dogs', rho=1.0, items=3)]
    """
    import pandas as pd

    frame = pd.DataFrame(scores, dtype=np.float64)
    rho, seen = frame.corr(method="spearman").to_numpy(), frame.notna().to_numpy()
    return [
        RankAgreement(set_a, set_b, float(rho[a, b]), int((seen[:, a] & seen[:, b]).sum()))
        for (a, set_a), (b, set_b) in combinations(enumerate(scores), 2)
    ]
