from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgrid
from headgrid import Capture, CaptureError, load_capture, save_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.survey.moments import CaptureMoments, Moments
from synthetic import block_capture, visible_pairs

BLOCKS = (2, 3)


def run_captures(count, *, unrecorded=0.0, seed=0, heads=3, dtype=np.float64, **options):
    """Return captures of one layer; unseen pairs hold 99, so that they would show."""
    random = np.random.default_rng(seed)
    ends = np.repeat(np.cumsum(BLOCKS), BLOCKS)
    unseen = np.arange(5)[None, :] >= ends[:, None]
    captures = []
    for number in range(count):
        values = random.normal(2, 3, size=(heads, 5, 5))
        values[random.random(values.shape) < unrecorded] = np.nan
        values[:, 0, 0] = random.normal(size=heads)
        values[:, unseen] = 99.0
        captures.append(
            Capture.from_array(
                values.astype(dtype),
                block_sizes=BLOCKS,
                layer=3,
                run=f"run_{number:03d}",
                **options,
            )
        )
    return captures


def merge_all(captures):
    return reduce(CaptureMoments.merge, map(CaptureMoments.of, captures))


def stack_visible(captures):
    """Return [runs, heads, query, key] and [runs, heads, key], NaN where unseen."""
    full = [
        [capture.head_matrix(head) for head in range(capture.num_heads)] for capture in captures
    ]
    return np.array(full, float), np.array([c.last_block_rows for c in captures], float)


def reference(values, ddof):
    """Return the mean, or the deviation, over the first axis in two passes, cell by cell."""
    found = np.full(values.shape[1:], np.nan)
    for cell in np.ndindex(found.shape):
        column = [v for v in values[(slice(None), *cell)] if not np.isnan(v)]
        if len(column) > ddof:
            center = sum(column) / len(column)
            squares = sum((v - center) ** 2 for v in column)
            found[cell] = center if ddof == 0 else np.sqrt(squares / (len(column) - 1))
    return found


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.2, 0.6]),
    st.integers(0, 1000),
)
def test_mean_and_deviation_equal_those_of_two_passes_however_parts_are_merged(
    sizes, unrecorded, seed
):
    captures = run_captures(sum(sizes) + 1, unrecorded=unrecorded, seed=seed)
    ends = np.cumsum([0, *sizes, 1])
    moments = reduce(
        CaptureMoments.merge, [merge_all(captures[start:end]) for start, end in pairwise(ends)]
    )
    assert moments.runs == len(captures)
    full, rows = stack_visible(captures)
    for found, ddof in ((moments.mean_capture(), 0), (moments.deviation_capture(), 1)):
        for values, runs in (
            (found.full_frame_attention, full),
            (found.last_block_frame_attention, rows),
        ):
            np.testing.assert_allclose(values, reference(runs, ddof), rtol=1e-9, atol=1e-12)


def test_a_large_common_level_does_not_drown_the_deviation():
    values = 1e9 + np.array([4.0, 7.0, 13.0, 16.0])
    moments = reduce(Moments.merge, map(Moments.of, values))
    assert moments.mean == pytest.approx(1e9 + 10)
    assert moments.std == pytest.approx(np.sqrt(30), rel=1e-9)


def test_equal_values_have_exactly_no_deviation():
    captures = [block_capture(2, BLOCKS, run=str(number)) for number in range(7)]
    moments = merge_all(captures)
    visible = ~np.isnan(moments.deviation_capture().full_frame_attention)
    assert np.count_nonzero(visible) == 2 * visible_pairs(BLOCKS)
    assert not moments.deviation_capture().full_frame_attention[visible].any()
    np.testing.assert_array_equal(
        moments.mean_capture().full_frame_attention[visible],
        captures[0].full_frame_attention[visible],
    )


def test_frames_that_were_never_recorded_stay_unseen():
    values = np.zeros((1, 5, 5))
    values[:, :4, :4] = np.arange(1.0, 17.0).reshape(4, 4)
    captures = [
        Capture.from_array(values * scale, block_sizes=[2, 2], run=str(scale)) for scale in (1, 3)
    ]
    mean = merge_all(captures).mean_capture()
    assert mean.num_visible == captures[0].num_visible == 12
    assert mean.full_frame_attention[0, 0, 1] == 4.0
    assert mean.last_block_query_frames == (2, 3)


def test_rows_alone_have_moments_too():
    captures = [Capture.from_array(last_block=[[1.0, 2.0 * n, np.nan]]) for n in (1, 2)]
    moments = merge_all(captures)
    assert moments.mean_capture().full_frame_attention is None
    np.testing.assert_array_equal(
        moments.mean_capture().last_block_frame_attention, [[1.0, 3.0, np.nan]]
    )
    np.testing.assert_allclose(
        moments.deviation_capture().last_block_frame_attention, [[0.0, np.sqrt(2), np.nan]]
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_single_run_is_kept_in_its_own_dtype(dtype):
    capture = run_captures(1, dtype=dtype)[0]
    moments = CaptureMoments.of(capture)
    assert moments.runs == 1
    assert moments.cells is None
    assert np.shares_memory(moments.single.full_frame_attention, capture.full_frame_attention)
    mean = moments.mean_capture()
    assert mean.full_frame_attention.dtype == dtype
    assert mean.statistic == "logit_mean"
    assert mean.run == "mean of 1 run"


def test_means_of_half_precision_are_taken_in_double_precision():
    captures = [
        Capture.from_array(np.full((1, 1, 1), value, dtype=np.float16), run=str(value))
        for value in (0.1, 0.2, 60_000.0)
    ]
    exact = sum(float(np.float16(v)) for v in (0.1, 0.2, 60_000.0)) / 3
    mean = merge_all(captures).mean_capture().full_frame_attention
    assert mean.dtype == np.float64
    assert mean[0, 0, 0] == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("base", ["logit", "mass", "entropy", "max_logit"])
def test_results_are_captures_like_any_other(base, tmp_path):
    captures = [block_capture(2, BLOCKS, scale=s, statistic=base, run=str(s)) for s in (1.0, 2.0)]
    moments = merge_all(captures)
    for capture, name in (
        (moments.mean_capture(), f"{base}_mean"),
        (moments.deviation_capture(), f"{base}_std"),
    ):
        assert capture.statistic == name
        assert capture.metadata == {"num_runs": 2}
        loaded = load_capture(save_capture(capture, tmp_path / f"{name}.npz"))
        np.testing.assert_array_equal(loaded.full_frame_attention, capture.full_frame_attention)
        assert loaded.statistic == name
        title = STATISTICS[name].title
        spec = headgrid.to_json(headgrid.heatmap(capture))
        assert title in spec
        assert title in headgrid.to_json(headgrid.perhead(capture))


def test_where_no_cell_of_a_head_was_recorded_twice_there_is_no_deviation():
    first = Capture.from_array([[[1.0, np.nan]]])
    second = Capture.from_array([[[np.nan, 1.0]]])
    with pytest.raises(CaptureError, match=r"deviation of 2 runs, layer 0: .* no visible value"):
        merge_all([first, second]).deviation_capture()


def test_the_prompt_stays_where_all_runs_share_it():
    cats = [block_capture(run=run, prompt="a cat") for run in "ab"]
    assert merge_all(cats).mean_capture().prompt == "a cat"
    assert merge_all([*cats, block_capture(prompt="a dog")]).mean_capture().prompt == ""


def test_huge_values_end_in_an_error_of_the_capture_not_in_a_warning():
    captures = [Capture.from_array([[[sign * 1e299]]], run=str(sign)) for sign in (-1, 1)]
    moments = merge_all(captures)
    assert moments.mean_capture().full_frame_attention[0, 0, 0] == 0.0
    with pytest.raises(CaptureError, match=r"deviation of 2 runs, layer 0: .* infinite value"):
        moments.deviation_capture()
