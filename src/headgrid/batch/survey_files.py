"""A survey -> the tables, maps and figures of its folder."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headgrid.capture.files import write_bytes
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import HeadgridError, HeadgridWarning, RenderError
from headgrid.options import FigureOptions
from headgrid.survey.rows import write_frame, write_tables
from headgrid.text import shorten_list, shorten_text

if TYPE_CHECKING:
    from headgrid.batch.manifest import Manifest
    from headgrid.survey.surveys import Survey

#: What writes the files of a product below a folder, and yields each when it is whole.
_Write = Callable[[Path], Iterator[Path]]


@dataclass(frozen=True)
class Figures:
    """Which figures a survey becomes, and how.

    Attributes
    ----------
    statistics : tuple of str
        Measures that have an overview and a trend of their own; the first is in
        ``overview`` and ``trend``, the others in ``overview_NAME`` and ``trend_NAME``.
    formats : tuple of str
        Formats of each figure.
    options : FigureOptions
        How they are drawn; ``color_range``, resolved, is that of the sheet.
    ppi : float
        Pixels per inch of PNGs.
    """

    statistics: tuple[str, ...] = ("sink",)
    formats: tuple[str, ...] = ("svg",)
    options: FigureOptions = field(default_factory=FigureOptions)
    ppi: float = 300

    @property
    def of_measures(self) -> FigureOptions:
        """Options of the figures of measures, whose values are not those of the sheet."""
        return replace(self.options, color_range="symmetric")


def write_survey(
    survey: Survey,
    folder: Path,
    figures: Figures,
    manifest: Manifest,
    *,
    executor: Executor | None = None,
) -> Iterator[Path | HeadgridError]:
    """Write everything that a survey becomes, and list it in the manifest.

    Parameters
    ----------
    survey : Survey
    folder : Path
        Where the files go.
    figures : Figures
        Which figures.
    manifest : Manifest
        Of that folder. What it knows to be done from the same captures stays; what an
        earlier survey has left there and this one does not make is removed.
    executor : concurrent.futures.Executor, optional
        Where specifications are rendered; by default here.

    Yields
    ------
    Path or HeadgridError
        Each file, when it is written, and what could not be made; that does not
        keep the others from being made. Files that stay as they are do not appear.
    """
    digest = digest_inputs(survey)
    for name, write in _products(survey, figures, executor).items():
        if manifest.is_done(name, digest):
            continue
        written = {}
        try:
            for path in write(folder):
                written[path] = _hash_file(path)
                yield path
        except HeadgridError as error:
            yield error
        else:
            manifest.add(name, digest, written)
    outdated = manifest.remove_outdated()
    if outdated:
        names = shorten_list([path.relative_to(folder).as_posix() for path in outdated])
        warnings.warn(
            f"{folder}: {len(outdated)} files of an earlier survey are not made by this one and "
            f"were removed ({names})",
            HeadgridWarning,
            stacklevel=2,
        )


def digest_inputs(survey: Survey) -> str:
    """Return one digest of all captures of a survey: of what they are called and hold."""
    lines = [[one.place.set, one.place.run, one.layer, one.digest] for one in survey.inputs()]
    return hashlib.sha256(json.dumps(lines).encode("ascii")).hexdigest()


def _products(survey: Survey, figures: Figures, executor: Executor | None) -> Mapping[str, _Write]:
    """Return what is made, in order; each product is whole, or made anew."""
    products: dict[str, _Write] = {
        "statistics": lambda folder: _write_statistics(survey, figures.statistics, folder)
    }
    if any(size > 1 for size in survey.num_runs_of.values()):
        products["maps"] = lambda folder: _write_maps(survey, folder)
    for name, draw in _charts(survey, figures):
        products[name] = _figure_writer(name, draw, figures, executor)
    return products


def _write_statistics(survey: Survey, names: Sequence[str], folder: Path) -> Iterator[Path]:
    yield from write_tables(
        survey.pieces(), folder / "statistics.csv", folder / "statistics.parquet"
    )
    yield write_frame(_head_table(survey, names), folder / "heads.csv")
    yield write_frame(survey.stability(*names), folder / "stability.csv")
    if len(survey.sets) > 1:
        yield write_frame(survey.agreement(*names), folder / "agreement.csv")


def _head_table(survey: Survey, names: Sequence[str]) -> Any:
    """Return mean and spread over runs of each head, of one measure below another."""
    import pandas as pd

    parts = []
    for name in names:
        summary = survey.summary(name)
        heads = summary[summary["head"].notna()].copy()
        heads.insert(3, "measure", name)
        parts.append(heads)
    return pd.concat(parts, ignore_index=True)


def _write_maps(survey: Survey, folder: Path) -> Iterator[Path]:
    from headgrid.capture.store import save_capture

    for (set, layer), capture in survey.captures.items():
        name = Path(set, f"layer{layer}.npz")
        yield save_capture(capture, folder / "mean" / name)
        deviation = survey.deviation(set, layer)
        if deviation is not None:
            yield save_capture(deviation, folder / "deviation" / name)


def _charts(survey: Survey, figures: Figures) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each figure, and what draws it."""
    for name in figures.statistics:
        if has_values(survey, name):
            end = "" if name == figures.statistics[0] else f"_{name}"
            yield f"overview{end}", partial(_draw_overview, survey, name, figures)
            yield f"trend{end}", partial(_draw_trend, survey, name, figures)
    if survey.form.full:
        if len(survey.sets) == 1 or STATISTICS[survey.statistic].has_mean:
            yield "sheet", partial(_draw_sheet, survey, None, figures)
        for set in survey.sets if len(survey.sets) > 1 else ():
            yield f"sheet/{set or '-'}", partial(_draw_sheet, survey, set, figures)


def has_values(survey: Survey, name: str) -> bool:
    """Return whether any head has a value of a measure, so that it can be drawn."""
    return bool(survey.summary(name)["mean"].notna().any())


def _draw_overview(survey: Survey, name: str, figures: Figures) -> Any:
    from headgrid.charts.overview import draw_overview

    return draw_overview(
        survey.summary(name),
        name,
        survey.statistic,
        figures.of_measures,
        layers=survey.layers,
        description=survey.description,
    )


def _draw_trend(survey: Survey, name: str, figures: Figures) -> Any:
    from headgrid.charts.trend import draw_trend

    return draw_trend(
        survey.summary(name),
        name,
        survey.statistic,
        figures.of_measures,
        description=survey.description,
    )


def _draw_sheet(survey: Survey, set: str | None, figures: Figures) -> Any:
    from headgrid.charts.sheet import draw_sheet

    captures = survey.pooled_captures() if set is None else survey.captures_of(set)
    return draw_sheet(
        captures,
        figures.options,
        layers=survey.layers,
        description=survey.description if set is None else f"set {shorten_text(set)}",
    )


def _figure_writer(
    name: str, draw: Callable[[], Any], figures: Figures, executor: Executor | None
) -> _Write:
    from headgrid.charts.spec import to_spec
    from headgrid.render.convert import begin_render

    def write(folder: Path) -> Iterator[Path]:
        try:
            spec = to_spec(draw(), validate=False)
            contents = begin_render(spec, figures.formats, ppi=figures.ppi, executor=executor)()
        except BrokenExecutor:
            raise RenderError(
                f"{name}: the rendering process has died, most likely for want of memory; draw "
                "the sheet's cells as images (--cells image)"
            ) from None
        except HeadgridError as error:
            raise type(error)(f"{name}: {error}") from None
        for format, content in zip(figures.formats, contents, strict=True):
            yield write_bytes(folder / f"{name}.{format}", content)

    return write


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
