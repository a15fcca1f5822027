"""Scores of heads over runs -> how stable they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def icc_oneway(count: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike) -> float:
    """Return the intraclass correlation ICC(1,1): one-way random effects, single scores.

    The share of all variance that is between targets, here heads, rather than
    between runs of one head: 1 where every run gives a head the same score, 0
    where a head's scores differ as much as those of different heads. With the
    mean squares between targets (BMS) and within them (WMS) of a one-way
    analysis of variance over ``a`` targets with ``n_i`` runs, ``N`` scores in all,

        ICC(1,1) = (BMS - WMS) / (BMS + (k0 - 1) WMS)
        k0 = (N - sum(n_i^2) / N) / (a - 1)

    where ``k0`` is the number of runs if every target has the same. Each array has
    shape (targets,): number of runs, their mean, and their standard deviation of
    the sample, of any value where there are too few runs for one.

    The result is at least ``-1 / (k0 - 1)``: targets can be more alike than chance
    makes them. It is NaN for fewer than two targets, where no target has two runs,
    and where nothing varies.

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
    >>> round(icc_oneway([4] * 6, scores.mean(axis=1), scores.std(axis=1, ddof=1)), 2)
    0.17
    """
    counts, means, deviations = (np.asarray(part, dtype=np.float64) for part in (count, mean, std))
    seen = counts > 0
    counts, means, deviations = counts[seen], means[seen], deviations[seen]
    targets, total = len(counts), float(counts.sum())
    if targets < 2 or total <= targets:
        return float("nan")
    squares = (counts - 1) * np.where(counts > 1, deviations, 0.0) ** 2
    from_first = means - means[0]  # equal means give exactly 0
    from_mean = from_first - (counts * from_first).sum() / total
    between = float((counts * from_mean**2).sum()) / (targets - 1)
    within = float(squares.sum()) / (total - targets)
    runs = (total - float((counts**2).sum()) / total) / (targets - 1)
    whole = between + (runs - 1) * within
    return (between - within) / whole if whole > 0 else float("nan")
