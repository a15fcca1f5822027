"""Figures of two models, read back from the picture."""

import io
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, OptionError
from headgrid.render.convert import render
from svgreader import parse_color, parse_number, read_svg

BLUE, ORANGE = parse_color("#0173b2"), parse_color("#d55e00")
RNG = np.random.default_rng(0)
A = RNG.normal(size=(5, 6)).round(3) * 3
B = A + RNG.normal(size=(5, 6)).round(3) * 0.1
B[1, 2], B[3, 5] = B[1, 2] + 4, B[3, 5] - 5


def model(sinks):
    """Return a survey of heads with these sink scores, [layer, head]."""
    rows = np.multiply.outer(sinks, [1.0, 0.0, 0.0, 0.0])
    return headgrid.survey([Capture.from_array(last_block=r, layer=n) for n, r in enumerate(rows)])


def table(a=A, b=B):
    return headgrid.compare_models(model(a), model(b))


def draw(*arguments, **options):
    spec = headgrid.to_spec(headgrid.compare_heads(*arguments, **options))
    return read_svg(render(spec, "svg").decode())


def read_scatter(drawing):
    """Return the dots as (x, y, colour), values by the ticks of x and the line of equal values."""
    labels = [t for t in drawing.texts if "axis-label" in t.classes and t.anchor == "middle"]
    at, values = zip(*sorted((t.x, parse_number(t.content)) for t in labels), strict=True)
    (line,) = [s.points for s in drawing.shapes if "cell mark-rule" in s.classes]
    rise = np.diff(line, axis=0)[0]
    found = []
    for shape in drawing.shapes:
        if "cell mark-symbol" in shape.classes:
            x, y = (np.add(*np.reshape(shape.box, (2, 2)))) / 2
            equal = line[0, 0] + (y - line[0, 1]) / rise[1] * rise[0]
            found.append((*(np.polyval(np.polyfit(at, values, 1), p) for p in (x, equal)), shape))
    return found


def texts_in_panel(drawing):
    return [t for t in drawing.texts if "cell mark-text" in t.classes]


def overlap(one, two):
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


@pytest.mark.parametrize("options", [{}, {"theme": "paper"}, {"width": "12cm"}])
def test_a_dot_stands_at_the_values_of_its_head_and_outliers_are_named_beside_theirs(options):
    drawing = draw(table(), "scatter", names=("teacher", "student"), **options)
    found = read_scatter(drawing)
    values = sorted(zip(A.ravel(), B.ravel(), strict=True))
    np.testing.assert_allclose(sorted((x, y) for x, y, _ in found), values, atol=0.02)
    colors = [shape.color for _, _, shape in found]
    assert (colors.count(BLUE), colors.count(ORANGE)) == (28, 2)
    for text in texts_in_panel(drawing):
        layer, head = map(int, text.content[1:].split(" H"))
        assert (layer, head) in ((1, 2), (3, 5))
        beside = [
            shape
            for x, y, shape in found
            if abs(x - A[layer, head]) < 0.02 and abs(y - B[layer, head]) < 0.02
        ]
        x0, y0, x1, y1 = text.box()
        dot = beside[0].box
        assert 0 < max(x0 - dot[2], dot[0] - x1) < 5
        assert abs((y0 + y1) / 2 - (dot[1] + dot[3]) / 2) < 2
    assert len(texts_in_panel(drawing)) == 2
    titles = {t.content for t in drawing.texts}
    assert {"Sink Score (logits), teacher", "Sink Score (logits), student"} <= titles


def test_of_many_outliers_the_largest_are_named_and_nothing_overlaps():
    a, b = np.zeros((10, 40)), np.zeros((10, 40))
    a[:, :18] = b[:, :18] = RNG.normal(size=(10, 18))
    b[:4, 18:] += 3 + RNG.random((4, 22)) * 4
    a[:4, 18:] += RNG.random((4, 22)) * 4
    drawing = draw(table(a, b), "scatter")
    names = texts_in_panel(drawing)
    assert 3 < len(names) <= 12
    largest = np.unravel_index(np.abs(b - a).argmax(), a.shape)
    assert "L{} H{}".format(*largest) in [t.content for t in names]
    dots = [shape.box for _, _, shape in read_scatter(drawing)]
    boxes = [t.box() for t in names]
    assert not any(overlap(*pair) for pair in [*combinations(boxes, 2), *product(boxes, dots)])


def test_the_map_holds_the_difference_of_each_head_and_names_both_models():
    changed = A.copy()
    changed[2, [1, 4]] = A[2, [4, 1]]
    drawing = draw(table(A, changed), names=("{x}", "b"))
    texts = [t.content for t in drawing.texts]
    assert "Sink Score (logits) by Layer and Head: b \u2212 {x}" in texts
    cells = sorted(texts_in_panel(drawing), key=lambda t: (round(t.y), t.x))
    shown = np.reshape([parse_number(t.content) for t in cells], (6, 7))  # with means at the ends
    np.testing.assert_allclose(shown[:5, :6], changed - A, atol=0.0005)
    assert np.argwhere(shown[:5, :6]).tolist() == [[2, 1], [2, 4]]


def test_a_model_against_itself_draws_zeros():
    drawing = draw(table(A, A))
    assert {t.content for t in texts_in_panel(drawing)} == {"0.000"}
    scatter = read_scatter(draw(table(A, A), "scatter"))
    assert all(x == pytest.approx(y, abs=0.02) for x, y, _ in scatter)
    assert {shape.color for *_, shape in scatter} == {BLUE}


def roles(*names):
    return pd.Categorical(names, ["Anchor", "Wave", "Veil"], ordered=True)


@pytest.mark.parametrize("options", [{}, {"theme": "paper"}, {"width": "8.4cm"}])
def test_the_matrix_counts_heads_by_role_in_a_down_and_in_b_across(options):
    changes = pd.DataFrame(
        {
            "layer": 0,
            "head": range(6),
            "role_a": roles("Anchor", "Anchor", "Anchor", "Wave", "Wave", None),
            "role_b": roles("Anchor", "Veil", "Veil", "Wave", "Wave", "Wave"),
        }
    )
    drawing = draw(changes, "role_changes", names=("teacher", "student"), **options)
    at = {t.content: t for t in drawing.texts if "axis-label" in t.classes and t.anchor == "end"}
    across = {
        t.content: t.x for t in drawing.texts if "axis-label" in t.classes and t.anchor == "middle"
    }
    numbers = texts_in_panel(drawing)
    found = {
        (a, b): int(t.content)
        for t in numbers
        for a, b in product(at, across)
        if abs(t.x - across[b]) < 1 and abs(t.y - at[a].y) < 3
    }
    own = {("Anchor", "Anchor"): 1, ("Anchor", "Veil"): 2, ("Wave", "Wave"): 2}
    assert found == {pair: own.get(pair, 0) for pair in product(across, across)}
    back = pd.read_csv(io.StringIO(changes.to_csv(index=False)))
    charts = [headgrid.compare_heads(roles, "role_changes") for roles in (changes, back)]
    assert all("2 of 5 change; 1 more have no role" in chart.description for chart in charts)
    counts = [{(r["from"], r["to"]): r["heads"] for r in chart.data.values} for chart in charts]
    assert counts[0] == counts[1]


def test_another_table_or_option_is_refused():
    both = table()
    with pytest.raises(OptionError, match="expected one of compare_models, a row a head"):
        headgrid.compare_heads(pd.concat([both, both]))
    with pytest.raises(OptionError, match="expected one of role_changes"):
        headgrid.compare_heads(both, "role_changes")
    for table_of in (both.drop(columns="runs_b"), both[:0], [both]):
        with pytest.raises(OptionError, match="expected one of compare_models"):
            headgrid.compare_heads(table_of)
    with pytest.raises(OptionError, match="did you mean 'scatter'"):
        headgrid.compare_heads(both, "scater")
    with pytest.raises(OptionError, match="expected two, of A and B"):
        headgrid.compare_heads(both, names=["x"])
    with pytest.raises(CaptureError, match="no head has entropy in both models"):
        headgrid.compare_models(model(A), model(B), "entropy")
