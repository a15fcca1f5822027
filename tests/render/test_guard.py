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
from headgrid.render.convert import check_spec, count_marks, render
from headgrid.text import PNG_URI
from places import SPECS

BASE = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
PIXEL = f"{PNG_URI}iVBORw0KGgo="
FORMATS = ["svg", "png", "pdf", "html", "json"]


def spec_with(**parts):
    """Return a small specification with some parts replaced."""
    return {**copy.deepcopy(BASE), **parts}


def image_of(field="u", records=None, **parts):
    """Return a specification that draws pictures of its data."""
    data = {"values": [{"u": PIXEL, "k": 1}] if records is None else records}
    return {"mark": "image", "data": data, "encoding": {"url": {"field": field}}, **parts}


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.vl.json")), ids=lambda path: path.name)
def test_our_own_specifications_pass_as_they_are(path):
    spec = json.loads(path.read_text(encoding="utf-8"))
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
    "picture of data": image_of(records=[{"u": "a.png"}]),
    "picture as SVG": image_of(records=[{"u": "data:image/svg+xml,<svg/>"}]),
    "picture that is none": image_of(records=[{"u": f'{PNG_URI}A"><x'}]),
    "picture in one record": image_of(records={"u": "a.png"}),
    "picture in a table of text": image_of(
        data={"values": "u\na.png", "format": {"type": "csv"}},
    ),
    "picture in a named table of text": image_of(
        data={"name": "d", "format": {"type": "csv"}}, datasets={"d": "u\na.png"}
    ),
    "picture inside a record": image_of(
        data={"values": [{"u": PIXEL, "v": [{"u": "a.png"}]}], "format": {"property": "0.v"}}
    ),
    "picture on condition": image_of(
        encoding={"url": {"field": "u", "condition": {"test": "true", "value": "a.png"}}}
    ),
    "computed picture": image_of(transform=[{"calculate": "'file:///etc/hostname'", "as": "u"}]),
    "picture of generated data": image_of(data={"sequence": {"start": 0, "stop": 1, "as": "u"}}),
    "looked-up picture": image_of(
        transform=[
            {
                "lookup": "k",
                "from": {"data": {"values": [{"k": 1, "u": "a.png"}]}, "key": "k", "fields": ["u"]},
            }
        ]
    ),
    "pivoted picture": image_of(transform=[{"pivot": "k", "value": "k"}]),
    "paint": spec_with(mark={"type": "bar", "fill": "url(https://example.org/a.svg#b)"}),
    "paint in config": spec_with(config={"background": "URL(https://example.org/a.png)"}),
    "paints of a range": spec_with(
        encoding={"color": {"field": "a", "scale": {"range": ["red", "url(http://x/#a)"]}}}
    ),
    "paint as CSS reads it": spec_with(mark={"type": "bar", "color": "u\\72l(http://x/#a)"}),
    "paint as CSS reads it, in lines": spec_with(config={"mark": {"fill": "u\\72\nl(http://x)"}}),
    "paint of data": spec_with(
        data={"values": [{"a": "url(https://example.org/a.svg#b)"}]},
        encoding={"color": {"field": "a", "scale": None}},
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


@pytest.mark.parametrize("paint", ["'url(http://x/#a)'", "'u' + '\\\\72l(http://x)'"])
def test_a_computed_paint_is_refused_in_the_drawing(paint):
    spec = spec_with(
        transform=[{"calculate": paint, "as": "b"}],
        encoding={"color": {"field": "b", "type": "nominal", "scale": None}},
    )
    for format in "svg", "png", "pdf":
        with pytest.raises(RenderError, match=r"the drawing names '.* in fill, expected nothing"):
            render(spec, format)


def test_a_drawing_may_show_text_that_looks_like_a_reference():
    text = 'a href="http://x" fill="url(http://x)" style="\\"'
    spec = spec_with(mark="text", encoding={"text": {"value": text}}, description=text)
    assert b'fill="url(http://x)"' in render(spec, "svg").replace(b"&quot;", b'"')


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
        assert options(other) == {}


def test_a_capture_is_never_refused_whatever_its_frames_are_called():
    capture = Capture.from_array(
        [[[1.0, 2.0], [3.0, 4.0]]], query_frames=[5, 900], key_frames=[7, 1000], prompt="url(x)"
    )
    for draw in heatmap, perhead:
        spec = to_spec(draw(capture, title="constructor {prompt}"))
        assert render(check_spec(spec), "svg")


LISTS = {"values": [{name: list(range(60)) for name in "abcd"}]}
AMOUNTS = {
    "ticks": lambda n: spec_with(encoding={"x": {"field": "a", "axis": {"tickCount": n}}}),
    "bins": lambda n: spec_with(encoding={"x": {"field": "a", "bin": {"maxbins": n}}}),
    "density": lambda n: spec_with(transform=[{"density": "a", "steps": n}]),
    "keys": lambda n: spec_with(transform=[{"impute": "a", "keyvals": {"start": 0, "stop": n}}]),
    "width": lambda n: spec_with(width=n),
    "step": lambda n: spec_with(height={"step": n}),
    "deeper inside": lambda n: {"hconcat": [{"layer": [spec_with(width=n)]}]},
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_too_much_is_refused_and_what_can_be_seen_in_a_figure_is_not(name):
    passing = AMOUNTS[name](500)
    assert check_spec(passing) is passing
    with pytest.raises(RenderError, match=r"expected at most .* beyond which the renderer runs"):
        check_spec(AMOUNTS[name](10**9))


@pytest.mark.parametrize(
    "spec",
    [
        spec_with(data=LISTS, transform=[{"flatten": [name]} for name in "abcd"]),
        spec_with(transform=[{"fold": ["a"] * 100}] * 5),
        {"repeat": {"row": ["a"] * 1000, "column": ["b"] * 1000}, "spec": BASE},
    ],
    ids=["lists that multiply", "folds that multiply", "copies"],
)
def test_too_many_marks_are_refused(spec):
    with pytest.raises(RenderError, match=r"would have about .* marks, expected at most 400,000"):
        headgrid.save(spec, "never.html")


def test_lists_side_by_side_and_few_copies_pass():
    assert count_marks(spec_with(data=LISTS, transform=[{"flatten": list("abcd")}])) < 1000
    assert count_marks({"repeat": ["a", "b"], "spec": BASE}) < 1000


def test_expressions_that_make_much_of_little_are_refused():
    spec = spec_with(transform=[{"calculate": "sequence(1e9)", "as": "c"}])
    with pytest.raises(RenderError, match="expected no sequence and no padding"):
        check_spec(spec)


WORDS = (
    "data values url href field layer hconcat spec facet datasets params name expr filter and "
    "not test transform calculate as encoding mark type config usermeta embedOptions cursor "
    "bind element sequence start stop step format formatType fill select on lookup from title "
    "scale range $schema"
)
KEYS = st.sampled_from(WORDS.split())
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["datum.a", "u\\72l(x)", "url(x)", "a.png", PIXEL, "p", "u", "\ud800", "\\"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=4)
    ),
    max_leaves=25,
)


@settings(max_examples=80, deadline=None)
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
