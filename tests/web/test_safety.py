"""Whatever prompts, titles, runs and specifications say: nothing runs, nothing is fetched."""

import io
import json
import re

import altair as alt
import pytest
from PIL import Image
from test_page import Reader

import headgrid
from browser import serve
from headgrid import Capture, fragment, heatmap, perhead, to_spec
from headgrid.web.save import begin_save
from synthetic import waves

# HOST becomes the address of a server that must not be asked for anything.
PAYLOADS = {
    "end of a script": "</script><script>window.canary=1</script>",
    "end of a script in capitals": "</SCRIPT ><ScRiPt>window.canary=1//",
    "comment": "<!-- <script> --> --!><script>window.canary=1</script>",
    "end of a section": "]]><script>window.canary=1</script><![CDATA[",
    "script of SVG": '<script xmlns="http://www.w3.org/2000/svg">window.canary=1</script>',
    "foreign object": "</text></svg><foreignObject><img src=x onerror=window.canary=1>",
    "link": '<a href="javascript:window.canary=1">javascript:window.canary=1</a>',
    "handler": "\" onload=\"window.canary=1\" x=\"' onload='window.canary=1' x='",
    "picture": "'\"><img src=HOST/a.png onerror=window.canary=1>",
    "style": "</style><style>@import url(HOST/a.css); * { background: url(HOST/b.png) }",
    "address": "url(HOST/a.png) HOST/b.png file:///etc/hostname",
    "entity": "&lt;script&gt; &#60;img src=HOST/a.png&#62; &quot; onload=&quot;canary=1",
    "expression": "datum.constructor.constructor('window.canary=1')()",
    "end of an expression": "'+warn('canary')+\"+warn('canary')+\\",
    "signal": '{"signal": "window.canary=1"} {{canary=1}} ${window.canary=1} %s {0}',
    "directions": "\u202egnp.exe\u202d\u2066\u2067\u2069\u200f abc",
    "control characters": "a\x00b\x08c\x1b[31md\x7f\ufffe\u0085",
    "line ends": "a\u2028</script>\u2029b\r\nc\nd",
    "lone surrogate": "a\ud800b\udfff",
    "long": "</script><script>window.canary=1</script>" * 25_000,
}
payloads = pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
#: What the browser sees in the default run; the others on nights.
SHOWN = ("end of a script", "handler", "address", "expression", "lone surrogate")


def hostile_chart(payload):
    capture = Capture.from_array(
        waves(2, 4, 4), layer=1, block_sizes=[2, 2], prompt=payload, run=payload
    )
    title = payload.replace("{", "{{").replace("}", "}}") + " {prompt} {run}"
    return [heatmap, perhead][len(payload) % 2](capture, title=title)


@pytest.fixture
def trap(tmp_path):
    """Yield the address of a server, and what it is asked for."""
    with serve(tmp_path) as (address, asked):
        yield address, asked


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(SHOWN, id="some"),
        *(pytest.param([name], id=name, marks=pytest.mark.nightly) for name in PAYLOADS),
    ],
)
def test_text_runs_nothing_and_fetches_nothing(names, trap, visit, tmp_path):
    address, asked = trap
    site = tmp_path / "site"
    script = headgrid.write_assets(site)
    head = f'<!doctype html><meta charset="utf-8"><script src="{script.name}" defer></script>'
    parts, figures = [head], 0
    for name in names:
        chart = hostile_chart(PAYLOADS[name].replace("HOST", address))
        drawing = headgrid.save(chart, site / f"{len(parts)}.svg")
        parts += [drawing.read_text(encoding="utf-8"), fragment(chart)]
        parts.append(fragment(chart, loader=False, id=f"again-{len(parts)}"))
        figures += 2
    visit(drawing, offline=True).assert_harmless()
    seen = visit(headgrid.save(chart, site / "page.html"), offline=True)
    seen.wait_for_figures()
    seen.assert_harmless()
    together = site / "together.html"
    together.write_text("\n".join(parts), encoding="utf-8")
    seen = visit(together, offline=True)
    seen.wait_for_figures(figures)
    seen.assert_harmless(script.as_uri())
    assert asked == []


@payloads
def test_text_is_text_in_every_format(payload):
    chart = hostile_chart(payload)
    spec = to_spec(chart)
    pictures = ["png", "pdf"] if payload in map(PAYLOADS.get, SHOWN) else []
    svg, html, text, *others = begin_save(spec, ["svg", "html", "json", *pictures], ppi=72)()
    assert json.loads(text) == spec
    assert not re.search(rb"<script|<foreignObject|<style|<a[ >]|<image", svg, re.IGNORECASE)
    tags = re.sub(rb">[^<]*<", b"><", svg)
    assert not re.search(rb"\son\w+=|javascript:|file:|https?://(?!www\.w3\.org/)", tags)
    assert len(svg) < 100_000
    if others:
        with Image.open(io.BytesIO(others[0])) as image:
            image.load()
            assert not image.info.keys() - {"dpi"}
        forbidden = rb"/(JavaScript|JS|URI|Launch|OpenAction|AA|EmbeddedFile)\b"
        assert not re.search(forbidden, others[1])
    page = Reader(html.decode("utf-8"))
    assert page.specs == [spec]
    tags = [tag for tag, _ in page.elements if tag in ("script", "img", "a", "style", "link")]
    assert tags == ["link", *["script"] * 3]
    assert not [n for _, attributes in page.elements for n in attributes if n.startswith("on")]


def test_no_text_of_a_capture_is_part_of_an_expression():
    word = "CANARYWORD"
    capture = Capture.from_array(waves(2, 4, 4), prompt=word, run=word)
    keys = "calculate|expr|labelExpr|signal|filter|test|as|field"
    for chart in heatmap(capture, title=word), perhead(capture), heatmap(capture, cells="image"):
        texts = re.findall(rf'"(?:{keys})":\s*("(?:[^"\\]|\\.)*")', headgrid.to_json(chart))
        assert len(texts) > 5
        assert word not in " ".join(texts)


def test_what_vega_embed_would_read_in_usermeta_is_left_out(tmp_path, visit):
    wanted = {"loader": {"baseURL": "http://127.0.0.1:9/"}, "patch": "http://127.0.0.1:9/p.json"}
    wanted |= {"config": "http://127.0.0.1:9/c.json", "ast": False, "actions": True}
    wanted |= {"defaultStyle": "</style><img src=x onerror=canary=1>", "theme": "dark"}
    spec = {
        "mark": "bar",
        "data": {"values": [{"a": 1}]},
        "encoding": {"x": {"field": "a"}},
        "usermeta": {"embedOptions": wanted, "mine": 1},
    }
    path = headgrid.save(spec, tmp_path / "a.html")
    found = Reader(path.read_text(encoding="utf-8")).specs[0]["usermeta"]
    assert found == {"mine": 1, "embedOptions": {"theme": "dark"}}
    assert "patch" in spec["usermeta"]["embedOptions"]  # the caller's own is left as it was
    seen = visit(path, offline=True)
    seen.wait_for_figures()
    seen.assert_harmless()
    assert seen.page.locator("details, .vega-actions").count() == 0


def test_the_browser_refuses_what_python_would_have_refused(visit, trap, tmp_path):
    """Somebody edits the specification in the page: the script is a boundary of its own."""
    address, asked = trap
    paints = [f"url({address}/b.svg#x)", f"u\\72l({address}/c.svg#x)"]
    cursor = {"expr": f"'ur'+'l({address}/e.png), auto'"}
    painted = {
        "data": {"values": [{"p": text} for text in paints]},
        "transform": [{"calculate": f"'ur'+'l({address}/d.svg#x)'", "as": "q"}],
        "mark": {"type": "rect", "cursor": cursor, "stroke": {"expr": "datum.q"}},
        "encoding": {"fill": {"field": "p", "scale": None}, "color": {"value": paints[1]}},
    }
    linked = {
        "data": {"values": [{"u": f"{address}/a.png", "h": "javascript:canary=1"}]},
        "mark": "image",
        "encoding": {"url": {"field": "u"}, "href": {"field": "h"}},
    }
    loaded = {"data": {"url": f"{address}/a.json"}, "mark": "bar"}  # nothing is drawn with it
    script, empty = headgrid.write_assets(tmp_path), {"mark": "bar", "data": {"values": []}}
    head = f"<!doctype html><meta charset=utf-8><script src={script.name} defer></script>"
    page = headgrid.save(empty, tmp_path / "a.html")
    live, inert, alone = fragment(empty), fragment(empty, loader=False), page.read_text()
    cases = [(head + live, [linked, loaded]), (head + live, [painted])]
    for whole, parts in [*cases, (head + inert, [painted]), (alone, [painted])]:
        text = f'json">{json.dumps({"hconcat": parts})}</script>'.replace("\\", r"\\")
        page.write_text(re.sub(r'(?s)json">.*?</script>', text, whole, count=1))
        seen = visit(page)
        seen.wait_for("document.querySelector('svg, .headgrid-view:not(:empty)') !== null")
        for mark in seen.page.locator("svg :is(image, .mark-rect path)").all():
            mark.click(force=True)
        seen.page.wait_for_timeout(100)
        assert seen.page.locator(".mark-rect path").count() == (2 if parts == [painted] else 0)
        assert not [url for url in seen.requests if address in url]
        assert seen.page.evaluate("window.canary") is None
    assert asked == []


def test_what_altair_composes_of_charts_runs_nothing_and_shows_their_text(visit, tmp_path):
    payload = f"<!-- <script> {PAYLOADS['end of a script']}"
    one, two = hostile_chart(payload), hostile_chart(f"{payload} ")
    plain = alt.Chart(alt.InlineData([{"a": payload}])).mark_text().encode(text="a:N")
    charts = [one | two, plain & one, alt.concat(one, two), one.repeat(["a", "b"])]
    for chart in [*charts, alt.layer(plain, one.spec, data=one.data)]:
        chart.save(tmp_path / "a.html")
        pages = [chart.to_html(), (tmp_path / "a.html").read_text("utf-8")]
        for renderer in "default", "html":
            with alt.renderers.enable(renderer):
                pages.append(chart._repr_mimebundle_()["text/html"])
        told = str(chart.to_dict()).count(payload)
        for html in pages:
            assert not re.search("<!--|<script>window|</script><script>", html)
            start = re.search(r'\{\s*"(config|\$schema|usermeta)', html).start()
            found, _ = json.JSONDecoder().raw_decode(html[start:])
            assert str(found).count(payload) == told > 0
    path = tmp_path / "b.html"
    path.write_text((one | plain).to_html(inline=True, embed_options={"renderer": "svg"}), "utf-8")
    seen = visit(path, offline=True)
    seen.page.locator("svg text", has_text="</script><script>window.canary=1").first.wait_for()
    assert seen.page.locator("svg text", has_text="<!-- <script>").count() == 2
    assert seen.page.evaluate("[window.canary ?? null, window.dialogs]") == [None, []]


def test_a_canary_that_sings_is_heard(visit, trap, tmp_path):
    """The tests above would notice: what they look for is found where it is."""
    address, asked = trap
    path = tmp_path / "bad.html"
    path.write_text(f"<script>window.canary=1; alert(2)</script><img src={address}/a.png>")
    seen = visit(path)
    seen.page.wait_for_timeout(100)
    assert seen.page.evaluate("window.canary") == 1
    assert seen.page.evaluate("window.dialogs") == ["alert(2)"]
    assert asked == ["/a.png"]
    with pytest.raises(AssertionError):
        seen.assert_harmless()
