"""Captures of one layer over runs -> captures of their mean and standard deviation.

Means and sums of squared deviations are kept in float64, cell by cell, and over
visible cells only, so that a cell that one run did not record counts fewer
values. They are merged by the pairwise update of Chan, Golub and LeVeque (1983),
of which Welford's (1962) is the case of one new value:

    n = n_a + n_b,  d = mean_b - mean_a
    mean = mean_a + d n_b / n,  m2 = m2_a + m2_b + d^2 n_a n_b / n

The same merges in the same order give the same bits.

References
----------
Welford, B. P. (1962). Note on a method for calculating corrected sums of
squares and products. Technometrics 4(3), 419-420.
Chan, T. F., Golub, G. H., LeVeque, R. J. (1983). Algorithms for computing the
sample variance: analysis and recommendations. The American Statistician 37(3), 242-247.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, LAST
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import CaptureError, describe_error
from headgrid.text import shorten_list


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of many numbers, element by element.

    Attributes
    ----------
    count : array, any shape, int64
        Number of values.
    mean : array, the same shape, float64
        NaN where the count is 0.
    m2 : array, the same shape, float64
        Sum of squared deviations from the mean.
    """

    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Moments:
        """Return the moments of one value an element; NaN counts as none.

        >>> Moments.of([2.0, float("nan")]).count
        array([1, 0])
        """
        mean = np.array(values, dtype=np.float64)
        return cls((~np.isnan(mean)).astype(np.int64), mean, np.zeros_like(mean))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the values of both.

        Raises
        ------
        CaptureError
            Where the shapes differ.

        Examples
        --------
        >>> both = Moments.of([2.0, 5.0]).merge(Moments.of([4.0, float("nan")]))
        >>> both.mean, both.std
        (array([3., 5.]), array([1.41421356,        nan]))
        """
        if self.mean.shape != other.mean.shape:
            raise CaptureError(
                f"moments of shape {self.mean.shape} and of shape {other.mean.shape} can not be "
                "merged, expected the same shape in both"
            )
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        ours = np.where(self.count > 0, self.mean, 0.0)
        with np.errstate(over="ignore"):  # beyond 1e154, an infinite deviation says so
            change = np.where(other.count > 0, other.mean, 0.0) - ours
            mean = np.where(count > 0, ours + change * share, np.nan)
            # In this order a side without values adds nothing, however large the other is.
            m2 = self.m2 + other.m2 + change * (self.count * share) * change
        return Moments(count, mean, m2)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the plain arrays that `from_arrays` takes."""
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Moments:
        """Return the moments whose `to_arrays` gave these arrays.

        Raises
        ------
        CaptureError
            Where an array is absent, or the shapes or types differ.
        """
        try:
            count, mean, m2 = (np.asarray(arrays[name]) for name in ("count", "mean", "m2"))
        except KeyError as error:
            raise CaptureError(
                f"moments: {error.args[0]} is absent, expected the arrays count, mean and m2"
            ) from None
        floats = mean.dtype == m2.dtype == np.float64
        if not (count.shape == mean.shape == m2.shape and count.dtype.kind == "i" and floats):
            raise CaptureError(
                f"moments: count is {count.dtype} {count.shape}, mean {mean.dtype} {mean.shape} "
                f"and m2 {m2.dtype} {m2.shape}, expected one shape, int64 and float64"
            )
        return cls(count.astype(np.int64), mean, m2)

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of the sample (divided by count - 1); NaN below two values."""
        deviation = np.full(self.m2.shape, np.nan)
        np.divide(self.m2, self.count - 1, out=deviation, where=self.count > 1)
        return np.asarray(np.sqrt(deviation))


@dataclass(frozen=True)
class _Grid:
    """What the captures of all runs have in common."""

    layer_index: int
    statistic: str
    heads: int
    has_matrix: bool
    query_frames: tuple[int, ...]
    key_frames: tuple[int, ...]
    last_block_query_frames: tuple[int, ...]
    block_sizes: tuple[int, ...] | None

    @classmethod
    def of(cls, capture: Capture) -> _Grid:
        return cls(
            capture.layer_index,
            capture.statistic,
            capture.num_heads,
            capture.full_frame_attention is not None,
            capture.query_frames,
            capture.key_frames,
            capture.last_block_query_frames,
            capture.block_sizes,
        )


@dataclass(frozen=True, eq=False, repr=False)
class CaptureMoments:
    """One layer over a number of runs: the moments of every cell.

    A single run is kept as it was read, in its own dtype; moments are made of
    it when it is merged.

    Attributes
    ----------
    runs : int
        Number of runs.
    single : Capture or None
        The run's capture, without its metadata, where there is only one.
    full : Moments or None, shape (heads, query, key)
        None for a single run, and without a full matrix.
    rows : Moments or None, shape (heads, key)
        Those of the last block's rows; None for a single run.
    prompt : str
        The prompt where all runs have the same; else empty.
    source : str
        Name of the first run's capture, for messages.
    """

    runs: int
    single: Capture | None
    full: Moments | None
    rows: Moments | None
    prompt: str
    source: str
    _grid: _Grid

    @classmethod
    def of(cls, capture: Capture) -> CaptureMoments:
        """Return the moments of one run.

        >>> CaptureMoments.of(Capture.from_array([[[1.0, 2.0]]], layer=3))
        <CaptureMoments of 1 run, layer 3: logit>
        """
        lean = capture.replace(metadata={})
        return cls(1, lean, None, None, capture.prompt, _name(capture), _Grid.of(capture))

    def merge(self, other: CaptureMoments) -> CaptureMoments:
        """Return the moments of the runs of both, this one's first.

        Raises
        ------
        CaptureError
            Where the captures differ in layer, statistic, heads, frames, blocks
            or in whether there is a full matrix, and where the statistic has no
            mean over runs (a deviation, a difference).

        Examples
        --------
        >>> runs = [Capture.from_array([[[value, 0.0]]], run=f"run_{value}") for value in (1, 4)]
        >>> both = CaptureMoments.of(runs[0]).merge(CaptureMoments.of(runs[1]))
        >>> both.mean_capture()
        <Capture mean of 2 runs, layer 0: logit_mean, 1 head, 1 query x 2 key frames>
        >>> both.mean_capture().full_frame_attention
        array([[[2.5, 0. ]]])
        """
        self._check_alike(other)
        self._statistic("mean")
        (full, rows), (other_full, other_rows) = self._moments(), other._moments()
        if full is not None and other_full is not None:
            full = full.merge(other_full)
        prompt = self.prompt if self.prompt == other.prompt else ""
        runs, rows = self.runs + other.runs, rows.merge(other_rows)
        return CaptureMoments(runs, None, full, rows, prompt, self.source, self._grid)

    def mean_capture(self, *, run: str | None = None) -> Capture:
        """Return the mean over the runs, of each cell over the runs that recorded it.

        Parameters
        ----------
        run : str, optional
            Name of its run; by default ``mean of N runs``.

        Returns
        -------
        Capture
            Its statistic is ``logit_mean`` for logits and for means of logits,
            and so on; float64, or a single run's values as they are. A cell that
            no run recorded is NaN.

        Raises
        ------
        CaptureError
            Where the statistic has no mean over runs (a deviation, a difference).
        """
        named = f"mean of {self._count()}" if run is None else run
        statistic = self._statistic("mean")
        if self.single is not None:
            arrays = self.single.full_frame_attention, self.single.last_block_frame_attention
            return self._capture(*arrays, statistic, named)
        full, rows = self._moments()
        return self._capture(None if full is None else full.mean, rows.mean, statistic, named)

    def deviation_capture(self, *, run: str | None = None) -> Capture:
        """Return the standard deviation over the runs, of each cell.

        Parameters
        ----------
        run : str, optional
            Name of its run; by default ``deviation of N runs``.

        Returns
        -------
        Capture
            Its statistic is ``logit_std`` and so on; float64, divided by the
            number of values less one. A cell that fewer than two runs recorded
            is NaN.

        Raises
        ------
        CaptureError
            For a single run, where no cell of a head was recorded by two, and
            where the statistic has no deviation.
        """
        if self.runs < 2:
            raise CaptureError(
                f"{self.source}: this is the only run of layer {self._grid.layer_index}, expected "
                "at least 2 for a standard deviation over runs"
            )
        named = f"deviation of {self._count()}" if run is None else run
        full, rows = self._moments()
        deviations = None if full is None else full.std
        return self._capture(deviations, rows.std, self._statistic("std"), named)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return plain arrays, one of them JSON text, that `from_arrays` takes.

        They can be written by ``numpy.savez`` and read with ``allow_pickle=False``.
        """
        info: dict[str, Any] = {"runs": self.runs, "prompt": self.prompt, "source": self.source}
        info["grid"] = asdict(self._grid)
        if self.single is not None:
            info |= {"single_run": self.single.run, "single_source": self.single.source}
            arrays = {"rows": self.single.last_block_frame_attention}
            if self.single.full_frame_attention is not None:
                arrays["full"] = self.single.full_frame_attention
        else:
            full, rows = self._moments()
            parts = {"rows": rows} if full is None else {"rows": rows, "full": full}
            arrays = {
                f"{part}_{name}": array
                for part, moments in parts.items()
                for name, array in moments.to_arrays().items()
            }
        return {"info": np.array(json.dumps(info, sort_keys=True)), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> CaptureMoments:
        """Return the moments whose `to_arrays` gave these arrays.

        Raises
        ------
        CaptureError
            Where they are not such arrays.
        """
        try:
            return _restore(arrays)
        except CaptureError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            what = f"{error} is absent" if isinstance(error, KeyError) else describe_error(error)
            raise CaptureError(
                f"moments of captures: {what}, expected the arrays that CaptureMoments.to_arrays "
                "gives"
            ) from None

    def __repr__(self) -> str:
        grid = self._grid
        return f"<CaptureMoments of {self._count()}, layer {grid.layer_index}: {grid.statistic}>"

    def _count(self) -> str:
        return f"{self.runs} run{'' if self.runs == 1 else 's'}"

    def _moments(self) -> tuple[Moments | None, Moments]:
        """Return the moments of the full matrix and of the rows."""
        if self.single is None:
            assert self.rows is not None
            return self.full, self.rows
        matrix = self.single.full_frame_attention
        rows = Moments.of(self.single.last_block_rows)
        if matrix is None:
            return None, rows
        return Moments.of(np.where(self.single.attendable, matrix, matrix.dtype.type(np.nan))), rows

    def _statistic(self, derived: str) -> str:
        """Return the name of the mean or deviation of these captures."""
        own = STATISTICS[self._grid.statistic]
        base = own.base
        if not own.has_mean:
            raise CaptureError(
                f"{self.source}: statistic is {self._grid.statistic}, expected {base} or "
                f"{base}_mean to take moments over runs; give the captures it was made of"
            )
        return f"{base}_{derived}"

    def _check_alike(self, other: CaptureMoments) -> None:
        for field in fields(_Grid):
            ours, theirs = getattr(self._grid, field.name), getattr(other._grid, field.name)
            if ours != theirs:
                raise CaptureError(
                    f"{other.source}: {_describe(field.name, theirs)}, but {self.source}: "
                    f"{_describe(field.name, ours)}; expected the same in every run of a layer, "
                    "so take the runs that differ apart"
                )

    def _capture(
        self,
        full: npt.NDArray[Any] | None,
        rows: npt.NDArray[Any],
        statistic: str,
        run: str,
    ) -> Capture:
        data = _grid_keys(self._grid) | {FULL: full, LAST: rows, "statistic": statistic}
        data |= {"prompt": self.prompt, "num_runs": self.runs}
        return Capture.from_dict(data, source=f"{run}, layer {self._grid.layer_index}", run=run)


def _grid_keys(grid: _Grid) -> dict[str, Any]:
    """Return the keys of the file schema that say where the values stand."""
    names = ("layer_index", "query_frames", "key_frames", "last_block_query_frames", "block_sizes")
    return {name: getattr(grid, name) for name in names}


def _name(capture: Capture) -> str:
    known = not capture.run or f"{capture.run}/" in capture.source.replace("\\", "/")
    return capture.source if known else f"{capture.run}/{capture.source}"


def _describe(name: str, value: Any) -> str:
    if name == "has_matrix":
        return f"{FULL} is {'there' if value else 'absent'}"
    shown = f"[{shorten_list(value)}]" if isinstance(value, tuple) else value
    if isinstance(value, tuple) and name != "block_sizes":
        shown = f"{shown} ({len(value)} frames)"
    return f"{name} is {'absent' if value is None else shown}"


def _restore(arrays: Mapping[str, npt.NDArray[Any]]) -> CaptureMoments:
    info: dict[str, Any] = json.loads(str(arrays["info"]))
    stored: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in info["grid"].items()
    }
    grid = _Grid(**stored)
    single, full, rows = None, None, None
    if info["runs"] == 1:
        values = {FULL: arrays.get("full"), LAST: arrays["rows"], "statistic": grid.statistic}
        data = _grid_keys(grid) | values | {"prompt": info["prompt"]}
        single = Capture.from_dict(data, source=info["single_source"], run=info["single_run"])
    else:
        parts = [
            Moments.from_arrays(
                {name: arrays[f"{part}_{name}"] for name in ("count", "mean", "m2")}
            )
            for part in (("rows", "full") if grid.has_matrix else ("rows",))
        ]
        rows, full = parts[0], parts[1] if grid.has_matrix else None
    return CaptureMoments(info["runs"], single, full, rows, info["prompt"], info["source"], grid)
