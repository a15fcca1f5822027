import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import Reader

import headgrid
from headgrid import Capture, RenderError, heatmap, perhead, to_spec
from headgrid.render.convert import render
from headgrid.render.expressions import CONSTANTS, FUNCTIONS, find_forbidden
from headgrid.render.policy import PNG_URI, check_drawing, check_spec, is_png
from places import SPECS
from synthetic import block_capture

GOLDENS = sorted(SPECS.glob("*.vl.json"))
BASE = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
PIXEL = f"{PNG_URI}iVBORw0KGgo="


def spec_with(**parts):
    """Return a small specification with some parts replaced."""
    return {**copy.deepcopy(BASE), **parts}


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name)
def test_our_own_specifications_pass_as_they_are(path):
    spec = json.loads(path.read_text(encoding="utf-8"))
    assert check_spec(spec) is spec


@pytest.mark.parametrize("draw", [heatmap, perhead])
@pytest.mark.parametrize("scale", [1e-9, 1, 1e9])
def test_figures_of_any_size_pass(draw, scale):
    spec = to_spec(draw(block_capture(3, (1, 3, 30), scale=scale)))
    assert check_spec(spec) is spec


def test_tiles_pass():
    spec = to_spec(heatmap(block_capture(), cells="image"))
    assert check_spec(spec) is spec


ELSEWHERE = {
    "data": spec_with(data={"url": "a.csv"}),
    "file": spec_with(data={"url": "file:///etc/hostname"}),
    "lookup": spec_with(
        transform=[{"lookup": "a", "from": {"data": {"url": "x.csv"}, "key": "a", "fields": ["b"]}}]
    ),
    "nested": {"vconcat": [{"hconcat": [spec_with(data={"url": "a.csv"})]}]},
    "layer": {"layer": [spec_with(data={"url": "a.csv"})]},
    "facet": {"facet": {"field": "a"}, "spec": spec_with(data={"url": "a.csv"})},
    "link channel": spec_with(encoding={"href": {"value": "https://example.org"}}),
    "link of data": spec_with(encoding={"href": {"field": "a"}}),
    "link of a mark": spec_with(mark={"type": "bar", "href": "javascript:alert(1)"}),
    "link in config": spec_with(config={"mark": {"href": "javascript:alert(1)"}}),
    "link in a style": spec_with(config={"style": {"data": {"href": "javascript:alert(1)"}}}),
    "picture": spec_with(mark={"type": "image", "url": "https://example.org/a.png"}),
    "picture by expression": spec_with(mark={"type": "image", "url": {"expr": "'a' + '.png'"}}),
    "picture of data": spec_with(
        mark="image", data={"values": [{"u": "a.png"}]}, encoding={"url": {"field": "u"}}
    ),
    "picture as SVG": spec_with(
        mark="image",
        data={"values": [{"u": "data:image/svg+xml,<svg/>"}]},
        encoding={"url": {"field": "u"}},
    ),
    "picture that is none": spec_with(
        mark="image", data={"values": [{"u": f'{PNG_URI}A"><x'}]}, encoding={"url": {"field": "u"}}
    ),
    "picture on condition": spec_with(
        mark="image",
        data={"values": [{"u": PIXEL}]},
        encoding={"url": {"field": "u", "condition": {"test": "true", "value": "a.png"}}},
    ),
    "computed picture": spec_with(
        mark="image",
        data={"values": [{"u": PIXEL}]},
        transform=[{"calculate": "'file:///etc/hostname'", "as": "u"}],
        encoding={"url": {"field": "u"}},
    ),
    "computed picture of generated data": spec_with(
        mark="image",
        data={"sequence": {"start": 0, "stop": 1, "as": "u"}},
        encoding={"url": {"field": "u"}},
    ),
    "picture in a table of text": spec_with(
        mark="image",
        data={"values": "u\na.png", "format": {"type": "csv"}},
        encoding={"url": {"field": "u"}},
    ),
    "picture in a named table of text": spec_with(
        mark="image",
        data={"name": "d", "format": {"type": "csv"}},
        datasets={"d": "u\na.png"},
        encoding={"url": {"field": "u"}},
    ),
    "picture in one record": spec_with(
        mark="image", data={"values": {"u": "a.png"}}, encoding={"url": {"field": "u"}}
    ),
    "picture inside a record": spec_with(
        mark="image",
        data={"values": [{"u": PIXEL, "v": [{"u": "a.png"}]}], "format": {"property": "0.v"}},
        encoding={"url": {"field": "u"}},
    ),
    "looked-up picture": spec_with(
        mark="image",
        data={"values": [{"u": PIXEL, "k": 1}]},
        transform=[
            {
                "lookup": "k",
                "from": {"data": {"values": [{"k": 1, "u": "a.png"}]}, "key": "k", "fields": ["u"]},
            }
        ],
        encoding={"url": {"field": "u"}},
    ),
    "pivoted picture": spec_with(
        mark="image",
        data={"values": [{"u": PIXEL, "k": "u", "v": "a.png"}]},
        transform=[{"pivot": "k", "value": "v"}],
        encoding={"url": {"field": "u"}},
    ),
    "paint": spec_with(mark={"type": "bar", "fill": "url(https://example.org/a.svg#b)"}),
    "paint in config": spec_with(config={"background": "URL(https://example.org/a.png)"}),
    "paints of a range": spec_with(
        encoding={"color": {"field": "a", "scale": {"range": ["red", "url(http://x/#a)"]}}}
    ),
    "mouse pointer": spec_with(mark={"type": "bar", "cursor": "url(https://example.org/a.cur)"}),
    "schema of Vega": spec_with(**{"$schema": "https://vega.github.io/schema/vega/v6.json"}),
    "schema that looks like two": spec_with(
        **{"$schema": "https://x/vega-lite/v6/schema/vega/v6.json"}
    ),
    "field of the page": spec_with(
        params=[{"name": "p", "value": 1, "bind": {"element": "#password"}}]
    ),
    "signals": spec_with(config={"signals": [{"name": "s", "update": "1"}]}),
    "endless data": spec_with(data={"sequence": {"start": 0, "stop": 1e12}}),
    "endless data by steps": spec_with(data={"sequence": {"start": 0, "stop": 1, "step": 0}}),
}


@pytest.mark.parametrize("format", ["svg", "png", "pdf", "html", "json"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_reaches_beyond_the_figure_is_refused_in_every_format(name, format, tmp_path):
    with pytest.raises(RenderError, match="expected"):
        headgrid.save(ELSEWHERE[name], tmp_path / f"a.{format}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_reaches_beyond_the_figure_is_refused_in_fragments(name):
    with pytest.raises(RenderError, match="expected"):
        headgrid.fragment(ELSEWHERE[name])


def test_a_refusal_says_what_and_where():
    text = (
        r"the specification names 'https://example\.org/a\.csv' at hconcat\[1\]\.data\.url, "
        "expected data inside the specification; nothing is fetched or linked"
    )
    with pytest.raises(RenderError, match=text):
        check_spec({"hconcat": [BASE, spec_with(data={"url": "https://example.org/a.csv"})]})


def test_data_may_say_what_a_specification_may_not():
    rows = [{"url": "http://x", "href": "javascript:x", "a": "url(x)", "expr": "alert(1)"}]
    spec = spec_with(data={"values": rows}, usermeta={"href": "x", "note": "url(x)"})
    assert check_spec(spec) is spec
    named = {"data": {"name": "d"}, "datasets": {"d": rows}, "mark": "bar"}
    assert check_spec(named) is named
    titled = spec_with(title="url(x) href=javascript:", encoding={"x": {"title": "url(x)"}})
    assert check_spec(titled) is titled
    domain = spec_with(encoding={"x": {"field": "a", "scale": {"domain": ["url(x)"]}}})
    assert check_spec(domain) is domain


def test_a_paint_of_data_is_refused_in_the_drawing():
    spec = spec_with(
        data={"values": [{"a": "url(https://example.org/a.svg#b)"}]},
        encoding={"color": {"field": "a", "scale": None}},
    )
    with pytest.raises(RenderError, match=r"the drawing names 'url\(https://.* in fill, expected"):
        render(spec, "svg")


def test_a_drawing_may_show_text_that_looks_like_a_reference():
    text = 'a href="http://x" fill="url(http://x)" style="\\"'
    spec = spec_with(mark="text", encoding={"text": {"value": text}}, description=text)
    assert b'fill="url(http://x)"' in render(spec, "svg").replace(b"&quot;", b'"')


@pytest.mark.parametrize(
    "reference",
    [
        'href="http://x"',
        'xlink:href="file:///x"',
        'fill="url(http://x)"',
        "stroke=\"URL('http://x')\"",
        'style="cursor: \\75rl(x)"',
    ],
)
def test_every_reference_out_of_a_drawing_is_refused(reference):
    with pytest.raises(RenderError, match="expected nothing outside itself"):
        check_drawing(f'<svg xmlns="http://www.w3.org/2000/svg"><g {reference}/></svg>')
    check_drawing(f'<svg><g fill="url(#a)"/><use href="#b"/><text>{reference}</text></svg>')


HARMLESS = [
    "'Head ' + datum.value",
    '["H0 (sink=3.50)", "constructor"][datum.value]',
    "datum['a b'] > 3 && !isValid(datum.x) ? 1e-3 : -.5",
    "format(datum.value, '~e')",
    "{a: 1, b: [datum.x]}.a",
    "datum.event.target.warn",
    "mine * width",
    "datum.é",
    "'it\\'s'",
    "(datum.a / 2) / [1, 2][0] / width",
]
FORBIDDEN = {
    "datum.constructor": "constructor",
    "datum['constructor']": "'constructor'",
    'datum["\\u0063onstructor"]': '"\\u0063onstructor"',
    "datum.x.__proto__": "__proto__",
    "[]['prototype']": "'prototype'",
    "''['\\x63onstructor']": "'\\x63onstructor'",
    "warn('a')": "warn",
    "data('source_0')": "data",
    "window.location": "window",
    "window['alert'](1)": "window",
    "event.view.alert(1)": "event",
    "event": "event",
    "datum.x + other": "other",
    "modify('a', datum)": "modify",
    "`a`": "`",
    "datum\u2028.a": None,
    "x = 1": "x",
    "(function(){})()": "function",
    "item.mark": "item",
    "sequence(1e9)": "sequence",
    "pad('x', 1e9)": "pad",
    "timeSequence('second', 0, 1e15)": "timeSequence",
    "test(/(.+)+!/, 'aaaa')": "test",
    "replace('aaaa', /(.+)+!/, '')": "/",
    "/a/": "/",
}


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_expressions_pass(text):
    assert find_forbidden(text, {"mine", "width"}) is None


@pytest.mark.parametrize(("text", "found"), FORBIDDEN.items())
def test_expressions_that_reach_out_are_named(text, found):
    assert find_forbidden(text) == found


@pytest.mark.parametrize(
    "part",
    [
        {"transform": [{"calculate": "warn(1)", "as": "b"}]},
        {"transform": [{"filter": "warn(1)"}]},
        {"transform": [{"filter": {"and": ["true", {"not": "warn(1)"}]}}]},
        {"mark": {"type": "bar", "opacity": {"expr": "warn(1)"}}},
        {"mark": {"type": "bar", "tooltip": {"signal": "warn(1)"}}},
        {"encoding": {"x": {"field": "a", "axis": {"labelExpr": "warn(1)"}}}},
        {"encoding": {"color": {"condition": {"test": "warn(1)", "value": "red"}, "value": "b"}}},
        {"encoding": {"color": {"condition": {"test": {"or": ["warn(1)"]}, "value": "red"}}}},
        {"params": [{"name": "p", "expr": "warn(1)"}]},
        {"params": [{"name": "p", "select": {"type": "point", "on": "click[warn(1)]"}}]},
        {"params": [{"name": "p", "select": {"type": "point", "toggle": "event.view.x"}}]},
        {"encoding": {"x": {"field": "a", "axis": {"format": "') + warn('"}}}},
        {"encoding": {"x": {"field": "a", "axis": {"format": "d", "formatType": "warn"}}}},
        {"encoding": {"x": {"field": "__proto__.b"}}},
        {"transform": [{"calculate": "1", "as": "constructor"}]},
    ],
    ids=str,
)
def test_every_place_of_an_expression_is_looked_at(part):
    with pytest.raises(RenderError, match="nothing else is run"):
        check_spec(spec_with(**part))


@pytest.mark.parametrize(
    "part",
    [
        {"params": [{"name": "mine", "value": 3}], "transform": [{"filter": "datum.a > mine"}]},
        {"params": [{"name": "p", "select": {"type": "point", "toggle": "event.shiftKey"}}]},
        {
            "params": [
                {
                    "name": "b",
                    "select": {
                        "type": "interval",
                        "on": "[mousedown[event.altKey], window:mouseup] > window:mousemove!",
                        "clear": "dblclick",
                    },
                }
            ]
        },
        {"params": [{"name": "s", "value": 1, "bind": {"input": "range", "min": 0, "max": 9}}]},
        {"encoding": {"x": {"field": "a b['c']", "axis": {"format": ".2~f"}}}},
        {"mark": {"type": "bar", "cursor": "pointer"}},
        {"data": {"sequence": {"start": 0, "stop": 100, "as": "a"}}},
    ],
    ids=str,
)
def test_interactive_charts_of_altair_pass(part):
    spec = spec_with(**part)
    assert check_spec(spec) is spec


def test_the_lists_of_names_hold_nothing_that_reaches_out():
    reaching = {
        "warn",
        "info",
        "debug",
        "event",
        "item",
        "view",
        "data",
        "indata",
        "modify",
        "scale",
    }
    assert not (FUNCTIONS | CONSTANTS) & {*reaching, "window", "sequence", "constructor"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PIXEL, True),
        (PNG_URI, True),
        (f"{PIXEL}\n", False),
        (f" {PIXEL}", False),
        (f"{PNG_URI}A A", False),
        ("data:image/svg+xml;base64,AAAA", False),
        (None, False),
        ([PIXEL], False),
    ],
)
def test_only_a_png_in_a_data_uri_is_a_picture(value, expected):
    assert is_png(value) is expected


def test_options_of_vega_embed_are_left_out_and_the_name_of_a_theme_stays():
    def options(found):
        checked = check_spec(spec_with(usermeta={"embedOptions": found, "a": 1}))
        assert checked["usermeta"]["a"] == 1
        return checked["usermeta"].get("embedOptions")

    assert options({"theme": "dark", "loader": {}}) == {"theme": "dark"}
    for other in ({"patch": "a.json"}, {"theme": "constructor"}, {"theme": 3}, "x", None, []):
        assert options(other) is None


def test_a_capture_is_never_refused_whatever_its_frames_are_called():
    capture = Capture.from_array(
        [[[1.0, 2.0], [3.0, 4.0]]], query_frames=[5, 900], key_frames=[7, 1000], prompt="warn(1)"
    )
    for draw in heatmap, perhead:
        assert render(to_spec(draw(capture, title="constructor {prompt}")), "html")


KEYS = st.sampled_from(
    [
        *[
            "data",
            "values",
            "url",
            "href",
            "field",
            "layer",
            "hconcat",
            "spec",
            "facet",
            "datasets",
        ],
        *["params", "name", "expr", "filter", "and", "not", "test", "transform", "calculate", "as"],
        *["encoding", "mark", "type", "config", "usermeta", "embedOptions", "cursor", "bind"],
        *["element", "sequence", "start", "stop", "step", "format", "formatType", "fill"],
        *["select", "on", "lookup", "from", "title", "$schema"],
    ]
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["datum.a", "warn(1)", "url(x)", "a.png", PIXEL, "p", "u", "\ud800", "\\"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=4)
    ),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_specification_passes_or_is_refused_in_a_sentence(spec):
    before = repr(spec)
    message = ""
    try:
        checked = check_spec(spec)
    except RenderError as error:
        message = str(error)
    assert repr(spec) == before
    if message:
        assert "expected" in message
        assert len(message) < 1000
    else:
        assert repr(check_spec(checked)) == repr(checked)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_specification_becomes_a_fragment_or_is_refused(spec):
    try:
        page = Reader(headgrid.fragment(spec, loader=False))
    except RenderError:
        return
    assert [tag for tag, _ in page.elements] == ["figure", "div", "script", "figcaption"]
    assert len(page.specs) == 1


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from([*FORBIDDEN, *HARMLESS, "[", "'", "."])).map("".join)
    )
)
def test_any_text_is_read_as_an_expression(text):
    found = find_forbidden(text)
    assert found is None or found in text


@given(st.text(max_size=8), st.text(max_size=8))
def test_no_call_of_another_name_passes(before, after):
    assert find_forbidden(f"{json.dumps(before)} + alert({json.dumps(after)})") is not None
