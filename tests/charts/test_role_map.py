"""The map of roles, and roles in the overview, read back from the drawing."""

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, OptionError, role_map
from headgrid.render.convert import render
from svgreader import parse_color, read_svg

COLORS = {"Anchor": (1, 115, 178), "Wave": (222, 143, 5), "Veil": (2, 158, 115)}
LAYERS = ["AWV-", "AAAW", "VVVV"]


def votes_of(layers=LAYERS, sets=("",), share=1.0, runs=1):
    """Return votes, a letter a head and - for none; x is a layer that is not there."""
    names = {name[0]: name for name in ("Anchor", "Wave", "Veil")}
    rows = [
        (name, layer, head, names["V" if letter == "V" else letter] if letter != "-" else None)
        for name in sets
        for layer, word in enumerate(layers)
        for head, letter in enumerate(word)
        if letter != "x"
    ]
    table = pd.DataFrame(rows, columns=["set", "layer", "head", "role"])
    roles = pd.Categorical(table["role"], list(COLORS), ordered=True)
    return table.assign(role=roles, share=share, runs=runs)


def drawn(chart):
    return read_svg(render(headgrid.to_spec(chart), "svg").decode())


def painted(drawing, x, y):
    """Return colour and opacity of what is painted last at a place."""
    found = None
    for shape in drawing.shapes:
        x0, y0, x1, y1 = shape.box
        if shape.filled and x0 < x < x1 and y0 < y < y1 and shape.style.get("fill") != "white":
            found = shape
    return found and parse_color(found.style["fill"])


def column_of(drawing, head):
    """Return the middle of a column of the first set: the number of the head below the cells."""
    lowest = max(t.y for t in drawing.texts if t.content == "2")
    return next(t.x for t in drawing.texts if t.content == str(head) and abs(t.y - lowest) < 1)


def rows_of(drawing):
    """Return the middles of the rows: the numbers of layers left of the cells."""
    left = column_of(drawing, 0) - 10
    return {int(t.content): t.y - 2.5 for t in drawing.texts if t.content.isdigit() and t.x < left}


def test_each_cell_has_the_colour_of_its_role_grey_without_one():
    drawing = drawn(role_map(votes_of()))
    y = rows_of(drawing)
    names = {"A": "Anchor", "W": "Wave", "V": "Veil"}
    for layer, word in enumerate(LAYERS):
        for head, letter in enumerate(word):
            expected = (221, 221, 221) if letter == "-" else COLORS[names[letter]]
            assert painted(drawing, column_of(drawing, head), y[layer]) == expected, (layer, head)


def test_the_columns_at_the_right_count_the_heads_of_each_layer():
    drawing = drawn(role_map(votes_of()))
    y = rows_of(drawing)
    for number, (name, letter) in enumerate(zip(COLORS, "AWV", strict=True)):
        at = max(t.x for t in drawing.texts if t.content == name)
        for layer, word in enumerate(LAYERS):
            told = [
                t.content
                for t in drawing.texts
                if abs(t.x - at) < 1 and abs(t.y - 2.5 - y[layer]) < 3
            ]
            count = word.count(letter)
            assert told == ([str(count)] if count else []), (number, layer)


def test_a_layer_that_is_missing_stays_blank_and_sets_stand_side_by_side():
    drawing = drawn(role_map(votes_of(["AWVA", "xxxx", "VVVV", "AAAA"], sets=("cats", "dogs"))))
    assert {"cats", "dogs"} <= {t.content for t in drawing.texts}
    y = rows_of(drawing)
    assert painted(drawing, column_of(drawing, 0), y[0]) == COLORS["Anchor"]
    assert painted(drawing, column_of(drawing, 0), y[1]) is None


def test_split_votes_are_paler_and_the_title_says_of_how_many_runs():
    split = headgrid.to_spec(role_map(votes_of(share=[0.5, 1.0] * 6, runs=4)))
    assert split["title"]["text"] == ["Roles of Heads by Layer", "Vote of 4 Runs"]
    drawing = read_svg(render(split, "svg").decode())
    opacities = {
        e.get("opacity") for e in drawing.root.iter() if e.get("fill", "").lower() == "#0173b2"
    }
    expected = 0.3 + 0.7 * (0.5 - 1 / 3) / (1 - 1 / 3)
    assert any(o is not None and abs(float(o) - expected) < 1e-3 for o in opacities)


@pytest.mark.parametrize(
    ("options", "heads"),
    [({}, 12), ({"theme": "paper", "width": "13.97cm"}, 12), ({"font": "serif"}, 12), ({}, 129)],
)
def test_nothing_overlaps_and_nothing_is_cut(options, heads):
    layers = ["AWV" * (heads // 3)] * 30
    drawing = drawn(role_map(votes_of(layers, sets=("cats", "dogs"), share=0.7, runs=3), **options))
    assert "0" in {t.content for t in drawing.texts}
    assert not any(t.content.endswith("…") and t.content[0].isdigit() for t in drawing.texts)
    boxes = [t.box() for t in drawing.texts]
    for x0, y0, x1, y1 in boxes:
        assert x0 >= -0.5 and y0 >= -0.5  # noqa: PT018
        assert x1 <= drawing.width + 0.5 and y1 <= drawing.height + 0.5  # noqa: PT018
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        for a0, b0, a1, b1 in boxes[number + 1 :]:
            over = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            assert min(over) < 0.6, (drawing.texts[number].content, over)


def test_hostile_names_of_roles_and_sets_are_drawn_as_text():
    votes = votes_of(sets=("</script>\x00'\"",))
    names = ["a'b\"c\\", "</script>\x08", "Veil" * 40]
    drawing = drawn(role_map(votes.assign(role=votes["role"].cat.rename_categories(names))))
    texts = " ".join(t.content for t in drawing.texts)
    assert "a'b\"c\\" in texts
    assert "</script>␈" in texts


def test_more_roles_than_colors_are_refused():
    many = pd.DataFrame(
        {"set": "", "run": "r", "layer": 0, "head": range(8), "role": [*"abcdefgh"]}
    )
    with pytest.raises(OptionError, match="found 8 roles, expected at most 7"):
        role_map(many)


# the overview


def survey_of(layers=3, heads=4):
    random = np.random.default_rng(1)
    return headgrid.survey(
        Capture.from_array(last_block=random.normal(size=(heads, 9)), layer=n)
        for n in range(layers)
    )


def test_the_overview_outlines_each_head_in_the_colour_of_its_role():
    survey, votes = survey_of(), votes_of()
    drawing = drawn(headgrid.overview(survey, roles=votes))
    frames = [s for s in drawing.shapes if s.stroked and not s.filled]
    told = [tuple(s.color) for s in frames if tuple(s.color) in COLORS.values()]
    for name, color in COLORS.items():
        assert told.count(color) == (votes["role"] == name).sum() + 1, name  # and in the key
    assert {*COLORS} <= {t.content for t in drawing.texts}
    for text in (t for t in drawing.texts if t.content.startswith(("0.", "1.", "\u2212"))):
        inside = [
            f for f in frames if f.box[0] < text.x < f.box[2] and f.box[1] < text.y < f.box[3]
        ]
        for frame in inside:
            x0, _, x1, _ = text.box()
            assert frame.box[0] < x0 < x1 < frame.box[2]


def test_an_overview_without_roles_stays_what_it_was_and_other_heads_are_refused():
    survey = survey_of()
    plain = headgrid.to_json(headgrid.overview(survey))
    assert "role" not in plain
    assert headgrid.to_json(headgrid.overview(survey, roles=None)) == plain
    with pytest.raises(CaptureError, match="roles tell of set '', layer 3, head 0, expected heads"):
        headgrid.overview(survey, roles=votes_of([*LAYERS, "AAAA"]))
    with pytest.raises(CaptureError, match="roles tell of set 'cats', layer 0"):
        headgrid.overview(survey, roles=votes_of(sets=("cats",)))
