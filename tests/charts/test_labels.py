import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, FigureOptions, resolve_color_range
from headgrid.capture.statistic import STATISTICS
from headgrid.charts import labels as lb
from headgrid.text import clean_text, count_columns, wrap_text
from synthetic import block_capture, waves

PLAIN = FigureOptions()


def test_titles_of_the_published_figures():
    capture = block_capture(12, (3,) * 7, layer=3)
    assert lb.heatmap_title(capture, PLAIN, 1100) == [
        "Layer 3: 2D Attention Maps (All Heads)",
        "Query Frames: 0-20, Key Frames: 0-20",
    ]
    assert lb.perhead_title(capture, PLAIN, 1000) == [
        "Layer 3: Per-Head Attention Distribution",
        "Query: frames [18, 19, 20]",
    ]


def test_titles_name_the_frames_that_there_are():
    capture = Capture.from_array(waves(1, 1, 3), query_frames=[9], key_frames=[4, 5, 9])
    assert lb.heatmap_title(capture, PLAIN, 600)[1] == "Query Frames: 9, Key Frames: 4-9"


def test_a_template_replaces_the_first_line():
    capture = block_capture(layer=3, run="run_000", prompt="a cat")
    options = FigureOptions(title="{run} L{layer} {{x}}: {prompt}")
    assert lb.heatmap_title(capture, options, 900)[0] == "run_000 L3 {x}: a cat"


def test_braces_in_a_prompt_are_no_fields():
    capture = block_capture(prompt="{layer} {0} {nosuch}")
    options = FigureOptions(title="{prompt}")
    assert lb.heatmap_title(capture, options, 900)[0] == "{layer} {0} {nosuch}"


def test_sink_titles_have_two_decimals_and_no_negative_zero():
    capture = Capture.from_array(last_block=[[5.0, 1.0, 2.0, 9.0], [1.001, 1.003, 1.003, 4.0]])
    assert lb.sink_titles(capture) == ["H0 (sink=3.50)", "H1 (sink=0.00)"]


def test_without_a_score_the_title_says_so():
    assert lb.sink_titles(Capture.from_array(last_block=[[1.0, 2.0]])) == ["H0 (sink=n/a)"]


def test_tiny_scores_are_not_rounded_to_nothing():
    capture = Capture.from_array(last_block=[[3e-5, 1e-5, 1e-5, 1e-5]])
    assert lb.sink_titles(capture) == ["H0 (sink=2.0e-05)"]


def test_enormous_scores_do_not_fill_the_row():
    capture = Capture.from_array(last_block=[[3e20, 1e20, 1e20, 1e20]])
    assert lb.sink_titles(capture) == ["H0 (sink=2.0e+20)"]


def test_last_rows_without_a_value_have_no_score_and_no_warning():
    capture = Capture.from_array(waves(2, 3, 3), last_block=np.full((2, 3), np.nan))
    assert lb.sink_titles(capture) == ["H0 (sink=n/a)", "H1 (sink=n/a)"]
    assert "6 of 6 pairs are unseen" in lb.perhead_caption(capture)


def test_the_caption_says_what_was_drawn_and_how():
    capture = block_capture(2, (2, 2), layer=3, run="run_007", prompt="a cat")
    caption = lb.heatmap_caption(capture, resolve_color_range((-0.5, 0.5), [capture]))
    visible = [v for h in range(2) for v in capture.head_matrix(h).ravel() if not np.isnan(v)]
    beyond = sum(abs(v) > 0.5 for v in visible)
    for part in (
        "run_007, layer 3",
        "Attention Logits",
        "before the softmax",
        "2 heads",
        "Color range -0.5 to 0.5 (fixed)",
        f"{beyond} of 24 values saturate",
        "8 of 32 pairs are unseen",
        "Prompt: a cat",
    ):
        assert part in caption


def test_the_caption_counts_what_was_not_recorded():
    capture = Capture.from_array(last_block=[[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    assert "1 of 6 pairs are unseen" in lb.perhead_caption(capture)


def test_a_mass_is_never_called_a_logit():
    capture = block_capture(statistic="mass")
    caption = lb.heatmap_caption(capture, resolve_color_range("symmetric", [capture]))
    assert "Attention Mass (attention after the softmax)" in caption
    assert "ogit" not in caption
    assert STATISTICS["mass"].title == "Attention Mass"
    assert STATISTICS["logit"].title == "Attention Logits"


def test_a_long_prompt_is_shortened():
    capture = block_capture(prompt="word " * 2000)
    caption = lb.perhead_caption(capture)
    assert len(caption) < 700
    assert caption.endswith("…")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\x00b", "a␀b"),
        ("\x08", "␈"),
        ("\x1b[31m", "␛[31m"),
        ("\x7f", "␡"),
        ("\ufffe", "\ufffd"),
        ("\ud800", "\ufffd"),
        ("\x9b", "\ufffd"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u2028b\u2029c\td", "a b c d"),
        ("<b>&\"'", "<b>&\"'"),
        ("注意力 😀 שלום مرحبا e\u0301", "注意力 😀 שלום مرحبا e\u0301"),
    ],
)
def test_control_characters_become_visible_and_all_else_stays(text, clean):
    assert clean_text(text) == clean


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(exclude_categories=[])))
def test_clean_text_can_be_encoded_and_holds_no_control_character(text):
    clean = clean_text(text)
    clean.encode("utf-8")
    assert not [c for c in clean if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) < 0xA0]
    assert clean_text(clean) == clean


@settings(deadline=None, max_examples=100)
@given(st.text(), st.integers(2, 40), st.integers(1, 4))
def test_wrapped_lines_fit(text, width, lines):
    wrapped = wrap_text(text, width, lines)
    assert 1 <= len(wrapped) <= lines
    assert all(count_columns(line) <= width for line in wrapped)


def test_wide_characters_count_two_columns():
    assert wrap_text("注意力可视化", 6) == ["注意力", "可视化"]


def test_what_does_not_fit_is_marked_as_cut():
    assert wrap_text("one two three four", 8, lines=2)[-1].endswith("…")
    assert wrap_text("one two", 8) == ["one two"]


def test_a_title_of_several_captures_lists_layers_and_runs_and_keeps_a_shared_prompt():
    captures = [
        Capture.from_array(last_block=[[1.0]], layer=n, run=f"run_{n}", prompt="a cat")
        for n in (15, 3)
    ]
    template = "{{x}} {layer} of {run}: {prompt}"
    assert lb.group_title(template, captures, 80) == ["{x} 3, 15 of run_15, run_3: a cat"]
    other = captures[1].replace(prompt="a dog")
    assert lb.group_title("{prompt}|", [captures[0], other], 80) == ["|"]
