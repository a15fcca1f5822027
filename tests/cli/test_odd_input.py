"""Input that nobody expects: each is drawn, or refused in one sentence."""

import io

import numpy as np
import pytest
from PIL import Image

import headgrid
from headgrid import Capture, CaptureError, heatmap, perhead, to_spec
from headgrid.render.convert import render, render_svg
from headgrid.testing import compare_specs, read_table

pytestmark = pytest.mark.filterwarnings("error")


def test_masked_values_count_as_never_recorded_and_arrays_can_not_be_changed():
    values = np.ma.masked_array([[[1.0, -2.0], [3.0, 4.0]]], mask=[[[False, True], [False, False]]])
    capture = Capture.from_array(values)
    assert capture.num_visible == 3
    with pytest.raises(ValueError, match="read-only"):
        capture.full_frame_attention[0, 0, 0] = 9
    values[0, 0, 0] = 2.0  # the caller's own array stays the caller's


@pytest.mark.parametrize("value", [5e-324, -1e-300, 0.0, 1e299, 1.5e308])
def test_the_smallest_and_the_largest_numbers_are_drawn_or_refused_by_name(value):
    values = np.full((2, 3, 3), value)
    if value > 1e300:
        with pytest.raises(CaptureError, match=r"full_frame_attention has values up to 1\.5e\+308"):
            Capture.from_array(values)
        return
    for draw in (heatmap, perhead):
        assert render_svg(to_spec(draw(Capture.from_array(values)))).endswith("</svg>\n")


@pytest.mark.parametrize("found", [[1], None, "layer3.pt", np.ones((1, 2, 2))])
@pytest.mark.parametrize("draw", [heatmap, perhead])
def test_something_else_than_a_capture_is_an_error_that_says_how_to_make_one(draw, found):
    with pytest.raises(CaptureError, match="expected one Capture; make it with load_capture"):
        draw(found)


def test_frame_numbers_beyond_the_exact_ones_are_refused():
    frames = [2**53 + 1 + 2 * i for i in range(3)]
    with pytest.raises(CaptureError, match="below 100,000,000"):
        Capture.from_array(np.ones((1, 3, 3)), key_frames=frames)


def test_a_transparent_background_stays_transparent_in_png():
    chart = heatmap(Capture.from_array(np.ones((1, 2, 2)))).properties(background="transparent")
    picture = Image.open(io.BytesIO(render(to_spec(chart), "png", ppi=72)))
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0))[3] == 0


def test_every_array_of_a_record_is_compared():
    old = {"mark": "bar", "data": {"values": [{"head": 0, "u": [1], "v": [3]}]}}
    new = {"mark": "bar", "data": {"values": [{"head": 0, "u": [2], "v": [3]}]}}
    assert compare_specs(old, new)[1] == "  head 0, column u, key 0: 1 -> 2"
    renamed = {"mark": "bar", "data": {"values": [{"head": 0, "z": [1], "v": [3]}]}}
    assert "the values are named v, z and were u, v" in compare_specs(old, renamed)


def test_cells_drawn_as_images_can_not_be_read_back_and_it_says_so():
    chart = heatmap(Capture.from_array(np.ones((1, 2, 2))), cells="image")
    with pytest.raises(headgrid.HeadgridError, match="use cells='vector'"):
        read_table(chart)
