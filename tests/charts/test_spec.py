import json
import subprocess
import sys

import altair as alt
import numpy as np
import pytest

from headgrid import RenderError, heatmap, perhead, to_json, to_spec
from headgrid.render.convert import render
from synthetic import block_capture

both = pytest.mark.parametrize("draw", [heatmap, perhead])


@both
def test_the_text_is_json_of_the_spec(draw):
    chart = draw(block_capture())
    assert json.loads(to_json(chart)) == json.loads(json.dumps(to_spec(chart)))


@both
def test_the_text_has_one_data_row_a_line_and_a_final_newline(draw):
    chart = draw(block_capture(2, (2, 2)))
    text = to_json(chart)
    records = to_spec(chart)["data"]["values"]
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    for record in records:
        assert json.dumps(record, separators=(",", ":"), sort_keys=True) in lines
    assert text.endswith("}\n")


def keys_are_sorted(node):
    if isinstance(node, dict):
        return list(node) == sorted(node) and all(map(keys_are_sorted, node.values()))
    return all(map(keys_are_sorted, node)) if isinstance(node, list) else True


@both
def test_keys_are_sorted_at_every_depth(draw):
    assert keys_are_sorted(json.loads(to_json(draw(block_capture()))))


@both
def test_a_spec_gives_the_same_text_as_its_chart(draw):
    chart = draw(block_capture())
    assert to_json(to_spec(chart)) == to_json(chart)
    assert to_json(json.loads(to_json(chart))) == to_json(chart)


@both
def test_the_same_capture_gives_the_same_text(draw):
    assert to_json(draw(block_capture())) == to_json(draw(block_capture()))


def test_the_text_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np, headgrid, hashlib;"
        "c = headgrid.Capture.from_array(np.arange(18.).reshape(2, 3, 3), prompt='\u6ce8');"
        "t = headgrid.to_json(headgrid.heatmap(c)) + headgrid.to_json(headgrid.perhead(c));"
        "print(hashlib.sha256(t.encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_text_in_any_script_stays_readable():
    text = to_json(heatmap(block_capture(prompt="注意力 😀 שלום")))
    assert "注意力 😀 שלום" in text
    text.encode("utf-8")


def test_any_altair_chart_is_taken_with_its_data_inline():
    import pandas as pd

    chart = alt.Chart(pd.DataFrame({"a": [1, 2]})).mark_bar().encode(x="a:Q")
    spec = to_spec(chart)
    assert spec["data"] == {"values": [{"a": 1}, {"a": 2}]}
    assert "datasets" not in spec


def test_what_is_no_chart_is_refused():
    with pytest.raises(RenderError, match="found int, expected an altair chart or a Vega-Lite"):
        to_spec(3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), object()])
def test_values_that_json_does_not_have_are_refused(value):
    with pytest.raises(RenderError, match="holds a value that JSON does not have"):
        to_json({"mark": "bar", "data": {"values": [{"a": value}]}})


def test_lone_surrogates_have_no_utf8_and_are_escaped():
    text = to_json({"mark": "bar", "title": "a\ud800"})
    assert json.loads(text.encode("utf-8"))["title"] == "a\ud800"


def test_the_name_of_the_records_placeholder_may_occur_in_text():
    spec = {"title": "headgrid-records-5b1f0c", "data": {"values": [{"a": 1}]}, "mark": "bar"}
    assert json.loads(to_json(spec)) == spec
    spec = {"data": {"values": [{"a": 1}]}, "mark": "bar", "zzz": "headgrid-records-5b1f0c"}
    assert json.loads(to_json(spec)) == spec
    spec = {"a": "headgrid-records-5b1f0c", "data": {"values": [{"a": 1}]}}
    assert json.loads(to_json(spec)) == spec


def nested(levels):
    """Return a specification nested so deep, and a specification around one."""
    title, spec = "a", {"mark": "bar", "data": {"values": []}}
    for _ in range(levels):
        title, spec = [title], {"hconcat": [spec]}
    return [{"mark": "bar", "data": {"values": []}, "title": title}, spec]


@pytest.mark.parametrize("levels", [101, 3000])
@pytest.mark.parametrize("format", ["svg", "json"])
def test_a_specification_that_is_too_deep_is_refused(levels, format):
    for spec in nested(levels):
        with pytest.raises(RenderError, match=r"nested more than 100 levels|does not have"):
            render(spec, format)


def test_deep_data_and_metadata_are_refused():
    for place in ("data", "usermeta", "datasets"):
        deep = []
        for _ in range(100):
            deep = [deep]
        spec = {"mark": "bar", "data": {"values": []}, place: {"values": deep}}
        with pytest.raises(RenderError, match="nested more than 100 levels"):
            render(spec, "json")


@pytest.mark.parametrize("name", [["a"], {}, 3, None])
def test_data_of_a_name_that_is_none_is_left_alone(name):
    spec = {"mark": "bar", "data": {"name": name}, "datasets": {"a": []}}
    assert to_spec(spec) == spec


@pytest.mark.parametrize(
    ("domain", "colors"),
    [
        ([], []),
        ([0, 0], ["red", "blue"]),
        ([1, 0], ["red", "blue"]),
        (["a", None], ["red", "blue"]),
        ([0, 1], [1, 2]),
        ([0, 10**400], ["red", "blue"]),
        ([0, 1], ["red"]),
    ],
)
def test_a_scale_that_is_not_ours_is_left_to_vega(domain, colors):
    scale = {"domain": domain, "range": colors, "interpolate": "rgb"}
    color = {"field": "a", "type": "quantitative", "scale": scale}
    spec = {"mark": "rect", "data": {"values": [{"a": 1}]}, "encoding": {"color": color}}
    message = ""
    try:
        drawing = render(spec, "svg").decode()
    except RenderError as error:
        drawing, message = "</svg>\n", str(error)
    assert drawing.endswith("</svg>\n")
    assert message.isprintable()
    assert len(message) < 600


def test_a_config_and_a_facet_that_are_none_do_not_stop_the_drawing():
    spec = {"mark": "bar", "data": {"values": [{"a": 1}]}, "config": [1], "facet": {"field": {}}}
    with pytest.raises(RenderError):
        render(spec, "svg")


@pytest.mark.parametrize("size", [{"padding": 1e9}, {"padding": 1e300}])
def test_a_drawing_without_a_size_is_refused(size):
    spec = {"mark": "bar", "data": {"values": [{"a": 1}]}, **size}
    with pytest.raises(RenderError, match="expected a width and a height above 0"):
        render(spec, "svg")
