"""How stable heads are over runs: published, written out by hand, and where it is undefined."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, survey

# Shrout and Fleiss (1979), table 2: six targets, four judges. Their table 4 gives
# ICC(1,1) = .17 for it, from BMS = 11.24 and WMS = 6.26.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def icc(scores):
    """Return ICC(1,1) of scores [heads, runs] as a survey of such captures has it; NaN: missing."""
    captures = [
        Capture.from_array(last_block=[[score, 1.0] for score in run], run=f"run_{number}")
        for number, run in enumerate(np.asarray(scores, float).T)
    ]
    found = survey(captures).stability("first")
    assert found["icc"].nunique(dropna=False) == 1  # of the only layer, and of all layers
    return found["icc"].iloc[0]


def icc_by_hand(targets):
    """Return ICC(1,1) from an analysis of variance over lists of scores, written out."""
    targets = [scores for scores in targets if scores]
    a, total = len(targets), sum(len(scores) for scores in targets)
    grand = sum(sum(scores) for scores in targets) / total
    means = [sum(scores) / len(scores) for scores in targets]
    between_squares = sum(
        len(scores) * (mean - grand) ** 2 for scores, mean in zip(targets, means, strict=True)
    )
    all_squares = sum((score - grand) ** 2 for scores in targets for score in scores)
    bms = between_squares / (a - 1)
    wms = (all_squares - between_squares) / (total - a)
    k0 = (total - sum(len(scores) ** 2 for scores in targets) / total) / (a - 1)
    return (bms - wms) / (bms + (k0 - 1) * wms)


def test_the_published_example_is_reproduced():
    assert icc(RATINGS) == pytest.approx((11.2417 - 6.2639) / (11.2417 + 3 * 6.2639), rel=1e-4)
    assert round(icc(RATINGS), 2) == 0.17


def test_mean_squares_equal_those_of_scipys_analysis_of_variance():
    from scipy.stats import f_oneway

    random = np.random.default_rng(1)
    scores = random.normal(size=(12, 1)) + 0.7 * random.normal(size=(12, 9))
    f = f_oneway(*scores).statistic  # BMS / WMS
    assert icc(scores) == pytest.approx((f - 1) / (f + 9 - 1), rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=0, max_size=6), min_size=2, max_size=8).filter(
        lambda targets: sum(map(bool, targets)) >= 2 and max(map(len, targets)) >= 2
    ),
    st.integers(0, 99),
)
def test_unbalanced_scores_equal_the_analysis_written_out(targets, seed):
    random = np.random.default_rng(seed)
    targets = [[score + random.normal() for score in scores] for scores in targets]
    scores = np.full((len(targets), 8), np.nan)
    for row, values in zip(scores, targets, strict=True):
        row[random.permutation(8)[: len(values)]] = values
    assert icc(scores) == pytest.approx(icc_by_hand(targets), rel=1e-6, abs=1e-9)


def test_the_correlation_is_that_of_the_model_it_estimates():
    random = np.random.default_rng(3)
    scores = 3 * random.normal(size=(4000, 1)) + 4 * random.normal(size=(4000, 10))
    assert icc(scores) == pytest.approx(9 / 25, abs=0.02)


def test_heads_that_never_change_are_stable_and_those_that_change_together_are_not():
    assert icc([[0.1, 0.1, 0.1], [0.7, 0.7, 0.7]]) == 1.0
    assert icc([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]) == pytest.approx(-1 / 2)


def test_a_common_level_and_unit_do_not_matter():
    scores = np.array(RATINGS, float)
    for level, unit in ((1e9, 1.0), (-5.0, 1e-6), (0.0, 1e50)):
        assert icc(scores * unit + level) == pytest.approx(icc(RATINGS), rel=1e-6)


@pytest.mark.parametrize(
    "scores",
    [
        [[1.0, 2.0, 3.0]],
        [[1.0], [2.0], [3.0]],
        [[1.0, np.nan], [np.nan, 2.0]],
        [[0.1, 0.1, 0.1], [0.1, 0.1, np.nan]],
        [[np.nan, np.nan], [1.0, 2.0]],
        [[np.nan, np.nan], [np.nan, np.nan]],
    ],
    ids=["one head", "one run", "one run each", "no variance", "one head seen", "no head seen"],
)
def test_where_stability_is_undefined_it_is_nan(scores):
    assert math.isnan(icc(scores))
