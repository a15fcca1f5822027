"""The explorer's page as Chromium shows it, and what goes into it."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from click.testing import CliRunner

import headgrid
from headgrid import Capture, CaptureError, OptionError, explore
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.options import ColorRange
from headgrid.tables.measures import MEASURES, measure_table
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import round_values
from headgrid.web.explorer_page import MAX_FRAMES
from headgrid.web.livespecs import draw_live_map
from headgrid.web.packing import pack_numbers, unpack_numbers
from synthetic import block_capture, waves

HOSTILE = (
    "</script><script>canary = 1</script><img src=x onerror=canary=1> ]]> {{7*7}} ${canary=1} "
    "javascript:canary=1 \u202e\u0000\ud800 <!-- &amp; \"'`"
)


def make_run(layers=3, heads=2, blocks=(2, 2, 2), **options):
    """Return captures of several layers, each of another magnitude."""
    return [
        block_capture(heads, blocks, scale=3.0 ** (layer + 1), layer=layer, **options)
        for layer in range(layers)
    ]


@pytest.fixture(scope="module")
def run():
    """Return three layers of two heads and six frames."""
    return make_run()


@pytest.fixture
def open_page(visit, tmp_path):
    """Return a function that writes a page of captures and opens it, drawn."""

    def open_(captures, address="", *, options=None, **visiting):
        path = explore(captures, tmp_path / "explorer.html", **(options or {}))
        seen = visit(f"{path.as_uri()}{address}", **visiting)
        wait_until_drawn(seen)
        return seen

    return open_


def wait_until_drawn(seen):
    """Wait until the page shows what its address says."""
    seen.wait_for("document.querySelector('main').dataset.state !== 'loading'")
    seen.wait_for("document.querySelector('main').dataset.state === 'drawn'")


def state_of(seen):
    """Return what the page says that it shows."""
    return seen.page.evaluate(
        """() => ({
          title: document.querySelector("#head-title").textContent,
          profile: document.querySelector("#profile-title").textContent,
          readout: document.querySelector("#readout").textContent,
          statistic: document.querySelector("#statistic").value,
          range: document.querySelector("[name=range]:checked")?.value,
          hash: location.hash,
        })"""
    )


def settle(seen):
    """Wait until figures show what the address says."""
    seen.wait_for("document.querySelector('main').dataset.shown === location.hash")


def wait_for_text(seen, id, text):
    seen.wait_for(f"document.getElementById({id!r}).textContent.includes({text!r})")


def boxes(seen, chart, mark):
    """Return left, top, width and height of the marks of a figure, in the order of the data."""
    return seen.page.locator(f"#{chart} .{mark}_marks path").evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.x, b.y, b.width, b.height])"
    )


def panel(seen):
    """Return left, top, width and height of the map's panel."""
    x, y, width, height = boxes(seen, "map", "headgrid_frame")[0]
    return x, y, width, height


def cell_center(seen, query, key, frames=6):
    """Return the middle of a cell of the map, by the positions of its frames."""
    x, y, width, height = panel(seen)
    return x + width * (key + 0.5) / frames, y + height * (frames - query - 0.5) / frames


def cell_color(seen, query, key, frames=6):
    """Return the colour of a cell of the map, as the browser has it."""
    return seen.page.evaluate(
        "at => getComputedStyle(document.elementFromPoint(...at)).fill",
        list(cell_center(seen, query, key, frames)),
    )


def rgb(scale, value):
    """Return the colour of a value as CSS has it."""
    return f"rgb({', '.join(map(str, scale.rgb(round_values(np.array([value])))[0].tolist()))})"


def overview_cell(seen, layer, head, layers, heads):
    """Return the middle of a cell of the overview: a band for each, one empty, one of means."""
    x, y, width, height = seen.page.locator("#overview .headgrid_cells_marks").evaluate(
        "n => { const b = n.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }"
    )
    return x + width * (head + 0.5) / (heads + 2), y + height * (layer + 0.5) / (layers + 2)


def number(text):
    """Read a number as the page prints it."""
    return float(text.replace("−", "-"))


def spoken_value(seen):
    """Return the number at the end of the readout."""
    return number(re.search(r": (\S+)( \D+)?$", state_of(seen)["readout"])[1])


# Numbers in the page


def test_numbers_come_back_as_they_were_rounded():
    generator = np.random.default_rng(0)
    values = generator.normal(size=3000) * 10.0 ** generator.integers(-300, 300, size=3000)
    edges = [0.0, -0.0, np.nan, 9.9995, -99995, 1e-5, 1e22, 1e23, 1e300, -1e-289, 1e-291]
    values = np.concatenate([values, edges])
    assert np.array_equal(
        unpack_numbers(pack_numbers(values)), round_values(values), equal_nan=True
    )


def test_every_value_of_the_page_is_that_of_its_capture(open_page):
    magnitudes = 10.0 ** np.array([-31, -23, -6, 0, 5, 24])[:, None, None]
    captures = [
        Capture.from_array(waves(6, 5, 7) * magnitudes, query_frames=[0, 2, 4, 5, 9], layer=layer)
        for layer in (0, 4)
    ]
    seen = open_page(captures)
    for head in (1, 2, 3, 4, 5, 0):
        seen.page.select_option("#head-number", str(head))
        settle(seen)
        data = seen.page.locator("#map .headgrid_cells_marks path").evaluate_all(
            "nodes => nodes.map(n => n.__data__.datum).map(d => [d.query, d.key, d.logit])"
        )
        expected = round_values(captures[0].full_frame_attention[head])
        assert len(data) == 35
        for query, key, value in data:
            assert value == expected[[0, 2, 4, 5, 9].index(query), key]


def test_the_page_holds_visible_pairs_only(tmp_path):
    sizes = {}
    for name, blocks in ("causal", [1] * 40), ("open", [40]):
        values = np.random.default_rng(0).normal(size=(4, 40, 40))
        path = explore(Capture.from_array(values, block_sizes=blocks), tmp_path / "a.html")
        page = path.read_text("utf-8")
        packed = re.search(r'id="layer-0">([^<]*)<', page)[1]
        sizes[name] = len(zlib.decompress(base64.b64decode(packed)))
    assert sizes["causal"] == 200 + 4 * 4 * (40 + 40 * 41 // 2)
    assert sizes["open"] == 200 + 4 * 4 * (40 + 40 * 40)


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    pages = [explore(run, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


def test_a_survey_and_its_captures_give_the_same_page(run, tmp_path):
    first = explore(headgrid.survey(run), tmp_path / "a.html").read_bytes()
    assert first == explore(run, tmp_path / "b.html").read_bytes()


# What a reader does


def test_the_page_works_from_disk_and_asks_for_nothing(run, open_page):
    seen = open_page(run, offline=True)
    assert state_of(seen)["title"] == "Layer 0, head 0"
    assert len(boxes(seen, "map", "headgrid_cells")) == 24
    assert len(boxes(seen, "profile", "headgrid_bars")) == 6
    seen.assert_harmless()


def test_a_click_on_the_overview_shows_that_head(run, open_page):
    seen = open_page(run)
    seen.page.mouse.click(*overview_cell(seen, 2, 1, 3, 2))
    wait_for_text(seen, "head-title", "Layer 2, head 1")
    settle(seen)
    expected = round_values(run[2].full_frame_attention[1])
    for query, key in (0, 0), (3, 2), (5, 5):
        seen.page.mouse.move(*cell_center(seen, query, key))
        wait_for_text(seen, "readout", f"Layer 2, head 1, query {query}, key {key}:")
        assert spoken_value(seen) == expected[query, key]


def test_the_overview_shows_every_measure_of_every_head(run, open_page):
    seen = open_page(run)
    table = measure_table(run)
    names = [name for name in MEASURES if table[name].notna().any()]
    offered = seen.page.locator("#statistic option").evaluate_all("o => o.map(n => n.value)")
    assert offered == names
    assert "entropy" not in offered
    for name in ("sink", "period", "positive_share"):
        seen.page.select_option("#statistic", name)
        settle(seen)
        for row in table.itertuples():
            expected = round_values(np.array([getattr(row, name)]))[0]
            seen.page.mouse.move(*overview_cell(seen, row.layer, row.head, 3, 2))
            wait_for_text(seen, "readout", f"Layer {row.layer}, head {row.head}:")
            said = state_of(seen)["readout"].rpartition(" ")[2]
            assert (said == "value") if np.isnan(expected) else (number(said) == expected)


def test_a_tooltip_says_what_the_readout_says(run, open_page):
    seen = open_page(run)
    tooltip = seen.hover(*cell_center(seen, 3, 1))
    names = ["layer", "head", "query", "key"]
    assert [tooltip[name] for name in names] == ["0", "0", "3", "1"]
    assert number(tooltip["logit"]) == spoken_value(seen)
    assert spoken_value(seen) == round_values(run[0].full_frame_attention)[0, 3, 1]


def test_a_click_on_a_row_shows_its_profile_and_there_is_a_way_back(run, open_page):
    seen = open_page(run)
    last = boxes(seen, "profile", "headgrid_bars")
    seen.page.mouse.click(*cell_center(seen, 2, 1))
    wait_for_text(seen, "profile-title", "Profile of query frame 2")
    seen.wait_for("document.querySelectorAll('#profile .headgrid_bars_marks path').length === 4")
    data = seen.page.locator("#profile .headgrid_bars_marks path").evaluate_all(
        "nodes => nodes.map(n => n.__data__.datum.logit)"
    )
    assert data == round_values(run[0].full_frame_attention[0, 2, :4]).tolist()
    assert "query=2" in state_of(seen)["hash"]
    seen.page.get_by_role("button", name="Back to the last block").click()
    wait_for_text(seen, "profile-title", "last block (frames 4, 5)")
    seen.wait_for("document.querySelectorAll('#profile .headgrid_bars_marks path').length === 6")
    assert boxes(seen, "profile", "headgrid_bars") == last
    assert seen.page.locator("#to-last").is_hidden()


def test_bars_stand_under_the_cells_of_their_keys(run, open_page):
    seen = open_page(run)
    x, _, width, _ = panel(seen)
    for key, (left, _, bar, _) in enumerate(boxes(seen, "profile", "headgrid_bars")):
        assert left + bar / 2 == pytest.approx(x + width * (key + 0.5) / 6, abs=1.5)


def test_layer_and_head_are_reached_with_the_keyboard(run, open_page):
    seen = open_page(run)
    seen.page.locator("#overview").focus()
    for key, title in [
        ("ArrowDown", "Layer 1, head 0"),
        ("ArrowRight", "Layer 1, head 1"),
        ("ArrowRight", "Layer 1, head 1"),
        ("PageDown", "Layer 2, head 1"),
        ("Home", "Layer 2, head 0"),
        ("ArrowUp", "Layer 1, head 0"),
        ("End", "Layer 1, head 1"),
    ]:
        seen.page.keyboard.press(key)
        wait_for_text(seen, "head-title", title)
    seen.page.get_by_role("button", name="Next layer").press("Enter")
    wait_for_text(seen, "head-title", "Layer 2, head 1")
    assert seen.page.get_by_role("button", name="Next layer").is_disabled()
    seen.page.get_by_role("button", name="Previous head").press("Space")
    wait_for_text(seen, "head-title", "Layer 2, head 0")
    assert "Layer 2, head 0: Sink Score" in state_of(seen)["readout"]


def test_the_map_is_read_with_the_keyboard(run, open_page):
    seen = open_page(run)
    seen.page.locator("#map").focus()
    expected = round_values(run[0].full_frame_attention[0])
    for key, query, at in [
        ("ArrowUp", 5, 0),
        ("ArrowRight", 5, 1),
        ("ArrowDown", 4, 1),
        ("ArrowLeft", 4, 0),
        ("ArrowLeft", 4, 0),
    ]:
        seen.page.keyboard.press(key)
        wait_for_text(seen, "readout", f"query {query}, key {at}:")
        assert spoken_value(seen) == expected[query, at]
    seen.page.keyboard.press("Enter")
    wait_for_text(seen, "profile-title", "query frame 4")
    seen.page.keyboard.press("Escape")
    wait_for_text(seen, "profile-title", "last block")


@pytest.mark.parametrize(
    ("rule", "statistic"),
    [
        ("symmetric", "logit"),
        ((-2.0, 6.0), "logit"),
        ("quantile", "mass"),
        *(
            pytest.param(rule, statistic, marks=pytest.mark.nightly)
            for statistic, rules in (
                ("logit", ["quantile", (-4.0, 4.0), (1.0, 5.0)]),
                ("mass", ["symmetric", (-4.0, 4.0), (-2.0, 6.0), (1.0, 5.0)]),
            )
            for rule in rules
        ),
    ],
)
def test_the_range_switch_gives_the_colors_of_the_scale(rule, statistic, open_page):
    captures = make_run(statistic=statistic)
    seen = open_page(captures, "#layer=1&head=1")
    if isinstance(rule, str):
        seen.page.check(f"[name=range][value={rule}]")
        shown = [captures[1]] if rule == "symmetric" else captures
        color_range = resolve_color_range(rule, shown)
    else:
        seen.page.check("[name=range][value=fixed]")
        for id, end in zip(("#low", "#high"), sorted(rule), strict=True):
            seen.page.fill(id, str(end))
        seen.page.keyboard.press("Enter")
        color_range = ColorRange(rule[0], rule[1], "fixed")
        seen.wait_for(f"location.hash.includes('low={rule[0]:g}&high={rule[1]:g}')")
    settle(seen)
    scale = ColorScale(color_range, palette_for(statistic, "rdbu"))
    values = captures[1].head_matrix(1)
    for query, key in np.argwhere(~np.isnan(values)).tolist():
        assert cell_color(seen, query, key) == rgb(scale, values[query, key])


def test_a_wrong_fixed_range_changes_nothing_and_is_said(run, open_page):
    seen = open_page(run, "#range=fixed&low=-4&high=4")
    color = cell_color(seen, 3, 1)
    seen.page.fill("#low", "9")
    seen.page.keyboard.press("Enter")
    wait_for_text(seen, "readout", "below the high end")
    assert seen.page.locator("#low").get_attribute("aria-invalid") == "true"
    assert cell_color(seen, 3, 1) == color
    assert "low=-4" in state_of(seen)["hash"]


def test_the_color_bar_says_where_values_saturate(run, open_page):
    seen = open_page(run, "#range=fixed&low=-2&high=50")
    texts = seen.page.locator("#map .role-legend-label text").all_text_contents()
    assert "≤\u2009−2" in texts
    assert "50" in texts
    assert not [text for text in texts if text.startswith("≥")]


@pytest.mark.parametrize(
    "scale",
    [1e-7, 0.43, *(pytest.param(s, marks=pytest.mark.nightly) for s in (0.02, 1.0, 37.0, 4e6))],
)
def test_labels_of_the_color_bar_are_the_values_at_their_places(scale, open_page):
    seen = open_page(make_run(1, statistic="mass"), f"#range=fixed&low=0&high={scale:g}")
    labels = seen.page.locator("#map .role-legend-label text").evaluate_all(
        "nodes => nodes.map(n => [n.textContent, n.getBoundingClientRect().y])"
    )
    values = [number(text.removeprefix("≥\u2009")) for text, _ in labels]
    assert 4 <= len(set(values)) == len(values) <= 11
    slope, start = np.polyfit([y for _, y in labels], values, 1)
    assert np.allclose(values, [start + slope * y for _, y in labels], atol=0.02 * scale)


# The address


def test_an_address_brings_back_what_was_shown(run, open_page, visit):
    seen = open_page(run)
    seen.page.mouse.click(*overview_cell(seen, 1, 1, 3, 2))
    wait_for_text(seen, "head-title", "Layer 1, head 1")
    settle(seen)
    seen.page.mouse.click(*cell_center(seen, 4, 0))
    wait_for_text(seen, "profile-title", "query frame 4")
    seen.page.check("[name=range][value=quantile]")
    seen.page.select_option("#statistic", "first")
    seen.wait_for("location.hash.includes('statistic=first')")
    expected = "#layer=1&head=1&query=4&range=quantile&statistic=first"
    assert state_of(seen)["hash"] == expected
    again = visit(seen.page.url)
    wait_until_drawn(again)
    mine, theirs = state_of(again), state_of(seen)
    assert {**mine, "readout": ""} == {**theirs, "readout": ""}
    assert cell_color(again, 3, 1) == cell_color(seen, 3, 1)


def test_many_keys_in_a_row_end_at_the_last_head(open_page):
    captures = make_run(12)
    seen = open_page(captures)
    seen.page.locator("#overview").focus()
    seen.page.evaluate(
        """() => { for (let n = 0; n < 9; n++) document.activeElement.dispatchEvent(
          new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true })) }"""
    )
    wait_for_text(seen, "head-title", "Layer 9, head 0")
    settle(seen)
    seen.page.mouse.move(*cell_center(seen, 5, 2))
    wait_for_text(seen, "readout", "Layer 9, head 0, query 5, key 2:")
    assert spoken_value(seen) == round_values(captures[9].full_frame_attention)[0, 5, 2]


def test_an_address_that_is_changed_by_hand_is_followed(run, open_page):
    seen = open_page(run)
    seen.page.evaluate("location.hash = '#layer=2&head=1&query=0'")
    wait_for_text(seen, "head-title", "Layer 2, head 1")
    wait_for_text(seen, "profile-title", "query frame 0")


def test_a_page_has_an_address_from_the_start(run, open_page):
    seen = open_page(run)
    assert state_of(seen)["hash"] == "#layer=0&head=0&range=symmetric&statistic=sink"


@pytest.mark.parametrize(
    "address",
    [
        "#layer=99&head=0",
        pytest.param("#layer=1&head=2", marks=pytest.mark.nightly),
        pytest.param("#layer=1&layer=2", marks=pytest.mark.nightly),
        pytest.param("#layer=1&nosuch=1", marks=pytest.mark.nightly),
        pytest.param("#layer=-1", marks=pytest.mark.nightly),
        pytest.param("#layer=1e0", marks=pytest.mark.nightly),
        pytest.param("#layer= 1", marks=pytest.mark.nightly),
        pytest.param("#layer=%31", marks=pytest.mark.nightly),
        pytest.param("#layer=1&head", marks=pytest.mark.nightly),
        pytest.param("#layer=1&head=0=0", marks=pytest.mark.nightly),
        pytest.param("#layer=1&query=77", marks=pytest.mark.nightly),
        pytest.param("#layer=1&range=javascript:canary=1", marks=pytest.mark.nightly),
        "#layer=1&statistic=__proto__",
        pytest.param("#layer=1&statistic=constructor", marks=pytest.mark.nightly),
        pytest.param("#layer=1&__proto__=1", marks=pytest.mark.nightly),
        pytest.param("#layer=1&constructor=1", marks=pytest.mark.nightly),
        pytest.param("#layer=1&low=1", marks=pytest.mark.nightly),
        pytest.param("#layer=1&low=2&high=1", marks=pytest.mark.nightly),
        "#layer=1&low=NaN&high=1",
        pytest.param("#layer=1&low=-1e999&high=1e999", marks=pytest.mark.nightly),
        pytest.param("#<img src=x onerror=canary=1>", marks=pytest.mark.nightly),
        "#layer=1&statistic=<img src=x onerror=canary=1>",
        pytest.param("#" + "layer=1&" * 5000, marks=pytest.mark.nightly),
    ],
)
def test_a_hostile_address_changes_nothing_and_runs_nothing(address, run, open_page):
    seen = open_page(run, address)
    state = state_of(seen)
    assert state["title"] == "Layer 0, head 0"
    assert state["statistic"] == "sink"
    assert state["range"] == "symmetric"
    assert not state["hash"].startswith("#layer=0")
    seen.assert_harmless()


# Odd captures


def test_a_missing_layer_is_blank_and_stepped_over(open_page):
    captures = [c for c in make_run(4) if c.layer_index != 2]
    with pytest.warns(headgrid.HeadgridWarning, match="layer 2 is missing"):
        seen = open_page(captures)
    assert "1 missing" in seen.page.locator("header").inner_text()
    seen.page.mouse.click(*overview_cell(seen, 2, 0, 4, 2))
    seen.page.locator("#overview").focus()
    for title in "Layer 1, head 0", "Layer 3, head 0":
        seen.page.keyboard.press("ArrowDown")
        wait_for_text(seen, "head-title", title)


def test_captures_without_a_full_matrix_have_profiles_only(open_page):
    rows = [waves(1, 2, 6)[0] * (layer + 1) for layer in range(2)]
    captures = [Capture.from_array(last_block=row, layer=n) for n, row in enumerate(rows)]
    seen = open_page(captures, "#layer=1&head=1")
    assert seen.page.locator("#map").is_hidden()
    assert len(boxes(seen, "profile", "headgrid_bars")) == 6
    data = seen.page.locator("#profile .headgrid_bars_marks path").evaluate_all(
        "nodes => nodes.map(n => n.__data__.datum.logit)"
    )
    assert data == round_values(rows[1][1]).tolist()
    seen.assert_harmless()


def test_one_layer_with_one_head_and_one_frame(open_page):
    seen = open_page(Capture.from_array([[[2.5]]], layer=7))
    assert state_of(seen)["title"] == "Layer 7, head 0"
    assert state_of(seen)["statistic"] != "sink"  # it has none
    seen.page.mouse.move(*cell_center(seen, 0, 0, 1))
    wait_for_text(seen, "readout", "Layer 7, head 0, query 0, key 0: 2.5 logits")
    for name in "Previous layer", "Next layer", "Previous head", "Next head":
        assert seen.page.get_by_role("button", name=name).is_disabled()
    seen.assert_harmless()


def test_heads_without_a_value_are_grey_and_can_be_looked_at(open_page):
    values = waves(3, 4, 4)
    values[1, 1:] = values[1, 0, 1:] = np.nan  # one pair, and none in the last block
    values[2, :, 0] = np.nan  # no sink score
    seen = open_page(Capture.from_array(values))
    seen.page.mouse.click(*overview_cell(seen, 0, 1, 1, 3))
    wait_for_text(seen, "head-title", "Layer 0, head 1")
    wait_for_text(seen, "readout", "no value")
    seen.wait_for("document.querySelectorAll('#map .headgrid_cells_marks path').length === 1")
    assert boxes(seen, "profile", "headgrid_bars") == []
    seen.page.mouse.click(*overview_cell(seen, 0, 2, 1, 3))
    seen.wait_for("document.querySelectorAll('#map .headgrid_cells_marks path').length === 12")
    assert seen.console == []


def test_the_mean_over_runs_is_shown_and_one_run_can_be_chosen(open_page, tmp_path):
    captures = [
        block_capture(2, (2, 2), scale=scale, run=name)
        for name, scale in (("run_0", 1.0), ("run_1", 3.0))
    ]
    expected = {None: 2.0, "run_1": 3.0}
    for run, scale in expected.items():
        seen = open_page(captures, options={"run": run})
        seen.page.mouse.move(*cell_center(seen, 3, 1, 4))
        wait_for_text(seen, "readout", "query 3, key 1:")
        value = block_capture(2, (2, 2), scale=scale).full_frame_attention[0, 3, 1]
        assert spoken_value(seen) == round_values(np.array([value]))[0]
        about = seen.page.locator("header").inner_text()
        assert ("mean over 2 runs" if run is None else "run_1") in about


def test_many_cells_are_drawn_as_pixels_and_read_out(open_page):
    values = waves(1, 100, 100)
    seen = open_page(Capture.from_array(values))
    box = seen.page.locator("#map canvas").bounding_box()
    seen.page.mouse.move(box["x"] + 200, box["y"] + 100)
    seen.wait_for("document.querySelector('#readout').textContent !== ''")
    found = re.search(r"query (\d+), key (\d+): (\S+)", state_of(seen)["readout"])
    query, key = int(found[1]), int(found[2])
    assert number(found[3]) == round_values(values)[0, query, key]
    seen.assert_harmless()


def test_too_many_frames_are_refused_with_a_way_out(tmp_path):
    wide = Capture.from_array(np.zeros((1, 4, 512), np.float16))
    with pytest.raises(CaptureError, match=f"512 frames .* at most {MAX_FRAMES} .*headgrid render"):
        explore(wide, tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_too_many_values_are_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("headgrid.web.explorer_page.MAX_VALUES", 71)
    with pytest.raises(CaptureError, match=r"144 visible .* at most 71 .* fewer layers"):
        explore(make_run(), tmp_path / "a.html")


def test_wrong_options_are_refused_with_the_choices(run, tmp_path):
    page = tmp_path / "a.html"
    for options, match in [
        ({"statistic": "sinks"}, "did you mean 'sink'"),
        ({"color_range": "shared"}, "expected one of symmetric, quantile, LO,HI"),
        ({"color_range": (3, 1)}, "with low below high|LO below HI"),
        ({"palette": "rd"}, "palette"),
        ({"run": "run_0"}, "none, as the captures are not in runs"),
        ({"set": "a"}, "set is 'a'"),
    ]:
        with pytest.raises(OptionError, match=match):
            explore(run, page, **options)
    with pytest.raises(CaptureError, match="entropy has no value in any head"):
        explore(run, page, statistic="entropy")
    with pytest.raises(OptionError, match="a survey was given"):
        explore(headgrid.survey(run), page, run="run_0")
    assert not page.exists()


# Safety


def test_hostile_texts_stay_texts(open_page):
    captures = [
        block_capture(2, (2, 2), layer=layer, prompt=HOSTILE, run=f"run_0{HOSTILE}")
        for layer in range(2)
    ]
    seen = open_page(captures, options={"title": HOSTILE})
    assert "</script><script>canary = 1</script>" in seen.page.locator("h1").inner_text()
    assert "onerror=canary=1" in seen.page.locator(".prompt").inner_text()
    assert seen.page.locator("img").count() == 0
    seen.page.mouse.move(*cell_center(seen, 3, 1, 4))
    seen.page.mouse.click(*overview_cell(seen, 1, 1, 2, 2))
    wait_for_text(seen, "head-title", "Layer 1, head 1")
    seen.assert_harmless()


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(run, open_page):
    seen = open_page(run)
    policy = seen.page.locator("meta[http-equiv]").get_attribute("content")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for name in "script-src", "style-src":
        assert all(source.startswith("'sha256-") for source in rules[name].split())
    seen.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'canary = 1';"
        "document.body.append(s); }"
    )
    assert seen.page.evaluate("window.canary") is None
    assert seen.page.evaluate("window.violations") == ["script-src-elem inline"]


def test_specifications_ask_for_nothing_that_the_policy_of_figures_forbids(run):
    spec = draw_live_map(run[0], palette_for("logit", "rdbu"), 324)
    assert "url" not in json.dumps(spec)
    assert spec["data"]["values"] == []


# Whoever looks, wherever


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1400, "dark"), pytest.param(1400, "light", marks=pytest.mark.nightly), (400, "light")],
)
def test_axe_finds_nothing_serious(width, scheme, run, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    seen = open_page(run, "#query=3", width=width, color_scheme=scheme, bypass_csp=True)
    found = axe.run(seen.page).response["violations"]
    assert [v for v in found if v["impact"] in ("serious", "critical", "moderate")] == []


def test_a_narrow_window_is_not_scrolled_sideways(open_page):
    seen = open_page(make_run(4, heads=12, blocks=(3,) * 7), width=400, height=800)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 400
    for chart in "overview", "map", "profile":
        inside = f"(n => n.scrollWidth <= n.clientWidth)(document.getElementById('{chart}'))"
        assert seen.page.evaluate(inside), chart
    tops = [seen.page.locator(f"#{c}").bounding_box()["y"] for c in ("overview", "map", "profile")]
    assert tops == sorted(tops)
    seen.page.mouse.click(*overview_cell(seen, 0, 11, 4, 12))
    wait_for_text(seen, "head-title", "Layer 0, head 11")


def test_the_page_is_dark_where_the_reader_wants_it_or_says_so(run, open_page):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#map .role-axis-label text')).fill"
    light = open_page(run, color_scheme="light")
    assert light.page.evaluate(ground) == "rgb(245, 246, 248)"
    assert light.page.evaluate(ink) == "rgb(0, 0, 0)"
    color = cell_color(light, 3, 1)
    light.page.get_by_role("button", name="Dark").click()
    dark = open_page(run, color_scheme="dark")
    for seen in light, dark:
        assert seen.page.evaluate(ground) == "rgb(16, 18, 21)"
        assert seen.page.evaluate(ink) == "rgb(227, 230, 234)"
        assert cell_color(seen, 3, 1) == color  # a value looks the same
        button = seen.page.get_by_role("button", name="Dark")
        assert button.get_attribute("aria-pressed") == "true"
    dark.page.get_by_role("button", name="Dark").click()
    assert dark.page.evaluate(ground) == "rgb(245, 246, 248)"


def test_a_printed_page_is_light_and_shows_its_figures(run, open_page):
    seen = open_page(run, color_scheme="dark")
    seen.page.get_by_role("button", name="Dark").click()
    seen.page.get_by_role("button", name="Dark").click()
    seen.page.emulate_media(media="print", color_scheme="dark")
    seen.page.set_viewport_size({"width": 700, "height": 1000})
    style = "getComputedStyle(document.documentElement).backgroundColor"
    assert seen.page.evaluate(style) == "rgb(255, 255, 255)"
    for chart in "overview", "map", "profile":
        box = seen.page.locator(f"#{chart} svg").bounding_box()
        assert box["x"] + box["width"] <= 700
    for id in "theme", "layer-on", "low", "map-help":
        assert seen.page.locator(f"#{id}").is_hidden()
    assert len(re.findall(rb"/Type\s*/Page\b", seen.page.pdf(format="A4"))) in (1, 2)


def test_what_is_shown_is_said_aloud(run, open_page):
    seen = open_page(run)
    assert seen.page.locator("#readout").get_attribute("aria-live") == "polite"
    tree = seen.page.locator("body").aria_snapshot()
    for part in (
        'link "Skip to the chosen head"',
        'combobox "Statistic"',
        'button "Next layer"',
        'radio "This layer"',
        'spinbutton "Low end of the fixed range"',
        'application "Overview of layers and heads"',
        'application "Map of query and key frames"',
    ):
        assert part in tree, tree
    assert len(tree.splitlines()) < 90  # labels, not cells


def test_focus_is_seen_and_the_first_stop_skips_the_overview(run, open_page):
    seen = open_page(run)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    seen.page.locator("#overview").focus()
    seen.page.keyboard.press("ArrowDown")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert seen.page.evaluate(outline) == "solid"


# The command


@pytest.fixture
def cli():
    """Return a function that runs the command in this process."""
    from headgrid.cli.main import main

    def run(*arguments):
        result = CliRunner().invoke(main, ["explore", *map(str, arguments)])
        assert "Traceback" not in result.output
        assert "internal error" not in result.output
        return result

    return run


@pytest.fixture
def folder(capture_file, tmp_path):
    """Return a folder of two runs of two layers."""
    for run in "run_0", "run_1":
        for layer in 0, 1:
            capture_file(f"in/{run}/layer{layer}.npz", scale=1.0 + int(run[-1]))
    return tmp_path / "in"


def test_the_command_writes_the_page_that_the_function_writes(cli, folder, tmp_path):
    result = cli(folder, "-o", tmp_path / "a.html", "--run", "run_1", "--statistic", "first")
    assert result.exit_code == 0
    assert result.output == f"{tmp_path / 'a.html'}\n"
    same = explore(folder, tmp_path / "b.html", run="run_1", statistic="first")
    assert (tmp_path / "a.html").read_bytes() == same.read_bytes()
    assert "run_1" in same.read_text("utf-8")


def test_an_unknown_run_is_refused_with_the_choices(cli, folder, tmp_path):
    result = cli(folder, "-o", tmp_path / "a.html", "--run", "run_7")
    assert result.exit_code == 2
    assert "run is 'run_7', expected one of run_0, run_1; did you mean 'run_" in result.output
    assert not (tmp_path / "a.html").exists()


def test_a_damaged_file_is_said_and_the_others_are_shown(cli, folder, tmp_path):
    (folder / "run_0" / "layer1.npz").write_bytes(b"nothing")
    result = cli(folder, "-o", tmp_path / "a.html")
    assert result.exit_code == 1
    assert "layer1.npz" in result.output
    assert (tmp_path / "a.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--statistic", "sinks"], "did you mean 'sink'"),
        (["--color-range", "3,1"], "LO below HI"),
        (["--color-range", "minmax"], "expected one of symmetric, quantile, LO,HI"),
        (["--jobs", "0"], "jobs is 0"),
        (["--set", "nosuch"], "set is 'nosuch'"),
    ],
)
def test_wrong_usage_ends_in_a_sentence(arguments, text, cli, folder, tmp_path):
    result = cli(folder, "-o", tmp_path / "a.html", *arguments)
    assert result.exit_code == 2
    assert text in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_the_page_has_to_be_html(cli, folder, tmp_path):
    result = cli(folder, "-o", tmp_path / "a.svg")
    assert result.exit_code == 2
    assert "suffix is '.svg', expected .html" in result.output


def test_of_a_folder_of_sets_one_has_to_be_named(cli, capture_file, tmp_path):
    for number, set in enumerate(("cats", "dogs")):
        capture_file(f"in/{set}/run_0/layer0.npz", scale=1.0 + number)
    page = tmp_path / "a.html"
    result = cli(tmp_path / "in", "-o", page)
    assert result.exit_code == 2
    assert "set is not given, expected one of cats, dogs" in result.output
    assert cli(tmp_path / "in", "-o", page, "--set", "dogs").exit_code == 0
    same = explore(tmp_path / "in", tmp_path / "b.html", set="dogs")
    assert page.read_bytes() == same.read_bytes()
    assert "dogs/run_0" in page.read_text("utf-8")


def test_one_of_several_sets_is_shown(cli, capture_file, tmp_path):
    for set in "cats", "dogs":
        capture_file(f"in/{set}/run_0/layer0.npz")
    folders = [tmp_path / "in" / set for set in ("cats", "dogs")]
    result = cli(*folders, "-o", tmp_path / "a.html")
    assert result.exit_code == 2
    assert "set is not given, expected one of cats, dogs" in result.output
    assert cli(*folders, "-o", tmp_path / "a.html", "--set", "dogs").exit_code == 0
    assert cli(*folders, "-o", tmp_path / "a.html", "--run", "cats/run_0").exit_code == 0
    assert "cats/run_0" in (tmp_path / "a.html").read_text("utf-8")


def test_longer_labels_of_the_color_bar_are_not_cut_when_the_range_changes(open_page):
    seen = open_page(make_run(3, heads=2, blocks=(3,) * 7), "#range=fixed&low=-9&high=9")
    inside = (
        "() => { const svg = document.querySelector('#map svg').getBoundingClientRect();"
        "return [...document.querySelectorAll('#map svg text')].every("
        "t => t.getBoundingClientRect().right <= svg.right + 1) }"
    )
    assert seen.page.evaluate(inside)
    for end, value in (("low", "-0.01234"), ("high", "0.01234")):
        seen.page.fill(f"#{end}", value)
        seen.page.keyboard.press("Enter")
    seen.page.locator("#map .role-legend-label text", has_text="0.01234").first.wait_for()
    for _ in range(50):
        if seen.page.evaluate(inside):
            break
        seen.page.wait_for_timeout(50)
    assert seen.page.evaluate(inside)
