import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, ColorRange, OptionError, load_capture, resolve_color_range
from headgrid.charts.scales import (
    STEPS,
    ColorScale,
    cell_size,
    count_saturated,
    frame_ticks,
    palette_for,
    saturates,
    value_ticks,
)
from headgrid.options import parse_color_range
from synthetic import block_capture, waves

# colorbrewer2.org, RdBu with 11 classes, red to blue.
RDBU_11 = [
    (103, 0, 31),
    (178, 24, 43),
    (214, 96, 77),
    (244, 165, 130),
    (253, 219, 199),
    (247, 247, 247),
    (209, 229, 240),
    (146, 197, 222),
    (67, 147, 195),
    (33, 102, 172),
    (5, 48, 97),
]


def linear_rgb(stops, position):
    """Return the colour at 0..1 between equally spaced stops, channel by channel."""
    at = position * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    return [a + (at - low) * (b - a) for a, b in zip(stops[low], stops[low + 1], strict=True)]


def scale_over(low, high, statistic="logit", name="rdbu"):
    return ColorScale(ColorRange(low, high, "fixed"), palette_for(statistic, name))


def middles(low, high, steps=STEPS):
    return low + (np.arange(steps) + 0.5) * (high - low) / steps


def test_the_colours_are_colorbrewers_with_linear_rgb_between():
    colors = scale_over(-1, 1).rgb(middles(-1, 1)).astype(int)
    expected = [linear_rgb(RDBU_11[::-1], step / 255) for step in range(256)]
    assert np.abs(colors - expected).max() <= 1
    assert len({tuple(c) for c in colors}) >= 250


def test_red_is_positive_and_blue_is_negative_in_both_palettes():
    for name in ("rdbu", "custom"):
        (r0, _, b0), (r1, _, b1) = scale_over(-1, 1, name=name).rgb([-1.0, 1.0]).astype(int)
        assert b0 > r0
        assert r1 > b1


def test_the_custom_palette_is_the_seeds_reversed():
    seed = [
        "#98202C",
        "#D15C4C",
        "#EEA17E",
        "#FDDAC3",
        "#F0F4F5",
        "#C2DEEC",
        "#79B0D4",
        "#3C7FB9",
        "#1D4680",
    ]
    stops = scale_over(-4, 4, name="custom").stops
    assert [color.upper() for _, color in stops] == seed[::-1]
    assert [value for value, _ in stops] == [-4, -3, -2, -1, 0, 1, 2, 3, 4]


def test_zero_is_white_in_a_two_sided_range():
    for low, high in [(-1, 1), (-1, 9), (-30, 0.5)]:
        scale = scale_over(low, high)
        assert scale.rgb([0.0]).min() >= 246
        assert (0.0, "#f7f7f7") in scale.stops


def test_each_side_of_a_two_sided_range_has_its_own_half_of_the_palette():
    scale = scale_over(-2, 8)
    assert scale.steps([-2, -1, -1e-9, 0, 4, 7.999, 8]).tolist() == [0, 64, 127, 128, 192, 255, 255]


def test_a_one_sided_range_uses_one_half_of_the_palette():
    scale = scale_over(0, 8)
    assert scale.steps([0, 4, 8]).tolist() == [128, 192, 255]
    assert scale.stops[0] == (0.0, "#f7f7f7")
    assert scale.stops[-1] == (8.0, "#67001f")
    negative = scale_over(-8, 0)
    assert negative.steps([-8, -4, 0]).tolist() == [0, 64, 127]
    assert negative.stops[-1] == (0.0, "#f7f7f7")


def test_values_beyond_the_range_clamp():
    scale = scale_over(-1, 1)
    assert scale.steps([-9, 9]).tolist() == [0, 255]


def test_masses_are_viridis_from_zero():
    range_ = resolve_color_range("symmetric", [block_capture(statistic="mass")])
    assert range_.low == 0
    scale = ColorScale(range_, palette_for("mass", "rdbu"))
    assert scale.palette.name == "viridis"
    assert scale.rgb([0.0]).tolist() == [[0x44, 0x01, 0x54]]
    assert scale.rgb([range_.high]).tolist() == [[0xFD, 0xE7, 0x25]]


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


@settings(deadline=None, max_examples=120)
@given(
    st.sampled_from(
        [
            (-1.0, 1.0),
            (-2.0, 8.0),
            (-14.0781, 14.0781),
            (0.0, 3.0),
            (-5.0, 0.0),
            (2.0, 9.0),
            (-1e-5, 1e-5),
            (-1e5, 3e5),
            (-9.0, -2.0),
        ]
    ),
    st.floats(-0.2, 1.2),
    st.sampled_from(["logit", "mass"]),
)
def test_the_vega_expression_gives_the_colour_that_python_gives(limits, share, statistic):
    low, high = limits
    scale = scale_over(low, high, statistic)
    value = low + share * (high - low)
    drawn = color_by_stops(scale, evaluate(scale.expression("v"), value))
    step = int(scale.steps([value])[0])
    expected = scale.palette.rgb(np.array([max(0, min(255, step + d)) / 255 for d in (-1, 0, 1)]))
    assert np.abs(expected - drawn).max(axis=1).min() <= 0.51
    if abs(share * STEPS - round(share * STEPS)) > 1e-6 and abs(value) > 1e-9 * high:
        assert np.abs(scale.rgb([value])[0] - drawn).max() <= 0.51


@pytest.mark.parametrize(
    "limits", [(-1, 1), (-2, 8), (0, 3), (-5, 0), (-9, -2), (2, 9), (-1e-5, 1e-5), (-1e5, 1e5)]
)
@pytest.mark.parametrize("statistic", ["logit", "mass"])
def test_every_step_of_the_expression_has_its_own_colour(limits, statistic):
    low, high = limits
    scale = scale_over(low, high, statistic)
    for value in low + (np.arange(STEPS) + 0.37) * (high - low) / STEPS:
        drawn = color_by_stops(scale, evaluate(scale.expression("v"), value))
        assert np.abs(scale.rgb([value])[0] - drawn).max() <= 0.51


def test_symmetric_takes_the_largest_magnitude_of_a_visible_value():
    values = np.array([[[1.0, 99.0], [-3.0, 2.0]]])
    capture = Capture.from_array(values, block_sizes=[1, 1])
    assert resolve_color_range("symmetric", [capture]) == ColorRange(-3.0, 3.0, "symmetric")


def test_shared_takes_it_over_all_captures():
    captures = [Capture.from_array(waves(1, 3, 3, scale=s)) for s in (1.0, 5.0, 2.0)]
    largest = np.abs(waves(1, 3, 3, scale=5.0)).max()
    found = resolve_color_range("shared", captures)
    assert (found.low, found.high) == pytest.approx((-largest, largest))


def test_minmax_takes_both_ends_and_zero():
    capture = Capture.from_array([[[1.0, -2.0], [8.0, 3.0]]])
    assert resolve_color_range("minmax", [capture]) == ColorRange(-2.0, 8.0, "minmax")
    positive = Capture.from_array([[[1.0, 2.0], [8.0, 3.0]]])
    assert resolve_color_range("minmax", [positive]) == ColorRange(0.0, 8.0, "minmax")


def test_quantile_is_pooled_over_all_visible_values_and_symmetric():
    rows = np.arange(1.0, 102.0)
    low, high = (Capture.from_array([[sign * rows]]) for sign in (-2, 1))
    found = resolve_color_range("quantile", [low, high])
    pooled = np.concatenate([-2 * rows, rows])
    assert abs(np.quantile(pooled, 0.01)) > np.quantile(pooled, 0.99)
    assert found.rule == "quantile"
    assert found.low == -found.high
    assert found.high == pytest.approx(abs(np.quantile(pooled, 0.01)), rel=1e-9)


def test_quantiles_of_captures_are_never_combined():
    # One small capture of large values among many: its own 99 % is 500, the pooled is 1.
    captures = [Capture.from_array(np.ones((1, 100, 100))), Capture.from_array([[[500.0]]])]
    assert resolve_color_range("quantile", captures).high == 1.0
    assert resolve_color_range("quantile", captures[::-1]).high == 1.0


def test_quantile_starts_at_zero_where_values_have_no_sign():
    values = np.arange(1.0, 102.0).reshape(1, 1, 101)
    found = resolve_color_range("quantile", [Capture.from_array(values, statistic="mass")])
    assert found == ColorRange(0.0, 100.0, "quantile")


def test_quantile_takes_one_capture_too_and_leaves_future_frames_out():
    values = np.where(np.tri(40, dtype=bool), waves(2, 40, 40), 1e9)
    capture = Capture.from_array(values, block_sizes=[1] * 40)
    visible = values[:, np.tri(40, dtype=bool)]
    ends = np.quantile(visible, [0.01, 0.99])
    found = resolve_color_range("quantile", [capture])
    assert found.high == pytest.approx(np.abs(ends).max(), rel=2**-12)
    beyond = np.abs(visible) > found.high
    assert count_saturated(capture, found) == np.count_nonzero(beyond) > 0


def test_no_value_saturates_where_the_quantile_is_the_largest_value():
    capture = Capture.from_array(np.full((1, 9, 9), 1.0 + 0.9 * 2**-12))
    assert count_saturated(capture, resolve_color_range("quantile", [capture])) == 0


def test_where_both_quantiles_are_zero_the_largest_magnitude_is_taken():
    values = np.zeros((1, 30, 30))
    values[0, 0, :3] = [-4.0, 1.0, 2.0]
    found = resolve_color_range("quantile", [Capture.from_array(values)])
    assert found == ColorRange(-4.0, 4.0, "quantile")


def test_quantile_of_30_layers_is_within_one_percent_of_the_exact_one(shared):
    captures = [load_capture(shared / f"data/frames72/layer{n}.pt") for n in range(30)]
    values = np.concatenate(
        [
            capture.full_frame_attention[head][capture.attendable].astype(np.float64)
            for capture in captures
            for head in range(12)
        ]
    )
    exact = np.abs(np.quantile(values, [0.01, 0.99])).max()
    found = resolve_color_range("quantile", iter(captures))
    assert found.high == pytest.approx(exact, rel=0.01)
    assert found.high == pytest.approx(exact, rel=2**-12)
    assert found.low == -found.high
    separately = np.mean([resolve_color_range("quantile", [c]).high for c in captures])
    assert separately != pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("rule", ["symmetric", "shared", "minmax", "quantile"])
@pytest.mark.parametrize("statistic", ["logit", "mass"])
@pytest.mark.parametrize("value", [0.0, 3.0, 3.3, 1e-30, 1e30])
def test_constant_values_still_give_a_range(rule, statistic, value):
    capture = Capture.from_array(np.full((1, 2, 2), value), statistic=statistic)
    found = resolve_color_range(rule, [capture])
    assert found.low < found.high
    assert found.low <= value <= found.high * (1 + 1e-8)


@pytest.mark.parametrize(("text", "limits"), [("-5,10", (-5.0, 10.0)), (" -1e-3 , 2 ", (-1e-3, 2))])
def test_two_numbers_are_a_colour_range(text, limits):
    assert parse_color_range(text) == limits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "symetric",
            "expected one of symmetric, shared, minmax, quantile, LO,HI.*did you mean 'symmetric'",
        ),
        ("5,-5", "expected two .*numbers LO,HI with LO below HI"),
        ("1,1", "expected two .*numbers LO,HI with LO below HI"),
        ("nan,1", "expected two .*numbers LO,HI with LO below HI"),
        ("0,inf", "expected two .*numbers LO,HI with LO below HI"),
        ("a,b", "expected two .*numbers LO,HI"),
        ("1,2,3", "expected two .*numbers LO,HI"),
        ("", "expected one of symmetric"),
    ],
)
def test_other_colour_ranges_are_refused_with_the_choices(text, message):
    with pytest.raises(OptionError, match=message):
        parse_color_range(text)


def test_saturated_values_are_counted_among_the_visible():
    capture = Capture.from_array([[[1.0, 99.0], [-3.0, 2.0]]], block_sizes=[1, 1])
    assert count_saturated(capture, ColorRange(-1.5, 1.5, "fixed")) == 2
    assert count_saturated(capture, resolve_color_range("symmetric", [capture])) == 0


@pytest.mark.parametrize(
    ("values", "sides"),
    [
        ((-5.0, 5.0), (False, False)),
        ((-5.0 - 1e-9, 5.0 + 1e-9), (False, False)),  # the ends are rounded to 9 digits
        ((-5.1, 0.0), (True, False)),
        ((-1.0, 5.1), (False, True)),
        ((-9.0, 9.0), (True, True)),
    ],
)
def test_values_saturate_on_the_side_where_they_lie_beyond(values, sides):
    color_range = ColorRange(-5.0, 5.0, "quantile")
    assert saturates(values, color_range) == sides
    capture = Capture.from_array([[list(values)]])
    assert count_saturated(capture, color_range) == sum(sides)


@pytest.mark.parametrize("count", range(1, 201))
def test_ticks_follow_the_rule_of_the_design(count):
    ticks = frame_ticks(count)
    assert len(ticks) <= 8
    assert ticks[0] == 0
    assert ticks[-1] == count - 1
    assert ticks == sorted(set(ticks))
    step = 5 if count <= 30 else 10 if count <= 60 else 20
    regular = set(range(0, count, step))
    if len(ticks) > 1 and count <= 140:
        for tick in ticks[:-1]:
            assert tick in regular
        for tick in regular - set(ticks):
            assert count - 1 - tick < step / 2


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (1, [0]),
        (2, [0, 1]),
        (5, [0, 4]),
        (21, [0, 5, 10, 15, 20]),
        (23, [0, 5, 10, 15, 22]),
        (24, [0, 5, 10, 15, 20, 23]),
        (30, [0, 5, 10, 15, 20, 25, 29]),
        (31, [0, 10, 20, 30]),
        (60, [0, 10, 20, 30, 40, 50, 59]),
        (72, [0, 20, 40, 60, 71]),
    ],
)
def test_ticks_worked_by_hand(count, ticks):
    assert frame_ticks(count) == ticks


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 100_000))
def test_no_number_of_frames_gets_more_than_eight_ticks(count):
    ticks = frame_ticks(count)
    assert len(ticks) <= 8
    assert (ticks[0], ticks[-1]) == (0, count - 1)


@settings(deadline=None, max_examples=80)
@given(st.floats(-1e6, 1e6), st.floats(1e-5, 1e6), st.integers(2, 10))
def test_value_ticks_are_round_and_inside(low, share, count):
    span = share * max(1.0, abs(low))
    high = low + span
    ticks = value_ticks(low, high, count)
    assert len(ticks) <= 2 * count + 1
    steps = np.diff(ticks)
    assert all(low - 1e-6 * span <= t <= high + 1e-6 * span for t in ticks)
    if len(steps):
        mantissa = float(f"{steps[0]:e}".partition("e")[0])
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 0.02 * mantissa


@pytest.mark.parametrize("count", [1, 2, 5, 21, 72, 108, 200, 4096])
def test_cells_are_whole_points(count):
    size = cell_size(count)
    assert isinstance(size, int)
    assert size >= 1
    if count <= 72:
        assert 190 <= size * count <= 240
