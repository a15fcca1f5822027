"""Many captures -> many files: what is to be drawn, checked as a whole, then drawn one by one."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgrid.capture import Capture
from headgrid.errors import (
    CaptureError,
    HeadgridError,
    HeadgridWarning,
    OutputError,
    RenderError,
    unexpected,
)
from headgrid.options import FIGURES, FigureOptions
from headgrid.scales import ColorRange, resolve_color_range

if TYPE_CHECKING:
    from headgrid.spec import Spec
    from headgrid.store import CaptureFile

#: Captures that are kept between the two passes take at most so many bytes together.
_KEEP_BYTES = 256 * 2**20

_STEMS = {"heatmap": "layer{layer}_2d_heatmap", "perhead": "layer{layer}_perhead_grid"}


@dataclass(frozen=True)
class Job:
    """One capture file and the files it becomes."""

    file: CaptureFile
    outputs: tuple[Output, ...]
    value_range: tuple[float, float]
    statistic: str
    kept: Capture | None = field(default=None, repr=False)

    @property
    def source(self) -> str:
        """The file, for messages."""
        return str(self.file.path)


@dataclass(frozen=True)
class Output:
    """One figure in one format."""

    figure: str
    format: str
    path: Path


@dataclass(frozen=True)
class Plan:
    """Everything that will be drawn, and the inputs that can not be."""

    jobs: tuple[Job, ...]
    failures: tuple[HeadgridError, ...]
    options: FigureOptions


def plan_jobs(
    inputs: Sequence[str | Path],
    folder: str | Path,
    *,
    formats: Sequence[str] = ("svg",),
    figures: Sequence[str] = FIGURES,
    options: FigureOptions | None = None,
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
        How to draw. ``shared`` is resolved here, over all captures.

    Returns
    -------
    Plan

    Raises
    ------
    CaptureError
        Where two inputs would become the same file, or where a shared colour
        range is asked for captures of different statistics.
    """
    from headgrid.store import find_captures

    files, missing = find_captures(inputs)
    jobs: list[Job] = []
    failures: list[HeadgridError] = [*missing]
    kept = 0
    for file in files:
        try:
            capture = read_capture(file)
            outputs = _outputs(capture, file, Path(folder), formats, figures)
            job = Job(file, outputs, capture.value_range, capture.statistic)
        except HeadgridError as error:
            failures.append(error)
            continue
        except Exception as error:  # noqa: BLE001 - whatever one file does, the others are drawn
            failures.append(unexpected(str(file.path), error))
            continue
        kept += _size(capture)
        jobs.append(job if kept > _KEEP_BYTES else replace(job, kept=capture))
    _refuse_collisions(jobs)
    options = options or FigureOptions()
    if options.color_range == "shared" and "heatmap" in figures:
        options = replace(options, color_range=_shared_range(jobs))
    return Plan(tuple(jobs), tuple(failures), options)


def run_jobs(
    plan: Plan,
    *,
    ppi: float = 300,
    executor: Executor | None = None,
    embed: str = "inline",
    shared: Path | None = None,
) -> Iterator[tuple[Job, list[Path] | HeadgridError]]:
    """Draw and write all outputs, job by job.

    Parameters
    ----------
    plan : Plan
        From `plan_jobs`.
    ppi : float
        Pixels per inch of PNGs.
    executor : concurrent.futures.Executor, optional
        Where specifications are rendered; by default here. The next job's charts
        are made while it works.
    embed : {"inline", "cdn", "assets"}
        Where HTML pages have Vega from.
    shared : Path, optional
        Of ``assets``: the folder that holds the shared script, by default that of
        each page.

    Yields
    ------
    job, outcome
        In order: the files it wrote, or what went wrong. Nothing of a job is
        written before all of it is drawn.
    """
    pending: deque[tuple[Job, list[_Drawing] | HeadgridError]] = deque()

    def begin(spec: Spec, outputs: Sequence[Output]) -> Callable[[], list[bytes]]:
        from headgrid.render import begin_render

        formats = [output.format for output in outputs]
        base = find_base(outputs[0].path, shared)
        return begin_render(spec, formats, ppi=ppi, executor=executor, embed=embed, base=base)

    for job in plan.jobs:
        pending.append((job, _start(job, plan.options, begin)))
        if len(pending) > 1:
            yield _finish(*pending.popleft())
    while pending:
        yield _finish(*pending.popleft())


@dataclass(frozen=True)
class _Drawing:
    """One figure on its way: the files it becomes, and their contents to be."""

    outputs: tuple[Output, ...]
    contents: Callable[[], list[bytes]]


def find_base(page: Path, shared: Path | None) -> str:
    """Return the address of the folder of the shared script, relative to a page.

    >>> find_base(Path("out/run_000/layer0.html"), Path("out"))
    '../'
    >>> find_base(Path("out/layer0.html"), Path("out"))
    ''
    """
    if shared is None or shared == page.parent:
        return ""
    return f"{Path(os.path.relpath(shared, page.parent)).as_posix()}/"


def _start(
    job: Job,
    options: FigureOptions,
    begin: Callable[[Spec, Sequence[Output]], Callable[[], list[bytes]]],
) -> list[_Drawing] | HeadgridError:
    from headgrid.charts import draw_heatmap, draw_perhead
    from headgrid.spec import to_spec

    drawers = {"heatmap": draw_heatmap, "perhead": draw_perhead}
    drawings = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeadgridWarning)  # the first reading gave them
            capture = job.kept or read_capture(job.file)
        for figure in dict.fromkeys(output.figure for output in job.outputs):
            outputs = tuple(output for output in job.outputs if output.figure == figure)
            spec = to_spec(drawers[figure](capture, options), validate=False)
            drawings.append(_Drawing(outputs, begin(spec, outputs)))
    except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
        return _as_failure(job, error)
    return drawings


def _finish(
    job: Job, drawings: list[_Drawing] | HeadgridError
) -> tuple[Job, list[Path] | HeadgridError]:
    from headgrid.files import write_bytes

    if isinstance(drawings, HeadgridError):
        return job, drawings
    try:
        files = [
            (output.path, content)
            for drawing in drawings
            for output, content in zip(drawing.outputs, drawing.contents(), strict=True)
        ]
        for path, _ in files:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder, expected a place for a file; move it away")
        return job, [write_bytes(path, content) for path, content in files]
    except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
        return job, _as_failure(job, error)


def _as_failure(job: Job, error: Exception) -> HeadgridError:
    if isinstance(error, HeadgridError):
        return error
    if isinstance(error, BrokenExecutor):
        return RenderError(
            f"{job.source}: the rendering process has died, most likely for want of memory; draw "
            "cells as images (--cells image), or fewer heads or frames"
        )
    return unexpected(job.source, error)


def read_capture(file: CaptureFile) -> Capture:
    """Load the capture of a found file, with its run.

    Messages name the whole path: runs hold files of the same names.
    """
    from headgrid.store import load_capture

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", HeadgridWarning)
            capture = load_capture(file.path, run=file.run)
    except CaptureError as error:
        raise CaptureError(_name_path(str(error), file.path)) from None
    for warning in caught:
        warnings.warn(_name_path(str(warning.message), file.path), HeadgridWarning, stacklevel=2)
    return capture.replace(source=str(file.path))


def _name_path(text: str, path: Path) -> str:
    return f"{path}{text.removeprefix(path.name)}" if text.startswith(f"{path.name}:") else text


def _outputs(
    capture: Capture,
    file: CaptureFile,
    folder: Path,
    formats: Sequence[str],
    figures: Sequence[str],
) -> tuple[Output, ...]:
    wanted = list(figures)
    if capture.full_frame_attention is None and set(wanted) == set(FIGURES):
        wanted = ["perhead"]
        text = f"{capture.source}: there is no full matrix, so only the per-head figure is drawn"
        warnings.warn(text, HeadgridWarning, stacklevel=2)
    elif capture.full_frame_attention is None and "heatmap" in wanted:
        capture.head_matrix(0)  # says what is missing
    return tuple(
        Output(
            figure,
            format,
            folder / file.relative / f"{_STEMS[figure].format(layer=capture.layer_index)}.{format}",
        )
        for figure in wanted
        for format in formats
    )


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


def _shared_range(jobs: Sequence[Job]) -> ColorRange:
    for job in jobs:
        if job.statistic != jobs[0].statistic:
            raise CaptureError(
                f"{jobs[0].source} holds {jobs[0].statistic} and {job.source} holds "
                f"{job.statistic}, expected one statistic for a shared color range; draw them "
                "separately"
            )
    return resolve_color_range("shared", jobs)
