"""A survey and a rule -> the role of each head in each run, votes over runs, agreement of runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from headgrid.errors import CaptureError, OptionError, show_value
from headgrid.survey.model import Survey, expect_survey
from headgrid.survey.rules import find_rule
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
        ``"sign-period"``, of logits, ``"recent-mass"`` and ``"three-mass"``, of masses, or
        ``"sink"``: see `headgrid.survey.rules`. Or a function from ``survey.rows`` of one run to
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

    with suppress(TypeError, ValueError):
        table = found if isinstance(found, pd.DataFrame) else pd.Series(found).to_frame("role")
        if "role" in table and table.index.sort_values().equals(index):
            table = table.reindex(index=index, columns=["role", "margin"])
            return table.astype({"margin": np.float64})
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
