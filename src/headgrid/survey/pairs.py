"""Two surveys, of two models -> the difference of every head over what both see, and of roles."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, LAST
from headgrid.errors import CaptureError, HeadgridWarning, check_choice
from headgrid.survey.model import Survey, expect_survey
from headgrid.survey.roles import expect_roles, role_votes
from headgrid.tables.measures import MEASURES, measure_table
from headgrid.text import shorten_list

#: Modified z-scores beyond it, to both sides, are outliers.
OUTLIER = 3.5
_ALIKE = ("statistic", "num_heads", "query_frames", "key_frames", "query_name", "key_name")
_MASSES = ("mass", "mass_mean")


def compare_models(a: Survey, b: Survey, statistic: str = "sink") -> pd.DataFrame:
    """Return how a measure of every head differs between two models.

    In layers where the two see different pairs, or last-block rows are of different queries, mean
    maps over runs are measured anew over the pairs and queries of both: as one run, without
    entropies of means, and masses do not sum to 1. Warnings say so, and that frames differ.

    Parameters
    ----------
    a, b : Survey
        Of one statistic and number of heads; all runs of all sets of each are one model's.
    statistic : str
        One of the measures of `headgrid.tables.measures.MEASURES`.

    Returns
    -------
    DataFrame
        One row per layer x head: ``layer``, ``head``; number, mean and deviation of the sample of
        each model's runs (``runs_a``, ``runs_b``, ``a``, ``b``, ``std_a``, ``std_b``);
        ``difference`` (b - a, 0 below 1e-12 of the largest value); ``score``, its modified z-score
        ``0.6745 (x - median) / median |x - median|`` among all heads, and ``outlier``, whether that
        is beyond 3.5 (Iglewicz, B., Hoaglin, D. C. (1993), How to detect and handle outliers);
        ``only_a``, ``only_b``, the share of mass (of pairs where values are no masses) that A (B)
        alone sees, NaN where frames differ; ``measure``, ``statistic``.

    Raises
    ------
    CaptureError, OptionError
        Where statistic, heads or axes differ, or no last query is in both; for another measure.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> a, b = (survey(Capture.from_array(last_block=[[v, 1.0, 1.0, 0.0]])) for v in (3.0, 5.0))
    >>> compare_models(a, b)[["layer", "head", "a", "b", "difference"]].values.tolist()
    [[0.0, 0.0, 2.0, 4.0, 2.0]]
    """
    check_choice("statistic", statistic, MEASURES)
    for survey in (a, b):
        expect_survey(survey)
    for name, one, two in a.form.differences(b.form, _ALIKE):
        told = f"A and B differ in {name}: {one} and {two}"
        if not name.endswith("frames"):
            raise CaptureError(f"{told}; expected the same, so record both alike")
        warnings.warn(f"{told}; each is measured over its own", HeadgridWarning, stacklevel=2)
    maps = a.pooled_captures(), b.pooled_captures()
    layers = [] if a.form.differences(b.form, _ALIKE) else sorted(maps[0].keys() & maps[1].keys())
    met = {layer: _meet(maps[0][layer], maps[1][layer]) for layer in layers}
    anew, rows = [layer for layer in layers if met[layer][1]], []
    for side, model in enumerate((a, b)):
        kept = model.statistics[~model.statistics["layer"].isin(anew)]
        rows.append(pd.concat([kept, *(measure_table(met[layer][1][side]) for layer in anew)]))
    runs = pd.concat(rows, keys=["a", "b"], names=["model"]).groupby(["layer", "head", "model"])
    table: Any = runs[statistic].agg(["count", "mean", "std"]).unstack()
    table.columns = ["runs_a", "runs_b", "a", "b", "std_a", "std_b"]
    table = table.astype({"runs_a": "Int64", "runs_b": "Int64"})
    change = table["b"] - table["a"]
    noise = 1e-12 * table[["a", "b"]].abs().max(axis=None)
    table["difference"] = change.mask(change.abs() <= noise, 0.0)
    far = table["difference"] - table["difference"].median()
    table["score"] = (0.6745 * far / far.abs().median()).mask(far == 0, 0.0)
    table["outlier"] = table["score"].abs() > OUTLIER
    only = {(layer, head): of for layer in layers for head, of in enumerate(met[layer][0])}
    table[["only_a", "only_b"]] = [only.get(place, (np.nan, np.nan)) for place in table.index]
    if anew:
        lost_a, lost_b = (f"{share:.3g} %" for share in 100 * table[["only_a", "only_b"]].mean())
        what = "mass" if a.statistic in _MASSES else "pairs"
        told = (
            f"visibility differs in {len(anew)} of {len(met)} layers, measured anew over what both "
            f"see (roles are not); the other does not see {lost_a} of A's {what}, {lost_b} of B's"
        )
        warnings.warn(told, HeadgridWarning, stacklevel=2)
    if table["difference"].isna().all():
        raise CaptureError(
            f"no head has {statistic} in both models (layers {shorten_list(a.layers)} and "
            f"{shorten_list(b.layers)}, of {a.statistic}), or over what both see, expected some; "
            "choose another measure, or models that share layers and pairs"
        )
    table = table.assign(measure=statistic, statistic=a.statistic).reset_index()
    table.attrs["key_name"] = a.form.key_name
    return table  # type: ignore[no-any-return]


def role_changes(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the role of every head in two models.

    ``a`` and ``b`` are from `headgrid.head_roles`; all runs of all sets of a model vote. The table
    has ``layer``, ``head``, ``role_a``, ``role_b``, and ``share_a``, ``share_b`` of the votes; NaN
    where one of the two lacks the head or its role. A `CaptureError` for what is no such table.

    >>> import pandas as pd
    >>> a = pd.DataFrame({"set": "", "run": ["x"], "layer": 0, "head": 0, "role": "sink"})
    >>> role_changes(a, a.assign(role="none")).values.tolist()
    [[0, 0, 'sink', 'none', 1.0, 1.0]]
    """
    rules = [str(of["rule"].iloc[0]).partition(" ")[0] for of in (a, b) if "rule" in of and len(of)]
    if len({*rules}) > 1:
        raise CaptureError(f"roles of A and B are by {' and '.join(rules)}, expected one rule")
    models = []
    for model, roles in (("a", expect_roles(a, "run")), ("b", expect_roles(b, "run"))):
        runs = roles["set"].astype(str) + "/" + roles["run"].astype(str)
        models.append(roles.assign(set=model, run=runs))
    votes = role_votes(pd.concat(models)).set_index(["layer", "head", "set"])
    table = votes[["role", "share"]].unstack()
    return table.set_axis(["role_a", "role_b", "share_a", "share_b"], axis=1).reset_index()


def _meet(a: Capture, b: Capture) -> tuple[npt.NDArray[np.float64], list[Capture]]:
    """Return shares [head, 2] that one alone sees, and both over what both see if that is less."""
    full = a.full_frame_attention is not None and b.full_frame_attention is not None
    values = [
        np.stack([*map(c.head_matrix, range(c.num_heads))]) if full else c.last_block_rows[:, None]
        for c in (a, b)
    ]
    visible = [~np.isnan(own) for own in values]
    asked = [one.last_block_query_frames for one in (a, b)]
    if asked[0] == asked[1] and np.array_equal(*visible):
        return np.zeros((a.num_heads, 2)), []
    common = sorted({*asked[0]} & {*asked[1]} & {*(a.query_frames if full else asked[0])})
    if not common or not (full or asked[0] == asked[1]):
        raise CaptureError(
            f"{a.source} and {b.source}: last-block rows are of queries {shorten_list(asked[0])} "
            f"and {shorten_list(asked[1])}, expected the same where the two see different pairs; "
            "record the full matrix in both"
        )
    shares, parts, seen = [], [], visible[0] & visible[1]
    for one, own, known in zip((a, b), values, visible, strict=True):
        weight = own if one.statistic in _MASSES else known
        kept, whole = (np.where(of, weight, 0).sum((1, 2), dtype=float) for of in (seen, known))
        shares.append(1 - kept / np.where(whole == 0, np.nan, whole))
        both = np.where(seen, own, np.nan)
        data: dict[str, Any] = {FULL: both} if full else {LAST: both[:, 0]}
        data |= {"last_block_query_frames": common, "statistic": one.statistic}
        data |= {name: getattr(a, name) for name in ("layer_index", "query_frames", "key_frames")}
        parts.append(Capture.from_dict(data, source=f"{a.source} and {b.source}"))
    return np.transpose(shares), parts
