import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headgrid import Capture, CaptureError, heatmap, pair_table, profile_table
from headgrid.tables.tidy import round_values
from headgrid.testing import read_table
from synthetic import block_capture, waves


def test_the_pair_table_has_one_row_for_every_visible_pair(small):
    table = pair_table(small.replace(run="run_000", layer_index=7))
    assert list(table.columns) == ["run", "layer", "head", "query", "key", "logit"]
    expected = [
        ("run_000", 7, head, query, key, float(f"{small.head_matrix(head)[query, key]:.4g}"))
        for head in range(2)
        for query in range(4)
        for key in range(2 if query < 2 else 4)
    ]
    assert list(table.itertuples(index=False, name=None)) == expected


def test_the_profile_table_has_one_row_for_every_visible_key():
    capture = Capture.from_array(last_block=[[0.5, np.nan, 0.25]], statistic="mass", layer=3)
    table = profile_table(capture)
    assert list(table.columns) == ["run", "layer", "head", "key", "mass"]
    assert list(table.itertuples(index=False, name=None)) == [
        ("", 3, 0, 0, 0.5),
        ("", 3, 0, 2, 0.25),
    ]


def test_query_and_key_are_frame_numbers():
    capture = Capture.from_array(waves(1, 2, 3), query_frames=[8, 9], key_frames=[0, 5, 9])
    table = pair_table(capture)
    assert sorted(set(table["query"])) == [8, 9]
    assert sorted(set(table["key"])) == [0, 5, 9]
    assert sorted(set(profile_table(capture)["key"])) == [0, 5, 9]


def test_unseen_frames_of_a_short_block_list_are_not_in_the_table():
    values = waves(1, 5, 5)
    values[:, 3:, :], values[:, :, 3:] = 0, 0
    capture = Capture.from_array(values, block_sizes=[1, 2])
    assert pair_table(capture)["query"].max() == 2
    assert pair_table(capture)["key"].max() == 2
    assert profile_table(capture)["key"].tolist() == [0, 1, 2]


def test_several_captures_follow_each_other_in_their_order():
    captures = [block_capture(layer=layer) for layer in (5, 2)]
    table = pair_table(captures)
    assert table["layer"].drop_duplicates().tolist() == [5, 2]
    assert len(table) == 2 * len(pair_table(captures[0]))
    one_by_one = pd.concat([pair_table(c) for c in captures], ignore_index=True)
    pd.testing.assert_frame_equal(table, one_by_one)


def test_logit_and_mass_never_share_a_column():
    with pytest.raises(CaptureError, match="differ in the statistic: logit and mass; expected one"):
        pair_table([block_capture(), block_capture(statistic="mass")])


def test_a_capture_without_a_full_matrix_has_no_pairs():
    capture = Capture.from_array(last_block=[[1.0, 2.0]])
    with pytest.raises(CaptureError, match="full_frame_attention is absent, expected an array"):
        pair_table(capture)


@pytest.mark.parametrize("table", [pair_table, profile_table])
def test_no_capture_is_an_error(table):
    with pytest.raises(CaptureError, match="there is no capture, expected at least one"):
        table([])
    with pytest.raises(CaptureError, match="found str, expected one Capture"):
        table("layer3.pt")
    with pytest.raises(CaptureError, match="found NoneType, expected one Capture"):
        table(None)


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(-1e9, 1e9) | st.just(float("nan")),
    )
)
def test_the_table_holds_every_value_in_its_place_to_four_digits(values):
    values[:, -1, -1] = 1.0
    table = pair_table(Capture.from_array(values))
    rebuilt = np.full(values.shape, np.nan)
    rebuilt[table["head"], table["query"], table["key"]] = table["logit"]
    np.testing.assert_allclose(rebuilt, values, rtol=5.001e-4, atol=1e-290)


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 6)),
        elements=st.floats(-1e300, 1e300) | st.floats(-100, 100) | st.just(float("nan")),
    )
)
def test_a_value_is_the_shortest_decimal_number_with_four_significant_digits(rows):
    rounded = round_values(rows)
    for value, exact in zip(rounded.ravel().tolist(), rows.ravel().tolist(), strict=True):
        if math.isnan(exact):
            assert math.isnan(value)
        elif abs(exact) >= 1e-290:
            nearest = float(f"{exact:.3e}")
            # A tie may go either way, by one of the last digit.
            assert value == nearest or abs(value - exact) <= abs(nearest - exact) * (1 + 1e-9)
            assert value == float(f"{value:.3e}")


def test_tables_hold_values_of_four_digits_and_the_figures_hold_the_same():
    assert str(round_values(np.array([-0.0]))[0]) == "0.0"
    values = np.array([[[1 / 7, 100 / 7], [-1 / 700, 12345.678]]])
    capture = Capture.from_array(values)
    assert pair_table(capture)["logit"].tolist() == [0.1429, 14.29, -0.001429, 12350.0]
    shown = read_table(heatmap(capture))["logit"]
    assert shown.tolist() == pair_table(capture)["logit"].tolist()
