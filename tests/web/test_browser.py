"""Pages and fragments as Chromium shows them."""

import io
import json
import math
import random
import re
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

import headgrid
from browser import serve
from headgrid import Capture, fragment, heatmap, perhead, to_spec
from headgrid.render.convert import render_svg
from headgrid.tables.tidy import round_values
from headgrid.web.assets import CDN
from headgrid.web.page import write_page
from pin_vega import BUILDS, VERSIONS
from synthetic import block_capture, waves

STRICT = {"Content-Security-Policy": "default-src 'self'"}
both = pytest.mark.parametrize("draw", [heatmap, perhead])


@pytest.fixture(scope="module")
def capture():
    """Return 12 heads and 21 frames with values of every magnitude."""
    values = waves(12, 21, 21) * 10.0 ** np.arange(-4, 8)[:, None, None]
    return Capture.from_array(values, block_sizes=[3] * 7, prompt="a <b>cat</b> & more")


def host(*fragments, head=""):
    """Return somebody's page with fragments in it."""
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
    """Read a number as Vega prints it."""
    return float(text.replace("\u2212", "-").replace(",", ""))


# Pages


@both
def test_a_page_draws_offline_and_asks_for_nothing(draw, capture, visit, tmp_path):
    seen = visit(headgrid.save(draw(capture), tmp_path / "a.html"), offline=True)
    seen.wait_for_figures()
    assert (
        seen.page.locator(".headgrid-view text", has_text=re.compile("^Key Frame$")).count() == 12
    )
    seen.assert_harmless()


@both
def test_a_page_with_a_shared_script_works_from_disk(draw, capture, visit, tmp_path):
    path = headgrid.save(draw(capture), tmp_path / "a.html", embed="assets")
    seen = visit(path, offline=True)
    seen.wait_for_figures()
    (script,) = tmp_path.glob("*.js")
    seen.assert_harmless(script.as_uri())


@both
def test_a_page_with_a_shared_script_works_on_a_strict_site(draw, capture, visit, tmp_path):
    headgrid.save(draw(capture), tmp_path / "a.html", embed="assets")
    with serve(tmp_path, STRICT) as (address, asked):
        seen = visit(f"{address}/a.html")
        seen.wait_for_figures()
        (script,) = tmp_path.glob("*.js")
        seen.assert_harmless(f"{address}/{script.name}")
        color = "getComputedStyle(document.querySelector('.headgrid-view')).backgroundColor"
        assert seen.page.evaluate(color) == "rgb(255, 255, 255)"
        assert asked == ["/a.html", f"/{script.name}"]


def test_a_light_page_refuses_a_library_that_was_changed(capture, visit, tmp_path):
    path = tmp_path / "a.html"
    path.write_text(write_page(to_spec(perhead(capture)), embed="cdn"), encoding="utf-8")
    seen = visit("about:blank")

    def change(route):
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body="window.canary = 1", content_type="text/javascript", headers=headers)

    seen.page.route("https://cdn.jsdelivr.net/**", change)
    seen.page.goto(path.as_uri())
    seen.wait_for("document.querySelector('figure[data-state=failed]') !== null")
    assert seen.page.evaluate("window.canary") is None
    assert "can not be drawn here" in seen.page.locator(".headgrid-view").inner_text()
    assert len([url for url in seen.requests if "jsdelivr" in url]) == 3
    assert any("integrity" in line for line in seen.console)


@pytest.fixture
def registry(tmp_path):
    """Return the files that a light page loads, from the npm registry, by address."""
    files = {}
    for name, version in VERSIONS["6.4"].items():
        command = ["npm", "pack", "--silent", "--pack-destination", tmp_path, f"{name}@{version}"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("the npm registry is out of reach")
        with tarfile.open(tmp_path / f"{name}-{version}.tgz") as archive:
            build = archive.extractfile(f"package/{BUILDS[name]}").read()
        files[f"{CDN}{name}@{version}/{BUILDS[name]}"] = build
    return files


@pytest.mark.nightly
@both
def test_the_files_of_the_registry_draw_light_pages_and_fragments(
    draw, registry, capture, visit, tmp_path
):
    headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript"}
    tags = "".join(f'<script src="{address}"></script>' for address in registry)
    pages = {
        "page.html": write_page(to_spec(draw(capture)), embed="cdn"),
        "host.html": host(fragment(draw(capture)), head=tags),
    }
    for name, html in pages.items():
        (tmp_path / name).write_text(html, encoding="utf-8")
        seen = visit("about:blank")
        seen.page.route(
            f"{CDN}**",
            lambda route: route.fulfill(body=registry[route.request.url], headers=headers),
        )
        seen.page.goto((tmp_path / name).as_uri())
        seen.wait_for_figures()
        seen.assert_harmless(*registry)


@pytest.mark.parametrize("version", ["v5.20.1", "v6.1.0"])
def test_other_versions_of_vega_lite_are_drawn_by_themselves(version, visit, tmp_path):
    spec = {
        "$schema": f"https://vega.github.io/schema/vega-lite/{version}.json",
        "mark": "bar",
        "data": {"values": [{"a": 1}]},
        "encoding": {"x": {"field": "a", "type": "quantitative"}},
    }
    seen = visit(headgrid.save(spec, tmp_path / "a.html"), offline=True)
    seen.wait_for_figures()
    assert seen.page.locator("svg .mark-rect path").count() == 1


# Values


def cell_points(page, panels):
    """Return where each head's panel is on the screen, in the order of heads."""
    return page.locator(panels).evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect()).map(b => [b.x, b.y, b.width, b.height])"
    )


def test_the_tooltip_of_a_cell_is_the_capture_to_its_printed_digits(capture, visit, tmp_path):
    seen = visit(headgrid.save(heatmap(capture), tmp_path / "a.html"), height=1000)
    seen.wait_for_figures()
    panels = cell_points(seen.page, ".headgrid_frame_marks path")
    assert len(panels) == 12
    shown = round_values(capture.full_frame_attention)
    choices = random.Random(1)
    for head in range(12):
        for _ in range(4):
            query, key = choices.randrange(21), choices.randrange(21)
            x, y, width, height = panels[head]
            tooltip = seen.hover(x + width * (key + 0.5) / 21, y + height * (21 - query - 0.5) / 21)
            if key >= (query // 3 + 1) * 3:
                assert tooltip is None, (head, query, key)
                continue
            assert [tooltip.pop(name) for name in ("head", "query", "key")] == [
                str(head),
                str(query),
                str(key),
            ]
            assert list(tooltip) == ["logit"]
            assert number(tooltip["logit"]) == pytest.approx(shown[head, query, key], rel=1e-12)


def test_the_tooltip_of_a_bar_is_the_capture_to_its_printed_digits(capture, visit, tmp_path):
    seen = visit(headgrid.save(perhead(capture), tmp_path / "a.html"))
    seen.wait_for_figures()
    bars = seen.page.locator(".headgrid_bars_marks path")
    boxes = bars.evaluate_all("nodes => nodes.map(n => n.getBoundingClientRect())")
    assert len(boxes) == 12 * 21
    shown = round_values(capture.full_frame_attention[:, 18:].mean(axis=1))
    found = 0
    for place in random.Random(2).sample(range(252), 40):
        head, key = divmod(place, 21)
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
        "width": 100,
        "height": 100,
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


# Whoever looks, wherever


@both
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(draw, scheme, capture, visit, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    seen = visit(
        headgrid.save(draw(capture), tmp_path / "a.html"), color_scheme=scheme, bypass_csp=True
    )
    seen.wait_for_figures()
    found = axe.run(seen.page).response["violations"]
    assert [v for v in found if v["impact"] in ("serious", "critical", "moderate")] == []


def test_axe_finds_nothing_serious_on_a_narrow_screen(capture, visit, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    path = headgrid.save(heatmap(capture), tmp_path / "a.html")
    seen = visit(path, width=300, bypass_csp=True)
    seen.wait_for_figures()
    assert seen.page.evaluate("document.querySelector('.headgrid-view').scrollWidth") > 300
    assert axe.run(seen.page).response["violations"] == []


def test_the_page_is_dark_where_the_reader_wants_it_and_the_figure_stays_on_white(
    capture, visit, tmp_path
):
    path = headgrid.save(perhead(capture), tmp_path / "a.html")
    grounds = {}
    for scheme in "light", "dark":
        seen = visit(path, color_scheme=scheme)
        seen.wait_for_figures()
        grounds[scheme] = [
            seen.page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{what}")
            for part in ("html", ".headgrid-view")
            for what in ("backgroundColor", "color")
        ]
    white = "rgb(255, 255, 255)"
    assert grounds["light"][0] == grounds["light"][2] == grounds["dark"][2] == white
    assert grounds["dark"][0] == "rgb(22, 24, 28)"
    assert grounds["dark"][1] == "rgb(230, 230, 230)"


@pytest.mark.parametrize(("width", "columns"), [(1000, 3), (400, 1)])
def test_panels_flow_into_as_many_columns_as_fit(width, columns, capture, visit, tmp_path):
    seen = visit(headgrid.save(heatmap(capture), tmp_path / "a.html"), width=width)
    seen.wait_for_figures()
    panels = cell_points(seen.page, ".headgrid_frame_marks path")
    assert len({round(x) for x, *_ in panels}) == columns
    assert len({round(y) for _, y, *_ in panels}) == math.ceil(12 / columns)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("ours", [{"theme": "paper"}, {"width": 700.0}])
def test_columns_that_are_part_of_a_figure_stay(ours, capture, visit, tmp_path):
    spec = to_spec(heatmap(capture))
    spec["usermeta"]["headgrid"] |= ours
    seen = visit(headgrid.save(spec, tmp_path / "a.html"), width=400)
    seen.wait_for_figures()
    panels = cell_points(seen.page, ".headgrid_frame_marks path")
    assert len({round(x) for x, *_ in panels}) == 4
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_figure_has_the_width_that_it_was_made_for(capture, visit, tmp_path):
    spec = to_spec(heatmap(capture))
    spec["usermeta"]["headgrid"]["width"] = 396.0
    seen = visit(headgrid.save(spec, tmp_path / "a.html"))
    seen.wait_for_figures()
    box = seen.page.locator(".headgrid-view > svg").bounding_box()
    assert box["width"] == pytest.approx(396 * 96 / 72, abs=0.01)
    x, y, width, height = cell_points(seen.page, ".headgrid_frame_marks path")[5]
    assert width == pytest.approx(height, rel=0.01)
    tooltip = seen.hover(x + width * 0.5 / 21, y + height * 20.5 / 21)
    assert [tooltip[name] for name in ("head", "query", "key")] == ["5", "0", "0"]


def test_panels_flow_again_when_the_window_changes(capture, visit, tmp_path):
    seen = visit(headgrid.save(heatmap(capture), tmp_path / "a.html"))
    seen.wait_for_figures()
    for width, columns in (400, 1), (1280, 4):
        seen.page.set_viewport_size({"width": width, "height": 900})
        seen.wait_for(
            "new Set([...document.querySelectorAll('.headgrid_frame_marks path')]"
            f".map(n => Math.round(n.getBoundingClientRect().x))).size === {columns}"
        )
    seen.assert_harmless()


def test_a_figure_is_reached_and_scrolled_with_the_keyboard(visit, tmp_path):
    wide = perhead(Capture.from_array(last_block=np.ones((1, 4))), title="w" * 80)
    seen = visit(headgrid.save(wide, tmp_path / "a.html"), width=300)
    seen.wait_for_figures()
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className").startswith("headgrid-view")
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    seen.wait_for("document.activeElement.scrollLeft > 0")


def test_a_screen_reader_gets_the_caption_and_not_a_thousand_cells(capture, visit, tmp_path):
    chart = heatmap(capture)
    seen = visit(headgrid.save(chart, tmp_path / "a.html"))
    seen.wait_for_figures()
    tree = seen.page.locator("main").aria_snapshot()
    caption = to_spec(chart)["usermeta"]["headgrid"]["caption"]
    assert len(tree.splitlines()) < 12
    assert caption.partition(".")[0] in tree
    assert "figure" in tree
    assert "img" in tree


# A page that is printed late, after it has been laid out anew, takes two sheets: to be mended.
@pytest.mark.nightly
def test_a_printed_page_is_one_sheet_wide(capture, visit, tmp_path):
    seen = visit(headgrid.save(heatmap(capture), tmp_path / "a.html"), color_scheme="dark")
    seen.wait_for_figures()
    seen.page.emulate_media(media="print")
    seen.page.set_viewport_size({"width": 700, "height": 1000})
    for part in ".headgrid-view", ".headgrid-view > svg":
        assert seen.page.locator(part).bounding_box()["width"] <= 700
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert seen.page.evaluate(background) == "rgb(255, 255, 255)"
    printed = seen.page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


# Fragments


def small_charts(count):
    """Return different charts, heatmaps and per-head grids by turns."""
    return [
        (heatmap, perhead)[layer % 2](block_capture(2, (2, 3), layer=layer))
        for layer in range(count)
    ]


@pytest.mark.parametrize("loader", [True, False])
def test_two_dozen_fragments_stand_on_one_page(loader, visit, tmp_path):
    charts = small_charts(24)
    path, script = write_host(tmp_path, *(fragment(chart, loader=loader) for chart in charts))
    seen = visit(path)
    seen.wait_for_figures(24)
    titles = seen.page.locator("figure.headgrid").evaluate_all(
        "figures => figures.map(f => f.querySelectorAll('.role-title-text'))"
        ".map(titles => [...titles].at(-1).textContent)"
    )
    assert [re.match(r"Layer (\d+):", title)[1] for title in titles] == list(map(str, range(24)))
    ids = seen.page.locator("[id]").evaluate_all("nodes => nodes.map(n => n.id)")
    assert len(ids) == len(set(ids))
    seen.assert_harmless(script.as_uri())


def test_fragments_without_loader_work_on_a_strict_site(visit, tmp_path):
    figures = [fragment(chart, loader=False) for chart in small_charts(3)]
    write_host(tmp_path, *figures)
    with serve(tmp_path, STRICT) as (address, _):
        seen = visit(f"{address}/host.html")
        seen.wait_for_figures(3)
        box = seen.page.locator(".headgrid_bars_marks path").nth(1).bounding_box()
        assert seen.hover(box["x"] + 1, box["y"] + box["height"] / 2)["key"] == "1"
        tooltip = "getComputedStyle(document.querySelector('#vg-tooltip-element')).position"
        assert seen.page.evaluate(tooltip) == "fixed"
        seen.assert_harmless(
            *(f"{address}{p.name}" for p in ()), f"{address}/{script_of(tmp_path)}"
        )


def script_of(folder):
    """Return the name of the shared script of a folder."""
    (path,) = folder.glob("headgrid-*.js")
    return path.name


def test_the_shared_script_is_a_module_too_and_draws_what_comes_later(visit, tmp_path):
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
        seen.assert_harmless(f"{address}/{script.name}")


def test_the_shared_script_leaves_the_page_around_it_alone(visit, tmp_path):
    chart = small_charts(1)[0]
    before = visit(write_host(tmp_path, "<p>text</p>", bundle=False)[0])
    styles = "JSON.stringify(['html', 'body', 'p'].map(t => {"
    styles += "const s = getComputedStyle(document.querySelector(t));"
    styles += "return [s.color, s.backgroundColor, s.font, s.margin, s.colorScheme] }))"
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


def test_many_marks_are_drawn_as_pixels_with_tooltips(visit, tmp_path):
    capture = Capture.from_array(waves(1, 300, 300))
    seen = visit(headgrid.save(heatmap(capture), tmp_path / "a.html"))
    seen.wait_for_figures()
    assert seen.page.locator(".headgrid-view canvas").count() == 1
    box = seen.page.locator(".headgrid-view canvas").bounding_box()
    tooltip = seen.hover(box["x"] + 200, box["y"] + 200)
    head, query, key = (int(tooltip[name]) for name in ("head", "query", "key"))
    expected = round_values(capture.full_frame_attention)[head, query, key]
    assert number(tooltip["logit"]) == pytest.approx(expected, rel=1e-12)


def test_tiles_are_drawn_in_the_browser(visit, tmp_path):
    chart = heatmap(block_capture(2, (2, 3)), cells="image")
    seen = visit(headgrid.save(chart, tmp_path / "a.html"))
    seen.wait_for_figures()
    assert seen.page.locator(".headgrid-view image").count() == 2
    seen.assert_harmless()


# SVG


def pixels(locator):
    """Return what an element looks like, as numbers of 0 to 255."""
    with Image.open(io.BytesIO(locator.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_two_dozen_svgs_stand_on_one_page(visit, tmp_path):
    masses = heatmap(block_capture(2, (2, 3), statistic="mass"))  # another colour bar
    charts = [masses, *small_charts(23)]
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
    for place in 0, 1, 22, 23:
        path.write_text(host(figures[place], head=style), "utf-8")
        alone = pixels(visit(path).page.locator(".svg"))
        change = np.abs(pixels(together.page.locator(".svg").nth(place)) - alone)
        assert change.max() < 40  # edges, by where on the page they are
        assert (change > 1).mean() < 0.001
    together.assert_harmless()
