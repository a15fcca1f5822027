"""Rows of all heads of a run -> the role of each head: the rules that headgrid comes with.

Each takes the rows of one run, as `Survey.rows` has them, and returns a table of ``role`` and
``margin``: how far the number that decided lies from the nearest border, at least 0. A head without
visible keys has no role; too few keys, and captures of another statistic than the rule needs, are a
`CaptureError`, a parameter out of its range an `OptionError`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice, show_value
from headgrid.tables.stats import group_rows

if TYPE_CHECKING:
    import pandas as pd

_Numbers = npt.NDArray[np.float64]


def sign_period(
    rows: pd.DataFrame, *, share: float = 0.8, period: float = 6.4, own: int = 3
) -> pd.DataFrame:
    """Return Anchor, Wave or Veil of each head, from logits.

    Looks at the row of the last query frame (of captures without a matrix at the last block's)
    without its last ``own`` keys, the query's block. Where at least ``share`` of its values are
    positive, the head is an Anchor, where at least ``share`` are not, a Veil; else, where the
    period of `find_periods` is below ``period`` frames, a Wave; else an Anchor where the mean is
    positive, a Veil where not (also where there is no period, which too few keys warn of). The
    margin is in shares, for a Wave in frames, and in logits where the mean decided.

    From Pyramid Forcing (2026), arXiv:2605.13111.
    """
    _check(share=share, period=period, own=own)
    codes, margins, short = np.full(len(rows), -1), np.full(len(rows), np.nan), 0
    for heads, frames, seen in _groups("sign-period", rows, "logit", own + 1, "last_query"):
        kept = seen[:, : len(frames) - own]
        positive, other, mean = (kept > 0).mean(axis=1), (kept <= 0).mean(axis=1), kept.mean(axis=1)
        periods = find_periods(kept, frames[: len(frames) - own])
        decided = [positive >= share, other >= share, periods < period]
        codes[heads] = np.select([*decided, mean > 0], [0, 2, 1, 0], 2)
        apart = [positive - share, other - share, period - periods]
        margins[heads] = np.select(decided, apart, np.abs(mean))
        if np.isnan(periods).all() and not (decided[0] | decided[1]).all():
            short = kept.shape[1]
    if short:
        warnings.warn(
            f"sign-period: found {short} visible keys beside the last {own}, expected at least 19 "
            "at one step to find a period; heads that signs do not decide go by their mean and "
            "none is a Wave, so record more frames",
            HeadgridWarning,
            stacklevel=3,
        )
    return _to_table("sign-period", codes, margins)


def find_periods(values: npt.ArrayLike, frames: npt.ArrayLike) -> _Numbers:
    """Return the dominant period, in frames, of each row [head, key] along the keys.

    The first difference of a row, minus its mean and times a Hann window, goes through a real FFT.
    The lines with periods P from 3 frames to a sixth of all are scored: the magnitude at P, and
    0.5, 0.25 and 0.125 times the largest one within 20 % of the periods 2 P, 3 P and 4 P. The best
    score counts, of equal ones the longest period. NaN without such a line (as below 19 keys),
    without a constant step of frames, and for a row on a straight line.

    >>> frames = np.arange(60)
    >>> find_periods([np.sin(2 * np.pi * frames / 5), 0.5 * frames], frames).round(1)
    array([4.9, nan])
    """
    rows, steps = np.asarray(values, dtype=np.float64), np.diff(np.asarray(frames))
    count, lines = len(steps), np.arange(1, len(steps) // 2 + 1)
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
    ``skip`` keys, on the last ``recent`` ones. The paper skips 3. The margin is in shares.

    From Forcing-KV (2026), arXiv:2605.09681.
    """
    _check(share=share, recent=recent, skip=skip)
    shares = np.full(len(rows), np.nan)
    for heads, _, seen in _groups("recent-mass", rows, "mass", recent + skip + 1):
        whole = seen[:, skip:].sum(axis=1)
        shares[heads] = seen[:, -recent:].sum(axis=1) / np.where(whole > 0, whole, np.nan)
    codes = np.select([np.isnan(shares), shares >= share], [-1, 0], 1)
    return _to_table("recent-mass", codes, np.abs(shares - share))


def three_mass(rows: pd.DataFrame, *, share: float = 0.5, own: int = 3) -> pd.DataFrame:
    """Return first, middle or current of each head, from masses of one autoregressive step.

    Of the last block's row, the masses on the first key and on the middle ones (without the last
    ``own``, the block) are each divided by their sums over all heads of the run. The ``share`` of
    the heads (rounded down) whose larger one is smallest are current, the paper's dummy heads;
    the others are what their larger one says. The margin, in those shares, is how far the larger
    one lies from that of the next head across the border to current, and for other heads at most
    how far the two lie apart.

    From Dummy Forcing (2026), arXiv:2601.20499.
    """
    _check(share=share, own=own)
    both = np.full((len(rows), 2), np.nan)
    for heads, frames, seen in _groups("three-mass", rows, "mass", own + 2):
        both[heads, 0] = seen[:, 0]
        both[heads, 1] = seen[:, 1 : len(frames) - own].sum(axis=1)
    first, middle = (both / np.maximum(np.nansum(both, axis=0), 1e-300)).T
    larger, unknown = np.maximum(first, middle), np.isnan(both[:, 0])
    order = np.argsort(np.where(unknown, np.inf, larger), kind="stable")[: (~unknown).sum()]
    few = int(share * len(order) + 1e-9)
    codes = np.where(unknown, -1, np.where(first >= middle, 0, 1))
    codes[order[:few]] = 2
    below, above = [-np.inf, *larger[order]][few], [*larger[order], np.inf][few]
    apart = np.minimum(larger - below, np.abs(first - middle))
    margins = np.where(codes == 2, above - larger, apart)
    return _to_table("three-mass", codes, np.where(np.isinf(margins), np.nan, margins))


def sink(rows: pd.DataFrame, *, threshold: float = 0.0) -> pd.DataFrame:
    """Return sink or other of each head, from any statistic.

    A sink is a head whose score, that of `headgrid.sink_scores`, is above ``threshold``; no role
    where it has none. The margin is in the unit of the statistic.

    Attention sinks are those of StreamingLLM (2023), arXiv:2309.17453.
    """
    _check(threshold=threshold)
    scores = np.full(len(rows), np.nan)
    for heads, frames, seen in _groups("sink", rows, "", 1):
        if frames[0] == 0 and len(frames) > 2:
            scores[heads] = seen[:, 0] - seen[:, 1:-1].mean(axis=1)
    codes = np.select([np.isnan(scores), scores > threshold], [-1, 0], 1)
    return _to_table("sink", codes, np.abs(scores - threshold))


#: The rules by name, each with the roles that it gives; where votes are even, the first wins.
RULES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "sign-period": (sign_period, ("Anchor", "Wave", "Veil")),
    "recent-mass": (recent_mass, ("static", "dynamic")),
    "three-mass": (three_mass, ("first", "middle", "current")),
    "sink": (sink, ("sink", "other")),
}


def find_rule(name: str, parameters: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a rule by its name, after a look at the names of its parameters."""
    rule, _ = RULES[check_choice("rule", name, RULES)]
    for parameter in parameters:
        check_choice(f"parameter of {name}", parameter, [*inspect.signature(rule).parameters][1:])
    return rule


def _to_table(name: str, codes: npt.NDArray[Any], margins: _Numbers) -> pd.DataFrame:
    """Return roles by their number, -1 for none, and margins."""
    import pandas as pd

    roles = pd.Categorical.from_codes(codes.tolist(), pd.Index(RULES[name][1]), ordered=True)
    return pd.DataFrame({"role": roles, "margin": np.where(codes < 0, np.nan, margins)})


def _groups(
    rule: str, rows: pd.DataFrame, needed: str, least: int, column: str = "last_block"
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[Any], _Numbers]]:
    """Yield heads that see the same keys, the frames of these, and values; refuse what is amiss."""
    found = STATISTICS[rows["statistic"].iloc[0]]
    if needed and not (found.base == needed and found.has_mean):
        raise CaptureError(
            f"{rule}: the captures hold {found.name}, expected {needed}; record them with "
            f'headgrid.record(statistic="{needed}") or headgrid record --statistic {needed}'
        )
    column = column if rows[column].iloc[0] is not None else "last_block"
    for heads, keys, seen in group_rows(np.stack(rows[column].to_list())):
        if len(keys) < least:
            raise CaptureError(
                f"{rule}: a row has {len(keys)} visible keys, expected at least {least}; record "
                "more frames, or change the parameters of the rule"
            )
        yield heads, rows["key_frames"].iloc[0][keys], seen


def _check(**given: float) -> None:
    """Refuse what is no number, no share, or no count of keys."""
    for name, value in given.items():
        least = {"share": 0, "own": 0, "skip": 0, "recent": 1}.get(name, -1e300)
        real = isinstance(value, float) and name in ("share", "period", "threshold")
        if not (
            (real or isinstance(value, int)) and least <= value <= (1 if name == "share" else 1e300)
        ):
            wanted = "a share, 0 to 1" if name == "share" else "a number (of keys a whole one)"
            raise OptionError(f"{name} is {show_value(value)}, expected {wanted}")
