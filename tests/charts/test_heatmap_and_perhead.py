import copy
import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import (
    Capture,
    CaptureError,
    HeadgridWarning,
    OptionError,
    compare,
    explore,
    heatmap,
    overview,
    perhead,
    pick,
    sheet,
    survey,
    to_spec,
)
from headgrid.render.convert import render
from headgrid.testing import read_table
from svgreader import parse_number, read_svg
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
@pytest.mark.parametrize(("heads", "columns"), [(1, 4), (12, 3), (40, 4)])
def test_charts_facet_by_head(draw, heads, columns):
    chart = draw(block_capture(heads, (1, 2)), columns=columns)
    assert isinstance(chart, alt.FacetChart)
    spec = spec_of(chart)
    assert spec["facet"]["field"] == "head"
    assert spec["columns"] == columns
    assert sorted(set(read_table(spec)["head"])) == list(range(heads))


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("statistic", ["logit", "mass"])
def test_charts_hold_what_is_visible_and_nothing_else_to_four_digits(scale, statistic):
    capture = block_capture(3, (2, 3), scale=scale, statistic=statistic)
    for chart, table in (
        (heatmap(capture), headgrid.pair_table(capture)),
        (perhead(capture), headgrid.profile_table(capture)),
    ):
        expected = table.drop(columns=["run", "layer"])
        index = [*expected.columns[:-1]]
        found = read_table(spec_of(chart)).sort_values(index, ignore_index=True)
        assert found.columns.tolist() == expected.columns.tolist()
        pd.testing.assert_frame_equal(found[index].astype(int), expected[index].astype(int))
        largest = np.abs(expected[statistic]).max()
        np.testing.assert_allclose(
            found[statistic], expected[statistic], rtol=0, atol=5e-4 * largest
        )


def test_frame_numbers_reach_axes_and_data():
    capture = Capture.from_array(waves(1, 2, 3), query_frames=[8, 9], key_frames=[0, 5, 9])
    spec = spec_of(heatmap(capture))
    assert encoding(spec, "x")["scale"]["domain"] == [0, 5, 9]
    assert encoding(spec, "y")["scale"]["domain"] == [9, 8]
    assert sorted(set(read_table(spec)["key"])) == [0, 5, 9]
    long = spec_of(perhead(Capture.from_array(last_block=waves(1, 1, 72)[:, 0])))
    assert encoding(long, "x")["axis"]["values"] == [0, 20, 40, 60, 71]


@pytest.mark.parametrize(
    ("statistic", "title"), [("logit", "Attention Logits"), ("mass", "Attention Mass")]
)
def test_axes_and_bars_are_named_in_the_words_of_the_design(statistic, title):
    capture = block_capture(statistic=statistic)
    spec = spec_of(heatmap(capture))
    assert encoding(spec, "x")["title"] == "Key Frame"
    assert encoding(spec, "y")["title"] == "Query Frame"
    assert encoding(spec, "color")["legend"]["title"] == title
    assert encoding(spec_of(perhead(capture)), "y")["title"] == title
    assert ("ogit" in json.dumps(spec)) == (statistic == "logit")


@pytest.mark.parametrize(
    ("color_range", "ends"),
    [
        ((-2, 3), (-2, 3)),
        ([-2, 3], (-2, 3)),
        (headgrid.ColorRange(-7.0, 7.0, "shared"), (-7, 7)),
        ("minmax", (-1, 9)),
    ],
)
def test_a_colour_range_can_be_given_and_is_white_at_zero(color_range, ends):
    capture = Capture.from_array([[[-1.0, 9.0], [2.0, 3.0]]])
    scale = encoding(spec_of(heatmap(capture, color_range=color_range)), "color")["scale"]
    assert (scale["domain"][0], scale["domain"][-1]) == ends
    assert scale["range"][scale["domain"].index(0)] == "#f7f7f7"
    assert (scale["interpolate"], scale["clamp"]) == ("rgb", True)


@both
def test_tooltips_show_head_key_and_the_exact_name_of_the_value(draw):
    spec = spec_of(draw(block_capture()))
    fields = [[entry["field"] for entry in tip] for tip in find(spec, "tooltip")]
    expected = ["head", "query", "key", "logit"]
    assert fields
    for tip in fields:
        assert tip == [f for f in expected if f != "query" or draw is heatmap]


@both
def test_the_caption_is_in_usermeta_of_a_valid_specification(draw):
    capture = block_capture(2, (2, 2), scale=1e-5, layer=3, prompt="a cat", run="run_000")
    meta = to_spec(draw(capture), validate=True)["usermeta"]["headgrid"]
    assert meta["statistic"] == "logit"
    assert (meta["layer"], meta["run"], meta["prompt"]) == (3, "run_000", "a cat")
    assert "a cat" in meta["caption"]


@both
def test_hostile_text_reaches_the_spec_unharmed_but_for_control_characters(draw):
    capture = block_capture(prompt=HOSTILE, run="<i>&")
    spec = spec_of(draw(capture, title="{run} {prompt}"))
    title = " ".join(spec["title"]["text"][:-1])
    assert title.split() == f"<i>& {HOSTILE}".split()
    controls = "\x00\x08\x1b\ufffe\ud800\u2028"
    capture = block_capture(prompt=f"a{controls}b", run=f"r{controls}")
    spec = spec_of(draw(capture, title="{prompt}"))
    assert not set(controls) & set(json.dumps(spec, ensure_ascii=False, allow_nan=False))


@both
def test_charts_can_be_customised_with_altair_and_still_draw(draw):
    chart = draw(block_capture())
    changed = chart.properties(title="My title").configure_title(fontSize=20)
    spec = spec_of(changed)
    assert spec["title"] == "My title"
    assert spec["config"]["title"]["fontSize"] == 20
    assert spec_of(chart)["title"] != "My title"
    assert spec_of(copy.deepcopy(chart)) == spec_of(chart) == spec_of(chart.copy())
    assert "My title" in render(spec, "svg").decode()


SCRIPT = "</script><script>alert(1)</script><!-- \u2028"


def assert_inert(html):
    """The page holds the chart's specification, and no text of it outside a JavaScript string."""
    assert "<script>alert" not in html
    assert "<!--" not in html
    assert "\\u003c/script\\u003e\\u003cscript\\u003ealert(1)" in html


@both
def test_a_prompt_can_not_run_code_in_what_altair_writes_or_opens(draw, tmp_path, monkeypatch):
    show = "altair.utils._show.open_html_in_browser"
    monkeypatch.setattr(show, lambda html, **_: assert_inert(html))
    chart = draw(block_capture(prompt=SCRIPT), title="{prompt}")
    for renderer in ("default", "html", "colab", "olli"):
        with alt.renderers.enable(renderer):
            bundle = chart._repr_mimebundle_(include=None, exclude=None)
        contents = bundle[0] if isinstance(bundle, tuple) else bundle
        assert_inert(contents["text/html"])
    with alt.renderers.enable("browser"):
        chart.show()
    assert_inert(chart.to_html())
    chart.save(tmp_path / "a.html", inline=draw is perhead)
    assert_inert((tmp_path / "a.html").read_text(encoding="utf-8"))


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
def test_charts_can_be_saved_with_altair_itself(draw, tmp_path):
    chart = draw(block_capture(12, (3,) * 7))
    for path in (tmp_path / "chart.json", tmp_path / "chart.svg"):
        chart.save(str(path))
    assert json.loads((tmp_path / "chart.json").read_text())["facet"]["field"] == "head"
    assert (tmp_path / "chart.svg").read_text().count(">Key Frame<") == 12


@both
def test_wrong_options_are_refused_and_a_heatmap_without_a_full_matrix(draw):
    capture = Capture.from_array(last_block=[[1.0, 2.0, 3.0]])
    with pytest.raises(OptionError, match="palette is 'jet', expected one of rdbu, custom"):
        draw(capture, palette="jet")
    with pytest.raises(CaptureError, match="full_frame_attention is absent, expected an array"):
        heatmap(capture)


@both
def test_a_head_with_nothing_in_its_last_row_still_has_a_panel(draw):
    values = waves(2, 2, 3)
    capture = Capture.from_array(values, last_block=np.array([[np.nan] * 3, [1.0, 2.0, 3.0]]))
    spec = spec_of(draw(capture))
    assert {record["head"] for record in spec["data"]["values"]} == {0, 1}


@both
def test_some_heads_are_drawn_on_a_scale_of_their_own(draw):
    capture = block_capture(4, (2, 3), scale=2)
    capture = Capture.from_array(
        capture.full_frame_attention * np.array([1, 9, 1, 5])[:, None, None], block_sizes=[2, 3]
    )
    spec = spec_of(draw(capture, heads="3,0"))
    drawing = read_svg(render(spec, "svg").decode())
    titles = [t.content for t in drawing.texts if re.match(r"H(ead )?\d", t.content)]
    assert [re.search(r"\d", title)[0] for title in titles] == ["3", "0"]
    assert "heads 3, 0 of 4" in spec["description"]
    assert "(Heads 3, 0)" in spec["title"]["text"][0]
    if draw is heatmap:
        largest = max(np.nanmax(np.abs(capture.head_matrix(head))) for head in (0, 3))
        assert spec["usermeta"]["headgrid"]["color_range"][1] == pytest.approx(largest)
        assert "12 of 50 pairs are unseen" in spec["description"]
    with pytest.raises(OptionError, match="there is no head 4 in layer 0, expected 0 to 3"):
        draw(capture, heads=[4])


def test_marks_are_lines_at_borders_of_blocks_and_in_the_middle_of_frames():
    capture = block_capture(1, (2, 3))
    for draw, count in ((heatmap, 4), (perhead, 2)):
        drawing = read_svg(render(spec_of(draw(capture, marks=["blocks", 4])), "svg").decode())
        lines = [line for group in drawing.marks["marks"] for line in group]
        assert len(lines) == count
        labels = {t.content: t.x for t in drawing.texts if t.anchor == "middle" and t.size == 7}
        found = sorted(line.points[0][0] for line in lines if np.ptp(line.points[:, 0]) == 0)
        assert found == pytest.approx([(labels["1"] + labels["2"]) / 2, labels["4"]], abs=0.02)
    with pytest.raises(OptionError, match="marks has 5, which is no frame, expected 0, 1, 2, 3, 4"):
        heatmap(capture, marks=5 * [5])
    with pytest.raises(OptionError, match="nothing says which frames were generated together"):
        perhead(Capture.from_array(waves(1, 3, 3)), marks="blocks")


@pytest.mark.parametrize("theme", ["default", "paper"])
def test_value_axes_are_as_asked_for_and_the_caption_says_so(theme):
    capture = Capture.from_array(last_block=waves(2, 1, 6)[:, 0] * np.array([[1.0], [10.0]]))
    for axis in ("shared", "independent"):
        spec = spec_of(perhead(capture, theme=theme, value_axis=axis))
        assert ("One value axis for all heads" in spec["description"]) == (axis == "shared")
        drawing = read_svg(render(spec, "svg").decode())
        small, large = (max(s.box[3] - s.box[1] for s in bars) for bars in drawing.marks["bars"])
        assert (large > 5 * small) == (axis == "shared")
        axes = [t for t in drawing.texts if "axis-label" in t.classes]
        labels = {t.x for t in axes if t.anchor == "end"}
        assert len(labels) == (1 if (theme, axis) == ("paper", "shared") else 2)


def test_small_profiles_have_two_numbers_at_least_beside_them():
    rows = waves(6, 1, 9)[:, 0] * np.array([1, -2, 3, 5, 7, 9.0])[:, None]
    chart = perhead(Capture.from_array(last_block=rows), width="12cm", columns=3)
    drawing = read_svg(render(spec_of(chart), "svg").decode())
    titles = [t.content for t in drawing.texts if t.content.startswith("H")]
    counts = [len(panel.y_labels()) for panel in drawing.panels(titles)]
    assert len(counts) == 6
    assert min(counts) >= 2


def test_bars_that_are_all_positive_stand_on_the_frame():
    drawing = read_svg(render(spec_of(perhead(block_capture(2, statistic="mass"))), "svg").decode())
    frames = [s.box for s in drawing.shapes if "background" in s.classes]
    for bars, frame in zip(drawing.marks["bars"], frames, strict=True):
        assert {round(s.box[3], 2) for s in bars} == {round(frame[3], 2)}


def test_a_colour_bar_has_ticks_at_its_values_and_a_title_that_reads_upwards():
    capture = Capture.from_array([[[-6.0, 8.0], [2.0, 3.0]]], block_sizes=[1, 1])
    drawing = read_svg(render(spec_of(heatmap(capture)), "svg").decode())
    (bar,) = [s for s in drawing.shapes if "role-legend-gradient" in s.classes]
    assert bar.stroked
    ticks = sorted(s.points[0][1] for s in drawing.shapes if "role-legend-tick" in s.classes)
    labels = [t.content for t in drawing.texts if "legend-label" in t.classes]
    values = [parse_number(label) for label in labels if label != "not seen"]
    low, high = spec_of(heatmap(capture))["usermeta"]["headgrid"]["color_range"]
    _, top, _, bottom = bar.box
    places = [bottom - (value - low) / (high - low) * (bottom - top) for value in values]
    assert ticks == pytest.approx(sorted(places), abs=0.1)
    assert len(ticks) > 3
    (title,) = [t for t in drawing.texts if t.content == "Attention Logits"]
    assert title.matrix[1, 0] == pytest.approx(-1)
    assert "not seen" in {t.content for t in drawing.texts}
    seen = read_svg(render(spec_of(heatmap(Capture.from_array(np.eye(2)[None]))), "svg").decode())
    assert "not seen" not in {t.content for t in seen.texts}


def test_the_title_of_a_short_colour_bar_is_as_long_as_the_bar_at_most():
    mass = [Capture.from_array(np.eye(4)[None] + 1e-9, layer=n, statistic="mass") for n in (0, 1)]
    chart = overview(survey(mass), "effective_keys", theme="paper")
    drawing = read_svg(render(spec_of(chart), "svg").decode())
    (bar,) = [s for s in drawing.shapes if "role-legend-gradient" in s.classes]
    lines = [t for t in drawing.texts if "legend-title" in t.classes]
    assert " ".join(t.content for t in lines) == "Effective Number of Keys (keys)"
    for line in lines:
        assert bar.box[1] <= line.box()[1] < line.box()[3] <= bar.box[3]


@both
@pytest.mark.parametrize("value", [0.0, -3.5, 1e-30])
def test_a_constant_capture_draws(draw, value):
    text = render(spec_of(draw(Capture.from_array(np.full((2, 3, 3), value)))), "svg").decode()
    assert "NaN" not in text
    assert "undefined" not in text


@pytest.mark.parametrize("theme", ["default", "paper"])
def test_what_a_user_configures_changes_that_and_nothing_else(small, theme):
    chart = heatmap(small, theme=theme)
    plain, changed = to_spec(chart), to_spec(chart.configure_axis(labelFontSize=12))
    assert changed["config"]["axis"] == {**plain["config"]["axis"], "labelFontSize": 12}
    assert {**changed["config"], "axis": 0} == {**plain["config"], "axis": 0}
    yellow = to_spec(chart.configure(background="yellow"))
    assert yellow["config"] == {**plain["config"], "background": "yellow"}


def test_two_figures_can_stand_beside_each_other_and_be_drawn(small):
    spec = to_spec(heatmap(small) | perhead(small))
    assert [part["facet"]["field"] for part in spec["hconcat"]] == ["head", "head"]
    assert all("usermeta" not in part and "config" not in part for part in spec["hconcat"])
    under = to_spec(heatmap(small) & heatmap(small.replace(layer_index=5)))
    for drawn, name, count in ((spec, ">Key Frame<", 4), (under, "headgrid_cells", 4)):
        assert render(drawn, "svg").decode("utf-8").count(name) == count


@pytest.fixture
def gappy():
    """Return two captures of 3 heads: the first has no value in head 1, the other in head 2."""
    masks = (np.where(np.arange(3) == empty, np.nan, 1.0)[:, None, None] for empty in (1, 2))
    arrays = (waves(3, 4, 4) * mask for mask in masks)
    return [Capture.from_array(a, block_sizes=[2, 2], layer=n) for n, a in enumerate(arrays)]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda a, b: heatmap(a), 1),
        (lambda a, b: heatmap(a, cells="image", theme="paper"), 1),
        (lambda a, b: perhead(a), 1),
        (lambda a, b: pick([a], ["0:1", "0:0"], figure="both"), 2),
        (lambda a, b: pick([a], ["0:1"], color_range="quantile"), 1),
        (lambda a, b: compare(a, b), 4),  # head 1 of A and of the difference, head 2 of B and of it
        (lambda a, b: compare(a, b, cells="image"), 4),
        (lambda a, b: sheet([a, b]), 2),
        (lambda a, b: sheet([a, b], cells="image"), 2),
    ],
)
def test_a_head_without_a_value_has_an_empty_panel_that_says_so(draw, words, gappy):
    spec = spec_of(draw(*gappy))
    drawing = read_svg(render(spec, "svg").decode())
    assert [text.content for text in drawing.texts].count("not recorded") == words
    if "panels" in spec["usermeta"]["headgrid"]:
        shown = spec["usermeta"]["headgrid"]["panels"][0]
        assert shown.removeprefix("(a) ") == "layer 0, head 1, sink n/a"


def test_a_head_without_a_value_has_no_value_axis_of_its_own(gappy):
    drawing = read_svg(render(spec_of(perhead(gappy[0])), "svg").decode())
    titles = [t.content for t in drawing.texts if t.content.startswith("H")]
    counts = [len(panel.y_labels()) for panel in drawing.panels(titles)]
    assert counts[1] == 0 < min(counts[0], counts[2])
    alone = pick(gappy, ["0:1"], figure="perhead", value_axis="independent")
    assert (
        not read_svg(render(spec_of(alone), "svg").decode())
        .panels(["Layer 0, Head 1"])[0]
        .y_labels()
    )


def test_a_page_can_be_made_of_heads_without_a_value(gappy, tmp_path):
    with pytest.warns(HeadgridWarning, match="has no visible value in 1 of 3 heads"):
        assert explore(gappy, tmp_path / "page.html")
