"""Figures of caches, read back from the picture: curves, smallest caches, and what one drops."""

import re

import numpy as np
import pytest

import headgrid
from headgrid import Capture, FigureOptions, budget_curves, budget_table
from headgrid.charts.budgets import draw_dropped, draw_smallest
from headgrid.render.convert import render
from headgrid.tables.budgets import drop_table, smallest_budgets
from svgreader import parse_color, parse_number, read_svg

BLUE, ORANGE, WHITE = map(parse_color, ("#0173B2", "#DE8F05", "#ffffff"))


def masses(heads=3, blocks=(2, 2, 2), *, seed=0, **options):
    """Return a capture of softmaxed noise."""
    frames = sum(blocks)
    logits = 2 * np.random.default_rng(seed).normal(size=(heads, frames, frames))
    weights = np.exp(logits) * (np.arange(frames) < np.repeat(np.cumsum(blocks), blocks)[:, None])
    mass = weights / weights.sum(axis=2, keepdims=True)
    return Capture.from_array(mass, block_sizes=list(blocks), statistic="mass", **options)


def drawn(chart):
    return read_svg(render(headgrid.to_spec(chart), "svg").decode())


def read_curves(drawing, title):
    """Return the shares on each curve of a panel, by its colour, from the labels of its axis."""
    name = next(text for text in drawing.texts if text.content == title)
    near = [t for t in drawing.texts if t.anchor == "end" and re.fullmatch(r"[01]\.\d", t.content)]
    near = [t for t in near if t.y > name.y and t.x < name.x]
    left = max(t.x for t in near)
    axis = sorted((t for t in near if t.x == left), key=lambda t: t.y)[:6]
    values = [parse_number(t.content) for t in axis]
    assert values == [1, 0.8, 0.6, 0.4, 0.2, 0]
    middles = [t.y - 0.35 * t.size for t in axis]
    slope, base = np.polyfit(middles, values, 1)
    found = {}
    for shape in drawing.shapes:
        x0, y0, x1, y1 = shape.box
        inside = left < x0 < x1 < left + 2 * (name.x - left) and name.y < y0 < y1 < middles[-1] + 1
        if shape.stroked and not shape.closed and inside and shape.color in (BLUE, ORANGE):
            found[shape.color] = shape.points[:, 1] * slope + base
    return found


def test_curves_stand_at_the_means_of_the_table_and_titles_tell_the_smallest_caches():
    capture = masses(blocks=(2, 2, 3), run="a")
    table = budget_table(capture)
    small = smallest_budgets(table[table["policy"] == "sink+recent"])
    drawing = drawn(budget_curves(capture))
    for head in range(3):
        sizes = small.loc[small["head"] == head, "frames"].tolist()
        curves = read_curves(drawing, f"H{head} ({', '.join(map(str, sizes))})")
        for policy, color in (("sink+recent", BLUE), ("best", ORANGE)):
            means = table[(table["head"] == head) & (table["policy"] == policy)]["mean"]
            np.testing.assert_allclose(curves[color], means, atol=0.005)
    texts = [text.content for text in drawing.texts]
    assert {"sink+recent", "best", "Frames Kept", "Mass Kept"} <= {*texts}
    assert "Mean over 3 Blocks; in Parentheses the Smallest for 90, 95, 99 %" in texts


def test_curves_are_of_one_capture():
    with pytest.raises(headgrid.CaptureError, match="found list, expected one Capture"):
        budget_curves([masses()])


def test_a_head_without_a_value_says_so_and_long_curves_are_thinned():
    mass = np.full((2, 600, 600), 1 / 600)
    mass[1] = np.nan
    chart = budget_curves(Capture.from_array(mass, statistic="mass", key_name="Token"))
    drawing = drawn(chart)
    texts = [text.content for text in drawing.texts]
    assert texts.count("not recorded") == 1
    assert texts.count("Tokens Kept") == 2
    assert "H1 (n/a)" in texts
    (curve,) = {len(points) for points in read_curves(drawing, "H0 (540, 570, 594)").values()}
    assert curve == 201


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_the_map_tells_the_smallest_cache_of_every_head_in_the_mean_over_runs(share):
    places = [(run, layer) for run in ("a", "b") for layer in range(3)]
    captures = [masses(run=run, layer=layer, seed=n) for n, (run, layer) in enumerate(places)]
    table = smallest_budgets(budget_table(captures, sink=2))
    table = table[table["share"] == share]
    sizes = table[table["policy"] == "sink+recent"].pivot_table(
        index="layer", columns="head", values="frames"
    )
    drawing = drawn(draw_smallest(table, 2, "Frame", FigureOptions(color_range="log")))
    (head,) = (text for text in drawing.texts if text.content == "Head")
    cells = [t for t in drawing.texts if re.fullmatch(r"\d(\.\d)?", t.content) and t.size <= 7]
    cells = [t for t in cells if t.anchor == "middle" and t.y < head.y - 18]
    rows = {}
    for text in sorted(cells, key=lambda t: t.x):
        rows.setdefault(round(text.y), []).append(text.content)
    expected = [[*row, np.mean(row)] for row in sizes.to_numpy().tolist()]
    told = [list(map(float, row)) for _, row in sorted(rows.items())][:3]
    np.testing.assert_allclose(told, expected, atol=0.051)
    title = f"Smallest Cache for {100 * share:g}\u00a0% (frames) by Layer and Head"
    assert {title, "Mean over 2 Runs"} <= {text.content for text in drawing.texts}


@pytest.mark.parametrize("cells", ["vector", "image"])
def test_what_a_cache_drops_is_pale_and_told_over_each_map(cells):
    whole = masses(blocks=(1, 2, 3, 2))
    holes = whole.full_frame_attention.copy()
    holes[1, :, 3] = np.nan  # this head has not seen it, and keeps the frame before instead
    capture = Capture.from_array(holes, block_sizes=(1, 2, 3, 2), statistic="mass")
    drawing = drawn(draw_dropped(capture, (1, 3), FigureOptions(cells=cells)))
    veils = [shape.box for shape in drawing.shapes if "headgrid_dropped_" in shape.classes]
    cell = 216 / 8
    for head in range(3):
        share = drop_table(capture, (1, 3))["dropped"][head]
        title = f"Head {head} (drops {100 * share:.1f}%)"
        name = next(text for text in drawing.texts if text.content == title)
        left, bottom = name.x - 4 * cell, name.y + 5 + 216
        own = [box for box in veils if left - 1 < box[0] < left + 217]
        for query in range(8):
            seen = [key for key in range(8) if capture.head_matrix(head)[query, key] >= 0]
            for key in range(8):
                x, y = left + (key + 0.5) * cell, bottom - (query + 0.5) * cell
                pale = any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in own)
                assert pale == (key in seen and key not in (seen[0], *seen[-3:])), (query, key)
    assert "Layer 0: Pale Is Dropped by sink:1,recent:3" in [text.content for text in drawing.texts]
    (key,) = (text for text in drawing.texts if text.content == "not seen")
    beside = [shape for shape in drawing.shapes if key.x - 20 < shape.box[0] < key.x]
    assert "#dddddd" in [shape.style.get("fill") for shape in beside]


def test_where_nothing_is_dropped_nothing_is_pale():
    mass = masses(2).full_frame_attention.copy()
    mass[1] = np.nan
    capture = Capture.from_array(mass, block_sizes=(2, 2, 2), statistic="mass")
    drawing = drawn(draw_dropped(capture, (1, 9), FigureOptions()))
    titles = {"Head 0 (drops 0.0%)", "Head 1 (drops n/a)", "not recorded"}
    assert titles <= {text.content for text in drawing.texts}
    assert not any("dropped" in shape.classes for shape in drawing.shapes)
