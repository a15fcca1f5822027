"""The rules of roles, held against their definitions written out once more, and planted heads."""

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, HeadgridWarning, OptionError, head_roles
from headgrid.survey.rules import find_periods


def roles_of(rows, rule, statistic="logit", **parameters):
    """Return roles and margins of the heads of one capture of last-block rows."""
    capture = Capture.from_array(last_block=rows, statistic=statistic)
    table = head_roles(headgrid.survey(capture), rule, **parameters)
    return table["role"].tolist(), table["margin"].to_numpy()


# the definitions, from their words alone


def period_by_definition(row):
    difference = row[1:] - row[:-1]
    n = len(difference)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1))
    size = np.abs(np.fft.rfft((difference - difference.mean()) * window))
    periods = {k: n / k for k in range(1, len(size))}
    best, found = -1.0, None
    for k, period in periods.items():
        if 3 <= period <= n / 6:
            score = size[k]
            for times, weight in ((2, 0.5), (3, 0.25), (4, 0.125)):
                aim = times * period
                near = [size[j] for j, p in periods.items() if abs(p - aim) <= 0.2 * aim + 1e-9]
                score += weight * max(near, default=0.0)
            if score > best:
                best, found = score, period
    return found


def sign_period_by_definition(row):
    kept = row[:-3]
    if np.sum(kept > 0) / len(kept) >= 0.8:
        return "Anchor"
    if np.sum(kept <= 0) / len(kept) >= 0.8:
        return "Veil"
    if period_by_definition(kept) < 6.4:
        return "Wave"
    return "Anchor" if kept.mean() > 0 else "Veil"


def three_mass_by_definition(rows):
    first, middle = rows[:, 0] / rows[:, 0].sum(), rows[:, 1:-3].sum(1) / rows[:, 1:-3].sum()
    smallest = sorted(range(len(rows)), key=lambda head: max(first[head], middle[head]))
    current = smallest[: len(rows) // 2]
    return [
        "current" if head in current else "first" if first[head] >= middle[head] else "middle"
        for head in range(len(rows))
    ]


@pytest.mark.parametrize("frames", [22, 30, 60, 72, 129])
def test_every_rule_gives_the_labels_of_its_definition(frames):
    random = np.random.default_rng(frames)
    rows = random.normal(random.normal(0, 0.5, (120, 1)), 1, (120, frames))
    rows += 2 * np.sin(2 * np.pi * np.arange(frames) / random.uniform(3, 20, (120, 1)))
    expected = [sign_period_by_definition(row) for row in rows]
    assert roles_of(rows, "sign-period")[0] == expected
    assert set(expected) >= {"Anchor", "Wave"}

    masses = np.exp(2 * rows)
    masses[:60, -4:] *= 50
    masses /= masses.sum(axis=1, keepdims=True)
    recent = masses[:, -4:].sum(1) / masses[:, 1:].sum(1)
    labels, margins = roles_of(masses, "recent-mass", "mass")
    assert labels == ["static" if share >= 0.8 else "dynamic" for share in recent]
    np.testing.assert_allclose(margins, np.abs(recent - 0.8), atol=1e-12)
    assert roles_of(masses, "three-mass", "mass")[0] == three_mass_by_definition(masses)
    scores = rows[:, 0] - rows[:, 1:-1].mean(1)
    assert (
        roles_of(rows, "sink", threshold=0.5)[0] == np.where(scores > 0.5, "sink", "other").tolist()
    )


@pytest.mark.parametrize("seed", range(200))
def test_planted_heads_are_found_in_noise(seed):
    random, frames = np.random.default_rng(seed), np.arange(150)
    period = float(random.uniform(3.3, 20))
    if 5.6 < period < 7.4:  # nearer to the border than two lines of the spectrum
        period = 4.0
    wave = 3 * np.sin(2 * np.pi * frames / period + random.uniform(0, 6))
    planted = [0.6 * (frames == 0) * 10 + 1, 0 * frames - 1.0, wave + 0.5, 0 * frames + 1.0]
    rows = np.array(planted) + random.normal(0, 0.3, (4, len(frames)))
    found, _ = roles_of(rows, "sign-period")
    assert found == ["Anchor", "Veil", "Wave" if period < 6.4 else "Anchor", "Anchor"]
    assert roles_of(rows, "sink", threshold=2.0)[0][:2] == ["sink", "other"]

    recent = np.where(frames >= 146, 4.0, -1.0)
    sink, uniform = np.where(frames == 0, 7.0, 0.0), 0.0 * frames
    masses = np.exp(np.array([recent, sink, uniform, recent]) + random.normal(0, 0.1, (4, 150)))
    masses /= masses.sum(axis=1, keepdims=True)
    found, _ = roles_of(masses, "recent-mass", "mass", share=0.7)
    assert found == ["static", "dynamic", "dynamic", "static"]
    found, _ = roles_of(masses, "three-mass", "mass")
    assert found == ["current", "first", "middle", "current"]


@pytest.mark.parametrize(("period", "longest"), [(3.5, 3.7), (5, 5.3), (9, 9.6), (15, 16.5)])
def test_the_period_of_a_wave_is_that_of_the_nearest_line(period, longest):
    frames = np.arange(120)
    wave = np.cos(2 * np.pi * frames / period)[None]
    found = find_periods(wave, frames)[0]
    assert 0.94 * period <= found <= longest
    assert find_periods(wave, 2 * frames)[0] == 2 * found


def test_margins_are_distances_to_the_border_that_decides():
    frames = np.arange(63)
    odd = np.where(frames < 50, 1.0, -1.0)  # 50 of 60 are positive
    wave = np.sin(2 * np.pi * frames / 5)
    slow = np.where(frames % 20 < 10, 3.0, -1.0)
    labels, margins = roles_of([odd, -odd, wave, slow], "sign-period")
    assert labels == ["Anchor", "Veil", "Wave", "Anchor"]
    period = period_by_definition(wave[:60])
    np.testing.assert_allclose(margins, [50 / 60 - 0.8, 50 / 60 - 0.8, 6.4 - period, 1.0])

    rows = np.array([[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4], [0.3, 0.1, 0.3, 0.3]])
    labels, margins = roles_of(rows, "three-mass", "mass", own=2)
    assert labels == ["middle", "current", "first"]
    first, middle = rows[:, 0] / 0.8, rows[:, 1] / 0.6
    assert margins[0] == pytest.approx(middle[0] - first[0])
    assert margins[1] == pytest.approx(first[2] - middle[1])
    assert margins[2] == pytest.approx(min(first[2] - middle[2], first[2] - middle[1]))


def test_a_border_itself_belongs_to_the_role_beyond_it_and_zero_is_not_positive():
    row = np.tile([1.0, 1.0, 1.0, 1.0, 0.0], 12)  # 48 of 60 are positive
    rows = np.append(np.stack([row, -(row - 1), row - 1]), np.ones((3, 3)), axis=1)
    labels, margins = roles_of(rows, "sign-period")
    assert labels[0] == "Anchor"
    assert labels[1:] == ["Veil", "Veil"]
    assert margins[:2].tolist() == [0.0, 0.0]
    masses = np.array(
        [[0.5, 0.125, 0.125, 0.125, 0.125, 0.125], [0.5, 0.25, 0.25, 0.25, 0.0, 0.25]]
    )
    assert roles_of(masses, "recent-mass", "mass")[0] == ["static", "dynamic"]
    assert roles_of(masses, "recent-mass", "mass", share=0.75)[0] == ["static", "static"]
    same = np.array([[0.5, 0.5, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0]])
    assert roles_of(same, "three-mass", "mass")[0] == ["current", "first"]
    assert roles_of(np.array([[2.0, 1.0, 5.0]]), "sink", threshold=1.0)[0] == ["other"]


@pytest.mark.filterwarnings("ignore:.*no visible value")
def test_a_head_without_visible_values_has_no_role_and_one_that_sees_less_goes_by_what_it_sees():
    rows = np.ones((3, 30))
    rows[1], rows[2, :10] = np.nan, np.nan
    labels, margins = roles_of(rows, "sign-period")
    assert pd.isna(labels[1])
    assert np.isnan(margins[1])
    assert [labels[0], labels[2]] == ["Anchor", "Anchor"]
    assert pd.isna(roles_of(rows, "sink")[0][2])  # key frame 0 is not there


def test_the_last_query_frame_counts_where_there_is_a_matrix():
    matrix = -np.ones((1, 12, 12))
    matrix[0, -1] = 1.0  # the mean over the last block is negative
    capture = Capture.from_array(matrix, block_sizes=[3] * 4)
    assert head_roles(headgrid.survey(capture))["role"].tolist() == ["Anchor"]
    matrix = np.full((1, 14, 14), -1.0)
    matrix[0, 11], matrix[0, 12:] = 1.0, np.nan  # frames 12 and 13 were never recorded
    matrix[0, :, 12:] = np.nan
    with pytest.warns(HeadgridWarning, match="beyond the last block"):
        assert (
            head_roles(headgrid.survey(Capture.from_array(matrix, block_sizes=[3] * 4)))["role"][0]
            == "Anchor"
        )


def test_too_few_keys_are_told():
    row = np.tile([3.0, -1.0], 11)[None, :21]
    told = "expected 22 visible keys at even steps, to find a period"
    with pytest.warns(HeadgridWarning, match=told):
        assert roles_of(row, "sign-period")[0] == ["Anchor"]
    wave = np.tile([2.0, 1.0, -3.0, 1.0], 18)[None]
    assert roles_of(wave, "sign-period")[0] == ["Wave"]
    wave[:, 1:12] = np.nan  # a sink and a window
    with pytest.warns(HeadgridWarning, match=told):
        roles_of(wave, "sign-period")
    runs = [headgrid.Capture.from_array(last_block=row, run=run) for run in "abc"]
    with pytest.warns(HeadgridWarning, match=told) as warned:
        headgrid.head_roles(headgrid.survey(runs))
    assert len(warned) == 1
    for rule, statistic, least in (
        ("sign-period", "logit", 4), ("recent-mass", "mass", 6), ("three-mass", "mass", 5),
    ):  # fmt: skip
        with pytest.raises(
            CaptureError, match=f"{least - 1} visible keys, expected at least {least}"
        ):
            roles_of(np.ones((1, least - 1)), rule, statistic)


@pytest.mark.parametrize(
    ("rule", "found", "needed"),
    [("sign-period", "mass", "logit"), ("recent-mass", "logit", "mass"),
     ("three-mass", "max_logit", "mass"), ("recent-mass", "mass_std", "mass")],
)  # fmt: skip
def test_a_rule_refuses_another_statistic_and_says_how_to_record_its_own(rule, found, needed):
    text = rf'{rule}: the captures hold {found}, expected {needed}; .*\(statistic="{needed}"\)'
    with pytest.raises(CaptureError, match=text + f".*--statistic {needed}"):
        roles_of(np.ones((1, 30)), rule, found)


@pytest.mark.parametrize(
    ("rule", "parameters", "text"),
    [("sign-period", {"shar": 1}, "parameter of sign-period is 'shar', .* did you mean 'share'"),
     ("sign-period", {"share": 2}, "share of sign-period is 2, expected a share"),
     ("sign-period", {"own": 1.5}, "own of sign-period is 1.5, expected a number"),
     ("recent-mass", {"recent": -1}, "recent of recent-mass is -1, expected a number"),
     ("sink", {"threshold": float("nan")}, "threshold of sink is nan, expected a number"),
     ("sinks", {}, "rule is 'sinks', .* did you mean 'sink'")],
)  # fmt: skip
def test_parameters_that_can_not_be_are_refused(rule, parameters, text):
    statistic = "mass" if rule == "recent-mass" else "logit"
    with pytest.raises(OptionError, match=text):
        roles_of(np.ones((1, 30)), rule, statistic, **parameters)
