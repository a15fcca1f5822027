"""Captures and a rule -> the values at the two ends of their colour scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from headgrid.capture.model import Capture
from headgrid.capture.quantiles import RELATIVE_ERROR, QuantileSketch
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import OptionError
from headgrid.options import SMALLEST_SPAN, ColorRange, check_color_rule
from headgrid.text import shorten_float

#: Of a logarithmic scale: below a millionth of the largest, attention makes no difference.
_MOST_DECADES = 7


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
    """Turn a rule into the values at the two ends of a colour scale.

    Parameters
    ----------
    rule : {"symmetric", "shared", "minmax", "quantile", "log"} or (low, high) or ColorRange
        ``symmetric`` and ``shared`` take the largest magnitude of a visible
        value, of one capture or of all; ``minmax`` the smallest and the largest
        value, and zero; ``quantile`` the 1 % and the 99 % quantile (exact to a share of
        2**-12 of their magnitude) of all visible values of all captures together,
        whichever is larger in magnitude for both sides. ``log``, of statistics without
        sign, takes whole decades from the smallest value above 0 to the largest value, at
        most seven. A range that is resolved already passes through.
    captures : iterable of Capture
        What the rule is applied to; read once, and none is kept.

    Returns
    -------
    ColorRange
        With ``low < high``. Statistics without sign start at 0 (or at a value
        below) for ``symmetric``, ``shared`` and ``quantile``; where every value is 0 the
        range is ±1 (0 to 1). Where so many values are 0 that both quantiles
        are, ``quantile`` takes the largest magnitude, as ``shared`` does.

    Raises
    ------
    OptionError
        For an unknown rule, with the choices and the near miss; for ``log`` of a statistic
        with two signs; for ``head``, which is not one range.

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
    ends, signed, sketch = _look_through(captures, checked)
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if checked == "log":
        return _find_decades(sketch.smallest_positive if sketch else 1.0, high)
    if checked != "minmax":
        high = max(abs(low), abs(high))
        if sketch is not None:
            magnitude = max(abs(sketch.quantile(q)) for q in (0.99, 0.01 if signed else 0.99))
            # A bucket's centre may lie below its values: the largest must not saturate for that.
            if 0 < magnitude * (1 + RELATIVE_ERROR) < high:
                high = magnitude
        return ColorRange.around_zero(max(low, -high), high, signed, checked)
    if signed:
        low, high = min(low, 0.0), max(high, 0.0)
    if not high - low > SMALLEST_SPAN:  # one value everywhere
        low, high = (-1.0 if signed else 0.0), (high if high > SMALLEST_SPAN else 1.0)
    return ColorRange(shorten_float(low), shorten_float(high), checked)


def propose_log(capture: Capture, rule: object) -> str:
    """Return the sentence that proposes a scale by magnitude, where masses hide each other.

    That is where less than a twentieth of them is above a fiftieth of the largest.
    """
    largest = capture.value_range[1]
    asked = isinstance(rule, str) and rule in ("symmetric", "shared", "minmax")
    if not asked or capture.statistic != "mass" or capture.full_frame_attention is None:
        return ""
    matrices = map(capture.head_matrix, range(capture.num_heads))
    large = sum(int(np.count_nonzero(matrix > largest / 50)) for matrix in matrices)
    if 20 * large >= capture.num_visible:
        return ""
    return (
        "a few masses are so large that all others have the color of 0; color_range='log' "
        "(--color-range log) tells them apart"
    )


def _look_through(
    captures: Iterable[Ranged], rule: str
) -> tuple[list[float], bool, QuantileSketch | None]:
    """Return smallest and largest values, whether they have two signs, and a rule's sketch."""
    if rule == "head":
        raise OptionError(
            "color range is 'head', expected one range for all that the figure shows; heatmap and "
            "pick (headgrid render, headgrid pick) draw maps on a scale for each head"
        )
    ends, signed, sketch = list[float](), True, None
    for capture in captures:
        ends += filter(math.isfinite, capture.value_range)  # where anything was recorded
        signed = STATISTICS[capture.statistic].signed
        if rule == "log" and signed:
            raise OptionError(
                f"color range is 'log', expected another one for {capture.statistic}, which has "
                "two signs: symmetric, quantile, or head for each head its own"
            )
        if rule in ("quantile", "log"):
            values = capture.value_sketch
            sketch = sketch.merge(values) if sketch else values
    return ends, signed, sketch


def _find_decades(smallest: float, largest: float) -> ColorRange:
    """Return the whole decades that hold positive values, at most so many below the largest."""
    top = math.ceil(math.log10(largest)) if SMALLEST_SPAN < largest < math.inf else 0
    bottom = math.floor(math.log10(smallest)) if smallest < largest else top - 1
    bottom = min(max(bottom, top - _MOST_DECADES), top - 1)
    return ColorRange(float(f"1e{bottom}"), float(f"1e{top}"), "log")
