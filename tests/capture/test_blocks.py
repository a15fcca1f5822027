import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid.capture.blocks import layout_blocks, split_into_blocks
from headgrid.errors import CaptureError
from headgrid.text import shorten_list

block_lists = st.lists(st.integers(1, 5), min_size=1, max_size=8)


def layout(sizes, frames, data=None):
    frames = range(frames) if isinstance(frames, int) else frames
    held = data is not None and bool(np.asarray(data)[sum(sizes) :].any())
    return layout_blocks("layer3.pt", sizes, frames, held)


def attendable_by_hand(sizes, frames):
    block = [b for b, size in enumerate(sizes) for _ in range(size)]
    return [[block[key] <= block[query] for key in range(frames)] for query in range(frames)]


@settings(deadline=None, max_examples=50)
@given(block_lists)
def test_a_query_attends_every_key_up_to_the_end_of_its_own_block(sizes):
    frames = sum(sizes)
    mask = layout(sizes, frames).attendable(range(frames), range(frames))
    assert mask.tolist() == attendable_by_hand(sizes, frames)


@settings(deadline=None, max_examples=50)
@given(block_lists, st.data())
def test_a_part_of_the_frames_gives_that_part_of_the_mask(sizes, data):
    frames = sum(sizes)
    some = st.lists(st.integers(0, frames - 1), min_size=1, unique=True).map(sorted)
    queries, keys = data.draw(some), data.draw(some)
    full = np.array(attendable_by_hand(sizes, frames))
    mask = layout(sizes, frames).attendable(queries, keys)
    assert mask.tolist() == full[np.ix_(queries, keys)].tolist()


def test_frames_beyond_the_last_block_attend_nothing_and_are_attended_by_nobody():
    blocks = layout([1, 2], 5)
    assert blocks.missing == (3, 4)
    mask = blocks.attendable(range(5), range(5))
    assert mask.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_the_last_block_is_counted_from_the_recorded_frames():
    assert layout([3] * 7, 21).last_block() == (18, 19, 20)
    assert layout([1, 3, 3], 8).last_block() == (4, 5, 6)


@pytest.mark.parametrize("sizes", [[], [0, 3], [3, -1]])
def test_a_block_without_a_frame_is_refused(sizes):
    with pytest.raises(CaptureError, match=r"layer3\.pt: block_sizes is \[.*\], expected .* each"):
        layout(sizes, 3)


def test_more_block_frames_than_frames_are_refused_with_both_numbers():
    with pytest.raises(CaptureError, match=r"sum to 6 \(3, 3\), but there are 5 frames"):
        layout([3, 3], 5)


def test_a_whole_block_of_left_over_frames_with_data_is_refused():
    held = np.array([True] * 6)
    with pytest.raises(CaptureError, match=r"sum to 3 .* 6 frames .* sum to 6"):
        layout([3], 6, held)


def test_a_whole_block_of_left_over_frames_without_data_is_missing():
    held = np.array([True] * 3 + [False] * 3)
    assert layout([3], 6, held).missing == (3, 4, 5)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 9))
def test_equal_blocks_cover_all_frames(frames, per_block):
    sizes = split_into_blocks(frames, per_block)
    assert sum(sizes) == frames
    assert set(sizes[:-1]) <= {per_block}
    assert 1 <= sizes[-1] <= per_block


def test_long_lists_are_shortened_in_the_middle():
    assert shorten_list(range(6)) == "0, 1, 2, 3, 4, 5"
    assert shorten_list(range(7)) == "0, 1, 2, ..., 4, 5, 6"
