"""Arguments -> commands -> exit codes: 0 all good, 1 some input failed, 2 wrong usage."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import click

from headgrid._version import __version__
from headgrid.cli.assets import assets
from headgrid.cli.compare import compare
from headgrid.cli.explore import explore
from headgrid.cli.pick import pick
from headgrid.cli.record import record
from headgrid.cli.render import demo, render
from headgrid.cli.shared import complain, show_warning
from headgrid.cli.stats import stats
from headgrid.cli.survey import survey
from headgrid.errors import HeadgridError, OptionError


class _Stopped(Exception):  # noqa: N818 - no error
    """Ctrl-C, which click would answer with an empty line."""


class _Group(click.Group):
    """A command group that turns errors into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Stopped from None

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **extra, standalone_mode=False)  # type: ignore[call-overload]
        except click.exceptions.Exit as stop:
            code = stop.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except OptionError as error:
            complain(error)
            code = 2
        except HeadgridError as error:
            complain(error)
            code = 1
        except (_Stopped, KeyboardInterrupt, click.Abort):
            after = "\n" if sys.stderr.isatty() else ""  # the terminal's own ^C
            click.echo(f"{after}headgrid: stopped; every file written so far is whole", err=True)
            code = 130
        except BrokenPipeError:
            # The reader of our output has gone; keep Python from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:  # no traceback reaches a user
            if os.environ.get("HEADGRID_DEBUG"):
                raise
            complain(
                f"internal error ({type(error).__name__}: {error}); please report it, with the "
                "output of the same command under HEADGRID_DEBUG=1"
            )
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headgrid")
def main() -> None:
    """Draw transformer attention as vector figures, facetted by head."""
    warnings.showwarning = show_warning  # type: ignore[assignment]


for command in (assets, compare, demo, explore, pick, record, render, stats, survey):
    main.add_command(command)
