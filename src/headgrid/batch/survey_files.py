"""A survey -> the tables, maps and figures of its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headgrid.batch.manifest import NAME, Manifest, hash_output, name_inputs
from headgrid.batch.run import warn_all
from headgrid.capture.files import hash_file, remove_leftovers, replace_file, write_bytes
from headgrid.capture.folders import CaptureFile, Place
from headgrid.capture.statistic import STATISTICS
from headgrid.capture.store import save_capture
from headgrid.errors import HeadgridError, RenderError
from headgrid.options import FigureOptions
from headgrid.survey.model import Survey
from headgrid.text import clean_text, shorten_list

#: Folders of the maps over runs.
MAPS = ("mean", "deviation")
#: The job of the manifest that stands for all of them; not there where anything was odd.
_WHOLE = "survey"


@dataclass(frozen=True)
class Target:
    """Where a survey is written, what it becomes there, and whether what is there may stay."""

    folder: Path
    #: Measures with an overview and a trend; of all but the first they are ``overview_NAME``
    #: and ``trend_NAME``.
    statistics: tuple[str, ...]
    formats: tuple[str, ...]
    #: ``color_range`` is that of the sheet.
    options: FigureOptions
    ppi: float = 300
    by: str | None = None
    resume: bool = False

    def open_manifest(self, color_range: Sequence[float]) -> Manifest:
        """Return the list of what was read and made, which is written when it is left."""
        options = asdict(self)
        del options["folder"], options["resume"]
        return Manifest(self.folder, "survey", options, color_range=color_range, resume=self.resume)

    def is_finished(self, files: Sequence[CaptureFile], places: Sequence[Place]) -> bool:
        """Whether nothing has changed since everything was made, without a warning."""
        try:
            color_range = json.loads((self.folder / NAME).read_bytes())["color_range"]
            lines = [
                [clean_text(place.set), clean_text(place.run), file.path.name, hash_file(file.path)]
                for file, place in zip(files, places, strict=True)
            ]
            return self.open_manifest(color_range).find_done(_WHOLE, _digest(lines)) is not None
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return False


def write_survey(
    survey: Survey, target: Target, inputs: Sequence[Path], *, executor: Executor | None = None
) -> Iterator[list[Path] | HeadgridError]:
    """Write all that a survey of inputs becomes, render in an executor, and list it.

    Yields each file that is written, and what could not be made, which does not keep the
    others from being made. What the manifest knows to be done from the same captures stays;
    what an earlier survey has left there and this one does not make is removed.
    """
    folder = target.folder
    range_ = survey.color_range(target.options.color_range)
    drawn = replace(target, options=replace(target.options, color_range=range_))
    if target.resume:
        deeper = [path for name in (*MAPS, "sheet") for path in folder.glob(f"{name}/**/")]
        remove_leftovers([folder, *deeper])
    odd = [*survey.failures, *survey.warnings, *survey.missing, *_warn_of_gaps(survey, target)]
    captures = list(survey.inputs())
    whole = _digest(
        [[one.place.set, one.place.run, Path(one.source).name, one.digest] for one in captures]
    )
    made: dict[Path, str] = {}
    with target.open_manifest((range_.low, range_.high)) as manifest:
        names = name_inputs([Path(one.source) for one in captures], inputs)
        for name, one in zip(names, captures, strict=True):
            manifest.add(name, one.digest, {})
        for name, writing in _products(survey, drawn, executor):
            written = manifest.find_done(name, whole)
            if written is None:
                written = {}
                try:
                    for path in writing:
                        written[path] = hash_output(path)
                        yield [path]
                except HeadgridError as error:
                    odd.append(error)
                    yield error
                    continue
                manifest.add(name, whole, written)
            made |= written
        if not odd:
            manifest.add(_WHOLE, whole, made)
        outdated = manifest.remove_outdated()
    if outdated:
        removed = shorten_list([path.relative_to(folder).as_posix() for path in outdated])
        warn_all(
            f"{folder}: {len(outdated)} files of an earlier survey are not made by this one and "
            f"were removed ({removed})"
        )


def _warn_of_gaps(survey: Survey, target: Target) -> list[str]:
    """Say which figures there will not be."""
    gaps = [
        f"{name} has no value in any head, as the captures hold {survey.statistic}; it is not drawn"
        for name in target.statistics
        if not _has_values(survey, name)
    ]
    if not survey.form.has_matrix:
        gaps.append("the captures hold no full matrix, so there is no sheet")
    warn_all(*gaps)
    return gaps


def _digest(lines: list[list[str]]) -> str:
    """Return one digest of all captures: of what their set, run and file are called and hold."""
    return hashlib.sha256(json.dumps(sorted(lines)).encode("ascii")).hexdigest()


def _products(
    survey: Survey, target: Target, executor: Executor | None
) -> Iterator[tuple[str, Iterator[Path]]]:
    """Yield what is made, and what writes its files when asked for them, each when it is whole."""
    from headgrid.charts.overview import draw_overview, summarise
    from headgrid.charts.sheet import draw_set
    from headgrid.charts.trend import draw_trend

    def figure(name: str, draw: Callable[..., Any], *given: Any, **named: Any) -> tuple[str, Any]:
        made = partial(draw, *given, **named)
        return name, write_figure(target.folder, name, made, target.formats, target.ppi, executor)

    yield "statistics", _write_tables(survey, target.statistics, target.folder)
    if any(size > 1 for size in survey.num_runs_of.values()):
        yield "maps", _write_maps(survey, target.folder)
    # The values of a measure are not those of the sheet.
    options = replace(target.options, color_range="symmetric")
    for name in target.statistics:
        if _has_values(survey, name):
            end = "" if name == target.statistics[0] else f"_{name}"
            drawn = summarise(survey, name), options
            yield figure(f"overview{end}", draw_overview, *drawn, layers=survey.layers)
            yield figure(f"trend{end}", draw_trend, *drawn)
    if survey.form.has_matrix:
        if len(survey.sets) == 1 or STATISTICS[survey.statistic].has_mean:
            yield figure("sheet", draw_set, survey, None, target.options)
        for set in survey.sets if len(survey.sets) > 1 else ():
            yield figure(f"sheet/{set or '-'}", draw_set, survey, set, target.options)


def _write_tables(survey: Survey, names: Sequence[str], folder: Path) -> Iterator[Path]:
    import pandas as pd

    summaries = []
    for name in names:
        summary = survey.summary(name).dropna(subset="head")
        summary.insert(3, "measure", name)
        summaries.append(summary)
    yield write_csv(survey.statistics, folder / "statistics.csv")
    with replace_file(folder / "statistics.parquet") as file:
        survey.statistics.to_parquet(file, index=False, compression="zstd")
    yield folder / "statistics.parquet"
    yield write_csv(pd.concat(summaries, ignore_index=True), folder / "heads.csv")
    yield write_csv(survey.stability(*names), folder / "stability.csv")
    if len(survey.sets) > 1:
        yield write_csv(survey.agreement(*names), folder / "agreement.csv")


def write_csv(table: Any, path: Path) -> Path:
    """Write a table whole, or not at all."""
    with replace_file(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")
    return path


def _write_maps(survey: Survey, folder: Path) -> Iterator[Path]:
    for (set, layer), capture in survey.captures.items():
        name = Path(set, f"layer{layer}.npz")
        yield save_capture(capture, folder / "mean" / name)
        deviation = survey.deviation(set, layer)
        if deviation is not None:
            yield save_capture(deviation, folder / "deviation" / name)


def _has_values(survey: Survey, name: str) -> bool:
    """Return whether any head has a value of a measure, so that it can be drawn."""
    return bool(survey.summary(name)["mean"].notna().any())


def write_figure(
    folder: Path,
    name: str,
    draw: Callable[[], Any],
    formats: Sequence[str],
    ppi: float,
    executor: Executor | None = None,
) -> Iterator[Path]:
    """Draw a figure, write it in all formats, and yield each file; errors name the figure."""
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    try:
        spec = to_spec(draw(), validate=False)
        contents = begin_save(spec, formats, ppi=ppi, executor=executor)()
    except (BrokenExecutor, HeadgridError) as error:
        kind = type(error) if isinstance(error, HeadgridError) else RenderError
        raise kind(f"{name}: {error}") from None
    for format, content in zip(formats, contents, strict=True):
        yield write_bytes(folder / f"{name}.{format}", content)
