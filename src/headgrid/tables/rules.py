"""Rows of all heads of a run -> the role of each head, and its margin: the rules that come with it.

A rule is a function from a table of rows (those of one run in `headgrid.survey.Survey.rows`) to
the roles of its heads. Every rule looks at visible keys only: a head without one has no role.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice, show_value
from headgrid.tables.stats import group_rows

if TYPE_CHECKING:
    import pandas as pd

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """A rule with the roles that it gives, in their order: the first is that of a tie of votes."""

    label: Callable[..., pd.DataFrame]
    roles: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(inspect.signature(self.label).parameters)[1:]


def sign_period(
    rows: pd.DataFrame, *, share: float = 0.8, period: float = 6.4, own: int = 3
) -> pd.DataFrame:
    """Return Anchor, Wave or Veil of each head, from logits.

    Looks at the row of the last query frame (of captures without a matrix at the last block's)
    over the visible keys without the last ``own``, which are the query's own block. Where at
    least ``share`` of its values are positive, the head is an Anchor, where at least ``share`` are
    not, a Veil; else, where the dominant period is below ``period`` frames, a Wave; else an
    Anchor where the mean is positive, a Veil where it is not. Rows in which `find_periods`
    can find no period go by their mean, with a warning.

    From Pyramid Forcing (2026), arXiv:2605.13111.

    Returns
    -------
    DataFrame
        ``role`` and ``margin``: how far the number that decided lies from its border, in shares
        of the keys, in frames for a Wave, and in logits where the mean decided.

    Raises
    ------
    CaptureError
        For captures of another statistic, and where no key is left.
    """
    share, own = _read_share("share", share), _read_count("own", own)
    values, frames = _read_rows("sign-period", rows, "logit", "last_query")
    codes, margins, odd = np.full(len(values), -1), np.full(len(values), np.nan), ""
    for heads, keys, seen in _groups("sign-period", values, own + 1):
        kept = seen[:, : len(keys) - own]
        positive, other, mean = (kept > 0).mean(axis=1), (kept <= 0).mean(axis=1), kept.mean(axis=1)
        periods = find_periods(kept, frames[keys[: len(keys) - own]])
        by_sign = (positive >= share) | (other >= share)
        if not by_sign.all() and np.isnan(periods).all():
            odd = f"{kept.shape[1]} visible keys beside the last {own}"
        decided = [positive >= share, other >= share, periods < period]
        codes[heads] = np.select([*decided, mean > 0], [0, 2, 1, 0], 2)
        apart = [positive - share, other - share, period - periods]
        margins[heads] = np.select(decided, apart, np.abs(mean))
    if odd:
        warnings.warn(
            f"sign-period: found {odd}, expected at least 19 at one step to find a period; heads "
            "that signs do not decide go by their mean and none is a Wave, so record more frames",
            HeadgridWarning,
            stacklevel=2,
        )
    return _to_table("sign-period", codes, margins)


def find_periods(values: npt.ArrayLike, frames: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the dominant period, in frames, of each row [head, key] along the keys.

    The first difference of the row, minus its mean and times a Hann window, goes through a
    real FFT. Of its lines, those with periods P from 3 frames to n/6 are scored, n being the
    number of differences: the magnitude at P, and 0.5, 0.25 and 0.125 times the largest magnitude
    within 20 % of the periods 2 P, 3 P and 4 P. The line with the best score counts, of equal
    ones the longest period. NaN where there is no such line (as below 19 keys), where the frame
    numbers have no constant step, and for a row on a straight line.

    >>> frames = np.arange(60)
    >>> find_periods([np.sin(2 * np.pi * frames / 5), 0.5 * frames], frames).round(1)
    array([4.9, nan])
    """
    rows, steps = np.asarray(values, dtype=np.float64), np.diff(np.asarray(frames))
    count, periods = len(steps), np.full(len(rows), np.nan)
    lines = np.arange(1, count // 2 + 1)
    scored = lines[(lines >= 6) & (steps[:1].sum() * count >= 3 * lines)]
    if not len(scored) or bool((steps != steps[0]).any()):
        return periods
    changes = np.diff(rows, axis=1)
    changes -= changes.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(changes * np.hanning(count), axis=1)[:, 1:]
    sizes = np.sqrt(spectrum.real**2 + spectrum.imag**2)
    scores = sizes[:, scored - 1]
    for place, line in enumerate(scored):
        for times, weight in ((2, 0.5), (3, 0.25), (4, 0.125)):
            # Of a line k times P / period is k P / line: whole numbers tell 20 % exactly.
            near = sizes[:, 5 * np.abs(line - times * lines) <= times * lines]
            scores[:, place] += weight * near.max(axis=1, initial=0.0)
    varies = np.abs(changes).max(axis=1) > 1e-12 * np.abs(rows).max(axis=1)
    best = scores >= scores.max(axis=1, keepdims=True) * (1 - 1e-9)
    found = count * float(steps[0]) / scored[best.argmax(axis=1)]
    return np.where(varies, found, np.nan)


def recent_mass(
    rows: pd.DataFrame, *, share: float = 0.8, recent: int = 4, skip: int = 1
) -> pd.DataFrame:
    """Return static or dynamic of each head, from masses.

    A head is static where the mass of the last block's row on its last ``recent`` visible keys
    is at least ``share`` of that on all but the first ``skip``, which hold the sink. The paper
    says 3 of them, its program 1.

    From Forcing-KV (2026), arXiv:2605.09681.

    Returns
    -------
    DataFrame
        ``role`` and ``margin``: how far the share lies from ``share``.

    Raises
    ------
    CaptureError
        For captures of another statistic, and where there are not more keys than the first and
        the last ones together.
    """
    share, recent = _read_share("share", share), _read_count("recent", recent, 1)
    skip = _read_count("skip", skip)
    values, _ = _read_rows("recent-mass", rows, "mass", "last_block")
    shares = np.full(len(values), np.nan)
    for heads, _, seen in _groups("recent-mass", values, recent + skip + 1):
        shares[heads] = _divide(seen[:, -recent:].sum(axis=1), seen[:, skip:].sum(axis=1))
    codes = np.select([np.isnan(shares), shares >= share], [-1, 0], 1)
    return _to_table("recent-mass", codes, np.abs(shares - share))


def three_mass(rows: pd.DataFrame, *, share: float = 0.5, own: int = 3) -> pd.DataFrame:
    """Return first, middle or current of each head, from masses of one autoregressive step.

    Of the last block's row, the mass on the first visible key and on the middle ones (without
    the last ``own``, the block's own) are each divided by their sums over all heads of the run.
    The ``share`` of the heads, rounded down, whose larger one of the two is smallest attend the
    current block alone (the paper's dummy heads); each other one is what its larger one says.

    From Dummy Forcing (2026), arXiv:2601.20499.

    Returns
    -------
    DataFrame
        ``role`` and ``margin``: how far the larger of the two lies from that of the nearest head
        on the other side of the border to current, and for heads that are not current at most
        how far the two lie apart; in shares of the sums.

    Raises
    ------
    CaptureError
        For captures of another statistic, and where no key is left between first and own.
    """
    share, own = _read_share("share", share), _read_count("own", own, 1)
    values, _ = _read_rows("three-mass", rows, "mass", "last_block")
    both = np.full((len(values), 2), np.nan)
    for heads, keys, seen in _groups("three-mass", values, own + 2):
        both[heads, 0] = seen[:, 0]
        both[heads, 1] = seen[:, 1 : len(keys) - own].sum(axis=1)
    first, middle = _divide(both, np.nansum(both, axis=0), 0.0).T
    larger = np.where(np.isnan(both[:, 0]), np.nan, np.maximum(first, middle))
    known = np.flatnonzero(~np.isnan(larger))
    ordered = known[np.argsort(larger[known], kind="stable")]
    few = int(share * len(known) + 1e-9)
    codes = np.where(first >= middle, 0, 1)
    codes[ordered[:few]], codes[np.isnan(larger)] = 2, -1
    below = larger[ordered[few - 1]] if few else -np.inf
    above = larger[ordered[few]] if few < len(known) else np.inf
    apart = np.minimum(larger - below, np.abs(first - middle))
    margins = np.where(codes == 2, above - larger, apart)
    return _to_table("three-mass", codes, np.where(np.isinf(margins), np.nan, margins))


def sink(rows: pd.DataFrame, *, threshold: float = 0.0) -> pd.DataFrame:
    """Return sink or other of each head, from any statistic.

    A head is a sink where its score is above ``threshold``: the value of the last block's row at
    key frame 0 minus the mean between it and the last visible key, in the statistic's unit, as
    `headgrid.sink_scores` has it. No role where key frame 0 is unseen or fewer than three keys are
    visible. Attention sinks are those of StreamingLLM (2023), arXiv:2309.17453.

    Returns
    -------
    DataFrame
        ``role`` and ``margin``: how far the score lies from ``threshold``.
    """
    threshold = _read_number("threshold", threshold)
    values, frames = _read_rows("sink", rows, "", "last_block")
    scores = np.full(len(values), np.nan)
    for heads, keys, seen in group_rows(values):
        if frames[keys[0]] == 0 and len(keys) > 2:
            scores[heads] = seen[:, 0] - seen[:, 1:-1].mean(axis=1)
    codes = np.select([np.isnan(scores), scores > threshold], [-1, 0], 1)
    return _to_table("sink", codes, np.abs(scores - threshold))


#: The rules by name.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "sign-period": Rule(sign_period, ("Anchor", "Wave", "Veil")),
        "recent-mass": Rule(recent_mass, ("static", "dynamic")),
        "three-mass": Rule(three_mass, ("first", "middle", "current")),
        "sink": Rule(sink, ("sink", "other")),
    }
)


def find_rule(name: str, parameters: Mapping[str, Any]) -> Rule:
    """Return a rule by its name, after a look at the names of its parameters."""
    rule = RULES[check_choice("rule", name, RULES)]
    for parameter in parameters:
        check_choice(f"parameter of {name}", parameter, rule.parameters)
    return rule


def _to_table(name: str, codes: npt.NDArray[Any], margins: _Numbers) -> pd.DataFrame:
    """Return roles by their number, -1 for none, and margins."""
    import pandas as pd

    roles = pd.Categorical.from_codes(codes.tolist(), list(RULES[name].roles), ordered=True)
    return pd.DataFrame({"role": roles, "margin": np.where(codes < 0, np.nan, margins)})


def _read_rows(
    rule: str, rows: pd.DataFrame, needed: str, column: str
) -> tuple[_Numbers, npt.NDArray[np.int64]]:
    """Return the rows [head, key] and the numbers of the keys; refuse another statistic."""
    found = STATISTICS[rows["statistic"].iloc[0]]
    if needed and not (found.base == needed and found.has_mean):
        raise CaptureError(
            f"{rule}: the captures hold {found.name}, expected {needed}; record them with "
            f'headgrid.record(statistic="{needed}") or headgrid record --statistic {needed}'
        )
    column = column if rows[column].iloc[0] is not None else "last_block"
    values = np.stack(rows[column].to_list()).astype(np.float64)
    return values, np.asarray(rows["key_frames"].iloc[0])


def _groups(
    rule: str, values: _Numbers, least: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], _Numbers]]:
    """Yield the rows of heads that see the same keys; refuse fewer than so many of them."""
    for heads, keys, seen in group_rows(values):
        if len(keys) < least:
            raise CaptureError(
                f"{rule}: a row has {len(keys)} visible keys, expected at least {least}; record "
                "more frames, or change the rule's parameters"
            )
        yield heads, keys, seen


def _divide(numbers: _Numbers, by: _Numbers, otherwise: float = np.nan) -> _Numbers:
    """Return quotients, and something else where the divisor is not positive."""
    quotients = np.full(numbers.shape, otherwise)
    return np.divide(numbers, by, out=quotients, where=np.broadcast_to(by > 0, numbers.shape))


def _read_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise OptionError(f"{name} is {show_value(value)}, expected a number")
    return float(value)


def _read_share(name: str, value: Any) -> float:
    if not 0 <= (share := _read_number(name, value)) <= 1:
        raise OptionError(f"{name} is {show_value(value)}, expected a share, 0 to 1")
    return share


def _read_count(name: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} is {show_value(value)}, expected a whole number from {least} on")
    return value
