"""A survey and a rule -> the role of each head in each run, votes over runs, agreement of runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from headgrid.errors import CaptureError, OptionError, show_value
from headgrid.survey.model import Survey, expect_survey
from headgrid.tables.rules import find_rule
from headgrid.text import shorten_text

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ["set", "run", "layer", "head"]


def head_roles(
    survey: Survey, rule: str | Callable[..., Any] = "sign-period", **parameters: Any
) -> pd.DataFrame:
    """Return the role of every head in every run, as a rule finds it.

    Parameters
    ----------
    survey : Survey
        From `headgrid.survey`.
    rule : str or callable
        ``"sign-period"`` (of logits: Anchor, Wave, Veil), ``"recent-mass"`` (of masses:
        static, dynamic), ``"three-mass"`` (of masses: first, middle, current), ``"sink"`` (of any
        statistic: sink, other); `headgrid.tables.rules` defines them. Or a function of your own:
        it is called once a run with the rows of all its heads, as in ``survey.rows``, and
        returns their roles in the same order (a Series, an array, or a Categorical,
        whose categories are the order of the roles), or a table of ``role`` and ``margin``.
    **parameters
        Of the rule, such as ``share=0.75``.

    Returns
    -------
    DataFrame
        One row per set x run x layer x head: ``set``, ``run``, ``layer``, ``head``, ``role``
        (an ordered Categorical with the roles of the rule; <NA> where there is none, as for a
        head without a visible value), ``margin`` (how far what decided lies from the nearest
        border, at least 0, in the unit that the rule says; NaN where it says nothing).

    Raises
    ------
    OptionError
        For an unknown rule or parameter, with the choices and the near miss.
    CaptureError
        Where the captures do not hold what the rule needs, where it returns no role a head, or
        finds none at all.

    Warns
    -----
    HeadgridWarning
        Where a rule sees less than it needs, once for all runs.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> rows = [[5.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0]]
    >>> found = survey(Capture.from_array(last_block=rows))
    >>> head_roles(found, "sink", threshold=2.0)
      set run  layer  head   role  margin
    0              0     0   sink     2.0
    1              0     1  other     3.0
    >>> head_roles(found, lambda rows: ["low" if r[0] < r[-1] else "high" for r in rows.last_block])
      set run  layer  head  role  margin
    0              0     0  high     NaN
    1              0     1   low     NaN
    """
    import pandas as pd

    expect_survey(survey)
    name = rule if isinstance(rule, str) else getattr(rule, "__name__", "rule")
    label = rule if callable(rule) else find_rule(rule, parameters).label
    parts = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _, rows in survey.rows.groupby(["set", "run"], sort=False):
            run = rows.reset_index(drop=True)
            parts.append(_read_roles(label(run, **parameters), run, shorten_text(name, 60)))
    for warning in dict.fromkeys((str(one.message), one.category) for one in said):
        warnings.warn(*warning, stacklevel=2)
    roles = list(dict.fromkeys(chain(*(part["role"].cat.categories for part in parts))))
    if not any(part["role"].notna().any() for part in parts):
        raise CaptureError(
            f"{name}: no head has a role, expected rows in which the rule finds one; look at "
            "survey.rows"
        )
    found = np.concatenate([part["role"].to_numpy(dtype=object) for part in parts])
    return survey.rows[_HEAD].assign(
        role=pd.Categorical(found, roles, ordered=True),
        margin=np.concatenate([part["margin"] for part in parts]),
    )


def role_votes(roles: pd.DataFrame) -> pd.DataFrame:
    """Return the role that most runs give to each head.

    Parameters
    ----------
    roles : DataFrame
        From `headgrid.head_roles`.

    Returns
    -------
    DataFrame
        One row per set x layer x head: ``set``, ``layer``, ``head``, ``role`` (of several with
        as many runs, the first of the rule), ``share`` (of the runs that have a role for
        the head, those that have this one; above 0, up to 1), ``runs`` (that have a role; where
        none has, ``role`` is <NA> and ``share`` NaN).

    Examples
    --------
    >>> import pandas as pd
    >>> places = {"set": "", "run": ["a", "b", "c"], "layer": 0, "head": 0}
    >>> roles = pd.Categorical(["Veil", "Wave", "Wave"], ["Wave", "Veil"], ordered=True)
    >>> role_votes(pd.DataFrame(places).assign(role=roles)).round(2)
      set  layer  head  role  share  runs
    0          0     0  Wave   0.67     3
    """
    import pandas as pd

    roles = expect_roles(roles, *_HEAD)
    sets = pd.Categorical(roles["set"], roles["set"].unique())  # in their own order
    by = [sets, roles["layer"], roles["head"]]
    votes = pd.get_dummies(roles["role"], dtype=np.int64).groupby(by, observed=True).sum()
    counts, runs = votes.to_numpy(), votes.sum(axis=1).to_numpy()
    most, names = counts.max(axis=1), roles["role"].cat.categories
    winners = np.where(runs > 0, counts.argmax(axis=1), -1)
    table = votes.index.set_names(["set", "layer", "head"]).to_frame(index=False)
    return table.astype({"set": roles["set"].dtype}).assign(
        role=pd.Categorical.from_codes(winners, names, ordered=True),
        share=np.where(runs > 0, most, np.nan) / np.maximum(runs, 1),
        runs=runs,
    )


def role_agreement(roles: pd.DataFrame) -> pd.DataFrame:
    """Return how far the runs of each set agree on the roles of heads.

    Over all pairs of runs, the mean share of heads with one role, and the mean of Cohen's kappa,
    which is 0 where two runs agree as often as by chance and 1 where always:

        kappa = (p - e) / (1 - e)

    where ``p`` is the share of heads with one role and ``e`` what the shares of the roles in
    the two runs let expect. Only heads count that have a role in both.

    From Cohen, J. (1960), A coefficient of agreement for nominal scales, Educational and
    Psychological Measurement 20(1), 37-46; the mean over pairs from Light, R. J. (1971),
    Measures of response agreement for qualitative data, Psychological Bulletin 76(5), 365-377.

    Parameters
    ----------
    roles : DataFrame
        From `headgrid.head_roles`.

    Returns
    -------
    DataFrame
        One row a set: ``set``, ``runs``, ``pairs`` (that share a head), ``share`` (0 to 1; NaN
        without a pair), ``kappa`` (at most 1; over pairs in which it is defined: not where
        both runs give one role to all heads).

    Examples
    --------
    >>> import pandas as pd
    >>> places = {"set": "", "run": [*"aaaabbbb"], "layer": 0, "head": [0, 1, 2, 3] * 2}
    >>> roles = pd.Categorical(["x", "x", "y", "y", "x", "y", "y", "y"])
    >>> role_agreement(pd.DataFrame(places).assign(role=roles))
      set  runs  pairs  share  kappa
    0         2      1   0.75    0.5
    """
    import pandas as pd

    table = []
    for name, of_set in expect_roles(roles, *_HEAD).groupby("set", sort=False):
        codes = of_set.assign(code=of_set["role"].cat.codes).pivot_table(
            index="run", columns=["layer", "head"], values="code", aggfunc="first", sort=False
        )
        given = [(codes == n).to_numpy(float) for n in range(len(of_set["role"].cat.categories))]
        known = np.sum(given, axis=0)  # [run, head], 1 where there is a role
        pairs = np.triu_indices(len(codes), 1)
        heads = (known @ known.T)[pairs]
        seen = heads > 0
        same = np.sum([one @ one.T for one in given], axis=0)[pairs][seen] / heads[seen]
        chance = np.sum([(one @ known.T) * (known @ one.T) for one in given], axis=0)
        chance = chance[pairs][seen] / heads[seen] ** 2
        defined = chance < 1
        kappa = (same[defined] - chance[defined]) / (1 - chance[defined])
        means = [float(np.mean(part)) if len(part) else np.nan for part in (same, kappa)]
        table.append((name, len(codes), int(seen.sum()), *means))
    return pd.DataFrame(table, columns=["set", "runs", "pairs", "share", "kappa"])


def expect_roles(found: Any, *columns: str) -> pd.DataFrame:
    """Return a table of roles, which are a Categorical; refuse what is none."""
    import pandas as pd

    lacking = [c for c in (*columns, "role") if c not in getattr(found, "columns", ())]
    if not isinstance(found, pd.DataFrame) or lacking:
        raise CaptureError(
            f"found {type(found).__name__}{f' without {lacking[0]}' if lacking else ''}, expected "
            "a table of roles; make it with headgrid.head_roles(survey)"
        )
    if isinstance(found["role"].dtype, pd.CategoricalDtype):
        return found
    names = list(dict.fromkeys(found["role"].dropna()))  # as read from a CSV
    return found.assign(role=pd.Categorical(found["role"], names, ordered=True))


def _read_roles(found: Any, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return what a rule returned for a run as a table of ``role``, a Categorical, and margin."""
    import pandas as pd

    if isinstance(found, (pd.DataFrame, pd.Series)) and not found.index.equals(rows.index):
        if not found.index.sort_values().equals(rows.index):
            raise OptionError(
                f"{name}: returned other rows than the {len(rows)} that it got, expected one role "
                "a head; keep their index"
            )
        found = found.reindex(rows.index)
    table = found if isinstance(found, pd.DataFrame) else None
    if table is not None and "role" not in table:
        raise OptionError(f"{name}: returned a table without role, expected role and margin")
    labels = found if table is None else table["role"]
    count = len(labels) if hasattr(labels, "__len__") and not isinstance(labels, str) else 0
    if count != len(rows):
        raise OptionError(
            f"{name}: returned {show_value(found) if not count else f'{count} roles'}, expected "
            f"{len(rows)}, one a head in the order of the rows"
        )
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    texts = [None if pd.isna(label) else str(label) for label in labels]
    names = dict.fromkeys(map(str, categories) if categories is not None else filter(None, texts))
    margins = np.full(len(rows), np.nan) if table is None or "margin" not in table else None
    margins = np.asarray(table["margin"], dtype=np.float64) if margins is None else margins
    roles = pd.Categorical(texts, list(names), ordered=True)
    return pd.DataFrame({"role": roles, "margin": margins})
