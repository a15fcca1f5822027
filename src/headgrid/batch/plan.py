"""Inputs -> a plan: what becomes which files, on which colour scale, checked as a whole.

The first of two passes over the files. It keeps of each what names its outputs,
and of all together what a common colour scale needs, so that thousands of
captures take no more memory than a few.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, HeadgridError, HeadgridWarning, RenderError, unexpected
from headgrid.options import FIGURES, ColorRange, FigureOptions
from headgrid.tables.ranges import resolve_color_range

if TYPE_CHECKING:
    from headgrid.capture.quantiles import QuantileSketch
    from headgrid.capture.store import CaptureFile

#: Color rules that look at all inputs together, so that they compare.
POOLED_RULES = ("shared", "quantile")

#: Captures that are kept between the two passes take at most so many bytes together.
_KEEP_BYTES = 256 * 2**20
#: Files that one call reads, and calls under way at a time.
_CHUNK, _WINDOW = 16, 64

_STEMS = {"heatmap": "layer{layer}_2d_heatmap", "perhead": "layer{layer}_perhead_grid"}


@dataclass(frozen=True)
class Output:
    """One figure in one format."""

    figure: str
    format: str
    path: Path


@dataclass(frozen=True)
class Job:
    """One capture file and the files it becomes.

    Attributes
    ----------
    file : CaptureFile
    outputs : tuple of Output
        Figure by figure.
    digest : str
        SHA-256 of the file's content when it was planned.
    key : str
        The file's name in the manifest.
    kept : Capture or None
        What was read while planning, where it was kept.
    """

    file: CaptureFile
    outputs: tuple[Output, ...]
    digest: str
    key: str
    kept: Capture | None = field(default=None, repr=False)

    @property
    def source(self) -> str:
        """The file, for messages."""
        return str(self.file.path)


@dataclass(frozen=True)
class Plan:
    """Everything that will be drawn, and the inputs that can not be.

    Attributes
    ----------
    jobs : tuple of Job
    failures : tuple of HeadgridError
    options : FigureOptions
        With the colour range that was found over all inputs, where the rule asks for that.
    color_range : ColorRange or None
        The one range of all figures; None where each has its own.
    """

    jobs: tuple[Job, ...]
    failures: tuple[HeadgridError, ...]
    options: FigureOptions
    color_range: ColorRange | None = None


def plan_jobs(
    inputs: Sequence[str | Path],
    folder: str | Path,
    *,
    formats: Sequence[str] = ("svg",),
    figures: Sequence[str] = FIGURES,
    options: FigureOptions | None = None,
    executor: Executor | None = None,
    keep: bool = True,
    found: tuple[Sequence[CaptureFile], Sequence[HeadgridError]] | None = None,
) -> Plan:
    """Read all inputs once, and decide what is drawn where.

    Parameters
    ----------
    inputs : sequence of path
        Capture files, and folders that are searched for them.
    folder : path
        Root of the output; a file's folder relative to its input is mirrored.
    formats, figures
        What to make of each capture. By default both figures; a capture without
        a full matrix then becomes the per-head figure alone, with a warning.
    options : FigureOptions, optional
        How to draw. ``shared`` and ``quantile`` are resolved here, over all captures.
    executor : concurrent.futures.Executor, optional
        Where files are read; by default here. It pays for thousands.
    keep : bool
        Keep what is read here, up to 256 MB, for `run_jobs` without an executor.
    found : optional
        What `find_captures` gives for the inputs, where that was asked before.

    Returns
    -------
    Plan

    Raises
    ------
    CaptureError
        Where two inputs would become the same file, or where one colour range is
        asked for over captures of different statistics.
    """
    from headgrid.batch.manifest import name_inputs
    from headgrid.capture.store import find_captures

    files, missing = find_captures(inputs) if found is None else found
    options = options or FigureOptions()
    rule = options.color_range if "heatmap" in figures else None
    pooled = rule in POOLED_RULES
    wanted = _Wanted(tuple(figures), pooled, rule == "quantile", keep=keep and executor is None)
    chunks = _read_all(files, wanted, executor)
    readings: list[_Reading] = []
    failures: list[HeadgridError] = [*missing]
    pools = _pool_chunks(chunks, readings, failures, one_statistic=pooled)
    color_range = None
    if pooled:
        color_range = resolve_color_range(options.color_range, pools)
        options = replace(options, color_range=color_range)
    else:
        deque(pools, maxlen=0)
        if isinstance(rule, (tuple, ColorRange)):
            color_range = resolve_color_range(rule, ())
    keys = name_inputs([reading.file.path for reading in readings], inputs)
    jobs = tuple(
        _make_job(reading, key, Path(folder), formats)
        for reading, key in zip(readings, keys, strict=True)
    )
    _refuse_collisions(jobs)
    return Plan(jobs, tuple(failures), options, color_range)


@dataclass(frozen=True)
class _Wanted:
    """What the first pass looks for in a file."""

    figures: tuple[str, ...]
    ranges: bool
    sketches: bool
    keep: bool


@dataclass(frozen=True)
class _Reading:
    """What the first pass found in a file."""

    file: CaptureFile
    digest: str
    layer: int
    statistic: str
    figures: tuple[str, ...]
    warnings: tuple[str, ...]
    capture: Capture | None = None


@dataclass(frozen=True)
class _Pool:
    """The values of some captures together, as a color rule looks at them."""

    statistic: str
    value_range: tuple[float, float]
    value_sketch: QuantileSketch


@dataclass(frozen=True)
class _Chunk:
    """What the first pass found in some files."""

    readings: tuple[_Reading | HeadgridError, ...]
    pool: _Pool | None


def _read_all(
    files: Sequence[CaptureFile], wanted: _Wanted, executor: Executor | None
) -> Iterator[_Chunk]:
    from headgrid.batch.workers import map_in_order

    chunks = (
        (tuple(files[start : start + _CHUNK]), wanted) for start in range(0, len(files), _CHUNK)
    )
    if executor is None:
        return map(_read_chunk, chunks)
    return map_in_order(executor, _read_chunk, chunks, window=_WINDOW)


def _read_chunk(task: tuple[tuple[CaptureFile, ...], _Wanted]) -> _Chunk:
    files, wanted = task
    readings: list[_Reading | HeadgridError] = []
    lows, highs, statistic = [], [], ""
    sketch: Any = None
    for file in files:
        try:
            capture, reading = _read_one(file, wanted)
        except Exception as error:  # noqa: BLE001 - whatever one file does, the others are drawn
            readings.append(explain(str(file.path), error))
            continue
        readings.append(reading)
        if wanted.ranges:
            statistic = capture.statistic
            low, high = capture.value_range
            lows.append(low)
            highs.append(high)
        if wanted.sketches:
            own = capture.value_sketch
            sketch = own if sketch is None else sketch.merge(own)
    pool = _Pool(statistic, (min(lows), max(highs)), sketch) if lows else None
    return _Chunk(tuple(readings), pool)


def _read_one(file: CaptureFile, wanted: _Wanted) -> tuple[Capture, _Reading]:
    from headgrid.capture.store import read_capture

    capture, digest = read_capture(file)
    figures, texts = wanted.figures, capture.warnings
    if capture.full_frame_attention is None and set(figures) == set(FIGURES):
        figures = ("perhead",)
        text = f"{capture.source}: there is no full matrix, so only the per-head figure is drawn"
        texts = (*texts, text)
    elif capture.full_frame_attention is None and "heatmap" in figures:
        capture.head_matrix(0)  # says what is missing
    kept = capture if wanted.keep else None
    layer, statistic = capture.layer_index, capture.statistic
    return capture, _Reading(file, digest, layer, statistic, figures, texts, kept)


def _pool_chunks(
    chunks: Iterable[_Chunk],
    readings: list[_Reading],
    failures: list[HeadgridError],
    *,
    one_statistic: bool,
) -> Iterator[_Pool]:
    """Sort what was read into usable files and failures; yield the values of each chunk."""
    kept = 0
    for chunk in chunks:
        for reading in chunk.readings:
            if isinstance(reading, HeadgridError):
                failures.append(reading)
                continue
            warn_all(reading.warnings)
            if one_statistic and readings:
                _expect_same_statistic(readings[0], reading)
            if reading.capture is not None:
                kept += _size(reading.capture)
                if kept > _KEEP_BYTES:
                    reading = replace(reading, capture=None)
            readings.append(reading)
        if chunk.pool is not None:
            yield chunk.pool


def _expect_same_statistic(first: _Reading, other: _Reading) -> None:
    if other.statistic != first.statistic:
        raise CaptureError(
            f"{first.file.path} holds {first.statistic} and {other.file.path} holds "
            f"{other.statistic}, expected one statistic for a shared color range; draw them "
            "separately"
        )


def warn_all(texts: Iterable[str]) -> None:
    """Give a warning for each text."""
    for text in texts:
        warnings.warn(text, HeadgridWarning, stacklevel=4)


def _make_job(reading: _Reading, key: str, folder: Path, formats: Sequence[str]) -> Job:
    parent = folder / reading.file.relative
    outputs = tuple(
        Output(figure, format, parent / f"{_STEMS[figure].format(layer=reading.layer)}.{format}")
        for figure in reading.figures
        for format in formats
    )
    return Job(reading.file, outputs, reading.digest, key, reading.capture)


def _size(capture: Capture) -> int:
    full = capture.full_frame_attention
    return capture.last_block_frame_attention.nbytes + (0 if full is None else full.nbytes)


def _refuse_collisions(jobs: Iterable[Job]) -> None:
    owners: dict[Path, Job] = {}
    for job in jobs:
        for output in job.outputs:
            other = owners.setdefault(output.path, job)
            if other is not job:
                raise CaptureError(
                    f"{other.source} and {job.source} would both become {output.path}, expected "
                    "one input for each output; give a folder that holds both, or draw them into "
                    "different folders"
                )


def explain(source: str, error: BaseException) -> HeadgridError:
    """Return an error in the user's words."""
    if isinstance(error, HeadgridError):
        return error
    if type(error).__name__ == "LostCluster":
        return RenderError(
            f"{source}: the dask cluster can not be reached any more, expected its scheduler to "
            "run until the end; start it again and go on with --resume"
        )
    if isinstance(error, BrokenExecutor):
        return RenderError(
            f"{source}: the rendering process has died, most likely for want of memory; draw "
            "cells as images (--cells image), or fewer heads or frames"
        )
    return unexpected(source, error)
