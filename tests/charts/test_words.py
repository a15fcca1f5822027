"""Words on axes, segments beside them, and sums of rows: what stands in the finished figure."""

import itertools
import json
import re

import numpy as np
import pytest

import headgrid
from headgrid import Capture, CaptureError, HeadgridWarning, OptionError
from headgrid.render.convert import render
from svgreader import read_svg

LONG = "antidisestablishmentarianism" * 8
WORDS = [
    "The",
    "cat",
    "</script>",
    "猫は好き",
    "مرحبا",
    "😀",
    "",
    "The",
    LONG,
    "\u202eevil",
    "a\u2028b",
]


def spec_of(chart):
    return headgrid.to_spec(chart)


def masses(count, heads=3, words=None, seed=0, **fields):
    logits = np.random.default_rng(seed).normal(size=(heads, count, count))
    weights = np.exp(np.where(np.tri(count, dtype=bool), logits, -np.inf))
    weights /= weights.sum(axis=-1, keepdims=True)
    labels = (words or WORDS)[:count] if words is not None or count <= len(WORDS) else None
    return Capture.from_array(weights, causal=True, labels=labels, statistic="mass", **fields)


def texts(svg):
    return [text.content for text in read_svg(svg).texts]


@pytest.mark.parametrize("draw", [headgrid.heatmap, headgrid.perhead])
@pytest.mark.parametrize("theme", ["default", "paper"])
def test_hostile_words_are_text_or_visibly_shortened(draw, theme):
    svg = render(spec_of(draw(masses(len(WORDS)), theme=theme, columns=1)), "svg").decode()
    shown = texts(svg)
    for word in ("The", "cat", "</script>", "猫は好き", "مرحبا", "😀", '""', "a b"):
        assert word in shown, word
    (shortened,) = {text for text in shown if text.startswith("anti")}
    assert shortened.endswith("…")
    assert LONG.startswith(shortened[:-1])
    assert "\u202e" not in svg
    assert "<script" not in svg


def test_words_stand_at_their_places_and_do_not_touch():
    words = [f"word{n}" for n in range(60)]
    svg = render(spec_of(headgrid.heatmap(masses(60, heads=1, words=words))), "svg").decode()
    drawn = [t for t in read_svg(svg).texts if t.content in words]
    across = sorted((t.x, words.index(t.content)) for t in drawn if t.rotated)
    upwards = sorted((-t.y, words.index(t.content)) for t in drawn if not t.rotated)
    for places in (across, upwards):
        assert len(places) >= 25
        numbers = [number for _, number in places]
        assert numbers == sorted(numbers)
        assert numbers[0] == 0
        gaps = np.diff([at for at, _ in places])
        assert gaps.min() >= 6.99  # a label of 7 points
        np.testing.assert_allclose(
            gaps / np.diff(numbers), gaps[0] / np.diff(numbers)[0], rtol=1e-6
        )


@pytest.mark.parametrize("letter", ["\u2014", "\ufdfa", "\U0001d400", "م"])
def test_wide_letters_do_not_reach_the_panel_below(letter):
    capture = masses(8, heads=2, words=[letter * 60] * 8)
    drawing = read_svg(render(spec_of(headgrid.perhead(capture, columns=1)), "svg").decode())
    names = [text.box() for text in drawing.texts if text.content == "Key Token"]
    (heading,) = (text.box() for text in drawing.texts if text.content.startswith("H1 "))
    labels = [text.box()[3] for text in drawing.texts if text.content.startswith(letter)]
    assert min(name[3] for name in names) < heading[1]
    assert sorted(labels)[7] < heading[1]


def test_few_short_words_lie_flat_and_titles_name_tokens():
    capture = masses(4, words=["a", "b", "c", "d"], run="run_0")
    for chart in (headgrid.heatmap(capture), headgrid.perhead(capture)):
        svg = read_svg(render(spec_of(chart), "svg").decode())
        assert not [t for t in svg.texts if t.content in "abcd" and t.rotated]
        assert "Key Token" in [t.content for t in svg.texts]
        assert "frame" not in chart.to_dict()["description"].lower()
    tooltips = json.dumps(headgrid.heatmap(capture).to_dict())
    assert '"query_label"' in tooltips
    assert '"key_label"' in tooltips


def test_captures_of_other_words_do_not_share_axes():
    one, two = masses(3, words=["a", "b", "c"]), masses(3, words=["a", "b", "x"])
    with pytest.raises(CaptureError, match="differ in the query labels"):
        headgrid.compare(one, two)
    with pytest.warns(HeadgridWarning, match="one and two differ in the query labels"):
        both = headgrid.survey([one.replace(run="one"), two.replace(run="two")])
    (mean,) = both.captures.values()  # words of one prompt are not those of the other
    assert mean.key_labels is None
    assert mean.key_name == "Token"


def test_tables_hold_the_words_in_order():
    capture = masses(len(WORDS))
    table = headgrid.profile_table(capture)
    assert table.loc[table["head"] == 0, "key_label"].tolist() == WORDS
    pairs = headgrid.pair_table(capture)
    assert pairs["query_label"].tolist() == [WORDS[n] for n in pairs["query"]]
    assert pairs["key_label"].tolist() == [WORDS[n] for n in pairs["key"]]
    changes = headgrid.change_table(capture, masses(len(WORDS), seed=1))
    assert changes["key_label"].tolist() == [WORDS[n] for n in changes["key"]]


@pytest.fixture
def joint():
    """Return a capture of 3 text tokens and 6 frames, all of which see each other."""
    weights = np.random.default_rng(3).random((2, 9, 9))
    weights /= weights.sum(axis=-1, keepdims=True)
    capture = Capture.from_array(weights, statistic="mass", query_name="Place", key_name="Place")
    return capture.with_segments({"text": (0, 3), "video": (3, None)})


def test_segments_have_brackets_names_and_borders_at_their_places(joint, tmp_path):
    plain = headgrid.heatmap(joint.with_segments({}), heads=[0])
    svg = render(spec_of(headgrid.heatmap(joint, heads=[0])), "svg").decode()
    shown = read_svg(svg)
    names = [t for t in shown.texts if t.content in ("text", "video")]
    assert sorted(t.content for t in names) == ["text", "text", "video", "video"]
    upright = {t.content: t.y for t in names if t.rotated}
    across = {t.content: t.x for t in names if not t.rotated}
    cell = 24  # 9 places in 216 points
    assert across["video"] - across["text"] == pytest.approx(4.5 * cell, abs=0.01)
    assert upright["text"] - upright["video"] == pytest.approx(4.5 * cell, abs=0.01)
    assert "headgrid_borders" not in json.dumps(plain.to_dict())
    saved = headgrid.load_capture(headgrid.save_capture(joint, tmp_path / "layer0.npz"))
    assert saved.key_parts == saved.query_parts == joint.key_parts


def test_lines_between_segments_lie_over_the_cells_of_a_sheet(joint):
    svg = render(spec_of(headgrid.sheet([joint])), "svg").decode()
    for panel in svg.split("headgrid_frame_marks")[1:]:
        assert 0 < panel.index("sheet_headgrid_cells") < panel.index("headgrid_borders_marks")


def test_masses_of_segments_are_the_sums_of_their_tokens(joint):
    table = headgrid.segment_table(joint)
    matrix = np.asarray(joint.full_frame_attention)
    for row in table.itertuples():
        places = {"text": slice(0, 3), "video": slice(3, 9)}
        part = matrix[row.head, places[row.query_segment], places[row.key_segment]]
        assert row.mass == pytest.approx(part.sum(axis=1).mean(), abs=1e-12)
    whole = table.groupby(["head", "query_segment"])["mass"].sum()
    np.testing.assert_allclose(whole, 1, atol=1e-12)
    with pytest.raises(CaptureError, match="has no segments"):
        headgrid.segment_table(joint.with_segments({}))


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ({"a": (0, 4), "b": (3, 9)}, "overlaps 'b'"),
        ({"a": (0, 12)}, "reaches beyond the axis"),
        ({"a": (4, 4)}, "holds no place of the axis"),
        ({"a": 4}, "query_parts is {'a': 4}"),
        ([("a", 0, 3)], "query_parts is"),
    ],
)
def test_segments_that_do_not_fit_are_refused(joint, segments, said):
    with pytest.raises(CaptureError, match=re.escape(said)):
        joint.with_segments(segments)


def test_sums_of_rows_stand_at_their_rows(joint):
    shown = Capture.from_array(np.asarray(joint.full_frame_attention)[:, :, :5], statistic="mass")
    svg = read_svg(render(spec_of(headgrid.heatmap(shown, sums=True, heads=[1])), "svg").decode())
    sums = np.asarray(shown.full_frame_attention)[1].sum(axis=1)
    found = [t for t in svg.texts if re.fullmatch(r"0\.\d\d", t.content) and t.anchor == "start"]
    left = min(text.x for text in found)  # further right are those of the color bar
    drawn = sorted((-text.y, text.content) for text in found if text.x == left)
    assert [content for _, content in drawn] == [f"{value:.2f}" for value in sums]
    with pytest.raises(OptionError, match="expected mass"):
        headgrid.heatmap(Capture.from_array(np.eye(3)), sums=True)


def test_a_row_without_a_value_has_no_sum():
    shown = np.full((2, 3, 3), 1 / 3)
    shown[0, 1], shown[1, :, 0] = np.nan, np.nan
    capture = Capture.from_array(shown, statistic="mass")
    for head, wanted in ((0, ["1.00", "1.00"]), (1, ["0.67"] * 3)):
        svg = read_svg(
            render(spec_of(headgrid.heatmap(capture, sums=True, heads=[head])), "svg").decode()
        )
        starts = [text.x for text in svg.texts if text.anchor == "start"]
        found = [t for t in svg.texts if t.anchor == "start" and t.x == min(starts)]
        assert [text.content for text in found] == wanted


def test_sums_of_differences_have_no_minus_zero_and_deviations_no_sum():
    left = np.array([[0.1, 0.9], [0.3, 0.2]])
    captures = [Capture.from_array(mass, statistic="mass") for mass in (left[:, ::-1], left / 2)]
    chart = headgrid.heatmap(headgrid.subtract(*captures), sums=True)
    shown = texts(render(spec_of(chart), "svg").decode())
    assert [text for text in shown if re.fullmatch(r".?0\.(50|25|00)", text)][-2:] == [
        "\u22120.50",
        "\u22120.25",
    ]
    chart = headgrid.heatmap(headgrid.subtract(captures[0], captures[0]), sums=True)
    assert "\u22120.00" not in texts(render(spec_of(chart), "svg").decode())
    deviation = Capture.from_array(left, statistic="mass_std").with_segments({"all": (0, 2)})
    with pytest.raises(OptionError, match="expected mass"):
        headgrid.heatmap(deviation, sums=True)
    assert headgrid.segment_table(deviation)["mass_std"].tolist() == [pytest.approx(0.375)]


def test_words_of_no_width_are_shown_by_number():
    capture = masses(3, words=["\u200b", "\ufeff\u00ad", "a\u200db"])
    shown = texts(render(spec_of(headgrid.heatmap(capture, columns=1)), "svg").decode())
    assert {"U+200B", "U+FEFF U+00AD", "a\u200db"} <= {*shown}
    assert headgrid.profile_table(capture)["key_label"][0] == "\u200b"


@pytest.mark.parametrize("draw", [headgrid.heatmap, headgrid.perhead])
@pytest.mark.parametrize("theme", ["default", "paper"])
def test_long_names_of_axes_do_not_reach_those_beside_them(draw, theme):
    for name in ("Spectrogram frame after two convolutions", "W" * 40, "Frame"):
        chart = draw(masses(5, heads=4, key_name=name), theme=theme)
        drawing = read_svg(render(spec_of(chart), "svg").decode())
        boxes = sorted(text.box() for text in drawing.texts if text.content.startswith("Key "))
        assert len(boxes) == 4
        assert all(a[2] < b[0] for a, b in itertools.pairwise(boxes))
        whole = any(text.content == f"Key {name}" for text in drawing.texts)
        assert whole == (name == "Frame" or (theme == "default" and name[0] == "S"))


@pytest.mark.parametrize("word", ["\u0120\u0120\u0120", "a@b@c@d@e@", "some words"])
def test_words_do_not_reach_the_title_of_their_axis_over_profiles(word):
    capture = Capture.from_array(5 * np.eye(3), labels=[word, word, "b"])  # ticks of one digit
    chart = headgrid.pick([capture], "0:0", figure="both", theme="paper")
    drawing = read_svg(render(spec_of(chart), "svg").decode())
    (title,) = (text.box() for text in drawing.texts if text.content == "Query Token")
    labels = [text.box()[0] for text in drawing.texts if text.content == word and not text.rotated]
    assert min(labels) > title[2]


def test_masses_that_hide_each_other_propose_a_scale_by_magnitude():
    weights = np.full((1, 30, 30), 1e-4)
    weights[:, :, 0] = 1
    capture = Capture.from_array(weights, statistic="mass")
    with pytest.warns(HeadgridWarning, match="color_range='log'"):
        headgrid.heatmap(capture)
    headgrid.heatmap(capture, color_range="log")  # a warning would be an error here
    headgrid.heatmap(Capture.from_array(np.full((1, 30, 30), 1 / 30), statistic="mass"))
