"""The explorer's page as Chromium shows it, and what goes into it."""

import base64
import io
import json
import re
import shlex
import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headgrid
from browser import open_visits
from headgrid import Capture, CaptureError, OptionError, explore
from headgrid.charts.scales import ColorScale, palette_for
from headgrid.options import ColorRange
from headgrid.tables.measures import MEASURES, measure_table
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import round_values
from headgrid.web.explorer_page import pack_capture, pack_numbers
from headgrid.web.places import pool_capture
from synthetic import block_capture, waves

HOSTILE = (
    "</script><script>canary = 1</script><img src=x onerror=canary=1> ]]> {{7*7}} ${canary=1} "
    "javascript:canary=1 \u202e\u0000\ud800 <!-- &amp; \"'`"
)
START = "#layer=0&head=0&range=symmetric&statistic=sink"


def make_run(layers=3, heads=2, blocks=(2, 2, 2), **options):
    return [
        block_capture(heads, blocks, scale=3.0 ** (layer + 1), layer=layer, **options)
        for layer in range(layers)
    ]


def open_page(visit, captures, folder, address="#layer=0&head=0", *, options=None, **visiting):
    path = explore(captures, folder / "explorer.html", **(options or {}))
    seen = visit(f"{path.as_uri()}{address}", **visiting)
    wait_until_drawn(seen)
    return seen


def odd_capture():
    """Return hostile texts, a head with one value but none in its last block, and no sink score."""
    values = waves(3, 4, 4)
    values[1, 1:] = values[1, 0, 1:] = np.nan
    values[2, :, 0] = np.nan
    return [Capture.from_array(values, prompt=HOSTILE, run=f"run_0{HOSTILE}")]


CAPTURES = {"logit": make_run, "mass": lambda: make_run(statistic="mass"), "odd": odd_capture}


#: Measures of most pages, which are made in a quarter of the time that all take.
SOME = {name: MEASURES[name] for name in ("sink", "first", "entropy")}
PLACE = "headgrid.web.explorer_page.MEASURES"


@pytest.fixture(autouse=True)
def few_measures(monkeypatch):
    monkeypatch.setattr(PLACE, SOME)


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    """Return a function that opens one of a few pages, once for all tests of this file."""
    with open_visits(chromium) as visit:

        @cache
        def open_(name):
            captures, folder = CAPTURES[name](), tmp_path_factory.mktemp(name)
            options = {"title": HOSTILE if name == "odd" else None}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(PLACE, MEASURES if name == "logit" else SOME)
                seen = open_page(visit, captures, folder, options=options, offline=True)
            return SimpleNamespace(seen=seen, captures=captures, path=folder / "explorer.html")

        yield open_


@pytest.fixture
def shown(opened):
    """Return the page of three layers of two heads and six frames, as it is when it is opened."""
    return show(opened("logit").seen, START)


@pytest.fixture
def run(opened):
    return opened("logit").captures


def wait_until_drawn(seen):
    seen.wait_for("document.querySelector('main').dataset.state !== 'loading'")
    seen.wait_for("document.querySelector('main').dataset.state === 'drawn'")


def show(seen, address):
    seen.page.mouse.move(0, 0)
    seen.page.evaluate("() => document.activeElement.blur()")
    seen.page.evaluate("address => { location.hash = address }", address)
    seen.page.wait_for_timeout(50)
    settle(seen)
    return seen


def state_of(seen):
    return seen.page.evaluate(
        """() => ({
          title: document.querySelector("#head-title").textContent,
          readout: document.querySelector("#readout").textContent,
          overview: document.querySelector("#overview-readout").textContent,
          statistic: document.querySelector("#statistic").value,
          range: document.querySelector("[name=range]:checked")?.value,
          hash: location.hash,
        })"""
    )


def settle(seen):
    seen.wait_for("document.querySelector('main').dataset.shown === location.hash")


def wait_for_text(seen, id, text):
    seen.wait_for(f"document.getElementById({id!r}).textContent.includes({text!r})")


def boxes(seen, chart, mark):
    """Return left, top, width and height of the marks of a figure, in the order of the data."""
    return seen.page.locator(f"#{chart} .{mark}_marks path").evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.x, b.y, b.width, b.height])"
    )


def data_of(seen, chart, mark, fields):
    return seen.page.locator(f"#{chart} .{mark}_marks path").evaluate_all(
        f"nodes => nodes.map(n => n.__data__.datum).map(d => {json.dumps(fields)}.map(f => d[f]))"
    )


def cell_center(seen, query, key, frames=6):
    x, y, width, height = boxes(seen, "map", "headgrid_frame")[0]
    return x + width * (key + 0.5) / frames, y + height * (frames - query - 0.5) / frames


def cell_color(seen, query, key):
    at = list(cell_center(seen, query, key))
    return seen.page.evaluate("at => getComputedStyle(document.elementFromPoint(...at)).fill", at)


def rgb(scale, value):
    return f"rgb({', '.join(map(str, scale.rgb(round_values(np.array([value])))[0].tolist()))})"


def overview_cell(seen, layer, head, layers=3, heads=2):
    x, y, width, height = seen.page.locator("#overview .cell .background").first.evaluate(
        "n => { const b = n.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }"
    )
    return x + width * (head + 0.5) / (heads + 1), y + height * (layer + 0.5) / (layers + 1)


def number(text):
    return float(text.replace("−", "-"))


def spoken_value(seen):
    return number(re.search(r": (\S+)( \D+)?$", state_of(seen)["readout"])[1])


def unpack_numbers(planes):
    planes = np.frombuffer(planes, dtype=np.uint8).reshape(4, -1)
    whole, exponents = (
        np.ascontiguousarray(planes[start : start + 2].T).view("<i2").ravel() for start in (0, 2)
    )
    pairs = zip(whole.tolist(), exponents.tolist(), strict=True)
    return np.array([np.nan if n == -32768 else float(f"{n}e{power}") for n, power in pairs])


def unpack(path, name):
    packed = re.search(rf'id="{name}">([^<]*)<', path.read_text("utf-8"))[1]
    return zlib.decompress(base64.b64decode(packed))


def page_of(path):
    return json.loads(unpack(path, "page"))


def last_rows(path, heads, keys, pairs, view=0):
    numbers = unpack(path, f"layer-{view}-0")[-(-pairs // 8) :]
    return unpack_numbers(numbers)[: heads * keys].reshape(heads, keys)


def test_numbers_come_back_as_they_were_rounded():
    generator = np.random.default_rng(0)
    values = generator.normal(size=3000) * 10.0 ** generator.integers(-300, 300, size=3000)
    edges = [0.0, -0.0, np.nan, 9.9995, -99995, 1e-5, 1e22, 1e23, 1e300, -1e-289, 1e-291]
    values = np.concatenate([values, edges])
    assert np.array_equal(
        unpack_numbers(pack_numbers(values)), round_values(values), equal_nan=True
    )


def test_every_value_of_the_page_is_that_of_its_capture(visit, tmp_path):
    magnitudes = 10.0 ** np.array([-31, -23, -6, 0, 5, 24])[:, None, None]
    queries = [0, 2, 4, 5, 9]
    capture = Capture.from_array(waves(6, 5, 7) * magnitudes, query_frames=queries)
    seen = open_page(visit, capture, tmp_path)
    for head in (1, 2, 3, 4, 5, 0):
        seen.page.select_option("#head-number", str(head))
        settle(seen)
        expected = round_values(capture.full_frame_attention[head])
        data = data_of(seen, "map", "headgrid_cells", ["query", "key", "logit"])
        assert len(data) == 35
        assert all(value == expected[queries.index(query), key] for query, key, value in data)


@pytest.mark.parametrize(("blocks", "visible"), [([1] * 40, 40 * 41 // 2), ([40], 40 * 40)])
def test_the_page_holds_visible_pairs_only(blocks, visible):
    values = np.random.default_rng(0).normal(size=(4, 40, 40))
    packed = pack_capture(Capture.from_array(values, block_sizes=blocks))
    assert len(packed) == 200 + 4 * 4 * (40 + visible)


def test_a_survey_and_its_captures_give_the_same_bytes(run, tmp_path):
    page = explore(run, tmp_path / "a.html").read_bytes()
    assert page == explore(headgrid.survey(run), tmp_path / "b.html").read_bytes()
    assert str(tmp_path).encode() not in page


def test_the_page_works_from_disk_and_asks_for_nothing(shown):
    policy = shown.page.locator("meta[http-equiv]").get_attribute("content")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    sources = f"{rules['script-src']} {rules['style-src']}".split()
    assert all(source.startswith("'sha256-") for source in sources)
    assert state_of(shown)["title"] == "Layer 0, head 0"
    assert len(boxes(shown, "map", "headgrid_cells")) == 24
    assert len(boxes(shown, "profile", "headgrid_bars")) == 6
    shown.assert_harmless()


def test_what_is_shown_is_said_aloud(shown):
    assert shown.page.locator("#readout").get_attribute("aria-live") == "polite"
    tree = shown.page.locator("body").aria_snapshot()
    names = "Statistic", "Next layer", "This layer", "Low end of the fixed range"
    roles = "combobox", "button", "radio", "spinbutton"
    parts = [f'{role} "{name}"' for role, name in zip(roles, names, strict=True)]
    parts += ['application "Overview of layers and heads"', 'link "Skip to the chosen head"']
    assert all(part in tree for part in parts), tree
    assert len(tree.splitlines()) < 150  # labels and statistics, not cells


def test_a_click_on_the_overview_shows_that_head(shown, run):
    shown.page.mouse.click(*overview_cell(shown, 2, 1))
    wait_for_text(shown, "head-title", "Layer 2, head 1")
    settle(shown)
    expected = round_values(run[2].full_frame_attention[1])
    for query, key in (0, 0), (3, 2), (5, 5):
        shown.page.mouse.move(*cell_center(shown, query, key))
        wait_for_text(shown, "readout", f"Layer 2, head 1, query {query}, key {key}:")
        assert spoken_value(shown) == expected[query, key]
    tooltip = shown.hover(*cell_center(shown, 3, 1))
    assert [tooltip[name] for name in ["layer", "head", "query", "key"]] == ["2", "1", "3", "1"]
    assert number(tooltip["logit"]) == spoken_value(shown) == expected[3, 1]


def test_no_value_of_another_layer_is_told_while_a_layer_is_read(shown):
    shown.page.mouse.move(*cell_center(shown, 3, 1))
    wait_for_text(shown, "readout", "Layer 0, head 0, query 3, key 1:")
    shown.page.evaluate(
        """([clientX, clientY]) => {
          const [layer, map] = ["layer", "map"].map((id) => document.getElementById(id));
          layer.value = 2;
          layer.dispatchEvent(new Event("change"));
          map.dispatchEvent(new MouseEvent("mousemove", { clientX, clientY }));
        }""",
        [*cell_center(shown, 2, 1)],
    )
    assert state_of(shown)["readout"].startswith("Layer 0, head 0, query 3, key 1:")


def test_the_overview_shows_every_measure_of_every_head(shown, run):
    table = measure_table(run)
    names = [name for name in MEASURES if table[name].notna().any()]
    offered = shown.page.locator("#statistic option").evaluate_all("o => o.map(n => n.value)")
    assert offered == names
    assert "entropy" not in offered
    for name in ("sink", "period", "positive_share"):
        shown.page.select_option("#statistic", name)
        settle(shown)
        for row in table.itertuples():
            expected = round_values(np.array([getattr(row, name)]))[0]
            shown.page.mouse.move(*overview_cell(shown, row.layer, row.head))
            wait_for_text(shown, "overview-readout", f"Layer {row.layer}, head {row.head}:")
            said = state_of(shown)["overview"].rpartition(" ")[2]
            assert (said == "value") if np.isnan(expected) else (number(said) == expected)


def test_a_click_on_a_row_shows_its_profile_and_there_is_a_way_back(shown, run):
    last = boxes(shown, "profile", "headgrid_bars")
    shown.page.mouse.click(*cell_center(shown, 2, 1))
    wait_for_text(shown, "profile-title", "Profile of query frame 2")
    shown.wait_for("document.querySelectorAll('#profile .headgrid_bars_marks path').length === 4")
    data = data_of(shown, "profile", "headgrid_bars", ["logit"])
    assert [value for (value,) in data] == round_values(
        run[0].full_frame_attention[0, 2, :4]
    ).tolist()
    assert "query=2" in state_of(shown)["hash"]
    shown.page.get_by_role("button", name="Back to the last block").click()
    wait_for_text(shown, "profile-title", "last block (frames 4, 5)")
    shown.wait_for("document.querySelectorAll('#profile .headgrid_bars_marks path').length === 6")
    assert boxes(shown, "profile", "headgrid_bars") == last
    assert shown.page.locator("#to-last").is_hidden()
    for key, (left, _, width, _) in enumerate(last):  # under the cells of their keys
        assert left + width / 2 == pytest.approx(cell_center(shown, 0, key)[0], abs=1.5)


def test_the_page_opens_on_the_most_telling_head_and_lists_all_by_the_measure(opened, visit):
    captures, path = opened("logit").captures, opened("logit").path
    table = measure_table(captures).set_index(["layer", "head"])
    seen = visit(path)
    wait_until_drawn(seen)
    for statistic in "sink", "last":
        seen.page.select_option("#statistic", statistic)
        settle(seen)
        values = table[statistic]
        keys = {"size": -values.abs(), "high": -values, "low": values}
        for order, key in keys.items():
            seen.page.select_option("#order", order)
            settle(seen)
            lines = seen.page.locator("#ranking option").all_text_contents()
            found = [line.replace("\u00a0", " ").replace("\u2212", "-").split() for line in lines]
            ranked = key.sort_values(kind="stable").index
            assert [(f"L{n}", f"H{h}") for n, h in ranked] == [(n, h) for n, h, _ in found]
            assert [float(value) for *_, value in found] == round_values(values[ranked]).tolist()
        if statistic == "sink":
            layer, head = map(int, values.abs().idxmax())
            assert state_of(seen)["title"] == f"Layer {layer}, head {head}"
            assert (layer, head) != (0, 0)
    seen.page.select_option("#ranking", "1:0")
    wait_for_text(seen, "head-title", "Layer 1, head 0")
    wait_for_text(seen, "overview-readout", "Layer 1, head 0: Last Key")
    rows = seen.page.locator("#statistics tbody tr").evaluate_all(
        "rows => rows.map(row => row.cells[1].textContent)"
    )
    own = round_values(table.loc[1, 0][list(MEASURES)].to_numpy(float)).tolist()
    told = [number(text) for text in rows if text != "no value"]
    assert told == [value for value in own if not np.isnan(value)]


def test_back_and_forward_walk_through_what_was_looked_at(shown):
    shown.page.mouse.click(*overview_cell(shown, 1, 1))
    settle(shown)
    shown.page.check("[name=range][value=head]")
    shown.page.mouse.click(*cell_center(shown, 3, 1))
    settle(shown)
    shown.page.locator("#overview").focus()
    for _ in range(3):  # a key that is held down is one step
        shown.page.keyboard.down("ArrowDown")
        shown.page.keyboard.down("ArrowLeft")
    shown.page.keyboard.up("ArrowLeft")
    settle(shown)
    steps = [
        ("Layer 1, head 1", "symmetric", "last block"),
        ("Layer 1, head 1", "head", "last block"),
        ("Layer 1, head 1", "head", "query frame 3"),
        ("Layer 2, head 1", "head", "query frame 3"),
        ("Layer 2, head 0", "head", "query frame 3"),
    ]
    for go, walk in ("go_back", steps[-2::-1]), ("go_forward", steps[1:]):
        for title, rule, profile in walk:
            getattr(shown.page, go)()
            wait_for_text(shown, "head-title", title)
            wait_for_text(shown, "profile-title", profile)
            settle(shown)
            assert state_of(shown)["range"] == rule


def test_the_ring_around_a_row_covers_none_of_its_cells(visit, tmp_path):
    capture = Capture.from_array(waves(1, 60, 60), block_sizes=[1] * 60)
    seen = open_page(visit, capture, tmp_path, width=400)

    def row(query):
        x, y, width, height = boxes(seen, "map", "headgrid_frame")[0]
        clip = {"x": x + 1, "y": y + (59 - query) * height / 60, "width": width * 40 / 60 - 2}
        clip["height"] = height / 60
        with Image.open(io.BytesIO(seen.page.screenshot(clip=clip, full_page=True))) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    before = row(40)
    show(seen, "#layer=0&head=0&query=40")
    assert np.abs(row(40) - before).max() < 3
    assert np.abs(row(41) - before).max() > 60  # it is seen beside


def test_nothing_of_an_overview_is_cut_and_the_map_takes_what_room_there_is(visit, tmp_path):
    captures = [block_capture(12, scale=40.0, layer=layer) for layer in range(2)]
    seen = open_page(visit, captures, tmp_path)
    sizes = []
    for width, height in (1900, 1100), (1400, 900), (1280, 900), (1270, 900), (800, 900):
        seen.page.set_viewport_size({"width": width, "height": height})
        seen.page.wait_for_timeout(300)
        sizes.append(boxes(seen, "map", "headgrid_frame")[0][2])
        for statistic in ("sink", "first"):
            seen.page.select_option("#statistic", statistic)
            settle(seen)
            inside = "(n => n.scrollWidth <= n.clientWidth)(document.getElementById('overview'))"
            assert seen.page.evaluate(inside), (width, statistic)
    assert sizes[0] > 1.3 * sizes[1] > 1.3 * 250


def test_the_chosen_cell_of_a_wide_overview_is_in_sight(visit, tmp_path):
    rows = np.random.default_rng(0).normal(size=(400, 4))
    seen = open_page(visit, Capture.from_array(last_block=rows), tmp_path, "#head=390", width=700)
    node, last = seen.page.locator("#overview"), ".role-mark path >> nth=-1"
    for head in (None, 3, 399):
        if head is not None:
            seen.page.select_option("#ranking", f"0:{head}")
            settle(seen)
        room, ring = node.bounding_box(), node.locator(last).bounding_box()
        assert room["x"] <= ring["x"] < ring["x"] + ring["width"] <= room["x"] + room["width"]
        assert node.evaluate("n => n.scrollWidth > 2 * n.clientWidth")


def take(seen, what):
    with seen.page.expect_download() as download:
        seen.page.click(f"#take-{what}")
    return download.value.suggested_filename, Path(download.value.path())


def test_the_figure_and_its_values_are_taken_out(opened, visit, tmp_path):
    seen, captures = opened("logit").seen, opened("logit").captures
    show(seen, "#layer=1&head=1&query=3&range=head&statistic=sink")
    name, file = take(seen, "figure")
    assert name == "layer1_head1.svg"
    svg = ElementTree.fromstring(file.read_bytes())
    assert not re.search(rb"currentColor|file:|class=.skip|aria-", file.read_bytes())
    texts = [node.text or "" for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    low, high = captures[1].head_range(1)
    end = f"{max(-low, high):.4g}"
    assert texts[0] == "Layer 1, Head 1"
    (cells,) = [node for node in svg.iter() if "headgrid_cells_marks" in node.get("class", "")]
    assert (len(cells), cells.get("shape-rendering")) == (24, "crispEdges")
    assert {"Query Frame", "Attention Logits", "Profile of query frame 3"} <= set(texts)
    caption = svg.find("{http://www.w3.org/2000/svg}desc").text
    assert caption in " ".join(texts)
    assert f"Color range \u2212{end} to {end} (this head)" in caption
    drawn = visit(file.rename(tmp_path / name), offline=True)
    size = drawn.page.evaluate("[document.documentElement.getBBox(), innerWidth].map(b => b.width)")
    assert size[0] == float(svg.get("width"))
    widths = drawn.page.locator("svg > text").evaluate_all(
        "nodes => nodes.map(n => (n.style.fontFamily = 'DejaVu Sans', n.getBBox().width))"
    )
    assert max(widths) <= size[0] - 16  # where there is no Arial
    _, file = take(seen, "map")
    table = pd.read_csv(file)
    expected = round_values(captures[1].full_frame_attention[1])
    assert list(table) == ["layer", "head", "query", "key", "logit"]
    assert len(table) == 24
    assert (table["logit"] == expected[table["query"], table["key"]]).all()
    _, file = take(seen, "profile")
    assert pd.read_csv(file)["logit"].dropna().tolist() == expected[3, :4].tolist()
    show(seen, "#layer=1&head=1")
    _, file = take(seen, "profile")
    last = pd.read_csv(file)
    assert set(last["query"]) == {"last block"}
    assert last["logit"].tolist() == round_values(captures[1].last_block_rows[1]).tolist()
    assert seen.page.locator("#command").inner_text() == ""  # there are no files


def test_hostile_texts_are_taken_out_as_texts(opened, visit, tmp_path):
    seen = show(opened("odd").seen, START)
    name, file = take(seen, "figure")
    assert re.fullmatch(r"[A-Za-z0-9_]+\.svg", name)
    drawn = visit(file.rename(tmp_path / name), offline=True)
    text = drawn.page.locator("svg").text_content()
    assert "</script><script>canary = 1</script>" in text
    assert drawn.page.locator("script, img").count() == 0
    drawn.assert_harmless()
    _, file = take(seen, "map")
    assert pd.read_csv(file)["run"].str.contains("onerror=canary=1").all()


def test_layer_and_head_are_reached_with_the_keyboard(shown):
    shown.page.locator("#overview").focus()
    keys = "ArrowDown", "ArrowRight", "ArrowRight", "PageDown", "Home", "ArrowUp", "End"
    places = (1, 0), (1, 1), (1, 1), (2, 1), (2, 0), (1, 0), (1, 1)
    for key, (layer, head) in zip(keys, places, strict=True):
        shown.page.keyboard.press(key)
        wait_for_text(shown, "head-title", f"Layer {layer}, head {head}")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.page.evaluate(outline) == "solid"
    shown.page.get_by_role("button", name="Next layer").press("Enter")
    wait_for_text(shown, "head-title", "Layer 2, head 1")
    assert shown.page.get_by_role("button", name="Next layer").is_disabled()
    shown.page.get_by_role("button", name="Previous head").press("Space")
    wait_for_text(shown, "head-title", "Layer 2, head 0")
    assert "Layer 2, head 0: Sink Score" in state_of(shown)["overview"]


def test_the_map_is_read_with_the_keyboard(shown, run):
    shown.page.locator("#map").focus()
    expected = round_values(run[0].full_frame_attention[0])
    places = {"Up": (5, 0), "Right": (5, 1), "Down": (4, 1), "Left": (4, 0)}
    for key, (query, at) in [*places.items(), ("Left", (4, 0))]:
        shown.page.keyboard.press(f"Arrow{key}")
        wait_for_text(shown, "readout", f"query {query}, key {at}:")
        assert spoken_value(shown) == expected[query, at]
    for key, profile in {"Enter": "query frame 4", "Escape": "last block"}.items():
        shown.page.keyboard.press(key)
        wait_for_text(shown, "profile-title", profile)


@pytest.mark.parametrize("statistic", ["logit", "mass"])
@pytest.mark.parametrize(
    "rule", ["symmetric", "head", "shared", "quantile", (-2.0, 6.0), (1.0, 5.0)]
)
def test_the_range_switch_gives_the_colors_of_the_scale(rule, statistic, opened):
    captures = opened(statistic).captures
    seen = show(opened(statistic).seen, "#layer=1&head=1&range=symmetric&statistic=sink")
    if isinstance(rule, str):
        seen.page.check("[name=range][value=quantile]")
        seen.page.check(f"[name=range][value={rule}]")
        if rule == "head":
            low, high = captures[1].head_range(1)
            color_range = ColorRange.around_zero(low, high, statistic == "logit", rule)
        else:
            whose = [captures[1]] if rule == "symmetric" else captures
            color_range = resolve_color_range(rule, whose)
    else:
        seen.page.check("[name=range][value=fixed]")
        for id, end in zip(("#low", "#high"), rule, strict=True):
            seen.page.fill(id, str(end))
        seen.page.keyboard.press("Enter")
        color_range = ColorRange(rule[0], rule[1], "fixed")
        seen.wait_for(f"location.hash.includes('low={rule[0]:g}&high={rule[1]:g}')")
    settle(seen)
    scale = ColorScale(color_range, palette_for(statistic, "rdbu"))
    values = captures[1].head_matrix(1)
    for query, key in np.argwhere(~np.isnan(values)).tolist():
        assert cell_color(seen, query, key) == rgb(scale, values[query, key])


def test_a_fixed_range_is_checked_and_the_bar_says_where_values_saturate(shown):
    show(shown, "#range=fixed&low=-2&high=50")
    texts = shown.page.locator("#map .role-legend-label text").all_text_contents()
    assert {"≤\u2009−2", "50"} <= set(texts)
    assert not [text for text in texts if text.startswith("≥")]
    color = cell_color(shown, 3, 1)
    shown.page.fill("#low", "90")
    shown.page.keyboard.press("Enter")
    wait_for_text(shown, "range-error", "below the high end")
    assert shown.page.locator("#low").get_attribute("aria-invalid") == "true"
    assert cell_color(shown, 3, 1) == color
    assert "low=-2" in state_of(shown)["hash"]
    for end in "-0.30000000000000004", "-2":  # as many digits as a number has
        shown.page.fill("#low", end)
        shown.page.keyboard.press("Enter")
        settle(shown)
    shown.page.go_back()
    shown.wait_for("document.getElementById('low').value === '-0.30000000000000004'")
    show(shown, "#range=fixed&low=-2&high=50")
    write = lambda: shown.page.fill("#low", "-3")  # noqa: E731
    for text, mend in ("91", write), ("92", lambda: shown.page.check("[value=head]")):
        shown.page.fill("#low", text)
        shown.page.keyboard.press("Enter")
        wait_for_text(shown, "range-error", "below the high end")
        mend()  # the error goes while it is being mended, and with another range
        settle(shown)
        assert shown.page.locator("#range-error").inner_text() == ""
        assert shown.page.locator("#low").get_attribute("aria-invalid") == "false"


def test_labels_of_the_color_bar_are_the_values_at_their_places(opened):
    for scale in 1e-7, 0.02, 0.43, 1.0, 37.0, 4e6:
        seen = show(opened("mass").seen, f"#range=fixed&low=0&high={scale:g}")
        labels = seen.page.locator("#map .role-legend-label text").evaluate_all(
            "nodes => nodes.map(n => [n.textContent, n.getBoundingClientRect().y])"
        )
        values = [number(text.removeprefix("≥\u2009")) for text, _ in labels]
        assert 4 <= len(set(values)) == len(values) <= 11
        slope, start = np.polyfit([y for _, y in labels], values, 1)
        assert np.allclose(values, [start + slope * y for _, y in labels], atol=0.02 * scale)


def test_longer_labels_of_the_color_bar_are_not_cut_when_the_range_changes(shown):
    show(shown, "#range=fixed&low=-9&high=9")
    rights = "[...document.querySelectorAll('#map svg text')].map(right)"
    right = "const right = (n) => n.getBoundingClientRect().right; "
    inside = f"(() => {{ {right} const [svg] = document.querySelectorAll('#map svg'); "
    inside += f"return Math.max(...{rights}) <= right(svg) + 1 }})()"
    for end, value in (("low", "-0.01234"), ("high", "0.01234")):
        assert shown.page.evaluate(inside)
        shown.page.fill(f"#{end}", value)
        shown.page.keyboard.press("Enter")
    shown.page.locator("#map .role-legend-label text", has_text="0.01234").first.wait_for()
    shown.wait_for(inside)


def test_an_address_brings_back_what_was_shown(shown, visit):
    shown.page.mouse.click(*overview_cell(shown, 1, 1))
    wait_for_text(shown, "head-title", "Layer 1, head 1")
    settle(shown)
    shown.page.mouse.click(*cell_center(shown, 4, 0))
    wait_for_text(shown, "profile-title", "query frame 4")
    shown.page.check("[name=range][value=quantile]")
    shown.page.select_option("#statistic", "first")
    shown.wait_for("location.hash.includes('statistic=first')")
    expected = "#layer=1&head=1&query=4&range=quantile&statistic=first"
    assert state_of(shown)["hash"] == expected
    again = visit(shown.page.url)
    wait_until_drawn(again)
    mine, theirs = state_of(again), state_of(shown)
    assert {**mine, "readout": ""} == {**theirs, "readout": ""}
    assert cell_color(again, 3, 1) == cell_color(shown, 3, 1)


WRONG = [
    "#layer=1&statistic=<img src=x onerror=canary=1>",
    *("#layer=99&head=0", "#layer=1&head=2", "#layer=1&layer=2", "#layer=1&nosuch=1", "#layer=-1"),
    *("#layer=1&order=constructor", "#layer=1&role=sink", "#layer=1&role=-"),
    *("#layer=1e0", "#layer= 1", "#layer=%31", "#layer=1&head", "#layer=1&head=0=0"),
    *("#layer=1&query=77", "#layer=1&range=javascript:canary=1", "#layer=1&statistic=__proto__"),
    *("#layer=1&statistic=constructor", "#layer=1&__proto__=1", "#layer=1&constructor=1"),
    *("#run=run_0", "#run=", "#layer=1&low=1", "#layer=1&low=2&high=1", "#layer=1&low=NaN&high=1"),
    *("#layer=1&low=-1e999&high=1e999", "#<img src=x onerror=canary=1>", "#" + "layer=1&" * 5000),
]


def test_a_hostile_address_changes_nothing_and_runs_nothing(opened, visit):
    """The first is what a page is opened with; the others are written while it is open."""
    sinks = measure_table(opened("logit").captures).set_index(["layer", "head"])["sink"]
    layer, head = map(int, sinks.abs().idxmax())
    seen = visit(opened("logit").path.as_uri() + WRONG[0])
    wait_until_drawn(seen)
    for address in WRONG:
        seen.page.evaluate("address => { location.hash = address }", address)
        seen.page.wait_for_timeout(20)
        state = state_of(seen)
        assert state["title"] == f"Layer {layer}, head {head}"
        assert state["statistic"] == "sink"
        assert state["range"] == "symmetric"
        assert not state["hash"].startswith(f"#layer={layer}&head={head}&range=")
    seen.assert_harmless()


def test_in_a_narrow_window_nothing_is_cut_and_a_missing_layer_is_stepped_over(visit, tmp_path):
    captures = [c for c in make_run(4, heads=12) if c.layer_index != 2]
    with pytest.warns(headgrid.HeadgridWarning, match="layer 2 is missing"):
        seen = open_page(visit, captures, tmp_path, width=400, height=800)
    assert "1 missing" in seen.page.locator("header").inner_text()
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 400
    for chart in "overview", "map", "profile":
        inside = f"(n => n.scrollWidth <= n.clientWidth)(document.getElementById('{chart}'))"
        assert seen.page.evaluate(inside), chart
    tops = [seen.page.locator(f"#{c}").bounding_box()["y"] for c in ("overview", "map", "profile")]
    assert tops == sorted(tops)
    seen.page.mouse.click(*overview_cell(seen, 0, 11, 4, 12))
    wait_for_text(seen, "head-title", "Layer 0, head 11")
    seen.page.mouse.click(*overview_cell(seen, 2, 0, 4, 12))
    seen.page.locator("#overview").focus()
    for title in "Layer 1, head 11", "Layer 3, head 11":
        seen.page.keyboard.press("ArrowDown")
        wait_for_text(seen, "head-title", title)


def test_captures_without_a_full_matrix_have_profiles_only(visit, tmp_path):
    rows = [waves(1, 2, 6)[0] * (layer + 1) for layer in range(2)]
    captures = [Capture.from_array(last_block=row, layer=n) for n, row in enumerate(rows)]
    seen = open_page(visit, captures, tmp_path, "#layer=1&head=1")
    assert seen.page.locator("#map").is_hidden()
    data = data_of(seen, "profile", "headgrid_bars", ["logit"])
    assert [value for (value,) in data] == round_values(rows[1][1]).tolist()
    seen.assert_harmless()


def test_one_layer_with_one_head_and_one_frame(visit, tmp_path):
    seen = open_page(visit, Capture.from_array([[[2.5]]], layer=7), tmp_path, "#layer=7")
    assert state_of(seen)["title"] == "Layer 7, head 0"
    assert state_of(seen)["statistic"] != "sink"  # it has none
    seen.page.mouse.move(*cell_center(seen, 0, 0, 1))
    wait_for_text(seen, "readout", "Layer 7, head 0, query 0, key 0: 2.5 logits")
    for name in "Previous layer", "Next layer", "Previous head", "Next head":
        assert seen.page.get_by_role("button", name=name).is_disabled()
    seen.assert_harmless()
    assert seen.page.locator("#list-title").inner_text().startswith("1 head by ")


def test_hostile_texts_stay_texts_and_heads_without_a_value_can_be_looked_at(opened):
    seen = show(opened("odd").seen, START)
    assert "</script><script>canary = 1</script>" in seen.page.locator("h1").inner_text()
    assert "onerror=canary=1" in seen.page.locator(".prompt").inner_text()
    assert seen.page.locator("img").count() == 0
    seen.page.mouse.click(*overview_cell(seen, 0, 1, 1, 3))
    wait_for_text(seen, "head-title", "Layer 0, head 1")
    wait_for_text(seen, "overview-readout", "no value")
    seen.wait_for("document.querySelectorAll('#map .headgrid_cells_marks path').length === 1")
    assert boxes(seen, "profile", "headgrid_bars") == []
    seen.page.mouse.click(*overview_cell(seen, 0, 2, 1, 3))
    seen.wait_for("document.querySelectorAll('#map .headgrid_cells_marks path').length === 12")
    seen.assert_harmless()


def image_pixels(seen):
    """Return what the map's image holds, query 0 first, [query, key, red green blue alpha]."""
    link = seen.page.locator("#map image").evaluate("n => n.href.baseVal")
    with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))[::-1]


def image_center(seen, query, key, queries, keys):
    box = seen.page.locator("#map image").bounding_box()
    across, up = box["width"] * (key + 0.5) / keys, box["height"] * (query + 0.5) / queries
    return box["x"] + across, box["y"] + box["height"] - up


@pytest.mark.parametrize("statistic", ["logit", "mass"])
def test_a_map_of_many_cells_is_an_image_in_the_colors_of_the_scale(statistic, visit, tmp_path):
    """Frames 30 to 39 are left out of the axes, and some pairs were not recorded."""
    values = waves(2, 80, 80, mass=statistic == "mass")
    values[0, 3:9, 70:] = np.nan
    frames = [*range(30), *range(40, 90)]
    given = {"query_frames": frames, "key_frames": frames, "statistic": statistic}
    capture = Capture.from_array(values, **given)
    seen = open_page(visit, capture, tmp_path)
    places = [place + (place >= 30) for place in range(80)]  # the gap has a place
    for low, high in (0.1, 0.6), (-0.4, 0.2), (-2.0, -0.5), (None, None):
        fixed = f"range=fixed&low={low}&high={high}" if low else "range=symmetric"
        show(seen, f"#layer=0&head=0&{fixed}&statistic=first")
        rule = "symmetric" if low is None or high is None else (low, high)
        chosen = resolve_color_range(rule, [capture])
        pixels, scale = image_pixels(seen), ColorScale(chosen, palette_for(statistic, "rdbu"))
        assert pixels.shape == (81, 81, 4)
        pixels = pixels[np.ix_(places, places)]
        known = ~np.isnan(values[0])
        assert (pixels[..., 3] == 255 * known).all()
        assert (pixels[known][:, :3] == scale.rgb(round_values(values[0][known]))).all()
    seen.page.mouse.move(*image_center(seen, 50, 31, 81, 81))
    wait_for_text(seen, "readout", "query 59, key 40: ")
    assert spoken_value(seen) == round_values(values)[0, 49, 30]
    tooltip = seen.hover(*image_center(seen, 50, 30.8, 81, 81))
    assert [tooltip["query"], tooltip["key"]] == ["59", "40"]
    assert number(tooltip[statistic]) == spoken_value(seen)
    svg = ElementTree.fromstring(take(seen, "figure")[1].read_bytes())
    (image,) = svg.iter("{http://www.w3.org/2000/svg}image")
    assert image.attrib["href"] == seen.page.locator("#map image").evaluate("n => n.href.baseVal")
    for place in (5, 75), (50, 30), (30, 50), (-2, 50), (50, -2):  # unseen, in a gap, beside
        assert seen.hover(*image_center(seen, *place, 81, 81)) is None
    seen.page.mouse.click(*image_center(seen, 50, 31, 81, 81))
    wait_for_text(seen, "profile-title", "Profile of query frame 59")
    seen.assert_harmless()


ARABIC = "\u0642\u0637\u0629"
WORDS = [
    *("The", "cat", HOSTILE.replace("\ud800", ""), "", " sat", "sat", "sat", ARABIC),
    *("\U0001f600", "\u202bturned", "a\u2028b", 50 * "long"),
]


def test_words_stand_in_the_readout_the_tooltip_and_the_titles(visit, tmp_path):
    values = waves(1, 12, 12)
    capture = Capture.from_array(values, causal=True, labels=WORDS)
    seen = open_page(visit, capture, tmp_path, width=500, height=1300)
    assert "12 query x 12 key tokens" in seen.page.locator("header").inner_text()
    assert "frame" not in seen.page.locator("body").aria_snapshot().lower()
    assert seen.page.get_by_role("application", name="Map of query and key tokens").count() == 1
    texts = seen.page.locator("#profile .role-axis-label text").all_text_contents()
    assert {"The", "cat", '""', "\u2423sat", "sat"} <= set(texts)
    seen.page.mouse.move(*cell_center(seen, 5, 1, 12))
    wait_for_text(seen, "readout", "query token 5 'sat', key token 1 'cat': ")
    assert spoken_value(seen) == round_values(values)[0, 5, 1]
    for key, label in (2, "</script><script>canary = 1</script>"), (11, 50 * "long"):
        tooltip = seen.hover(*cell_center(seen, 11, key, 12))
        assert (tooltip["query"], tooltip["key"]) == ("11", str(key))
        assert tooltip["query_label"] == 50 * "long"
        assert tooltip["key_label"].startswith(label)
        assert seen.page.locator("#vg-tooltip-element").bounding_box()["x"] >= 0
    seen.page.mouse.click(*cell_center(seen, 7, 0, 12))
    wait_for_text(seen, "profile-title", f"Profile of query token 7 \u2068'{ARABIC}'\u2069")
    back = seen.page.get_by_role("button", name="Back to the last block (token 11 'longlong")
    assert back.is_visible()
    bar = boxes(seen, "profile", "headgrid_bars")[1]
    assert seen.hover(bar[0] + bar[2] / 2, bar[1] + bar[3] / 2)["key_label"] == "cat"
    seen.assert_harmless()


def test_named_parts_stand_beside_the_map_and_over_the_profile(visit, tmp_path):
    capture = Capture.from_array(waves(1, 6, 6)).with_segments({"text": (0, 2), "video": (2, None)})
    seen = open_page(visit, capture, tmp_path)
    for chart, names in ("map", ["text", "text", "video", "video"]), ("profile", ["text", "video"]):
        texts = seen.page.locator(f"#{chart} .mark-text text").all_text_contents()
        assert sorted(text for text in texts if text in names) == names
    seen.assert_harmless()


def test_named_parts_have_the_places_that_start_in_them():
    parts = {"text": (0, 100), "two": (100, 102), "video": (102, None)}
    capture = Capture.from_array(waves(1, 6, 600)).with_segments(query={"all": (0, 6)}, key=parts)
    pooled = pool_capture(capture)  # three tokens a place
    assert pooled.key_parts == (("text", 0, 100), ("video", 102, 598))
    assert pooled.query_parts == capture.query_parts


def test_of_many_tokens_some_share_a_place_and_the_page_says_so(visit, tmp_path):
    values = waves(2, 300, 514)
    causal = Capture.from_array(values, causal=True, labels=[f"w{n}" for n in range(514)])
    seen = open_page(visit, causal, tmp_path, "#layer=0&head=1&range=symmetric&statistic=sink")
    about = seen.page.locator("header").inner_text()
    assert "300 query x 514 key tokens" in about
    assert "a cell pools 2 x 3 tokens and shows the value of largest magnitude" in about
    matrix, places = causal.head_matrix(1), (149, 40)
    pool = matrix[298:300, 120:123].ravel()
    expected = round_values(pool[[np.nanargmax(np.abs(pool))]])[0]
    tooltip = seen.hover(*image_center(seen, *places, 150, 172))
    said = "query tokens 512–513 'w512 … w513', key tokens 120–122 'w120 … w122': "
    wait_for_text(seen, "readout", said)
    assert spoken_value(seen) == number(tooltip["logit"]) == expected
    assert (tooltip["key"], tooltip["key_label"]) == ("120–122", "w120 … w122")
    row = causal.last_block_rows[1]
    profile = seen.page.locator("#profile .cell .background").first
    profile.scroll_into_view_if_needed()
    left, top, width, height = profile.evaluate(
        "n => (({ x, y, width, height }) => [x, y, width, height])(n.getBoundingClientRect())"
    )
    told = {0: ("0–2", "w0 … w2"), 40: ("120–122", "w120 … w122"), 171: ("513", "w513")}
    for place, (span, label) in told.items():
        pool = row[3 * place : 3 * place + 3]
        tooltip = seen.hover(left + width * (place + 0.5) / 172, top + height / 2)
        assert [tooltip[name] for name in ("query", "key", "key_label")] == [
            *("last block", span, label)
        ]
        expected = round_values(pool[[np.argmax(np.abs(pool))]])[0]
        assert number(tooltip["logit"]) == expected == spoken_value(seen)
    seen.page.locator("#map").focus()
    seen.page.keyboard.press("ArrowUp")
    wait_for_text(seen, "readout", "query tokens 512–513 'w512 … w513', key tokens 0–2 'w0 … w2': ")
    seen.assert_harmless()


def test_wrong_options_and_what_is_too_large_are_refused(run, tmp_path, monkeypatch):
    page = tmp_path / "a.html"
    for options, match in [
        ({"statistic": "sinks"}, "did you mean 'sink'"),
        ({"color_range": "minmax"}, "expected one of symmetric, head, shared, quantile, LO,HI"),
        ({"color_range": (3, 1)}, "with low below high|LO below HI"),
        ({"palette": "rd"}, "palette"),
        ({"title": 3}, "title is 3, expected text"),
        ({"run": "run_0"}, "none, as the captures are not in runs"),
        ({"set": "a"}, "set is 'a'"),
    ]:
        with pytest.raises(OptionError, match=match):
            explore(run, page, **options)
    with pytest.raises(CaptureError, match="entropy has no value in any head"):
        explore(run, page, statistic="entropy")
    with pytest.raises(OptionError, match="a survey was given"):
        explore(headgrid.survey(run), page, run="run_0")
    monkeypatch.setattr("headgrid.web.explorer_page.MAX_VALUES", 71)
    with pytest.raises(CaptureError, match=r"144 visible .* at most 71 .* fewer layers"):
        explore(run, page)
    assert not page.exists()


# Whoever looks, wherever


@pytest.mark.parametrize("scheme", ["dark", pytest.param("light", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("width", [400, pytest.param(1400, marks=pytest.mark.nightly)])
def test_axe_finds_nothing_serious_and_a_link_skips_the_overview(width, scheme, opened, visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    address = f"{opened('logit').path.as_uri()}#query=3"
    seen = visit(address, width=width, color_scheme=scheme, bypass_csp=True)
    wait_until_drawn(seen)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    before = state_of(seen)["hash"]
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.id") == "head"
    assert state_of(seen)["hash"] == before  # which Back and a link need
    found = axe.run(seen.page).response["violations"]
    assert [v for v in found if v["impact"] in ("serious", "critical", "moderate")] == []


def test_the_page_is_dark_where_the_reader_wants_it_or_says_so_and_light_on_paper(opened, visit):
    seen = visit(opened("logit").path, color_scheme="dark")
    wait_until_drawn(seen)
    page, button = seen.page, seen.page.get_by_role("button", name="Dark")
    style = "n => [getComputedStyle(n).backgroundColor, getComputedStyle(n).fill]"

    def looks(ground, ink):
        assert page.locator("html").evaluate(style)[0] == f"rgb({ground})"
        assert page.locator("#map .role-axis-label text").first.evaluate(style)[1] == f"rgb({ink})"

    light, dark = ("245, 246, 248", "0, 0, 0"), ("16, 18, 21", "227, 230, 234")
    looks(*dark)
    assert button.get_attribute("aria-pressed") == "true"
    color = cell_color(seen, 3, 1)
    button.click()
    looks(*light)
    assert button.get_attribute("aria-pressed") == "false"
    assert cell_color(seen, 3, 1) == color  # a value looks the same
    page.emulate_media(color_scheme="light")
    button.click()
    looks(*dark)
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 700, "height": 1000})
    looks("255, 255, 255", "0, 0, 0")
    page.wait_for_timeout(300)  # longer than it takes to fit a page on the screen anew
    for chart in "overview", "map", "profile":
        box = page.locator(f"#{chart} svg").bounding_box()
        assert box["x"] + box["width"] <= 700
    for id in "theme", "layer-on", "low", "map-help":
        assert page.locator(f"#{id}").is_hidden()
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) in (1, 2)


@pytest.fixture
def folder(capture_file, tmp_path):
    for run in "run_0", "run_1":
        for layer in 0, 1:
            capture_file(f"in/{run}/layer{layer}.npz", scale=1.0 + 2 * int(run[-1]))
    return tmp_path / "in"


def test_the_mean_over_runs_is_shown_and_one_run_can_be_chosen(cli, folder, tmp_path):
    for run, scale in (None, 2.0), ("run_1", 3.0):
        page = tmp_path / f"{run}.html"
        named = [] if run is None else ["--run", run]
        result = cli("explore", folder, "-o", page, "--statistic", "first", *named)
        assert (result.exit_code, result.output) == (0, f"{page}\n")
        expected = round_values(block_capture(scale=scale).last_block_rows)
        assert np.array_equal(last_rows(page, 2, 4, 16), expected)
        (one,) = page_of(page)["runs"]
        assert ("--runs all" in one["pick"]) == (run is None)
        assert one["name"] == ("mean over 2 runs" if run is None else "run_1")
    same = explore(folder, tmp_path / "b.html", run="run_1", statistic="first")
    assert page.read_bytes() == same.read_bytes()
    (folder / "run_0" / "layer1.npz").write_bytes(b"nothing")  # the others are shown
    result = cli("explore", folder, "-o", tmp_path / "c.html")
    assert (result.exit_code, (tmp_path / "c.html").is_file()) == (1, True)
    assert "layer1.npz" in result.output


def test_several_runs_are_held_beside_their_mean(cli, folder, visit, tmp_path, monkeypatch):
    extra = block_capture(layer=5, scale=7.0, prompt="a cat, 'quoted'")
    headgrid.save_capture(extra, folder / "run_1" / "layer5.npz")
    monkeypatch.chdir(tmp_path)
    result = cli("explore", "in", "-o", "a.html", "--runs", "all", "--statistic", "first")
    assert result.exit_code == 0
    assert [run["name"] for run in page_of(tmp_path / "a.html")["runs"]] == [
        *("mean over 2 runs", "run_0", "run_1")
    ]
    for view, scale in enumerate((2.0, 1.0, 3.0)):
        expected = round_values(block_capture(scale=scale).last_block_rows)
        assert np.array_equal(last_rows(tmp_path / "a.html", 2, 4, 16, view), expected)
    with pytest.warns(headgrid.HeadgridWarning, match="missing"):
        same = explore("in", tmp_path / "b.html", runs=["run_0", "run_1"], statistic="first")
    assert same.read_bytes() == (tmp_path / "a.html").read_bytes()
    seen = visit(f"{(tmp_path / 'a.html').as_uri()}#run=run_1&layer=5&head=1")
    wait_until_drawn(seen)
    assert seen.page.locator("#run option").all_text_contents()[1] == "run_0"
    command = shlex.split(seen.page.locator("#command").inner_text())
    assert (command[0], cli(*command[1:]).exit_code) == ("headgrid", 0)
    drawn = Path("run_1_layer5_head1.svg").read_text("utf-8")
    assert "run_1, layer 5, head 1" in drawn
    low, high = seen.page.evaluate("['low', 'high'].map(id => document.getElementById(id).value)")
    assert f"\u2212{float(high):.4g} to {float(high):.4g} (fixed)" in drawn
    assert float(low) == -float(high)
    seen.page.select_option("#run", "1")  # which has no such layer
    wait_for_text(seen, "head-title", "Layer 1, head 1")
    settle(seen)
    assert "run=run_0&layer=1" in state_of(seen)["hash"]
    assert "missing" in seen.page.locator("#about").inner_text()
    values = block_capture(scale=1.0).full_frame_attention[1][0, :1]
    assert data_of(seen, "map", "headgrid_cells", ["logit"])[0] == round_values(values).tolist()
    seen.page.select_option("#run", "0")
    settle(seen)
    shown = data_of(seen, "map", "headgrid_cells", ["logit_mean"])
    assert shown[0] == round_values(2 * values).tolist()
    assert seen.page.locator("#command").inner_text().endswith("over runs: choose a run.")
    assert seen.page.locator("#take-command").is_hidden()
    seen.page.go_back()
    wait_for_text(seen, "name", "run_0")
    seen.assert_harmless()


def test_runs_in_memory_are_held_beside_their_mean(tmp_path):
    captures = [block_capture(scale=s, run=f"run_{s:g}") for s in (1.0, 3.0)]
    page = explore(captures, tmp_path / "a.html", runs="all")
    for view, scale in enumerate((2.0, 1.0, 3.0)):
        expected = round_values(block_capture(scale=scale).last_block_rows)
        assert np.array_equal(last_rows(page, 2, 4, 16, view), expected)


ROLES = 'layer,head,role,score\n0,0,constructor,1\n1,1,constructor,2\n1,0,"local, <b>x</b>",3\n'


def test_heads_are_listed_with_their_roles_and_by_them(cli, folder, visit, tmp_path):
    (tmp_path / "roles.csv").write_text(ROLES)
    page = tmp_path / "a.html"
    arguments = ["explore", folder, "-o", page, "--run", "run_0"]
    assert cli(*arguments, "--roles", tmp_path / "roles.csv").exit_code == 0
    seen = visit(f"{page.as_uri()}#layer=1&head=1")
    wait_until_drawn(seen)
    assert seen.page.locator("#role option").all_text_contents() == [
        *("all", "- (1)", "constructor (2)", "local, <b>x</b> (1)")
    ]
    for role, heads in {"": 4, "-": 1, "constructor": 2, "local, <b>x</b>": 1}.items():
        seen.page.select_option("#role", role)
        settle(seen)
        found = seen.page.locator("#ranking option").all_text_contents()
        assert len(found) == heads
        assert all(text.replace("\u00a0", " ").endswith(role) for text in found)
    assert seen.page.locator("#statistics tr").first.inner_text() == "Role\tconstructor"
    seen.page.select_option("#order", "low")
    settle(seen)
    assert "&order=low&role=local%2C%20%3Cb%3Ex%3C%2Fb%3E" in state_of(seen)["hash"]
    again = visit(seen.page.url)
    wait_until_drawn(again)
    lists = [one.page.locator("#ranking option").all_text_contents() for one in (seen, again)]
    assert lists[0] == lists[1] == found[:1]
    assert again.page.locator("#order").input_value() == "low"
    show(again, "#layer=1&head=1")
    assert again.page.locator("#ranking option").count() == 4
    show(again, "#layer=1&head=1&role=constructor&order=high")
    assert again.page.locator("#ranking option").count() == 2
    same = explore(folder, tmp_path / "b.html", run="run_0", roles=pd.read_csv(io.StringIO(ROLES)))
    assert "constructor" in page_of(same)["roles"].values()
    assert page_of(same)["roles"] == page_of(page)["roles"]
    for text, match in {
        "layer,head\n0,0\n": "no column role, expected layer, head and role",
        ROLES + "0,0,local,1\n": "layer '0' and head '0', expected whole numbers, and one row",
        ROLES + "x,0,local,1\n": "layer 'x' and head '0', expected whole numbers",
        ROLES + ",0,local,1\n": "layer '' and head '0', expected whole numbers",
        "layer,head,role\n7,0,sink\n": "no row is of a head of these captures",
        "": "No columns to parse from file, expected a CSV file",
    }.items():
        (tmp_path / "roles.csv").write_text(text)
        result = cli(*arguments, "--roles", tmp_path / "roles.csv")
        assert result.exit_code == 2
        assert len(result.output.strip().splitlines()) == 1
        assert re.search(match, result.output)
    plain = visit(explore(folder, tmp_path / "c.html", run="run_0"))
    wait_until_drawn(plain)
    assert plain.page.locator("#roles").is_hidden()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--runs", "run_0, run_7"], "run is 'run_7', expected one of run_0, run_1"),
        (["--runs", "all", "--run", "run_0"], "run is 'run_0' and runs is 'all', expected one of"),
        (["--run", "run_7"], "run is 'run_7', expected one of run_0, run_1; did you mean 'run_"),
        (["--color-range", "3,1"], "LO below HI"),
        (["--jobs", "0"], "jobs is 0"),
        (["-o", "a.svg"], "the suffix of a.svg is '.svg', expected one of .html, .htm"),
    ],
)
def test_wrong_usage_ends_in_a_sentence(arguments, text, cli, folder, tmp_path):
    result = cli("explore", folder, "-o", tmp_path / "a.html", *arguments)
    assert result.exit_code == 2
    assert text in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "a.html").exists()


def test_of_several_sets_one_has_to_be_named(cli, capture_file, tmp_path):
    for number, set in enumerate(("cats", "dogs")):
        capture_file(f"in/{set}/run_0/layer0.npz", scale=1.0 + number)
    page = tmp_path / "a.html"
    for inputs in [tmp_path / "in"], [tmp_path / "in" / "cats", tmp_path / "in" / "dogs"]:
        result = cli("explore", *inputs, "-o", page)
        assert result.exit_code == 2
        assert "set is not given, expected one of cats, dogs" in result.output
    assert cli("explore", tmp_path / "in", "-o", page, "--set", "dogs").exit_code == 0
    assert [run["name"] for run in page_of(page)["runs"]] == ["dogs/run_0"]
    assert cli("explore", *inputs, "-o", page, "--run", "cats/run_0").exit_code == 0
    assert [run["name"] for run in page_of(page)["runs"]] == ["cats/run_0"]
