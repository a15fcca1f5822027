"""Rows of the heads of one run -> the role of each: the published rules.

A rule takes `Survey.rows` of one run, and returns a table of ``role`` and ``margin``: how far what
decided lies from the nearest border, at least 0, infinite without one. A head without visible keys
has no role; too few keys, and another statistic than the rule needs, are a `CaptureError`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice, show_value
from headgrid.tables.stats import visible_groups

if TYPE_CHECKING:
    import pandas as pd

_Numbers = npt.NDArray[np.float64]


def sign_period(
    rows: pd.DataFrame, *, share: float = 0.8, period: float = 6.4, own: int = 3
) -> pd.DataFrame:
    """Return Anchor, Wave or Veil of each head, from logits.

    Of the last query frame's row (of captures without a matrix the last block's), without its last
    ``own`` keys, the query's block: where at least ``share`` of the values are positive, the head
    is an Anchor, where at least ``share`` are not, a Veil; else, where the period of `find_periods`
    is below ``period`` frames, a Wave; else an Anchor where the mean is positive, a Veil where not.
    The margin is in shares, for a Wave in frames, and in logits where the mean decided.

    From Pyramid Forcing (2026), arXiv:2605.13111.
    """
    positive, other, periods, mean = np.full((4, len(rows)), np.nan)
    for heads, frames, seen in _groups("sign-period", rows, "logit", own + 1, "last_query"):
        kept = seen[:, : len(frames) - own]
        positive[heads], other[heads] = (kept > 0).mean(axis=1), (kept <= 0).mean(axis=1)
        periods[heads] = find_periods(kept, frames[: len(frames) - own])
        mean[heads] = kept.mean(axis=1)
        undecided = np.maximum(positive, other)[heads] < share
        if np.isnan(periods[heads])[undecided].any():
            text = f"expected {own + 19} visible keys at even steps, to find a period, found other"
            text = f"sign-period: {text} ones in some heads, which go by their mean"
            warnings.warn(f"{text}; record more frames, and all", HeadgridWarning, stacklevel=2)
    decided = [positive >= share, other >= share, periods < period]
    margins = [positive - share, other - share, period - periods]
    codes = np.select([np.isnan(mean), *decided, mean > 0], [-1, 0, 2, 1, 0], 2)
    return _to_table(codes, np.select(decided, margins, abs(mean)), "Anchor", "Wave", "Veil")


def find_periods(rows: _Numbers, frames: npt.NDArray[Any]) -> _Numbers:
    """Return the dominant period, in frames, of each row [head, key] along the keys.

    Of the real FFT of a row's first difference, minus its mean and times a Hann window, the lines
    with periods P from 3 frames to a sixth of all are scored: the magnitude at P, and 0.5, 0.25
    and 0.125 times the largest within 20 % of 2 P, 3 P and 4 P. The best counts, of equal ones the
    longest period. NaN below 19 keys, without a constant step, and for a straight line.
    """
    steps, count = np.diff(frames), len(frames) - 1
    lines = np.arange(1, count // 2 + 1)
    scored = lines[(lines >= 6) & (steps[:1].sum() * count >= 3 * lines)]
    if not len(scored) or bool((steps != steps[0]).any()):
        return np.full(len(rows), np.nan)
    changes = np.diff(rows, axis=1)
    changes -= changes.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(changes * np.hanning(count), axis=1)[:, 1:]
    sizes = np.sqrt(spectrum.real**2 + spectrum.imag**2)
    scores = sizes[:, scored - 1]
    for place, line in enumerate(scored):
        for times, weight in ((2, 0.5), (3, 0.25), (4, 0.125)):
            # In whole numbers, which tell 20 % exactly: periods are shares of the same length.
            near = sizes[:, 5 * np.abs(line - times * lines) <= times * lines]
            scores[:, place] += weight * near.max(axis=1, initial=0.0)
    best = scores >= scores.max(axis=1, keepdims=True) * (1 - 1e-9)
    varies = np.abs(changes).max(axis=1) > 1e-12 * np.abs(rows).max(axis=1)
    return np.where(varies, count * float(steps[0]) / scored[best.argmax(axis=1)], np.nan)


def recent_mass(
    rows: pd.DataFrame, *, share: float = 0.8, recent: int = 4, skip: int = 1
) -> pd.DataFrame:
    """Return static or dynamic of each head, from masses.

    Static is a head with at least ``share`` of the last block's mass, without that on the first
    ``skip`` keys (3 in the paper), on the last ``recent`` ones. The margin is in shares.

    From Forcing-KV (2026), arXiv:2605.09681.
    """
    shares = np.full(len(rows), np.nan)
    for heads, frames, seen in _groups("recent-mass", rows, "mass", recent + skip + 1):
        whole, late = seen[:, skip:].sum(axis=1), seen[:, len(frames) - recent :].sum(axis=1)
        shares[heads] = late / np.where(whole > 0, whole, np.nan)
    codes = np.select([np.isnan(shares), shares >= share], [-1, 0], 1)
    return _to_table(codes, np.abs(shares - share), "static", "dynamic")


def three_mass(rows: pd.DataFrame, *, share: float = 0.5, own: int = 3) -> pd.DataFrame:
    """Return first, middle or current of each head, from masses of one autoregressive step.

    Of the last block's row, the masses on the first key and on the middle ones (without the last
    ``own``, the block) are each divided by their sums over all heads of the run. The ``share`` of
    the heads (rounded down) whose larger one is smallest are current, the paper's dummy heads;
    the others are what their larger one says. The margin, in those shares, is how far the larger
    one lies from the next head's beyond the border to current, and at most how far the two differ.

    From Dummy Forcing (2026), arXiv:2601.20499.
    """
    both = np.full((2, len(rows)), np.nan)
    for heads, frames, seen in _groups("three-mass", rows, "mass", own + 2):
        both[:, heads] = seen[:, 0], seen[:, 1 : len(frames) - own].sum(axis=1)
    first, middle = both / np.maximum(np.nansum(both, axis=1, keepdims=True), 1e-300)
    larger = np.maximum(first, middle)
    order = np.argsort(larger, kind="stable")[: np.count_nonzero(~np.isnan(larger))]
    few = int(share * len(order) + 1e-9)
    codes = np.select([np.isnan(larger), first >= middle], [-1, 0], 1)
    codes[order[:few]] = 2
    below, above = [-np.inf, *larger[order]][few], [*larger[order], np.inf][few]
    apart = np.minimum(larger - below, np.abs(first - middle))
    margins = np.where(codes == 2, above - larger, apart)
    return _to_table(codes, margins, "first", "middle", "current")


def sink(rows: pd.DataFrame, *, threshold: float = 0.0) -> pd.DataFrame:
    """Return sink or other of each head, from any statistic.

    A sink is a head whose score, that of `headgrid.sink_scores`, is above ``threshold``; no role
    where it has none. The margin is in the unit of the statistic.

    Attention sinks are those of StreamingLLM (2023), arXiv:2309.17453.
    """
    scores = rows["sink"].to_numpy()
    codes = np.select([np.isnan(scores), scores > threshold], [-1, 0], 1)
    return _to_table(codes, np.abs(scores - threshold), "sink", "other")


RULES = {
    rule.__name__.replace("_", "-"): rule for rule in (sign_period, recent_mass, three_mass, sink)
}


def find_rule(name: str, parameters: Mapping[str, Any]) -> partial[Any]:
    """Return a rule with its parameters; refuse those that it has not, or that can not be."""
    rule, checked = RULES[check_choice("rule", name, RULES)], dict[str, Any]()
    defaults = rule.__kwdefaults__ or {}
    for key, value in parameters.items():
        count = isinstance(defaults[check_choice(f"parameter of {name}", key, defaults)], int)
        low, high = (0, 1) if key == "share" else (0 if count else -math.inf, math.inf)
        real = isinstance(value, Real) and low <= float(value) <= high
        if not real or (count and value % 1):
            kind = "a share, 0 to 1" if high == 1 else "a number (of keys a whole one)"
            raise OptionError(f"{key} of {name} is {show_value(value)}, expected {kind}")
        checked[key] = int(value) if count else value
    return partial(rule, **checked)


def _groups(
    rule: str, rows: pd.DataFrame, needed: str, least: int, column: str = "last_block"
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[Any], _Numbers]]:
    """Yield heads that see the same keys, the frames of these, and values; refuse what is amiss."""
    found = STATISTICS[rows["statistic"].iloc[0]]
    if not (found.base == needed and found.has_mean):
        raise CaptureError(
            f"{rule}: the captures hold {found.name}, expected {needed}; record them with "
            f'headgrid.record(statistic="{needed}") or headgrid record --statistic {needed}'
        )
    for heads, keys, seen in visible_groups(np.stack(rows[column].to_list())):
        if len(keys) < least:
            raise CaptureError(
                f"{rule}: a row has {len(keys)} visible keys, expected at least {least}; record "
                "more frames, or change the parameters of the rule"
            )
        yield heads, rows["key_frames"].iloc[0][keys], seen


def _to_table(codes: npt.NDArray[Any], margins: _Numbers, *roles: str) -> pd.DataFrame:
    """Return roles by their number, -1 for none, in the order in which they win an even vote."""
    import pandas as pd

    labels = pd.Categorical.from_codes(codes.tolist(), pd.Index(roles), ordered=True)
    return pd.DataFrame({"role": labels, "margin": margins})
