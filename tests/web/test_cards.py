"""What a notebook shows of captures, surveys, recordings and colour ranges."""

import base64
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_page import Reader

import headgrid
from headgrid import Capture, ColorRange, HeadgridWarning, resolve_color_range, survey
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.recorder.session import Run
from headgrid.web.thumbnails import draw_colors, draw_heads, draw_table
from synthetic import block_capture, waves

HOSTILE = "</span></td><script>window.canary = 1</script><img src=x onerror='canary=1'>&\x1b\u202e"
VOID = {"img", "br"}


class Card(Reader):
    """Read a card: its facts by name, and its pictures; unbalanced elements fail."""

    def __init__(self, html):
        self.facts, self.cells = {}, []
        super().__init__(html)
        assert self.open == [], self.open
        assert {tag for tag, _ in self.elements} <= ALLOWED
        assert {name for _, given in self.elements for name in given} <= ATTRIBUTES
        for picture in self.find("img"):
            assert picture["src"].startswith("data:image/png;base64,")
            assert picture["alt"]

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag in VOID:
            self.open.pop()
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open[-1] == tag
        super().handle_endtag(tag)
        if tag == "tr":
            name, fact = self.cells[-2:]
            self.facts[name] = fact

    def handle_data(self, data):
        super().handle_data(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


ALLOWED = {"div", "p", "strong", "img", "table", "tbody", "tr", "th", "td", "span", "br"}
ATTRIBUTES = {"class", "style", "scope", "src", "width", "height", "alt", "dir"}


def read_card(value):
    """Return the card of a value, read."""
    return Card(value._repr_html_())


def read_pixels(uri):
    """Return the pixels of a data URI, [row, column, RGBA]."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def scale_of(capture):
    """Return the colours that a capture is shown with."""
    rule = resolve_color_range("symmetric", [capture])
    return ColorScale(rule, palette_for(capture.statistic, "rdbu"))


# Cards


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
    assert card.texts["strong"] == "run_001, layer 7: Attention Logits"
    assert card.facts == {
        "prompt": "an eagle",
        "size": "2 heads, 4 query x 4 key frames",
        "blocks": "[2, 2]",
        "unseen": "8 of 32 pairs",
        "last block": "query frames [2, 3]",
        "sink scores": "H0 3.5, H1 \u22125",
        "colors": "\u22129  9",
    }


def test_a_fact_that_there_is_not_has_no_row():
    card = read_card(Capture.from_array(last_block=[[1.0, 2.0]]))
    assert card.facts["sink scores"] == "H0 n/a"
    assert card.facts["size"] == "1 head, 2 key frames, last block only"
    assert not {"prompt", "blocks", "unseen", "notes"} & set(card.facts)


def test_of_many_heads_the_largest_sinks_are_named():
    rows = np.ones((40, 4))
    rows[[31, 5], 0] = 9.0, 4.0
    scores = read_card(Capture.from_array(last_block=rows)).facts["sink scores"]
    assert scores.startswith("H31 8, H5 3, H0 0, ")
    assert scores.endswith(", ... (largest first)")
    assert scores.count("H") == 8


def test_what_was_odd_in_a_file_is_noted_without_its_place():
    data = {"full_frame_attention": np.ones((1, 5, 5)), "block_sizes": [2, 2]}
    capture = Capture.from_dict(data, source="somewhere/layer3.pt", layer=3)
    notes = read_card(capture).facts["notes"]
    assert notes.startswith("block_sizes sum to 4, but there are 5 frames")


@pytest.mark.parametrize("name", ["prompt", "run"])
def test_text_of_a_capture_is_text_in_its_card(name):
    html = block_capture(**{name: HOSTILE})._repr_html_()
    card = Card(html)
    assert "window.canary = 1" in "".join(card.texts.values())
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_a_prompt_of_a_megabyte_is_shortened():
    prompt = read_card(block_capture(prompt="a cat & " * 130_000)).facts["prompt"]
    assert len(prompt) == 200
    assert prompt.endswith("\u2026")


def test_the_same_capture_gives_the_same_card_in_every_process():
    program = (
        "from headgrid import Capture; import numpy as np;"
        "a = np.sin(np.arange(588.0)).reshape(12, 7, 7);"
        "print(Capture.from_array(a, prompt='x')._repr_html_())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            **CAPTURED,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1
    array = np.sin(np.arange(588.0)).reshape(12, 7, 7)
    assert outputs == {Capture.from_array(array, prompt="x")._repr_html_() + "\n"}


CAPTURED = {"capture_output": True, "text": True, "check": True, "timeout": 60}


@pytest.mark.parametrize(
    "shape", [(12, 72, 72), (12, 90, 90), (1, 2000, 1500), (128, 200, 200), (3000, 3, 3)], ids=str
)
def test_a_card_is_small_whatever_the_capture_holds(shape):
    noise = np.random.default_rng(0).normal(size=shape)
    html = Capture.from_array(noise, block_sizes=[1] * shape[1] if shape[1] < 100 else None)
    assert len(html._repr_html_().encode()) < 200_000


@pytest.mark.parametrize("heads", [1, 40, 5000])
def test_a_card_of_rows_alone_is_small_too(heads):
    noise = np.random.default_rng(0).normal(size=(heads, 3000))
    assert len(Capture.from_array(last_block=noise)._repr_html_().encode()) < 200_000


def test_a_card_starts_no_engine():
    program = (
        "import sys; from headgrid import Capture, survey; import numpy as np;"
        "c = Capture.from_array(np.eye(3)[None]); c._repr_html_(); survey([c])._repr_html_();"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], **CAPTURED)
    assert not {"vl_convert", "altair", "torch"} & set(done.stdout.split())


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
    assert card.find("img")[0]["width"] == "24"


def test_a_survey_without_any_sink_score_says_so():
    found = survey([Capture.from_array(last_block=[[1.0, 2.0]])])
    assert read_card(found).facts["largest sinks (layer:head)"] == "n/a"


def test_the_text_of_a_survey_is_text_in_its_card():
    captures = [
        Capture.from_array(last_block=[[1.0, 2.0, 3.0]], run=f"{HOSTILE}{n}", layer=n)
        for n in range(2)
    ]
    with pytest.warns(HeadgridWarning):
        html = survey(captures)._repr_html_()
    assert "window.canary = 1" in Card(html).facts["missing"]


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
    named = card.facts["largest sinks (layer:head)"]
    assert float(re.search(r" ([^,]+)", named)[1].replace("\u2212", "-")) == pytest.approx(
        first, rel=0.01
    )


def test_a_color_range_shows_its_colors_where_it_spans_zero():
    both, mass = ColorRange(-2.0, 8.0, "minmax"), ColorRange(0.0, 1.0, "shared")
    assert read_card(both).facts == {"rule": "minmax", "colors": "\u22122  8"}
    assert read_card(mass).facts == {"rule": "shared"}
    assert repr(both) == "ColorRange(low=-2.0, high=8.0, rule='minmax')"


def test_a_color_scale_shows_its_palette():
    card = read_card(ColorScale(ColorRange(0.0, 1.0, "shared"), palette_for("mass", "rdbu")))
    assert card.facts == {"palette": "viridis", "rule": "shared"}
    assert card.find("img")[0]["alt"] == "Colors from 0 to 1"


# Thumbnails


def test_every_cell_of_a_thumbnail_has_the_color_of_its_value():
    capture = block_capture(3, (2, 3))
    thumbnail = draw_heads(capture, scale_of(capture))
    pixels = read_pixels(thumbnail.uri)
    size, pitch = 12, 5 * 12 + 4
    assert (thumbnail.width, thumbnail.height) == (3 * pitch - 4, 60)
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


def test_a_sink_one_frame_wide_survives_pooling():
    values = np.zeros((1, 1000, 1000))
    values[0, :, 0] = -7.0
    capture = Capture.from_array(values)
    pixels = read_pixels(draw_heads(capture, scale_of(capture)).uri)
    assert pixels.shape[0] <= 96
    low = scale_of(capture).rgb(-7.0)
    assert np.abs(pixels[:, 0, :3] - low).max() <= 6
    zero = scale_of(capture).rgb(0.0)
    assert np.abs(pixels[:, 1:, :3] - zero).max() <= 6


def test_panels_stand_in_rows_as_even_as_possible():
    capture = Capture.from_array(waves(12, 21, 21))
    thumbnail = draw_heads(capture, scale_of(capture))
    assert (thumbnail.width, thumbnail.height) == (6 * 63 + 5 * 4, 2 * 63 + 4)
    assert thumbnail.alt == "Maps of 12 heads, query by key frame"


def test_beyond_what_a_thumbnail_can_show_it_says_so():
    capture = Capture.from_array(np.ones((3000, 1, 1)))
    assert draw_heads(capture, scale_of(capture)).alt.startswith("Maps of the first 1562 of 3000")


def test_a_table_has_grey_where_there_is_no_value():
    scale = ColorScale(ColorRange(-1.0, 1.0, "symmetric"), palette_for("logit", "rdbu"))
    pixels = read_pixels(draw_table(np.array([[1.0, np.nan]]), scale, "two").uri)
    assert pixels.shape == (12, 24, 4)
    assert pixels[0, -1].tolist() == [236, 236, 236, 255]
    assert np.abs(pixels[0, 0, :3] - [0x67, 0x00, 0x1F]).max() <= 6


def test_the_colors_of_a_scale_run_from_low_to_high():
    scale = ColorScale(ColorRange(-1.0, 1.0, "symmetric"), palette_for("logit", "rdbu"))
    line = read_pixels(draw_colors(scale).uri)[0]
    assert line[0, 2] > line[0, 0]
    assert line[-1, 0] > line[-1, 2]
    assert np.abs(line[64, :3] - 0xF7).max() <= 6


# Text


def test_everything_has_a_readable_repr():
    capture = block_capture(prompt="x" * 10_000)
    run = Run(index=3, prompt=f"a cat\x1b\n{'y' * 10_000}", seed=7)
    values = {
        "<Run run_003: seed 7, 'a cat\u241b yyyy": run,
        "<Capture layer 0: logit, 2 heads, 4 query x 4 key frames, blocks [2, 2]>": capture,
        "<Grid of layer 0: Attention Logits (mean": headgrid.heatmap(capture),
        "<Grid of layer 0: Attention Logits (": headgrid.perhead(capture),
        "ColorScale(range=ColorRange(low=0.0, high=1.0, rule='shared'), palette=Palette(": (
            ColorScale(ColorRange(0.0, 1.0, "shared"), palette_for("mass", "rdbu"))
        ),
        "<Survey of 1 capture: 1 run, 1 layer x 2 heads, logit>": survey([capture]),
    }
    for start, value in values.items():
        assert repr(value).startswith(start)
        assert len(repr(value)) < 160


def test_a_chart_without_description_has_a_repr_too():
    chart = headgrid.heatmap(block_capture())
    chart.description = None
    assert repr(chart) == "<Grid of no data>"
