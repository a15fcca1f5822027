"""Titles and captions of figures, read from their specifications, and the text in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, heatmap, perhead, pick, to_spec
from headgrid.charts.profiles import sink_texts
from headgrid.text import clean_text, count_columns, wrap_text
from synthetic import block_capture, waves


def title_of(chart):
    return to_spec(chart, validate=False)["title"]["text"]


def caption_of(chart):
    return to_spec(chart, validate=False)["description"]


def test_titles_are_those_published_and_name_the_frames_that_there_are():
    capture = block_capture(12, (3,) * 7, layer=3)
    assert title_of(heatmap(capture)) == [
        "Layer 3: 2D Attention Maps (All Heads)",
        "Query Frames: 0-20, Key Frames: 0-20",
    ]
    assert title_of(perhead(capture)) == [
        "Layer 3: Per-Head Attention Distribution",
        "Query: frames [18, 19, 20]",
    ]
    capture = Capture.from_array(waves(1, 1, 3), query_frames=[9], key_frames=[4, 5, 9])
    assert title_of(heatmap(capture))[1] == "Query Frames: 9, Key Frames: 4-5, 9"


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{run} L{layer} {{x}}: {prompt}", "run_000 L3 {x}: {layer} {0} {nosuch}"),
        ("{prompt}", "{layer} {0} {nosuch}"),
    ],
)
def test_a_template_replaces_the_first_line_and_braces_in_a_prompt_are_no_fields(template, line):
    capture = block_capture(layer=3, run="run_000", prompt="{layer} {0} {nosuch}")
    assert title_of(heatmap(capture, title=template))[0] == line


def test_a_title_of_several_captures_lists_layers_and_runs_and_keeps_a_shared_prompt():
    captures = [
        Capture.from_array(last_block=[[1.0]], layer=n, run=f"run_{n}", prompt="a cat")
        for n in (15, 3)
    ]

    def title(template, *given):
        return title_of(pick(given, ["15:0", "3:0"], figure="perhead", title=template))

    template = "{{x}} {layer} of {run}: {prompt}"
    assert title(template, *captures) == ["{x} 3, 15 of run_15, run_3: a cat"]
    assert title("{prompt}|", captures[0], captures[1].replace(prompt="a dog")) == ["|"]


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        (
            [[5.0, 1.0, 2.0, 9.0], [1.001, 1.003, 1.003, 4.0]],
            ["3.50", "0.00"],  # no negative zero
        ),
        ([[1.0, 2.0]], ["n/a"]),
        ([[3e-5, 1e-5, 1e-5, 1e-5]], ["2.0e\u22125"]),
        ([[3e20, 1e20, 1e20, 1e20]], ["2.0e+20"]),
    ],
)
def test_sink_scores_in_titles_are_short_and_never_rounded_to_nothing(rows, scores):
    assert sink_texts(Capture.from_array(last_block=rows)) == scores


def test_last_rows_without_a_value_have_no_score_and_no_warning():
    capture = Capture.from_array(waves(2, 3, 3), last_block=np.full((2, 3), np.nan))
    assert sink_texts(capture) == ["n/a", "n/a"]
    assert "6 of 6 pairs are unseen" in caption_of(perhead(capture))


def test_the_caption_says_what_was_drawn_and_how():
    capture = block_capture(2, (2, 2), layer=3, run="run_007", prompt="a cat")
    caption = caption_of(heatmap(capture, color_range=(-0.5, 0.5)))
    visible = [v for h in range(2) for v in capture.head_matrix(h).ravel() if not np.isnan(v)]
    beyond = sum(abs(v) > 0.5 for v in visible)
    long = caption_of(heatmap(capture.replace(prompt="word " * 2000)))
    assert len(long) < 700
    assert long.endswith("…")
    for part in (
        "run_007, layer 3: Attention Logits (mean over token pairs",
        "before the softmax), 2 heads, query x key frame. ",
        f"Color range \u22120.5 to 0.5 (fixed); {beyond} of 24 values saturate; ",
        "8 of 32 pairs are unseen. Prompt: a cat",
    ):
        assert part in caption


def test_control_characters_become_visible_and_all_else_stays():
    text = "a\x00b \x08 \x1b[31m \x7f \ufffe \ud800 \x9b a\r\nb\rc a\u2028b\u2029c\td"
    assert clean_text(text) == "a␀b ␈ ␛[31m ␡ \ufffd \ufffd \ufffd a\nb\nc a b c d"
    text = "<b>&\"' 注意力 😀 שלום مرحبا e\u0301"
    assert clean_text(text) == text


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


def test_wide_characters_count_two_columns_and_what_is_cut_is_marked():
    assert wrap_text("注意力可视化", 6) == ["注意力", "可视化"]
    assert wrap_text("one two three four", 8, lines=2)[-1].endswith("…")
    assert wrap_text("one two", 8) == ["one two"]
    assert wrap_text("one\n\n\n\n\ntwo", 8)[-1] == "…"
