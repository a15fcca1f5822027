"""Cells that headgrid draws itself are those that Vega draws."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headgrid
from headgrid.render import convert
from headgrid.render.cells import cut_cells
from headgrid.render.convert import render_svg

RANGES = ("symmetric", "quantile", (-1.5, 0.7), (0.2, 3.0), "head", "log")


def by_vega(spec):
    """Return the SVG of a specification all of whose cells went through Vega."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "cut_cells", lambda spec: (spec, []))
        return render_svg(spec)


def draw(name, captures, **options):
    """Return the specification of a figure of one or two captures."""
    a, b = captures
    chart = {
        "heatmap": lambda: headgrid.heatmap(a, **options),
        "sheet": lambda: headgrid.sheet([a, b], **options),
        "compare": lambda: headgrid.compare(a, b, **options),
        "pick": lambda: headgrid.pick([a, b], ["3:0", "8:0"], figure="both", **options),
    }[name]()
    return headgrid.to_spec(chart)


def random_capture(seed, layer, shape, gaps, statistic):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-4, 4)
    values = np.abs(values) * rng.integers(0, 2, shape) if statistic == "mass" else values
    values[rng.random(shape) < gaps] = np.nan
    values[-1, -1, -1] = 1.0  # something is seen
    first = int(rng.integers(0, 40))
    return headgrid.Capture.from_array(
        values,
        layer=layer,
        statistic=statistic,
        key_frames=range(first, first + shape[2]),
        query_frames=sorted(rng.choice(200, shape[1], replace=False).tolist()),
    )


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["heatmap", "sheet", "compare", "pick"]),
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    gaps=st.sampled_from([0.0, 0.3, 0.95]),
    color_range=st.sampled_from(RANGES),
    palette=st.sampled_from(["rdbu", "custom"]),
    theme=st.sampled_from(["default", "paper"]),
)
def test_the_drawing_is_byte_for_byte_as_vega_draws_it(
    name, seed, shape, gaps, color_range, palette, theme
):
    statistic = "mass" if color_range == "log" else "logit"
    if color_range == "head" and name in ("sheet", "compare"):
        name = "pick"  # others have one range for all
    a = random_capture(seed, 3, shape, gaps, statistic)
    values = a.full_frame_attention + 0.1 * np.random.default_rng(seed).random(shape)
    frames = {"key_frames": a.key_frames, "query_frames": a.query_frames}
    b = headgrid.Capture.from_array(values, layer=8, statistic=statistic, **frames)
    spec = draw(name, (a, b), color_range=color_range, palette=palette, theme=theme)
    assert cut_cells(spec)[1]
    assert render_svg(spec) == by_vega(spec)


def test_what_goes_through_vega_is_one_cell_a_panel():
    values = np.random.default_rng(0).normal(size=(4, 30, 30))
    capture = headgrid.Capture.from_array(values)
    cut, _ = cut_cells(headgrid.to_spec(headgrid.heatmap(capture)))
    assert [len(record["logit"]) for record in cut["data"]["values"]] == [1] * 4


def test_a_head_without_values_leaves_the_cells_of_others_to_headgrid():
    values = np.random.default_rng(0).normal(size=(4, 5, 5))
    values[2] = np.nan
    spec = headgrid.to_spec(headgrid.heatmap(headgrid.Capture.from_array(values)))
    with pytest.MonkeyPatch.context() as patch:
        drawings = []
        patch.setattr(convert, "check_marks", drawings.append)
        drawn = render_svg(spec)
    assert len(drawings) == 1  # whatever is not as expected, Vega draws again
    assert drawn == by_vega(spec)


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
def test_grids_that_share_their_table_are_all_drawn():
    values = np.array([[[np.nan]], [[1.0]]])  # maps and profiles of a head without values
    a, b = (headgrid.Capture.from_array(values, layer=layer) for layer in (3, 8))
    chart = headgrid.pick([a, b], ["3:0", "8:0"], figure="both")
    spec = headgrid.to_spec(chart)
    assert len(spec["datasets"]) == 1
    assert render_svg(spec) == by_vega(spec)


def changed(change):
    values = np.random.default_rng(1).normal(size=(2, 4, 4))
    spec = headgrid.to_spec(headgrid.heatmap(headgrid.Capture.from_array(values)))
    spec = json.loads(json.dumps(spec))
    change(spec, spec["spec"]["layer"][1])
    return spec


CHANGES = {
    "a mark's look": lambda spec, cells: cells["mark"].update(opacity=0.5),
    "a configured mark": lambda spec, cells: spec["config"].update(rect={"opacity": 0.5}),
    "a palette": lambda spec, cells: cells["encoding"]["color"]["scale"].update(reverse=True),
    "a filter": lambda spec, cells: spec["transform"].append({"filter": "datum.key>1"}),
    "other values": lambda spec, cells: spec["transform"].insert(
        0, {"calculate": "[1,2]", "as": "logit"}
    ),
    "a condition": lambda spec, cells: cells["encoding"]["color"].update(
        condition={"test": "datum.key>1", "value": "red"}
    ),
    "text on every cell": lambda spec, cells: spec["spec"]["layer"].append(
        {"mark": "text", "encoding": {**cells["encoding"], "text": {"field": "logit"}}}
    ),
    "a query twice": lambda spec, cells: spec["data"]["values"].append(spec["data"]["values"][0]),
    "a number too many": lambda spec, cells: spec["data"]["values"][0]["logit"].append(1.0),
    "texts for numbers": lambda spec, cells: spec["data"]["values"][1].update(logit=["1", "x"]),
    "a panel of half points": lambda spec, cells: spec["spec"].update(width=202),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_chart_is_drawn_by_vega(change):
    spec = changed(change)
    assert render_svg(spec) == by_vega(spec)
    assert render_svg(spec) != render_svg(changed(lambda spec, cells: None))
