"""Numbers in a specification that the engine does not survive are refused, all others drawn."""

import json

import pytest

from headgrid import RenderError
from headgrid.render.amounts import count_sequence, refuse_amounts
from headgrid.render.convert import render
from places import SPECS


def spec_with(axis=None, /, **parts):
    encoding = {"x": {"field": "a", "type": "quantitative", **(axis or {})}}
    records = [{"a": 1, "b": 2}, {"a": 5, "b": 3}]
    return {"mark": "point", "data": {"values": records}, "encoding": encoding, **parts}


LISTS = {"values": [{name: list(range(60)) for name in "abcd"}]}
TOO_MUCH = {
    "ticks": spec_with({"axis": {"tickCount": 10**9}}),
    "ticks of a legend": spec_with({"legend": {"tickCount": 1e8}}),
    "bins": spec_with({"bin": {"maxbins": 10**9}}),
    "density": spec_with(transform=[{"density": "a", "steps": 10**9}]),
    "quantiles": spec_with(transform=[{"quantile": "a", "step": 1e-9}]),
    "imputed keys": spec_with(
        transform=[{"impute": "b", "key": "a", "keyvals": {"start": 0, "stop": 10**9}}]
    ),
    "keys without end": spec_with(transform=[{"impute": "b", "keyvals": {"start": 0}}]),
    "width": spec_with(width=1e9),
    "infinite height": spec_with(height=float("inf")),
    "no height": spec_with(height=float("nan")),
    "step": spec_with(width={"step": 1e9}),
    "lists that multiply": spec_with(
        data=LISTS, transform=[{"flatten": [name]} for name in "abcd"]
    ),
    "folds that multiply": spec_with(transform=[{"fold": ["a"] * 100}] * 5),
    "lines": spec_with(title={"text": ["x"] * 200_000}),
    "copies": {"repeat": {"row": ["a"] * 300, "column": ["b"] * 300}, "spec": spec_with()},
    "copies in a list": {"repeat": ["a"] * 100_000, "spec": spec_with()},
    "graticule": spec_with(data={"graticule": {"step": [1e-4, 1e-4]}}, mark="geoshape"),
    "deeper inside": {"hconcat": [{"layer": [spec_with({"axis": {"tickCount": 10**9}})]}]},
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("format", ["svg", "html", "json"])
def test_too_much_is_refused_in_every_format(name, format):
    with pytest.raises(RenderError, match=r"the specification has .* at .*, expected .* beyond"):
        render(TOO_MUCH[name], format)


MUCH = {
    "ticks": spec_with({"axis": {"tickCount": 100}}),
    "an interval": spec_with({"axis": {"tickCount": {"interval": "day", "step": 1}}}),
    "bins": spec_with({"bin": {"maxbins": 500}}),
    "density": spec_with(transform=[{"density": "a", "steps": 500}]),
    "quantiles": spec_with(transform=[{"quantile": "a", "step": 0.001}]),
    "width": spec_with(width=5_000),
    "lists": spec_with(data=LISTS, transform=[{"flatten": ["a", "b", "c", "d"]}]),
    "two lists": spec_with(data=LISTS, transform=[{"flatten": ["a"]}, {"flatten": ["b"]}]),
    "copies": {"repeat": ["a", "b"], "spec": spec_with()},
    "a graticule": spec_with(data={"graticule": {"step": [15, 15]}}, mark="geoshape"),
    "no numbers": spec_with({"axis": {"tickCount": None}}, width="container"),
}


@pytest.mark.parametrize("name", MUCH)
def test_what_can_be_seen_in_a_figure_is_not_too_much(name):
    refuse_amounts(MUCH[name])


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.vl.json")), ids=lambda path: path.stem)
def test_our_own_figures_are_not_too_much(path):
    refuse_amounts(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("sequence", "count"),
    [
        ({"start": 2, "stop": 10, "step": 2}, 4),
        ({"stop": -3}, 3),
        ({"start": 0, "stop": 1, "step": 0}, float("inf")),
        ({"start": 0}, float("inf")),
        ({"stop": 10**400}, float("inf")),
        ("0,1", float("inf")),
    ],
)
def test_the_length_of_a_sequence(sequence, count):
    assert count_sequence(sequence) == count
