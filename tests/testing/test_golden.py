import json

import pytest

from headgrid import Capture, heatmap, perhead, to_json, to_spec
from headgrid.testing import (
    GoldenMismatchError,
    assert_matches_golden,
    compare_specs,
    find_orphans,
    read_table,
)
from synthetic import block_capture, waves


def changed(cells, **options):
    """Return a heatmap of 2 heads x 3 x 3, some cells changed."""
    values = waves(2, 3, 3).round(2)
    for cell, value in cells.items():
        values[cell] = value
    return heatmap(Capture.from_array(values), color_range=(-2, 2), **options)


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "map.vl.json"
    assert_matches_golden(changed({}), path, refresh=True)
    return path


@pytest.mark.parametrize("draw", [heatmap, perhead])
def test_a_chart_matches_what_it_wrote(draw, tmp_path):
    path = tmp_path / "a.vl.json"
    chart = draw(block_capture(prompt="注意 <b>\ud800"))
    assert_matches_golden(chart, path, refresh=True)
    assert_matches_golden(chart, path)
    assert path.read_text(encoding="utf-8") == to_json(chart)


def test_a_missing_golden_says_how_to_make_it(tmp_path):
    with pytest.raises(
        GoldenMismatchError, match=r"new\.vl\.json: .*No such file.*pytest --headgrid-refresh"
    ):
        assert_matches_golden(changed({}), tmp_path / "new.vl.json")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_golden_is_named(golden):
    golden.write_text("{")
    with pytest.raises(
        GoldenMismatchError,
        match=r"map\.vl\.json: is not JSON .*, expected a golden spec.*; refresh",
    ):
        assert_matches_golden(changed({}), golden)


def test_a_mismatch_names_head_query_key_old_and_new(golden):
    old = float(waves(2, 3, 3).round(2)[1, 2, 0])
    with pytest.raises(GoldenMismatchError) as caught:
        assert_matches_golden(changed({(1, 2, 0): 0.125}), golden)
    text = str(caught.value)
    assert "map.vl.json: the chart differs" in text
    assert "1 of 18 cells differ" in text
    assert f"head 1, query 2, key 0: {old!r} -> 0.125" in text
    assert "pytest --headgrid-refresh" in text


def test_a_mismatch_names_the_encoding(golden):
    with pytest.raises(GoldenMismatchError, match=r"columns: 4 -> 3"):
        assert_matches_golden(changed({}, columns=3), golden)
    lines = compare_specs(changed({}), changed({}, palette="custom"))
    assert any(".encoding.color.scale.range" in line for line in lines)
    assert not any("cells differ" in line for line in lines)


def test_frame_numbers_name_the_key_not_its_position():
    old, new = waves(1, 2, 2).round(2), waves(1, 2, 2).round(2)
    new[0, 1, 1] = 0.5
    frames = {"query_frames": [8, 9], "key_frames": [5, 9]}
    charts = (heatmap(Capture.from_array(v, **frames), color_range=(-2, 2)) for v in (old, new))
    lines = compare_specs(*charts)
    assert any("head 0, query 9, key 9:" in line for line in lines)


def test_cells_that_appear_and_vanish_are_named():
    lines = compare_specs(changed({(0, 1, 2): float("nan")}), changed({(1, 0, 2): float("nan")}))
    text = "\n".join(lines)
    assert "head 0, query 1, key 2: nothing -> " in text
    assert "head 1, query 0, key 2: " in text
    assert text.count(" -> nothing") == 1


def test_many_differences_are_cut_with_their_number():
    lines = compare_specs(changed({}), changed({...: 0.5}))
    assert "18 of 18 cells differ" in lines
    assert lines[-1].strip() == "... and 8 more"


def test_a_tolerance_lets_small_differences_pass(golden):
    near = float(waves(2, 3, 3).round(2)[1, 2, 0]) + 0.01
    assert_matches_golden(changed({(1, 2, 0): near}), golden, tolerance=0.011)
    with pytest.raises(GoldenMismatchError):
        assert_matches_golden(changed({(1, 2, 0): near}), golden, tolerance=0.009)


def test_a_tolerance_does_not_let_a_missing_cell_pass(golden):
    with pytest.raises(GoldenMismatchError, match="head 1, query 2, key 0"):
        assert_matches_golden(changed({(1, 2, 0): float("nan")}), golden, tolerance=1e9)


def test_profiles_are_compared_by_head_and_key():
    charts = [perhead(Capture.from_array(last_block=[[1.0, 2.0, v]])) for v in (3.0, 4.0)]
    assert any("head 0, key 2: 3.0 -> 4.0" in line for line in compare_specs(*charts))


def test_equal_specs_have_no_differences_whatever_the_order_of_keys():
    spec = to_spec(changed({}))
    backwards = json.loads(json.dumps(spec), object_pairs_hook=lambda pairs: dict(pairs[::-1]))
    assert compare_specs(spec, backwards) == []


def test_charts_that_headgrid_did_not_draw_are_compared_row_by_row():
    old = {"mark": "bar", "data": {"values": [{"a": 1}, {"a": 2}]}}
    new = {"mark": "bar", "data": {"values": [{"a": 1}, {"a": 3}]}}
    lines = compare_specs(old, new)
    assert "1 of 2 cells differ" in lines
    assert "row 1: {'a': 2} -> {'a': 3}" in lines[-1]


def test_the_table_of_a_golden_is_the_table_of_its_chart(golden):
    from_file = read_table(json.loads(golden.read_text(encoding="utf-8")))
    assert from_file.columns.tolist() == ["head", "query", "key", "logit"]
    assert from_file.equals(read_table(changed({})))


def test_orphans_are_golden_files_of_no_example(tmp_path):
    for name in ("a.vl.json", "b.vl.json", "notes.txt"):
        (tmp_path / name).touch()
    assert find_orphans(tmp_path, ["a"]) == ["b.vl.json"]
    assert find_orphans(tmp_path, ["a", "b"]) == []


SUITE = """
import numpy as np
from headgrid import Capture, perhead

def test_layer_3(headgrid_golden):
    values = np.array([[1.0, 2.0, {value}]])
    headgrid_golden(perhead(Capture.from_array(last_block=values)){arguments})
"""


@pytest.fixture
def suite(pytester):
    """Return a function that runs a test suite of somebody else."""

    def run(*options, value=3.0, arguments=""):
        pytester.makepyfile(SUITE.format(value=value, arguments=arguments))
        # Plugins that the suite does not need take seconds to load anew.
        plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist"]
        return pytester.runpytest_inprocess(*plugins, "--tb=short", *options)

    return run


def test_the_fixture_fails_without_a_golden_and_passes_after_a_refresh(suite, pytester):
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*layer_3.vl.json: *No such file*--headgrid-refresh*"])
    suite("--headgrid-refresh").assert_outcomes(passed=1)
    assert (pytester.path / "specs/layer_3.vl.json").exists()
    suite().assert_outcomes(passed=1)


def test_the_fixture_names_the_cell_that_changed(suite):
    suite("--headgrid-refresh").assert_outcomes(passed=1)
    result = suite(value=4.5)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*head 0, key 2: 3.0 -> 4.5*", "*pytest --headgrid-refresh*"])
    result.stdout.no_fnmatch_line("*headgrid/testing.py*")
    result.stdout.no_fnmatch_line("*_pytest.py*")
    suite(value=4.5, arguments=", tolerance=2").assert_outcomes(failed=1)  # the title differs


def test_name_and_folder_can_be_chosen(suite, pytester):
    pytester.makeini("[pytest]\nheadgrid_specs = goldens/vega")
    suite("--headgrid-refresh", arguments=", 'mine'").assert_outcomes(passed=1)
    assert (pytester.path / "goldens/vega/mine.vl.json").exists()
    suite(arguments=", 'mine'").assert_outcomes(passed=1)
