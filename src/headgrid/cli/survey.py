"""``headgrid survey`` -> tables, maps and figures of many captures in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli import shared
from headgrid.cli.shared import option
from headgrid.errors import CaptureError, HeadgridError, OutputError, check_choice
from headgrid.options import COLOR_RULES, FigureOptions, parse_color_range
from headgrid.text import clean_text, count_noun, shorten_text

if TYPE_CHECKING:
    from headgrid.capture.folders import CaptureFile
    from headgrid.survey.model import Survey

#: Heads that are named at the end.
_NAMED = 5


@click.command()
@shared.inputs_argument
@shared.path_option("-o --output folder DIR", "Where tables, maps and figures go.", required=True)
@option(
    "--by set",
    "Compare sets, the folders above the runs, side by side: also a single input's own.",
    check=lambda by: check_choice("by", by, ["set"]),
)
@option(
    "--statistic statistics NAME",
    "One more measure to draw and compare, beside the sink score: a column of statistics.csv.",
    multiple=True,
    words=shared.measure_names,
)
@shared.format_option
@shared.ppi_option
@option(
    "--color-range RULE|LO,HI",
    "Of the sheet, over all values of all inputs. quantile: symmetric, without the outermost "
    "1 % of them; symmetric or shared: the largest magnitude; minmax; or two numbers.",
    "quantile",
    check=parse_color_range,
    words=lambda: COLOR_RULES,
)
@shared.palette_option
@option("--theme default|paper", "Look.", "default")
@option(
    "--cells auto|vector|image",
    "The sheet's cells as vector shapes, or as one PNG tile per head.",
    "auto",
)
@shared.width_option
@shared.run_options
def survey(
    inputs: tuple[str, ...],
    folder: Path,
    *,
    by: str | None,
    statistics: tuple[str, ...],
    formats: tuple[str, ...],
    ppi: float,
    jobs: int | None,
    dask: str | None,
    resume: bool,
    **style: Any,
) -> None:
    """Look at many captures together: layers, heads, runs and sets.

    Writes statistics.csv and .parquet, heads.csv, stability.csv, overview, trend and
    sheet; for several runs mean/ and deviation/; for several sets agreement.csv.
    Folders are SET/RUN/layer0.pt or RUN/layer0.pt.
    """
    from headgrid.batch import processes
    from headgrid.batch.survey_files import Target, write_survey
    from headgrid.capture.folders import place_captures
    from headgrid.tables.measures import MEASURES

    given = shared.locate_inputs(inputs, jobs, dask)
    measures = shared.check_list("statistic", ["sink", *statistics], tuple(MEASURES))
    target = Target(folder, measures, formats, FigureOptions(**style), ppi, by, resume)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a folder; choose another one")
    files, errors = shared.find_files(given)
    files = _leave_out_own(files, folder)
    places = place_captures(files, by="set" if by else None)
    if resume and not errors and target.is_finished(files, places):
        return
    found = shared.read_survey(files, errors, places, jobs, dask)
    with processes.rendering_process() as executor:
        outcomes = write_survey(found, target, given, executor=executor)
        failed = _show_files(folder, outcomes)
    for line in _name_heads(found):
        click.echo(line)
    shared.stop_if(failed or found.failures)


def _show_files(folder: Path, outcomes: Iterable[Sequence[Path] | HeadgridError]) -> bool:
    """Print the files in a folder, and of folders below it how many; return whether any failed."""
    failed, deeper = False, Counter[Path]()
    for outcome in outcomes:
        if not isinstance(outcome, HeadgridError) and outcome[0].parent != folder:
            deeper[folder / outcome[0].relative_to(folder).parts[0]] += len(outcome)
        else:
            failed |= shared.show_outcome(outcome)
    for path, count in deeper.items():
        click.echo(f"{clean_text(str(path))}: {count_noun(count, 'file')}")
    return failed


def _name_heads(found: Survey) -> Iterator[str]:
    """Yield which heads have the strongest sinks, and which change most from run to run."""
    from headgrid.capture.statistic import STATISTICS

    heads = found.summary("sink").dropna(subset="head")
    heads["name"] = [
        f"{shorten_text(set, 40)}{' ' if set else ''}L{layer} H{head}"
        for set, layer, head in zip(heads["set"], heads["layer"], heads["head"], strict=True)
    ]
    runs = f", mean over {found.num_runs} runs" if found.num_runs > 1 else ""
    for column, title in (
        ("mean", f"strongest sinks ({STATISTICS[found.statistic].unit}{runs})"),
        ("std", "least stable heads (sink score, standard deviation over runs)"),
    ):
        largest = heads[heads[column] > 0].nlargest(_NAMED, column)
        named = zip(largest["name"], largest[column], strict=True)
        if len(largest):
            yield f"{title}: {', '.join(f'{name} {value:.3g}' for name, value in named)}"


def _leave_out_own(files: Sequence[CaptureFile], folder: Path) -> list[CaptureFile]:
    """Leave out maps that an earlier survey has written below inputs, if they are not inputs."""
    from headgrid.batch.survey_files import MAPS

    own = [(folder / name).resolve() for name in MAPS]

    def is_own(file: CaptureFile) -> bool:
        path, root = file.path.resolve(), file.root.resolve()
        return any(path.is_relative_to(maps) and not root.is_relative_to(maps) for maps in own)

    kept = [file for file in files if not is_own(file)]
    if not kept:
        raise CaptureError(
            f"{files[0].root}: holds no capture but those that a survey has written into {folder}, "
            "expected the captures that it was made of"
        )
    return kept
