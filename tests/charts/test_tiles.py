"""Cells as one image per head: pixels, pooling, limits."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import headgrid
from headgrid.charts import heatmap as charts
from headgrid.charts.scales import count_pixels, find_scale
from headgrid.charts.tiles import head_tile, pool_extremes
from headgrid.render.convert import render, render_svg
from headgrid.tables.tidy import round_values
from svgreader import read_svg
from synthetic import block_capture


def pixels(uri):
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(raw)).convert("RGBA"))


def of_all_colours():
    """Return a capture with more colours than a byte can name, and one unseen pair."""
    values = np.linspace(-1, 1, 30 * 30).reshape(1, 30, 30)
    values[0, 3, 4] = np.nan
    return headgrid.Capture.from_array(values)


@pytest.mark.parametrize("capture", [block_capture(2, (2, 3, 1)), of_all_colours()])
def test_a_tile_has_a_pixel_a_cell_with_frame_0_at_the_bottom_and_nothing_where_unseen(capture):
    scale = find_scale([capture], headgrid.FigureOptions())
    for head in range(capture.num_heads):
        image = pixels(head_tile(capture, head, scale))[::-1]
        matrix = capture.head_matrix(head)
        seen = ~np.isnan(matrix)
        assert image.shape == (*matrix.shape, 4)
        assert (image[..., 3] == np.where(seen, 255, 0)).all()
        assert (image[seen][:, :3] == scale.rgb(round_values(matrix[seen]))).all()


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-100, 100, width=32) | st.just(float("nan")),
    ),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_a_pool_keeps_the_value_of_largest_magnitude(matrix, rows, columns):
    pooled = pool_extremes(matrix, rows, columns)
    for (r, c), value in np.ndenumerate(pooled):
        pool = matrix[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
        seen = pool[~np.isnan(pool)]
        assert np.isnan(value) if not len(seen) else abs(value) == np.abs(seen).max()
        assert np.isnan(value) or value in seen


def test_a_sink_one_frame_wide_does_not_vanish_when_1024_frames_are_pooled():
    values = np.zeros((1, 1024, 1024), dtype=np.float16)
    values[0, :, 0] = 8.0
    capture = headgrid.Capture.from_array(values)
    chart = headgrid.heatmap(capture)
    spec = headgrid.to_spec(chart)
    image = pixels(spec["data"]["values"][0]["tile"])
    assert image.shape[:2] == (512, 512)
    assert (image[:, 0, :3] == (103, 0, 31)).all()
    assert (image[:, 1:, :3] == image[0, 1, :3]).all()
    caption = spec["usermeta"]["headgrid"]["caption"]
    assert "a pixel pools 2 query x 2 key frames and shows the value of largest" in caption


def test_a_tile_never_has_more_pixels_than_its_panel():
    assert [count_pixels(count) for count in (1, 512, 513, 1025, 4096)] == [1, 512, 257, 342, 512]


def test_an_image_stands_exactly_where_the_cells_would_stand():
    capture, pictures = block_capture(3, (3,) * 7), {}
    for cells in ("vector", "image"):
        spec = headgrid.to_spec(headgrid.heatmap(capture, cells=cells))
        image = Image.open(io.BytesIO(render(spec, "png", ppi=72)))
        panel = next(
            s for s in read_svg(render_svg(spec)).shapes if s.style.get("fill") == "#ddd"
        ).box
        x0, y0, x1, y1 = (round(edge) for edge in panel)
        pictures[cells] = np.array(image.convert("RGB"))[y0:y1, x0:x1]
    assert pictures["image"].shape == (210, 210, 3)
    assert (pictures["image"] == pictures["vector"]).all()


def test_labels_colour_bar_and_frames_are_those_of_the_vector_form():
    capture = headgrid.Capture.from_array(
        np.ones((2, 4, 30)), query_frames=[5, 7, 9, 11], key_frames=range(100, 130)
    )
    charts = (headgrid.heatmap(capture, cells=cells) for cells in ("vector", "image"))
    drawings = (read_svg(render_svg(headgrid.to_spec(chart))) for chart in charts)
    texts = [sorted(text.content for text in drawing.texts) for drawing in drawings]
    assert texts[0] == texts[1]


def test_auto_draws_vectors_within_the_budget_and_images_beyond(monkeypatch):
    capture = block_capture(2, (3,) * 7)
    for budget, tiles in ((capture.num_visible, False), (capture.num_visible - 1, True)):
        monkeypatch.setattr(charts, "VECTOR_CELLS", budget)
        record = headgrid.to_spec(headgrid.heatmap(capture))["data"]["values"][0]
        assert ("tile" in record) == tiles


def test_too_many_vector_cells_are_an_error_that_says_what_to_do():
    capture = headgrid.Capture.from_array(np.zeros((1, 3200, 3200), dtype=np.float16))
    expected = r"10,240,000 cells .* SVG of up to 102 MB, .* 100 MB; .*--cells image"
    with pytest.raises(headgrid.RenderError, match=expected):
        headgrid.heatmap(capture, cells="vector")


HEATMAP = """
values = np.zeros((12, 4096, 4096), dtype=np.float32)
values[:, :, 0] = 5.0
chart = headgrid.heatmap(headgrid.Capture.from_array(values, block_sizes=[64] * 64))
"""
COMPARE = """
import torch
for name in ("a.pt", "b.pt"):
    values = torch.randn(12, 2048, 2048)
    torch.save({"layer_index": 0, "full_frame_attention": values}, folder / name)
del values
chart = headgrid.compare(*(headgrid.load_capture(folder / name) for name in ("a.pt", "b.pt")))
"""


@pytest.mark.nightly
@pytest.mark.parametrize("draw", [HEATMAP, COMPARE])
def test_twelve_heads_of_thousands_of_frames_stay_below_1536_megabytes(tmp_path, draw):
    program = f"""
import resource, sys, pathlib
import numpy as np, headgrid
folder = pathlib.Path(sys.argv[1])
{draw}
headgrid.save(chart, folder / "big.svg")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) / 1024 < 1536
    if draw is HEATMAP:
        assert (tmp_path / "big.svg").stat().st_size < 2_000_000
