"""Arguments -> checked values; errors and progress -> lines: what commands have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from headgrid.errors import HeadgridError, HeadgridWarning, OptionError, check_choice
from headgrid.options import parse_color_range
from headgrid.text import clean_text

if TYPE_CHECKING:
    from headgrid.options import FigureOptions

Command = TypeVar("Command", bound=Callable[..., Any])


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


def output_option(text: str, **options: Any) -> Callable[[Command], Command]:
    """Return the option for the folder that a command writes to."""
    return click.option(
        "-o",
        "--output",
        "folder",
        metavar="DIR",
        type=PathType(path_type=Path),
        help=text,
        **options,
    )


def style_options(command: Command) -> Command:
    """Add the options that say how figures are drawn; `make_options` reads them."""
    options = [
        _option("--columns", "INTEGER", "Panels in a row of the grid.", 4, type=int),
        _option("--palette", "rdbu|custom", "Colours.", "rdbu"),
        _option(
            "--color-range",
            "RULE|LO,HI",
            "symmetric around zero; shared: symmetric over all inputs, so that layers compare; "
            "quantile: the same without the outermost 1 % of all values; minmax: white stays at "
            "zero; or two numbers.",
            "symmetric",
        ),
        _option(
            "--cells",
            "auto|vector|image",
            "Heatmap cells as vector shapes, or as one PNG tile per head.",
            "auto",
        ),
        _option("--title", "TEXT", "Title; {layer}, {run} and {prompt} are filled in."),
        _option(
            "--theme",
            "default|paper",
            "paper: small text, hairlines, labels inside the panels, axes at the border.",
            "default",
        ),
        _option("--font", "sans|serif", "Typeface.", "sans"),
        _option(
            "--width",
            "LENGTH",
            "Exact width of the figure, such as 13.97cm, 140mm, 5.5in or 396pt.",
        ),
    ]
    return _add(options, command)


def figure_options(command: Command) -> Command:
    """Add the options of the two figures of a capture."""
    figure = click.option(
        "--figure",
        "figures",
        multiple=True,
        metavar="heatmap|perhead",
        help="Which figure; both by default.",
    )
    return _add([format_option, ppi_option, embed_option, figure], style_options(command))


def run_options(command: Command) -> Command:
    """Add the options that say where work is done, and whether what is done is kept."""
    jobs = "Processes that work at the same time; one per core where that pays."
    dask = "Work on a running dask cluster, such as tcp://host:8786, that sees the same files."
    resume = "Leave what an earlier run has finished, if its input and the options are unchanged."
    options = [
        click.option("-j", "--jobs", type=int, metavar="N", help=jobs),
        _option("--dask", "ADDRESS", dask),
        click.option("--resume", is_flag=True, help=resume),
    ]
    return _add(options, command)


def _option(
    name: str, metavar: str, text: str, default: Any = None, **more: Any
) -> Callable[[Command], Command]:
    shown = default is not None
    return click.option(
        name, metavar=metavar, help=text, default=default, show_default=shown, **more
    )


format_option = click.option(
    "--format",
    "formats",
    default="svg",
    show_default=True,
    metavar="LIST",
    help="Any of svg,png,pdf,html,json, separated by commas.",
)
ppi_option = _option("--ppi", "FLOAT", "Pixels per inch of a PNG.", 300, type=float)
embed_option = _option(
    "--embed",
    "inline|cdn|assets",
    "Where an HTML page has Vega from: inside; a CDN, pinned by hashes; or one script in DIR "
    "that all pages share.",
    "inline",
)


def _add(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def check_formats(text: str) -> tuple[str, ...]:
    """Return the formats that a text with commas lists, each once."""
    from headgrid.options import FORMATS

    return check_list("format", [part.strip().lower() for part in text.split(",")], FORMATS)


def check_list(name: str, found: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Return the choices that were made, each once; an unknown one is refused."""
    return tuple(dict.fromkeys(check_choice(name, entry, choices) for entry in found))


def check_ppi(ppi: float) -> float:
    """Return a resolution that a PNG can have; refuse another one."""
    if not 1 <= ppi <= 2400:
        raise OptionError(f"ppi is {ppi:g}, expected 1 to 2400")
    return ppi


def check_run(jobs: int | None, dask: str | None) -> None:
    """Refuse a number of processes that can not be, and one beside a cluster."""
    from headgrid.batch.processes import check_jobs

    if jobs is not None:
        check_jobs(jobs)
        if dask is not None:
            raise OptionError(
                f"--jobs is {jobs} and --dask {dask!r}, expected one of the two: a cluster has its "
                "own number of workers"
            )


def count_jobs(jobs: int | None, work: int, *, least: int) -> int:
    """Return how many processes to start: one per core, but one alone below ``least`` of work."""
    if jobs is None:
        several = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if several else os.cpu_count() or 1
        jobs = cores if work >= least else 1
    return max(1, min(jobs, work))


def locate_inputs(inputs: Sequence[str], dask: str | None) -> list[Path]:
    """Return the inputs as paths; whole ones for a cluster, which works in another folder."""
    return [Path(given) if dask is None else Path(given).absolute() for given in inputs]


def make_options(*, color_range: str, **style: Any) -> FigureOptions:
    """Return the options of figures as `style_options` has read them."""
    from headgrid.options import FigureOptions

    return FigureOptions(color_range=parse_color_range(color_range), **style)


@contextmanager
def show_progress(
    total: int, doing: str = "drawing", unit: str = "captures"
) -> Iterator[Callable[[], None]]:
    """Show a bar with count, rate and remaining time on a terminal, and nothing in a pipe.

    Gives what to call after each of ``total`` pieces of work.
    """
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich import progress as bars
    from rich.console import Console
    from rich.text import Text

    class RateColumn(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g} {unit}/s")

    console = Console(stderr=True)
    columns = (doing, bars.BarColumn(), bars.MofNCompleteColumn(), RateColumn())
    # What is printed meanwhile goes through the bar, but never from a pipe to the terminal.
    redirect = sys.stdout.isatty()
    with bars.Progress(
        *columns,
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=redirect,
    ) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda: progress.advance(task)


def exit_with(errors: Sequence[HeadgridError]) -> None:
    """Print errors and end with exit code 1, if there are any."""
    for error in errors:
        complain(error)
    if errors:
        stop(1)


def stop(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise click.exceptions.Exit(code)


def complain(error: object) -> None:
    """Print an error on one line of stderr."""
    click.echo(f"headgrid: {_one_line(error)}", err=True)


def warn(text: object) -> None:
    """Print a warning on one line of stderr."""
    click.echo(f"headgrid: warning: {_one_line(text)}", err=True)


def show_path(path: Path) -> None:
    """Print the name of a file that was written, on one line that every terminal can show."""
    click.echo(clean_text(str(path)).replace("\n", "\u240a"))


def _one_line(text: object) -> str:
    return clean_text(" ".join(str(text).split()))


def show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print a warning of ours on one line of stderr; takes the place of `warnings.showwarning`."""
    if issubclass(category, HeadgridWarning):
        warn(message)
