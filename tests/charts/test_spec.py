import json
import subprocess
import sys
from contextlib import suppress

import altair as alt
import numpy as np
import pytest

from headgrid import Capture, RenderError, heatmap, perhead, to_json, to_spec
from headgrid.render.convert import render
from synthetic import block_capture

both = pytest.mark.parametrize("draw", [heatmap, perhead])


@both
def test_the_text_is_json_of_the_spec_sorted_with_one_data_row_a_line(draw):
    chart = draw(block_capture(2, (2, 2)))
    text, spec = to_json(chart), to_spec(chart)
    assert json.loads(text) == json.loads(json.dumps(spec))
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    for record in spec["data"]["values"]:
        assert json.dumps(record, separators=(",", ":"), sort_keys=True) in lines
    assert text.endswith("}\n")
    pairs = []
    json.loads(text, object_pairs_hook=lambda found: pairs.append([key for key, _ in found]))
    assert all(keys == sorted(keys) for keys in pairs)


@both
def test_a_spec_and_the_same_capture_again_give_the_same_text(draw):
    text = to_json(draw(block_capture()))
    assert to_json(to_spec(draw(block_capture()))) == to_json(json.loads(text)) == text


def test_the_text_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np, headgrid;"
        "c = headgrid.Capture.from_array(np.arange(18.).reshape(2, 3, 3), prompt='\u6ce8');"
        "print(*(ascii(headgrid.to_json(f(c))) for f in (headgrid.heatmap, headgrid.perhead)))"
    )
    capture = Capture.from_array(np.arange(18.0).reshape(2, 3, 3), prompt="\u6ce8")
    here = f"{to_json(heatmap(capture))!a} {to_json(perhead(capture))!a}"
    command, environment = [sys.executable, "-c", code], {"PYTHONHASHSEED": "1", "PATH": ""}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout == here + "\n"


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


def test_text_in_any_script_stays_readable_and_lone_surrogates_are_escaped():
    assert "注意力 😀 שלום" in to_json(heatmap(block_capture(prompt="注意力 😀 שלום")))
    text = to_json({"mark": "bar", "title": "a\ud800"})
    assert json.loads(text.encode("utf-8"))["title"] == "a\ud800"


def test_only_the_records_of_the_whole_are_a_line_each():
    inner = {"data": {"format": {"values": []}, "values": []}}
    for name in ("a", "zzz"):
        data = {"format": {"values": [3]}, "values": [{"a": 1}]}
        spec = {name: '\n "data": {\n  "values": [', "data": data, "hconcat": [inner]}
        assert json.loads(to_json(spec)) == spec


@pytest.mark.parametrize(("levels", "format"), [(101, "svg"), (101, "json"), (3000, "svg")])
def test_a_specification_that_is_too_deep_is_refused(levels, format):
    empty = {"mark": "bar", "data": {"values": []}}
    deep, around = [], empty
    for _ in range(levels):
        deep, around = [deep], {"hconcat": [around]}
    places = ({**empty, place: {"values": deep}} for place in ("data", "usermeta", "datasets"))
    for spec in ({**empty, "title": deep}, around, *places):
        with pytest.raises(RenderError, match=r"nested more than 100 levels|does not have"):
            render(spec, format)


@pytest.mark.parametrize("name", [["a"], {}, 3, None])
def test_data_of_a_name_that_is_none_is_left_alone(name):
    spec = {"mark": "bar", "data": {"name": name}, "datasets": {"a": []}}
    assert to_spec(spec) == spec


EMPTY = {"mark": "bar", "data": {"values": [{"a": 1}]}}


@pytest.mark.parametrize("domain", [[], [0, 0], [1, 0], ["a", None], [0, 10**400], [0, 1]])
def test_a_scale_that_is_not_ours_is_left_to_vega(domain):
    for colors in ([], ["red", "blue"], [1, 2], ["red"]):
        scale = {"domain": domain, "range": colors, "interpolate": "rgb"}
        color = {"field": "a", "type": "quantitative", "scale": scale}
        with suppress(RenderError):
            assert render({**EMPTY, "encoding": {"color": color}}, "svg").endswith(b"</svg>\n")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"config": [1], "facet": {"field": {}}}, "expected"),
        ({"padding": 1e9}, "expected a width and a height above 0"),
        ({"padding": 1e300}, "expected a width and a height above 0"),
    ],
)
def test_what_vega_can_not_draw_is_refused(odd, message):
    with pytest.raises(RenderError, match=message):
        render({**EMPTY, **odd}, "svg")
