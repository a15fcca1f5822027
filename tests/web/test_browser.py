"""Pages and fragments as Chromium shows them."""

import io
import json
import math
import random
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

import headgrid
from browser import open_visits, serve
from headgrid import Capture, fragment, heatmap, perhead, to_spec
from headgrid.render.convert import render_svg
from headgrid.tables.tidy import round_values
from pin_vega import CDN
from synthetic import block_capture, waves

#: Headers of a script that another site may load.
SCRIPT = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript"}
STRICT = {"Content-Security-Policy": "default-src 'self'"}
both = pytest.mark.parametrize("draw", [heatmap, perhead])


@pytest.fixture(scope="module")
def capture():
    """Return 12 heads and 9 frames with values of every magnitude."""
    values = waves(12, 9, 9) * 10.0 ** np.arange(-4, 8)[:, None, None]
    return Capture.from_array(values, block_sizes=[3] * 3, prompt="a <b>cat</b> & more")


@pytest.fixture(scope="module")
def opened(chromium, capture, tmp_path_factory):
    """Return a function that opens the page of a figure, once for all tests of this file."""
    with open_visits(chromium) as visit:

        @cache
        def open_(draw):
            folder = tmp_path_factory.mktemp("page")
            return open_page(visit, folder, draw(capture), offline=True, height=1000)

        yield open_


def open_page(visit, folder, chart, **options):
    seen = visit(headgrid.save(chart, folder / "a.html"), **options)
    seen.wait_for_figures()
    return seen


def host(*fragments, head=""):
    body = "\n".join(fragments)
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title>{head}\n{body}'


def write_host(folder, *fragments, bundle=True):
    """Write somebody's page that loads the shared script as vega-embed, in its folder."""
    script = headgrid.write_assets(folder)
    head = f'<script src="{script.name}" defer></script>' if bundle else ""
    path = folder / "host.html"
    path.write_text(host(*fragments, head=head), encoding="utf-8")
    return path, script


def number(text):
    return float(text.replace("\u2212", "-").replace(",", ""))


@both
def test_a_page_draws_offline_and_asks_for_nothing(draw, opened):
    titles = opened(draw).page.locator(".headgrid-view text", has_text=re.compile("^Key Frame$"))
    assert titles.count() == 12
    opened(draw).assert_harmless()


def test_a_page_with_a_shared_script_works_from_disk_and_on_a_strict_site(capture, visit, tmp_path):
    path = headgrid.save(perhead(capture), tmp_path / "a.html", embed="assets")
    (script,) = tmp_path.glob("*.js")
    seen = visit(path, offline=True)
    seen.wait_for_figures()
    seen.assert_harmless(script.as_uri())
    with serve(tmp_path, STRICT) as (address, asked):
        seen = visit(f"{address}/a.html")
        seen.wait_for_figures()
        seen.assert_harmless(f"{address}/{script.name}")
        color = "getComputedStyle(document.querySelector('.headgrid-view')).backgroundColor"
        assert seen.page.evaluate(color) == "rgb(255, 255, 255)"
        assert asked == ["/a.html", f"/{script.name}"]


def test_a_light_page_refuses_a_library_that_was_changed(capture, visit, tmp_path):
    path = headgrid.save(perhead(capture), tmp_path / "a.html", embed="cdn")
    seen = visit("about:blank")
    seen.page.route(f"{CDN}**", lambda r: r.fulfill(body="window.canary = 1", headers=SCRIPT))
    seen.page.goto(path.as_uri())
    seen.wait_for("document.querySelector('figure[data-state=failed]') !== null")
    assert seen.page.evaluate("window.canary") is None
    assert "can not be drawn here" in seen.page.locator(".headgrid-view").inner_text()
    assert len([url for url in seen.requests if "jsdelivr" in url]) == 3
    assert any("integrity" in line for line in seen.console)


def test_another_version_of_vega_lite_is_drawn_by_itself(visit, tmp_path):
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json",
        "mark": "bar",
        "data": {"values": [{"a": 1}]},
        "encoding": {"x": {"field": "a", "type": "quantitative"}},
    }
    seen = open_page(visit, tmp_path, spec, offline=True)
    assert seen.page.locator("svg .mark-rect path").count() == 1


def cell_points(page, panels):
    return page.locator(panels).evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.x, b.y, b.width, b.height])"
    )


def test_the_tooltip_of_a_cell_is_the_capture_to_its_printed_digits(capture, opened):
    seen = opened(heatmap)
    panels = cell_points(seen.page, ".headgrid_frame_marks path")
    assert len(panels) == 12
    shown = round_values(capture.full_frame_attention)
    choices = random.Random(1)
    for head in range(12):
        for _ in range(4):
            query, key = choices.randrange(9), choices.randrange(9)
            x, y, width, height = panels[head]
            tooltip = seen.hover(x + width * (key + 0.5) / 9, y + height * (9 - query - 0.5) / 9)
            if key >= (query // 3 + 1) * 3:
                assert tooltip is None, (head, query, key)
                continue
            value = number(tooltip.pop("logit"))
            assert tooltip == {"head": str(head), "query": str(query), "key": str(key)}
            assert value == pytest.approx(shown[head, query, key], rel=1e-12)


def test_the_tooltip_of_a_bar_is_the_capture_to_its_printed_digits(capture, opened):
    seen = opened(perhead)
    bars = seen.page.locator(".headgrid_bars_marks path")
    boxes = bars.evaluate_all("nodes => nodes.map(n => n.getBoundingClientRect())")
    assert len(boxes) == 12 * 9
    shown = round_values(capture.full_frame_attention[:, 6:].mean(axis=1))
    found = 0
    for place in random.Random(2).sample(range(108), 40):
        head, key = divmod(place, 9)
        box = boxes[place]
        if box["height"] < 3:
            continue
        tooltip = seen.hover(box["x"] + 1, box["y"] + box["height"] / 2)  # also under the line
        assert (tooltip["head"], tooltip["key"]) == (str(head), str(key))
        assert number(tooltip["logit"]) == pytest.approx(shown[head, key], rel=1e-12)
        found += 1
    assert found > 20


def test_a_tooltip_makes_no_picture_and_no_markup_of_what_data_say(visit, tmp_path):
    rows = [{"image": "http://127.0.0.1:9/a.png", "<img src=x onerror=canary=1>": "<b>bold</b>"}]
    spec = {
        "data": {"values": rows},
        "mark": {"type": "rect", "tooltip": {"content": "data"}},
    }
    (tmp_path / "host").mkdir()
    for target in (
        headgrid.save(spec, tmp_path / "a.html"),
        write_host(tmp_path / "host", fragment(spec))[0],
    ):
        seen = visit(target)
        seen.wait_for_figures()
        box = seen.page.locator(".headgrid-view svg").bounding_box()
        seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tooltip = seen.page.locator("#vg-tooltip-element.visible")
        assert "<b>bold</b>" in tooltip.inner_text()
        assert tooltip.locator("img, b").count() == 0
        assert not [url for url in seen.requests if "127.0.0.1:9" in url]
        assert seen.page.evaluate("window.canary") is None


@pytest.mark.parametrize(
    ("draw", "scheme", "width"),
    [
        (heatmap, "dark", 300),
        pytest.param(heatmap, "light", 1280, marks=pytest.mark.nightly),
        pytest.param(perhead, "dark", 1280, marks=pytest.mark.nightly),
    ],
)
def test_axe_finds_nothing_serious_and_the_keyboard_scrolls(
    draw, scheme, width, capture, visit, tmp_path
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"color_scheme": scheme, "width": width, "bypass_csp": True}
    seen = open_page(visit, tmp_path, draw(capture), **options)
    found = axe.run(seen.page).response["violations"]
    assert [v for v in found if v["impact"] in ("serious", "critical", "moderate")] == []
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className").startswith("headgrid-view")
    if width == 300:
        for _ in range(3):
            seen.page.keyboard.press("ArrowRight")
        seen.wait_for("document.activeElement.scrollLeft > 0")


def test_panels_flow_into_as_many_columns_as_fit(opened):
    seen = opened(heatmap)
    for width, columns in (1000, 3), (400, 1), (1280, 4):
        seen.page.set_viewport_size({"width": width, "height": 1000})
        seen.wait_for(
            "new Set([...document.querySelectorAll('.headgrid_frame_marks path')]"
            f".map(n => Math.round(n.getBoundingClientRect().x))).size === {columns}"
        )
        panels = cell_points(seen.page, ".headgrid_frame_marks path")
        assert len({round(y) for _, y, *_ in panels}) == math.ceil(12 / columns)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    seen.assert_harmless()


def test_columns_and_a_width_that_are_part_of_a_figure_stay(capture, visit, tmp_path):
    for ours in {"theme": "paper"}, {"width": 396.0}:
        spec = to_spec(heatmap(capture))
        spec["usermeta"]["headgrid"] |= ours
        seen = open_page(visit, tmp_path, spec, width=400)
        panels = cell_points(seen.page, ".headgrid_frame_marks path")
        assert len({round(x) for x, *_ in panels}) == 4
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 400
    box = seen.page.locator(".headgrid-view > svg").bounding_box()
    assert box["width"] == pytest.approx(396 * 96 / 72, abs=0.01)
    x, y, width, height = panels[5]
    assert width == pytest.approx(height, rel=0.01)
    tooltip = seen.hover(x + width * 0.5 / 9, y + height * 8.5 / 9)
    assert [tooltip[name] for name in ("head", "query", "key")] == ["5", "0", "0"]


def test_a_screen_reader_gets_the_caption_and_not_a_thousand_cells(capture, opened):
    tree = opened(heatmap).page.locator("main").aria_snapshot()
    caption = to_spec(heatmap(capture))["usermeta"]["headgrid"]["caption"]
    assert len(tree.splitlines()) < 12
    assert all(part in tree for part in (caption.partition(".")[0], "figure", "img"))


def test_the_page_is_dark_where_the_reader_wants_it_and_one_light_sheet_of_paper(opened):
    page = opened(heatmap).page
    style = "n => [getComputedStyle(n).backgroundColor, getComputedStyle(n).color]"
    page.emulate_media(color_scheme="dark")
    assert page.locator("html").evaluate(style) == ["rgb(22, 24, 28)", "rgb(230, 230, 230)"]
    assert page.locator(".headgrid-view").evaluate(style)[0] == "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 700, "height": 1000})
    page.wait_for_timeout(300)  # longer than it takes to fit a figure on the screen anew
    for part in ".headgrid-view", ".headgrid-view > svg":
        assert page.locator(part).bounding_box()["width"] <= 700
    assert len({round(x) for x, *_ in cell_points(page, ".headgrid_frame_marks path")}) == 4
    assert page.locator("html").evaluate(style)[0] == "rgb(255, 255, 255)"
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) == 1
    page.emulate_media(media="screen", color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 1000})


def small_charts(count):
    """Return different charts, heatmaps and per-head grids by turns."""
    captures = [block_capture(2, (2, 3), layer=layer) for layer in range(count)]
    return [(heatmap, perhead)[n % 2](capture) for n, capture in enumerate(captures)]


@pytest.mark.parametrize("loader", [True, False])
@pytest.mark.parametrize("count", [5, pytest.param(24, marks=pytest.mark.nightly)])
def test_many_fragments_stand_on_one_page(count, loader, visit, tmp_path):
    charts = small_charts(count)
    path, script = write_host(tmp_path, *(fragment(chart, loader=loader) for chart in charts))
    seen = visit(path)
    seen.wait_for_figures(count)
    titles = seen.page.locator("figure.headgrid").evaluate_all(
        "figures => figures.map(f => f.querySelectorAll('.role-title-text'))"
        ".map(titles => [...titles].at(-1).textContent)"
    )
    assert [int(re.match(r"Layer (\d+):", title)[1]) for title in titles] == list(range(count))
    ids = seen.page.locator("[id]").evaluate_all("nodes => nodes.map(n => n.id)")
    assert len(ids) == len(set(ids))
    bars = seen.page.locator(".role-legend-gradient path")
    paints = bars.evaluate_all("bars => bars.map(bar => bar.getAttribute('fill'))")
    assert len(paints) == -(-count // 2)
    assert all(paint and "#gradient_" in paint for paint in paints)
    seen.assert_harmless(script.as_uri())


def test_the_shared_script_is_a_module_on_a_strict_site_and_draws_what_comes_later(visit, tmp_path):
    script = headgrid.write_assets(tmp_path)
    first, second = small_charts(2)
    module = f'<script type="module" src="{script.name}"></script>'
    (tmp_path / "host.html").write_text(
        host(fragment(first, loader=False), '<div id="later"></div>', head=module), "utf-8"
    )
    with serve(tmp_path, STRICT) as (address, _):
        seen = visit(f"{address}/host.html")
        seen.wait_for_figures(1)
        later = "document.querySelector('#later')"
        html = fragment(second, loader=False)
        seen.page.evaluate(f"html => {{ {later}.innerHTML = html }}", html)
        seen.page.evaluate(f"headgrid.start({later})")
        seen.wait_for_figures(2)
        box = seen.page.locator(".headgrid_bars_marks path").nth(1).bounding_box()
        assert seen.hover(box["x"] + 1, box["y"] + box["height"] / 2)["key"] == "1"
        tooltip = "getComputedStyle(document.querySelector('#vg-tooltip-element')).position"
        assert seen.page.evaluate(tooltip) == "fixed"
        seen.assert_harmless(f"{address}/{script.name}")


@pytest.mark.parametrize("loader", [True, False])
def test_a_fragment_shows_the_finished_figure_on_a_page_without_vega(loader, visit, tmp_path):
    chart = small_charts(1)[0]
    path, _ = write_host(tmp_path, fragment(chart, loader=loader), bundle=False)
    seen = visit(path)
    drawing = seen.page.locator(".headgrid-view > svg")
    assert "Key Frame" in drawing.text_content()
    size = drawing.bounding_box()
    seen.assert_harmless()
    live = visit(write_host(tmp_path, fragment(chart, loader=loader))[0])
    live.wait_for_figures()
    assert live.page.locator(".headgrid-view svg").count() == 1
    live_size = live.page.locator(".headgrid-view svg").bounding_box()
    for name in ("width", "height"):
        assert size[name] == pytest.approx(live_size[name], abs=2)
    assert "<svg" not in fragment(chart, picture=False)
    older = "async view => { view.innerHTML = ''; throw Error('older') }"
    init = f"Object.defineProperty(window, 'vegaEmbed', {{ get: () => {older}, set() {{}} }})"
    failed = visit(path, init=init)
    failed.page.wait_for_timeout(300)
    assert "Key Frame" in failed.page.locator(".headgrid-view > svg").text_content()


def test_the_shared_script_leaves_the_page_around_it_alone(visit, tmp_path):
    chart = small_charts(1)[0]
    before = visit(write_host(tmp_path, "<p>text</p>", bundle=False)[0])
    styles = "['html', 'body', 'p'].map(t => getComputedStyle(document.querySelector(t)))"
    styles += ".map(s => [s.color, s.backgroundColor, s.font, s.margin, s.colorScheme])"
    names = "Object.keys(window).filter(n => !n.match(/^\\d+$/))"
    plain, known = before.page.evaluate(styles), set(before.page.evaluate(names))
    after = visit(write_host(tmp_path, "<p>text</p>", fragment(chart, loader=False))[0])
    after.wait_for_figures()
    assert after.page.evaluate(styles) == plain
    assert set(after.page.evaluate(names)) - known == {"vegaEmbed", "headgrid"}


def test_a_fragment_says_on_the_page_that_it_could_not_be_drawn(visit, tmp_path):
    broken = {"mark": "nosuch", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
    path, _ = write_host(tmp_path, fragment(broken, loader=False))
    seen = visit(path)
    seen.wait_for("document.querySelector('figure[data-state=failed]') !== null")
    text = seen.page.locator(".headgrid-view").inner_text()
    assert text.startswith("This figure can not be drawn here: ")


def test_many_marks_are_drawn_as_pixels_and_tiles_as_images(visit, tmp_path, monkeypatch):
    monkeypatch.setattr("headgrid.web.page.SVG_MARKS", 400)
    capture = Capture.from_array(waves(1, 20, 20))
    seen = open_page(visit, tmp_path, heatmap(capture))
    box = seen.page.locator(".headgrid-view canvas").bounding_box()
    tooltip = seen.hover(box["x"] + 150, box["y"] + 150)
    head, query, key = (int(tooltip[name]) for name in ("head", "query", "key"))
    expected = round_values(capture.full_frame_attention)[head, query, key]
    assert number(tooltip["logit"]) == pytest.approx(expected, rel=1e-12)
    seen = open_page(visit, tmp_path, heatmap(block_capture(), cells="image"))
    assert seen.page.locator(".headgrid-view image").count() == 2
    seen.assert_harmless()


def pixels(locator):
    with Image.open(io.BytesIO(locator.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("count", [3, pytest.param(24, marks=pytest.mark.nightly)])
def test_many_svgs_stand_on_one_page(count, visit, tmp_path):
    masses = heatmap(block_capture(2, (2, 3), statistic="mass"))  # another colour bar
    charts = [masses, *small_charts(count - 1)]
    drawings = [render_svg(to_spec(chart)) for chart in charts]
    path = tmp_path / "host.html"
    style = "<style>.svg { height: 700px; overflow: hidden }</style>"
    figures = [f"<div class=svg>{drawing}</div>" for drawing in drawings]
    path.write_text(host(*figures, head=style), "utf-8")
    together = visit(path)
    ids = together.page.locator("[id]").evaluate_all("nodes => nodes.map(n => n.id)")
    assert ids
    assert len(ids) == len(set(ids))
    used = 'html => [...html.matchAll(/(?:url\\(|href=")#([^)"]+)/g)].map(m => m[1])'
    assert set(together.page.evaluate(used, json.dumps(drawings))) <= set(ids)
    for place in {0, 1, count - 1}:
        path.write_text(host(figures[place], head=style), "utf-8")
        alone = pixels(visit(path).page.locator(".svg"))
        change = np.abs(pixels(together.page.locator(".svg").nth(place)) - alone)
        assert change.max() < 40  # edges, by where on the page they are
        assert (change > 1).mean() < 0.001
    together.assert_harmless()
