"""What a notebook gets of a chart, and what readers of a notebook make of it."""

import base64
import json
import re
import subprocess
import tarfile
from functools import cache

import altair as alt
import pytest
from test_browser import SCRIPT, host
from test_page import Reader
from test_safety import PAYLOADS, hostile_chart, payloads

import headgrid
from browser import serve
from headgrid import Capture, heatmap, perhead, to_spec
from headgrid.render.convert import render_svg
from headgrid.web.assets import notebook_code
from headgrid.web.mimebundle import VEGALITE, bundle_chart
from pin_vega import BUILDS, CDN, VERSIONS, find_address
from synthetic import block_capture, waves

BUTTON = "Show values on hover"


@cache
def hostile_contents(payload):
    return hostile_chart(payload)._repr_mimebundle_()


def picture_of(html):
    (image,) = Reader(html).find("img")
    kind, _, data = image["src"].partition(";base64,")
    return kind.removeprefix("data:"), base64.b64decode(data)


def write_notebook(folder, *charts):
    path = folder / "notebook.html"
    html = (chart._repr_mimebundle_()["text/html"] for chart in charts)
    path.write_text(host(*html), encoding="utf-8")
    return path


@pytest.mark.parametrize("draw", [heatmap, perhead])
def test_a_chart_has_a_form_for_every_reader(draw):
    chart = draw(block_capture())
    bundle = chart._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", "image/svg+xml", VEGALITE}
    assert bundle["text/plain"] == repr(chart)
    assert bundle["image/svg+xml"] == render_svg(to_spec(chart))
    assert bundle[VEGALITE] == to_spec(chart)
    assert Reader(bundle["text/html"]).specs == [to_spec(chart)]
    assert picture_of(bundle["text/html"]) == ("image/svg+xml", bundle["image/svg+xml"].encode())


def test_every_form_is_json_that_a_notebook_can_hold():
    nbformat = pytest.importorskip("nbformat")
    chart = heatmap(block_capture(prompt="\u2028</script>"))
    bundle = chart._repr_mimebundle_()
    assert bundle == chart._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", bundle)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    nbformat.validate(notebook)
    assert json.loads(json.dumps(bundle)) == bundle


def test_a_customised_chart_or_stack_is_shown_as_it_is():
    bundle = heatmap(block_capture()).properties(title="Mine")._repr_mimebundle_()
    assert ">Mine<" in bundle["image/svg+xml"]
    assert bundle[VEGALITE]["title"] == "Mine"
    stack = headgrid.pick([block_capture()], ["0:0", "0:1"], figure="both")
    assert repr(stack).startswith("<Stack of ")
    assert stack._repr_mimebundle_().keys() == bundle.keys()


def test_large_figures_are_pixels_and_hold_their_data_once(monkeypatch):
    monkeypatch.setattr("headgrid.web.mimebundle.LARGE", 2000)
    bundle, metadata = heatmap(block_capture())._repr_mimebundle_()
    assert "image/svg+xml" not in bundle
    assert metadata["image/png"].keys() == {"width", "height"}
    kind, png = picture_of(bundle["text/html"])
    assert kind == "image/png"
    assert png == base64.b64decode(bundle["image/png"])
    assert png.startswith(b"\x89PNG")
    assert "<script" not in bundle["text/html"]


def test_a_reader_gets_the_forms_that_it_asks_for():
    chart = heatmap(block_capture())
    assert set(chart._repr_mimebundle_(include=["image/svg+xml"])) == {"image/svg+xml"}
    without = chart._repr_mimebundle_(exclude={"text/html", VEGALITE})
    assert set(without) == {"text/plain", "image/svg+xml"}


def test_altair_shows_what_headgrid_does_not_and_where_it_was_chosen():
    chart = heatmap(block_capture())
    for renderer in "html", "mimetype", "json", "png", "svg":
        with alt.renderers.enable(renderer):
            found = chart._repr_mimebundle_()
        bundle = found[0] if isinstance(found, tuple) else found
        assert BUTTON not in str(bundle.get("text/html"))
        assert VEGALITE not in bundle
    with alt.renderers.set_embed_options(actions=False, renderer="svg"):
        html = chart._repr_mimebundle_()["text/html"]
    assert '"actions": false' in html
    assert BUTTON not in html
    chart.data = alt.UrlData("https://example.com/cells.json")
    assert bundle_chart(chart) is None
    assert "https://example.com/cells.json" in chart._repr_mimebundle_()["text/html"]


def test_a_version_of_vega_lite_that_is_not_pinned_has_no_button():
    pinned = json.loads(re.search(r"scripts = (\[.*?\]);", notebook_code())[1])
    assert [src.startswith(CDN) for src, _ in pinned] == [True] * 3
    assert "scripts = [];" in notebook_code("https://vega.github.io/schema/vega-lite/v5.20.1.json")


@payloads
def test_no_text_of_a_chart_becomes_markup_or_code(payload):
    bundle = hostile_contents(payload)
    page = Reader(bundle["text/html"])
    assert page.specs == [bundle[VEGALITE]]
    expected = ["figure", "div", "img", "script", "figcaption", "script"]
    assert [tag for tag, _ in page.elements] == expected
    code = notebook_code(str(bundle[VEGALITE]["$schema"]))
    assert [text for a, text in page.scripts if not a] == [code]
    given = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in given if name.startswith("on")}
    assert len(bundle["text/plain"]) < 200
    json.dumps(bundle, ensure_ascii=False).encode("utf-8")  # as a kernel sends it
    tags = re.sub(">[^<]*<", "><", bundle["image/svg+xml"])
    assert not re.search(r"<script|<foreignObject|\son\w+=", tags)


def test_a_notebook_shows_the_picture_where_no_script_runs(visit, tmp_path):
    capture = Capture.from_array(waves(12, 21, 21), block_sizes=[3] * 7)
    path = write_notebook(tmp_path, heatmap(capture))
    seen = visit(path, offline=True, java_script_enabled=False)
    image = seen.page.locator("figure.headgrid img")
    assert image.evaluate("i => i.complete && i.naturalWidth > 500")
    assert image.bounding_box()["width"] > 500
    assert "Layer 0" in image.get_attribute("alt")
    assert seen.page.get_by_text(BUTTON).count() == 0
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]


def test_a_figure_stays_a_picture_where_vega_can_not_be_loaded_or_was_changed(visit, tmp_path):
    path = write_notebook(tmp_path, heatmap(block_capture()))
    for offline in True, False:
        seen = visit(path, offline=offline)
        seen.page.wait_for_timeout(100)
        seen.assert_harmless()  # nothing is fetched before somebody asks
        seen.page.route(f"{CDN}**", lambda r: r.fulfill(body="canary = 1", headers=SCRIPT))
        seen.page.get_by_text(BUTTON).click()
        button = "document.querySelector('figure button')"
        seen.wait_for(f"{button}.textContent.includes('not be loaded')")
        assert seen.page.evaluate("window.canary") is None
        assert seen.page.locator("figure.headgrid img").is_visible()


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
        files[find_address(name, version)] = build
    return files


@pytest.mark.nightly
def test_a_figure_becomes_live_with_the_files_of_the_registry(registry, visit, tmp_path):
    seen = visit(write_notebook(tmp_path, perhead(block_capture())))
    seen.page.route(f"{CDN}**", lambda r: r.fulfill(body=registry[r.request.url], headers=SCRIPT))
    seen.page.get_by_text(BUTTON).click()
    seen.wait_for_figures()
    box = seen.page.locator(".headgrid_bars_marks path").first.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "head: 0" in seen.page.locator("#vg-tooltip-element").inner_text()
    seen.assert_harmless(*registry)


@pytest.mark.parametrize("place", [" defer", pytest.param("", marks=pytest.mark.nightly)])
def test_on_a_page_with_vega_embed_figures_are_live_at_once(place, visit, tmp_path):
    script = headgrid.write_assets(tmp_path)
    html = perhead(block_capture())._repr_mimebundle_()["text/html"]
    head = f'<script src="{script.name}"{place}></script>'
    (tmp_path / "a.html").write_text(host(html, head=head), encoding="utf-8")
    with serve(tmp_path) as (address, _):
        seen = visit(f"{address}/a.html")
        seen.wait_for_figures()
        seen.wait_for("document.querySelector('figure button') === null")
        assert seen.page.locator(".headgrid-view img").count() == 0
        assert seen.page.locator(".headgrid_bars_marks path").count() == 8
        seen.assert_harmless(f"{address}/{script.name}")


@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_text_does_nothing_in_a_notebook(scripts, visit, tmp_path):
    html = [hostile_contents(payload)["text/html"] for payload in PAYLOADS.values()]
    cards = [
        Capture.from_array(waves(2, 4, 4), prompt=payload, run=payload)._repr_html_()
        for payload in PAYLOADS.values()
    ]
    path = tmp_path / "a.html"
    path.write_text(host(*html, *cards), encoding="utf-8")
    seen = visit(path, offline=True, java_script_enabled=scripts)
    assert seen.page.locator("figure.headgrid img").count() == len(html)
    assert seen.page.locator(".headgrid-card").count() == len(cards)
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]
    if scripts:
        seen.assert_harmless()
