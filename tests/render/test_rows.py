"""Panels that headgrid writes itself are those that Vega draws."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headgrid
from headgrid.render import convert, profiles, rows
from headgrid.render.cells import cut_cells
from headgrid.render.convert import render_svg


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Let few panels be many."""
    monkeypatch.setattr(rows, "MANY", 20)


def by_vega(spec):
    """Return the SVG of a specification all of whose panels went through Vega."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "cut_rows", lambda spec, maps: [])
        return render_svg(spec)


def drawn_panels(spec):
    """Return the numbers of the panels that Vega draws where the grid is cut, or none."""
    cut = rows.cut_rows(*cut_cells(spec))
    return [record["head"] for record in cut[0][0]["data"]["values"]] if cut else []


def render_rows(spec):
    """Return the SVG of a specification, and how many panels of it Vega drew at most."""
    drawn, draw = [], convert.engine.draw_svg

    def count_panels(text, schema):
        part = json.loads(text)
        if len(part["spec"]["layer"]) > 1:  # no figure that measures labels
            drawn.append(len(part["data"]["values"]))
        return draw(text, schema)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert.engine, "draw_svg", count_panels)
        return render_svg(spec), max(drawn)


#: What rows of values may be beside random ones.
ROWS = {
    "random": lambda values: values,
    "positive": np.abs,
    "negative": lambda values: -np.abs(values),
    "constant": lambda values: np.full_like(values, 3.0),
    "zero": np.zeros_like,
    "round": lambda values: np.round(values / np.nanmax(np.abs(values)), 1),
    "small": lambda values: values * 1e-3,
    "one of two": lambda values: np.where(np.arange(values.shape[-1]) % 2, np.nan, values),
}


def random_capture(seed, heads, frames=4, gaps=0.0, missing=0, kind="random"):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(heads, frames, frames)) * 10.0 ** rng.integers(-4, 4)
    values[::2] = ROWS[kind](values[::2])
    values[rng.random(values.shape) < gaps] = np.nan
    values[rng.choice(heads, missing, replace=False)] = np.nan
    numbers = sorted(rng.choice(frames + 3, frames, replace=False).tolist())
    return headgrid.Capture.from_array(values, key_frames=numbers, query_frames=numbers)


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    more=st.integers(1, 12),
    columns=st.integers(1, 3),
    gaps=st.sampled_from([0.0, 0.3]),
    missing=st.sampled_from([0, 1, 5]),
    theme=st.sampled_from(["default", "paper"]),
    font=st.sampled_from(["sans", "serif"]),
    color_range=st.sampled_from(["symmetric", "quantile", "head"]),
    marks=st.sampled_from([(), (0,)]),
    title=st.sampled_from([None, "panels", "<!----> & </g> <g> \u732b", 'a" id="b\nurl(#c)']),
)
def test_the_drawing_is_byte_for_byte_as_vega_draws_it(
    seed, more, columns, gaps, missing, theme, font, color_range, marks, title
):
    heads = columns * (38 if theme == "paper" else 24) + more
    capture = random_capture(seed, heads, gaps=gaps, missing=missing)
    marks = capture.key_frames[:1] if marks else ()
    options = {"columns": columns, "theme": theme, "font": font, "title": title, "marks": marks}
    spec = headgrid.to_spec(headgrid.heatmap(capture, color_range=color_range, **options))
    # Long titles may be wider than their panels.
    svg, drawn = render_rows(spec)
    assert 0 < drawn < heads / 2 or color_range == "head"
    assert svg == by_vega(spec)


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    more=st.integers(1, 12),
    columns=st.integers(2, 3),
    frames=st.sampled_from([2, 5, 6]),
    kind=st.sampled_from([*ROWS]),
    gaps=st.sampled_from([0.0, 0.2]),
    missing=st.sampled_from([0, 1, 5]),
    theme=st.sampled_from(["default", "paper"]),
    font=st.sampled_from(["sans", "serif"]),
    value_axis=st.sampled_from([None, "shared", "independent"]),
    marks=st.sampled_from([(), (0,)]),
    title=st.sampled_from([None, "panels", "</svg><!----> & </g> \u0645\u0631\u062d\u0628\u0627"]),
)
def test_profiles_are_byte_for_byte_as_vega_draws_them(
    seed, more, columns, frames, kind, gaps, missing, theme, font, value_axis, marks, title
):
    heads = columns * 20 + more
    capture = random_capture(seed, heads, frames, gaps, missing, kind)
    marks = capture.key_frames[:1] if marks else ()
    options = {"columns": columns, "theme": theme, "font": font, "title": title, "marks": marks}
    spec = headgrid.to_spec(headgrid.perhead(capture, value_axis=value_axis, **options))
    svg, drawn = render_rows(spec)
    # A head may have values beside those of its profile.
    odd = [head for head in range(heads) if spec["data"]["values"][head]["logit"] == [None]]
    odd = [head for head in odd if capture.head_visible(head)]
    assert (drawn < heads / 2) != bool(odd)
    assert svg == by_vega(spec)


def test_vega_draws_the_first_and_the_last_rows():
    spec = headgrid.to_spec(headgrid.heatmap(random_capture(0, 62)))
    assert drawn_panels(spec) == [*range(24), *range(56, 62)]


def test_a_small_grid_is_drawn_by_vega(monkeypatch):
    monkeypatch.setattr(rows, "MANY", 62)
    assert not drawn_panels(headgrid.to_spec(headgrid.heatmap(random_capture(0, 62))))


def test_where_a_panel_is_not_as_vega_draws_it_vega_draws_all(monkeypatch):
    spec = headgrid.to_spec(headgrid.heatmap(random_capture(1, 62)))
    whole = by_vega(spec)
    right = rows.write_cells
    # The paths of the seventh panel that Vega draws are not those that are expected.
    calls = iter(range(1000))

    def write(*cells):
        return right(*cells) + " " * (next(calls) == 6)

    monkeypatch.setattr(rows, "write_cells", write)
    assert drawn_panels(spec)[6] == 6
    assert render_svg(spec) == whole


def late(text):
    """Return an expression that is another in one panel, which is not at an end of the grid."""
    return f"datum.head==40?{text}"


def add_layer(spec, **layer):
    one = {"aggregate": [], "groupby": ["head"]}
    steps = [one, *layer.pop("transform", [])]
    spec["spec"]["layer"].append({"mark": {"type": "rect"}, "transform": steps, **layer})


CHANGES = {
    "a panel's own mark": lambda spec: add_layer(
        spec, mark={"type": "rect", "opacity": {"expr": late("1:0")}}, encoding={}
    ),
    "a mark in one panel": lambda spec: add_layer(
        spec, transform=[{"filter": "datum.head==40"}], encoding={"x": {"value": 5}}
    ),
    "a condition": lambda spec: spec["spec"]["layer"][0]["encoding"].update(
        fill={"condition": {"test": "datum.head==40", "value": "red"}, "value": "blue"}
    ),
    "a color for each panel": lambda spec: add_layer(
        spec, encoding={"color": {"field": "head", "type": "nominal"}}
    ),
    "a list of sizes": lambda spec: add_layer(
        spec,
        transform=[{"calculate": f"{[n == 40 for n in range(62)]}[datum.head]".lower(), "as": "a"}],
        encoding={"opacity": {"field": "a", "type": "quantitative"}},
    ),
    "other titles": lambda spec: spec["facet"]["header"].update(labelExpr=late("'a':'b'")),
    "short titles": lambda spec: spec["facet"]["header"].update(labelLimit=33),
    "long titles": lambda spec: spec["facet"]["header"].update(
        labelExpr=f"{json.dumps(['W' * (n % 50) for n in range(62)])}[datum.value]"
    ),
    "titles of one letter": lambda spec: spec["facet"]["header"].update(
        labelExpr=f"{json.dumps([str(n % 4) for n in range(62)])}[datum.value]"
    ),
    "a title below": lambda spec: spec["title"].update(orient="bottom"),
    "a long color bar": lambda spec: spec["spec"]["layer"][1]["encoding"]["color"]["legend"].update(
        gradientLength=3000
    ),
    "a color bar below": lambda spec: spec["spec"]["layer"][1]["encoding"]["color"][
        "legend"
    ].update(orient="bottom"),
    "an axis in one panel": lambda spec: spec["spec"]["layer"][1]["encoding"]["x"]["axis"].update(
        labelExpr="parent.head==40?datum.label:''"
    ),
    "a configured axis": lambda spec: spec["config"]["axis"].update(labelFontSize=9),
    "rows apart": lambda spec: spec["spacing"].update(row=60.5),
    "another order": lambda spec: spec["data"]["values"].reverse(),
    "no values": lambda spec: spec["data"]["values"].__delitem__(slice(160, 161)),
    "all gone": lambda spec: [
        record.update(logit=[None]) for record in spec["data"]["values"] if record["head"] == 40
    ],
    "another padding": lambda spec: spec.update(padding=30),
}


def change_layers(spec, **parts):
    """Change what all marks of values say of a channel."""
    for layer in spec["spec"]["layer"]:
        for channel, change in parts.items():
            change(layer["encoding"].get(channel, {}))


def set_late(spec, name, value):
    """Give the panel that is not at an end of the grid another end of its axis."""
    (ends,) = (layer for layer in spec["spec"]["layer"] if "ends" in layer.get("name", ""))
    (step,) = (step for step in ends["transform"] if step.get("as") == name)
    limits, _, rest = step["calculate"].partition("]")
    limits = json.loads(limits + "]")
    limits[40] = value
    step["calculate"] = json.dumps(limits) + rest


#: Of profiles, whether headgrid may still write them.
PROFILE_CHANGES = {
    "a longer axis": (True, lambda spec: set_late(spec, "high", 77.7)),
    "a tick at the very end": (False, lambda spec: set_late(spec, "low", -3000)),
    "an infinite axis": (False, lambda spec: set_late(spec, "high", 1e300)),
    "a value beyond the axis": (False, lambda spec: spec["data"]["values"][40].update(logit=[99])),
    "a value at the end": (
        False,
        lambda spec: (
            spec["data"]["values"][40].update(logit=[99]),
            set_late(spec, "high", 99.1),
        ),
    ),
    "large points": (False, lambda spec: spec["spec"]["layer"][-1]["mark"].update(size=400)),
    "a title of two lines": (
        True,
        lambda spec: change_layers(spec, y=lambda y: "title" in y and y.update(title=["a", "b"])),
    ),
    "another color": (True, lambda spec: spec["spec"]["layer"][0]["mark"].update(color="red")),
    "labels that give way": (
        False,
        lambda spec: change_layers(spec, y=lambda y: y.get("axis", {}).update(labelOverlap=True)),
    ),
    "another key title": (
        True,
        lambda spec: change_layers(spec, x=lambda x: "title" in x and x.update(title="K")),
    ),
    "round ends": (
        False,
        lambda spec: change_layers(spec, y=lambda y: y.get("scale", {}).update(nice=True)),
    ),
    "one axis for all": (False, lambda spec: spec["resolve"].pop("scale")),
    "keys in another order": (
        False,
        lambda spec: change_layers(
            spec, x=lambda x: x.get("scale", {}).update(domain=[3, 2, 1, 0])
        ),
    ),
    "a color for each sign": (
        False,
        lambda spec: spec["spec"]["layer"][0]["encoding"].update(
            color={"condition": {"test": "datum.logit<0", "value": "red"}, "value": "blue"}
        ),
    ),
    "a line at each end": (
        False,
        lambda spec: add_layer(
            spec,
            mark={"type": "rule"},
            transform=[{"calculate": f"{[*range(50)]}[datum.head]", "as": "low"}],
            encoding={"y": {"field": "low", "type": "quantitative"}},
        ),
    ),
    "ends of other panels": (
        False,
        lambda spec: spec["spec"]["layer"][1]["transform"].insert(
            1, {"calculate": f"{[*range(40), 41, 40, *range(42, 50)]}[datum.head]", "as": "head"}
        ),
    ),
    "only positive values": (
        False,
        lambda spec: spec["spec"]["layer"][0].update(transform=[{"filter": "datum.logit>0"}]),
    ),
    "a profile upside down": (
        False,
        lambda spec: change_layers(spec, y=lambda y: y.get("scale", {}).update(reverse=True)),
    ),
    "no value at the end": (
        False,
        lambda spec: spec["data"]["values"][40]["logit"].append(None),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_chart_is_as_vega_draws_it(change):
    plain = headgrid.to_spec(headgrid.heatmap(random_capture(2, 62)))
    spec = json.loads(json.dumps(plain))
    change(spec)
    assert spec != plain
    assert render_svg(spec) == by_vega(spec)


@pytest.mark.parametrize(("ours", "change"), PROFILE_CHANGES.values(), ids=PROFILE_CHANGES)
def test_a_changed_chart_of_profiles_is_as_vega_draws_it(ours, change):
    capture = headgrid.Capture.from_array(np.random.default_rng(3).normal(size=(50, 4, 4)))
    plain = headgrid.to_spec(headgrid.perhead(capture))
    spec = json.loads(json.dumps(plain))
    change(spec)
    assert spec != plain
    svg, drawn = render_rows(spec)
    assert svg == by_vega(spec)
    assert (drawn < 50) == ours


@pytest.mark.parametrize("name", ["value_ticks", "round_number", "write_number"])
def test_where_a_profile_is_not_as_vega_draws_it_vega_draws_all(name, monkeypatch):
    spec = headgrid.to_spec(headgrid.perhead(random_capture(4, 50)))
    whole, right = by_vega(spec), getattr(profiles, name)
    calls = iter(range(10_000))

    def write(*args):
        found = right(*args)
        return found if next(calls) != 6 else found[:-1] if name == "value_ticks" else found + "1"

    monkeypatch.setattr(profiles, name, write)
    assert render_rows(spec) == (whole, 50)
