"""hypothesis strategies: captures, options, specifications and names, right and wrong."""

from __future__ import annotations

import json
import random

import numpy as np
from fuzz_mutations import EDGES, edit_tree, odd_schema_value, odd_value
from hypothesis import strategies as st

from headgrid.capture.statistic import STATISTICS
from headgrid.options import ColorRange
from places import SPECS

#: Text as prompts, titles and names of folders have it, and worse.
texts = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(codec=None), max_size=12),
    st.sampled_from(
        [
            "</script><script>canary=1</script>",
            "a\x00b\x1b[31m\r\n\u2028\u2029c",
            "\u202egnp.exe\u2066\u2069\u200f",
            "\ud800 \udfff",
            "\ufffe\uffff\U0010ffff",
            "👩‍👩‍👧‍👦 é" + "\u0301" * 200,
            "{layer} {{prompt}} {run}",
            "datum.a + 'x' \\ \" `${x}`",
            "%s %d {0} &lt; &#60; ]]> <!--",
            "漢字" * 3000,
            "x" * 100_000,
            " \t\n ",
            "-0",
        ]
    ),
)
numbers = st.one_of(st.integers(-3, 30), st.sampled_from([*EDGES, *[-edge for edge in EDGES]]))
reals = st.one_of(
    st.floats(-1e6, 1e6),
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, -1e-310, 1e300, 1.7e308, 6e-8, 65504.0]),
)
odd = st.integers(0, 2**32 - 1).map(lambda seed: odd_value(random.Random(seed)))
odd_schema = st.integers(0, 2**32 - 1).map(lambda seed: odd_schema_value(random.Random(seed)))


def rarely(wrong, right):
    """Mostly right: what has one fault gets further than what has ten."""
    return st.integers(0, 11).flatmap(lambda number: wrong if number == 0 else right)


@st.composite
def matrices(draw, *shape):
    """An array of one dtype: smooth, constant, or with floods of anything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1.0, 1.0, 20.0, 1e-6, 1e4, 1e30, 1e-300, 1e299]))
    values = rng.normal(size=shape) * scale
    for _ in range(draw(st.integers(0, 2))):
        part = rng.random(shape) < draw(rarely(st.just(1.0), st.sampled_from([0.05, 0.4])))
        values[part] = draw(rarely(reals, st.sampled_from([0.0, np.nan, 1.0, -scale, 0.5])))
    dtype = draw(st.sampled_from(["f4", "f4", "f8", "f2"] if scale < 1e4 else ["f8"]))
    with np.errstate(all="ignore"):
        return values.astype(dtype)


@st.composite
def block_sizes(draw, frames):
    """Sizes that sum to the frames."""
    sizes = []
    while sum(sizes) < frames:
        sizes.append(draw(st.integers(1, frames - sum(sizes))))
    return sizes


@st.composite
def capture_data(draw):
    """A dictionary with the keys of the schema, mostly right."""
    heads, frames = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 3, 4, 7, 21, 40]))
    data = {"layer_index": draw(rarely(odd, st.integers(0, 99)))}
    if draw(st.integers(0, 5)):
        data["full_frame_attention"] = draw(matrices(heads, frames, frames))
    if draw(st.booleans()) or len(data) == 1:
        data["last_block_frame_attention"] = draw(matrices(heads, frames))
    if draw(st.booleans()):
        data["block_sizes"] = draw(rarely(odd_schema, block_sizes(frames)))
    for name in ("key_frames", "query_frames"):
        if not draw(st.integers(0, 3)):
            start, step = draw(st.integers(0, 10**6)), draw(st.integers(1, 500))
            data[name] = draw(rarely(odd, st.just([start + step * n for n in range(frames)])))
    if draw(st.booleans()):
        data["prompt"] = draw(rarely(odd, texts))
    if draw(st.booleans()):
        data["statistic"] = draw(rarely(texts, st.sampled_from(sorted(STATISTICS))))
    data |= draw(rarely(st.dictionaries(texts, odd_schema, max_size=3), st.just({})))
    return data


color_ranges = st.one_of(
    st.sampled_from(["symmetric", "minmax", "shared", "quantile", "symmetrc", "", None]),
    st.tuples(reals, reals),
    st.tuples(st.floats(-1e3, -1e-3), st.floats(1e-3, 1e3)),
    st.lists(odd, max_size=3),
    st.tuples(st.just(-1.0), numbers.map(lambda number: number**99)),
    st.builds(ColorRange, st.floats(-9, -1), st.floats(1, 9), st.just("given")),
)
lengths = st.one_of(
    st.sampled_from(["13.97cm", "140mm", "5.5in", "396pt", "0cm", "-3mm", "1e400pt", "nancm", "9"]),
    st.floats(),
    st.floats(1, 3000),
    numbers.map(lambda number: number**99),
    texts,
)


@st.composite
def figure_options(draw):
    """Keywords of a figure, mostly right."""
    choices = {
        "columns": rarely(odd, st.integers(1, 9) | numbers),
        "palette": rarely(texts, st.sampled_from(["rdbu", "custom"])),
        "color_range": color_ranges,
        "title": rarely(odd, texts | texts.map(lambda text: text.replace("{", "{{"))),
        "cells": rarely(texts, st.sampled_from(["auto", "vector", "image"])),
        "theme": rarely(texts, st.sampled_from(["default", "paper"])),
        "font": rarely(texts, st.sampled_from(["sans", "serif"])),
        "width": lengths,
    }
    names = draw(st.lists(st.sampled_from(list(choices)), unique=True, max_size=3))
    return {name: draw(choices[name]) for name in names}


head_names = st.one_of(
    texts,
    st.builds("{}:{}".format, numbers, numbers),
    st.builds("{}/{}:{}".format, texts, numbers, numbers),
    st.sampled_from(["3:0", "3:1", "a/3:0", " 3:0 ", "3:0:0", "٣:0", "3:²", "/3:0", "3:-0"]),
)

#: What Vega-Lite may find in a specification, by key.
_ODD_PARTS = [
    {"mark": "bar"},
    {"data": {"url": "a.json"}},
    {"data": {"sequence": {"start": 0, "stop": 1e9}}},
    {"scale": {"domain": [], "range": [], "interpolate": "rgb"}},
    {"scale": {"domain": [0, 0], "range": ["red", "blue"], "interpolate": "rgb"}},
    {"scale": {"domain": ["a", None], "range": [1, 2], "interpolate": "rgb"}},
    {"axis": {"tickCount": 10**9}},
    {"encoding": {"x": {"field": "a", "type": "quantitative", "axis": {"tickCount": 10**9}}}},
    {"encoding": {"x": {"field": "a", "type": "quantitative", "bin": {"maxbins": 10**9}}}},
    {"transform": [{"density": "a", "steps": 10**9}]},
    {"transform": [{"fold": ["a"] * 100}] * 5},
    {"transform": [{"calculate": "pad('x', 1e9)", "as": "a"}]},
    {"transform": [{"calculate": "replace('aaaa', /(.+)+!/, '')", "as": "a"}]},
    {"width": 1e7},
    {"axis": {"values": [0, 1e308, None]}},
    {"bin": {"maxbins": 10**9}},
    {"config": []},
    {"config": {"font": 3}},
    {"data": {"name": ["a"]}, "datasets": {"a": 1}},
    {"datasets": {"data-1": [1]}, "data": {"name": "data-1"}},
    {"width": 1e300, "height": -5},
    {"usermeta": {"headgrid": {"width": 10**400}}},
    {"usermeta": {"headgrid": {"width": 1e-300}}},
    {"transform": [{"calculate": "datum", "as": "a"}]},
    {"transform": [{"filter": {"field": "a", "oneOf": []}}]},
    {"params": [{"name": "a", "value": {}}]},
    {"title": {"text": ["a", ["b"]]}},
    {"facet": {"field": "head"}, "spec": {"mark": "point"}},
    {"encoding": {"x": {"field": "a", "type": "ordinal"}}},
]


def _odd_part(rng):
    return rng.choice((odd_value(rng), rng.choice(_ODD_PARTS), rng.choice((1.5, "red", ["a"]))))


@st.composite
def specifications(draw):
    """One of the golden specifications with some places changed, or a few odd parts together."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    if draw(st.integers(0, 4)) == 0:
        parts = draw(st.lists(st.sampled_from(_ODD_PARTS), min_size=1, max_size=4))
        spec = json.loads('{"mark": "bar", "data": {"values": [{"a": 1}]}}')
        for part in parts:
            spec |= part
        return spec
    path = draw(st.sampled_from(sorted(SPECS.glob("*.vl.json"))))
    spec = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(draw(st.integers(1, 4))):
        whole = {key: spec[key] for key in spec if key != "data" or rng.random() < 0.2}
        place = rng.choice([whole, *[part for part in whole.values() if isinstance(part, dict)]])
        edit_tree(rng, place, _odd_part)
        spec = {**{key: spec[key] for key in spec if key not in whole and key == "data"}, **whole}
    return spec
