"""Arguments -> calls -> exit codes: 0 all good, 1 some input failed, 2 wrong usage."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from headgrid import __version__
from headgrid.commands.assets import assets
from headgrid.errors import HeadgridError, HeadgridWarning, OptionError
from headgrid.recorder.command import record

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from headgrid.batch import Plan

#: Captures from which a second engine, half a second to start, pays.
_SECOND_ENGINE_FROM = 6


class _Path(click.Path):
    """A path that is not empty: an empty one would silently mean this folder."""

    def convert(self, value: Any, *context: Any) -> Any:
        if value == "":
            raise OptionError("a path is empty, expected a file or a folder; write . for this one")
        return super().convert(value, *context)


_INPUTS = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=_Path())


class _Group(click.Group):
    """A command group that turns errors into one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.pop("standalone_mode", True):
            return super().main(*args, **extra, standalone_mode=False)  # type: ignore[call-overload]
        try:
            code = super().main(*args, **extra, standalone_mode=False)  # type: ignore[call-overload]
        except click.exceptions.Exit as stop:
            code = stop.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except OptionError as error:
            _complain(error)
            code = 2
        except HeadgridError as error:
            _complain(error)
            code = 1
        except (KeyboardInterrupt, click.Abort):
            click.echo("headgrid: stopped; every file written so far is whole", err=True)
            code = 130
        except BrokenPipeError:
            # The reader of our output has gone; keep Python from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:  # no traceback reaches a user
            if os.environ.get("HEADGRID_DEBUG"):
                raise
            _complain(
                f"internal error ({type(error).__name__}: {error}); please report it, with the "
                "output of the same command under HEADGRID_DEBUG=1"
            )
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headgrid")
def main() -> None:
    """Draw transformer attention as vector figures, facetted by head."""
    warnings.showwarning = _show_warning


def _figure_options(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "--format",
            "formats",
            default="svg",
            show_default=True,
            metavar="LIST",
            help="Any of svg,png,pdf,html,json, separated by commas.",
        ),
        click.option(
            "--ppi", type=float, default=300, show_default=True, help="Pixels per inch of a PNG."
        ),
        click.option(
            "--embed",
            default="inline",
            show_default=True,
            metavar="inline|cdn|assets",
            help="Where an HTML page has Vega from: inside; a CDN, pinned by hashes; or one script "
            "in DIR that all pages share.",
        ),
        click.option(
            "--figure",
            "figures",
            multiple=True,
            metavar="heatmap|perhead",
            help="Which figure; both by default.",
        ),
        click.option(
            "--columns", type=int, default=4, show_default=True, help="Panels in a row of the grid."
        ),
        click.option(
            "--palette", default="rdbu", show_default=True, metavar="rdbu|custom", help="Colours."
        ),
        click.option(
            "--color-range",
            default="symmetric",
            show_default=True,
            metavar="RULE|LO,HI",
            help="symmetric around zero; shared: symmetric over all inputs, so that layers "
            "compare; minmax: white stays at zero; or two numbers.",
        ),
        click.option(
            "--cells",
            default="auto",
            show_default=True,
            metavar="auto|vector|image",
            help="Heatmap cells as vector shapes, or as one PNG tile per head.",
        ),
        click.option(
            "--title",
            default=None,
            metavar="TEXT",
            help="Title; {layer}, {run} and {prompt} are filled in.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


main.add_command(assets)
main.add_command(record)


@main.command()
@click.option(
    "-o",
    "--output",
    "folder",
    default="headgrid-demo",
    show_default=True,
    metavar="DIR",
    type=_Path(path_type=Path),
    help="Where the figures go.",
)
@click.option(
    "--real",
    is_flag=True,
    help="A layer recorded from a pretrained sentence encoder, in place of synthetic ones.",
)
@_figure_options
def demo(folder: Path, *, real: bool, **options: Any) -> None:
    """Draw both figures of the captures that come with headgrid."""
    from headgrid.demo import REAL_TITLE, TITLE, demo_folder

    if options["title"] is None:
        options["title"] = REAL_TITLE if real else TITLE
    with demo_folder(real=real) as inputs:
        _render([inputs], folder, **options)


@main.command()
@_INPUTS
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    type=_Path(path_type=Path),
    help="Where the figures go; each input's folders are mirrored there.",
)
@_figure_options
def render(inputs: tuple[str, ...], folder: Path, **options: Any) -> None:
    """Draw captures: files (.pt, .npz, .safetensors), or folders of them.

    Writes layer{L}_2d_heatmap and layer{L}_perhead_grid for each.
    """
    _render(inputs, folder, **options)


@main.command()
@_INPUTS
@click.option(
    "--format",
    "format",
    default="text",
    show_default=True,
    metavar="text|csv|json",
    help="For people, or for machines.",
)
def stats(inputs: tuple[str, ...], format: str) -> None:
    """Print the statistics of captures: diagonal and first-key means, and each head's sink."""
    from headgrid.batch import read_capture
    from headgrid.errors import check_choice
    from headgrid.report import REPORTS
    from headgrid.store import find_captures

    write = REPORTS[check_choice("format", format, REPORTS)]
    files, failures = find_captures(inputs)
    captures = []
    errors: list[HeadgridError] = [*failures]
    for file in files:
        try:
            captures.append(read_capture(file))
        except HeadgridError as error:
            errors.append(error)
    for text in write(captures):
        click.echo(text, nl=False)
    _exit_with(errors)


def _render(
    inputs: Sequence[str | Path],
    folder: Path,
    *,
    formats: str,
    ppi: float,
    embed: str,
    figures: Sequence[str],
    columns: int,
    palette: str,
    color_range: str,
    cells: str,
    title: str | None,
) -> None:
    from headgrid.errors import check_choice
    from headgrid.options import EMBEDS, FIGURES, FigureOptions
    from headgrid.scales import parse_color_range

    options = FigureOptions(
        columns=columns,
        palette=palette,  # type: ignore[arg-type]
        color_range=parse_color_range(color_range),
        cells=cells,  # type: ignore[arg-type]
        title=title,
    )
    chosen = _check_list("figure", figures or FIGURES, FIGURES)
    listed = _check_formats(formats)
    check_choice("embed", embed, EMBEDS)
    if not 1 <= ppi <= 2400:
        raise OptionError(f"ppi is {ppi:g}, expected 1 to 2400")

    from headgrid.workers import Alternating, rendering_process

    # The engine starts in its own process while pandas and altair are imported here.
    with ExitStack() as stack:
        executor: Executor = stack.enter_context(rendering_process())

        from headgrid.batch import plan_jobs

        plan = plan_jobs(inputs, folder, formats=listed, figures=chosen, options=options)
        if len(plan.jobs) >= _SECOND_ENGINE_FROM and (os.cpu_count() or 1) > 1:
            executor = Alternating([executor, stack.enter_context(rendering_process())])
        shared = folder if embed == "assets" and "html" in listed else None
        if shared is not None and plan.jobs:
            from headgrid.assets import write_assets

            click.echo(str(write_assets(shared, executor=executor)))
        _run(plan, executor, ppi=ppi, embed=embed, shared=shared)


def _run(plan: Plan, executor: Executor, **options: Any) -> None:
    from headgrid.batch import run_jobs

    errors: list[HeadgridError] = list(plan.failures)
    for error in errors:
        _complain(error)
    with _progress(len(plan.jobs)) as advance:
        for _, outcome in run_jobs(plan, executor=executor, **options):
            if isinstance(outcome, HeadgridError):
                errors.append(outcome)
                _complain(outcome)
            else:
                for path in outcome:
                    click.echo(str(path))
            advance()
    if errors:
        total = len(plan.jobs) + len(plan.failures)
        if total > 1:
            click.echo(f"headgrid: {len(errors)} of {total} inputs failed", err=True)
        raise click.exceptions.Exit(1)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, and nothing in a pipe."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("drawing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("drawing", total=total)
        yield lambda: progress.advance(task)


def _check_formats(text: str) -> tuple[str, ...]:
    from headgrid.options import FORMATS

    return _check_list("format", [part.strip().lower() for part in text.split(",")], FORMATS)


def _check_list(name: str, found: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    from headgrid.errors import check_choice

    return tuple(dict.fromkeys(check_choice(name, entry, choices) for entry in found))


def _exit_with(errors: Sequence[HeadgridError]) -> None:
    for error in errors:
        _complain(error)
    if errors:
        raise click.exceptions.Exit(1)


def _complain(error: object) -> None:
    click.echo(f"headgrid: {_one_line(error)}", err=True)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, HeadgridWarning):
        click.echo(f"headgrid: warning: {_one_line(message)}", err=True)
