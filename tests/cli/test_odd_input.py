"""Input that nobody expects: each is drawn, or refused in one sentence."""

import io

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import headgrid
from headgrid import Capture, CaptureError, RenderError, heatmap, perhead, to_spec
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


@pytest.mark.parametrize("limits", ["-1e308,1.7e308", "0,1e-320"])
def test_a_colour_range_that_can_not_be_divided_is_wrong_usage(limits, tmp_path):
    from headgrid.cli.main import main

    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path), "--color-range", limits])
    assert result.exit_code == 2
    assert "numbers LO,HI with LO below HI" in result.stderr


@pytest.mark.parametrize("found", [[1], None, "layer3.pt", np.ones((1, 2, 2))])
@pytest.mark.parametrize("draw", [heatmap, perhead])
def test_something_else_than_a_capture_is_an_error_that_says_how_to_make_one(draw, found):
    with pytest.raises(CaptureError, match="expected one Capture; make it with load_capture"):
        draw(found)


def test_frame_numbers_beyond_the_exact_ones_are_refused():
    frames = [2**53 + 1 + 2 * i for i in range(3)]
    with pytest.raises(CaptureError, match="below 100,000,000"):
        Capture.from_array(np.ones((1, 3, 3)), key_frames=frames)


def test_many_heads_and_many_keys_are_refused_before_the_engine_dies_of_them():
    heads = Capture.from_array(np.zeros((3000, 2, 2)) + 1)
    with pytest.raises(RenderError, match="marks, expected at most 400,000"):
        render(to_spec(heatmap(heads), validate=False), "svg")
    keys = Capture.from_array(last_block=np.ones((1950, 204)))
    with pytest.raises(RenderError, match="draw fewer heads or frames"):
        render(to_spec(perhead(keys, columns=40), validate=False), "svg")


def test_data_of_nested_charts_are_counted():
    rows = [{"a": 1}] * 450_000
    part = {"data": {"values": rows}, "mark": "point", "encoding": {"x": {"field": "a"}}}
    with pytest.raises(RenderError, match="expected at most 400,000"):
        render({"hconcat": [part]}, "svg")


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


def test_an_empty_path_is_wrong_usage(tmp_path, monkeypatch):
    from headgrid.cli.main import main

    monkeypatch.chdir(tmp_path)
    for arguments in (["demo", "-o", ""], ["render", "", "-o", "x"], ["stats", ""]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, arguments
        assert "a path is empty" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_failure_that_nobody_foresaw_leaves_the_other_files_drawn(tmp_path, monkeypatch):
    from headgrid.batch import run as batch
    from headgrid.charts import heatmap as charts

    for layer in (0, 1):
        capture = Capture.from_array(np.ones((1, 2, 2)), layer=layer)
        headgrid.save_capture(capture, tmp_path / f"layer{layer}.npz")
    draw = charts.draw_heatmap

    def fail_once(capture, options):
        if capture.layer_index == 0:
            raise ZeroDivisionError("unforeseen")
        return draw(capture, options)

    monkeypatch.setattr(charts, "draw_heatmap", fail_once)
    plan = batch.plan_jobs([tmp_path], tmp_path / "out", batch.Figures())
    failed, written = batch.run_jobs(plan)
    assert "internal error (ZeroDivisionError: unforeseen)" in str(failed)
    assert [path.name for path in written] == ["layer1_2d_heatmap.svg", "layer1_perhead_grid.svg"]
