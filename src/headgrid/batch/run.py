"""A plan -> files: each capture is drawn and written, here, in processes or on a cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgrid.batch.plan import Job, Output, Plan, explain, plan_jobs, warn_all
from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, HeadgridError, OutputError
from headgrid.options import FigureOptions

if TYPE_CHECKING:
    from headgrid.batch.manifest import Manifest
    from headgrid.capture.store import CaptureFile

__all__ = ["Job", "Output", "Plan", "plan_jobs", "run_jobs"]

#: Jobs that are under way, or wait for an earlier one to be written.
_WINDOW = 64


def run_jobs(
    plan: Plan,
    *,
    ppi: float = 300,
    executor: Executor | None = None,
    renderer: Executor | None = None,
    manifest: Manifest | None = None,
    embed: str = "inline",
    shared: Path | None = None,
) -> Iterator[tuple[Job, list[Path] | HeadgridError]]:
    """Draw all outputs, and write them here, job by job.

    Parameters
    ----------
    plan : Plan
        From `plan_jobs`.
    ppi : float
        Pixels per inch of PNGs.
    executor : concurrent.futures.Executor, optional
        Where whole jobs are drawn: processes, threads or a cluster, whose workers
        read the inputs under the same paths; by default here.
    renderer : concurrent.futures.Executor, optional
        Where specifications are rendered if jobs are drawn here; by default here as
        well. The next job's charts are made while it works.
    manifest : Manifest, optional
        Jobs that it says are done are not done again; those that are finished now
        are added to it. The caller flushes it.
    embed : {"inline", "cdn", "assets"}
        Where HTML pages have Vega from.
    shared : Path, optional
        Of ``assets``: the folder that holds the shared script, by default that of
        each page.

    Yields
    ------
    job, outcome
        The files it wrote, none where it was done already, or what went wrong. In
        order, those that were done first. Nothing of a job is written before all of
        it is drawn.
    """
    waiting = []
    for job in plan.jobs:
        if manifest is not None and _is_done(job, manifest):
            yield job, []
        else:
            waiting.append(job)
    tasks = [_Task(job, plan.options, ppi, embed, shared) for job in waiting]
    drawn = _draw_here(tasks, renderer) if executor is None else _draw_there(tasks, executor)
    for job, contents in drawn:
        yield job, _write(job, contents, manifest)


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


def read_capture(file: CaptureFile) -> Capture:
    """Load the capture of a found file, with its run, and give its warnings.

    Messages name the whole path: runs hold files of the same names.
    """
    from headgrid.capture.store import read_capture

    capture, _ = read_capture(file)
    warn_all(capture.warnings)
    return capture


def warm_up() -> None:
    """Load what `draw_job` needs, and start the engine."""
    from headgrid.render import vega as engine

    engine.warm_up()
    import headgrid.charts.heatmap
    import headgrid.web.save  # noqa: F401


@dataclass(frozen=True)
class _Task:
    """One job with all that drawing it needs."""

    job: Job
    options: FigureOptions
    ppi: float
    embed: str
    shared: Path | None


def draw_job(task: _Task) -> list[bytes] | HeadgridError:
    """Return the contents of a job's outputs, or what went wrong; in any thread or process."""
    started = _start(task, None)
    return started if isinstance(started, HeadgridError) else _finish(task.job, started)


def _draw_there(
    tasks: Sequence[_Task], executor: Executor
) -> Iterator[tuple[Job, list[bytes] | HeadgridError]]:
    from headgrid.batch.workers import submit_in_order

    sent = (replace(task, job=replace(task.job, kept=None)) for task in tasks)
    for task, future in submit_in_order(executor, draw_job, sent, window=_WINDOW):
        try:
            yield task.job, future.result()
        except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
            yield task.job, explain(task.job.source, error)


def _draw_here(
    tasks: Sequence[_Task], renderer: Executor | None
) -> Iterator[tuple[Job, list[bytes] | HeadgridError]]:
    pending: deque[tuple[Job, _Started | HeadgridError]] = deque()
    for task in tasks:
        pending.append((task.job, _start(task, renderer)))
        if len(pending) > 1:
            yield _finish_first(pending)
    while pending:
        yield _finish_first(pending)


#: Calls that wait for the engine and return the contents of one figure's outputs.
_Started = list[Callable[[], list[bytes]]]


def _start(task: _Task, renderer: Executor | None) -> _Started | HeadgridError:
    from headgrid.charts.heatmap import draw_heatmap, draw_perhead
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    drawers = {"heatmap": draw_heatmap, "perhead": draw_perhead}
    job, started = task.job, []
    try:
        capture = job.kept or _read_again(job)
        for figure in dict.fromkeys(output.figure for output in job.outputs):
            outputs = [output for output in job.outputs if output.figure == figure]
            spec = to_spec(drawers[figure](capture, task.options), validate=False)
            begun = begin_save(
                spec,
                [output.format for output in outputs],
                ppi=task.ppi,
                executor=renderer,
                embed=task.embed,
                base=find_base(outputs[0].path, task.shared),
            )
            started.append(begun)
    except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
        return explain(job.source, error)
    return started


def _read_again(job: Job) -> Capture:
    from headgrid.capture.store import read_capture

    capture, digest = read_capture(job.file)
    if digest != job.digest:
        raise CaptureError(
            f"{job.source}: the file has changed since the run began, expected the same content "
            "until all is drawn; run the command again"
        )
    return capture


def _finish(job: Job, started: _Started) -> list[bytes] | HeadgridError:
    try:
        return [content for contents in started for content in contents()]
    except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
        return explain(job.source, error)


def _finish_first(
    pending: deque[tuple[Job, _Started | HeadgridError]],
) -> tuple[Job, list[bytes] | HeadgridError]:
    job, started = pending.popleft()
    return job, started if isinstance(started, HeadgridError) else _finish(job, started)


def _is_done(job: Job, manifest: Manifest) -> bool:
    expected = {output.path.relative_to(manifest.path.parent).as_posix() for output in job.outputs}
    return manifest.outputs(job.key) == expected and manifest.is_done(job.key, job.digest)


def _write(
    job: Job, contents: list[bytes] | HeadgridError, manifest: Manifest | None
) -> list[Path] | HeadgridError:
    from headgrid.batch.manifest import hash_bytes
    from headgrid.capture.files import write_bytes

    if isinstance(contents, HeadgridError):
        return contents
    paths = [output.path for output in job.outputs]
    try:
        for path in paths:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder, expected a place for a file; move it away")
        for path, content in zip(paths, contents, strict=True):
            write_bytes(path, content)
    except Exception as error:  # noqa: BLE001 - whatever one capture does, the others are drawn
        return explain(job.source, error)
    if manifest is not None:
        made = {path: hash_bytes(content) for path, content in zip(paths, contents, strict=True)}
        manifest.add(job.key, job.digest, made)
    return paths
