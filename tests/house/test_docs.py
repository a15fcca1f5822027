"""The examples for MkDocs, Sphinx and Jupyter are built, and looked at in a browser, offline."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

import headgrid
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


def build(system, folder, **changes):
    """Build an example in a folder of its own, with some texts changed; return the site."""
    source = folder / system
    shutil.copytree(EXAMPLES / "docs" / system, source)
    for name, (old, new) in changes.items():
        path = source / name.replace("_", ".")
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    site = source / "site"
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


@needs("mkdocs", "mkdocs_charts_plugin")
def test_a_site_of_mkdocs_shows_every_figure_and_loads_nothing_from_elsewhere(visit, tmp_path):
    site = build("mkdocs", tmp_path)
    spec = json.loads((site / "figures/heatmap.vl.json").read_text(encoding="utf-8"))
    assert spec["facet"]["field"] == "head"
    with serve(tmp_path / "mkdocs") as (root, asked):
        address = f"{root}/site/"  # below the top of its domain, as many sites are
        seen = visit(address)
        seen.wait_for_figures()
        seen.wait_for("document.querySelector('vegachart svg') !== null")
        image = seen.page.locator('img[src$="heatmap.svg"]')
        assert image.evaluate("i => i.complete && i.naturalWidth > 500")
        assert seen.page.locator("vegachart .headgrid_frame_marks path").count() == 12
        assert seen.page.locator("figure.headgrid .headgrid_bars_marks path").count() == 12 * 21
        # The left column of head 0: its sink.
        panel = seen.page.locator("vegachart .headgrid_frame_marks path").first
        tooltip = hover(seen.page, panel, 0.5 / 21, 10.5 / 21)
        expected = {"head": "0", "query": "10", "key": "0", "logit": f"{logit(0, 10, 0):.4g}"}
        assert tooltip == expected
        assert "/site/figures/heatmap.vl.json" in asked
        assert_own_files_alone(seen, address)


@pytest.mark.nightly
@needs("mkdocs", "mkdocs_charts_plugin")
def test_a_hostile_title_does_nothing_on_a_site_of_mkdocs(visit, tmp_path):
    title = f"title={HOSTILE!r}"
    site = build("mkdocs", tmp_path, hooks_py=("title=TITLE", title))
    with serve(site) as (address, _):
        seen = visit(f"{address}/")
        seen.wait_for_figures()
        seen.wait_for("document.querySelector('vegachart svg') !== null")
        texts = seen.page.locator("vegachart .role-title-text").all_text_contents()
        assert any(HOSTILE in text for text in texts)
        assert_own_files_alone(seen, address)


# Sphinx


@pytest.fixture(scope="module")
def sphinx_site(tmp_path_factory):
    """Return the site that the example for Sphinx builds."""
    return build("sphinx", tmp_path_factory.mktemp("sphinx"))


@needs("sphinx", "sphinxext_altair")
def test_a_site_of_sphinx_shows_every_figure_and_loads_nothing_from_elsewhere(visit, sphinx_site):
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


@needs("sphinx", "sphinxext_altair")
def test_a_hostile_title_does_nothing_on_a_site_of_sphinx(visit, tmp_path):
    title = f"title={HOSTILE!r}"
    site = build(
        "sphinx", tmp_path, conf_py=("title=TITLE", title), index_rst=("title=TITLE", title)
    )
    html = (site / "index.html").read_text(encoding="utf-8")
    assert "<script>window.canary" not in html
    with serve(site) as (address, _):
        seen = visit(f"{address}/index.html")
        seen.wait_for_figures()
        seen.wait_for("document.querySelector('[id*=altair-plot] canvas') !== null")
        assert_own_files_alone(seen, address)


# Jupyter


def execute(source, folder):
    """Return the path of a notebook that a kernel of this environment has executed."""
    for name in ("nbclient", "nbconvert", "ipykernel"):
        pytest.importorskip(name)
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    path = folder / source.name
    shutil.copy(source, path)
    run("nbconvert", "--to", "notebook", "--execute", "--inplace", path, folder=folder)
    nbformat.validate(nbformat.read(path, as_version=4))
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return the path of the notebook of one layer, executed."""
    return execute(EXAMPLES / "one_layer.ipynb", tmp_path_factory.mktemp("notebook"))


def outputs_of(path):
    """Return what each output of a notebook holds, by mime type."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    return [output["data"] for output in outputs if "data" in output]


def test_an_executed_notebook_holds_cards_and_pictures(executed):
    card, heatmap, perhead, *_ = outputs_of(executed)
    assert "12 heads, 21 query x 21 key frames" in "".join(card["text/html"])
    assert "<Capture layer 0: logit" in "".join(card["text/plain"])
    for figure in heatmap, perhead:
        assert figure["application/vnd.vegalite.v6+json"]["facet"]["field"] == "head"
        assert "".join(figure["image/svg+xml"]).rstrip().endswith("</svg>")
        assert "<img" in "".join(figure["text/html"])
    assert executed.stat().st_size < 600_000


def export(path, *options):
    """Export a notebook by nbconvert, and return the folder."""
    run("nbconvert", *options, "--output-dir", path.parent / "out", path, folder=path.parent)
    return path.parent / "out"


def test_an_exported_notebook_shows_its_figures_without_scripts_and_offline(executed, visit):
    page = export(executed, "--to", "html") / "one_layer.html"
    seen = visit(page, offline=True, java_script_enabled=False)
    images = seen.page.locator("figure.headgrid img, .headgrid-card img")
    assert images.count() == 4  # heads, colours, and two figures
    loaded = "images => images.every(i => i.complete && i.naturalWidth > 0)"
    assert images.evaluate_all(loaded)
    for number in range(2):
        box = seen.page.locator("figure.headgrid img").nth(number).bounding_box()
        assert box["width"] > 500
        assert box["height"] > 300


@pytest.mark.nightly
def test_the_notebook_of_a_whole_model_shows_cards_and_figures_offline(visit, tmp_path):
    path = execute(EXAMPLES / "docs/jupyter/whole_model.ipynb", tmp_path)
    page = export(path, "--to", "html") / "whole_model.html"
    seen = visit(page, offline=True, java_script_enabled=False)
    cards = seen.page.locator(".headgrid-card").all_inner_texts()
    assert "layer 0: Attention Logits" in cards[0].splitlines()[0]
    assert "1 run, 2 layers x 12 heads" in cards[1]
    assert cards[2].startswith("Color range")
    images = seen.page.locator("figure.headgrid img")
    assert images.count() == 2
    assert images.evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 300)")


@pytest.mark.nightly
def test_an_exported_notebook_becomes_live_beside_the_shared_script(executed, visit):
    folder = export(executed, "--to", "html", "--template", "basic")
    script = headgrid.write_assets(folder)
    body = (folder / "one_layer.html").read_text(encoding="utf-8")
    tag = f'<!doctype html><meta charset="utf-8"><script src="{script.name}"></script>'
    page = folder / "live.html"
    page.write_text(tag + body, encoding="utf-8")
    seen = visit(page, offline=True)
    seen.wait_for_figures(2)
    bars = seen.page.locator(".headgrid_bars_marks path")
    assert hover(seen.page, bars.first)["key"] == "0"


@pytest.mark.nightly
def test_a_notebook_in_markdown_has_the_same_pictures(executed):
    folder = export(
        executed, "--to", "markdown", "--NbConvertBase.display_data_priority", "image/svg+xml"
    )
    drawings = sorted(folder.glob("one_layer_files/*.svg"))
    svgs = [data["image/svg+xml"] for data in outputs_of(executed) if "image/svg+xml" in data]
    assert sorted(p.read_text(encoding="utf-8").strip() for p in drawings) == sorted(
        "".join(svg).strip() for svg in svgs
    )
