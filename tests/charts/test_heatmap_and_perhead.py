import json
import math

import altair as alt
import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, OptionError, heatmap, perhead, to_spec
from headgrid.render.convert import render
from headgrid.testing import read_table
from synthetic import block_capture, waves

HOSTILE = "<b>&\"quotes\" 'single' \\ \n注意力 😀 שלום مرحبا </script><script>alert(1)</script> {x}"

both = pytest.mark.parametrize("draw", [heatmap, perhead])


def spec_of(chart):
    """Return the specification without altair's own check, which takes most of the time."""
    return to_spec(chart, validate=False)


def find(node, key):
    """Yield every value of a key, wherever it is in a specification."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from find(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from find(value, key)


def encoding(spec, channel):
    """Return the first encoding of a channel that names a field."""
    return next(e for e in find(spec, channel) if isinstance(e, dict) and "field" in e)


@both
@pytest.mark.parametrize("heads", [1, 12, 40])
def test_charts_facet_by_head(draw, heads):
    chart = draw(block_capture(heads, (1, 2)))
    assert isinstance(chart, alt.FacetChart)
    spec = spec_of(chart)
    assert spec["facet"]["field"] == "head"
    assert spec["columns"] == 4
    assert sorted(set(read_table(spec)["head"])) == list(range(heads))


@both
def test_columns_are_as_asked(draw):
    assert spec_of(draw(block_capture(7), columns=3))["columns"] == 3


def test_the_heatmap_holds_the_visible_pairs_and_no_others():
    capture = block_capture(3, (2, 3))
    table = read_table(spec_of(heatmap(capture)))
    expected = headgrid.pair_table(capture)[["head", "query", "key", "logit"]]
    assert_same_table(table, expected, ["head", "query", "key"])


def test_the_perhead_grid_holds_the_last_rows():
    capture = block_capture(3, (2, 3), statistic="mass")
    table = read_table(spec_of(perhead(capture)))
    expected = headgrid.profile_table(capture)[["head", "key", "mass"]]
    assert_same_table(table, expected, ["head", "key"])


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_values_keep_four_digits_of_the_largest(scale):
    capture = block_capture(2, (3, 3), scale=scale)
    for table, exact in (
        (read_table(spec_of(heatmap(capture))), headgrid.pair_table(capture)),
        (read_table(spec_of(perhead(capture))), headgrid.profile_table(capture)),
    ):
        difference = np.abs(table["logit"].to_numpy() - exact["logit"].to_numpy()).max()
        assert difference <= 5e-4 * np.abs(exact["logit"]).max()


def assert_same_table(table, expected, index):
    table = table.sort_values(index, ignore_index=True)
    pd.testing.assert_frame_equal(
        table[index].astype(int), expected[index].astype(int), check_like=False
    )
    value = expected.columns[-1]
    assert table.columns.tolist() == expected.columns.tolist()
    np.testing.assert_allclose(
        table[value], expected[value], rtol=0, atol=5e-4 * np.abs(expected[value]).max()
    )


def test_frame_numbers_reach_axes_and_data():
    capture = Capture.from_array(waves(1, 2, 3), query_frames=[8, 9], key_frames=[0, 5, 9])
    spec = spec_of(heatmap(capture))
    assert encoding(spec, "x")["scale"]["domain"] == [0, 5, 9]
    assert encoding(spec, "y")["scale"]["domain"] == [9, 8]
    assert sorted(set(read_table(spec)["key"])) == [0, 5, 9]


def test_axes_are_named_in_the_words_of_the_design():
    spec = spec_of(heatmap(block_capture()))
    assert encoding(spec, "x")["title"] == "Key Frame"
    assert encoding(spec, "y")["title"] == "Query Frame"
    assert encoding(spec, "color")["legend"]["title"] == "Attention Logits"
    assert encoding(spec_of(perhead(block_capture())), "y")["title"] == "Attention Logits"


@pytest.mark.parametrize("frames", [1, 2, 21, 72, 200])
def test_ticks_are_those_of_the_rule(frames):
    from headgrid.charts.scales import frame_ticks

    spec = spec_of(perhead(Capture.from_array(last_block=waves(1, 1, frames)[:, 0])))
    assert encoding(spec, "x")["axis"]["values"] == frame_ticks(frames)


def test_the_colour_domain_is_symmetric_over_the_visible_values():
    values = waves(2, 4, 4)
    values[0, 0, 3] = 99.0  # a future frame
    capture = Capture.from_array(values, block_sizes=[2, 2])
    largest = max(np.nanmax(np.abs(capture.head_matrix(h))) for h in range(2))
    scale = encoding(spec_of(heatmap(capture)), "color")["scale"]
    assert scale["domain"][0] == pytest.approx(-largest)
    assert scale["domain"][-1] == pytest.approx(largest)
    assert scale["domain"][len(scale["domain"]) // 2] == 0
    assert scale["range"][0] == "#053061"
    assert scale["range"][-1] == "#67001f"
    assert (scale["interpolate"], scale["clamp"]) == ("rgb", True)


@pytest.mark.parametrize(
    ("color_range", "ends"),
    [
        ((-2, 3), (-2, 3)),
        ([-2, 3], (-2, 3)),
        (headgrid.ColorRange(-7.0, 7.0, "shared"), (-7, 7)),
    ],
)
def test_a_colour_range_can_be_given(color_range, ends):
    spec = spec_of(heatmap(block_capture(), color_range=color_range))
    domain = encoding(spec, "color")["scale"]["domain"]
    assert (domain[0], domain[-1]) == ends


def test_minmax_reaches_both_ends_with_white_at_zero():
    capture = Capture.from_array([[[-1.0, 9.0], [2.0, 3.0]]])
    scale = encoding(spec_of(heatmap(capture, color_range="minmax")), "color")["scale"]
    assert (scale["domain"][0], scale["domain"][-1]) == (-1, 9)
    assert scale["range"][scale["domain"].index(0)] == "#f7f7f7"


def test_masses_are_viridis_from_zero_and_called_mass():
    spec = spec_of(heatmap(block_capture(statistic="mass")))
    color = encoding(spec, "color")
    assert color["legend"]["title"] == "Attention Mass"
    assert color["scale"]["domain"][0] == 0
    assert color["scale"]["range"][0] == "#440154"
    assert "ogit" not in json.dumps(spec)


@both
def test_tooltips_show_head_key_and_the_exact_name_of_the_value(draw):
    spec = spec_of(draw(block_capture()))
    fields = [[entry["field"] for entry in tip] for tip in find(spec, "tooltip")]
    expected = ["head", "query", "key", "logit"]
    assert fields
    for tip in fields:
        assert tip == [f for f in expected if f != "query" or draw is heatmap]


@both
@pytest.mark.parametrize("statistic", ["logit", "mass"])
def test_charts_are_valid_vega_lite(draw, statistic):
    to_spec(draw(block_capture(statistic=statistic, scale=1e-5), title="a"), validate=True)


@both
def test_the_caption_is_in_usermeta(draw):
    capture = block_capture(2, (2, 2), layer=3, prompt="a cat", run="run_000")
    meta = spec_of(draw(capture))["usermeta"]["headgrid"]
    assert meta["statistic"] == "logit"
    assert (meta["layer"], meta["run"], meta["prompt"]) == (3, "run_000", "a cat")
    assert "a cat" in meta["caption"]
    assert "unseen" in meta["caption"]


@both
def test_hostile_text_reaches_the_spec_unharmed(draw):
    capture = block_capture(prompt=HOSTILE, run="<i>&")
    spec = spec_of(draw(capture, title="{run} {prompt}"))
    title = " ".join(spec["title"]["text"][:-1])
    assert title.split() == f"<i>& {HOSTILE}".split()
    json.dumps(spec, allow_nan=False)


@both
@pytest.mark.parametrize("control", ["\x00", "\x08", "\x1b", "\ufffe", "\ud800", "\u2028"])
def test_control_characters_do_not_reach_the_spec(draw, control):
    capture = block_capture(prompt=f"a{control}b", run=f"r{control}")
    spec = spec_of(draw(capture, title="{prompt}"))
    assert control not in json.dumps(spec, ensure_ascii=False)


@both
def test_charts_can_be_customised_with_altair(draw):
    chart = draw(block_capture())
    changed = chart.properties(title="My title").configure_title(fontSize=20)
    spec = spec_of(changed)
    assert spec["title"] == "My title"
    assert spec["config"]["title"]["fontSize"] == 20
    assert spec_of(chart)["title"] != "My title"
    assert headgrid.to_json(changed)


@both
def test_customised_charts_still_draw(draw):
    from headgrid.render.convert import render_svg

    chart = draw(block_capture()).configure_axis(labelFontSize=9).properties(title="Mine")
    assert "Mine" in render_svg(spec_of(chart))


@both
def test_charts_display_by_themselves(draw):
    bundle = draw(block_capture())._repr_mimebundle_(include=None, exclude=None)
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    assert any("vega" in str(content) for content in bundle.values())


SCRIPT = "</script><script>alert(1)</script><!-- \u2028"


def assert_inert(html):
    """The page holds the chart's specification, and no text of it outside a JavaScript string."""
    assert "<script>alert" not in html
    assert "<!--" not in html
    assert "\\u003c/script\\u003e\\u003cscript\\u003ealert(1)" in html


@both
@pytest.mark.parametrize("renderer", ["default", "html", "colab", "olli"])
def test_a_prompt_can_not_run_code_in_a_notebook(draw, renderer):
    chart = draw(block_capture(prompt=SCRIPT), title="{prompt}")
    with alt.renderers.enable(renderer):
        bundle = chart._repr_mimebundle_(include=None, exclude=None)
    contents = bundle[0] if isinstance(bundle, tuple) else bundle
    assert_inert(contents["text/html"])


@both
@pytest.mark.parametrize("inline", [False, True])
def test_a_prompt_can_not_run_code_in_the_page_that_altair_writes(draw, inline, tmp_path):
    chart = draw(block_capture(prompt=SCRIPT), title="{prompt}")
    assert_inert(chart.to_html(inline=inline))
    chart.save(tmp_path / "a.html", inline=inline)
    assert_inert((tmp_path / "a.html").read_text(encoding="utf-8"))


def test_the_page_that_altair_opens_in_a_browser_is_inert(monkeypatch):
    opened = []
    monkeypatch.setattr("altair.utils._show.open_html_in_browser", lambda h, **_: opened.append(h))
    with alt.renderers.enable("browser"):
        perhead(block_capture(prompt=SCRIPT), title="{prompt}").show()
    assert_inert(opened[0])


@both
@pytest.mark.parametrize("renderer", ["mimetype", "json"])
def test_other_ways_of_display_stay_altairs_own(draw, renderer):
    capture = block_capture(prompt=SCRIPT)
    with alt.renderers.enable(renderer):
        ours = draw(capture)._repr_mimebundle_(include=None, exclude=None)
        plain = alt.Chart.from_dict(draw(capture).to_dict())
        theirs = plain._repr_mimebundle_(include=None, exclude=None)
    assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


@both
@pytest.mark.parametrize("suffix", ["json", "svg"])
def test_charts_can_be_saved_with_altair_itself(draw, suffix, tmp_path):
    path = tmp_path / f"chart.{suffix}"
    draw(block_capture(12, (3,) * 7)).save(str(path))
    if suffix == "json":
        assert json.loads(path.read_text())["facet"]["field"] == "head"
    else:
        assert path.read_text().count(">Key Frame<") == 12


def test_the_panel_titles_hold_the_sink_scores():
    spec = spec_of(perhead(Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0]])))
    assert "H0 (sink=3.50)" in spec["facet"]["header"]["labelExpr"]


def test_the_heatmap_needs_a_full_matrix():
    capture = Capture.from_array(last_block=[[1.0, 2.0, 3.0]])
    with pytest.raises(CaptureError, match="full_frame_attention is absent, expected an array"):
        heatmap(capture)
    assert perhead(capture)


@both
def test_wrong_options_are_refused(draw):
    with pytest.raises(OptionError, match="palette is 'jet', expected one of rdbu, custom"):
        draw(block_capture(), palette="jet")


@both
def test_a_head_with_nothing_in_its_last_row_still_has_a_panel(draw):
    values = waves(2, 2, 3)
    capture = Capture.from_array(values, last_block=np.array([[np.nan] * 3, [1.0, 2.0, 3.0]]))
    spec = spec_of(draw(capture))
    assert {record["head"] for record in spec["data"]["values"]} == {0, 1}


@both
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30])
def test_a_constant_capture_draws(draw, value):
    from headgrid.render.convert import render_svg

    text = render_svg(spec_of(draw(Capture.from_array(np.full((2, 3, 3), value)))))
    assert "NaN" not in text
    assert "undefined" not in text


def test_data_of_the_spec_is_plain_json_numbers():
    for record in spec_of(heatmap(block_capture(2, (3, 3))))["data"]["values"]:
        assert all(type(v) is float and math.isfinite(v) for v in record["logit"])


def test_what_a_user_configures_changes_that_and_nothing_else(small):
    chart = heatmap(small)
    plain, changed = to_spec(chart), to_spec(chart.configure_axis(labelFontSize=12))
    assert changed["config"]["axis"] == {**plain["config"]["axis"], "labelFontSize": 12}
    assert {**changed["config"], "axis": 0} == {**plain["config"], "axis": 0}
    yellow = to_spec(chart.configure(background="yellow"))
    assert yellow["config"] == {**plain["config"], "background": "yellow"}


def test_two_figures_can_stand_beside_each_other_and_be_drawn(small):
    spec = to_spec(heatmap(small) | perhead(small))
    assert [part["facet"]["field"] for part in spec["hconcat"]] == ["head", "head"]
    assert all("usermeta" not in part and "config" not in part for part in spec["hconcat"])
    assert "Key Frame" in render(spec, "svg").decode("utf-8")


def test_a_chart_survives_copying_with_its_look(small):
    import copy

    chart = perhead(small)
    assert to_spec(copy.deepcopy(chart)) == to_spec(chart) == to_spec(chart.copy())
