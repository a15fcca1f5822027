"""``headgrid render`` and ``headgrid demo`` -> figures of captures in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import (
    check_formats,
    check_list,
    check_ppi,
    check_run,
    complain,
    count_jobs,
    figure_options,
    inputs_argument,
    locate_inputs,
    make_options,
    output_option,
    run_options,
    show_path,
    show_progress,
    stop,
)
from headgrid.errors import HeadgridError, check_choice

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from headgrid.batch.manifest import Manifest
    from headgrid.batch.run import Plan
    from headgrid.capture.store import CaptureFile
    from headgrid.errors import CaptureError
    from headgrid.options import FigureOptions

    Found = tuple[list[CaptureFile], list[CaptureError]]

#: Captures from which a second process, a second to start, pays.
_SEVERAL = 6
#: Captures from which the processes that draw also do the first reading.
_MANY = 500


@click.command()
@output_option("Where the figures go.", default="headgrid-demo", show_default=True)
@click.option(
    "--real",
    is_flag=True,
    help="A layer recorded from a pretrained sentence encoder, in place of synthetic ones.",
)
@figure_options
def demo(folder: Path, *, real: bool, **options: Any) -> None:
    """Draw both figures of the captures that come with headgrid."""
    from headgrid.capture.demo import REAL_TITLE, TITLE, demo_folder

    if options["title"] is None:
        options["title"] = REAL_TITLE if real else TITLE
    wanted = _read_options(**options)
    with demo_folder(real=real) as inputs:
        _render([inputs], folder, wanted, _Run(None, None, resume=False, listed=False))


@click.command()
@inputs_argument
@output_option("Where the figures go; each input's folders are mirrored there.", required=True)
@figure_options
@run_options
def render(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    jobs: int | None,
    dask: str | None,
    resume: bool,
    **options: Any,
) -> None:
    """Draw captures: files (.pt, .npz, .safetensors), or folders of them.

    Writes layer{L}_2d_heatmap and layer{L}_perhead_grid for each, and for several
    captures headgrid-jobs.json, which --resume reads.
    """
    check_run(jobs, dask)
    run = _Run(jobs, dask, resume=resume)
    _render(locate_inputs(inputs, dask), folder, _read_options(**options), run)


@dataclass(frozen=True)
class _Wanted:
    """What is drawn of each capture, and how."""

    formats: tuple[str, ...]
    figures: tuple[str, ...]
    ppi: float
    embed: str
    options: FigureOptions

    def to_dict(self) -> dict[str, Any]:
        """Return all that shapes the files, for the manifest."""
        own = {"formats": self.formats, "figures": self.figures, "ppi": self.ppi}
        own |= {"embed": self.embed} if "html" in self.formats else {}
        return own | asdict(self.options)


@dataclass(frozen=True)
class _Run:
    """Where the work is done, and what is kept of an earlier run."""

    jobs: int | None
    dask: str | None
    resume: bool
    listed: bool = True


def _read_options(
    *, formats: str, ppi: float, embed: str, figures: Sequence[str], **options: Any
) -> _Wanted:
    from headgrid.options import EMBEDS, FIGURES

    made = make_options(**options)
    chosen = check_list("figure", figures or FIGURES, FIGURES)
    check_choice("embed", embed, EMBEDS)
    return _Wanted(check_formats(formats), chosen, check_ppi(ppi), embed, made)


def _render(inputs: Sequence[Path], folder: Path, wanted: _Wanted, run: _Run) -> None:
    found = None
    if run.dask is not None or _may_hold_several(inputs, run.jobs):
        from headgrid.capture.store import find_captures

        found = find_captures(inputs)
    # Processes start on their own while the inputs are read here.
    with _open_workers(run, found) as workers:
        from headgrid.batch.run import plan_jobs

        count = len(found[0]) if found else 0
        plan = plan_jobs(
            inputs,
            folder,
            formats=wanted.formats,
            figures=wanted.figures,
            options=wanted.options,
            executor=workers.executor if count >= _MANY else None,
            keep=workers.executor is None,
            found=found,
        )
        for error in plan.failures:
            complain(error)
        shared = folder if wanted.embed == "assets" and "html" in wanted.formats else None
        if shared is not None and plan.jobs:
            from headgrid.web.assets import write_assets

            show_path(write_assets(shared, executor=workers.renderer or workers.executor))
        with _open_manifest(folder, wanted, run, plan) as manifest:
            errors = [*plan.failures, *_draw(plan, wanted, shared, workers, manifest)]
    if errors:
        total = len(plan.jobs) + len(plan.failures)
        if total > 1:
            click.echo(f"headgrid: {len(errors)} of {total} inputs failed", err=True)
        stop(1)


@dataclass(frozen=True)
class _Workers:
    """Where whole jobs are drawn, or where the specifications of those drawn here are rendered."""

    executor: Executor | None = None
    renderer: Executor | None = None


@contextmanager
def _open_workers(run: _Run, found: Found | None) -> Iterator[_Workers]:
    from headgrid.batch import processes

    jobs = count_jobs(run.jobs, len(found[0]), least=_SEVERAL) if found else 1
    if run.dask is not None:
        with processes.open_pool(jobs, run.dask) as executor:
            yield _Workers(executor=executor)
    elif jobs > 1:
        from headgrid.batch.run import warm_up

        with processes.open_pool(jobs, warm_up=warm_up) as executor:
            yield _Workers(executor=executor)
    else:
        with processes.rendering_process() as renderer:
            yield _Workers(renderer=renderer)


def _may_hold_several(inputs: Sequence[Path], jobs: int | None) -> bool:
    """Whether it pays to count the captures before the first process starts."""
    least = _SEVERAL if jobs is None else min(jobs, 2)
    count = 0
    for given in inputs:
        if jobs == 1 or count >= least:
            break
        count += 1
        for _, _, names in os.walk(given):
            count += len(names)
            if count >= least:
                break
    return jobs != 1 and count >= least


@contextmanager
def _open_manifest(
    folder: Path, wanted: _Wanted, run: _Run, plan: Plan
) -> Iterator[Manifest | None]:
    """Give the list of finished jobs; it is written however the block ends."""
    several = len(plan.jobs) + len(plan.failures) > 1
    if not run.listed or not (several or run.resume):
        yield None
        return
    from headgrid.batch.manifest import Manifest
    from headgrid.capture.files import remove_leftovers

    found = plan.color_range
    range_ = None if found is None else (found.low, found.high)
    options = wanted.to_dict()
    if run.resume:
        parents = {output.path.parent for job in plan.jobs for output in job.outputs}
        remove_leftovers({folder, *parents})
    with Manifest(folder, "render", options, color_range=range_, resume=run.resume) as manifest:
        yield manifest


def _draw(
    plan: Plan,
    wanted: _Wanted,
    shared: Path | None,
    workers: _Workers,
    manifest: Manifest | None,
) -> list[HeadgridError]:
    """Draw all jobs, print the files that were written, and return what failed."""
    from headgrid.batch.run import run_jobs

    errors: list[HeadgridError] = []
    unchanged = 0
    how: dict[str, Any] = {"ppi": wanted.ppi, "embed": wanted.embed, "shared": shared}
    how |= {"executor": workers.executor, "renderer": workers.renderer, "manifest": manifest}
    with show_progress(len(plan.jobs)) as advance:
        for _, outcome in run_jobs(plan, **how):
            if isinstance(outcome, HeadgridError):
                errors.append(outcome)
                complain(outcome)
            else:
                unchanged += not outcome
                for path in outcome:
                    show_path(path)
            advance()
    if unchanged:
        click.echo(f"headgrid: {unchanged} of {len(plan.jobs)} captures are unchanged", err=True)
    return errors
