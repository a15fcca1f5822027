"""The paper theme, typefaces and exact widths, read back from the files that are written."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headgrid
from headgrid import OptionError, heatmap, perhead
from headgrid.charts.pick import pick
from headgrid.render.convert import render
from headgrid.render.svg.finish import size
from svgreader import read_svg
from synthetic import block_capture, waves

draws = pytest.mark.parametrize("draw", [heatmap, perhead])


def drawn(chart):
    return render(headgrid.to_spec(chart, validate=False), "svg").decode()


def pairs(capture, **options):
    return pick([capture], ["0:0", "0:2", "0:1"], figure="both", **options)


@pytest.mark.parametrize("draw", [heatmap, perhead, pairs])
@pytest.mark.parametrize(
    ("frames", "width"), [((2, 2), "13.97cm"), ((3,) * 7, "8.4cm"), ((1,) * 72, 600)]
)
def test_the_svg_is_exactly_as_wide_as_asked(draw, frames, width):
    chart = draw(block_capture(4, frames), theme="paper", width=width)
    wanted = headgrid.FigureOptions(width=width).points
    assert size(drawn(chart))[0] == pytest.approx(wanted, abs=1e-4)


@draws
def test_pdf_and_png_have_the_width_of_the_svg(draw):
    spec = headgrid.to_spec(draw(block_capture(4, (3,) * 7), theme="paper", width="13.97cm"))
    found = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", render(spec, "pdf"))
    assert float(found[1]) == pytest.approx(396.0, abs=0.01)
    with Image.open(BytesIO(render(spec, "png", ppi=144))) as image:
        assert image.width in (792, 793)


@draws
@pytest.mark.parametrize("frames", [(3,) * 7, (50, 50, 50)])
def test_text_is_6_to_8_points_and_lines_are_hairlines_on_paper_whatever_the_unit(draw, frames):
    svg = drawn(draw(block_capture(4, frames), theme="paper", width="13.97cm"))
    drawing = read_svg(svg)
    points = size(svg)[0] / drawing.width
    assert all(5.7 < text.size * points < 8.3 for text in drawing.texts)
    for shape in drawing.shapes:
        if shape.stroked and "cells" not in shape.classes and "points" not in shape.classes:
            assert float(shape.style.get("stroke-width", 1)) * points <= 0.65


@draws
def test_axes_stand_at_the_border_only_and_over_the_gaps_of_the_last_row(draw):
    texts = read_svg(drawn(draw(block_capture(5), theme="paper", columns=3))).texts
    below = [text for text in texts if text.content == "Key Frame"]
    assert len(below) == 3
    assert len({round(text.y) for text in below}) == 2
    left = [text for text in texts if text.content in ("Query Frame", "Attention Logits")]
    assert len(left) == 2 + (draw is heatmap)


@draws
def test_every_label_stands_once_and_inside_its_panel(draw):
    capture = block_capture(4, (3, 3))
    drawing = read_svg(drawn(draw(capture, theme="paper")))
    start = "Head " if draw is heatmap else "H"
    labels = [t for t in drawing.texts if re.fullmatch(rf"{start}\d.*", t.content)]
    assert len(labels) == 4
    frames = [s.box for s in drawing.shapes if "headgrid_frame" in s.classes]
    assert bool(frames) == (draw is heatmap)
    for x0, y0, x1, y1 in (text.box() for text in labels if frames):
        assert any(a <= x0 and x1 <= c and b <= y0 and y1 <= d for a, b, c, d in frames)


def test_halos_are_outlines_of_their_own_letters_and_cells_stay_whole_at_any_width():
    svg = drawn(heatmap(block_capture(4, (3,) * 7), theme="paper", width="11.3cm"))
    assert svg.count(">Head 0<") == 1
    assert 'paint-order="stroke"' in svg
    assert "headgrid_halo" not in svg
    assert svg.count('shape-rendering="crispEdges" transform="translate(') == 4


def test_profiles_share_one_value_axis_on_paper_and_have_their_own_else():
    rows = waves(3, 1, 6)[:, 0] * np.array([[1.0], [10.0], [100.0]])
    capture = headgrid.Capture.from_array(last_block=rows)
    heights = {}
    for theme in ("paper", "default"):
        drawing = read_svg(drawn(perhead(capture, theme=theme, columns=3)))
        bars = [group for group in drawing.marks["bars"] if group]
        heights[theme] = [max(s.box[3] - s.box[1] for s in group) for group in bars]
    assert heights["paper"][2] > 50 * heights["paper"][0]
    assert heights["default"][2] < 3 * heights["default"][0]


def test_there_is_no_title_on_paper_unless_one_is_given():
    capture = block_capture(2)
    assert "title" not in headgrid.to_spec(heatmap(capture, theme="paper"))
    titled = headgrid.to_spec(heatmap(capture, theme="paper", title="Layer {layer}"))
    assert titled["title"]["text"][0] == "Layer 0"


def test_serif_is_in_svg_and_pdf():
    spec = headgrid.to_spec(heatmap(block_capture(2), font="serif"))
    assert (
        'font-family="Times New Roman, DejaVu Serif, Times, serif"' in render(spec, "svg").decode()
    )
    fonts = [name for name in (b"LiberationSerif", b"DejaVuSerif") if name in render(spec, "pdf")]
    if not list(Path("/usr/share/fonts").rglob("*Serif*.ttf")):
        pytest.skip("no serif font is here")
    assert fonts


def test_a_width_that_leaves_too_little_is_an_error_with_remedies():
    with pytest.raises(OptionError, match=r"leaves \d+ pt for each of 4 panels.*theme='paper'"):
        heatmap(block_capture(8), width="8cm")
