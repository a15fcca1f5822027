"""The sheet, read back from the picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import headgrid
from headgrid import Capture, CaptureError, OptionError, RenderError, resolve_color_range, sheet
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.render.convert import render
from headgrid.render.svg.finish import size
from headgrid.tables.tidy import round_values
from svgreader import read_svg
from synthetic import block_capture, waves


def captures(layers=(0, 1, 2), heads=3, blocks=(2, 3), **options):
    return [block_capture(heads, blocks, scale=n + 1.0, layer=n, **options) for n in layers]


def svg_of(chart):
    return render(headgrid.to_spec(chart, validate=False), "svg").decode()


def frames_of(drawing):
    """Return the box of each map by row and column, from the frames alone."""
    boxes = [shape.box for group in drawing.marks["frame"] for shape in group]
    rows = sorted({round(box[1]) for box in boxes})
    columns = sorted({round(box[0]) for box in boxes})
    return {(rows.index(round(b[1])), columns.index(round(b[0]))): b for b in boxes}


def test_every_visible_pair_of_every_layer_and_head_has_the_colour_of_its_value():
    layers = captures()
    drawing = read_svg(svg_of(sheet(layers, color_range="symmetric")))
    frames = frames_of(drawing)
    assert len(frames) == 9
    scale = ColorScale(resolve_color_range("symmetric", layers), palette_for("logit", "rdbu"))
    areas = [
        (*area, tuple(shape.color))
        for group in drawing.marks["cells"]
        for shape in group
        for area in shape.areas()
    ]
    for (row, column), (left, _, right, bottom) in frames.items():
        matrix = layers[row].head_matrix(column)
        size = (right - left) / 5
        for query in range(5):
            for key in range(5):
                x, y = left + (key + 0.5) * size, bottom - (query + 0.5) * size
                found = [a[4] for a in areas if a[0] < x < a[2] and a[1] < y < a[3]]
                if np.isnan(matrix[query, key]):
                    assert not found
                else:
                    value = round_values(matrix[[query], key])[0]
                    assert found == [tuple(map(int, scale.rgb(value)))]


def test_rows_and_columns_have_live_labels_and_there_is_one_colour_bar_for_all_layers():
    layers = captures()
    found = resolve_color_range("quantile", layers)
    spec = headgrid.to_spec(sheet(layers))
    assert spec["usermeta"]["headgrid"]["color_range"] == [found.low, found.high]
    texts = [t.content for t in read_svg(svg_of(sheet(captures((0, 7, 14))))).texts]
    assert {"Layer 0", "Layer 7", "Head 0", "Head 1", "Head 2"} <= set(texts)
    assert texts.count("Attention Logits") == 1
    assert texts.count("not seen") == 1
    assert "; 54 of 225 pairs are unseen." in sheet(layers).description
    seen = sheet([Capture.from_array(waves(2, 4, 4))])
    assert "not seen" not in svg_of(seen)


@pytest.mark.parametrize("cells", ["vector", "image"])
def test_the_place_of_a_missing_layer_is_blank_but_named(cells):
    chart = sheet(captures((0, 1, 3)), cells=cells)
    assert "Missing layers: 2." in chart.description
    drawing = read_svg(svg_of(chart))
    frames = frames_of(drawing)
    assert len(frames) == 9  # no frame in the missing row
    texts = {t.content: t for t in drawing.texts}
    names = ["Layer 0", "Layer 1", "Layer 2", "Layer 3"]
    heights = [texts[name].y for name in names]
    np.testing.assert_allclose(np.diff(heights), heights[1] - heights[0], atol=0.1)
    assert len({round(texts[name].box()[0], 1) for name in names}) == 1
    low, high = texts["Layer 1"].y + 8, texts["Layer 3"].y - 8
    shown = [s for s in drawing.shapes if low < (s.box[1] + s.box[3]) / 2 < high and s.filled]
    assert not [s for s in shown if "legend" not in s.classes and s.box[2] < 200]


@pytest.mark.parametrize("cells", ["vector", "image"])
@pytest.mark.parametrize("theme", ["default", "paper"])
def test_gaps_of_frames_break_each_map_that_is_there_and_the_caption_says_so(cells, theme):
    frames = [0, 1, 2, *range(15, 21)]
    layers = [
        Capture.from_array(waves(2, 9, 9), key_frames=frames, query_frames=frames, layer=n)
        for n in (0, 1, 3)
    ]
    chart = sheet(layers, cells=cells, theme=theme)
    assert "query frames 0-2, 15-20, key frames 0-2, 15-20." in chart.description
    drawing = read_svg(svg_of(chart))
    groups = [len(group) for group in drawing.marks["gaps"] if group]
    assert groups == [2] * 6  # none in the missing row
    boxes = [shape.box for group in drawing.marks["gaps"] for shape in group]
    for left, _, right, bottom in frames_of(drawing).values():
        size = (right - left) / 10
        assert any(abs(b[0] - left - 3 * size) < 1 and b[2] - b[0] < 1.2 * size for b in boxes)
        assert any(abs(b[3] - bottom + 3 * size) < 1 and b[3] - b[1] < 1.2 * size for b in boxes)


@pytest.mark.parametrize(
    ("layers", "rows"), [((0, 5, 10), [0, 5, 10]), ((3,), [3]), ((2, 3, 5), [2, 3, 4, 5])]
)
def test_layers_recorded_at_a_step_have_no_blank_rows(layers, rows):
    spec = headgrid.to_spec(sheet(captures(layers)), validate=False)
    assert spec["usermeta"]["headgrid"]["layers"] == rows


def test_large_maps_become_images_of_at_most_72_pixels_that_keep_their_extremes():
    values = waves(1, 100, 100)
    values[0, 50, 37] = 99.0
    spec = headgrid.to_spec(sheet([Capture.from_array(values)]))
    (record,) = spec["data"]["values"]
    image = Image.open(io.BytesIO(base64.b64decode(record["tile"].partition(",")[2])))
    assert image.size == (50, 50)
    assert [0x67, 0x00, 0x1F] in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()
    assert "A pixel pools 2 frames along an axis" in spec["description"]
    left_out = sheet([Capture.from_array(values, key_frames=[*range(50), *range(60, 110)])])
    assert left_out.description.endswith("out, without a break: key frames 0-49, 60-109.")


def test_vectors_are_refused_beyond_what_the_renderer_survives():
    capture = Capture.from_array(np.zeros((11, 960, 960), "f2"))
    with pytest.raises(RenderError, match=r"the sheet has 10,137,600 cells .* at most 100 MB"):
        sheet([capture], cells="vector")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (block_capture(3, (2, 4), layer=9), r"the query frames: 5 \(.*\) and 6 \("),
        (block_capture(2, (2, 3), layer=9), r"differ in the number of heads: 3 and 2"),
        (block_capture(3, (2, 3), layer=9, statistic="mass"), "differ in the statistic"),
        (block_capture(3, (2, 3)), "4 captures are of 3 layers"),
    ],
)
def test_captures_that_do_not_go_together_are_refused(more, message):
    with pytest.raises(CaptureError, match=message):
        sheet([*captures(), more])


def test_the_sheet_has_the_width_that_is_asked_for():
    assert 'width="396pt"' in svg_of(sheet(captures(), width="13.97cm"))
    with pytest.raises(CaptureError, match="there is no capture for the sheet"):
        sheet([])
    with pytest.raises(OptionError, match=r"leaves 0 pt for each of 40 panels"):
        sheet(captures(heads=40), width="5cm")


@pytest.mark.parametrize("blocks", [(3,) * 7, (1,) * 72])
@pytest.mark.parametrize("width", [None, "17cm"])
def test_a_sheet_of_30_layers_and_12_heads_fits_a_page_with_its_labels_at_their_ticks(
    blocks, width
):
    shown = captures(range(30), 12, blocks)
    svg = svg_of(sheet(shown, theme="paper", width=width, cells="image"))
    wide, high = size(svg)
    assert wide <= 170 / 25.4 * 72 + 0.01
    assert high <= 257 / 25.4 * 72
    drawing = read_svg(svg)
    point = drawing.width / wide
    assert all(5.7 < text.size / point < 8.3 for text in drawing.texts)
    ticks = [s.points.mean(axis=0) for s in drawing.shapes if "role-axis-tick" in s.classes]
    labels = [t for t in drawing.texts if "role-axis-label" in t.classes]
    rows, columns = (15, 12 if width else 6)  # every second one where they would touch
    assert len(ticks) == len(labels) == 2 * rows + 2 * columns
    boxes = np.array([label.box() for label in labels])
    for label, (x0, y0, x1, y1) in zip(labels, boxes, strict=True):
        off = np.abs([((x0 + x1) / 2, label.y - 0.35 * label.size)] - np.array(ticks))
        assert (
            off.min(axis=1).min() if label.anchor == "middle" else off[:, 1].min()
        ) < 0.7 * point
        over = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
        assert over.sum() == 1  # itself


@pytest.mark.parametrize("rule", ["quantile", "symmetric", (-1, 2)])
def test_the_range_of_a_survey_is_that_of_all_its_inputs(rule):
    runs = [block_capture(2, (2, 3), scale=n, run=f"run_{n}") for n in (1.0, 5.0)]
    found = resolve_color_range(rule, runs)
    spec = headgrid.to_spec(sheet(headgrid.survey(runs), color_range=rule))
    assert spec["usermeta"]["headgrid"]["color_range"] == [found.low, found.high]


def test_the_real_sheets_keep_their_size(shared):
    for frames, limit in ((21, 1_500_000), (72, 3_000_000)):
        folder = shared / f"data/frames{frames}"
        layers = [headgrid.load_capture(folder / f"layer{n}.pt") for n in range(30)]
        svg = svg_of(sheet(layers, color_range="quantile"))
        assert len(svg.encode()) <= limit
        drawing = read_svg(svg)
        assert len(frames_of(drawing)) == 360
        assert ("image" in svg) == (frames == 72)


def test_joining_the_cells_of_a_row_changes_no_pixel_and_saves_bytes(monkeypatch):
    rng = np.random.default_rng(5)
    layers = [
        Capture.from_array(rng.normal(size=(6, 15, 15)), block_sizes=[3] * 5, layer=n)
        for n in range(4)
    ]
    spec = headgrid.to_spec(sheet(layers), validate=False)
    joined, picture = render(spec, "svg"), render(spec, "png", ppi=144)
    monkeypatch.setattr("headgrid.render.svg.cells.join_rows", lambda root: None)
    apart = render(spec, "svg")
    assert render(spec, "png", ppi=144) == picture
    assert len(joined) < 0.75 * len(apart)
    assert joined.count(b"sheet_headgrid_cells") <= 2 * 4
