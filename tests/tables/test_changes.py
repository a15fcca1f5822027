import json

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import (
    Capture,
    CaptureError,
    OptionError,
    change_table,
    compare,
    save_capture,
    subtract,
)
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.render.convert import render
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import round_values
from svgreader import read_svg
from synthetic import block_capture, waves


@pytest.fixture
def pair():
    """Return two captures that differ in one known pair, and in all by 0.5."""
    a = block_capture(3, (2, 3))
    values = np.array(a.full_frame_attention) + 0.5
    values[1, 4, 2] -= 20
    return a, Capture.from_array(values, block_sizes=[2, 3], layer=4, run="run_001")


def test_the_difference_is_b_minus_a_and_a_capture_like_any_other(pair, tmp_path):
    change = subtract(*pair)
    assert change.statistic == "logit_difference"
    assert change.head_matrix(0)[4, 0] == pytest.approx(0.5)
    assert change.head_matrix(1)[4, 2] == pytest.approx(-19.5)
    assert np.isnan(change.head_matrix(0)[0, 4])
    again = headgrid.load_capture(save_capture(change, tmp_path / "layer4.npz"))
    np.testing.assert_array_equal(again.head_matrix(1), change.head_matrix(1))


def test_what_one_of_the_two_has_not_seen_is_unseen(pair):
    a, b = pair
    values = np.array(b.full_frame_attention)
    values[0, 4, 1] = np.nan
    b = Capture.from_array(values, block_sizes=[2, 3])
    assert np.isnan(subtract(a, b).head_matrix(0)[4, 1])
    assert len(change_table(a, b, top=None)) == a.num_visible - 1


def test_the_largest_changes_come_first_with_exact_values(pair):
    a, b = pair
    table = change_table(a, b, top=4)
    assert list(table.columns) == ["head", "query", "key", "a", "b", "difference"]
    assert table.iloc[0][["head", "query", "key"]].tolist() == [1, 4, 2]
    assert table["difference"].iloc[0] == b.head_matrix(1)[4, 2] - a.head_matrix(1)[4, 2]
    sizes = change_table(a, b, top=None)["difference"].abs()
    assert sizes.is_monotonic_decreasing
    assert table.equals(change_table(a, b, top=None).head(4))


def test_equal_changes_stand_in_the_order_of_head_query_key():
    a = Capture.from_array(np.zeros((2, 2, 2)) + np.eye(2))
    b = Capture.from_array(np.array(a.full_frame_attention) + 1)
    table = change_table(a, b, top=None)[["head", "query", "key"]]
    pd.testing.assert_frame_equal(table, table.sort_values(["head", "query", "key"]))


def test_two_scales_both_around_zero(pair):
    spec = headgrid.to_spec(compare(*pair))
    meta = spec["usermeta"]["headgrid"]
    largest = max(np.nanmax(np.abs(c.head_matrix(h))) for c in pair for h in range(3))
    assert meta["color_range"] == pytest.approx([-largest, largest])
    assert meta["difference_range"] == [-19.5, 19.5]


def test_cells_have_the_colours_of_their_own_scale_and_a_titled_bar_for_each(pair):
    svg = render(headgrid.to_spec(compare(*pair, columns=8), validate=False), "svg").decode()
    drawing = read_svg(svg)
    change = subtract(*pair)
    values = resolve_color_range("symmetric", pair)
    changes = resolve_color_range("symmetric", [change])
    groups = drawing.marks["cells"]
    colors = [{tuple(shape.color) for shape in group} for group in groups if group]
    for captures, found in ((pair, values), ([change], changes)):
        scale = ColorScale(found, palette_for(captures[0].statistic, "rdbu"))
        for capture in captures:
            for head in range(3):
                matrix = capture.head_matrix(head)
                rounded = round_values(matrix[~np.isnan(matrix)])
                expected = {tuple(map(int, rgb)) for rgb in scale.rgb(rounded)}
                assert expected in colors
    texts = [t.content for t in drawing.texts]
    assert " ".join(texts).count("Difference of Attention Logits") == 1
    assert " ".join(texts).count("Attention Logits") == 2
    assert {"Head 2: A", "Head 2: B", "Head 2: B − A"} <= set(texts)


def test_the_title_names_both_layers_in_the_order_of_a_and_b(pair):
    title = headgrid.to_spec(compare(*pair[::-1]), validate=False)["title"]["text"]
    assert title[0].startswith("Layers 4 and 0: ")


def test_large_maps_become_images_and_equal_captures_have_a_white_difference():
    a = Capture.from_array(waves(3, 150, 150))
    spec = headgrid.to_spec(compare(a, a), validate=False)
    assert spec["usermeta"]["headgrid"]["difference_range"] == [-1.0, 1.0]
    assert {record["panel"] for record in spec["data"]["values"]} == set(range(9))
    assert "tile" in spec["data"]["values"][0]
    texts = [t.content for t in read_svg(render(spec, "svg").decode()).texts]
    assert "Difference of Attention Logits" in " ".join(texts)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (block_capture(2, (2, 3)), "the number of heads: 3 and 2; expected the same in both"),
        (block_capture(3, (2, 4)), r"differ in the query frames: 5 \(.*\) and 6"),
        (block_capture(3, (2, 3), statistic="mass"), "differ in the statistic: logit and mass"),
        (
            block_capture(3, (2, 3), key_frames=[0, 1, 2, 3, 9], query_frames=[0, 1, 2, 3, 9]),
            r"the query frames: 5 \(0, 1, 2, 3, 4\) and 5 \(0, 1, 2, 3, 9\)",
        ),
    ],
)
def test_captures_that_do_not_go_together_are_refused(pair, other, message):
    for call in (compare, subtract, change_table):
        with pytest.raises(CaptureError, match=message):
            call(pair[0], other)


def test_a_comparison_needs_full_matrices(pair):
    row = Capture.from_array(last_block=np.ones((3, 5)), query_frames=range(5), block_sizes=[2, 3])
    with pytest.raises(CaptureError, match="full_frame_attention is absent"):
        compare(row, pair[0])
    for a, b, found in ((row, pair[0], "absent and present"), (pair[0], row, "present and absent")):
        with pytest.raises(CaptureError, match=f"differ in full_frame_attention: {found}"):
            subtract(a, b)


@pytest.mark.parametrize("top", [0, -1, 1.5, True])
def test_the_table_has_at_least_one_row(pair, top):
    with pytest.raises(OptionError, match=r"top is .*, expected a whole number, at least 1"):
        change_table(*pair, top=top)


def test_the_command_draws_prints_and_writes_the_table(cli, pair, tmp_path):
    paths = [
        save_capture(capture, tmp_path / f"run_{number:03d}/layer4.npz")
        for number, capture in enumerate(pair)
    ]
    table, out = tmp_path / "c.csv", tmp_path / "c.json"
    result = cli("compare", *paths, "-o", out, "--top", 2, "--table", table)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "A (run_000, layer 0) and B (run_001, layer 4)" in lines[1]
    assert lines[-2].split()[:3] == ["1", "4", "2"]
    assert len(pd.read_csv(table)) == pair[0].num_visible
    meta = json.loads(out.read_text(encoding="utf-8"))["usermeta"]["headgrid"]
    assert (meta["a"], meta["b"]) == ("run_000, layer 0", "run_001, layer 4")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.npz", "b.npz"], 1, "there is no such file"),
        (["-o", "x.bmp", "a.npz", "b.npz"], 2, "the suffix of x.bmp is '.bmp'"),
        (["--top", "0", "a.npz", "b.npz"], 2, "top is 0"),
        (
            ["--table", "x.txt", "a.npz", "b.npz"],
            2,
            "the suffix of x.txt is '.txt', expected .csv",
        ),
    ],
)
def test_mistakes_are_one_sentence(cli, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = cli("compare", *arguments, "-o", "c.svg")
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, message in line) == (code, True)


def test_captures_of_one_run_and_layer_are_named_by_the_folders_that_differ(cli, pair, tmp_path):
    names = ("cats", "dogs")
    paths = [save_capture(pair[0], tmp_path / name / "run_000/layer0.npz") for name in names]
    result = cli("compare", *paths, "-o", tmp_path / "c.json")
    assert "A (cats/run_000, layer 0) and B (dogs/run_000, layer 0)" in result.stdout
