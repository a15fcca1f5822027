import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgrid
from headgrid import (
    Capture,
    ColorRange,
    FigureOptions,
    OptionError,
    load_capture,
    resolve_color_range,
)
from headgrid.charts.scales import (
    STEPS,
    ColorScale,
    cell_size,
    count_saturated,
    find_scale,
    frame_ticks,
    palette_for,
    saturates,
    value_ticks,
)
from headgrid.options import parse_color_range
from headgrid.render.convert import render_svg
from svgreader import read_svg
from synthetic import block_capture, waves

# colorbrewer2.org, RdBu with 11 classes, blue to red.
RDBU_11 = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
# The second palette as it was first published, red first, that is negative.
SEED = "98202C D15C4C EEA17E FDDAC3 F0F4F5 C2DEEC 79B0D4 3C7FB9 1D4680"


def scale_over(low, high, statistic="logit", name="rdbu"):
    return ColorScale(ColorRange(low, high, "fixed"), palette_for(statistic, name))


def middles(low, high, steps=STEPS):
    return low + (np.arange(steps) + 0.5) * (high - low) / steps


def test_the_colours_are_colorbrewers_with_linear_rgb_between():
    colors = scale_over(-1, 1).rgb(middles(-1, 1)).astype(int)
    at = np.linspace(0, 1, 256), np.linspace(0, 1, 11)
    stops = np.array([list(bytes.fromhex(color)) for color in RDBU_11.split()])
    expected = np.stack([np.interp(*at, channel) for channel in stops.T], axis=1)
    assert np.abs(colors - expected).max() <= 1
    assert len({tuple(c) for c in colors}) >= 250


def test_the_custom_palette_is_the_seeds_reversed_so_that_red_is_positive():
    stops = scale_over(-4, 4, name="custom").stops
    assert [color.upper().strip("#") for _, color in stops] == SEED.split()[::-1]
    assert [value for value, _ in stops] == [-4, -3, -2, -1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("limits", "values", "steps"),
    [
        (
            (-2, 8),
            [-9, -2, -1, -1e-9, 0, 4, 7.999, 8, 99],
            [0, 0, 64, 127, 128, 192, 255, 255, 255],
        ),
        ((0, 8), [-1, 0, 4, 8], [128, 128, 192, 255]),
        ((-8, 0), [-8, -4, 0, 1], [0, 64, 127, 127]),
        ((-30, 0.5), [-30, 0, 0.5], [0, 128, 255]),
    ],
)
def test_each_side_of_zero_has_its_own_half_of_the_palette_and_zero_is_white(limits, values, steps):
    scale = scale_over(*limits)
    assert scale.steps(values).tolist() == steps
    assert (0.0, "#f7f7f7") in scale.stops


def test_masses_are_viridis_from_zero():
    scale = find_scale([block_capture(statistic="mass")], FigureOptions())
    assert scale.palette.name == "viridis"
    ends = scale.rgb([0.0, scale.range.high]).tolist()
    assert ends == [[0x44, 0x01, 0x54], [0xFD, 0xE7, 0x25]]


def evaluate(expression, value):
    """Return what a Vega expression gives for ``datum.v``, in Python."""
    names = {
        "clamp": lambda v, lo, hi: max(lo, min(hi, v)),
        "floor": math.floor,
        "datum": type("D", (), {"v": value}),
    }
    ternary = re.fullmatch(r"(datum\.v<0)\?(.*):(.*)", expression)
    if ternary:
        test, then, otherwise = ternary.groups()
        expression = f"({then}) if {test} else ({otherwise})"
    return eval(expression, {"__builtins__": {}}, names)


def color_by_stops(scale, value):
    """Return the colour that a linear Vega scale over the stops gives, clamped."""
    values, colors = zip(*scale.stops, strict=True)
    channels = [[int(c[i : i + 2], 16) for c in colors] for i in (1, 3, 5)]
    return [float(np.interp(value, values, channel)) for channel in channels]


LIMITS = [(-1, 1), (-2, 8), (-14.0781, 14.0781), (0, 3), (-5, 0), (-9, -2), (2, 9), (-1e-5, 1e-5)]
LIMITS += [(-1e5, 3e5)]


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(LIMITS), st.floats(-0.2, 1.2), st.sampled_from(["logit", "mass"]))
def test_the_vega_expression_gives_the_colour_that_python_gives(limits, share, statistic):
    low, high = limits
    scale = scale_over(low, high, statistic)
    value = low + share * (high - low)
    drawn = color_by_stops(scale, evaluate(scale.expression("v"), value))
    step = int(scale.steps([value])[0])
    expected = scale.colors()[[max(0, min(255, step + d)) for d in (-1, 0, 1)]]
    assert np.abs(expected - drawn).max(axis=1).min() <= 0.51
    if abs(share * STEPS - round(share * STEPS)) > 1e-6 and abs(value) > 1e-9 * high:
        assert np.abs(scale.rgb([value])[0] - drawn).max() <= 0.51


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("statistic", ["logit", "mass"])
def test_every_step_of_the_expression_has_its_own_colour(limits, statistic):
    low, high = limits
    scale = scale_over(low, high, statistic)
    for value in low + (np.arange(STEPS) + 0.37) * (high - low) / STEPS:
        drawn = color_by_stops(scale, evaluate(scale.expression("v"), value))
        assert np.abs(scale.rgb([value])[0] - drawn).max() <= 0.51


HIDDEN = Capture.from_array([[[1.0, 99.0], [-3.0, 2.0]]], block_sizes=[1, 1])
BOTH_SIGNS = Capture.from_array([[[1.0, -2.0], [8.0, 3.0]]])
MASSES = Capture.from_array(np.arange(1.0, 102.0).reshape(1, 1, 101), statistic="mass")
BELOW_ZERO = Capture.from_array([[[-0.25, 1.0], [2.0, 2.0]]], statistic="mass")
# Its own 99 % quantile is 500, that of it and many others is theirs.
FEW, MANY = Capture.from_array([[[500.0]]]), Capture.from_array(np.ones((1, 100, 100)))
MOSTLY_ZERO = Capture.from_array([[[-4.0, 1.0, 2.0, *[0.0] * 897]]])


@pytest.mark.parametrize(
    ("rule", "captures", "ends"),
    [
        ("symmetric", [HIDDEN], (-3, 3)),
        ("symmetric", [MASSES], (0, 101)),
        *((rule, [BELOW_ZERO], (-0.25, 2)) for rule in ("symmetric", "minmax", "quantile")),
        ("shared", [HIDDEN, BOTH_SIGNS, HIDDEN], (-8, 8)),
        ("minmax", [BOTH_SIGNS], (-2, 8)),
        ("minmax", [Capture.from_array([[[1.0, 2.0]]])], (0, 2)),
        ("quantile", [MANY, FEW], (-1, 1)),
        ("quantile", [FEW, MANY], (-1, 1)),
        ("quantile", [MASSES], (0, 100)),
        ("quantile", [MOSTLY_ZERO], (-4, 4)),
    ],
)
def test_each_rule_gives_its_range_over_the_visible_values_of_all_captures(rule, captures, ends):
    expected = ColorRange(ends[0], ends[1], rule)
    assert resolve_color_range(rule, captures) == expected
    assert find_scale(captures, FigureOptions(color_range=rule)).range == expected


def test_quantile_is_pooled_and_leaves_future_frames_out():
    values = np.where(np.tri(40, dtype=bool), waves(2, 40, 40), 1e9)
    capture = Capture.from_array(values, block_sizes=[1] * 40)
    visible = values[:, np.tri(40, dtype=bool)]
    other = Capture.from_array([[-2 * np.arange(1.0, 102.0)]])
    for captures, pooled in (
        ([capture], visible),
        ([capture, other], np.append(visible, other.head_matrix(0))),
    ):
        found = resolve_color_range("quantile", captures)
        largest = np.abs(np.quantile(pooled, [0.01, 0.99])).max()
        assert -found.low == found.high == pytest.approx(largest, rel=2**-12)
        beyond = sum(count_saturated(one, found) for one in captures)
        assert beyond == np.count_nonzero(np.abs(pooled) > found.high) > 0


def test_no_value_saturates_where_the_quantile_is_the_largest_value():
    capture = Capture.from_array(np.full((1, 9, 9), 1.0 + 0.9 * 2**-12))
    assert count_saturated(capture, resolve_color_range("quantile", [capture])) == 0


def test_quantile_of_30_layers_is_that_of_all_their_values(shared):
    captures = [load_capture(shared / f"data/frames72/layer{n}.pt") for n in range(30)]
    values = [c.full_frame_attention[:, c.attendable].astype(np.float64).ravel() for c in captures]
    exact = np.abs(np.quantile(np.concatenate(values), [0.01, 0.99])).max()
    found = resolve_color_range("quantile", iter(captures))
    assert -found.low == found.high == pytest.approx(exact, rel=2**-12)


@pytest.mark.parametrize("rule", ["symmetric", "shared", "minmax", "quantile"])
@pytest.mark.parametrize("statistic", ["logit", "mass"])
@pytest.mark.parametrize("value", [0.0, 3.3, 1e-30, 1e30])
def test_constant_values_still_give_a_range(rule, statistic, value):
    capture = Capture.from_array(np.full((1, 2, 2), value), statistic=statistic)
    found = resolve_color_range(rule, [capture])
    assert found.low < found.high
    assert found.low <= value <= found.high * (1 + 1e-8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "symetric",
            "expected one of symmetric, shared, minmax, quantile, log, head, LO,HI.*"
            "did you mean 'symmetric'",
        ),
        *((text, "expected two .*LO,HI with LO below HI") for text in ("5,-5", "nan,1", "0,inf")),
        *((text, "expected two .*numbers LO,HI") for text in ("1,1", "a,b", "1,2,3")),
        ("", "expected one of symmetric"),
    ],
)
def test_other_colour_ranges_are_refused_with_the_choices(text, message):
    assert parse_color_range(" -1e-3 , 2 ") == (-1e-3, 2.0)
    with pytest.raises(OptionError, match=message):
        parse_color_range(text)


@pytest.mark.parametrize(
    ("values", "sides"),
    [
        ((-5.0 - 1e-9, 5.0 + 1e-9), (False, False)),  # the ends are rounded to 9 digits
        ((-5.1, 0.0), (True, False)),
        ((-9.0, 9.0), (True, True)),
    ],
)
def test_values_saturate_on_the_side_where_they_lie_beyond(values, sides):
    color_range = ColorRange(-5.0, 5.0, "quantile")
    assert saturates(values, color_range) == sides
    capture = Capture.from_array([[list(values)]])
    assert count_saturated(capture, color_range) == sum(sides)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 300) | st.integers(1, 100_000))
def test_ticks_follow_the_rule_of_the_design(count):
    ticks = frame_ticks(count)
    assert len(ticks) <= 8
    assert (ticks[0], ticks[-1]) == (0, count - 1)
    assert ticks == sorted(set(ticks))
    step = 5 if count <= 30 else 10 if count <= 60 else 20
    if 1 < count <= 140:
        regular = set(range(0, count, step))
        assert set(ticks[:-1]) <= regular
        assert all(count - 1 - tick < step / 2 for tick in regular - set(ticks))


def test_ticks_worked_by_hand():
    assert [frame_ticks(count) for count in (1, 2, 5)] == [[0], [0, 1], [0, 4]]
    assert frame_ticks(23) == [0, 5, 10, 15, 22]
    assert frame_ticks(24) == [0, 5, 10, 15, 20, 23]
    assert frame_ticks(60) == [0, 10, 20, 30, 40, 50, 59]
    assert frame_ticks(72) == [0, 20, 40, 60, 71]


@settings(deadline=None, max_examples=80)
@given(st.floats(-1e6, 1e6), st.floats(1e-5, 1e6), st.integers(2, 10))
def test_value_ticks_are_round_and_inside(low, share, count):
    span = share * max(1.0, abs(low))
    high = low + span
    ticks = value_ticks(low, high, count)
    assert len(ticks) <= 2 * count + 1
    assert all(low - 1e-6 * span <= t <= high + 1e-6 * span for t in ticks)
    for step in np.diff(ticks)[:1]:
        mantissa = float(f"{step:e}".partition("e")[0])
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 0.02 * mantissa


def test_cells_are_whole_points():
    assert [cell_size(count) for count in (1, 21, 72, 108, 200, 4096)] == [216, 10, 3, 2, 1, 1]


def test_heads_on_their_own_scales_say_which_and_reach_the_ends_of_the_palette():
    values = np.array([[[1.0, -4.0]], [[0.25, 0.5]], [[np.nan, np.nan]]])
    capture = Capture.from_array(values)
    spec = headgrid.to_spec(headgrid.heatmap(capture, color_range="head"))
    names = spec["facet"]["header"]["labelExpr"]
    assert '"Head 0 (\\u00b14)", "Head 1 (\\u00b10.5)", "Head 2"' in names
    assert spec["usermeta"]["headgrid"]["color_units"] == [4.0, 0.5, 1.0]
    fills = re.findall(r'<path stroke="(#\w+)" d="m\d', render_svg(spec))
    # The largest of both, the least of head 0, and halves and quarters of them.
    assert {"#053061", "#67001f"} < set(fills)
    assert len(fills) == 4


def test_masses_by_magnitude_have_whole_decades_and_name_zeros():
    capture = Capture.from_array([[[0.9, 0.002], [0.0, 3e-5]]], statistic="mass")
    spec = headgrid.to_spec(headgrid.heatmap(capture, color_range="log"))
    assert spec["usermeta"]["headgrid"]["color_range"] == [1e-5, 1.0]
    assert "1 value of 0 has the color of the lowest" in spec["description"]
    texts = [text.content for text in read_svg(render_svg(spec)).texts]
    assert "0, ≤\u20091e−5" in texts
    assert resolve_color_range("log", [capture]).low == 1e-5
    own = ColorRange(0.003, 0.7, "log")
    bar = headgrid.to_spec(headgrid.heatmap(capture, color_range=own))["spec"]["layer"][1]
    ticks = bar["encoding"]["color"]["legend"]["values"]
    assert 10.0 ** np.array(ticks) == pytest.approx([0.003, 0.01, 0.1, 0.7])
    assert '"0, ≤ 0.003"' in bar["encoding"]["color"]["legend"]["labelExpr"]


def test_heads_without_values_have_a_decade_by_magnitude():
    empty = np.full((1, 2, 2), np.nan)
    capture = Capture.from_array([[[0.9, 0.002], [0.0, 3e-5]], *empty], statistic="mass")
    spec = headgrid.to_spec(headgrid.pick([capture], ["0:1"], color_range="log"))
    assert spec["usermeta"]["headgrid"]["color_range"] == [0.1, 1.0]


def test_ranges_that_a_figure_can_not_have_are_refused():
    logits = Capture.from_array([[[1.0, -1.0]]])
    with pytest.raises(headgrid.OptionError, match="which has two signs: symmetric"):
        headgrid.heatmap(logits, color_range="log")
    with pytest.raises(headgrid.OptionError, match=r"heatmap and pick .* a scale for each head"):
        headgrid.sheet([logits], color_range="head")
