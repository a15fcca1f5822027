"""The overview and the trend, read back from specification and picture."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, ColorRange, FigureOptions, OptionError
from headgrid.charts.overview import draw_overview
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.charts.trend import draw_trend
from headgrid.render.convert import render
from headgrid.tables.measures import Summary
from svgreader import parse_color, read_svg


def summary(sets=("",), layers=(0, 1, 2), heads=3, runs=4, missing=()):
    """Return a summary whose numbers are known: 10 * layer + head, + 100 for the second set."""
    rows = []
    for position, name in enumerate(sets):
        for layer in layers:
            values = [
                np.nan if (layer, head) in missing else 10.0 * layer + head + 100 * position
                for head in range(heads)
            ]
            for head, value in [*enumerate(values), (pd.NA, np.nanmean(values))]:
                std = 0.5 + layer if runs > 1 else np.nan
                rows.append((name, layer, head, runs, value, std))
    table = pd.DataFrame(rows, columns=["set", "layer", "head", "runs", "mean", "std"])
    return table.astype({"layer": "Int64", "head": "Int64"})


def overview_of(table, name="sink", statistic="logit", **options):
    layers = options.pop("layers", None)
    return headgrid.to_spec(
        draw_overview(Summary(table, name, statistic), FigureOptions(**options), layers=layers)
    )


def drawn(spec):
    return read_svg(render(spec, "svg").decode())


def cells_of(drawing):
    """Return the colour of each cell by its edges."""
    shapes = [shape for group in drawing.marks["cells"] for shape in group]
    return {tuple(area): tuple(shape.color) for shape in shapes for area in shape.areas()}


def color_at(cells, x, y):
    return next((c for (x0, y0, x1, y1), c in cells.items() if x0 < x < x1 and y0 < y < y1), None)


def test_each_number_stands_on_the_colour_of_its_value_white_where_that_is_dark():
    table = summary()
    drawing = drawn(overview_of(table))
    cells = cells_of(drawing)
    values = table.loc[table["head"].notna(), "mean"]
    scale = ColorScale(ColorRange(-values.max(), values.max(), ""), palette_for("logit", "rdbu"))
    inks = {
        t.text: t.get("fill", "") for t in drawing.root.iter("{http://www.w3.org/2000/svg}text")
    }
    for value in values:
        text = next(t for t in drawing.texts if t.content == f"{value:.2f}")
        color = color_at(cells, text.x, text.y - 2)
        assert color == tuple(map(int, scale.rgb(value)))
        if value in (0, values.max()):
            assert (inks[text.content] in ("#fff", "white")) == (value > 0)


def test_the_margins_are_the_means_without_spread_and_do_not_shape_the_color_range():
    spec = overview_of(summary())
    records = spec["data"]["values"]
    by_layer = {r["layer"]: r["sink"] for r in records if "layer" in r and "head" not in r}
    by_head = {r["head"]: r["sink"] for r in records if "head" in r and "layer" not in r}
    (grand,) = [r["sink"] for r in records if "head" not in r and "layer" not in r]
    assert by_layer == {0: 1.0, 1: 11.0, 2: 21.0}
    assert by_head == {0: 10.0, 1: 11.0, 2: 12.0}
    assert grand == 11.0
    assert all("std" not in r for r in records if "layer" not in r)
    assert spec["usermeta"]["headgrid"]["color_range"] == [-22.0, 22.0]


def test_a_missing_layer_is_a_blank_row_with_its_number():
    drawing = drawn(overview_of(summary(layers=(0, 1, 3)), layers=(0, 1, 2, 3)))
    cells = cells_of(drawing)
    labels = {t.content: t.y for t in drawing.texts if t.content in ("0", "1", "2", "3")}
    column = next(t.x for t in drawing.texts if t.content == "10.00")
    assert color_at(cells, column, labels["1"] - 2) is not None
    assert color_at(cells, column, labels["2"] - 2) is None


def test_a_head_without_a_value_is_grey_and_has_no_number():
    spec = overview_of(summary(missing={(1, 1)}))
    (record,) = [r for r in spec["data"]["values"] if r.get("layer") == 1 and r.get("head") == 1]
    assert "sink" not in record
    svg = render(spec, "svg").decode()
    assert svg.count('fill="#dddddd"') == 1
    assert ">11.00<" in svg  # the margin of head 1 and of the whole
    assert sum(t.content.endswith(".00") for t in read_svg(svg).texts) == 8 + 3 + 3 + 1


def test_sets_stand_side_by_side_on_one_scale_whose_bar_tells_of_values_beyond_it():
    table = summary(sets=("A", "B"))
    assert overview_of(table)["usermeta"]["headgrid"]["color_range"] == [-122.0, 122.0]
    spec = overview_of(table, color_range=(-5, 10))
    assert spec["columns"] == 2
    texts = [t.content for t in drawn(spec).texts]
    assert {"A", "B", "22.00", "122.00", "\u2265\u200910"} <= set(texts)
    assert not any(text.startswith("\u2264") for text in texts)


def test_tooltips_hold_every_number():
    spec = overview_of(summary(sets=("A",)))
    record = next(r for r in spec["data"]["values"] if r.get("layer") == 2 and r.get("head") == 1)
    assert record == {
        "panel": 0, "set": "A", "layer": 2, "head": 1, "runs": 4, "sink": 21.0, "std": 2.5,
    }  # fmt: skip
    cells = next(part for part in spec["spec"]["layer"] if part.get("name") == "headgrid_cells")
    fields = [entry["field"] for entry in cells["encoding"]["tooltip"]]
    assert fields == ["set", "layer", "head", "sink", "std", "runs"]


def small_scores():
    """Return a summary of 30 layers and 12 heads, with scores from -9.99 to 9.99."""
    table = summary(layers=range(30), heads=12)
    table["mean"] = np.linspace(-9.99, 9.99, len(table)) ** 3 / 9.99**2
    return table


PAPER = {"theme": "paper", "width": "8.4cm"}


@pytest.mark.parametrize("options", [{}, {"theme": "paper"}, PAPER, {"width": "8.4cm"}])
def test_labels_and_titles_stand_at_the_middle_of_the_cells_and_nothing_touches(options):
    drawing = drawn(overview_of(small_scores(), **options))
    *_, cells, means = drawing.marks["cells"]
    boxes = [np.array([a for s in group for a in s.areas()]) for group in (cells, means)]
    (x0, y0), (x1, y1) = boxes[0][:, :2].min(axis=0), boxes[0][:, 2:].max(axis=0)
    step, down = (x1 - x0) / 12, (y1 - y0) / 30
    middle = {f"{n}": x0 + (n + 0.5) * step for n in range(12)}
    middle["mean"] = boxes[1][:, 2].max() - step / 2
    rows = {f"{n}": y0 + (n + 0.5) * down for n in range(30)}
    rows["mean"] = boxes[1][:, 3].max() - down / 2
    labels = [t for t in drawing.texts if "role-axis-label" in t.classes]
    assert len(labels) > 36
    for text in labels:
        if text.anchor == "middle":
            assert text.x == pytest.approx(middle[text.content], abs=0.1)
        else:  # Vega rounds the way from the middle of a letter to its base line
            assert text.y - round(0.3 * text.size) == pytest.approx(rows[text.content], abs=0.1)
    titles = {t.content: t for t in drawing.texts}
    assert titles["Head"].x == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert titles["Layer"].y == pytest.approx((y0 + y1) / 2, abs=0.1)
    if not options.get("theme"):  # no empty band under the title
        assert y0 - titles["Mean over 4 Runs"].y < 25
    boxes = np.array([t.box() for t in drawing.texts])
    for n, (a, b, c, d) in enumerate(boxes):
        x, y, right, low = np.transpose(boxes[n + 1 :])
        assert not (
            (np.minimum(c, right) > np.maximum(a, x)) & (np.minimum(d, low) > np.maximum(b, y))
        ).any()


@pytest.mark.parametrize("heads", [4, 12, 14, 24])
def test_numbers_keep_their_decimals_at_the_width_of_a_column_or_are_left_out(heads):
    table = small_scores()
    table = table[table["head"].isna() | (table["head"] < heads)] if heads < 12 else table
    if heads > 12:
        table = summary(layers=range(6), heads=heads)
        table["mean"] = np.linspace(-4.99, 9.99, len(table))
    drawing = drawn(overview_of(table, **PAPER))
    numbers = [t.content for t in drawing.texts if "mark-text role-mark" in t.classes]
    decimals = {len(number.partition(".")[2]) for number in numbers}
    assert decimals == {4: {2}, 12: {2}, 14: {1}, 24: set()}[heads]
    assert all(t.size >= 5.5 for t in drawing.texts)
    shown = sorted((t.box() for t in drawing.texts if t.content in numbers), key=lambda b: b[::-1])
    pairs = [(a, b) for a, b in pairwise(shown) if abs(a[3] - b[3]) < 1 and a[0] < b[0]]
    assert all(b[0] - a[2] > 1 for a, b in pairs)  # do not run together


def test_many_layers_and_heads_get_smaller_cells_without_numbers_and_masses_are_viridis():
    table = summary(layers=range(60), heads=100)
    spec = overview_of(table, name="entropy", statistic="mass", color_range="minmax")
    assert spec["usermeta"]["headgrid"]["color_range"] == [0.0, 689.0]
    assert "#fde725" in str(spec["spec"])
    drawing = drawn(spec)
    assert max(drawing.width, drawing.height) < 2000
    assert len(drawing.texts) < 250


@pytest.mark.parametrize("draw", [draw_overview, draw_trend])
def test_a_measure_that_nothing_has_and_a_width_for_nothing_are_errors(draw):
    table = summary(sets=("A", "B", "C"))
    with pytest.raises(OptionError, match=r"leaves \d+ pt for each of 3 panels"):
        draw(Summary(table, "sink", "logit"), FigureOptions(width="6cm"))
    table["mean"] = np.nan
    with pytest.raises(CaptureError, match=r"entropy has no value in any head.*need masses"):
        draw(Summary(table, "entropy", "logit"), FigureOptions())


@pytest.mark.parametrize("draw", [headgrid.overview, headgrid.trend])
def test_an_unknown_measure_names_the_nearest(draw):
    with pytest.raises(OptionError, match=r"statistic is 'snk'.*did you mean 'sink'\?"):
        draw(None, "snk")


def trend_of(table, name="sink", statistic="logit", **options):
    return headgrid.to_spec(draw_trend(Summary(table, name, statistic), FigureOptions(**options)))


def scale_of(drawing):
    """Return the function from a value to its height, from two labels of the axis."""
    labels = sorted(
        (float(t.content.replace("\u2212", "-")), t.y)
        for t in drawing.texts
        if t.anchor == "end" and t.content.replace("\u2212", "").replace(".", "").isdigit()
    )
    (low, y0), (high, y1) = labels[0], labels[-1]
    return lambda value: y0 + (value - low) / (high - low) * (y1 - y0) - 2.1


def test_a_thick_line_is_the_mean_in_a_band_of_a_deviation_and_each_head_is_a_faint_line():
    drawing = drawn(trend_of(summary()))
    height = scale_of(drawing)
    ((mean,),) = drawing.marks["line"]
    np.testing.assert_allclose(mean.points[:, 1], [height(v) for v in (1, 11, 21)], atol=0.6)
    ends = sorted(shape.points[-1, 1] for group in drawing.marks["faint"] for shape in group)
    np.testing.assert_allclose(ends, [height(v) for v in (22, 21, 20)], atol=0.6)
    (band,) = [s for s in drawing.shapes if "area" in s.classes and s.filled]
    expected = [height(v) for v in (1.5, 12.5, 23.5, 18.5, 9.5, 0.5)]
    np.testing.assert_allclose(sorted(band.points[:, 1]), sorted(expected), atol=0.6)


@pytest.mark.parametrize("theme", ["default", "paper"])
@pytest.mark.parametrize(("name", "statistic"), [("period", "logit"), ("first", "mass")])
def test_what_is_never_negative_starts_at_zero_also_its_band(name, statistic, theme):
    table = summary()  # the band of layer 0 would reach from 0.5 to 1.5, that of layer 2 ...
    table["std"] *= 9  # ... below zero
    drawing = drawn(trend_of(table, name, statistic, theme=theme))
    (frame,) = [s.box for s in drawing.shapes if "background" in s.classes and s.stroked]
    (band,) = [s for s in drawing.shapes if "area" in s.classes and s.filled]
    assert band.box[3] == pytest.approx(frame[3], abs=0.6)
    zero = next(t for t in drawing.texts if t.content in ("0", "0.0") and t.anchor == "end")
    assert scale_of(drawing)(0) == pytest.approx(frame[3], abs=0.6)
    assert zero.y - frame[3] < 4


@pytest.mark.parametrize("runs", [1, 4])
def test_a_key_tells_the_mean_from_the_heads_by_their_own_colours(runs):
    drawing = drawn(trend_of(summary(runs=runs)))
    mean = "mean over heads" + (", \u00b1 1 standard deviation over runs" if runs > 1 else "")
    for text, mark in ((mean, "line"), ("each head", "faint")):
        label = next(t for t in drawing.texts if t.content == text)
        symbols = [s for s in drawing.shapes if "role-legend-symbol" in s.classes]
        symbol = min(symbols, key=lambda s: abs(s.box[2] - label.x))
        shape = drawing.marks[mark][0][0]
        assert parse_color(symbol.style["stroke"]) == parse_color(shape.style["stroke"])


@pytest.mark.filterwarnings("ignore:a, b. layers 2, 3, 6 are missing")
def test_missing_layers_are_named_and_break_the_lines_and_the_band():
    found = headgrid.survey(
        Capture.from_array(
            np.random.default_rng(layer).normal(size=(2, 6, 6)), layer=layer, run=run
        )
        for run in "ab"
        for layer in (0, 1, 4, 5, 7)
    )
    for chart in (headgrid.overview(found), headgrid.trend(found)):
        assert "5 layers x 2 heads" in chart.description
        assert chart.description.endswith(" Missing layers: 2, 3, 6.")
    drawing = drawn(headgrid.to_spec(headgrid.trend(found)))
    layer = (drawing.marks["line"][0][0].points[1] - drawing.marks["line"][0][0].points[0])[0]
    broken = [group for name in ("line", "faint") for group in drawing.marks[name]]
    broken.append([s for s in drawing.shapes if "area" in s.classes and s.filled])
    for group in broken:
        shown = [s.box[2] - s.box[0] for s in group if s.box[2] - s.box[0] > 0.01]
        assert len(shown) >= 2
        assert shown == pytest.approx([layer] * len(shown), abs=0.01)
    dots = [s for s in drawing.shapes if "mark-symbol role-mark" in s.classes and not s.filled]
    assert len(dots) == 2  # the heads of layer 7, which no line leads to


def test_titles_and_captions_say_what_a_key_is_called():
    rows = np.sin(np.arange(9.0))[None]
    words = Capture.from_array(last_block=rows, key_labels=[f"w{n}" for n in range(9)])
    found = headgrid.survey([words])
    for draw in headgrid.overview, headgrid.trend:
        assert "(value of the last-block row at key token 0)" in draw(found, "first").description
        spec = headgrid.to_spec(draw(found, "period"))
        assert "Dominant Period (tokens)" in spec["title"]["text"][0]
        assert "frame" not in spec["description"]
    with pytest.raises(headgrid.CaptureError, match="a sink score key token 0 and three"):
        headgrid.overview(found, "entropy")


def test_without_spread_there_is_no_band_and_the_caption_says_so():
    spec = trend_of(summary(runs=1))
    assert "no spread, as there is one run" in spec["description"]
    assert not [s for s in drawn(spec).shapes if "area" in s.classes and s.filled]


def test_sets_share_their_axes_and_hostile_names_of_them_are_text():
    table = summary(sets=("A", "</script><b>\u202e\x00{x}"))
    for spec, title in ((overview_of(table), "Head"), (trend_of(table), "Layer")):
        svg = render(spec, "svg").decode()
        assert [t.content for t in read_svg(svg).texts].count(title) == 2
        assert "&lt;/script&gt;" in svg
        assert "\u202e" not in svg


@pytest.mark.parametrize("draw", [draw_overview, draw_trend])
@pytest.mark.parametrize(("sets", "theme"), [(("",), "default"), (("A", "B"), "paper")])
def test_a_figure_has_the_width_asked_for_with_text_of_its_size(draw, sets, theme):
    options = FigureOptions(width="17.8cm", theme=theme)
    table = summary(sets=sets, layers=range(12), heads=8)
    svg = render(headgrid.to_spec(draw(Summary(table, "sink", "logit"), options)), "svg").decode()
    width, drawing = float(svg.split('width="')[1].split("pt")[0]), read_svg(svg)
    assert width == pytest.approx(options.points, abs=1e-3)
    assert 0.85 < width / drawing.width < 1.2


def test_the_trend_of_one_layer_shows_its_heads_as_points_in_the_middle():
    drawing = drawn(trend_of(summary(layers=(3,))))
    faint = [shape for group in drawing.marks["faint"] for shape in group]
    assert len(faint) == 3
    places = [(shape.box[0] + shape.box[2]) / 2 for shape in faint]
    (tick,) = [t for t in drawing.texts if t.content == "3" and t.anchor == "middle"]
    assert places == pytest.approx([tick.x] * 3, abs=1)
    symbols = [s for s in drawing.shapes if "role-legend-symbol" in s.classes]
    sizes = [shape.box[2] - shape.box[0] + float(shape.style["stroke-width"]) for shape in symbols]
    dots = [2 * (14 / np.pi) ** 0.5, 2 * (12 / np.pi) ** 0.5 + 2]  # of the mean, and of a head
    assert sizes == pytest.approx(dots, abs=0.5)


def test_a_key_that_is_longer_than_the_panel_has_two_lines():
    for theme, lines in (("default", 1), ("paper", 2)):
        drawing = drawn(trend_of(summary(), theme=theme))
        labels = [t for t in drawing.texts if "each head" in t.content or "mean over" in t.content]
        assert len({round(label.y) for label in labels}) == lines
        (frame,) = [s.box for s in drawing.shapes if "background" in s.classes and s.stroked]
        assert all(label.box()[2] < frame[2] for label in labels)
