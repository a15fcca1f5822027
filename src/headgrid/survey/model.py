"""What was read of many captures -> tables, maps and colour ranges across layers, runs and sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headgrid.capture.folders import Place
from headgrid.capture.form import CaptureForm, expected_layers
from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.capture.schema import Array
from headgrid.errors import CaptureError, HeadgridError, check_choice
from headgrid.notebook import Card
from headgrid.options import ColorRange, ColorRule
from headgrid.survey.moments import CaptureMoments
from headgrid.tables.measures import COUNTS, MEASURES
from headgrid.tables.ranges import resolve_color_range
from headgrid.text import count_noun, shorten_list

if TYPE_CHECKING:
    import pandas as pd


class Input(NamedTuple):
    """A capture that a survey has read; ``digest`` is that of its file, empty without one."""

    place: Place
    layer: int
    source: str
    digest: str
    #: Shape (heads, measures), in the order of `MEASURES`.
    record: npt.NDArray[np.float64]
    warnings: tuple[str, ...]
    #: Rows [heads, keys], NaN where unseen; the last query is the last block's without a matrix.
    last_block: Array
    last_query: Array


@dataclass(frozen=True, eq=False, repr=False)
class Survey(Card):
    """Captures of layers, runs and sets, looked at together; made by `survey`.

    Attributes
    ----------
    form : CaptureForm
        What all captures share: statistic, heads, frames and blocks.
    failures : tuple of HeadgridError
        The files that could not be used.
    warnings : tuple of str
        What was odd in the files, once for each kind.
    value_range : (low, high)
        Smallest and largest visible value of all captures.
    value_sketch : QuantileSketch
        All visible values of all captures, for pooled quantiles.
    """

    form: CaptureForm
    failures: tuple[HeadgridError, ...]
    warnings: tuple[str, ...]
    value_range: tuple[float, float]
    value_sketch: QuantileSketch
    _inputs: tuple[Input, ...]
    _maps: Mapping[tuple[str, int], CaptureMoments]

    @property
    def statistic(self) -> str:
        """What the values are."""
        return self.form.statistic

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return self.form.num_heads

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets, in natural order; one empty name where there are none."""
        return tuple(dict.fromkeys(place.set for place in self._runs))

    @property
    def num_runs(self) -> int:
        """Number of runs, of all sets together."""
        return len(self._runs)

    @property
    def num_runs_of(self) -> dict[str, int]:
        """Number of runs of each set."""
        return {set: sum(place.set == set for place in self._runs) for set in self.sets}

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that a whole run has: those found, and gaps between them.

        Layers that were recorded at a regular step (0, 4, 8, ...) have no gaps.
        """
        return expected_layers(layer for layers in self._runs.values() for layer in layers)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """A sentence for every group of runs that lack the same layers."""
        lacking: dict[tuple[int, ...], list[str]] = {}
        for place, found in self._runs.items():
            absent = tuple(layer for layer in self.layers if layer not in found)
            if absent:
                lacking.setdefault(absent, []).append(place.text or "the run")
        return tuple(
            f"{shorten_list(runs)}{f' ({len(runs)} runs)' if len(runs) > 6 else ''}: "
            f"layer{'s' if len(absent) > 1 else ''} {shorten_list(absent)} "
            f"{'are' if len(absent) > 1 else 'is'} missing, expected every layer of "
            f"{self.layers[0]} to {self.layers[-1]} in every run; their places stay empty"
            for absent, runs in lacking.items()
        )

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """One row per set x run x layer x head.

        ``set``, ``run``, ``layer``, ``head``, ``statistic`` (what the values
        are), and the measures of `headgrid.tables.measures.MEASURES`, not rounded; NaN
        where there is no such value.
        """
        import pandas as pd

        heads = range(self.num_heads)
        records = np.concatenate([one.record for one in self._inputs])
        measured = dict(zip(MEASURES, records.T, strict=True))
        measured |= {name: measured[name].astype(np.int64) for name in COUNTS}
        return pd.DataFrame(
            {
                "set": [one.place.set for one in self._inputs for _ in heads],
                "run": [one.place.run for one in self._inputs for _ in heads],
                "layer": [one.layer for one in self._inputs for _ in heads],
                "head": [*heads] * len(self._inputs),
                "statistic": self.statistic,
                **measured,
            }
        )

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The table `statistics` and rows over the keys: what rules of roles look at.

        ``last_block`` and ``last_query``, the row of the last block and of the last query frame
        that was recorded (the last block's without a full matrix), are arrays with NaN where
        unseen, ``key_frames`` is their frames.
        """
        keys: Any = np.array(self.form.key_frames)
        return self.statistics.assign(
            last_block=[row for one in self._inputs for row in _lock(one.last_block)],
            last_query=[row for one in self._inputs for row in _lock(one.last_query)],
            key_frames=[keys] * len(self.statistics),
        )

    def summary(self, name: str = "sink") -> pd.DataFrame:
        """Return mean and standard deviation over the runs of one measure of each head.

        Parameters
        ----------
        name : str
            One of `headgrid.tables.measures.MEASURES`.

        Returns
        -------
        DataFrame
            One row per set x layer x head: ``set``, ``layer``, ``head``,
            ``runs`` (that have such a value), ``mean``, ``std`` (of the sample;
            NaN below two runs). Behind the heads of a layer stands a row whose
            ``head`` is <NA>, of the mean over the heads of each run.

        Raises
        ------
        OptionError
            For an unknown measure, with the choices and the near miss.
        """
        import pandas as pd

        check_choice("statistic", name, tuple(MEASURES))
        heads = self.statistics.astype({"layer": "Int64", "head": "Int64"})
        together = heads.groupby(["set", "run", "layer"], as_index=False)[name].mean()
        runs = pd.concat([heads, together]).groupby(["set", "layer", "head"], dropna=False)[name]
        table = runs.agg(runs="count", mean="mean", std="std", least="min").reset_index()
        # Exactly, where a head's values are all the same.
        table["mean"] = table["mean"].mask(table["std"] == 0, table.pop("least"))
        return table.sort_values(
            "set", key=lambda sets: sets.map(self.sets.index), kind="stable", ignore_index=True
        )

    def stability(self, *names: str) -> pd.DataFrame:
        """Return how well heads keep their differences from run to run.

        The one-way intraclass correlation ICC(1,1), with heads as targets and
        runs as ratings; see `headgrid.survey.model.icc_oneway`.

        Parameters
        ----------
        *names : str
            Of `headgrid.tables.measures.MEASURES`; by default ``"sink"``.

        Returns
        -------
        DataFrame
            One row per set, measure and scope: ``set``, ``measure``, ``scope``
            (``"layer"``: the heads of one layer; ``"all"``: those of all
            layers), ``layer`` (<NA> for all), ``heads``, ``runs`` (the most that
            a head has), ``icc`` (NaN where it is undefined, as for one run).
        """
        import pandas as pd

        tables = {name: self.summary(name).dropna(subset="head") for name in names or ("sink",)}
        rows = []
        for set in self.sets:
            for name, table in tables.items():
                of_set = table[table["set"] == set]
                for layer, heads in [*of_set.groupby("layer"), (None, of_set)]:
                    scope = "all" if layer is None else "layer"
                    same = {"set": set, "measure": name, "scope": scope, "layer": layer}
                    sizes = {"heads": (heads["runs"] > 0).sum(), "runs": heads["runs"].max()}
                    icc = icc_oneway(heads["runs"], heads["mean"], heads["std"])
                    rows.append({**same, **sizes, "icc": icc})
        return pd.DataFrame(rows).astype({"layer": "Int64"})

    def agreement(self, *names: str) -> pd.DataFrame:
        """Return how far the sets agree on the order of the heads.

        Spearman's rank correlation of the heads' means over runs, of the heads
        that both sets have; ties share the mean of their ranks.

        Parameters
        ----------
        *names : str
            Of `headgrid.tables.measures.MEASURES`; by default ``"sink"``.

        Returns
        -------
        DataFrame
            One row per pair of sets, measure and scope: ``set_a``, ``set_b``,
            ``measure``, ``scope``, ``layer`` (as in `stability`), ``heads``,
            ``rho`` (NaN for fewer than two heads, and where one set gives all
            the same score). Empty where there is one set.
        """
        import pandas as pd

        columns = ["set_a", "set_b", "measure", "scope", "layer", "heads", "rho"]
        places = pd.MultiIndex.from_product([self.layers, range(self.num_heads)])
        rows = []
        for name in names or ("sink",):
            table = self.summary(name).dropna(subset="head")
            means = table.pivot(index=["layer", "head"], columns="set", values="mean")
            means = means.reindex(places, columns=self.sets)
            parts = [("layer", layer, part) for layer, part in means.groupby(level=0)]
            scopes = [
                (scope, layer, part.corr(method="spearman"), part.notna())
                for scope, layer, part in [*parts, ("all", None, means)]
            ]
            rows += [
                (a, b, name, scope, layer, int((seen[a] & seen[b]).sum()), rho.loc[a, b])
                for a, b in combinations(self.sets, 2)
                for scope, layer, rho, seen in scopes
            ]
        return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})

    @cached_property
    def captures(self) -> Mapping[tuple[str, int], Capture]:
        """The capture of each (set, layer): the mean over its runs.

        The runs' own where each layer of each set has one run; else all are means, of
        one run too, so that they hold one statistic.
        """
        order = sorted(self._maps, key=lambda key: (self.sets.index(key[0]), key[1]))
        moments = {key: self._maps[key] for key in order}
        alone = all(one.runs == 1 for one in moments.values())
        return {key: (alone and one.single) or one.mean_capture() for key, one in moments.items()}

    def captures_of(self, set: str) -> dict[int, Capture]:
        """Return the capture of each layer of one set; see `captures`."""
        return {layer: capture for (own, layer), capture in self.captures.items() if own == set}

    def pooled(self) -> Survey:
        """Return the survey of the same captures as runs of one set, without a name."""
        maps: dict[tuple[str, int], CaptureMoments] = {}
        for (_, layer), moments in self._maps.items():
            key = ("", layer)
            maps[key] = maps[key].merge(moments) if key in maps else moments
        inputs = tuple(one._replace(place=Place("", one.place.text)) for one in self._inputs)
        return replace(self, _inputs=inputs, _maps=maps)

    def pooled_captures(self) -> dict[int, Capture]:
        """Return the capture of each layer: the mean over the runs of all sets together."""
        if len(self.sets) == 1:
            return self.captures_of(self.sets[0])
        return self.pooled().captures_of("")

    def deviation(self, set: str, layer: int) -> Capture | None:
        """Return the standard deviation over runs of each cell; None below two runs."""
        moments = self._maps[set, layer]
        return moments.deviation_capture() if moments.runs > 1 else None

    def inputs(self) -> Iterator[Input]:
        """Yield what was read, in the order of sets, runs and layers."""
        return iter(self._inputs)

    def color_range(self, rule: ColorRule | tuple[float, float] | ColorRange) -> ColorRange:
        """Return the numbers that a colour rule gives for all values of all captures together.

        Raises
        ------
        OptionError
            For an unknown rule, with the choices and the near miss.
        """
        return resolve_color_range(rule, [self])

    @property
    def description(self) -> str:
        """How many sets, runs, layers and heads there are, of the layers those found."""
        found = {layer for layers in self._runs.values() for layer in layers}
        sets = f"{len(self.sets)} sets, " if len(self.sets) > 1 else ""
        return (
            f"{sets}{count_noun(self.num_runs, 'run')}, {count_noun(len(found), 'layer')} x "
            f"{count_noun(self.num_heads, 'head')}"
        )

    def __repr__(self) -> str:
        captures = count_noun(len(self._inputs), "capture")
        return f"<Survey of {captures}: {self.description}, {self.statistic}>"

    @cached_property
    def _runs(self) -> dict[Place, set[int]]:
        """The layers that were found of each run, in the order of sets and runs."""
        runs: dict[Place, set[int]] = {}
        for one in self._inputs:
            runs.setdefault(one.place, set()).add(one.layer)
        return runs


def expect_survey(found: object) -> None:
    """Refuse what is no survey."""
    if not isinstance(found, Survey):
        raise CaptureError(
            f"found {type(found).__name__}, expected a survey; make it of captures or paths, with "
            "headgrid.survey"
        )


def _lock(rows: Array) -> Array:
    """Return rows that nobody can change."""
    rows = rows.view()
    rows.flags.writeable = False
    return rows


def icc_oneway(count: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike) -> float:
    """Return the intraclass correlation ICC(1,1): one-way random effects, single scores.

    Of arrays (targets,), here heads: number of runs, their mean, their standard deviation of the
    sample. The share of all variance that is between targets: with the mean squares between (BMS)
    and within (WMS) of ``a`` targets with ``n_i`` runs, ``N`` scores in all,

        ICC(1,1) = (BMS - WMS) / (BMS + (k0 - 1) WMS),  k0 = (N - sum(n_i^2) / N) / (a - 1)

    NaN for fewer than two targets, where no target has two runs, and where nothing varies.

    From Shrout, P. E., Fleiss, J. L. (1979), Intraclass correlations: uses in assessing rater
    reliability, Psychological Bulletin 86(2), 420-428; ``k0`` from Donner, A. (1986), A review
    of inference procedures for the intraclass correlation coefficient in the one-way random
    effects model, International Statistical Review 54(1), 67-82. The first's table 2:

    >>> ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9]]
    >>> scores = np.array([*ratings, [6, 2, 4, 7]])
    >>> round(icc_oneway([4] * 6, scores.mean(axis=1), scores.std(axis=1, ddof=1)), 2)
    0.17
    """
    counts, means, deviations = (np.asarray(part, dtype=np.float64) for part in (count, mean, std))
    seen = counts > 0
    counts, means, deviations = counts[seen], means[seen], deviations[seen]
    targets, total = len(counts), float(counts.sum())
    if targets < 2 or total <= targets:
        return float("nan")
    squares = (counts - 1) * np.where(counts > 1, deviations, 0.0) ** 2
    from_first = means - means[0]  # equal means give exactly 0
    from_mean = from_first - (counts * from_first).sum() / total
    between = float((counts * from_mean**2).sum()) / (targets - 1)
    within = float(squares.sum()) / (total - targets)
    runs = (total - float((counts**2).sum()) / total) / (targets - 1)
    whole = between + (runs - 1) * within
    return (between - within) / whole if whole > 0 else float("nan")
