"""A survey and a rule -> the role of each head in each run, votes over runs, agreement of runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from headgrid.errors import CaptureError, OptionError
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
        ``"sign-period"``, of logits, ``"recent-mass"`` and ``"three-mass"``, of masses, or
        ``"sink"``: see `headgrid.tables.rules`. Or a function: it is called with the rows of all
        heads of a run, as ``survey.rows`` has them, and returns their roles (a list, an array
        or a Series, also of categories in their order), or a table of ``role`` and ``margin``.
    **parameters
        Of the rule, such as ``share=0.75``.

    Returns
    -------
    DataFrame
        One row per set x run x layer x head: ``set``, ``run``, ``layer``, ``head``, ``role``
        (an ordered Categorical; <NA> without a visible value), and ``margin`` (at least 0: how
        far what decided lies from the nearest border, in a unit of the rule; NaN if unknown).

    Raises
    ------
    OptionError, CaptureError
        For an unknown rule or parameter, with the choices; where the captures do not hold what
        the rule needs, or no head has a role.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> found = survey(Capture.from_array(last_block=[[5.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0]]))
    >>> head_roles(found, "sink", threshold=2.0)
      set run  layer  head   role  margin
    0              0     0   sink     2.0
    1              0     1  other     3.0
    >>> head_roles(found, lambda rows: ["up" if r[0] < r[-1] else "down" for r in rows.last_block])
      set run  layer  head  role  margin
    0              0     0  down     NaN
    1              0     1    up     NaN
    """
    import pandas as pd

    expect_survey(survey)
    name = shorten_text(rule if isinstance(rule, str) else getattr(rule, "__name__", "rule"), 60)
    label = rule if callable(rule) else find_rule(rule, parameters)
    parts = []
    for _, rows in survey.rows.groupby(["set", "run"], sort=False):
        run = rows.reset_index(drop=True)
        found: Any = label(run, **parameters)
        table = found if isinstance(found, pd.DataFrame) else pd.Series(found).to_frame("role")
        if "role" not in table or not table.index.sort_values().equals(run.index):
            raise OptionError(
                f"rule {name} returned {len(table)} rows, expected a role for each of {len(run)} "
                "heads, in their order or with their index; return a list of them"
            )
        parts.append(expect_roles(table.reindex(run.index)))
    roles = np.concatenate([part["role"].to_numpy(dtype=object) for part in parts])
    order = list(dict.fromkeys(chain(*(part["role"].cat.categories for part in parts))))
    if not order or pd.isna(roles).all():
        raise CaptureError(
            f"rule {name} found no role of any head, expected one; look at survey.rows"
        )
    margins = [part.get("margin", np.full(len(part), np.nan)) for part in parts]
    return survey.rows[_HEAD].assign(
        role=pd.Categorical(roles, order, ordered=True), margin=np.concatenate(margins)
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
        as many runs the first of the rule; <NA> where no run has one), ``share`` (of the runs
        with a role those that have this one, above 0 to 1), ``runs`` (with a role).

    Examples
    --------
    >>> import pandas as pd
    >>> roles = pd.DataFrame({"set": "", "run": ["a", "b", "c"], "layer": 0, "head": 0})
    >>> role_votes(roles.assign(role=["Wave", "Veil", "Veil"])).round(2)
      set  layer  head  role  share  runs
    0          0     0  Veil   0.67     3
    """
    import pandas as pd

    roles = expect_roles(roles, *_HEAD)
    sets = pd.Categorical(roles["set"], roles["set"].unique())  # in their own order
    given = pd.get_dummies(roles["role"], dtype=np.int64)
    counts = given.groupby([sets, roles["layer"], roles["head"]], observed=True).sum()
    runs, order = counts.sum(axis=1).to_numpy(), roles["role"].cat.categories
    winners = np.where(runs > 0, counts.to_numpy().argmax(axis=1), -1)
    table = counts.index.set_names(_HEAD[:1] + _HEAD[2:]).to_frame(index=False)
    return table.astype({"set": roles["set"].dtype}).assign(
        role=pd.Categorical.from_codes(winners, order, ordered=True),
        share=np.where(runs > 0, counts.max(axis=1), np.nan) / np.maximum(runs, 1),
        runs=runs,
    )


def role_agreement(roles: pd.DataFrame) -> pd.DataFrame:
    """Return how far the runs of each set agree on the roles of heads.

    Over all pairs of runs, of the heads with a role in both: the mean share ``p`` with one role,
    and the mean of Cohen's kappa, (p - e) / (1 - e), 0 where runs agree as by chance and 1 where
    always; ``e`` is what the shares of roles in each of the two let expect.

    From Cohen, J. (1960), A coefficient of agreement for nominal scales, Educational and
    Psychological Measurement 20(1), 37-46; its mean over pairs from Light, R. J. (1971), Measures
    of response agreement for qualitative data, Psychological Bulletin 76(5), 365-377.

    Parameters
    ----------
    roles : DataFrame
        From `headgrid.head_roles`.

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

    roles = expect_roles(roles, *_HEAD)
    roles, table = roles.assign(code=roles["role"].cat.codes), []
    for name, rows in roles.groupby("set", sort=False):
        codes = rows.pivot(index="run", columns=["layer", "head"], values="code")
        of_role = [(codes == n).to_numpy(float) for n in range(len(roles["role"].cat.categories))]
        known, above = np.sum(of_role, axis=0), np.triu(np.ones((len(codes),) * 2, bool), 1)
        heads = known @ known.T  # of each two runs: the heads with a role in both
        above &= heads > 0
        same = np.sum([one @ one.T for one in of_role], axis=0)[above] / heads[above]
        of_both = np.sum([(one @ known.T) * (known @ one.T) for one in of_role], axis=0)
        chance = of_both[above] / heads[above] ** 2
        kappas = (same - chance)[chance < 1] / (1 - chance[chance < 1])
        means = [part.mean() if len(part) else np.nan for part in (same, kappas)]
        table.append((name, len(codes), len(same), *means))
    return pd.DataFrame(table, columns=["set", "runs", "pairs", "share", "kappa"])


def expect_roles(found: Any, *columns: str) -> pd.DataFrame:
    """Return a table of roles, which are a Categorical; refuse what is none."""
    import pandas as pd

    lacking = {*columns, "role"} - {*getattr(found, "columns", ())}
    if lacking:
        raise CaptureError(
            f"found {type(found).__name__} without {min(lacking)}, expected a table of roles; make "
            "it with headgrid.head_roles(survey)"
        )
    table: pd.DataFrame = found
    if not isinstance(table["role"].dtype, pd.CategoricalDtype):  # as a CSV gives them back
        empty = {name: "" for name in ("set", "run") if name in table and table[name].isna().all()}
        order = list(dict.fromkeys(table["role"].dropna()))
        table = table.assign(role=pd.Categorical(table["role"], order, ordered=True), **empty)
    return table


def find_votes(roles: Any) -> pd.DataFrame:
    """Return the votes of a table of roles, or of votes, with names that are safe to draw."""
    voted = "share" in getattr(roles, "columns", ())
    votes = expect_roles(roles, "set", "layer", "head", "runs") if voted else role_votes(roles)
    names = {name: shorten_text(str(name), 40) for name in votes["role"].cat.categories}
    return votes.assign(role=votes["role"].cat.rename_categories(names))
