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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headgrid.batch.manifest import name_inputs
from headgrid.batch.processes import LostCluster, map_in_order
from headgrid.capture.model import Capture
from headgrid.capture.store import CaptureFile, find_captures, read_capture
from headgrid.errors import CaptureError, HeadgridError, HeadgridWarning, RenderError, unexpected
from headgrid.options import FIGURES, ColorRange, FigureOptions
from headgrid.tables.ranges import resolve_color_range

if TYPE_CHECKING:
    from headgrid.capture.quantiles import QuantileSketch

#: Color rules that look at all inputs together, so that they compare.
POOLED_RULES = ("shared", "quantile")

#: Captures that are kept between the two passes take at most so many bytes together.
_KEEP_BYTES = 256 * 2**20
#: Files that are read elsewhere at a time.
_WINDOW = 64

_STEMS = {"heatmap": "layer{layer}_2d_heatmap", "perhead": "layer{layer}_perhead_grid"}


@dataclass(frozen=True)
class Output:
    """One figure in one format."""

    figure: str
    format: str
    path: Path


@dataclass(frozen=True)
class Job:
    """One capture file and the files it becomes, figure by figure."""

    file: CaptureFile
    outputs: tuple[Output, ...]
    #: SHA-256 of the file's content when it was planned.
    digest: str
    #: The file's name in the manifest.
    key: str
    #: What was read while planning, where it was kept.
    kept: Capture | None = field(default=None, repr=False)

    @property
    def source(self) -> str:
        """The file, for messages."""
        return str(self.file.path)


@dataclass(frozen=True)
class Plan:
    """Everything that will be drawn, and the inputs that can not be."""

    jobs: tuple[Job, ...]
    failures: tuple[HeadgridError, ...]
    #: With the colour range that was found over all inputs, where the rule asks for that.
    options: FigureOptions
    #: The one range of all figures; None where each has its own.
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
    files, missing = find_captures(inputs) if found is None else found
    options = options or FigureOptions()
    rule = options.color_range if "heatmap" in figures else None
    pooled = rule in POOLED_RULES
    wanted = _Wanted(tuple(figures), pooled, rule == "quantile", keep and executor is None)
    read = partial(_read_one, wanted=wanted)
    if executor is None:
        outcomes: Iterator[_Reading | HeadgridError] = map(read, files)
    else:
        outcomes = map_in_order(executor, read, files, window=_WINDOW)
    readings: list[_Reading] = []
    failures: list[HeadgridError] = [*missing]
    usable = _sort_out(outcomes, readings, failures, one_statistic=pooled)
    color_range = None
    if pooled:
        color_range = resolve_color_range(options.color_range, usable)
        options = replace(options, color_range=color_range)
    elif isinstance(rule, (tuple, ColorRange)):
        color_range = resolve_color_range(rule, ())
    deque(usable, maxlen=0)
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
    """What the first pass found in a file; range and sketch are for the colour rule."""

    file: CaptureFile
    digest: str
    layer: int
    statistic: str
    figures: tuple[str, ...]
    warnings: tuple[str, ...]
    value_range: tuple[float, float]
    value_sketch: QuantileSketch
    capture: Capture | None


def _read_one(file: CaptureFile, wanted: _Wanted) -> _Reading | HeadgridError:
    try:
        capture, digest = read_capture(file)
        figures, texts = wanted.figures, capture.warnings
        if capture.full_frame_attention is None and set(figures) == set(FIGURES):
            figures = ("perhead",)
            text = (
                f"{capture.source}: there is no full matrix, so only the per-head figure is drawn"
            )
            texts = (*texts, text)
        elif capture.full_frame_attention is None and "heatmap" in figures:
            capture.head_matrix(0)  # says what is missing
        return _Reading(
            file,
            digest,
            capture.layer_index,
            capture.statistic,
            figures,
            texts,
            capture.value_range if wanted.ranges else (0.0, 0.0),
            capture.value_sketch if wanted.sketches else None,  # type: ignore[arg-type]
            capture if wanted.keep else None,
        )
    except Exception as error:  # noqa: BLE001 - whatever one file does, the others are drawn
        return explain(str(file.path), error)


def _sort_out(
    outcomes: Iterable[_Reading | HeadgridError],
    readings: list[_Reading],
    failures: list[HeadgridError],
    *,
    one_statistic: bool,
) -> Iterator[_Reading]:
    """List what was read and what failed; yield each reading with its values, which go."""
    kept = 0
    for found in outcomes:
        if isinstance(found, HeadgridError):
            failures.append(found)
            continue
        warn_all(found.warnings)
        if one_statistic and readings and found.statistic != readings[0].statistic:
            raise CaptureError(
                f"{readings[0].file.path} holds {readings[0].statistic} and {found.file.path} "
                f"holds {found.statistic}, expected one statistic for a shared color range; draw "
                "them separately"
            )
        kept += _size(found.capture)
        capture = found.capture if kept <= _KEEP_BYTES else None
        readings.append(replace(found, value_sketch=None, capture=capture))  # type: ignore[arg-type]
        yield found


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


def _size(capture: Capture | None) -> int:
    if capture is None:
        return 0
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
    if isinstance(error, LostCluster):
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
