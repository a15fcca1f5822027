import csv

import numpy as np
import pytest

from headgrid import Capture, head_statistics, layer_statistics, load_capture, sink_scores
from synthetic import block_capture, waves


def statistics_by_hand(capture):
    """Return the rows of head_statistics in plain Python, pair by pair."""
    rows = []
    for head in range(capture.num_heads):
        visible = [
            (frame, float(value))
            for frame, value, seen in zip(
                capture.key_frames,
                capture.last_block_frame_attention[head],
                ~np.isnan(capture.last_block_rows[head]),
                strict=True,
            )
            if seen
        ]
        first = dict(visible).get(0, np.nan)
        middle = [value for _, value in visible[1:-1]]
        mid = sum(middle) / len(middle) if middle else np.nan
        rows.append((head, first, mid, visible[-1][1], first - mid))
    return rows


@pytest.mark.parametrize("blocks", [(3, 3, 3), (1, 2, 4), (5,), (1, 1, 1)])
def test_head_statistics_equal_those_computed_by_hand(blocks):
    capture = block_capture(4, blocks, layer=2, run="run_1")
    table = head_statistics(capture)
    assert list(table.columns) == ["run", "layer", "head", "first", "mid", "last", "sink"]
    assert set(table["run"]) == {"run_1"}
    assert set(table["layer"]) == {2}
    np.testing.assert_allclose(
        table[["head", "first", "mid", "last", "sink"]].to_numpy(float),
        statistics_by_hand(capture),
        rtol=1e-12,
    )


@pytest.mark.parametrize("blocks", [(3, 3, 3), (1, 2, 4), (5,), (1, 1, 1)])
def test_layer_statistics_equal_those_computed_pair_by_pair(blocks):
    capture = block_capture(3, blocks)
    block = [b for b, size in enumerate(blocks) for _ in range(size)]
    diagonal, first_key, visible = [], [], 0
    for head in range(3):
        for query in range(sum(blocks)):
            for key in range(sum(blocks)):
                if block[key] > block[query]:
                    continue
                visible += 1
                value = capture.full_frame_attention[head, query, key]
                diagonal += [value] if query == key else []
                first_key += [value] if key == 0 else []
    row = layer_statistics(capture).iloc[0]
    assert row["diagonal_mean"] == pytest.approx(np.mean(diagonal))
    assert row["first_key_mean"] == pytest.approx(np.mean(first_key))
    assert row["visible"] == visible


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
    row = layer_statistics(capture).iloc[0]
    assert np.isnan(row["diagonal_mean"])
    assert np.isnan(row["first_key_mean"])


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


def test_an_unrecorded_middle_key_is_left_out_of_the_mean():
    scores = sink_scores(Capture.from_array(last_block=[[5.0, 1.0, np.nan, 3.0, 9.0]]))
    assert scores.tolist() == [3.0]


def test_the_last_value_is_that_of_the_last_visible_key():
    table = head_statistics(Capture.from_array(last_block=[[5.0, 1.0, 2.0, np.nan]]))
    assert table["last"].tolist() == [2.0]
    assert table["mid"].tolist() == [1.0]


def test_heads_that_see_different_keys_have_each_their_own_statistics():
    rows = [[5.0, 1.0, 2.0, 9.0], [5.0, np.nan, 2.0, 9.0], [np.nan, 1.0, 3.0, 7.0], [np.nan] * 4]
    capture = Capture.from_array(waves(4, 4, 4), last_block=rows)
    table = head_statistics(capture)
    np.testing.assert_array_equal(
        table[["first", "mid", "last", "sink"]].to_numpy(),
        [
            [5.0, 1.5, 9.0, 3.5],
            [5.0, 2.0, 9.0, 3.0],
            [np.nan, 3.0, 7.0, np.nan],
            [np.nan] * 4,
        ],
    )


def test_means_of_half_precision_values_are_exact():
    row = np.full((1, 4002), 0.1, dtype=np.float16)
    expected = float(np.float16(0.1))
    assert head_statistics(Capture.from_array(last_block=row))["mid"][0] == pytest.approx(
        expected, rel=1e-9
    )


def test_known_answer_for_layer_3(shared):
    capture = load_capture(shared / "data/frames21/layer3.pt")
    published = "7.14 0.53 -0.63 0.47 2.65 0.25 1.58 1.34 0.13 1.74 0.54 0.23"
    assert " ".join(f"{s:.2f}" for s in sink_scores(capture)) == published


def test_all_720_published_sink_scores_are_reproduced_as_panel_titles(shared):
    from headgrid.charts.heatmap import sink_titles

    with (shared / "data/published_sink.csv").open() as file:
        published = list(csv.DictReader(file))
    assert len(published) == 720
    titles = {}
    for frames in (21, 72):
        for layer in range(30):
            capture = load_capture(shared / f"data/frames{frames}/layer{layer}.pt")
            titles[frames, layer] = sink_titles(capture)
    for row in published:
        head = int(row["head"])
        title = titles[int(row["frames"]), int(row["layer"])][head]
        score = "0.00" if float(row["sink"]) == 0 else row["sink"]
        assert title == f"H{head} (sink={score})"
