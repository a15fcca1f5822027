"""The finishing stage, seen from outside: pixels, bytes, and what another reader finds."""

import gzip
import io
import re
from functools import cache
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import vl_convert
from PIL import Image

from headgrid import Capture, heatmap, load_capture, perhead, to_spec
from headgrid.charts import panels as grids
from headgrid.render import convert
from headgrid.render.convert import render_svg
from headgrid.render.svg import finish as svg
from headgrid.render.svg.finish import LAYOUT_FONT
from svgreader import read_svg
from synthetic import block_capture, visible_pairs, waves

FAMILY = "Arial, DejaVu Sans, Helvetica, sans-serif"
BLOCKS_21, BLOCKS_72 = (3,) * 7, (3,) * 24
FRACTIONAL = [1.37, *(pytest.param(n, marks=pytest.mark.nightly) for n in (1.1, 2.6, 4.1667))]
CAPTURES = {
    "21 frames": lambda: block_capture(3, BLOCKS_21, layer=3, scale=14),
    "72 frames": lambda: block_capture(2, BLOCKS_72, scale=30),
    "flat cells": lambda: Capture.from_array(waves(3, 4, 9)),
    "upright cells": lambda: Capture.from_array(waves(3, 11, 6)),
    "one cell": lambda: block_capture(1, (1,)),
}
every_capture = pytest.mark.parametrize("name", CAPTURES)
every_scale = pytest.mark.parametrize(
    "scale", [2, *(pytest.param(scale, marks=pytest.mark.nightly) for scale in (1, 3))]
)


def unfinished(chart):
    """Return what the renderer made of a chart, or of a specification, before finishing."""
    spec = chart if isinstance(chart, dict) else to_spec(chart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "finish", lambda raw, *_, **__: raw)
        patch.setattr(convert, "cut_cells", lambda spec: (spec, []))
        return render_svg(spec)


def finish(raw, title="Mine", description="A caption.", **options):
    return svg.finish(raw, FAMILY, title=title, description=description, **options)


@cache
def pair_of(name, figure):
    """Return the unfinished and the finished SVG of a synthetic capture."""
    raw = unfinished({"heatmap": heatmap, "perhead": perhead}[figure](CAPTURES[name]()))
    return raw, finish(raw)


def pixels(drawing, scale):
    """Return a drawing as the PNG export has it, [row, column, 3]."""
    png = vl_convert.svg_to_png(svg.for_layout(drawing), scale=scale)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def difference(raw, finished, scale):
    """Return the largest difference of each pixel over the channels, but of the colour bar.

    It has ticks and another title than Vega gives it.
    """
    changed = np.abs(pixels(raw, scale) - pixels(finished, scale)).max(axis=2)
    moves = re.findall(
        r'<g (?:fill="none"|class="mark-group role-legend").*? transform="translate\(([\d.]+)',
        finished,
    )
    left = sum(map(float, moves[:2])) if len(moves) > 1 else np.inf
    return changed[:, : int(min(left * scale - 1, changed.shape[1]))]


def group_contents(drawing, name):
    """Return the text inside every group of a mark."""
    return re.findall(rf'<g class="[^"]*headgrid_{name}_marks"[^>]*>(.*?)</g>', drawing, re.DOTALL)


@every_scale
@every_capture
def test_the_finished_heatmap_equals_the_unfinished_pixel_for_pixel(name, scale):
    raw, finished = pair_of(name, "heatmap")
    assert difference(raw, finished, scale).max() == 0


@every_scale
@every_capture
def test_the_finished_per_head_grid_looks_like_the_unfinished(name, scale):
    raw, finished = pair_of(name, "perhead")
    changed = difference(raw, finished, scale)
    assert (changed > 0).mean() <= 0.02
    assert changed.max() <= 64


@pytest.mark.parametrize(
    ("figure", "frames", "limit"),
    [
        (heatmap, 72, 270_000),
        (heatmap, 21, 75_000),
        (perhead, 72, 85_000),
        (perhead, 21, 45_000),
    ],
)
def test_the_published_captures_take_few_bytes(shared, figure, frames, limit):
    capture = load_capture(shared / f"data/frames{frames}/layer3.pt")
    finished = render_svg(to_spec(figure(capture))).encode()
    assert len(finished) <= limit
    assert len(gzip.compress(finished, 9)) <= 62_000


def test_a_synthetic_heatmap_takes_a_fifth_of_its_bytes():
    raw, finished = pair_of("72 frames", "heatmap")
    assert len(finished) < len(raw) / 5
    assert len(finished) < 9 * 2 * visible_pairs(BLOCKS_72) + 15_000


@every_capture
def test_marks_become_one_path_and_every_bar_stays_readable(name):
    capture, (_, finished) = CAPTURES[name](), pair_of(name, "perhead")
    for content in group_contents(finished, "bars"):
        assert content.count("<path") == 1
        readable = re.findall(r"m[\d.-]+[ -][\d.]+h[\d.]+v[\d.-]+h-[\d.]+z", content)
        assert len(readable) == len(capture.key_frames)
    assert {c.count("<path") for c in group_contents(finished, "points")} == {1}
    axes = 2 * capture.num_heads
    for role in ("tick", "grid"):
        assert finished.count(f'<path class="mark-rule role-axis-{role}"') == axes


@cache
def checkerboard(frames=72):
    """Return a heatmap of one head whose cells have two neighbouring colours in turn."""
    query, key = np.mgrid[:frames, :frames]
    values = np.where((query + key) % 2, 5.02, 5.10)[None]
    chart = heatmap(Capture.from_array(values), color_range=(-10, 10))
    return finish(unfinished(chart))


def inner_colors(image, drawing, scale):
    """Return the number of colours inside the panel, and the pixels there.

    The outermost half point is left to the ticks, and a pixel to the frame.
    """
    shapes = read_svg(drawing).shapes
    x0, y0, x1, y1 = next(s.box for s in shapes if s.style.get("fill") == "#ddd")
    edge = 0.5 * scale + 1
    rows = slice(int(np.ceil(y0 * scale + edge)), int(y1 * scale - edge))
    columns = slice(int(np.ceil(x0 * scale + edge)), int(x1 * scale - edge))
    inside = image[rows, columns]
    return len(np.unique(inside.reshape(-1, 3), axis=0)), inside


@pytest.mark.parametrize("scale", FRACTIONAL)
@pytest.mark.parametrize("frames", [21, 72])
def test_no_seam_shows_between_cells_at_any_scale(frames, scale):
    drawing = checkerboard(frames)
    count, inside = inner_colors(pixels(drawing, scale), drawing, scale)
    assert count == 2
    # Every cell keeps its size to a pixel: so many changes of colour along any line.
    changes = (np.diff(inside, axis=1) != 0).any(axis=2).sum(axis=1)
    assert set(changes.tolist()) == {frames - 1}


@pytest.mark.parametrize("scale", FRACTIONAL[:3])
def test_no_seam_shows_in_a_browser(scale, visit, tmp_path):
    drawing = checkerboard()
    width, height = svg.size(drawing)
    sized = drawing.replace(f'"{width:g}pt"', f'"{width * scale}"', 1)
    sized = sized.replace(f'"{height:g}pt"', f'"{height * scale}"', 1)
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0">{sized}')
    picture = visit(page, width=int(width * scale) + 9, height=int(height * scale) + 9)
    image = np.asarray(Image.open(io.BytesIO(picture.page.screenshot())).convert("RGB"))
    count, inside = inner_colors(image.astype(int), drawing, scale)
    assert count == 2
    assert len({len(row) for row in inside}) == 1


def edit(chart, name, changes):
    """Return a specification with the mark or encoding of one layer changed."""
    spec = to_spec(chart)
    layer = next(part for part in spec["spec"]["layer"] if part.get("name") == name)
    for key, value in changes.items():
        target = layer["mark"] if key == "mark" else layer["encoding"]
        target.update(value)
    return spec


def data_condition(test, value, otherwise):
    return {"condition": {"test": test, "value": value}, "value": otherwise}


CELL_CHANGES = {
    "strokes": {"mark": {"stroke": "white", "strokeWidth": 0.5}},
    "opacity": {"mark": {"opacity": 0.5}},
    "fill opacity": {"mark": {"fillOpacity": 0.4}},
    "opacity of some cells": {"encoding": {"opacity": data_condition("datum.key<2", 0.3, 1)}},
    "rounded corners": {"mark": {"cornerRadius": 2}},
    "labels for screen readers": {"mark": {"aria": True}, "encoding": {"description": {
        "field": "color", "type": "quantitative"}}},
    "a clip": {"mark": {"clip": True}},
}  # fmt: skip
PROFILE_CHANGES = {
    "colours by value": (
        "bars", {"encoding": {"color": data_condition("datum.logit>0", "red", "blue")}}
    ),
    "translucent dots": ("points", {"mark": {"opacity": 0.4, "size": 60}}),
    "squares": ("points", {"mark": {"shape": "square", "size": 30}}),
    "strokes": ("bars", {"mark": {"stroke": "red"}}),
    "wide bars": ("bars", {"mark": {"width": 60}}),
    "a smooth line": ("line", {"mark": {"interpolate": "monotone"}}),
}  # fmt: skip


@pytest.mark.parametrize("change", CELL_CHANGES)
def test_a_customised_heatmap_passes_through_unharmed(change):
    spec = edit(heatmap(block_capture(2, (2, 2, 1))), grids.CELLS, CELL_CHANGES[change])
    raw = unfinished(spec)
    finished = finish(raw)
    if change != "a clip":
        assert difference(raw, finished, 2).max() == 0
    cells = group_contents(raw, "cells")
    assert cells == group_contents(finished, "cells")
    assert "".join(cells).count("<path") == 2 * visible_pairs((2, 2, 1))


@pytest.mark.parametrize("change", PROFILE_CHANGES)
def test_a_customised_per_head_grid_passes_through_unharmed(change):
    mark, changes = PROFILE_CHANGES[change]
    chart = perhead(block_capture(2, (2, 2, 1)))
    spec = edit(chart, f"headgrid_{mark}", changes)
    raw = unfinished(spec)
    finished = finish(raw)
    assert difference(raw, finished, 2).max() <= 64
    assert group_contents(raw, mark) == group_contents(finished, mark)


def test_cells_of_a_fractional_size_pass_through_unharmed():
    spec = to_spec(heatmap(block_capture(2, (2, 2, 1))))
    spec["spec"].update(width=333, height=77)
    raw = unfinished(spec)
    assert group_contents(raw, "cells") == group_contents(finish(raw), "cells")


def test_a_layer_and_other_colours_of_a_user_stay():
    spec = to_spec(heatmap(block_capture(2, (2, 2))))
    text = {"mark": {"type": "text", "fontSize": 8, "dx": 1}, "encoding": {
        "x": {"field": "key", "type": "ordinal"}, "y": {"field": "query", "type": "ordinal"},
        "text": {"field": "logit", "type": "quantitative", "format": ".1f"}}}  # fmt: skip
    spec["spec"]["layer"].append(text)
    cells = next(part for part in spec["spec"]["layer"] if part.get("name") == grids.CELLS)
    cells["encoding"]["color"]["scale"] = {"scheme": "viridis"}
    raw = unfinished(spec)
    finished = finish(raw, gradients=[[(0, "#053061"), (1, "#67001f")]])
    assert difference(raw, finished, 2).max() == 0
    assert len(read_svg(finished).texts) == len(read_svg(raw).texts)
    assert {t.family for t in read_svg(finished).texts} == {FAMILY}


def test_a_chart_without_marks_of_ours_changes_in_nothing_but_names():
    values = [{"a": "x", "b": 1.23456789}, {"a": "y", "b": 2}]
    chart = alt.Chart(alt.InlineData(values=values), title="Mine").mark_bar(clip=True)
    spec = chart.encode(x="a:N", y="b:Q").configure(font=FAMILY).to_dict()
    raw = unfinished(spec)
    finished = finish(raw)

    def body(drawing):
        root = ElementTree.fromstring(drawing)
        skipped = ("title", "desc")
        return [
            (e.tag, e.text, {**e.attrib, "id": "", "clip-path": "", "font-family": ""})
            for e in list(root.iter())[1:]
            if e.tag.rpartition("}")[2] not in skipped
        ]

    assert body(raw) == body(finished)
    assert {t.family for t in read_svg(finished).texts} == {FAMILY}
    assert "<title id=" in finished
    assert ">Mine</title>" in finished


def ids_of(drawing):
    return re.findall(r'\sid="([^"]*)"', drawing)


def test_ids_are_unique_over_the_figures_on_one_page():
    drawings = []
    for number in range(3):
        capture = block_capture(2, (1, 2), layer=number)
        for chart in (heatmap(capture), perhead(capture)):
            spec = to_spec(chart)
            for layer in spec["spec"]["layer"]:
                layer["mark"]["clip"] = "hidden" not in layer.get("name", "")
            drawings.append(finish(unfinished(spec)))
    ids = [name for drawing in drawings for name in ids_of(drawing)]
    assert len(ids) == len(set(ids)) >= 6 * 3
    for drawing in drawings:
        used = re.findall(r"url\(#([^)]*)\)|aria-(?:labelledby|describedby)=\"([^\"]*)\"", drawing)
        assert {a or b for a, b in used} == set(ids_of(drawing))


@pytest.mark.parametrize(("title", "description"), [("", ""), ("a", ""), ("", "b")])
def test_a_colour_bar_keeps_its_gradient_without_title_or_description(title, description):
    raw = pair_of("21 frames", "heatmap")[0]
    drawing = finish(raw, title, description)
    assert len(ids_of(drawing)) == 1 + bool(title) + bool(description)
    (used,) = re.findall(r"url\(#([^)]*)\)", drawing)
    assert f'<linearGradient id="{used}"' in drawing


def test_screen_readers_find_an_image_with_title_and_description():
    drawing = render_svg(to_spec(heatmap(CAPTURES["21 frames"]())))
    root = ElementTree.fromstring(drawing)
    assert root.get("role") == "img"
    title, desc = root[0], root[1]
    assert (root.get("aria-labelledby"), root.get("aria-describedby")) == (
        title.get("id"),
        desc.get("id"),
    )
    assert title.text == "Layer 3: 2D Attention Maps (All Heads)"
    assert desc.text.startswith("layer 3: Attention Logits")
    assert "aria-hidden" not in drawing
    assert "aria-roledescription" not in drawing


def test_the_root_says_its_size_in_points_and_names_only_what_it_uses():
    drawing = pair_of("21 frames", "perhead")[1]
    head = drawing[: drawing.index(">")]
    assert re.fullmatch(
        r'<svg xmlns="http://www.w3.org/2000/svg" class="marks" width="\d+pt" height="\d+pt" '
        r'viewBox="0 0 \d+ \d+" role="img" aria-labelledby="[^"]+" aria-describedby="[^"]+" '
        rf'font-family="{FAMILY}"',
        head,
    )
    assert drawing.endswith("</svg>\n")
    assert "xlink" not in drawing
    assert "<!" not in drawing


@pytest.mark.parametrize(
    "title",
    [
        "a < b & c > \"d\" 'e' </text></svg>",
        "注意力 — 第3层",
        "😀 eyes 👀",
        "שלום עולם مرحبا",
        f'font-family="{FAMILY}" role="img" {LAYOUT_FONT}',
        "x" * 100_000,
    ],
    ids=["markup", "Chinese", "emoji", "right to left", "attributes", "100 kB"],
)
def test_any_text_survives(title):
    spec = to_spec(heatmap(block_capture(1, (1, 1))))
    spec["title"]["text"] = title[:1000]  # the renderer takes half a minute for 100 kB
    drawing = finish(unfinished(spec), title, title)
    root = ElementTree.fromstring(drawing)
    assert root[0].text == root[1].text == title
    shown = [t.content for t in read_svg(drawing).texts]
    assert title[:1000] in shown
    again = read_svg(svg.for_layout(drawing)).texts
    assert [t.content for t in again] == shown
    assert {t.family.rpartition(", ")[2] for t in again} == {LAYOUT_FONT}
    assert 'pt"' not in svg.for_layout(drawing)[: drawing.index(">")]


def test_control_characters_in_a_description_are_made_visible():
    drawing = finish(pair_of("one cell", "heatmap")[0], description="a\x1bb\x00\ud800")
    assert ElementTree.fromstring(drawing)[1].text == "a␛b␀\ufffd"


def test_the_colour_bar_has_the_true_stops():
    stops = [(0, "#053061"), (0.25, "#123456"), (1 / 3, "#abcdef"), (1, "#67001f")]
    raw = pair_of("21 frames", "heatmap")[0]
    found = re.findall(
        r'<stop offset="([^"]*)" stop-color="([^"]*)"', finish(raw, gradients=[stops])
    )
    assert [(float(offset), color) for offset, color in found] == [
        (0, "#053061"),
        (0.25, "#123456"),
        (0.333333, "#abcdef"),
        (1, "#67001f"),
    ]


def test_a_colour_bar_of_another_scale_keeps_its_stops():
    raw, plain = pair_of("21 frames", "heatmap")
    assert finish(raw, gradients=[[(0, "#000000"), (1, "#ffffff")]]) == plain


def test_joined_characters_are_parted_for_png_and_pdf_only():
    capture = Capture.from_array(np.ones((1, 2, 2)))
    drawing = render_svg(to_spec(heatmap(capture, title="\U0001f469\u200d\U0001f467 a")))
    assert "\u200d" in drawing
    assert "\U0001f469\U0001f467 a" in svg.for_layout(drawing)


def test_pictures_among_words_do_not_keep_a_pdf_from_being_made():
    capture = Capture.from_array(np.ones((1, 2, 2)), labels=["\U0001f389", "\u2705 \u231a"])
    assert convert.render(to_spec(heatmap(capture)), "pdf").startswith(b"%PDF")


def test_words_with_signs_of_tokenizers_are_drawn_in_a_font_as_wide_for_png_and_pdf_only():
    capture = Capture.from_array(np.ones((1, 3, 3)), labels=["\u2581quick", " fox", "plain"])
    drawing = render_svg(to_spec(heatmap(capture)))
    assert "DejaVu Sans, Liberation Sans" not in drawing
    own = '<text font-family="DejaVu Sans, Liberation Sans" font-stretch="condensed"'
    texts = re.findall(r"<text[^<>]*>[^<>]+", svg.for_layout(drawing))
    others = {text.rpartition(">")[2] for text in texts if text.startswith(own)}
    assert others == {"\u2581quick", "\u2423fox"}
    assert svg.for_layout(drawing).count(own) == 4
    ElementTree.fromstring(svg.for_layout(drawing))
    serif = render_svg(to_spec(heatmap(capture, font="serif")))
    assert "DejaVu Sans, Liberation Sans" not in svg.for_layout(serif)


def test_a_place_that_is_no_number_stays_as_it_is():
    spec = to_spec(heatmap(block_capture()))
    spec["config"]["legend"]["titlePadding"] = "red"
    assert re.search(r"translate\(\S*red,", render_svg(spec))
