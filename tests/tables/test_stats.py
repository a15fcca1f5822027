import csv

import numpy as np
import pytest

from headgrid import Capture, head_statistics, layer_statistics, load_capture, sink_scores
from synthetic import block_capture, waves


@pytest.mark.parametrize("blocks", [(3, 3, 3), (1, 2, 4), (5,), (1, 1, 1)])
def test_statistics_equal_those_computed_pair_by_pair(blocks):
    capture = block_capture(3, blocks, layer=2, run="run_1")
    block = [b for b, size in enumerate(blocks) for _ in range(size)]
    diagonal, first_key, visible = [], [], 0
    for head, query, key in np.ndindex(3, len(block), len(block)):
        if block[key] <= block[query]:
            visible += 1
            value = capture.full_frame_attention[head, query, key]
            diagonal += [value] if query == key else []
            first_key += [value] if key == 0 else []
    (row,) = layer_statistics(capture).itertuples(index=False, name=None)
    assert row == ("run_1", 2, *map(pytest.approx, map(np.mean, (diagonal, first_key))), visible)
    table = head_statistics(capture)
    assert list(table.columns) == ["run", "layer", "head", "first", "mid", "last", "sink"]
    for head, found in enumerate(table.itertuples(index=False, name=None)):
        row = capture.last_block_frame_attention[head].tolist()
        mid = sum(row[1:-1]) / (len(row) - 2)
        expected = [row[0], mid, row[-1], row[0] - mid]
        assert found == ("run_1", 2, head, *map(pytest.approx, expected))


def test_unseen_pairs_never_enter_a_mean():
    values = np.full((1, 4, 4), 7.0)
    values[0, 2, 2] = np.nan
    values[0, 0, 3] = 1e9  # a future frame
    row = layer_statistics(Capture.from_array(values, block_sizes=[2, 2])).iloc[0]
    assert (row["diagonal_mean"], row["first_key_mean"], row["visible"]) == (7.0, 7.0, 11)


def test_the_diagonal_is_where_frame_numbers_are_equal_not_positions():
    values = waves(1, 2, 4)
    capture = Capture.from_array(values, query_frames=[2, 3], key_frames=[0, 1, 2, 3])
    row = layer_statistics(capture).iloc[0]
    assert row["diagonal_mean"] == pytest.approx((values[0, 0, 2] + values[0, 1, 3]) / 2)
    assert row["first_key_mean"] == pytest.approx(values[0, :, 0].mean())


def test_where_no_such_pair_is_visible_there_is_no_mean():
    capture = Capture.from_array(waves(1, 2, 2), query_frames=[0, 1], key_frames=[2, 3])
    means = layer_statistics(capture)[["diagonal_mean", "first_key_mean"]]
    assert means.isna().all(axis=None)


def test_without_a_full_matrix_the_heads_still_have_statistics():
    capture = Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]])
    row = layer_statistics(capture).iloc[0]
    assert np.isnan(row["diagonal_mean"])
    assert row["visible"] == 0
    assert sink_scores(capture).tolist() == [3.5]


@pytest.mark.parametrize(
    "capture",
    [
        Capture.from_array(last_block=[[1.0, 2.0]]),
        Capture.from_array(last_block=[[1.0, np.nan, 2.0]]),
        Capture.from_array(last_block=[[np.nan, 1.0, 2.0, 3.0]]),
        Capture.from_array(last_block=[[1.0, 2.0, 3.0]], key_frames=[1, 2, 3]),
    ],
    ids=["two keys", "two visible keys", "key 0 not recorded", "no key 0"],
)
def test_there_is_no_sink_score_without_key_zero_or_three_visible_keys(capture):
    assert np.isnan(sink_scores(capture)).all()


def test_heads_that_see_different_keys_have_each_their_own_statistics():
    nan = np.nan
    rows = [[5, 1, 2, 9], [5, nan, 2, 9], [nan, 1, 3, 7], [5, 1, 2, nan], [nan] * 4]
    capture = Capture.from_array(waves(5, 4, 4), last_block=np.array(rows, float))
    np.testing.assert_array_equal(
        head_statistics(capture)[["first", "mid", "last", "sink"]].to_numpy(),
        [[5, 1.5, 9, 3.5], [5, 2, 9, 3], [nan, 3, 7, nan], [5, 1, 2, 4], [nan] * 4],
    )


def test_means_of_half_precision_values_are_exact():
    row = np.full((1, 4002), 0.1, dtype=np.float16)
    expected = float(np.float16(0.1))
    assert head_statistics(Capture.from_array(last_block=row))["mid"][0] == pytest.approx(
        expected, rel=1e-9
    )


def test_all_720_published_sink_scores_are_reproduced(shared):
    with (shared / "data/published_sink.csv").open() as file:
        published = list(csv.DictReader(file))
    assert len(published) == 720
    scores = {
        (frames, layer): sink_scores(load_capture(shared / f"data/frames{frames}/layer{layer}.pt"))
        for frames in (21, 72)
        for layer in range(30)
    }
    for row in published:
        score = scores[int(row["frames"]), int(row["layer"])][int(row["head"])]
        assert f"{score:.2f}".replace("-0.00", "0.00") == row["sink"].replace("-0.00", "0.00")
