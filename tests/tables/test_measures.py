import importlib
import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, OptionError, head_statistics, layer_statistics, load_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.tables.measures import (
    MEASURES,
    Summary,
    dominant_periods,
    measure_heads,
    measure_table,
)
from synthetic import block_capture, waves


def period_by_hand(frames, values):
    """Return the dominant period of one row with a Fourier sum written out."""
    steps = {b - a for a, b in pairwise(frames)}
    if len(frames) < 5 or len(steps) != 1:
        return math.nan
    count = len(frames) - 1
    changes = [
        (values[i + 1] - values[i]) * (0.5 - 0.5 * math.cos(2 * math.pi * i / (count - 1)))
        for i in range(count)
    ]
    powers = []
    for k in range(1, count // 2 + 1):
        angles = [2 * math.pi * k * i / count for i in range(count)]
        real = sum(c * math.cos(a) for c, a in zip(changes, angles, strict=True))
        imaginary = sum(c * math.sin(a) for c, a in zip(changes, angles, strict=True))
        powers.append(real**2 + imaginary**2)
    if max(powers) == 0:
        return math.nan
    return count * steps.pop() / (powers.index(max(powers)) + 1)


def mean(values):
    return sum(values) / len(values) if len(values) else math.nan


def measures_by_hand(capture, head, recent_keys=4):
    """Return the measures of one head in plain Python, pair by pair."""
    block_of = {}
    frames = sorted({*capture.query_frames, *capture.key_frames})
    for number, size in enumerate(capture.block_sizes or [len(frames)]):
        for _ in range(size):
            block_of[frames[len(block_of)]] = number
    row = [
        (frame, float(value))
        for frame, value in zip(
            capture.key_frames, capture.last_block_frame_attention[head], strict=True
        )
        if not math.isnan(value)
        and block_of[frame] <= max(block_of[q] for q in capture.last_block_query_frames)
    ]
    pairs = {
        h: [
            (query, key, float(capture.full_frame_attention[h, i, j]))
            for i, query in enumerate(capture.query_frames)
            for j, key in enumerate(capture.key_frames)
            if block_of[key] <= block_of[query]
            and not math.isnan(capture.full_frame_attention[h, i, j])
        ]
        for h in range(capture.num_heads)
    }
    everything = [pair for of_head in pairs.values() for pair in of_head]
    values = [value for _, value in row]
    first = dict(row).get(0, math.nan)
    mid = mean(values[1:-1])
    others = [value for frame, value in row if frame != 0]
    recent, middle = others[-recent_keys:], others[:-recent_keys]
    entropy = math.nan
    if capture.statistic == "mass":
        shares = [value / sum(values) for value in values]
        entropy = -sum(p * math.log(p) for p in shares if p > 0)
    return {
        "first": first,
        "mid": mid,
        "last": values[-1],
        "sink": first - mid,
        "diagonal_mean": mean([v for q, k, v in everything if q == k]),
        "first_key_mean": mean([v for _, k, v in everything if k == 0]),
        "head_diagonal_mean": mean([v for q, k, v in pairs[head] if q == k]),
        "head_first_key_mean": mean([v for _, k, v in pairs[head] if k == 0]),
        "entropy": entropy,
        "effective_keys": math.exp(entropy),
        "positive_share": mean([value > 0 for value in values]),
        "sink_band": first,
        "middle_band": mean(middle),
        "recent_band": mean(recent),
        "sink_band_keys": len(values) - len(others),
        "middle_band_keys": len(middle),
        "recent_band_keys": len(recent),
        "period": period_by_hand([frame for frame, _ in row], values),
    }


def assert_equal_to_those_by_hand(capture, **options):
    found = measure_heads(capture, **options)
    assert list(found) == list(MEASURES)
    for head in range(capture.num_heads):
        for name, expected in measures_by_hand(capture, head, **options).items():
            assert found[name].dtype == np.float64
            close = pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
            assert found[name][head] == close, (name, head)


def random_capture(seed, blocks, *, statistic="logit", unrecorded=0.0, **options):
    random = np.random.default_rng(seed)
    frames = sum(blocks)
    values = random.normal(0, 5, size=(4, frames, frames))
    if statistic == "mass":
        values = np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)
    values[random.random(values.shape) < unrecorded] = np.nan
    values[:, -1, -1] = 1.0
    return Capture.from_array(values, block_sizes=blocks, statistic=statistic, **options)


@pytest.mark.parametrize("statistic", ["logit", "mass"])
@pytest.mark.parametrize("blocks", [(3, 3, 3), (1, 3, 3, 3), (5,), (1, 1, 1, 1, 1, 1), (2, 20)])
def test_measures_equal_those_computed_pair_by_pair(blocks, statistic):
    for seed in range(3):
        assert_equal_to_those_by_hand(random_capture(seed, blocks, statistic=statistic))


@pytest.mark.parametrize("unrecorded", [0.1, 0.5, 0.8])
def test_heads_that_see_different_keys_are_measured_each_on_its_own(unrecorded):
    for seed in range(4):
        capture = random_capture(seed, (2, 2, 2, 2), unrecorded=unrecorded)
        assert_equal_to_those_by_hand(capture, recent_keys=2)


def test_frame_numbers_with_a_step_and_without_frame_0_are_measured_too():
    for frames in (range(0, 18, 3), range(2, 14, 2), [0, 1, 2, 3, 5, 8]):
        capture = random_capture(1, (2, 2, 2), query_frames=frames, key_frames=frames)
        assert_equal_to_those_by_hand(capture)


@pytest.mark.parametrize("recent_keys", [1, 3, 5, 6, 7, 50])
def test_the_bands_part_the_visible_keys_without_overlap(recent_keys):
    capture = block_capture(2, (3, 3))
    assert_equal_to_those_by_hand(capture, recent_keys=recent_keys)
    found = measure_heads(capture, recent_keys=recent_keys)
    widths = [found[f"{band}_band_keys"][0] for band in ("sink", "middle", "recent")]
    assert widths == [1.0, max(0, 5 - recent_keys), min(5, recent_keys)]


def test_real_captures_have_the_measures_computed_pair_by_pair(shared):
    for name in ("frames21/layer3", "frames21/layer28", "frames72/layer0"):
        assert_equal_to_those_by_hand(load_capture(shared / f"data/{name}.pt"))


def test_shared_names_hold_the_numbers_of_the_other_tables():
    capture = block_capture(3, (2, 3))
    found, heads = measure_heads(capture), head_statistics(capture)
    for name in ("first", "mid", "last", "sink"):
        assert found[name].tolist() == heads[name].tolist()
    layer = layer_statistics(capture).iloc[0]
    for name in ("diagonal_mean", "first_key_mean"):
        assert found[name].tolist() == [layer[name]] * 3


@pytest.mark.parametrize(
    ("row", "entropy"),
    [
        ([0.0, 7.0, 0.0, 0.0], 0.0),
        ([2.0, 2.0, 2.0, 2.0], math.log(4)),
        ([0.0, 0.0, 0.0, 0.0], math.nan),
        ([0.5, -0.1, 0.6, 0.0], math.nan),
    ],
    ids=["one key", "all alike", "zeros", "negative"],
)
def test_the_entropy_of_a_row_that_is_a_distribution_counts_its_keys(row, entropy):
    found = measure_heads(Capture.from_array(last_block=[row, [1.0, 1, 2, 3]], statistic="mass"))
    assert found["entropy"][0] == pytest.approx(entropy, nan_ok=True)
    assert found["effective_keys"][0] == pytest.approx(math.exp(entropy), nan_ok=True)
    assert not np.isnan(found["entropy"][1])


def test_only_masses_have_an_entropy():
    for statistic in {*STATISTICS} - {"mass"}:
        found = measure_heads(Capture.from_array(last_block=[[1.0, 2.0]], statistic=statistic))
        assert np.isnan([*found["entropy"], *found["effective_keys"]]).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(24, 90), st.integers(1, 4), st.integers(4, 12), st.floats(0, 6))
def test_the_period_of_a_wave_is_found_to_the_nearest_bin_or_the_next(count, step, period, phase):
    frames = step * np.arange(count)
    wave = np.sin(2 * np.pi * np.arange(count) / period + phase)
    found = dominant_periods([wave], frames)[0] / step
    bins = (count - 1) / found, (count - 1) / period
    assert abs(bins[0] - bins[1]) <= 0.75


def test_a_level_a_sink_and_the_scale_do_not_change_the_period():
    wave = np.sin(2 * np.pi * np.arange(25) / 4)
    rows = [wave, wave + 100.0 + 50.0 * (np.arange(25) == 0), wave * 1e-300, wave * 1e280]
    assert dominant_periods(rows, range(25)).tolist() == [4.0] * 4


@pytest.mark.parametrize(
    ("row", "frames", "period"),
    [
        ([1.0, -1.0] * 6 + [1.0], range(13), 2.0),
        ([1.0, -1.0] * 6 + [1.0], range(0, 39, 3), 6.0),
        # One change in the middle has the same power in every bin.
        ([0.0] * 6 + [1.0] * 7, range(13), 12.0),
    ],
    ids=["shortest", "steps of three frames", "all equally strong: the longest"],
)
def test_the_dominant_period_is_counted_in_frames(row, frames, period):
    assert dominant_periods([row], frames).tolist() == [period]


@pytest.mark.parametrize(
    ("row", "frames"),
    [
        ([1.0, 2.0, 1.0, 2.0], range(4)),
        ([1.0, 2.0, 1.0, 2.0, 1.0], [0, 1, 2, 3, 5]),
        ([3.0] * 8, range(8)),
        ([3.0] * 7 + [9.0], range(8)),
    ],
    ids=["four keys", "uneven frames", "constant", "only the last key"],
)
def test_there_is_no_period_without_regular_frames_that_vary(row, frames):
    assert np.isnan(dominant_periods([row], frames)).all()


def test_without_a_full_matrix_only_its_means_are_missing():
    found = measure_heads(Capture.from_array(last_block=waves(2, 1, 9)[:, 0]))
    missing = {name for name, values in found.items() if np.isnan(values).any()}
    means = {"diagonal_mean", "first_key_mean", "head_diagonal_mean", "head_first_key_mean"}
    assert missing == {*means, "entropy", "effective_keys"}


def test_a_row_without_a_visible_key_has_bands_of_no_keys():
    rows = [[1.0, 2.0], [np.nan, np.nan]]
    capture = Capture.from_array(waves(2, 2, 2), last_block=rows)
    found = measure_heads(capture)
    assert found["recent_band_keys"].tolist() == [1.0, 0.0]
    assert found["sink_band_keys"].tolist() == [1.0, 0.0]
    assert np.isnan(found["recent_band"][1])
    assert np.isnan(found["positive_share"][1])


@pytest.mark.parametrize("recent_keys", [0, -1, 2.5, "4", True, math.nan])
def test_the_recent_band_is_a_whole_number_of_keys(recent_keys):
    expected = r"recent_keys is .*, expected a whole number, at least 1"
    with pytest.raises(OptionError, match=expected):
        measure_heads(block_capture(), recent_keys=recent_keys)


def test_the_table_has_one_row_per_run_layer_and_head_unrounded():
    captures = [
        block_capture(2, (2, 3), layer=layer, run=run, scale=layer + 1.0)
        for run in ("run_1", "run_0")
        for layer in (4, 3)
    ]
    table = measure_table(iter(captures))
    assert list(table.columns) == ["set", "run", "layer", "head", "statistic", *MEASURES]
    assert table[["set", "run", "layer", "head", "statistic"]].to_numpy().tolist() == [
        ["", c.run, c.layer_index, head, "logit"] for c in captures for head in range(2)
    ]
    for position, capture in enumerate(captures):
        part = table.iloc[2 * position : 2 * position + 2]
        for name, values in measure_heads(capture).items():
            np.testing.assert_array_equal(part[name].to_numpy(), values)
    assert list(measure_table([]).columns) == list(table.columns)


def summary(name, statistic, key_name="Frame"):
    return Summary(pd.DataFrame(), name, statistic, key_name)


def test_titles_name_the_unit_and_tell_measures_apart():
    assert summary("sink", "logit").title == "Sink Score (logits)"
    assert summary("entropy", "mass").title == "Entropy of the Row (nats)"
    assert summary("positive_share", "logit").title == "Share of Positive Keys"
    for statistic in STATISTICS:
        assert len({summary(name, statistic).title for name in MEASURES}) == len(MEASURES)


def test_meanings_name_what_a_key_is():
    assert summary("sink_band", "logit", "Token").meaning.endswith("last-block row at key token 0")


def test_differences_diverge_always_and_values_where_the_statistic_does():
    for name in ("first", "mid", "last", "middle_band", "head_diagonal_mean"):
        assert summary(name, "logit").diverges
        assert not summary(name, "mass").diverges
        assert summary(name, "mass_difference").diverges
        assert not summary(name, "logit_std").diverges
    for statistic in STATISTICS:
        assert summary("sink", statistic).diverges
        assert not summary("entropy", statistic).diverges


def test_an_unknown_measure_is_refused_with_the_near_miss():
    with pytest.raises(OptionError, match=r"measure is 'sinks', expected .*did you mean 'sink'"):
        assert summary("sinks", "logit").title
    with pytest.raises(OptionError, match="expected one of first, mid"):
        assert summary("", "logit").diverges


_DIGEST = """
import hashlib, numpy as np
from headgrid import Capture
from headgrid.tables.measures import measure_heads
rows = np.random.default_rng(1).random((3000, 72))
for statistic in ("mass", "logit"):
    found = measure_heads(Capture.from_array(last_block=rows, statistic=statistic))
    print({name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in found.items()})
"""


def test_measures_have_the_same_bits_on_processors_with_fewer_instructions():
    core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
    umath = importlib.import_module(f"{core}._multiarray_umath")
    extensions = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]
    digests = {
        subprocess.check_output(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled},
        )
        for disabled in ("", " ".join(extensions))
    }
    assert len(digests) == 1
