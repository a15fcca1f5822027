"""Two surveys, of two models -> the difference of every head over what both see, and of roles."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.form import Difference
from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, LAST
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, HeadgridWarning, OptionError, check_choice
from headgrid.survey.model import Survey, expect_survey
from headgrid.tables.measures import MEASURES, measure_heads
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
        One row per measure x layer x head: ``layer``, ``head``, ``statistic``, ``measure``;
        ``runs_a``, ``a`` and ``std_a`` (number, mean, deviation of the sample of A's runs), the
        same of B; ``difference`` (b - a; 0 below 1e-12 of the measure's largest magnitude);
        ``score``, its modified z-score ``0.6745 (x - median) / MAD`` among all heads, MAD being
        the median of ``|x - median|`` (infinite off the median where that is 0); ``outlier``,
        whether it is beyond 3.5; ``only_a`` and ``only_b``, the share of the head's mass (of its
        pairs where values are no masses) on pairs that A (B) alone sees, NaN where frames differ.
        ``attrs["notes"]`` has a sentence for all that makes the two unequal.

        In layers where the two see different pairs or have last-block rows of different queries,
        measures are taken anew over the pairs and queries of both, of the mean maps over runs:
        without deviation, without entropies of several runs, masses not made to sum to 1 again.

    Raises
    ------
    CaptureError
        Where statistic, number of heads or axes differ, or no layer or pair is in both.
    OptionError
        For an unknown measure.

    Warns
    -----
    HeadgridWarning
        Where frames or visibility differ, and for layers and heads that one of them lacks.

    References
    ----------
    Iglewicz, B., Hoaglin, D. C. (1993). How to detect and handle outliers. ASQC Quality Press.

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
    found, heads = [_means(survey, measures) for survey in (a, b)], range(a.num_heads)
    maps = [survey.pooled_captures() for survey in (a, b)]
    layers = sorted(maps[0].keys() | maps[1].keys())
    places = pd.MultiIndex.from_product([layers, heads], names=["layer", "head"])
    only, anew = pd.DataFrame(np.nan, places, ["only_a", "only_b"]), 0
    for layer in () if notes else sorted(maps[0].keys() & maps[1].keys()):
        met = _meet(maps[0][layer], maps[1][layer])
        only.loc[[layer]] = np.stack([share for _, share in met], axis=1) if met else 0.0
        anew += bool(met)
        for side, (capture, _) in zip(found, met, strict=False):
            for name, values in measure_heads(capture).items():
                if name in measures:
                    side.loc[(name, layer), "mean"] = values
                    side.loc[(name, layer), "std"] = np.nan
    index = pd.MultiIndex.from_product([measures, *places.levels], names=["measure", *places.names])
    left, right = (side.reindex(index).reset_index() for side in found)
    table = left[["layer", "head"]].assign(statistic=a.statistic, measure=left["measure"])
    for name, side in (("a", left), ("b", right)):
        table[f"runs_{name}"] = side["runs"].astype("Int64")
        table[name], table[f"std_{name}"] = side["mean"], side["std"]
    change, of = table["b"] - table["a"], table["measure"]
    least = 1e-12 * table[["a", "b"]].abs().max(axis=1).groupby(of).transform("max")
    table["difference"] = change.mask(change.abs() <= least, 0.0)
    table["score"] = table["difference"].groupby(of).transform(_score)
    table["outlier"] = table["score"].abs() > OUTLIER
    table = table.join(only, on=["layer", "head"])
    if anew:
        what = "mass lies on" if _is_mass(a.statistic) else "pairs are"
        share = "{:.3g} % of A and {:.3g} % of B".format(*100 * only.mean())
        notes.append(
            f"visibility differs in {anew} layers, where measures are taken anew over the pairs "
            f"and last-block queries of both; {share} ({what} pairs that the other does not see)"
        )
    for measure, part in table[table["difference"].isna()].groupby("measure", sort=False):
        where = shorten_list([f"L{row.layer} H{row.head}" for row in part.itertuples()])
        notes.append(f"{measure}: no value in A or in B in {len(part)} heads ({where})")
    for note in notes:
        warnings.warn(note, HeadgridWarning, stacklevel=2)
    table.attrs |= {"notes": notes, "key_name": a.form.key_name}
    return table


def role_changes(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return the role of every head in two models.

    ``a`` and ``b`` are the votes of each, one row a head: ``layer``, ``head``, ``role`` (a
    Categorical, of the same roles) and ``share`` (of the runs that vote so). The table has
    ``layer``, ``head``, ``role_a``, ``share_a``, ``role_b``, ``share_b``; NaN where one of the
    two lacks the head or its role. An `OptionError` where roles are not the same, or a head
    has several votes, as those of several sets.

    >>> import pandas as pd
    >>> votes = pd.DataFrame({"layer": [0], "head": [0], "share": [1.0]})
    >>> a, b = (votes.assign(role=pd.Categorical([r], ["sink", "none"])) for r in ("sink", "none"))
    >>> role_changes(a, b).values.tolist()
    [[0, 0, 'sink', 1.0, 'none', 1.0]]
    """
    sides = [votes.set_index(["layer", "head"])[["role", "share"]] for votes in (a, b)]
    roles = [", ".join(map(str, side["role"].cat.categories)) for side in sides]
    if roles[0] != roles[1] or not all(side.index.is_unique for side in sides):
        raise OptionError(
            f"votes are on the roles {roles[0]} in A and {roles[1]} in B, expected the same roles, "
            "and one vote a head; use one rule, and all runs of a model as one set"
        )
    table = sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="outer")
    return table.sort_index().reset_index()


def _expect_comparable(a: Survey, b: Survey) -> list[str]:
    """Refuse what can not be compared; return a sentence if frames differ."""
    expect_survey(a)
    expect_survey(b)
    sources = " and ".join(next(survey.inputs()).source for survey in (a, b))
    among = ("statistic", "num_heads", "query_name", "key_name")
    wrong = a.form.differences(b.form, among)
    if not {one.layer for one in a.inputs()} & {one.layer for one in b.inputs()}:
        wrong.append(Difference("the layers", shorten_list(a.layers), shorten_list(b.layers)))
    for name, one, two in wrong:
        raise CaptureError(
            f"{sources} differ in {name}: {one} and {two}; expected models that can be compared, "
            "so record both alike"
        )
    frames = a.form.differences(b.form, ("query_frames", "key_frames"))
    return [
        f"A and B differ in {name}: {one} and {two}; each is measured over its own, so what counts "
        "frames or averages over them depends on their number"
        for name, one, two in frames[-1:]
    ]


def _means(survey: Survey, measures: list[str]) -> pd.DataFrame:
    """Return number, mean and deviation over all runs, by measure, layer and head."""
    rows = survey.statistics.melt(["layer", "head"], measures, "measure")
    groups = rows.astype({"value": float}).groupby(["measure", "layer", "head"])["value"]
    table: pd.DataFrame = groups.agg(runs="count", mean="mean", std="std", least="min")  # type: ignore[assignment]
    table["mean"] = table["mean"].mask(table["std"] == 0, table.pop("least"))
    return table


def _score(differences: pd.Series[float]) -> pd.Series[float]:
    far = differences - differences.median()
    deviation = far.abs().median()
    return 0.6745 * far / deviation if deviation else far.where(far == 0, far * np.inf)


def _is_mass(statistic: str) -> bool:
    return STATISTICS[statistic].base == "mass" and STATISTICS[statistic].has_mean


def _meet(a: Capture, b: Capture) -> list[tuple[Capture, npt.NDArray[np.float64]]]:
    """Return each as far as both see, and the share [head] left out; nothing if they see alike."""
    full = a.full_frame_attention is not None and b.full_frame_attention is not None
    values, met = [_stack(capture, full=full) for capture in (a, b)], []
    asked = [capture.last_block_query_frames for capture in (a, b)]
    seen = ~np.isnan(values[0] + values[1])
    if asked[0] == asked[1] and all(np.array_equal(seen, ~np.isnan(own)) for own in values):
        return []
    common = sorted(set.intersection(*map(set, asked), a.query_frames if full else asked[0]))
    if not common or not (full or asked[0] == asked[1]):
        raise CaptureError(
            f"{a.source} and {b.source}: last-block rows are of queries {shorten_list(asked[0])} "
            f"and {shorten_list(asked[1])}, expected the same where the two see different pairs; "
            "record the full matrix in both"
        )
    for capture, own in zip((a, b), values, strict=True):
        masked = np.where(seen, own, np.nan)
        data: dict[str, Any] = {FULL: masked[:, 1:]} if full else {LAST: masked[:, 0]}
        for name in ("layer_index", "query_frames", "key_frames"):
            data[name] = getattr(a, name)
        data |= {"last_block_query_frames": common, "statistic": capture.statistic}
        source = f"{a.source} and {b.source}, over what both see"
        weight = np.nan_to_num(own) if _is_mass(capture.statistic) else ~np.isnan(own)
        whole, kept = (part[:, full:].sum((1, 2)) for part in (weight, np.where(seen, weight, 0)))
        share = 1 - np.divide(kept, whole, out=np.full(len(own), np.nan), where=whole != 0)
        met.append((Capture.from_dict(data, source=source), share))
    return met


def _stack(capture: Capture, *, full: bool) -> npt.NDArray[np.float64]:
    """Return the last-block row of each head over its matrix, if that counts, NaN where unseen."""
    parts = [capture.last_block_rows[:, None]]
    if full:
        parts.append(np.stack([*map(capture.head_matrix, range(capture.num_heads))]))
    return np.concatenate(parts, axis=1, dtype=np.float64)
