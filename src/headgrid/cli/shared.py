"""Arguments -> checked values; errors and progress -> lines: what commands have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid import options
from headgrid.errors import HeadgridError, HeadgridWarning, OptionError, check_choice
from headgrid.text import clean_text

if TYPE_CHECKING:
    from headgrid.capture.folders import CaptureFile, Place
    from headgrid.capture.model import Capture
    from headgrid.survey.model import Survey

Decorator = Callable[[Any], Any]


class PathType(click.Path):
    """A path that is not empty: an empty one would silently mean this folder."""

    def convert(self, value: Any, *context: Any) -> Any:
        """Return the path."""
        if value == "":
            raise OptionError("a path is empty, expected a file or a folder; write . for this one")
        return super().convert(value, *context)


#: The files and folders that a command reads.
inputs_argument = click.argument(
    "inputs", nargs=-1, required=True, metavar="INPUT...", type=PathType()
)


def option(
    spec: str,
    text: str,
    default: Any = None,
    *,
    check: Callable[[Any], Any] | None = None,
    words: Callable[[], Iterable[str]] | None = None,
    **more: Any,
) -> Decorator:
    """Return an option of ``--name METAVAR``; ``check`` makes its value, or refuses it.

    A shell completes ``words``, or those of a metavar ``one|other``.
    """
    *names, metavar = spec.split()
    known = [word for word in metavar.split("|") if word.islower()]
    if "type" not in more and (words or known):
        more["shell_complete"] = lambda _, __, typed: _complete(typed, words() if words else known)
    if default is not None:
        more |= {"default": default, "show_default": True}
    if check is not None:
        more["callback"] = lambda _, __, value: None if value is None else check(value)
    return click.option(*names, metavar=metavar, help=text, **more)


def _complete(typed: str, words: Iterable[str]) -> list[str]:
    """Return what the word that is being typed, the last of a list, may become."""
    before, comma, begun = typed.rpartition(",")
    return [f"{before}{comma}{word}" for word in words if word.startswith(begun)]


def measure_names() -> Iterable[str]:
    """Return the names of all measures."""
    from headgrid.tables.measures import MEASURES

    return MEASURES


def path_option(spec: str, text: str, default: Any = None, **more: Any) -> Decorator:
    """Return an option whose value is a path."""
    return option(spec, text, default, type=PathType(path_type=Path), **more)


def add(*decorators: Decorator) -> Decorator:
    """Return one decorator for many; the help shows options in their order."""
    return lambda command: reduce(lambda made, one: one(made), reversed(decorators), command)


def check_list(name: str, found: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Return the choices that were made, each once; an unknown one is refused."""
    return tuple(dict.fromkeys(check_choice(name, entry, choices) for entry in found))


def _check_ppi(ppi: float) -> float:
    if not 1 <= ppi <= 2400:
        raise OptionError(f"ppi is {ppi:g}, expected 1 to 2400")
    return ppi


def _check_jobs(jobs: int) -> int:
    if not 1 <= jobs <= 1024:  # more are a slip of the keyboard
        raise OptionError(f"jobs is {jobs}, expected a whole number, 1 to 1024")
    return jobs


format_option = option(
    "--format formats LIST",
    "Any of svg,png,pdf,html,json, separated by commas.",
    "svg",
    check=lambda text: check_list(
        "format", [part.strip().lower() for part in text.split(",")], options.FORMATS
    ),
    words=lambda: options.FORMATS,
)
ppi_option = option("--ppi FLOAT", "Pixels per inch of a PNG.", 300, type=float, check=_check_ppi)
palette_option = option("--palette rdbu|custom", "Colours.", "rdbu")
width_option = option(
    "--width LENGTH", "Exact width of each figure, such as 13.97cm, 140mm, 5.5in or 396pt."
)

#: How figures are drawn: the fields of `FigureOptions`.
style_options = add(
    option("--columns INTEGER", "Panels in a row of the grid.", 4, type=int),
    palette_option,
    option(
        "--color-range RULE|LO,HI",
        "symmetric around zero; shared: symmetric over all inputs, so that layers compare; "
        "quantile: the same without the outermost 1 % of all values; minmax: white stays at "
        "zero; log: decades, of masses; head: each head on its own scale; or two numbers.",
        "symmetric",
        check=options.parse_color_range,
        words=lambda: options.COLOR_RULES,
    ),
    option(
        "--cells auto|vector|image",
        "Heatmap cells as vector shapes, or as one PNG tile per head.",
        "auto",
    ),
    option("--title TEXT", "Title; {layer}, {run} and {prompt} are filled in."),
    option(
        "--theme default|paper",
        "paper: small text, hairlines, labels inside the panels, axes at the border.",
        "default",
    ),
    option("--font sans|serif", "Typeface.", "sans"),
    width_option,
)
#: Of figures with profiles.
profile_options = add(
    option(
        "--value-axis independent|shared",
        "A value axis for each profile, or one for all; by default what the figure has.",
    ),
    option(
        "--marks LIST",
        "Thin lines at these frames, as in 3,10-12, and with blocks at the borders of blocks.",
        check=lambda text: options.read_numbers("marks", text, (options.BLOCKS,)),
    ),
)
#: The figures of a capture, and how they are drawn.
figure_options = add(
    format_option,
    ppi_option,
    option(
        "--embed inline|cdn|assets",
        "Where an HTML page has Vega from: inside; a CDN, pinned by hashes; or one script in DIR "
        "that all pages share.",
        "inline",
        check=lambda embed: check_choice("embed", embed, options.EMBEDS),
    ),
    option(
        "--figure names heatmap|perhead",
        "Which figure; both by default.",
        multiple=True,
        check=lambda names: check_list("figure", names or options.FIGURES, options.FIGURES),
    ),
    style_options,
    profile_options,
    option(
        "--heads LIST",
        "Only these heads, as in 0,3,7-9.",
        check=lambda text: options.read_numbers("heads", text),
    ),
    click.option("--sums", is_flag=True, help="Of masses: the sum of each row beside a map."),
)
jobs_option = option(
    "-j --jobs N",
    "Processes that work at the same time; one per core where that pays.",
    type=int,
    check=_check_jobs,
)
#: Where work is done, and whether what is done is kept.
run_options = add(
    jobs_option,
    option(
        "--dask ADDRESS",
        "Work on a running dask cluster, such as tcp://host:8786, that sees the same files.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Leave what an earlier run has finished, if its input and the options are unchanged; "
        "of PDFs, whose bytes differ each time, only that they are there counts.",
    ),
)


def locate_inputs(inputs: Sequence[str], jobs: int | None, dask: str | None) -> list[Path]:
    """Return the inputs as paths; whole ones for a cluster, which works in another folder."""
    if jobs is not None and dask is not None:
        raise OptionError(
            f"--jobs is {jobs} and --dask {dask!r}, expected one of the two: a cluster has its "
            "own number of workers"
        )
    return [Path(given) if dask is None else Path(given).absolute() for given in inputs]


def count_jobs(jobs: int | None, work: int, *, least: int) -> int:
    """Return how many processes to start: one per core, but one alone below ``least`` of work."""
    if jobs is None:
        several = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if several else os.cpu_count() or 1
        jobs = cores if work >= least else 1
    return max(1, min(jobs, work))


def find_files(inputs: Sequence[str | Path]) -> tuple[list[CaptureFile], list[HeadgridError]]:
    """Return the captures below the inputs, and what is wrong with those, which is printed."""
    from headgrid.capture.folders import find_captures

    files, errors = find_captures(inputs)
    for error in errors:
        complain(error)
    stop_if(not files)
    return files, [*errors]


def read_file(file: CaptureFile) -> Capture:
    """Read a capture, and print its warnings."""
    from headgrid.capture.store import read_capture

    capture, _ = read_capture(file)
    for text in capture.warnings:
        warn(text)
    return capture


def read_survey(
    files: Sequence[CaptureFile],
    errors: Sequence[HeadgridError],
    places: Sequence[Place] | None = None,
    jobs: int | None = None,
    dask: str | None = None,
) -> Survey:
    """Read many captures, print what is wrong with them, and return what they are together."""
    from headgrid.batch.processes import open_pool
    from headgrid.capture.folders import place_captures
    from headgrid.survey.read import read_files, survey_tally

    # One process reads some hundred files in the time that several need to start.
    jobs = count_jobs(jobs, len(files), least=400)
    with (
        open_pool(jobs, dask) if jobs > 1 or dask is not None else nullcontext() as executor,
        show_progress(len(files), "reading", "files") as advance,
    ):
        places = place_captures(files) if places is None else places
        tally = read_files(files, places, executor=executor, advance=advance)
    for failure in tally.failures:
        complain(failure)
    found = survey_tally(tally, errors)
    for text in (*found.warnings, *found.missing):
        warn(text)
    return found


@contextmanager
def show_progress(
    total: int, doing: str = "drawing", unit: str = "captures"
) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing in a pipe; give what to call with work that is done."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich import progress as bars
    from rich.console import Console
    from rich.text import Text

    class RateColumn(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g} {unit}/s")

    with bars.Progress(
        *(doing, bars.BarColumn(), bars.MofNCompleteColumn(), RateColumn()),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # What is printed meanwhile goes through the bar, but never from a pipe to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.advance(task, done)


def stop_if(failed: object) -> None:
    """End the command with exit code 1 where something has failed, which is told already."""
    if failed:
        raise click.exceptions.Exit(1)


def complain(error: object) -> None:
    """Print an error on one line of stderr."""
    click.echo(f"headgrid: {clean_text(' '.join(str(error).split()))}", err=True)


def warn(text: object) -> None:
    """Print a warning on one line of stderr."""
    complain(f"warning: {text}")


def show_path(path: Path) -> None:
    """Print the name of a file that was written, on one line that every terminal can show."""
    click.echo(clean_text(str(path)).replace("\n", "\u240a"))


def show_outcome(outcome: Sequence[Path] | HeadgridError) -> bool:
    """Print the files that were written, or what went wrong; return whether that is so."""
    if isinstance(outcome, HeadgridError):
        complain(outcome)
        return True
    for path in outcome:
        show_path(path)
    return False


def show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print a warning of ours on one line of stderr; takes the place of `warnings.showwarning`."""
    if issubclass(category, HeadgridWarning):
        warn(message)
