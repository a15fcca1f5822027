import csv
import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, OptionError, head_statistics, layer_statistics, load_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.tables.measures import (
    MEASURES,
    dominant_periods,
    measure_diverges,
    measure_heads,
    measure_table,
    measure_title,
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
            assert found[name][head] == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), (
                name,
                head,
            )


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
    for seed in range(5):
        assert_equal_to_those_by_hand(random_capture(seed, blocks, statistic=statistic))


@pytest.mark.parametrize("unrecorded", [0.1, 0.5, 0.8])
def test_heads_that_see_different_keys_are_measured_each_on_its_own(unrecorded):
    for seed in range(8):
        capture = random_capture(seed, (2, 2, 2, 2), unrecorded=unrecorded)
        assert_equal_to_those_by_hand(capture, recent_keys=2)


def test_frame_numbers_with_a_step_and_without_frame_0_are_measured_too():
    for frames in ([0, 3, 6, 9, 12, 15], [2, 4, 6, 8, 10, 12], [0, 1, 2, 3, 5, 8]):
        capture = random_capture(1, (2, 2, 2), query_frames=frames, key_frames=frames)
        assert_equal_to_those_by_hand(capture)


@pytest.mark.parametrize("recent_keys", [1, 3, 5, 6, 7, 50])
def test_the_bands_part_the_visible_keys_without_overlap(recent_keys):
    capture = block_capture(2, (3, 3))
    assert_equal_to_those_by_hand(capture, recent_keys=recent_keys)
    found = measure_heads(capture, recent_keys=recent_keys)
    widths = [found[f"{band}_band_keys"][0] for band in ("sink", "middle", "recent")]
    assert widths == [1.0, max(0, 5 - recent_keys), min(5, recent_keys)]


def test_all_real_captures_have_the_measures_computed_independently(shared):
    for frames in (21, 72):
        for layer in range(30):
            capture = load_capture(shared / f"data/frames{frames}/layer{layer}.pt")
            found = measure_heads(capture)
            rows = capture.last_block_frame_attention.astype(np.float64)
            matrix = capture.full_frame_attention.astype(np.float64)
            diagonal = np.diagonal(matrix, axis1=1, axis2=2)
            window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames - 1) / (frames - 2))
            power = np.abs(np.fft.fft(np.diff(rows) * window))[:, 1 : (frames - 1) // 2 + 1] ** 2
            expected = {
                "first": rows[:, 0],
                "mid": rows[:, 1:-1].mean(axis=1),
                "last": rows[:, -1],
                "sink": rows[:, 0] - rows[:, 1:-1].mean(axis=1),
                "diagonal_mean": np.full(12, diagonal.mean()),
                "first_key_mean": np.full(12, matrix[:, :, 0].mean()),
                "head_diagonal_mean": diagonal.mean(axis=1),
                "head_first_key_mean": matrix[:, :, 0].mean(axis=1),
                "positive_share": (rows > 0).mean(axis=1),
                "sink_band": rows[:, 0],
                "middle_band": rows[:, 1:-4].mean(axis=1),
                "recent_band": rows[:, -4:].mean(axis=1),
                "sink_band_keys": np.ones(12),
                "middle_band_keys": np.full(12, frames - 5),
                "recent_band_keys": np.full(12, 4),
                "period": (frames - 1) / (power.argmax(axis=1) + 1),
            }
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-9)
            assert np.isnan(found["entropy"]).all()


def test_all_720_published_sink_scores_are_those_of_the_measures(shared):
    with (shared / "data/published_sink.csv").open() as file:
        published = list(csv.DictReader(file))
    assert len(published) == 720
    scores = {
        (frames, layer): measure_heads(
            load_capture(shared / f"data/frames{frames}/layer{layer}.pt")
        )["sink"]
        for frames in (21, 72)
        for layer in range(30)
    }
    for row in published:
        score = scores[int(row["frames"]), int(row["layer"])][int(row["head"])]
        assert f"{score:.2f}".replace("-0.00", "0.00") == row["sink"].replace("-0.00", "0.00")


def test_shared_names_hold_the_numbers_of_the_other_tables():
    capture = block_capture(3, (2, 3))
    found, heads = measure_heads(capture), head_statistics(capture)
    for name in ("first", "mid", "last", "sink"):
        assert found[name].tolist() == heads[name].tolist()
    layer = layer_statistics(capture).iloc[0]
    for name in ("diagonal_mean", "first_key_mean"):
        assert found[name].tolist() == [layer[name]] * 3


def test_attention_on_one_key_has_no_entropy_and_on_all_alike_the_logarithm_of_their_number():
    capture = Capture.from_array(
        last_block=[[0.0, 7.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]], statistic="mass"
    )
    found = measure_heads(capture)
    assert found["entropy"].tolist() == [0.0, pytest.approx(math.log(4))]
    assert found["effective_keys"].tolist() == [1.0, pytest.approx(4)]


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [0.5, -0.1, 0.6]], ids=["zeros", "negative"])
def test_a_row_that_is_no_distribution_has_no_entropy(row):
    found = measure_heads(Capture.from_array(last_block=[row, [1.0, 1.0, 2.0]], statistic="mass"))
    assert np.isnan(found["entropy"]).tolist() == [True, False]
    assert np.isnan(found["effective_keys"]).tolist() == [True, False]


@pytest.mark.parametrize("statistic", sorted(set(STATISTICS) - {"mass"}))
def test_only_masses_have_an_entropy(statistic):
    found = measure_heads(Capture.from_array(last_block=[[1.0, 2.0]], statistic=statistic))
    assert np.isnan(found["entropy"]).all()
    assert np.isnan(found["effective_keys"]).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(24, 90), st.integers(1, 4), st.integers(4, 12), st.floats(0, 6))
def test_the_period_of_a_wave_is_found_to_the_nearest_bin_or_the_next(count, step, period, phase):
    frames = step * np.arange(count)
    wave = np.sin(2 * np.pi * np.arange(count) / period + phase)
    found = dominant_periods([wave], frames)[0] / step
    bins = (count - 1) / found, (count - 1) / period
    assert abs(bins[0] - bins[1]) <= 0.75


def test_a_level_and_a_sink_do_not_change_the_period():
    frames = range(25)
    wave = np.sin(2 * np.pi * np.arange(25) / 4)
    sink = wave + 100.0 + 50.0 * (np.arange(25) == 0)
    assert dominant_periods([wave, sink], frames).tolist() == [4.0, 4.0]


def test_alternating_values_have_the_shortest_period():
    assert dominant_periods([[1.0, -1.0] * 6 + [1.0]], range(13)).tolist() == [2.0]
    assert dominant_periods([[1.0, -1.0] * 6 + [1.0]], range(0, 39, 3)).tolist() == [6.0]


def test_equally_strong_periods_count_as_the_longest():
    # One change in the middle has the same power in every bin.
    assert dominant_periods([[0.0] * 6 + [1.0] * 7], range(13)).tolist() == [12.0]


@pytest.mark.parametrize(
    ("row", "frames"),
    [
        ([1.0, 2.0, 1.0, 2.0], range(4)),
        ([1.0, 2.0, 1.0, 2.0, 1.0], [0, 1, 2, 3, 5]),
        ([3.0] * 8, range(8)),
        ([9.0] + [3.0] * 7, range(8)),
        ([3.0] * 7 + [9.0], range(8)),
    ],
    ids=["four keys", "uneven frames", "constant", "only the sink", "only the last key"],
)
def test_there_is_no_period_without_regular_frames_that_vary(row, frames):
    assert np.isnan(dominant_periods([row], frames)).all()


def test_the_scale_of_a_row_does_not_change_its_period():
    row = waves(1, 1, 20)[0]
    for scale in (1e-300, 1e-9, 1e280):
        assert dominant_periods(row * scale, range(20)) == dominant_periods(row, range(20))


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
    with pytest.raises(OptionError, match=r"recent_keys is .*, expected a whole number of keys"):
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


def test_no_capture_gives_a_table_without_rows():
    assert list(measure_table([]).columns)[:6] == [
        *("set", "run", "layer", "head", "statistic"),
        "first",
    ]


def test_titles_name_the_unit():
    assert measure_title("sink", "logit") == "Sink Score (logits)"
    assert measure_title("sink", "mass_mean") == "Sink Score (mean mass)"
    assert measure_title("entropy", "mass") == "Entropy of the Row (nats)"
    assert measure_title("positive_share", "logit") == "Share of Positive Keys"


def test_every_measure_has_its_own_title_for_every_statistic():
    for statistic in STATISTICS:
        titles = {measure_title(name, statistic) for name in MEASURES}
        assert len(titles) == len(MEASURES)


def test_differences_diverge_always_and_values_where_the_statistic_does():
    for name in ("first", "mid", "last", "middle_band", "head_diagonal_mean"):
        assert measure_diverges(name, "logit")
        assert not measure_diverges(name, "mass")
        assert measure_diverges(name, "mass_difference")
        assert not measure_diverges(name, "logit_std")
    for statistic in STATISTICS:
        assert measure_diverges("sink", statistic)
        assert not measure_diverges("entropy", statistic)
        assert not measure_diverges("recent_band_keys", statistic)


def test_an_unknown_measure_is_refused_with_the_near_miss():
    with pytest.raises(OptionError, match=r"measure is 'sinks', expected .*did you mean 'sink'"):
        measure_title("sinks", "logit")
    with pytest.raises(OptionError, match="expected one of first, mid"):
        measure_diverges("", "logit")


def test_a_key_at_zero_is_not_positive():
    found = measure_heads(Capture.from_array(last_block=[[0.0, 1.0, -1.0, 2.0]]))
    assert found["positive_share"].tolist() == [0.5]


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
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for disabled in ("", " ".join(extensions))
    }
    assert len(digests) == 1
