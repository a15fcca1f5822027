"""What the SVG shows, read back from the SVG alone, against the numbers that went in."""

from functools import cache

import numpy as np
import pytest

from headgrid import Capture, heatmap, load_capture, perhead, sink_scores, to_spec
from headgrid.charts.scales import ColorScale, frame_ticks, palette_for
from headgrid.render.convert import render
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import round_values
from svgreader import FONTS, read_svg
from synthetic import block_capture, waves

FAMILY = "Arial, DejaVu Sans, Helvetica, sans-serif"
BLOCKS_21, BLOCKS_72 = (3,) * 7, (3,) * 24

CAPTURES = {
    "one head": lambda: block_capture(1, BLOCKS_21),
    "twelve heads": lambda: block_capture(12, BLOCKS_21, layer=3, scale=14),
    "forty heads": lambda: block_capture(40, (1, 2, 2)),
    "one frame": lambda: block_capture(2, (1,)),
    "two frames": lambda: block_capture(5, (1, 1)),
    "five frames": lambda: block_capture(4, (1, 2, 2)),
    "seventy-two frames": lambda: block_capture(3, BLOCKS_72, scale=30),
    "more keys than queries": lambda: Capture.from_array(waves(3, 4, 9)),
    "more queries than keys": lambda: Capture.from_array(waves(3, 11, 6)),
    "mass": lambda: block_capture(4, (3, 3, 3), statistic="mass"),
    "tiny logits": lambda: block_capture(4, (3, 3), scale=1e-5),
    "huge logits": lambda: block_capture(4, (3, 3), scale=1e5),
    "tiny mass": lambda: block_capture(4, (3, 3), statistic="mass", scale=1e-5),
    "frame numbers with a start": lambda: Capture.from_array(
        waves(2, 3, 6), query_frames=[9, 10, 11], key_frames=[6, 7, 8, 9, 10, 11]
    ),
    "two magnitudes": lambda: Capture.from_array(
        waves(2, 6, 6) * np.array([1e-4, 1e4])[:, None, None]
    ),
}
every_capture = pytest.mark.parametrize("name", CAPTURES)
every_figure = pytest.mark.parametrize("figure", ["heatmap", "perhead"])


@cache
def capture_named(name):
    return CAPTURES[name]()


@cache
def drawing_of(name, figure):
    chart = {"heatmap": heatmap, "perhead": perhead}[figure](capture_named(name))
    return draw(chart)


def draw(chart):
    """Return what the SVG of a chart shows."""
    return read_svg(render(to_spec(chart, validate=False), "svg").decode())


def panels_of(drawing, figure, capture):
    """Return the panels of every head, in order."""
    if figure == "perhead":
        return drawing.panels(head_titles(drawing))
    return drawing.panels([f"Head {head}" for head in range(capture.num_heads)])


def head_titles(drawing):
    """Return the panel titles ``H0 (sink=..)`` by head."""
    found = [t.content for t in drawing.texts if "(sink=" in t.content]
    return sorted(found, key=lambda text: int(text[1:].split()[0]))


def cell_grid(drawing, panel, capture):
    """Return what is painted in one panel: colours [query, key, 3], -1 where nothing is."""
    queries, keys = len(capture.query_frames), len(capture.key_frames)
    x, y = dict(panel.x_labels()), dict(panel.y_labels())
    shapes = drawing.marks_in("cells", panel)
    assert set(x) == labeled(capture.key_frames)
    assert set(y) == labeled(capture.query_frames)
    first_key, last_key = capture.key_frames[0], capture.key_frames[-1]
    first_query, last_query = capture.query_frames[0], capture.query_frames[-1]
    width = (x[last_key] - x[first_key]) / (keys - 1) if keys > 1 else 216
    height = (y[first_query] - y[last_query]) / (queries - 1) if queries > 1 else 216
    assert y[first_query] >= y[last_query], "query frame 0 is not at the bottom"
    assert width == pytest.approx(round(width))  # whole points
    assert height == pytest.approx(round(height))
    left = x[first_key] - width / 2
    # A tick label's baseline lies two points under the middle of its cell.
    bottom = y[first_query] - 2 + height / 2
    grid = np.full((queries, keys, 3), -1)
    for shape in shapes:
        for x0, y0, x1, y1 in shape.areas():
            columns = [(x0 - left) / width, (x1 - left) / width]
            lines = [(bottom - y1) / height, (bottom - y0) / height]
            c0, c1, r0, r1 = whole = [round(edge) for edge in (*columns, *lines)]
            off = max(abs(w - e) for w, e in zip(whole, (*columns, *lines), strict=True))
            assert off < (0.02 if width > 5 else 0.2), "not on the grid of cells"
            assert (grid[r0:r1, c0:c1] == -1).all(), "a cell is painted twice"
            grid[r0:r1, c0:c1] = shape.color
    return grid


def labeled(frames):
    """Return the frames that have a label in a panel of full size."""
    return {frames[i] for i in frame_ticks(len(frames))} if len(frames) > 12 else {*frames}


@every_capture
def test_every_cell_colour_maps_back_to_its_value_within_one_step(name):
    capture, drawing = capture_named(name), drawing_of(name, "heatmap")
    color_range = resolve_color_range("symmetric", [capture])
    scale = ColorScale(color_range, palette_for(capture.statistic, "rdbu"))
    table = scale.colors().astype(int)
    low, high = color_range.low, color_range.high
    panels = panels_of(drawing, "heatmap", capture)
    for head, panel in enumerate(panels):
        grid = cell_grid(drawing, panel, capture)
        matrix = capture.head_matrix(head)
        seen = ~np.isnan(matrix)
        assert ((grid >= 0).all(axis=-1) == seen).all()
        step = np.floor((matrix[seen] - low) / (high - low) * 256).clip(0, 255).astype(int)
        painted = grid[seen]
        neighbours = np.stack([table[(step + d).clip(0, 255)] for d in (-1, 0, 1)])
        distance = np.abs(neighbours - painted).max(axis=-1).min(axis=0)
        assert distance.max() == 0, f"head {head} is painted in colours of other steps"
        # The table rounds, which may cross the edge of a step; what it says is painted.
        assert (scale.rgb(round_values(matrix[seen])) == painted).all()


@pytest.mark.parametrize(("frames", "pairs"), [(21, 252), (72, 2700)])
def test_the_cells_of_a_published_capture_cover_its_visible_pairs(shared, frames, pairs):
    drawing = draw(heatmap(load_capture(shared / f"data/frames{frames}/layer3.pt")))
    shapes = [shape for group in drawing.marks["cells"] for shape in group]
    areas = [(x1 - x0) * (y1 - y0) for shape in shapes for x0, y0, x1, y1 in shape.areas()]
    assert sum(areas) / (216 // frames) ** 2 == pytest.approx(12 * pairs)


def value_scale(panel):
    """Return the function from y to value, and the height of a panel, from the tick labels."""
    labels = sorted(panel.y_labels())
    assert len(labels) >= 2, panel.title.content
    values, heights = map(np.array, zip(*labels, strict=True))
    slope, offset = np.polyfit(heights - 2, values, 1)  # a label's baseline is lower
    np.testing.assert_allclose(
        slope * (heights - 2) + offset, values, atol=abs(slope) * 0.1, rtol=1e-5
    )
    return lambda y: slope * y + offset


@every_capture
def test_bar_tops_and_line_vertices_give_the_values_back(name):
    capture, drawing = capture_named(name), drawing_of(name, "perhead")
    titles = head_titles(drawing)
    assert len(titles) == capture.num_heads
    for head, panel in enumerate(drawing.panels(titles)):
        row = capture.last_block_rows[head].astype(float)
        value_at = value_scale(panel)
        bars = sorted(
            (box for s in drawing.marks_in("bars", panel) for box in s.areas()),
            key=lambda box: box[0],
        )
        (line,) = drawing.marks_in("line", panel) or [None]
        axis_range = max(*row, 0) - min(*row, 0)
        tops = [max((value_at(b[1]), value_at(b[3])), key=abs) for b in bars]
        np.testing.assert_allclose(tops, row, atol=0.005 * axis_range, rtol=0)
        if len(row) > 1:
            read = value_at(line.points[:, 1])
            np.testing.assert_allclose(read, row, atol=0.005 * axis_range, rtol=0)
        dots = sorted(
            ((s.box[0] + s.box[2]) / 2, (s.box[1] + s.box[3]) / 2)
            for s in drawing.marks_in("points", panel)
        )
        centres = sorted({(round(x, 2), round(y, 2)) for x, y in dots})
        np.testing.assert_allclose(
            value_at(np.array([y for _, y in centres])), row, atol=0.005 * axis_range, rtol=0
        )
        x = dict(panel.x_labels())
        for frame, (x0, _, x1, _) in zip(capture.key_frames, bars, strict=True):
            if frame in x:
                assert (x0 + x1) / 2 == pytest.approx(x[frame], abs=0.6)


def test_bars_are_four_fifths_wide_in_the_published_blue():
    capture, drawing = capture_named("twelve heads"), drawing_of("twelve heads", "perhead")
    (panel, *_) = drawing.panels(head_titles(drawing))
    boxes = sorted(b for s in drawing.marks_in("bars", panel) for b in s.areas())
    pitch = (boxes[-1][0] - boxes[0][0]) / (len(boxes) - 1)
    assert len(boxes) == len(capture.key_frames)
    assert (boxes[0][2] - boxes[0][0]) / pitch == pytest.approx(0.8, abs=0.01)
    assert {s.color for s in drawing.marks_in("bars", panel)} == {(0x01, 0x73, 0xB2)}


def test_an_unrecorded_pair_is_not_painted_and_is_told_from_zero():
    values = np.zeros((1, 3, 3))
    values[0, 1, 1] = np.nan
    values[0, 0, 0] = 2.0
    capture = Capture.from_array(values)
    drawing = draw(heatmap(capture))
    (panel,) = drawing.panels(["Head 0"])
    grid = cell_grid(drawing, panel, capture)
    assert grid[1, 1].tolist() == [-1, -1, -1]
    assert grid[2, 2].tolist() != [-1, -1, -1]
    assert "#ddd" in {s.style["fill"] for s in drawing.shapes if s.filled and panel.contains(s)}


def test_the_line_breaks_where_a_key_was_not_recorded():
    capture = Capture.from_array(last_block=[[1.0, 2.0, np.nan, 3.0, 5.0]])
    drawing = draw(perhead(capture))
    (panel,) = drawing.panels(head_titles(drawing))
    pieces = drawing.marks_in("line", panel)
    assert [len(piece.points) for piece in pieces] == [2, 2]
    assert len([b for s in drawing.marks_in("bars", panel) for b in s.areas()]) == 4


@every_figure
@every_capture
def test_every_label_is_live_text_in_the_family_list(name, figure):
    drawing = drawing_of(name, figure)
    assert drawing.texts
    assert {t.family for t in drawing.texts} == {FAMILY}
    assert not drawing.tags() & {"image", "use", "glyph", "symbol", "font", "foreignObject"}
    words = {t.content for t in drawing.texts}
    assert {"Key Frame", *(["Query Frame"] if figure == "heatmap" else [])} <= words


@every_figure
@every_capture
def test_panels_of_a_row_line_up_titles_included(name, figure):
    capture, drawing = capture_named(name), drawing_of(name, figure)
    panels = panels_of(drawing, figure, capture)
    assert len(panels) == capture.num_heads
    for row in (panels[i : i + 4] for i in range(0, len(panels), 4)):
        assert np.ptp([p.title.y for p in row]) <= 0.5
        assert np.ptp([p.axis.y for p in row]) <= 0.5
    for column in range(min(4, len(panels))):
        assert np.ptp([p.title.x for p in panels[column::4]]) <= 0.5
    for panel in panels:
        assert panel.title.x == pytest.approx(panel.axis.x, abs=0.5)


@every_figure
@every_capture
def test_no_text_is_cut_and_no_two_texts_overlap(name, figure):
    assert_texts_fit(drawing_of(name, figure))


@pytest.mark.parametrize("draw_figure", [heatmap, perhead])
@pytest.mark.parametrize(
    "look", [{"width": "17.4cm"}, {"theme": "paper", "width": "17.4cm"}, {"theme": "paper"}]
)
def test_long_frame_numbers_of_neighbours_never_touch(draw_figure, look):
    queries, keys = range(1979, 1991), range(1791, 1991)
    capture = Capture.from_array(waves(8, 12, 200), query_frames=queries, key_frames=keys)
    assert_texts_fit(draw(draw_figure(capture, **look)))


@pytest.mark.parametrize("make", [heatmap, perhead])
@pytest.mark.parametrize(("heads", "columns"), [(1, 4), (2, 1)])
@pytest.mark.parametrize(
    "prompt", ["WIDE CAPITALS MAKE A LONG TITLE, AS LONG AS THIS ONE. " * 6, "W" * 90, "a\nb"]
)
def test_long_titles_are_wrapped_inside_the_figure(make, heads, columns, prompt):
    capture = block_capture(heads, (1, 2), prompt=prompt)
    assert_texts_fit(draw(make(capture, title="{layer}: {prompt}", columns=columns)))


def assert_texts_fit(drawing):
    if not FONTS.is_dir():
        pytest.skip("Liberation Sans is not here to measure with")
    boxes = np.array([t.box() for t in drawing.texts])
    assert boxes[:, 0].min() >= -0.1
    assert boxes[:, 1].min() >= -0.1
    assert boxes[:, 2].max() <= drawing.width + 0.1
    assert boxes[:, 3].max() <= drawing.height + 0.1
    wide = np.minimum(boxes[:, None, 2], boxes[None, :, 2]) - np.maximum(
        boxes[:, None, 0], boxes[None, :, 0]
    )
    high = np.minimum(boxes[:, None, 3], boxes[None, :, 3]) - np.maximum(
        boxes[:, None, 1], boxes[None, :, 1]
    )
    overlaps = np.argwhere(np.triu((wide > 0.3) & (high > 0.3), k=1))
    pairs = [(drawing.texts[a].content, drawing.texts[b].content) for a, b in overlaps[:5]]
    assert not pairs


def test_panel_titles_hold_the_sink_scores():
    capture, drawing = capture_named("twelve heads"), drawing_of("twelve heads", "perhead")
    scores = [round(float(score), 2) + 0.0 for score in sink_scores(capture)]
    expected = [f"H{head} (sink={score:.2f})" for head, score in enumerate(scores)]
    assert head_titles(drawing) == [text.replace("-", "\u2212") for text in expected]


def test_titles_and_colour_bar_are_where_a_reader_looks():
    drawing = drawing_of("twelve heads", "heatmap")
    texts = {t.content: t for t in drawing.texts}
    title = texts["Layer 3: 2D Attention Maps (All Heads)"]
    assert (title.size, title.weight) == (14, "bold")
    assert texts["Query Frames: 0-20, Key Frames: 0-20"].y > title.y
    assert (texts["Head 0"].size, texts["Head 0"].weight) == (11, "bold")
    bar = texts["Attention Logits"]
    assert bar.rotated
    assert bar.x > texts["Head 3"].x
    profile = {t.content: t for t in drawing_of("twelve heads", "perhead").texts}
    assert "Layer 3: Per-Head Attention Distribution" in profile
    assert "Query: frames [18, 19, 20]" in profile


@pytest.mark.parametrize(
    ("name", "figure", "size"),
    [("twelve heads", "heatmap", (1152, 864)), ("twelve heads", "perhead", (1008, 648))],
)
def test_twelve_heads_take_about_the_published_size_in_points(name, figure, size):
    drawing = drawing_of(name, figure)
    assert (drawing.width, drawing.height) == pytest.approx(size, rel=0.02)
    assert drawing.root.get("width") == f"{drawing.width:g}pt"
    assert drawing.root.get("height") == f"{drawing.height:g}pt"


def test_the_description_carries_the_caption():
    capture = capture_named("twelve heads")
    drawing = drawing_of("twelve heads", "heatmap")
    (desc,) = [e for e in drawing.root if e.tag.endswith("desc")]
    assert desc.text == to_spec(heatmap(capture))["usermeta"]["headgrid"]["caption"]
    assert "2,268 of 5,292 pairs are unseen" in desc.text
