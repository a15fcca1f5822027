import base64
import hashlib
import json
import re
import shutil
from collections import defaultdict
from html.parser import HTMLParser

import altair
import pytest
from click.testing import CliRunner

import headgrid
from headgrid import OptionError, RenderError, fragment, heatmap, perhead
from headgrid.cli.main import main
from headgrid.options import FONT_FAMILY
from headgrid.render import vega as engine
from headgrid.web import assets
from headgrid.web.page import find_caption, find_title, write_page
from headgrid.web.save import begin_save
from pin_vega import BUILDS, TABLE, VERSIONS, find_address, make_table
from synthetic import block_capture

EMBEDS = ["inline", "cdn", "assets"]


class Reader(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.texts, self.open = [], [], defaultdict(str), [""]
        self.feed(html)
        self.close()
        kind = "application/json"
        self.specs = [json.loads(text) for a, text in self.scripts if a.get("type") == kind]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        while tag in self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self.open[-1]
        self.texts[tag] += data
        if tag == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def chart():
    return heatmap(block_capture(2, (1, 2), prompt="a cat & <b>"), title="{prompt}")


@pytest.fixture(scope="module")
def spec(chart):
    return headgrid.to_spec(chart)


@pytest.mark.parametrize("embed", EMBEDS)
def test_a_page_has_a_labelled_figure_and_a_policy_for_its_scripts_alone(spec, embed, tmp_path):
    path = headgrid.save(spec, tmp_path / "a.html", embed=embed)
    page = Reader(path.read_text(encoding="utf-8"))
    assert page.specs == [spec]
    assert page.find("html")[0]["lang"] == "en"
    assert page.texts["title"] == page.texts["h1"] == "a cat & <b>"
    assert len(page.find("main")) == 1
    (figure,) = page.find("figure")
    assert figure["role"] == "figure"
    caption = spec["usermeta"]["headgrid"]["caption"]
    assert figure["aria-label"] == page.texts["figcaption"] == caption
    assert page.specs[0]["config"]["font"] == FONT_FAMILY
    if embed != "assets":
        assert f"font: 16px/1.5 {FONT_FAMILY};" in path.read_text(encoding="utf-8")
    (view,) = [a for a in page.find("div") if "headgrid-view" in a["class"]]
    assert view["tabindex"] == "0"
    assert view["aria-label"].startswith("a cat & <b>, Query Frames: 0-2")
    (meta,) = [a["content"] for a in page.find("meta") if "http-equiv" in a]
    policy = dict(rule.split(" ", 1) for rule in meta.split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in meta
    needed = set()
    for attributes, text in page.scripts:
        if attributes.get("type") == "application/json":
            continue
        if "src" in attributes:
            needed.add("'self'" if embed == "assets" else attributes["src"])
            pinned = re.search(r"/npm/[a-z-]+@\d+\.\d+\.\d+/build/", attributes["src"])
            assert embed == "assets" or (pinned and "sha384-" in attributes["integrity"])
        else:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            needed.add(f"'sha256-{digest}'")
    assert set(policy["script-src"].split()) == needed
    assert needed


def test_an_unknown_embed_is_refused_with_the_choices(spec, capture_file, tmp_path):
    with pytest.raises(OptionError, match=r"embed is 'asets', expected one of .* mean 'assets'"):
        headgrid.save(spec, tmp_path / "a.html", embed="asets")
    with pytest.raises(OptionError, match="embed is None"):
        begin_save(spec, ["svg"], embed=None)
    assert list(tmp_path.iterdir()) == []
    command = ["render", str(capture_file()), "-o", str(tmp_path / "o"), "--embed", "inlin"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "embed is 'inlin', expected one of inline, cdn, assets; did you mean" in done.stderr


def test_title_and_caption_are_found_in_any_specification():
    assert find_title({"title": {"text": ["a", "", "b"]}}) == ["a", "b"]
    for nothing in ({}, {"title": {"text": {"expr": "1"}}}, {"title": ["", " "]}, {"title": 3}):
        assert find_title(nothing) == ["Figure"]
    assert find_title({"description": "d" * 90}) == ["d" * 79 + "…"]
    assert find_caption({"description": "d", "title": "t"}) == "d"
    assert find_caption({"title": ["a", "b"], "usermeta": {"headgrid": 3}}) == "a, b"
    assert find_caption({"usermeta": {"headgrid": {"caption": "c"}}, "description": "d"}) == "c"
    # A long title is short in the page, and whole in the specification.
    spec = {"mark": "bar", "data": {"values": []}, "title": "x" * 1_000_000}
    page = Reader(write_page(spec, embed="cdn"))
    assert page.texts["title"] == "x" * 199 + "…"
    assert page.specs[0]["title"] == "x" * 1_000_000


def test_a_fragment_is_a_figure_and_a_loader_that_is_the_same_for_all(chart, spec):
    page = Reader(fragment(chart, picture=False))
    assert [tag for tag, _ in page.elements] == ["figure", "div", "script", "figcaption", "script"]
    assert page.specs == [spec]
    assert "vegaEmbed(view, spec" in page.scripts[1][1]
    assert page.scripts[1] == Reader(fragment(perhead(block_capture()))).scripts[1]
    assert [a for a, _ in Reader(fragment(chart)).scripts] == [a for a, _ in page.scripts]
    page = Reader(fragment(chart, loader=False, caption=False))
    assert page.find("svg")[0]["viewbox"].startswith("0 0 ")
    assert not page.find("figcaption")
    assert page.find("figure")[0]["aria-label"] == spec["usermeta"]["headgrid"]["caption"]
    assert [a for a, _ in page.scripts] == [{"type": "application/json"}]
    assert not [n for _, a in page.elements for n in a if n == "style" or n.startswith("on")]


def test_ids_follow_from_the_content_and_a_schema_is_there(chart):
    def id_of(*arguments, **options):
        return Reader(fragment(*arguments, **options)).find("figure")[0]["id"]

    captures = [block_capture(layer=layer) for layer in range(4)]
    ids = {id_of(perhead(capture)) for capture in captures}
    assert len(ids) == 4
    assert all(re.fullmatch(r"headgrid-[0-9a-f]{12}", id) for id in ids)
    assert id_of(chart) == id_of(chart, loader=False, caption=False)
    assert id_of(chart, id='a"b') == 'a"b'
    (other,) = Reader(fragment({"marks": [], "mark": "bar", "data": {"values": []}})).specs
    assert other["$schema"] == "https://vega.github.io/schema/vega-lite/v6.json"
    for id in ("", "a b", "a\n", "\x00"):
        with pytest.raises(OptionError, match="expected text without spaces"):
            fragment(chart, id=id)


def test_the_assets_are_one_script_with_its_hash_in_the_name(tmp_path):
    path = headgrid.write_assets(tmp_path / "a" / "b")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"headgrid-{headgrid.__version__}-{digest[:12]}.js"
    assert path.stat().st_size < 950_000
    whole, before = path.read_bytes(), path.stat().st_mtime_ns
    assert headgrid.write_assets(tmp_path / "a" / "b") == path
    assert path.stat().st_mtime_ns == before
    path.write_bytes(whole[:1000])  # damaged
    assert headgrid.write_assets(tmp_path / "a" / "b").read_bytes() == whole


def test_the_command_writes_the_script_that_pages_ask_for(spec, tmp_path):
    done = CliRunner().invoke(main, ["assets", "-o", str(tmp_path / "web")])
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "web").iterdir()
    assert done.stdout == f"{path}\n"
    page = Reader(write_page(spec, embed="assets", base="../web/"))
    assert [a["src"] for a, _ in page.scripts if "src" in a] == [f"../web/{path.name}"]
    (tmp_path / "file").write_text("x")
    done = CliRunner().invoke(main, ["assets", "-o", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert re.fullmatch(r"headgrid: .*expected a .*\n", done.stderr)


def test_pages_in_many_folders_share_one_script(capture_file, tmp_path):
    for name in "run_000/layer0.npz", "run_001/layer0.npz":
        capture_file(f"in/{name}")
    command = ["render", f"{tmp_path}/in", "-o", f"{tmp_path}/out", "--format", "html"]
    done = CliRunner().invoke(main, [*command, "--embed", "assets"])
    assert done.exit_code == 0, done.output
    (script,), pages = tmp_path.rglob("*.js"), list(tmp_path.rglob("*.html"))
    assert len(pages) == 4
    for path in pages:
        scripts = Reader(path.read_text(encoding="utf-8")).scripts
        assert [(path.parent / a["src"]).resolve() for a, _ in scripts if "src" in a] == [script]


def test_every_pin_is_an_exact_version_with_a_sha384_and_that_of_the_pictures():
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    for schema, row in table.items():
        versions = VERSIONS[schema]
        assert list(versions) == list(BUILDS)
        assert versions["vega-lite"].startswith(f"{schema}.")
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())
        assert list(row) == [find_address(*library) for library in versions.items()]
        for integrity in row.values():
            assert len(base64.b64decode(integrity.removeprefix("sha384-"), validate=True)) == 48
    assert list(table) == list(VERSIONS)
    used = engine.find_versions(f"/vega-lite/{altair.SCHEMA_VERSION}")
    exact = {**used, "vega-lite": altair.SCHEMA_VERSION.removeprefix("v")}
    assert VERSIONS[used["vega-lite"]] == exact
    old = {"$schema": "https://vega.github.io/schema/vega-lite/v5.20.json", "mark": "bar"}
    with pytest.raises(OptionError, match=r"is for Vega-Lite 5\.20, expected one of 6\.1, 6\.4"):
        write_page(old, embed="cdn")


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
def test_the_pins_are_those_of_the_registry():
    assert make_table() == TABLE.read_text(encoding="utf-8")


def test_a_script_that_would_end_its_element_is_refused():
    for text in ("a</SCRIPT>", "<!-- a", "'<script'"):
        with pytest.raises(RenderError, match="can stand in a page"):
            assets.check_script(text)
