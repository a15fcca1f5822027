"""The examples for MkDocs, Sphinx and Jupyter are built, and looked at in a browser, offline."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import headgrid
import headgrid.recorder
import headgrid.testing
from browser import serve
from headgrid.capture.demo import demo_folder
from places import EXAMPLES

HOSTILE = "</script><script>window.canary = 1</script>"


def needs(*names):
    """Skip a test where a package is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")


def run(*command, folder):
    """Run a module of Python in a folder and return what it printed; warnings of others pass."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(system, folder, *changed):
    """Build a site of the examples in a folder of its own, with hostile titles in some files."""
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("gallery"))
    for name in changed:
        path = folder / "examples" / name
        text = path.read_text(encoding="utf-8")
        assert "title=TITLE" in text
        path.write_text(text.replace("title=TITLE", f"title={HOSTILE!r}"), encoding="utf-8")
    source, site = folder / "examples/docs" / system, folder / "root/site"
    if system == "mkdocs":
        run("mkdocs", "build", "--quiet", "--strict", "--site-dir", site, folder=source)
    else:
        run("sphinx", "--quiet", "--fail-on-warning", ".", site, folder=source)
    return site


def assert_own_files_alone(seen, address):
    """Nothing was asked of any other place, and nothing was complained of."""
    others = [u for u in seen.requests if not u.startswith((address, "data:", "blob:"))]
    assert others == []
    assert [line for line in seen.console if "search" not in line and "Lunr" not in line] == []
    assert seen.page.evaluate("window.canary") is None


def hover(page, locator, x=0.5, y=0.5):
    """Move the mouse over a place in an element, and return the tooltip."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    return read_tooltip(tooltip)


def read_tooltip(tooltip):
    """Return what a tooltip says, by name."""
    words = tooltip.inner_text().replace(":", "").split()
    return dict(zip(words[::2], words[1::2], strict=True))


def logit(head, query, key):
    """Return a value of the demonstration capture."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    return float(capture.full_frame_attention[head, query, key])


# MkDocs


def assert_live(seen):
    """The page about documentation has the heatmap by the charts plugin, the profiles live."""
    seen.wait_for_figures()
    seen.wait_for("document.querySelector('vegachart svg') !== null")
    image = seen.page.locator('img[src$="demo_heatmap.svg"]')
    assert image.evaluate("i => i.complete && i.naturalWidth > 500")
    assert seen.page.locator("vegachart .headgrid_frame_marks path").count() == 12
    assert seen.page.locator("figure.headgrid .headgrid_bars_marks path").count() == 12 * 21
    # The left column of head 0: its sink.
    panel = seen.page.locator("vegachart .headgrid_frame_marks path").first
    tooltip = hover(seen.page, panel, 0.5 / 21, 10.5 / 21)
    expected = {"head": "0", "query": "10", "key": "0", "logit": f"{logit(0, 10, 0):.4g}"}
    assert tooltip == expected
    texts = seen.page.locator("vegachart .role-title-text").all_text_contents()
    assert any(HOSTILE in text for text in texts)


@needs("mkdocs_charts_plugin", "mkdocs_click", "mkdocstrings_handlers", "material")
def test_the_site_is_whole_usable_by_all_and_loads_nothing_from_elsewhere(visit, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    site = build("mkdocs", tmp_path, "demo_heatmap.py", "demo_perhead.py")
    spec = json.loads((site / "figures/demo_heatmap.vl.json").read_text(encoding="utf-8"))
    assert spec["facet"]["field"] == "head"

    texts = [path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html")]
    told = set(re.findall(r'id="headgrid[\w.]*\.(\w+)"', "".join(texts)))
    for module in (headgrid, headgrid.recorder, headgrid.testing):
        assert set(module.__all__) - told == set(), module

    with serve(site.parent) as (root, _):
        address = f"{root}/site/"  # below the top of its domain, as many sites are
        for page in ("", "gallery/", "reference/charts/", "how-to/project-docs/"):
            seen = visit(address + page)
            if page == "how-to/project-docs/":
                assert_live(seen)
            else:
                found = axe.run(seen.page).response["violations"]
                assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
            assert_own_files_alone(seen, address)


# Sphinx


@pytest.fixture(scope="module")
def sphinx_site(tmp_path_factory):
    """Return the site that the example for Sphinx builds."""
    changed = ("docs/sphinx/conf.py", "docs/sphinx/index.rst")
    return build("sphinx", tmp_path_factory.mktemp("sphinx"), *changed)


@needs("sphinx", "sphinxext_altair")
def test_a_site_of_sphinx_shows_every_figure_and_loads_nothing_from_elsewhere(visit, sphinx_site):
    html = (sphinx_site / "index.html").read_text(encoding="utf-8")
    assert "<script>window.canary" not in html
    assert "window.canary" in html
    with serve(sphinx_site) as (address, _):
        seen = visit(f"{address}/index.html")
        seen.wait_for_figures()
        seen.wait_for("document.querySelector('[id*=altair-plot] canvas') !== null")
        image = seen.page.locator('img[src$="heatmap.svg"]')
        assert image.evaluate("i => i.complete && i.naturalWidth > 500")
        canvas = seen.page.locator("[id*=altair-plot] canvas")
        assert canvas.bounding_box()["width"] > 500
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for step in range(12):  # down the left border of the first panel
            seen.page.mouse.move(box["x"] + 60, box["y"] + 60 + 10 * step)
        told = read_tooltip(seen.page.locator("#vg-tooltip-element"))
        key, query = int(told["key"]), int(told["query"])
        assert told["head"] == "0"
        assert told["logit"].replace("\u2212", "-") == f"{logit(0, query, key):.4g}"
        assert_own_files_alone(seen, address)


@pytest.mark.nightly
@needs("sphinx", "sphinxext_altair")
def test_a_site_of_sphinx_works_from_disk(visit, sphinx_site):
    seen = visit(sphinx_site / "index.html", offline=True)
    seen.wait_for_figures()
    seen.wait_for("document.querySelector('[id*=altair-plot] canvas') !== null")
    assert_own_files_alone(seen, sphinx_site.as_uri())


# Jupyter


def convert(source, folder, *options):
    """Run nbconvert on a notebook of the examples, its cells executed first, into a folder."""
    for name in ("nbclient", "nbconvert", "ipykernel"):
        pytest.importorskip(name)
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    shutil.copy(source, folder)
    run(
        "nbconvert",
        "--execute",
        *options,
        "--output-dir",
        folder / "out",
        source.name,
        folder=folder,
    )
    return folder / "out"


def test_a_notebook_as_html_shows_cards_and_figures_without_scripts_and_offline(visit, tmp_path):
    folder = convert(EXAMPLES / "one_layer.ipynb", tmp_path, "--to", "html")
    files = sorted(path.name for path in (tmp_path / "attention_analysis/layer0").iterdir())
    assert files == ["layer0_2d_heatmap.svg", "layer0_perhead_grid.svg"]
    seen = visit(folder / "one_layer.html", offline=True, java_script_enabled=False)
    assert "12 heads, 21 query x 21 key frames" in seen.page.locator("body").inner_text()
    images = seen.page.locator("figure.headgrid img, .headgrid-card img")
    assert images.count() == 4  # heads, colours, and two figures
    assert images.evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 0)")
    for number in range(2):
        box = seen.page.locator("figure.headgrid img").nth(number).bounding_box()
        assert box["width"] > 500
        assert box["height"] > 300


@pytest.mark.nightly
def test_an_executed_notebook_holds_every_form_of_its_figures(tmp_path):
    folder = convert(EXAMPLES / "one_layer.ipynb", tmp_path, "--to", "notebook")
    notebook = json.loads((folder / "one_layer.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    card, heatmap, perhead, *_ = [output["data"] for output in outputs if "data" in output]
    assert "<Capture layer 0: logit" in "".join(card["text/plain"])
    for figure in heatmap, perhead:
        assert figure["application/vnd.vegalite.v6+json"]["facet"]["field"] == "head"
        assert "".join(figure["image/svg+xml"]).rstrip().endswith("</svg>")
        assert "<img" in "".join(figure["text/html"])
    priority = ["--NbConvertBase.display_data_priority", "image/svg+xml"]
    folder = convert(EXAMPLES / "one_layer.ipynb", tmp_path, "--to", "markdown", *priority)
    drawings = [p.read_text(encoding="utf-8") for p in folder.glob("one_layer_files/*.svg")]
    shown = ["".join(figure["image/svg+xml"]) for figure in (heatmap, perhead)]
    assert sorted(map(str.strip, drawings)) == sorted(map(str.strip, shown))


@pytest.mark.nightly
def test_the_notebook_of_a_whole_model_shows_cards_and_figures_offline(visit, tmp_path):
    folder = convert(EXAMPLES / "docs/jupyter/whole_model.ipynb", tmp_path, "--to", "html")
    seen = visit(folder / "whole_model.html", offline=True, java_script_enabled=False)
    cards = seen.page.locator(".headgrid-card").all_inner_texts()
    assert "layer 0: Attention Logits" in cards[0].splitlines()[0]
    assert "1 run, 2 layers x 12 heads" in cards[1]
    assert cards[2].startswith("Color range")
    images = seen.page.locator("figure.headgrid img")
    assert images.count() == 2
    assert images.evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 300)")


@pytest.mark.nightly
def test_an_exported_notebook_becomes_live_beside_the_shared_script(visit, tmp_path):
    options = ("--to", "html", "--template", "basic")
    folder = convert(EXAMPLES / "one_layer.ipynb", tmp_path, *options)
    script = headgrid.write_assets(folder)
    body = (folder / "one_layer.html").read_text(encoding="utf-8")
    tag = f'<!doctype html><meta charset="utf-8"><script src="{script.name}"></script>'
    (folder / "live.html").write_text(tag + body, encoding="utf-8")
    seen = visit(folder / "live.html", offline=True)
    seen.wait_for_figures(2)
    bars = seen.page.locator(".headgrid_bars_marks path")
    assert hover(seen.page, bars.first)["key"] == "0"
