"""What a specification may not ask for is refused before the engine sees it; the rest is drawn."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgrid
from browser import serve
from headgrid import Capture, RenderError, heatmap, perhead, to_spec
from headgrid.render.convert import render
from headgrid.render.guard import PNG_URI, check_drawing, check_spec
from headgrid.web.save import begin_save
from places import SPECS
from synthetic import block_capture

BASE = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
PIXEL = f"{PNG_URI}iVBORw0KGgo="
FORMATS = ["svg", "png", "pdf", "html", "json"]


def spec_with(**parts):
    """Return a small specification with some parts replaced."""
    return {**copy.deepcopy(BASE), **parts}


def points(axis=None, /, **parts):
    encoding = {"x": {"field": "a", "type": "quantitative", **(axis or {})}}
    records = [{"a": 1, "b": 2}, {"a": 5, "b": 3}]
    return {"mark": "point", "data": {"values": records}, "encoding": encoding, **parts}


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.vl.json")), ids=lambda path: path.name)
def test_our_own_specifications_pass_as_they_are(path):
    spec = json.loads(path.read_text(encoding="utf-8"))
    assert check_spec(spec) is spec


@pytest.mark.parametrize("options", [{}, {"cells": "image"}])
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_figures_of_any_size_pass(options, scale):
    capture = block_capture(3, (1, 3, 30), scale=scale)
    for spec in to_spec(heatmap(capture, **options)), to_spec(perhead(capture)):
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


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_reaches_beyond_the_figure_is_refused_in_every_format(name, tmp_path):
    for format in FORMATS:
        with pytest.raises(RenderError, match="expected"):
            headgrid.save(ELSEWHERE[name], tmp_path / f"a.{format}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RenderError, match="expected"):
        headgrid.fragment(ELSEWHERE[name])


def test_a_refusal_says_what_and_where():
    text = (
        r"the specification has 'https://example\.org/a\.csv' at hconcat\[1\]\.data\.url, "
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


EXPRESSIONS = [
    "datum.constructor.constructor('fetch(\"HOST/a\")')()",
    "''['constructor']['constructor']('fetch(\"HOST/b\")')()",
    "fetch('HOST/c')",
    "warn('a')",
    "data('source_0')[0].a",
    "event.view.fetch('HOST/d')",
    "test(/a/, 'a')",
    "`${1}`",
    "(function(){})()",
    "datum.a + 1",
]


def test_no_expression_fetches_or_ends_the_process(tmp_path):
    with serve(tmp_path) as (address, asked):
        for text in EXPRESSIONS:
            expression = text.replace("HOST", address)
            for part in (
                {"transform": [{"calculate": expression, "as": "b"}]},
                {"title": {"text": {"expr": expression}}},
            ):
                with suppress(RenderError):
                    assert render(spec_with(**part), "svg").startswith(b"<svg")
        assert asked == []
    assert render(BASE, "svg").startswith(b"<svg")


@pytest.mark.parametrize(
    "part",
    [
        {"params": [{"name": "mine", "value": 3}], "transform": [{"filter": "datum.a > mine"}]},
        {"params": [{"name": "p", "select": {"type": "point", "toggle": "event.shiftKey"}}]},
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
        assert begin_save(to_spec(draw(capture, title="constructor {prompt}")), ["html"])()


LISTS = {"values": [{name: list(range(60)) for name in "abcd"}]}
TOO_MUCH = {
    "ticks": points({"axis": {"tickCount": 10**9}}),
    "ticks of a legend": points({"legend": {"tickCount": 1e8}}),
    "bins": points({"bin": {"maxbins": 10**9}}),
    "density": points(transform=[{"density": "a", "steps": 10**9}]),
    "a sequence in an expression": points(transform=[{"calculate": "sequence(1e9)", "as": "c"}]),
    "quantiles": points(transform=[{"quantile": "a", "step": 1e-9}]),
    "imputed keys": points(
        transform=[{"impute": "b", "key": "a", "keyvals": {"start": 0, "stop": 10**9}}]
    ),
    "keys without end": points(transform=[{"impute": "b", "keyvals": {"start": 0}}]),
    "width": points(width=1e9),
    "infinite height": points(height=float("inf")),
    "step": points(width={"step": 1e9}),
    "lists that multiply": points(data=LISTS, transform=[{"flatten": [name]} for name in "abcd"]),
    "folds that multiply": points(transform=[{"fold": ["a"] * 100}] * 5),
    "lines": points(title={"text": ["x"] * 200_000}),
    "copies": {"repeat": {"row": ["a"] * 300, "column": ["b"] * 300}, "spec": points()},
    "copies in a list": {"repeat": ["a"] * 100_000, "spec": points()},
    "graticule": points(data={"graticule": {"step": [1e-4, 1e-4]}}, mark="geoshape"),
    "deeper inside": {"hconcat": [{"layer": [points({"axis": {"tickCount": 10**9}})]}]},
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_in_every_format(name):
    for format in "svg", "html":
        with pytest.raises(RenderError, match=r"expected .* beyond which the renderer runs out"):
            begin_save(TOO_MUCH[name], [format])


MUCH = {
    "ticks": points({"axis": {"tickCount": 100}}),
    "an interval": points({"axis": {"tickCount": {"interval": "day", "step": 1}}}),
    "bins": points({"bin": {"maxbins": 500}}),
    "density": points(transform=[{"density": "a", "steps": 500}]),
    "quantiles": points(transform=[{"quantile": "a", "step": 0.001}]),
    "width": points(width=5_000),
    "lists": points(data=LISTS, transform=[{"flatten": ["a", "b", "c", "d"]}]),
    "two lists": points(data=LISTS, transform=[{"flatten": ["a"]}, {"flatten": ["b"]}]),
    "copies": {"repeat": ["a", "b"], "spec": points()},
    "a graticule": points(data={"graticule": {"step": [15, 15]}}, mark="geoshape"),
    "no numbers": points({"axis": {"tickCount": None}}, width="container"),
}


@pytest.mark.parametrize("name", MUCH)
def test_what_can_be_seen_in_a_figure_is_not_too_much(name):
    assert check_spec(MUCH[name]) is MUCH[name]


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


@settings(max_examples=300, deadline=None)
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
