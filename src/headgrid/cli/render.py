"""``headgrid render`` and ``headgrid demo`` -> figures of captures in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from headgrid.cli import shared
from headgrid.errors import OptionError, near_miss
from headgrid.options import FORMATS, FigureOptions

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from headgrid.batch.manifest import Manifest
    from headgrid.batch.run import Figures, Plan

#: Captures from which a second process, a second to start, pays.
_SEVERAL = 6

#: Runs that the synthetic demonstration writes.
_DEMO_RUNS = 3


@click.command()
@shared.path_option("-o --output folder DIR", "Where the figures go.", "headgrid-demo")
@click.option(
    "--real",
    is_flag=True,
    help="A layer recorded from a pretrained sentence encoder, in place of synthetic ones.",
)
@shared.figure_options
def demo(folder: Path, *, real: bool, **options: Any) -> None:
    """Draw both figures of the captures that come with headgrid.

    Also writes captures/run_000/layer0.npz and so on: data to try the other commands on.
    """
    from headgrid.capture.demo import REAL_TITLE, TITLE, demo_folder

    if options["title"] is None:
        options["title"] = REAL_TITLE if real else TITLE
    with demo_folder(real=real) as inputs:
        _render([inputs], folder, options, listed=False)
        _write_captures(inputs, folder / "captures", runs=1 if real else _DEMO_RUNS)


def _write_captures(inputs: Path, folder: Path, *, runs: int) -> None:
    """Write the captures as they are, and as further runs whose heads are weaker or stronger."""
    import numpy as np

    from headgrid.capture.model import Capture
    from headgrid.capture.store import load_run, save_capture

    for run in range(runs):
        for capture in load_run(inputs):
            data = capture.to_dict()
            factors = 1 + 0.15 * run * np.cos(np.arange(capture.num_heads) + run)
            for name in {"full_frame_attention", "last_block_frame_attention"} & data.keys():
                shape = -1, *[1] * (data[name].ndim - 1)
                data[name] = (data[name] * factors.reshape(shape)).astype(data[name].dtype)
            data["prompt"] = f"{capture.prompt} (run {run})"
            path = folder / f"run_{run:03d}" / f"layer{capture.layer_index}.npz"
            save_capture(Capture.from_dict(data), path)
    shared.show_path(folder)


@click.command()
@shared.inputs_argument
@shared.path_option(
    "-o --output folder DIR|FILE",
    "Where the figures go; each input's folders are mirrored there. A single figure may be a file.",
    required=True,
)
@shared.figure_options
@shared.run_options
def render(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    jobs: int | None,
    dask: str | None,
    resume: bool,
    **options: Any,
) -> None:
    """Draw captures: files (.pt, .npz, .npy, .safetensors), or folders of them.

    Writes layer{L}_2d_heatmap and layer{L}_perhead_grid for each, and for several
    captures headgrid-jobs.json, which --resume reads.
    """
    suffix, file = folder.suffix[1:].lower(), None
    if suffix in FORMATS and not folder.is_dir():
        source = click.get_current_context().get_parameter_source("formats")
        if source is ParameterSource.COMMANDLINE and options["formats"] != (suffix,):
            asked = ",".join(options["formats"])
            raise OptionError(
                f"{folder.name} is a file and --format {asked}, expected one of the two"
            )
        file, folder, options["formats"] = folder, folder.parent, (suffix,)
    elif re.fullmatch("[a-z]{3,4}", suffix) and not folder.is_dir():
        raise OptionError(
            f"{folder.name}: suffix is {folder.suffix!r}, expected a folder, or a file that ends "
            f"in .{', .'.join(FORMATS)}{near_miss(suffix, FORMATS)}; if it is a folder, make it "
            "first"
        )
    given = shared.locate_inputs(inputs, jobs, dask)
    _render(given, folder, options, jobs=jobs, dask=dask, resume=resume, file=file)


def _render(
    inputs: Sequence[Path],
    folder: Path,
    options: dict[str, Any],
    *,
    jobs: int | None = None,
    dask: str | None = None,
    resume: bool = False,
    listed: bool = True,
    file: Path | None = None,
) -> None:
    wanted = {name: options.pop(name) for name in ("formats", "names", "ppi", "embed")}
    wanted["options"] = FigureOptions(**options)
    found = None
    least = _SEVERAL if jobs is None else min(jobs, 2)
    if file is not None or dask is not None or (jobs != 1 and _has_files(inputs, least)):
        from headgrid.capture.folders import find_captures

        found = find_captures(inputs)
        if file is not None and (captures := len(found[0]) + len(found[1])) > 1:
            raise OptionError(
                f"{file.name} is one file, but {captures} captures would be drawn, expected one "
                "capture for a file; give a folder"
            )
    jobs = shared.count_jobs(jobs, len(found[0]), least=_SEVERAL) if found else 1
    # Processes start on their own while the inputs are read here.
    with _open_workers(jobs, dask) as workers:
        from headgrid.batch.run import Figures, plan_jobs

        figures = Figures(**wanted)
        plan = plan_jobs(inputs, folder, figures, found=found)
        plan = plan if file is None else _name_one(plan, file)
        for error in plan.failures:
            shared.complain(error)
        if plan.jobs and figures.embed == "assets" and "html" in figures.formats:
            from headgrid.web.assets import write_assets

            shared.show_path(write_assets(folder, executor=next(iter(workers.values()))))
        total = len(plan.jobs) + len(plan.failures)
        listed = listed and (total > 1 or resume)
        with _open_manifest(plan, figures, resume) if listed else nullcontext() as manifest:
            failed = len(plan.failures) + _draw(plan, workers, manifest)
    if failed and total > 1:
        click.echo(f"headgrid: {failed} of {total} inputs failed", err=True)
    shared.stop_if(failed)


def _name_one(plan: Plan, path: Path) -> Plan:
    """Return the plan of one capture with its one figure in a given file."""
    if any(len(job.paths) > 1 for job in plan.jobs):
        raise OptionError(
            f"{path.name} is one file, but both figures of a capture would be drawn; choose one "
            "(--figure), or give a folder"
        )
    format = path.suffix[1:].lower()
    jobs = [replace(job, outputs={n: {format: path} for n in job.outputs}) for job in plan.jobs]
    return replace(plan, jobs=tuple(jobs))


def _has_files(inputs: Sequence[Path], least: int) -> bool:
    """Whether so many files may be meant: it pays to count captures before processes start."""
    below = (name for given in inputs for _, _, names in os.walk(given) for name in names)
    return len(inputs) + sum(1 for _ in islice(below, least)) >= least


@contextmanager
def _open_workers(jobs: int, dask: str | None) -> Iterator[dict[str, Executor]]:
    """Give where whole jobs are drawn, or what those drawn here are rendered by."""
    from headgrid.batch import processes

    if jobs > 1 or dask is not None:
        from headgrid.batch.run import warm_up

        with processes.open_pool(jobs, dask, warm_up=warm_up) as executor:
            yield {"executor": executor}
    else:
        with processes.rendering_process() as renderer:
            yield {"renderer": renderer}


def _open_manifest(plan: Plan, figures: Figures, resume: bool) -> AbstractContextManager[Manifest]:
    """Give the list of finished jobs; it is written however the block ends."""
    from headgrid.batch.manifest import Manifest
    from headgrid.capture.files import remove_leftovers

    if resume:
        parents = {path.parent for job in plan.jobs for path in job.paths}
        remove_leftovers({plan.folder, *parents})
    found = plan.color_range
    range_ = None if found is None else (found.low, found.high)
    return Manifest(plan.folder, "render", figures.to_dict(), color_range=range_, resume=resume)


def _draw(plan: Plan, workers: dict[str, Executor], manifest: Manifest | None) -> int:
    """Draw all jobs, print the files that were written, and return how many failed."""
    from headgrid.batch.run import run_jobs

    failed = unchanged = 0
    with shared.show_progress(len(plan.jobs)) as advance:
        for outcome in run_jobs(plan, manifest=manifest, **workers):
            failed += shared.show_outcome(outcome)
            unchanged += not outcome
            advance(1)
    if unchanged:
        click.echo(f"headgrid: {unchanged} of {len(plan.jobs)} captures are unchanged", err=True)
    return failed
