import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgrid
from headgrid import Capture, CaptureError, load_capture, save_capture
from headgrid.charts.profiles import sink_texts
from synthetic import block_capture, waves

FULL, LAST = "full_frame_attention", "last_block_frame_attention"


def read(**data):
    return Capture.from_dict({"layer_index": 3, **data}, source="layer3.pt")


def test_the_schema_of_a_file_becomes_named_fields():
    full = waves(2, 6, 6).astype(np.float16)
    capture = read(
        full_frame_attention=full,
        last_block_frame_attention=full[:, 3:].mean(axis=1),
        block_sizes=[3, 3],
        last_block_query_frames=[3, 4, 5],
        is_logits=True,
        prompt="a cat",
        num_heads=2,
        extraction_method="mean",
    )
    assert (capture.layer_index, capture.num_heads, capture.statistic) == (3, 2, "logit")
    assert capture.block_sizes == (3, 3)
    assert capture.query_frames == capture.key_frames == (0, 1, 2, 3, 4, 5)
    assert capture.last_block_query_frames == (3, 4, 5)
    assert capture.prompt == "a cat"
    assert dict(capture.metadata) == {"num_heads": 2, "extraction_method": "mean"}
    assert capture.warnings == ()


def test_future_frames_are_not_visible():
    capture = block_capture(1, (2, 2))
    assert np.isnan(capture.head_matrix(0)).astype(int).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert capture.num_visible == 12


def test_a_recorded_zero_is_a_value_and_nan_is_none():
    capture = Capture.from_array([[[0.0, np.nan], [1.0, 2.0]]])
    assert capture.attendable.all()
    assert capture.num_visible == 3
    assert capture.value_range == (0.0, 2.0)


@pytest.mark.parametrize(
    ("frames", "per_block", "sizes"),
    [(6, 3, (3, 3)), (7, 3, (3, 3, 1)), (2, 3, (2,)), (3, 1, (1, 1, 1))],
)
def test_the_number_of_frames_per_block_stands_in_for_block_sizes(frames, per_block, sizes):
    capture = read(full_frame_attention=waves(1, frames, frames), num_frame_per_block=per_block)
    assert capture.block_sizes == sizes
    told = [w for w in capture.warnings if f"not whole blocks of {per_block}" in w]
    assert len(told) == (frames == 7)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_a_query_attends_every_key_up_to_the_end_of_its_own_block(sizes, data):
    block = [number for number, size in enumerate(sizes) for _ in range(size)]
    some = st.lists(st.sampled_from(range(len(block))), min_size=1, unique=True).map(sorted)
    queries, keys = data.draw(some), sorted({*data.draw(some), len(block) - 1})
    attended = [[block[key] <= block[query] for key in keys] for query in queries]
    if not np.any(attended):
        return
    capture = Capture.from_array(
        np.ones((1, len(queries), len(keys))),
        last_block=np.ones((1, len(keys))),
        block_sizes=sizes,
        query_frames=queries,
        key_frames=keys,
    )
    assert capture.attendable.tolist() == attended
    assert capture.block_sizes == tuple(sizes)


@pytest.mark.parametrize("held", [1, 0])
def test_a_whole_block_of_left_over_frames_is_unseen_only_if_it_holds_nothing(held):
    values = np.ones((1, 6, 6))
    values[:, 3:], values[:, :, 3:] = held, held
    if held:
        with pytest.raises(CaptureError, match=r"sum to 3 .* 6 frames .* sum to 6"):
            Capture.from_array(values, block_sizes=[3])
    else:
        capture = Capture.from_array(values, block_sizes=[3])
        assert (capture.num_visible, capture.last_block_query_frames) == (9, (0, 1, 2))


def test_block_sizes_that_sum_to_19_beside_21_frames_leave_two_unseen_with_a_warning():
    sizes = [1, 3, 3, 3, 3, 3, 3]
    values = waves(12, 21, 21)
    values[:, 19:, :], values[:, :, 19:] = 0, 0
    capture = read(full_frame_attention=values, block_sizes=sizes)
    (warning,) = capture.warnings
    assert "block_sizes sum to 19, but there are 21 frames" in warning
    assert "frames 19, 20 lie beyond the last block" in warning
    for head in range(12):
        seen = ~np.isnan(capture.head_matrix(head))
        assert not seen[19:].any()
        assert not seen[:, 19:].any()
        assert seen[18, :19].all()
    assert capture.head_matrix(0).shape == (21, 21)
    assert capture.last_block_query_frames == (16, 17, 18)
    assert np.isnan(capture.last_block_rows[:, 19:]).all()


def test_the_last_row_is_the_mean_over_the_last_block_of_what_is_visible():
    values = waves(2, 6, 6)
    stated = Capture.from_array(values, last_block_query_frames=[1, 2])
    np.testing.assert_allclose(stated.last_block_rows[0], values[0, 1:3].mean(axis=0))
    values[0, 4, 1] = np.nan
    capture = Capture.from_array(values, block_sizes=[3, 3])
    for head in range(2):
        for key in range(6):
            column = [values[head, q, key] for q in (3, 4, 5)]
            expected = np.mean([v for v in column if not np.isnan(v)])
            assert capture.last_block_rows[head, key] == pytest.approx(expected)


def test_is_logits_names_the_statistic_and_a_list_of_prompts_is_one_text():
    for flag, statistic in [(True, "logit"), (np.False_, "mass"), (None, "logit"), (0, "mass")]:
        capture = read(full_frame_attention=waves(1, 2, 2), is_logits=flag, prompt=["a", "b"])
        assert (capture.statistic, capture.prompt) == (statistic, "a | b")


def test_half_precision_does_not_reach_the_arithmetic():
    for dtype in (np.float16, np.float32, np.float64):
        matrix = Capture.from_array(waves(1, 3, 3).astype(dtype)).head_matrix(0)
        assert matrix.dtype == (np.float64 if dtype == np.float64 else np.float32)
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[[1.5, -2.0]]], dtype=torch.bfloat16)
    assert Capture.from_array(tensor).head_matrix(0).tolist() == [[1.5, -2.0]]


def test_a_capture_is_frozen_and_changes_by_replace(small):
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.run = "run_000"
    other = small.replace(run="run_000", prompt="x")
    assert (other.run, other.prompt, small.run) == ("run_000", "x", "")
    with pytest.raises(CaptureError, match="statistic can not be replaced, expected one of"):
        small.replace(statistic="mass")


# Bad input: what was found, what was expected, where.

INF = float("inf")


def with_cell(value, cells, blocks=None):
    values = waves(3, 4, 4)
    for cell in cells:
        values[cell] = value
    return {FULL: values} | ({"block_sizes": blocks} if blocks else {})


ONE = waves(1, 2, 2)
BAD = [
    ({}, "neither full_frame_attention .* nor last_block_frame_attention"),
    ({"full_frame_atention": ONE}, "'full_frame_atention', did you mean 'full_frame_attention'"),
    ({FULL: ONE[0]}, r"full_frame_attention has shape \(2, 2\), expected \(heads, query, key\)"),
    ({LAST: ONE}, r"last_block_frame_attention has shape \(1, 2, 2\), expected \(heads, key\)"),
    ({FULL: waves(3, 2, 2), LAST: np.ones((2, 2))}, "head counts disagree: 3 in .*, 2 in last"),
    ({FULL: waves(3, 2, 2), "num_heads": 12}, "num_heads says 12, the arrays hold 3"),
    ({FULL: waves(3, 2, 2), LAST: np.ones((3, 5))}, "key counts disagree: 2 in .*, 5 in last"),
    ({FULL: ONE + 1j}, "has complex128 values, expected real numbers"),
    ({FULL: np.array([[["a"]]])}, "has <U1 values, expected real numbers"),
    ({FULL: np.ones((1, 2, 2), bool)}, "has bool values, expected real numbers"),
    ({FULL: "zeros"}, "full_frame_attention is the text 'zeros', expected real numbers"),
    ({FULL: [[[1.0], [1.0, 2.0]]]}, "full_frame_attention .* not an array|real numbers"),
    (with_cell(INF, [(1, 2, 3)]), r"1 infinite value in visible cells \(head 1, query 2, key 3\)"),
    (
        with_cell(-INF, [(0, 0, 0), (1, 2, 3), (2, 0, 0), (2, 1, 1)]),
        r"has 4 infinite values in visible cells \(head 0, query 0, key 0, \.\.\.\), expected",
    ),
    (
        {LAST: np.array([[1.0, INF], [2.0, 3.0]])},
        r"last_block_frame_attention has 1 infinite value in visible cells \(head 0, key 1\)",
    ),
    (
        {FULL: np.ones((1, 4, 4)), LAST: np.full((1, 4), 1.7e308)},
        r"last_block_frame_attention has values up to 1\.7e",
    ),
    (with_cell(np.nan, [0, 1, 2]), r"full_.* has no visible value in 3 of 3 heads \(head 0, 1"),
    ({LAST: np.full((1, 2), np.nan)}, r"last_.* has no visible value in 1 of 1 heads \(head 0"),
    (with_cell(0, [], [2, 3]), r"block_sizes sum to 5 \(2, 3\), but there are 4 frames"),
    (with_cell(0, [], [1, 1]), r"block_sizes sum to 2 \(1, 1\), but there are 4 frames"),
    (with_cell(0, [], [0, 4]), r"block_sizes is \[0, 4\], expected"),
    (with_cell(0, []) | {"block_sizes": []}, r"block_sizes is \[\], expected"),
    (with_cell(0, [], [1.5, 2.5]), "block_sizes is .*list of whole numbers"),
    (with_cell(0, [], "abc"), "block_sizes is abc, expected a list"),
    (with_cell(0, []) | {"num_frame_per_block": 0}, "num_frame_per_block is '0'"),
    (
        {FULL: ONE[:, :1, :1], "block_sizes": [10**7], "key_frames": [5]},
        r"sum to 10000000 .*expected at most 20,000 frames",
    ),
    ({FULL: ONE, "block_sizes": [1] * 20_001}, "block_sizes lists 20,001 numbers"),
    ({FULL: np.ones((0, 4, 4))}, r"has shape \(0, 4, 4\), that is zero heads"),
    ({FULL: np.ones((2, 0, 4))}, "that is zero query frames"),
    ({LAST: np.ones((2, 0))}, "that is zero key frames"),
    ({FULL: np.broadcast_to(1.0, (10_001, 1, 1))}, "with at most 10,000 heads"),
    ({FULL: np.broadcast_to(1.0, (1, 20_001, 1))}, "with at most 20,000 query frames"),
    ({LAST: np.broadcast_to(1.0, (1, 20_001))}, "with at most 20,000 key frames"),
    ({FULL: ONE, "layer_index": -1}, "layer_index is '-1', expected"),
    ({FULL: ONE, "layer_index": "x"}, "layer_index is 'x', expected"),
    ({FULL: ONE, "layer_index": None}, "layer_index is absent.*name the file layer"),
    ({FULL: ONE, "statistic": "logits"}, "'logits', expected one of .*did you mean 'logit'"),
    ({FULL: ONE, "key_frames": [0]}, "key_frames lists 1 frames, but that axis has 2"),
    ({FULL: ONE, "query_frames": [1, 1]}, "query_frames is 1, 1, expected frame numbers from 0"),
    (
        {FULL: ONE, "last_block_query_frames": [7]},
        "last_block_query_frames names frame 7, expected some of the query frames",
    ),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_input_is_one_sentence_that_names_the_source(data, message):
    with pytest.raises(CaptureError, match=message) as caught:
        read(**data)
    assert str(caught.value).startswith("layer3.pt: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [FULL, LAST])
def test_a_head_without_a_value_and_masses_below_0_are_warned_about(name):
    values = waves(3, 4, 4) if name == FULL else waves(3, 4, 4)[:, 3]
    values[1] = np.nan
    capture = read(**{name: values}, is_logits=False)
    empty, negative = capture.warnings
    assert f"layer3.pt: {name} has no visible value in 1 of 3 heads (head 1: every" in empty
    low = np.nanmin(values)
    assert f"layer3.pt: {name} has values down to {low:.3g}, but mass is never nega" in negative
    assert capture.value_range == (low, np.nanmax(values))
    assert capture.head_visible(1) == 0
    assert np.isnan(headgrid.sink_scores(capture)).tolist() == [False, True, False]


def test_infinity_is_named_by_frame_number_and_is_no_error_where_it_is_not_visible():
    values = waves(1, 2, 2)
    values[0, 0, 1] = INF
    frames = {"query_frames": [10, 11], "key_frames": [10, 11]}
    assert np.isfinite(Capture.from_array(values, block_sizes=[1, 1], **frames).value_range).all()
    with pytest.raises(CaptureError, match="head 0, query 10, key 11"):
        Capture.from_array(values, **frames)


def test_all_sixty_published_captures_are_valid(shared):
    from headgrid import load_run

    for frames, pairs in ((21, 252), (72, 2700)):
        captures = load_run(shared / f"data/frames{frames}")
        assert [c.layer_index for c in captures] == list(range(30))
        assert {c.num_visible for c in captures} == {12 * pairs}
        assert not [w for c in captures for w in c.warnings]


HOSTILE = "a\n\x1b[31m\u202e\ud800" + "x" * 5000


STATED = ("num_heads", "num_frame_per_block", "layer_index", "statistic", "is_logits")


def test_what_a_file_says_is_shown_short_and_printable():
    whole = {"layer_index": 0, FULL: np.ones((1, 2, 2))}
    odd = [*({name: HOSTILE} for name in (*STATED, "block_sizes")), {"block_sizes": [-1] * 500}]
    odd += [{"num_frame_per_block": np.ones((3, 3))}, {"is_logits": [1, [2, 3]]}]
    odd += [{"key_frames": {HOSTILE: HOSTILE}}, {FULL: None, HOSTILE: 1}, {FULL: HOSTILE}]
    for data in odd:
        with pytest.raises(CaptureError) as caught:
            Capture.from_dict(whole | data)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600


def test_a_signalling_nan_is_a_frame_that_was_not_recorded():
    bits = np.full((1, 3, 3), 0x3F800000, dtype=np.uint32)
    bits[0, 2, 1] = 0x7FA00001
    capture = Capture.from_array(bits.view(np.float32), last_block=bits.view(np.float32)[:, 2])
    assert capture.num_visible == 8
    assert np.isnan(headgrid.sink_scores(capture)).all()  # two visible keys are too few
    nothing = Capture.from_array(np.ones((2, 3, 3)), last_block=np.full((2, 3), np.nan))
    assert sink_texts(nothing) == ["n/a", "n/a"]


def test_a_capture_is_validated_whatever_way_it_is_made():
    values = dict.fromkeys((LAST, "query_frames", "key_frames", "last_block_query_frames"))
    values |= {"layer_index": 3, FULL: waves(2, 4, 4), "block_sizes": [2, 2]}
    capture = Capture(**values, prompt=["a", "b"])
    assert (capture.block_sizes, capture.last_block_query_frames) == ((2, 2), (2, 3))
    assert (capture.num_visible, capture.prompt) == (24, "a | b")
    for name, wrong in [("block_sizes", [3, 2]), (FULL, waves(1, 2, 2)[0]), ("layer_index", -1)]:
        with pytest.raises(CaptureError, match=rf"^capture: {name} "):
            Capture(**values | {name: wrong})
    for make in (lambda **changes: Capture(**values, **changes), capture.replace):
        with pytest.raises(CaptureError, match="num_heads says 3, the arrays hold 2"):
            make(metadata={"num_heads": 3})


WORDS = ["The", " cat", "</script>", "猫", "", "The"]


@pytest.mark.parametrize("suffix", ["pt", "npz", "safetensors"])
def test_names_and_labels_of_axes_survive_a_file(tmp_path, suffix):
    if suffix == "pt":
        pytest.importorskip("torch")
    values = np.arange(36.0).reshape(6, 6)
    capture = Capture.from_array(values, labels=WORDS, query_name="Patch", statistic="mass")
    found = load_capture(save_capture(capture, tmp_path / f"layer0.{suffix}"))
    assert (found.query_labels, found.key_labels) == (tuple(WORDS), tuple(WORDS))
    assert (found.query_name, found.key_name) == ("Patch", "Token")
    assert not found.metadata
    plain = Capture.from_array(values)
    assert not {"query_name", "key_name", "query_labels", "key_labels"} & plain.to_dict().keys()


def test_arrays_as_people_hold_them():
    values = np.arange(15.0).reshape(3, 5)
    batch = Capture.from_array(values[None, None], causal=True, labels=list("abcde"))
    assert batch.query_frames == (2, 3, 4)  # a cache: the queries are the last
    assert batch.query_labels == ("c", "d", "e")
    assert batch.attendable.tolist() == np.tri(3, 5, 2, dtype=bool).tolist()
    np.testing.assert_array_equal(batch.full_frame_attention, values[None])
    np.testing.assert_array_equal(Capture.from_array(values).full_frame_attention, values[None])


def test_labels_of_a_row_alone_name_its_query_a_token_as_well():
    row = Capture.from_array(last_block=[[0.5, 0.5]], labels=["a", "b"])
    assert (row.query_name, row.key_name, row.query_labels) == ("Token", "Token", None)
    row = Capture.from_array(last_block=[[0.5, 0.5]], labels=["a", "b"], query_name="Step")
    assert row.query_name == "Step"


def test_numbers_are_labels_without_the_noise_of_their_last_digits():
    for numbers in (np.arange(4) * 0.1, np.array([0, 0.1, 0.2, 0.3], dtype=np.float32)):
        for labels in (numbers, [*numbers]):
            found = Capture.from_array(np.eye(4), labels=labels).key_labels
            assert found == ("0.0", "0.1", "0.2", "0.3")
    assert Capture.from_array(np.eye(2), labels=[1, 1e300]).key_labels == ("1", "1e+300")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": ["a"]}, "query_labels lists 1 (a), but that axis has 3"),
        ({"labels": ["a"] * 3, "key_labels": ["a"] * 3}, "both given"),
        ({"key_labels": "abc"}, "key_labels is 'abc', expected a list of 3 texts"),
        ({"key_labels": [b"a", "b", "c"]}, "key_labels holds b'a'"),
        ({"key_name": " "}, "key_name is '', expected what one place"),
        ({"causal": True, "block_sizes": [3]}, "causal and block_sizes are both given"),
        ({"array": np.ones((2, 1, 3, 3))}, "a batch of 2"),
        ({"array": np.ones((5, 3)), "causal": True}, "5 queries against 3 keys can not be causal"),
        ({"array": np.ones((2, 3)), "labels": ["a"] * 3}, "give query_labels and key_labels"),
        ({"array": np.ones((2, 3)), "labels": 5, "causal": True}, "give query_labels"),
        ({"array": [[1.0], [1.0, 2.0]], "labels": ["a"], "causal": True}, "is not an array"),
        ({"key_frames": 4, "causal": True}, "key_frames is 4, expected a list of whole numbers"),
    ],
)
def test_axes_that_do_not_fit_are_refused(given, said):
    with pytest.raises(CaptureError, match=re.escape(said)):
        Capture.from_array(**{"array": np.ones((3, 3)), **given})


def test_causal_takes_frame_numbers_as_an_array_too():
    numbers = np.array([0, 1, 15])
    capture = Capture.from_array(np.ones((3, 3)), causal=True, key_frames=numbers)
    assert capture.query_frames == capture.key_frames == (0, 1, 15)
    assert capture.attendable.tolist() == np.tri(3, dtype=bool).tolist()


def test_segments_are_checked_wherever_they_come_from():
    capture = Capture.from_array(np.eye(4))
    with pytest.raises(CaptureError, match=r"query_parts is \{'a': \(0, inf\)\}"):
        capture.with_segments({"a": (0, math.inf)})
    other = Capture.from_array(np.eye(9)).with_segments({"a": (5, 9)})
    with pytest.raises(CaptureError, match="'a' from 5 to 9, which reaches beyond the axis"):
        capture.with_segments(other.key_parts)
    assert capture.with_segments({"\ud800": (0, 1)}).key_parts[0].name == "\ufffd"


def test_a_short_name_within_a_long_one_is_another_axis():
    capture = Capture.from_array(np.eye(2), query_name="Subtoken", key_name="Token")
    assert "2 query subtokens x 2 key tokens" in repr(capture)
