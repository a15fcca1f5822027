"""Captures -> a plan -> files: what becomes which figures, each drawn and written.

Every file is read twice. The plan keeps of each what names its outputs, and of all together
the colour range, so that thousands of captures take no more memory than a few.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from headgrid.batch.manifest import Manifest, hash_output, name_inputs
from headgrid.capture.files import write_bytes
from headgrid.capture.folders import CaptureFile, find_captures
from headgrid.capture.model import Capture
from headgrid.capture.store import read_capture
from headgrid.errors import CaptureError, HeadgridError, HeadgridWarning, explain
from headgrid.options import FIGURES, ColorRange, FigureOptions
from headgrid.survey.calls import submit_in_order
from headgrid.tables.ranges import propose_log, resolve_color_range

Found = tuple[Sequence[CaptureFile], Sequence[HeadgridError]]

_STEMS = {"heatmap": "layer{}_2d_heatmap", "perhead": "layer{}_perhead_grid"}
#: Jobs that are under way, or wait for an earlier one to be written: elsewhere, and here.
_WINDOW, _HERE = 64, 2
#: Threads that make charts at the same time would now and then share a part of them.
_CHARTS = threading.Lock()


@dataclass(frozen=True)
class Figures:
    """What is drawn of each capture, and how."""

    formats: Sequence[str] = ("svg",)
    names: Sequence[str] = FIGURES
    ppi: float = 300
    embed: str = "inline"
    options: FigureOptions = field(default_factory=FigureOptions)

    def to_dict(self) -> dict[str, Any]:
        """Return all that shapes the files, for the manifest."""
        own = {"formats": self.formats, "figures": self.names, "ppi": self.ppi}
        own |= {"embed": self.embed} if "html" in self.formats else {}
        return own | asdict(self.options)


@dataclass(frozen=True)
class Job:
    """One capture file and the files it becomes."""

    file: CaptureFile
    key: str  # the file's name in the manifest
    digest: str  # SHA-256 of its content when it was planned
    outputs: Mapping[str, Mapping[str, Path]]  # by figure and format

    @property
    def paths(self) -> list[Path]:
        """All files it becomes, figure by figure."""
        return [path for formats in self.outputs.values() for path in formats.values()]


@dataclass(frozen=True)
class Plan:
    """Everything that will be drawn below a folder, and the inputs that can not be."""

    folder: Path
    #: With the colour range that was found over all inputs, where the rule asks for that.
    figures: Figures
    jobs: tuple[Job, ...]
    failures: tuple[HeadgridError, ...]
    #: The one range of all figures; None where each has its own.
    color_range: ColorRange | None = None


def plan_jobs(
    inputs: Sequence[str | Path], folder: Path, figures: Figures, *, found: Found | None = None
) -> Plan:
    """Read all inputs once, and decide what is drawn where below a folder.

    A file's folder relative to its input is mirrored. A capture without a full matrix
    becomes the per-head figure alone, with a warning, where both are asked for. ``found``
    is what `find_captures` gives for the inputs, where that was asked before. It is an error
    where two inputs would become the same file, or where one colour range is asked for
    over captures of different statistics.
    """
    files, missing = found or find_captures(inputs)
    rule = figures.options.color_range
    pooled = rule in ("shared", "quantile") and "heatmap" in figures.names
    jobs: list[Job] = []
    failures: list[HeadgridError] = [*missing]
    sources: dict[str, str] = {}

    def read_all() -> Iterator[Capture]:
        for file, key in zip(files, name_inputs([f.path for f in files], inputs), strict=True):
            try:
                capture, digest = read_capture(file)
                outputs = _name_outputs(capture, folder / file.relative, figures)
            except Exception as error:  # noqa: BLE001 - whatever one does, the others are drawn
                failures.append(explain(str(file.path), error))
            else:
                warn_all(*capture.warnings)
                if "heatmap" in figures.names and (told := propose_log(capture, rule)):
                    hidden.setdefault(told, capture.source)
                jobs.append(Job(file, key, digest, outputs))
                sources.setdefault(capture.statistic, capture.source)
                yield capture

    hidden: dict[str, str] = {}
    color_range = None
    if pooled:
        color_range = resolve_color_range(rule, read_all())
        if len(sources) > 1:
            (mine, first), (theirs, second), *_ = sources.items()
            raise CaptureError(
                f"{first} holds {mine} and {second} holds {theirs}, expected one statistic for a "
                "shared color range; draw them separately"
            )
        figures = replace(figures, options=replace(figures.options, color_range=color_range))
    else:
        deque(read_all(), maxlen=0)
        if isinstance(rule, tuple) and "heatmap" in figures.names:
            color_range = resolve_color_range(rule, ())
    warn_all(*(f"{source}: {told}" for told, source in hidden.items()))
    _refuse_collisions(jobs)
    return Plan(folder, figures, tuple(jobs), tuple(failures), color_range)


def _name_outputs(capture: Capture, folder: Path, figures: Figures) -> dict[str, dict[str, Path]]:
    names = figures.names
    if capture.full_frame_attention is None and "heatmap" in names:
        if set(names) != set(FIGURES):
            capture.head_matrix(0)  # says what is missing
        warn_all(f"{capture.source}: there is no full matrix, so only the per-head figure is drawn")
        names = ["perhead"]
    stems = {name: _STEMS[name].format(capture.layer_index) for name in names}
    return {
        name: {format: folder / f"{stem}.{format}" for format in figures.formats}
        for name, stem in stems.items()
    }


def _refuse_collisions(jobs: Iterable[Job]) -> None:
    owners: dict[Path, Job] = {}
    for job in jobs:
        for path in job.paths:
            other = owners.setdefault(path, job)
            if other is not job:
                raise CaptureError(
                    f"{other.file.path} and {job.file.path} would both become {path}, expected one "
                    "input for each output; give a folder that holds both, or draw them into "
                    "different folders"
                )


def run_jobs(
    plan: Plan,
    *,
    executor: Executor | None = None,
    renderer: Executor | None = None,
    manifest: Manifest | None = None,
) -> Iterator[list[Path] | HeadgridError]:
    """Draw all outputs, and write them here, job by job.

    Whole jobs are drawn in ``executor``; without one they are drawn here, and specifications
    rendered in ``renderer``, while the next job's charts are made. Yields for each job the
    files it wrote, none where the manifest knew it to be done, or what went wrong; in order,
    those that were done first. Nothing of a job is written before all of it is drawn.
    """
    waiting = []
    for job in plan.jobs:
        if manifest is not None and manifest.find_done(job.key, job.digest, job.paths):
            yield []
        else:
            waiting.append(job)
    draw = partial(draw_job, figures=plan.figures, root=plan.folder, renderer=renderer)
    threads = ThreadPoolExecutor(1 if renderer is None else _HERE)
    window = _HERE if executor is None else _WINDOW
    with (
        threads if executor is None else nullcontext(executor) as where,
        closing(submit_in_order(where, draw, waiting, window=window)) as calls,
    ):
        for job, future in calls:
            try:
                for path, content in zip(job.paths, future.result(), strict=True):
                    write_bytes(path, content)
                if manifest is not None:
                    made = {path: hash_output(path) for path in job.paths}
                    manifest.add(job.key, job.digest, made)
            except Exception as error:  # noqa: BLE001 - whatever one does, the others are drawn
                yield explain(str(job.file.path), error)
            else:
                yield job.paths


def warm_up() -> None:
    """Load what `draw_job` needs, and start the engine."""
    from headgrid.render import vega as engine

    engine.warm_up()
    import headgrid.charts.heatmap
    import headgrid.web.save  # noqa: F401


def draw_job(job: Job, *, figures: Figures, root: Path, renderer: Executor | None) -> list[bytes]:
    """Return the contents of a job's outputs; in any thread or process."""
    from headgrid.charts.heatmap import draw_heatmap, draw_perhead
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    capture, digest = read_capture(job.file)
    if digest != job.digest:
        raise CaptureError(
            f"{job.file.path}: the file has changed since the run began, expected the same content "
            "until all is drawn; run the command again"
        )
    drawers = {"heatmap": draw_heatmap, "perhead": draw_perhead}
    how: dict[str, Any] = {"ppi": figures.ppi, "embed": figures.embed, "executor": renderer}
    begun = []
    with _CHARTS:
        for name, paths in job.outputs.items():
            spec = to_spec(drawers[name](capture, figures.options), validate=False)
            # The folder of the pages' shared script, relative to a page's.
            folder = next(iter(paths.values())).parent
            base = "" if folder == root else f"{Path(os.path.relpath(root, folder)).as_posix()}/"
            begun.append(begin_save(spec, [*paths], base=base, **how))
    return [content for finish in begun for content in finish()]


def warn_all(*texts: str) -> None:
    """Give a warning for each text."""
    for text in texts:
        warnings.warn(text, HeadgridWarning, stacklevel=4)
