"""A survey and a rule -> the role of each head in each run, votes over runs, agreement of runs.

A rule takes `Survey.rows` of one run, and returns a table of ``role`` and ``margin``: how far what
decided lies from the nearest border, at least 0, infinite without one. A head without visible keys
has no role; too few keys, and another statistic than the rule needs, are a `CaptureError`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice, show_value
from headgrid.survey.model import Survey, expect_survey
from headgrid.tables.stats import visible_groups
from headgrid.text import shorten_text

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ["set", "run", "layer", "head"]
_Numbers = npt.NDArray[np.float64]


def head_roles(
    survey: Survey, rule: str | Callable[..., Any] = "sign-period", **parameters: Any
) -> pd.DataFrame:
    """Return the role of every head in every run, as a rule finds it.

    Parameters
    ----------
    survey : Survey
        From `headgrid.survey`.
    rule : str or callable
        ``"sign-period"``, of logits, ``"recent-mass"`` and ``"three-mass"``, of masses, or
        ``"sink"``: see `headgrid.survey.roles`. Or a function from ``survey.rows`` of one run to
        the roles of its heads (a list, an array, a Series), or a table of ``role`` and ``margin``.
    **parameters
        Of the rule, such as ``share=0.75``.

    Returns
    -------
    DataFrame
        One row per ``set`` x ``run`` x ``layer`` x ``head``: ``role`` (an ordered Categorical;
        <NA> without a visible value), ``margin`` (at least 0, from what decided to the nearest
        border, in a unit of the rule; NaN if unknown), and ``rule``, with its parameters.

    Raises
    ------
    OptionError, CaptureError
        For an unknown rule or parameter, or a function that does not return a role a head; where
        captures do not hold what the rule needs, or no head has a role.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> found = survey(Capture.from_array(last_block=[[5.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0]]))
    >>> head_roles(found, "sink", threshold=2.0)
      set run  layer  head   role  margin                rule
    0              0     0   sink     2.0  sink threshold=2.0
    1              0     1  other     3.0  sink threshold=2.0
    """
    import pandas as pd

    expect_survey(survey)
    name = rule if isinstance(rule, str) else getattr(rule, "__name__", "rule")
    label = partial(rule, **parameters) if callable(rule) else find_rule(rule, parameters)
    told = [name, *(f"{key}={show_value(value)}" for key, value in label.keywords.items())]
    parts = []
    with warnings.catch_warnings(record=True) as told_by_runs:
        warnings.simplefilter("always")
        for _, rows in survey.rows.groupby(["set", "run"], sort=False):
            run = rows.reset_index(drop=True)
            parts.append(_read_labels(label(run), name, run.index))
    for text, category in dict.fromkeys((str(w.message), w.category) for w in told_by_runs):
        warnings.warn(text, category, stacklevel=2)
    roles = expect_roles(survey.rows[_HEAD].join(pd.concat(parts, ignore_index=True)))
    if roles["role"].isna().all():
        raise CaptureError(f"rule {name} found no role of a head, expected one; see survey.rows")
    return roles.assign(rule=shorten_text(" ".join(told), 80))


def _read_labels(found: Any, rule: str, index: pd.Index) -> pd.DataFrame:
    """Return what a rule has returned of a run as a table of ``role`` and ``margin``."""
    import pandas as pd

    try:
        table = found if isinstance(found, pd.DataFrame) else pd.Series(found).to_frame("role")
        if "role" in table and table.index.sort_values().equals(index):
            table = table.reindex(index=index, columns=["role", "margin"])
            return table.astype({"margin": np.float64})
    except (TypeError, ValueError):
        pass
    raise OptionError(
        f"rule {rule} returned {type(found).__name__}, expected a role for each of {len(index)} "
        "heads, in their order or with their index; return a list of them"
    )


def role_votes(roles: pd.DataFrame) -> pd.DataFrame:
    """Return the role that most runs give to each head, of a table of `headgrid.head_roles`.

    Returns
    -------
    DataFrame
        One row per ``set`` x ``layer`` x ``head``: ``role`` (where votes are even the first of the
        rule; <NA> where no run has one), ``share`` (of the runs with a role those that have this
        one), ``runs`` (with a role), and ``rule`` where ``roles`` have it.

    Examples
    --------
    >>> import pandas as pd
    >>> roles = pd.DataFrame({"set": "", "run": ["a", "b", "c"], "layer": 0, "head": 0})
    >>> role_votes(roles.assign(role=["Wave", "Veil", "Veil"])).round(2)
      set  layer  head  role  share  runs
    0          0     0  Veil   0.67     3
    """
    import pandas as pd

    roles = expect_roles(roles)
    if "share" in roles:  # votes already
        return expect_roles(roles, "runs")
    sets = pd.Categorical(roles["set"], roles["set"].unique())  # in their own order
    given = pd.get_dummies(roles["role"], dtype=np.int64)
    counts = given.groupby([sets, roles["layer"], roles["head"]], observed=True).sum()
    runs = counts.sum(axis=1)
    role = counts.idxmax(axis=1).where(runs > 0).astype(roles["role"].dtype)
    votes = pd.DataFrame({"role": role, "share": counts.max(axis=1) / runs, "runs": runs})
    votes = votes.rename_axis(["set", "layer", "head"]).reset_index()
    rule = {"rule": roles["rule"].iloc[0]} if "rule" in roles else {}
    return votes.astype({"set": roles["set"].dtype}).assign(**rule)


def role_agreement(roles: pd.DataFrame) -> pd.DataFrame:
    """Return how far the runs of each set agree, of a table of `headgrid.head_roles`.

    Over all pairs of runs, of the heads with a role in both: the mean share ``p`` with one role,
    and the mean of Cohen's kappa, (p - e) / (1 - e), 0 where runs agree as by chance and 1 where
    always; ``e`` is what the shares of roles in each of the two let expect.

    From Cohen, J. (1960), Educational and Psychological Measurement 20(1), 37-46; its mean over
    pairs from Light, R. J. (1971), Psychological Bulletin 76(5), 365-377.

    Returns
    -------
    DataFrame
        One row a set: ``set``, ``runs``, ``pairs`` (that share a head), ``share`` (0 to 1),
        ``kappa`` (up to 1, without pairs that give one role to all); NaN without a pair.

    Examples
    --------
    >>> import pandas as pd
    >>> heads = {"layer": 0, "head": [0, 1, 2, 3] * 2, "role": [*"xxyyxyyy"]}
    >>> role_agreement(pd.DataFrame({"set": "", "run": [*"aaaabbbb"], **heads}))
      set  runs  pairs  share  kappa
    0         2      1   0.75    0.5
    """
    import pandas as pd

    roles, table = expect_roles(roles, "run"), []
    kinds = len(roles["role"].cat.categories)
    for name, rows in roles.assign(code=roles["role"].cat.codes).groupby("set", sort=False):
        codes = rows.pivot(index="run", columns=["layer", "head"], values="code").fillna(-1)
        shares, kappas = list[float](), list[float]()
        for a, b in combinations(codes.to_numpy(int), 2):
            both = (kinds * a + b)[(a >= 0) & (b >= 0)]
            if len(both):
                joint = np.bincount(both, minlength=kinds**2).reshape(kinds, kinds) / len(both)
                shares.append(joint.trace())
                if (chance := joint.sum(axis=0) @ joint.sum(axis=1)) < 1:
                    kappas.append((shares[-1] - chance) / (1 - chance))
        means = [np.mean(part) if part else np.nan for part in (shares, kappas)]
        table.append((name, len(codes), len(shares), *means))
    return pd.DataFrame(table, columns=["set", "runs", "pairs", "share", "kappa"])


def expect_roles(found: Any, *columns: str) -> pd.DataFrame:
    """Return a table with roles of names that are safe to draw; refuse what is none."""
    import pandas as pd

    lacking = {"set", "layer", "head", "role", *columns} - {*getattr(found, "columns", ())}
    if lacking:
        raise CaptureError(
            f"found {type(found).__name__} without {min(lacking)}, expected a table of roles; make "
            "it with headgrid.head_roles(survey)"
        )
    if not len(found) or found.duplicated([key for key in _HEAD if key in found]).any():
        raise CaptureError("the table of roles is empty, or has a head twice, expected each once")
    texts, role = found.filter(["set", "run"]), found["role"]
    empty = texts.loc[:, texts.isna().all()].astype(object).fillna("")  # as a CSV gives them back
    known = role.cat.categories if hasattr(role, "cat") else role.dropna().unique()
    names = [shorten_text(str(name), 40) for name in known]
    if len({*names}) < len(names):
        raise CaptureError(f"two roles are both called {max(names, key=names.count)!a}; rename one")
    roles = pd.Categorical(role, known, ordered=True).rename_categories(
        dict(zip(known, names, strict=True))
    )
    table: pd.DataFrame = found.assign(role=roles, **empty)
    return table


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
    defaults = inspect.getfullargspec(rule).kwonlydefaults or {}
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
