import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgrid import Capture, OptionError, load_capture
from headgrid.capture.quantiles import RELATIVE_ERROR, QuantileSketch

SHARES = [0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1.0]


def allowed_error(values, q):
    """Return the stated error: a share of the larger of the two neighbours of the quantile."""
    ordered = np.sort(values)
    position = q * (len(ordered) - 1)
    neighbours = ordered[[int(np.floor(position)), int(np.ceil(position))]]
    return RELATIVE_ERROR * np.abs(neighbours).max() * (1 + 1e-9) + 1e-300


def content(sketch):
    return sketch.buckets.tolist(), sketch.counts.tolist()


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=10_001),
        np.random.default_rng(2).standard_cauchy(size=5_000) * 1e6,  # heavy tails
        np.exp(np.random.default_rng(3).normal(0, 30, size=3_000)),  # many magnitudes
        -np.exp(np.random.default_rng(4).normal(0, 3, size=777)),
        np.array([3.3]),
        np.array([-1.7, -1e-305, 1e-305, 0.0, 1e300]),
    ],
)
def test_quantiles_are_within_the_stated_error_of_numpys(values):
    for q in SHARES:
        found = QuantileSketch.of(values).quantile(q)
        assert abs(found - np.quantile(values, q)) <= allowed_error(values, q)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-1e300, 1e300, allow_subnormal=False), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_no_values_and_no_share_exceed_the_stated_error(values, q):
    found = QuantileSketch.of(values).quantile(q)
    # Numbers and weights are exact in both; what is left is rounding of the line between them.
    slack = 1e-9 * max(abs(value) for value in values)
    assert abs(found - np.quantile(values, q)) <= allowed_error(values, q) + slack


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-1e9, 1e9), max_size=12), min_size=1, max_size=6), st.randoms())
def test_merging_in_any_order_gives_the_sketch_of_all_values_at_once(parts, random):
    together = content(QuantileSketch.of(np.concatenate([np.array(p, float) for p in parts])))
    shuffled = list(parts)
    random.shuffle(shuffled)
    merged = QuantileSketch.of([])
    for part in shuffled:
        merged = merged.merge(QuantileSketch.of(part))
    assert content(merged) == together
    sketches = [QuantileSketch.of(part) for part in shuffled]
    while len(sketches) > 1:  # as a tree, from the other end
        sketches.append(sketches.pop().merge(sketches.pop()))
    assert content(sketches[0]) == together


def test_nan_is_left_out_and_zeros_of_both_signs_are_one_value():
    nothing = QuantileSketch.of([np.nan])
    assert np.isnan(nothing.quantile(0.5))
    sketch = QuantileSketch.of([[np.nan, 0.0], [-0.0, 5.0]])
    assert sketch.count == 3
    assert sketch.counts.tolist() == [2, 1]
    assert sketch.quantile(0.5) == 0.0
    with pytest.raises(OptionError, match="quantile is 99, expected a share from 0 to 1"):
        sketch.quantile(99)
    for dtype in (np.float16, np.int64):  # values of few bits are exact
        values = np.random.default_rng(5).uniform(-900, 900, size=4_000).astype(dtype)
        for q in SHARES:
            exact = np.quantile(values.astype(float), q)
            assert QuantileSketch.of(values).quantile(q) == pytest.approx(exact, rel=1e-12)


def test_memory_is_bounded_by_the_buckets_not_by_the_values():
    one = QuantileSketch.of(np.random.default_rng(7).uniform(1.0, 2.0, size=200_000))
    assert len(one.buckets) <= 2**11 + 1
    assert len(one.merge(one).buckets) == len(one.buckets)
    many = np.random.default_rng(6).normal(size=(1 << 20) + 4_321)  # more than go together
    parts = QuantileSketch.of(many[:500_000]).merge(QuantileSketch.of(many[500_000:]))
    assert content(QuantileSketch.of(many)) == content(parts)


def test_unrecorded_values_are_not_in_the_sketch_and_rows_stand_in_for_the_matrix():
    values = np.array([[[1.0, 99.0], [np.nan, 2.0]]])
    sketch = Capture.from_array(values, block_sizes=[1, 1]).value_sketch
    assert (sketch.count, sketch.quantile(0), sketch.quantile(1)) == (2, 1.0, 2.0)
    sketch = Capture.from_array(last_block=[[5.0, np.nan, 2.0]]).value_sketch
    assert (sketch.count, sketch.quantile(0), sketch.quantile(1)) == (2, 2.0, 5.0)


def test_the_pooled_quantiles_of_30_layers_are_within_the_stated_error(shared):
    captures = [load_capture(shared / f"data/frames72/layer{n}.pt") for n in range(30)]
    pooled = QuantileSketch.of([])
    for capture in captures:
        pooled = pooled.merge(capture.value_sketch)
    values = np.concatenate(
        [c.full_frame_attention[:, c.attendable].astype(np.float64).ravel() for c in captures]
    )
    assert pooled.count == len(values) == 30 * 32_400
    for q in SHARES:
        exact = np.quantile(values, q)
        assert pooled.quantile(q) == pytest.approx(exact, rel=RELATIVE_ERROR)
