"""Many captures -> many files: what is to be drawn, checked as a whole, then drawn one by one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgrid.capture import Capture
from headgrid.errors import CaptureError, HeadgridError, HeadgridWarning
from headgrid.options import FIGURES, FigureOptions
from headgrid.scales import ColorRange, resolve_color_range

if TYPE_CHECKING:
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
        kept += _size(capture)
        jobs.append(job if kept > _KEEP_BYTES else replace(job, kept=capture))
    _refuse_collisions(jobs)
    options = options or FigureOptions()
    if options.color_range == "shared":
        options = replace(options, color_range=_shared_range(jobs))
    return Plan(tuple(jobs), tuple(failures), options)


def run_job(job: Job, options: FigureOptions, *, ppi: float = 300) -> list[Path]:
    """Draw and write all outputs of one job.

    Nothing is written before everything is drawn.

    Raises
    ------
    HeadgridError
        Where the capture can not be read or drawn, or a file not be written.
    """
    from headgrid.charts import draw_heatmap, draw_perhead
    from headgrid.render import render
    from headgrid.save import write_bytes
    from headgrid.spec import to_spec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeadgridWarning)  # the first reading gave them
        capture = job.kept or read_capture(job.file)
    drawers = {"heatmap": draw_heatmap, "perhead": draw_perhead}
    specs = {
        figure: to_spec(drawers[figure](capture, options))
        for figure in dict.fromkeys(output.figure for output in job.outputs)
    }
    contents = [render(specs[output.figure], output.format, ppi=ppi) for output in job.outputs]
    return [
        write_bytes(output.path, content)
        for output, content in zip(job.outputs, contents, strict=True)
    ]


def run_jobs(plan: Plan, *, ppi: float = 300) -> Iterator[tuple[Job, list[Path] | HeadgridError]]:
    """Run the jobs in order; yield each with the files it wrote, or with what went wrong."""
    for job in plan.jobs:
        try:
            yield job, run_job(job, plan.options, ppi=ppi)
        except HeadgridError as error:
            yield job, error


def read_capture(file: CaptureFile) -> Capture:
    """Load the capture of a found file, with its run."""
    from headgrid.store import load_capture

    return load_capture(file.path, run=file.run)


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
