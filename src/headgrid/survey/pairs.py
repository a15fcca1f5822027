"""Two surveys, of two models -> the difference of every head over what both see, and of roles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, LAST
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice
from headgrid.survey.model import Survey, expect_survey
from headgrid.survey.roles import role_votes
from headgrid.tables.measures import MEASURES, measure_table
from headgrid.text import shorten_list

if TYPE_CHECKING:
    import pandas as pd

#: Modified z-scores beyond it, to both sides, are outliers.
OUTLIER = 3.5


def compare_models(a: Survey, b: Survey, *names: str) -> pd.DataFrame:
    """Return how measures of every head differ between two models.

    Parameters
    ----------
    a, b : Survey
        Of one statistic and number of heads; all runs of all sets of each are one model's.
    *names : str
        Of `headgrid.tables.measures.MEASURES`; by default ``"sink"``.

    Returns
    -------
    DataFrame
        One row per measure x layer x head: ``layer``, ``head``, ``measure``; ``runs_a``, ``a``,
        ``std_a`` (number, mean, deviation of the sample of A's runs), the same of B;
        ``difference`` (b - a; 0 below 1e-12 of the measure's largest magnitude); ``score``, its
        modified z-score ``0.6745 (x - median) / MAD`` among all heads, MAD being the median of
        ``|x - median|`` (infinite off the median where that is 0); ``outlier``, whether it is
        beyond 3.5, after Iglewicz, B., Hoaglin, D. C. (1993), How to detect and handle outliers;
        ``only_a``, ``only_b``, the share of the head's mass (of its pairs where values are no
        masses) on pairs that A (B) alone sees, NaN where frames differ; ``statistic``.

        In layers where the two see different pairs, or last-block rows are of different queries,
        the mean maps over runs are measured anew over the pairs and queries of both: as one run,
        without entropies of means, and masses do not sum to 1. ``attrs["notes"]``, which are
        warnings too, say so, and name other frames, and heads that only one of the two has.

    Raises
    ------
    CaptureError
        Where statistic, number of heads or axes differ, or no pair or last query is in both.
    OptionError
        For an unknown measure.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> a, b = (survey(Capture.from_array(last_block=[[v, 1.0, 1.0, 0.0]])) for v in (3.0, 5.0))
    >>> compare_models(a, b)[["layer", "head", "measure", "a", "b", "difference"]].values.tolist()
    [[0, 0, 'sink', 2.0, 4.0, 2.0]]
    """
    import pandas as pd

    measures = [check_choice("statistic", name, MEASURES) for name in names or ("sink",)]
    notes = _expect_comparable(a, b)
    maps = a.pooled_captures(), b.pooled_captures()
    layers = () if notes else sorted(maps[0].keys() & maps[1].keys())
    met = {layer: _meet(maps[0][layer], maps[1][layer]) for layer in layers}
    places = pd.MultiIndex.from_product([layers, range(a.num_heads)], names=["layer", "head"])
    shares = np.concatenate([np.empty((2, 0)), *(share for share, _ in met.values())], axis=1)
    only = pd.DataFrame(shares.T, places, ["only_a", "only_b"])
    rows, anew = [a.statistics, b.statistics], [n for n, (_, parts) in met.items() if parts]
    for side in (0, 1) if anew else ():
        kept = rows[side][~rows[side]["layer"].isin(anew)]
        rows[side] = pd.concat([kept, measure_table(met[layer][1][side] for layer in anew)])
    parts = [_pair(rows, name).join(only).reset_index() for name in measures]
    if anew:
        what = "mass" if _is_mass(a.statistic) else "pairs"
        unseen = [f"{100 * float(share):.3g} %" for share in only.mean()]
        notes.append(
            f"visibility differs in {len(anew)} of {len(met)} layers, measured anew over the pairs "
            f"and last-block queries of both; the other one does not see {unseen[0]} of A's "
            f"{what} and {unseen[1]} of B's"
        )
    for name, part in zip(measures, parts, strict=True):
        lost = part.loc[part["difference"].isna(), ["layer", "head"]].to_numpy()
        if heads := [f"L{layer} H{head}" for layer, head in lost]:
            notes.append(f"{name}: no value in A or B in {len(heads)} heads: {shorten_list(heads)}")
    for note in notes:
        warnings.warn(note, HeadgridWarning, stacklevel=2)
    table = pd.concat(parts, ignore_index=True).assign(statistic=a.statistic)
    table.attrs |= {"notes": notes, "key_name": a.form.key_name}
    return table


def role_changes(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the role of every head in two models.

    ``a`` and ``b`` are from `headgrid.head_roles`, where all runs of all sets of a model vote, or
    votes from `headgrid.role_votes`. The table has ``layer``, ``head``, ``role_a``, ``share_a``,
    ``role_b`` and ``share_b``; NaN where one of the two lacks the head or its role. An
    `OptionError` where their roles are not the same, or a head has the votes of several sets.

    >>> import pandas as pd
    >>> votes = pd.DataFrame({"layer": [0], "head": [0], "share": [1.0]})
    >>> a, b = (votes.assign(role=pd.Categorical([r], ["sink", "none"])) for r in ("sink", "none"))
    >>> role_changes(a, b).values.tolist()
    [[0, 0, 'sink', 1.0, 'none', 1.0]]
    """
    voted = [
        role_votes(found.assign(run=found["set"] + "/" + found["run"], set=""))
        if "run" in found
        else found
        for found in (a, b)
    ]
    sides = [votes.set_index(["layer", "head"])[["role", "share"]] for votes in voted]
    roles = [", ".join(map(str, side["role"].cat.categories)) for side in sides]
    if roles[0] != roles[1] or not all(side.index.is_unique for side in sides):
        raise OptionError(
            f"votes are on the roles {roles[0]} in A and {roles[1]} in B, expected the same roles, "
            "and one vote a head; use one rule, and roles of one set"
        )
    table = sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="outer")
    return table.sort_index().reset_index()


def _expect_comparable(a: Survey, b: Survey) -> list[str]:
    """Refuse what can not be compared; return a sentence if frames differ."""
    expect_survey(a)
    expect_survey(b)
    sources = " and ".join(next(survey.inputs()).source for survey in (a, b))
    among = ("statistic", "num_heads", "query_name", "key_name")
    for name, one, two in a.form.differences(b.form, among):
        raise CaptureError(
            f"{sources} differ in {name}: {one} and {two}; expected models that can be compared, "
            "so record both alike"
        )
    return [
        f"A and B differ in {name}: {one} and {two}; each is measured over its own, so what counts "
        "frames or averages over them depends on their number"
        for name, one, two in a.form.differences(b.form, ("query_frames", "key_frames"))[-1:]
    ]


def _pair(rows: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """Return one measure of each head of both, and how they differ."""
    table: Any = None
    for side, frame in zip("ab", rows, strict=True):
        groups = frame.groupby(["layer", "head"])[name]
        found = groups.agg(["count", "mean", "std"]).set_axis(
            [f"runs_{side}", side, f"std_{side}"], axis=1
        )
        found[side] = found[side].mask(found[f"std_{side}"] == 0, groups.min())  # exactly
        table = found if table is None else table.join(found, how="outer")
    change = table["b"] - table["a"]
    noise = 1e-12 * table[["a", "b"]].abs().max(axis=None)
    table["difference"] = change.mask(change.abs() <= noise, 0.0)
    far = table["difference"] - table["difference"].median()
    deviation = far.abs().median()
    table["score"] = 0.6745 * far / deviation if deviation else far.where(far == 0, far * np.inf)
    table["outlier"] = table["score"].abs() > OUTLIER
    table.insert(0, "measure", name)
    counted: pd.DataFrame = table.astype({"runs_a": "Int64", "runs_b": "Int64"})
    return counted


def _is_mass(statistic: str) -> bool:
    return STATISTICS[statistic].base == "mass" and STATISTICS[statistic].has_mean


def _meet(a: Capture, b: Capture) -> tuple[npt.NDArray[np.float64], list[Capture]]:
    """Return shares [2, head] that one alone sees, and both over what both see if that is less."""
    full = a.full_frame_attention is not None and b.full_frame_attention is not None
    asked = [capture.last_block_query_frames for capture in (a, b)]
    values = [_stack(capture, full=full) for capture in (a, b)]
    seen = ~np.isnan(values[0] + values[1])
    if asked[0] == asked[1] and all(np.array_equal(seen, ~np.isnan(own)) for own in values):
        return np.zeros((2, a.num_heads)), []
    common = sorted(set.intersection(*map(set, asked), a.query_frames if full else asked[0]))
    if not common or not (full or asked[0] == asked[1]):
        raise CaptureError(
            f"{a.source} and {b.source}: last-block rows are of queries {shorten_list(asked[0])} "
            f"and {shorten_list(asked[1])}, expected the same where the two see different pairs; "
            "record the full matrix in both"
        )
    shares, parts = [], []
    for capture, own in zip((a, b), values, strict=True):
        weight = np.nan_to_num(own) if _is_mass(capture.statistic) else ~np.isnan(own)
        whole, kept = (
            part[:, int(full) :].sum((1, 2)) for part in (weight, np.where(seen, weight, 0))
        )
        shares.append(1 - np.divide(kept, whole, out=np.full(len(own), np.nan), where=whole != 0))
        masked = np.where(seen, own, np.nan)
        data: dict[str, Any] = {FULL: masked[:, 1:]} if full else {LAST: masked[:, 0]}
        for name in ("layer_index", "query_frames", "key_frames"):
            data[name] = getattr(a, name)
        data |= {"last_block_query_frames": common, "statistic": capture.statistic}
        source = f"{a.source} and {b.source}, over what both see"
        parts.append(Capture.from_dict(data, source=source))
    return np.array(shares), parts


def _stack(capture: Capture, *, full: bool) -> npt.NDArray[np.float64]:
    """Return the last-block row of each head over its matrix, if that counts, NaN where unseen."""
    parts = [capture.last_block_rows[:, None]]
    if full:
        parts.append(np.stack([*map(capture.head_matrix, range(capture.num_heads))]))
    return np.concatenate(parts, axis=1, dtype=np.float64)
