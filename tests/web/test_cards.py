"""What a notebook shows of captures, surveys, recordings and colour ranges."""

import base64
import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from lxml import etree
from PIL import Image

import headgrid
from headgrid import (
    Capture,
    ColorRange,
    HeadgridWarning,
    perhead,
    resolve_color_range,
    survey,
    to_spec,
)
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.recorder.session import Run
from headgrid.web.cards import draw_colors, draw_heads, draw_table
from headgrid.web.page import write_page
from synthetic import block_capture

HOSTILE = "</span></td><script>window.canary = 1</script><img src=x onerror='canary=1'>&\x1b\u202e"
ALLOWED = {"div", "p", "strong", "img", "table", "tbody", "tr", "th", "td", "span", "br"}
ATTRIBUTES = {"class", "style", "scope", "src", "width", "height", "alt", "dir"}


def read_card(value):
    html = value if isinstance(value, str) else value._repr_html_()
    card = etree.fromstring(re.sub("(<img [^>]*|<br)>", r"\1/>", html))
    assert {node.tag for node in card.iter()} <= ALLOWED
    assert {name for node in card.iter() for name in node.attrib} <= ATTRIBUTES
    pictures = card.findall(".//img")
    assert all(one.get("src").startswith("data:image/png;base64,") for one in pictures)
    assert all(one.get("alt") for one in pictures)
    rows = (["".join(cell.itertext()) for cell in row] for row in card.iter("tr"))
    return SimpleNamespace(title=card.findtext("p/strong"), facts=dict(rows), pictures=pictures)


def read_picture(html):
    """Return the attributes of an image element, and its pixels, [row, column, RGBA]."""
    given = dict(re.findall(r'(\w+)="([^"]*)"', html))
    with Image.open(io.BytesIO(base64.b64decode(given["src"].partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(int)
    assert pixels.shape[:2] == (int(given["height"]), int(given["width"]))
    return given, pixels


def test_a_card_names_words_and_what_the_axes_are_called():
    labels = {"query_labels": ["<b>", "cat"], "key_labels": ["a", "b", "c"], "query_name": "Step"}
    capture = Capture.from_array(np.arange(6.0).reshape(1, 2, 3), **labels)
    card = read_card(capture)
    assert card.facts["size"] == "1 head, 2 query steps x 3 key tokens"
    assert card.facts["last block"] == "query steps [1 ('cat')]"
    assert read_card(survey([capture])).facts["tokens"] == "2 query steps x 3 key"


def scale_of(capture):
    rule = resolve_color_range("symmetric", [capture])
    return ColorScale(rule, palette_for(capture.statistic, "rdbu"))


def test_the_card_of_a_capture_tells_what_it_holds():
    row = [[5.0, 1.0, 2.0, 9.0], [-1.0, 3.0, 5.0, 0.0]]
    capture = Capture.from_array(
        np.stack([np.tile(one, (4, 1)) for one in row]),
        block_sizes=[2, 2],
        layer=7,
        run="run_001",
        prompt="an eagle",
    )
    card = read_card(capture)
    assert card.title == "run_001, layer 7: Attention Logits"
    assert card.facts == {
        "prompt": "an eagle",
        "size": "2 heads, 4 query x 4 key frames",
        "blocks": "[2, 2]",
        "unseen": "8 of 32 pairs",
        "last block": "query frames [2, 3]",
        "sink scores": "H0 3.5, H1 \u22125",
        "colors": "\u22129  9",
    }


def test_a_fact_that_there_is_not_has_no_row_and_odd_ones_are_noted_without_their_place():
    facts = read_card(Capture.from_array(last_block=[[1.0, 2.0]])).facts
    assert facts["sink scores"] == "H0 n/a"
    assert facts["size"] == "1 head, 2 key frames, last block only"
    assert not {"prompt", "blocks", "unseen", "notes"} & set(facts)
    data = {"full_frame_attention": np.ones((1, 5, 5)), "block_sizes": [2, 2]}
    capture = Capture.from_dict(data, source="somewhere/layer3.pt", layer=3)
    notes = read_card(capture).facts["notes"]
    assert notes.startswith("block_sizes sum to 4, but there are 5 frames")
    rows = np.ones((40, 4))
    rows[[31, 5], 0] = 9.0, 4.0
    scores = read_card(Capture.from_array(last_block=rows)).facts["sink scores"]  # the largest
    assert re.fullmatch(r"H31 8, H5 3, H0 0, (H\d+ 0, ){5}\.\.\. \(largest first\)", scores)


@pytest.mark.parametrize("name", ["prompt", "run"])
def test_text_of_a_capture_is_text_in_its_card(name):
    html = block_capture(**{name: HOSTILE})._repr_html_()
    card = read_card(html)
    assert "window.canary = 1" in f"{card.title} {card.facts}"
    assert "\x1b" not in html
    assert "\u202e" not in html
    prompt = read_card(block_capture(prompt="a cat & " * 130_000)).facts["prompt"]
    assert len(prompt) == 200
    assert prompt.endswith("\u2026")


def test_every_process_gives_the_same_card_without_an_engine_and_the_same_page():
    program = (
        "import sys; from headgrid import Capture, survey; import numpy as np;"
        "c = Capture.from_array(np.sin(np.arange(588.0)).reshape(12, 7, 7), prompt='x');"
        "survey([c])._repr_html_(); print(c._repr_html_());"
        "print(*{m.partition('.')[0] for m in sys.modules})\n"
        "from headgrid import perhead, to_spec; from headgrid.web.page import write_page;"
        "print(write_page(to_spec(perhead(c)), embed='assets'))"  # names the script by its hash
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    array = np.sin(np.arange(588.0)).reshape(12, 7, 7)
    capture = Capture.from_array(array, prompt="x")
    card, page = capture._repr_html_(), write_page(to_spec(perhead(capture)), embed="assets")
    assert done.stdout.startswith(f"{card}\n")
    assert done.stdout.endswith(f"\n{page}\n")
    modules = done.stdout[len(card) : -len(page)].split()
    assert not {"vl_convert", "altair", "torch"} & set(modules)


@pytest.mark.parametrize(
    "shape", [(12, 72, 72), (12, 90, 90), (1, 2000, 1500), (128, 200, 200), (3000, 3, 3)], ids=str
)
def test_a_card_is_small_whatever_the_capture_holds(shape):
    noise = np.random.default_rng(0).normal(size=shape)
    capture = Capture.from_array(noise, block_sizes=[1] * shape[1] if shape[1] < 100 else None)
    assert len(capture._repr_html_().encode()) < 200_000
    rows = Capture.from_array(last_block=noise[:, 0])
    assert len(rows._repr_html_().encode()) < 200_000


def test_the_card_of_a_survey_tells_what_it_holds_and_what_is_missing():
    def capture(run, layer, first):
        rows = [[first, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0]]
        return Capture.from_array(last_block=rows, run=run, layer=layer)

    runs = ("run_0", 0, 5.0), ("run_0", 1, 8.0), ("run_1", 0, 7.0)
    with pytest.warns(HeadgridWarning, match="layer 1 is missing"):
        found = survey([capture(*one) for one in runs])
    card = read_card(found)
    assert card.facts["holds"] == "2 runs, 2 layers x 2 heads"
    assert card.facts["layers"] == "0, 1"
    assert card.facts["missing"].startswith("run_1: layer 1 is missing")
    # Layer 0, head 0: the mean of 5 - 1 and 7 - 1.
    named = card.facts["largest sinks (layer:head)"]
    assert named == "1:0 7, 0:0 5, 0:1 \u22121, 1:1 \u22121"
    assert card.pictures[0].get("width") == "24"


def test_the_text_of_a_survey_is_text_in_its_card():
    none = survey([Capture.from_array(last_block=[[1.0, 2.0]])])
    assert read_card(none).facts["largest sinks (layer:head)"] == "n/a"
    captures = [
        Capture.from_array(last_block=[[1.0, 2.0, 3.0]], run=f"{HOSTILE}{n}", layer=n)
        for n in range(2)
    ]
    with pytest.warns(HeadgridWarning):
        html = survey(captures)._repr_html_()
    assert "window.canary = 1" in read_card(html).facts["missing"]


def test_the_card_of_a_recording_names_its_captures():
    torch = pytest.importorskip("torch")
    tokens = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    with headgrid.record(None, tokens_per_frame=2, prompt=HOSTILE) as recording:
        assert read_card(recording).facts["captures"].startswith("none: its block has not ended")
        torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    card = read_card(recording)
    assert card.facts["captures"] == repr(recording.captures[0])
    assert card.facts["records"] == "self-attention, Attention Logits"
    assert card.facts["prompt"].startswith("</span>")
    first = max(headgrid.sink_scores(recording.captures[0]))
    named = card.facts["largest sinks (layer:head)"].replace("\u2212", "-")
    assert float(re.search(r" ([^,]+)", named)[1]) == pytest.approx(first, rel=0.01)


def test_a_color_range_shows_its_colors_where_it_spans_zero():
    both, mass = ColorRange(-2.0, 8.0, "minmax"), ColorRange(0.0, 1.0, "shared")
    assert read_card(both).facts == {"rule": "minmax", "colors": "\u22122  8"}
    assert read_card(mass).facts == {"rule": "shared"}


def test_every_cell_of_a_thumbnail_has_the_color_of_its_value():
    capture = block_capture(3, (2, 3))
    _, pixels = read_picture(draw_heads(capture, scale_of(capture)))
    size, pitch = 12, 5 * 12 + 4
    assert pixels.shape == (60, 3 * pitch - 4, 4)
    for head in range(3):
        matrix = capture.head_matrix(head)
        for query in range(5):
            for key in range(5):
                x, y = head * pitch + key * size, (4 - query) * size
                cell = pixels[y : y + size, x : x + size].reshape(-1, 4)
                assert (cell == cell[0]).all()
                value = matrix[query, key]
                if np.isnan(value):
                    assert cell[0].tolist() == [236, 236, 236, 255]
                else:
                    expected = scale_of(capture).rgb(value).astype(int)
                    assert np.abs(cell[0, :3] - expected).max() <= 6  # 128 steps, not 256
    assert (pixels[:, 60:64, 3] == 0).all()


def test_a_table_has_grey_where_there_is_no_value_and_colors_run_from_low_to_high():
    many = Capture.from_array(np.ones((3000, 1, 1)))
    assert 'alt="Maps of the first 1562 of 3000' in draw_heads(many, scale_of(many))
    scale = ColorScale(ColorRange(-1.0, 1.0, "symmetric"), palette_for("logit", "rdbu"))
    _, pixels = read_picture(draw_table(np.array([[1.0, np.nan]]), scale, "two"))
    assert pixels.shape == (12, 24, 4)
    assert pixels[0, -1].tolist() == [236, 236, 236, 255]
    assert np.abs(pixels[0, 0, :3] - [0x67, 0x00, 0x1F]).max() <= 6
    line = read_picture(draw_colors(scale))[1][0]
    assert line[0, 2] > line[0, 0]
    assert line[-1, 0] > line[-1, 2]


def test_the_layers_of_a_run_are_one_card(tmp_path):
    for layer in (3, 10):
        capture = block_capture(heads=4, layer=layer, prompt=HOSTILE)
        headgrid.save_capture(capture, tmp_path / f"run_7/layer{layer}.npz")
    layers = headgrid.load_run(tmp_path / "run_7")
    assert layers == [*layers]
    card = read_card(layers)
    assert card.title == "run_7: 2 layers"
    assert card.facts["captures"].count("<Capture run_7, layer ") == 2
    scores = [headgrid.sink_scores(capture) for capture in layers]
    row, head = np.unravel_index(np.argmax(scores), np.shape(scores))
    assert card.facts["largest sinks (layer:head)"].startswith(f"{(3, 10)[row]}:{head} ")
    assert read_card(layers[0]).title.startswith("run_7, layer 3")
    assert read_card(type(layers)()).title == "No captures"


def test_everything_has_a_readable_repr():
    capture = block_capture(prompt="x" * 10_000)
    scale = ColorScale(ColorRange(0.0, 1.0, "shared"), palette_for("mass", "rdbu"))
    bare = headgrid.heatmap(capture)
    bare.description = None
    values = {
        "<Run run_003: seed 7, 'a cat\u241b yyyy": Run(3, f"a cat\x1b\n{'y' * 10_000}", seed=7),
        "<Capture layer 0: logit, 2 heads, 4 query x 4 key frames, blocks [2, 2]>": capture,
        "<Grid of layer 0: Attention Logits (mean": headgrid.heatmap(capture),
        "ColorScale(range=ColorRange(low=0.0, high=1.0, rule='shared'), palette=Palette(": scale,
        "<Survey of 1 capture: 1 run, 1 layer x 2 heads, logit>": survey([capture]),
        "<Grid of no data>": bare,
    }
    for start, value in values.items():
        assert repr(value).startswith(start)
        assert len(repr(value)) < 160
