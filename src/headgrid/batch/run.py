"""A plan -> files: each capture is drawn and written, here, in processes or on a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headgrid.batch.manifest import Manifest
from headgrid.batch.plan import Job, Output, Plan, explain, plan_jobs, warn_all
from headgrid.batch.processes import submit_in_order
from headgrid.capture.files import hash_bytes, write_bytes
from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, HeadgridError, OutputError
from headgrid.options import FigureOptions

if TYPE_CHECKING:
    from headgrid.capture.store import CaptureFile

__all__ = ["Job", "Output", "Plan", "plan_jobs", "run_jobs"]

#: Jobs that are under way, or wait for an earlier one to be written: elsewhere, and here.
_WINDOW, _HERE = 64, 2
#: Threads that make charts at the same time would now and then share a part of them.
_CHARTS = threading.Lock()


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
            # What was kept of the first reading is worth less than its way elsewhere.
            waiting.append(job if executor is None else replace(job, kept=None))
    draw = partial(draw_job, how=_How(plan.options, ppi, embed, shared), renderer=renderer)
    threads = ThreadPoolExecutor(1 if renderer is None else _HERE)
    with threads if executor is None else nullcontext(executor) as where:
        window = _HERE if executor is None else _WINDOW
        for job, future in submit_in_order(where, draw, waiting, window=window):
            try:
                yield job, _write(job, future.result(), manifest)
            except Exception as error:  # noqa: BLE001 - whatever one does, the others are drawn
                yield job, explain(job.source, error)


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
    """Load the capture of a found file, with its run, and give its warnings."""
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
class _How:
    """What all jobs are drawn with."""

    options: FigureOptions
    ppi: float
    embed: str
    shared: Path | None


def draw_job(job: Job, *, how: _How, renderer: Executor | None = None) -> list[bytes]:
    """Return the contents of a job's outputs; in any thread or process."""
    from headgrid.charts.heatmap import draw_heatmap, draw_perhead
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    drawers = {"heatmap": draw_heatmap, "perhead": draw_perhead}
    capture = job.kept or _read_again(job)
    begun = []
    with _CHARTS:
        for figure in dict.fromkeys(output.figure for output in job.outputs):
            outputs = [output for output in job.outputs if output.figure == figure]
            finish = begin_save(
                to_spec(drawers[figure](capture, how.options), validate=False),
                [output.format for output in outputs],
                ppi=how.ppi,
                executor=renderer,
                embed=how.embed,
                base=find_base(outputs[0].path, how.shared),
            )
            begun.append(finish)
    return [content for finish in begun for content in finish()]


def _read_again(job: Job) -> Capture:
    from headgrid.capture.store import read_capture

    capture, digest = read_capture(job.file)
    if digest != job.digest:
        raise CaptureError(
            f"{job.source}: the file has changed since the run began, expected the same content "
            "until all is drawn; run the command again"
        )
    return capture


def _is_done(job: Job, manifest: Manifest) -> bool:
    expected = {output.path.relative_to(manifest.path.parent).as_posix() for output in job.outputs}
    return manifest.outputs(job.key) == expected and manifest.is_done(job.key, job.digest)


def _write(job: Job, contents: list[bytes], manifest: Manifest | None) -> list[Path]:
    made = {output.path: hash_bytes(c) for output, c in zip(job.outputs, contents, strict=True)}
    for path in made:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected a place for a file; move it away")
    for path, content in zip(made, contents, strict=True):
        write_bytes(path, content)
    if manifest is not None:
        manifest.add(job.key, job.digest, made)
    return [*made]
