"""Captures and a rule -> the values at the two ends of their colour scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from headgrid.capture.quantiles import RELATIVE_ERROR, QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.options import SMALLEST_SPAN, ColorRange, check_color_rule
from headgrid.text import shorten_float

#: The rule ``quantile`` leaves so much of all visible values beyond each end.
LOW_QUANTILE, HIGH_QUANTILE = 0.01, 0.99


class Ranged(Protocol):
    """What a colour rule reads of a capture."""

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest visible value."""

    @property
    def statistic(self) -> str:
        """What the values are."""

    @property
    def value_sketch(self) -> QuantileSketch:
        """Sketch of the visible values; only the rule ``quantile`` reads it."""


def resolve_color_range(
    rule: str | tuple[float, float] | ColorRange, captures: Iterable[Ranged]
) -> ColorRange:
    """Turn a rule into numbers.

    Parameters
    ----------
    rule : {"symmetric", "shared", "minmax", "quantile"} or (low, high) or ColorRange
        ``symmetric`` and ``shared`` take the largest magnitude of a visible
        value, of one capture or of all; ``minmax`` the smallest and the largest
        value, and zero; ``quantile`` the 1 % and the 99 % quantile of all
        visible values of all captures together, whichever is larger in
        magnitude for both sides. A range that is resolved already passes through.
    captures : iterable of Capture
        What the rule is applied to; read once, and none is kept.

    Returns
    -------
    ColorRange
        With ``low < high``. Statistics without sign start at 0 (or at a value
        below) for ``symmetric``, ``shared`` and ``quantile``; where every value is 0 the
        range is ±1 (0 to 1). Where so many values are 0 that both quantiles
        are, ``quantile`` takes the largest magnitude, as ``shared`` does.

    Notes
    -----
    The quantiles are pooled, never those of one capture combined with those of
    another, and exact to `RELATIVE_ERROR` (2**-12).

    Examples
    --------
    >>> from headgrid import Capture
    >>> layers = [Capture.from_array([[[1.0, -2.0]]]), Capture.from_array([[[3.0, 0.5]]])]
    >>> resolve_color_range("shared", layers)
    ColorRange(low=-3.0, high=3.0, rule='shared')
    >>> resolve_color_range("quantile", layers)
    ColorRange(low=-2.94, high=2.94, rule='quantile')
    """
    if isinstance(rule, ColorRange):
        return rule
    checked = check_color_rule(rule)
    if isinstance(checked, tuple):
        return ColorRange(*checked, "fixed")
    pool = _pool_values(captures, checked)
    low, high, diverging = pool.low, pool.high, pool.diverging
    if checked == "minmax":
        if diverging:
            low, high = min(low, 0.0), max(high, 0.0)
    else:
        high = max(abs(low), abs(high))
        if checked == "quantile":
            high = _quantile_magnitude(pool, high)
        low = -high if diverging else max(min(low, 0.0), -high)
    if not high - low > SMALLEST_SPAN:  # one value everywhere
        low, high = (-1.0 if diverging else 0.0), (high if high > SMALLEST_SPAN else 1.0)
    return ColorRange(shorten_float(low), shorten_float(high), checked)


@dataclass(frozen=True)
class _Pool:
    """What the rules need of all captures together."""

    low: float
    high: float
    diverging: bool
    sketch: QuantileSketch


def _pool_values(captures: Iterable[Ranged], rule: str) -> _Pool:
    lows, highs, diverging = [], [], True
    sketch = QuantileSketch.of([])
    for capture in captures:
        low, high = capture.value_range
        lows.append(low)
        highs.append(high)
        diverging = STATISTICS[capture.statistic].signed
        if rule == "quantile":
            sketch = sketch.merge(capture.value_sketch)
    return _Pool(min(lows, default=0.0), max(highs, default=0.0), diverging, sketch)


def _quantile_magnitude(pool: _Pool, largest: float) -> float:
    """Return the larger magnitude of the two quantiles; the largest of all where they are 0."""
    magnitude = abs(pool.sketch.quantile(HIGH_QUANTILE)) if pool.sketch.count else 0.0
    if pool.sketch.count and pool.diverging:
        magnitude = max(magnitude, abs(pool.sketch.quantile(LOW_QUANTILE)))
    # A bucket's centre may lie below its values: the largest one must not saturate for that.
    return magnitude if 0 < magnitude * (1 + RELATIVE_ERROR) < largest else largest
