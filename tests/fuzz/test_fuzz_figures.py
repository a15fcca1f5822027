"""Captures, options, names, specifications and folders: a figure, or one sentence."""

import json
import os
from copy import deepcopy
from random import Random

import numpy as np
import pytest
from fuzz_lab import SEED
from fuzz_mutations import EDGES, edit_tree, mutate_file, odd_value
from fuzz_seeds import seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headgrid import HeadgridError, load_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.options import ColorRange
from places import SPECS

# The texts of some cases are long, which matters only where one fails.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

#: By day the same cases on each run; by night others, and many.
some = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
very_many = settings(some, max_examples=10_000, derandomize=False, print_blob=True)

randoms = st.builds(Random, st.integers(0, 2**32))
#: Text as prompts, titles and names of folders have it, and worse.
WORST = ["</script><script>canary=1</script>", "a\x00b\x1b[31m\r\n\u2028\u2029c", "\ud800 \udfff"]
WORST += [
    "\u202egnp.exe\u2066\u2069\u200f",
    "\ufffe\uffff\U0010ffff",
    "👩‍👩‍👧‍👦 é" + "\u0301" * 200,
]
WORST += ["{layer} {{prompt}} {run}", "datum.a + 'x' \\ \" `${x}`", "%s {0} &lt; ]]> <!--"]
WORST += ["漢字" * 3000, "x" * 100_000, " \t\n ", "-0"]
texts = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(WORST)
numbers = st.integers(-3, 30) | st.sampled_from([*EDGES, *[-edge for edge in EDGES]])
reals = st.floats(-1e6, 1e6) | st.floats() | st.sampled_from([0.0, -0.0, 5e-324, 1e300, 65504.0])
dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u8", "c8", "?"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
odd = st.builds(odd_value, randoms)
odd_schema = arrays | odd | st.sampled_from([[1, [2, 3]], b"bytes", 3 + 4j])


def rarely(wrong, right):
    """Mostly right: what has one fault gets further than what has ten."""
    return st.integers(0, 11).flatmap(lambda number: wrong if number == 0 else right)


@st.composite
def matrices(draw, *shape):
    """An array of one dtype, mostly of numbers as they are measured."""
    kind = np.dtype(draw(st.sampled_from(["f2", "f4", "f8"])))
    bounds = draw(rarely(st.just({}), st.just({"min_value": -100, "max_value": 100})))
    return draw(hnp.arrays(kind, shape, elements=hnp.from_dtype(kind, **bounds)))


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
        cuts = sorted({*draw(st.lists(st.integers(1, frames))), frames})
        blocks = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
        data["block_sizes"] = draw(rarely(odd_schema, st.just(blocks)))
    for name in ("key_frames", "query_frames"):
        if not draw(st.integers(0, 3)):
            start, step = draw(st.integers(0, 10**6)), draw(st.integers(1, 500))
            data[name] = draw(rarely(odd, st.just([start + step * n for n in range(frames)])))
    if draw(st.booleans()):
        data["prompt"] = draw(rarely(odd, texts))
        data["statistic"] = draw(rarely(texts, st.sampled_from(sorted(STATISTICS))))
    return data | draw(rarely(st.dictionaries(texts, odd_schema, max_size=3), st.just({})))


color_ranges = st.one_of(
    st.sampled_from(["symmetric", "minmax", "shared", "quantile", "symmetrc", "", None]),
    st.tuples(reals, reals),
    st.tuples(st.floats(-1e3, -1e-3), st.floats(1e-3, 1e3)),
    st.lists(odd, max_size=3),
    st.builds(ColorRange, st.floats(-9, -1), st.floats(1, 9), st.just("given")),
)
lengths = st.sampled_from(["13.97cm", "140mm", "396pt", "0cm", "1e400pt", "nancm", "9", 10**2000])
CHOICES = {
    "columns": rarely(odd, st.integers(1, 9) | numbers),
    "palette": rarely(texts, st.sampled_from(["rdbu", "custom"])),
    "color_range": color_ranges,
    "title": rarely(odd, texts | texts.map(lambda text: text.replace("{", "{{"))),
    "cells": rarely(texts, st.sampled_from(["auto", "vector", "image"])),
    "theme": rarely(texts, st.sampled_from(["default", "paper"])),
    "font": rarely(texts, st.sampled_from(["sans", "serif"])),
    "width": lengths | reals | texts,
}
chosen = st.lists(st.sampled_from([*CHOICES]), unique=True, max_size=3)
figure_options = chosen.flatmap(
    lambda names: st.fixed_dictionaries({name: CHOICES[name] for name in names})
)
head_names = st.one_of(
    texts,
    st.builds("{}/{}:{}".format, texts, numbers, numbers),
    st.sampled_from(["3:0", "a/3:0", " 3:0 ", "3:0:0", "٣:0", "3:²", "/3:0", "3:-0"]),
)
#: What Vega-Lite may find in a specification, by key.
X = {"field": "a", "type": "quantitative"}
ODD_PARTS = [
    {"data": {"url": "a.json"}},
    {"data": {"sequence": {"start": 0, "stop": 1e9}}},
    {"scale": {"domain": ["a", None], "range": [], "interpolate": "rgb"}},
    {"encoding": {"x": {**X, "axis": {"tickCount": 10**9}, "bin": {"maxbins": 10**9}}}},
    {"transform": [{"density": "a", "steps": 10**9}]},
    {"transform": [{"calculate": "pad('x', 1e9) + replace('aaaa', /(.+)+!/, '')", "as": "a"}]},
    {"config": {"font": 3}, "width": 1e300, "height": -5},
    {"data": {"name": ["a"]}, "datasets": {"a": 1}},
    {"usermeta": {"headgrid": {"width": 10**400}}},
    {"facet": {"field": "head"}, "spec": {"mark": "point"}},
]


@st.composite
def specifications(draw):
    """One of the golden specifications with some places changed, or odd parts of one."""
    path, rng = draw(st.sampled_from(sorted(SPECS.glob("*.vl.json")))), draw(randoms)
    spec = json.loads(path.read_text(encoding="utf-8"))
    if rng.random() < 0.2:
        spec = {"mark": "bar", "data": {"values": [{"a": 1}]}, **deepcopy(rng.choice(ODD_PARTS))}
    data = {} if rng.random() < 0.2 else {"data": spec.pop("data", {})}
    place = rng.choice([spec, *[part for part in spec.values() if isinstance(part, dict)]])
    odd_parts = odd_value, lambda rng: deepcopy(rng.choice(ODD_PARTS)), lambda rng: "red"
    edit_tree(rng, place, lambda rng: rng.choice(odd_parts)(rng))
    return spec | data


HEADS = [f"{run}/3:{head}" for run in "abc" for head in (0, 1)]
CASES = {
    "capture": {"data": capture_data(), "run": texts, "options": figure_options},
    "pick": {
        "runs": st.lists(
            rarely(texts, st.sampled_from("abc")), min_size=1, max_size=3, unique=True
        ),
        "heads": st.lists(rarely(head_names, st.sampled_from(HEADS)), min_size=1, max_size=4),
        "options": figure_options,
    },
    "spec": {
        "spec": specifications(),
        "nested": st.sampled_from([0, 0, 0, 0, 0, 0, 0, 10, 200, 2_000]),
        "around": st.booleans(),
    },
}


@pytest.mark.parametrize(
    "how", [some, pytest.param(very_many, marks=pytest.mark.nightly)], ids=["some", "very many"]
)
@pytest.mark.parametrize("kind", CASES)
def test_any_input_ends_in_a_figure_or_a_sentence(lab, kind, how):
    @how
    @given(st.fixed_dictionaries(CASES[kind]))
    def run(case):
        lab.run(kind, **case)

    run()
    assert lab.tally["figures"] > 1
    assert lab.tally.total() > lab.tally["figures"]


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
def test_a_folder_of_damaged_files_is_drawn_as_far_as_it_can_be(lab):
    folder, usable = lab.cases / "in", 1
    (folder / os.fsdecode(b"run_0 \xff\n\x1b[31m")).mkdir(parents=True)
    (folder / os.fsdecode(b"run_0 \xff\n\x1b[31m") / "layer3.npz").write_bytes(seeds()["whole.npz"])
    for number, name in enumerate(sorted(seeds())[:16]):
        path = folder / f"run_{number}" / f"layer3.{name.rpartition('.')[2]}"
        path.parent.mkdir()
        path.write_bytes(mutate_file(Random(f"{SEED}/folder/{number}"), name, seeds()))
        try:
            load_capture(path)
            usable += 1
        except HeadgridError:
            continue
    out = lab.cases / "out"
    for arguments in (
        ["stats", str(folder)],
        ["render", str(folder), "-o", str(out), "--figure", "perhead", "-j", "1"],
        ["survey", str(folder), "-o", str(lab.cases / "survey")],
        ["pick", str(folder), "--head", "3:0", "-o", str(lab.cases / "pick.svg")],
    ):
        assert lab.run("command", arguments=arguments) == "exit 1", arguments
    assert 1 < usable < 17
    assert len(list(out.rglob("*.svg"))) == usable
