"""Arguments -> commands -> exit codes: 0 all good, 1 some input failed, 2 wrong usage."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Any

import click

from headgrid._version import __version__
from headgrid.cli.assets import assets
from headgrid.cli.budget import budget
from headgrid.cli.compare import compare
from headgrid.cli.explore import explore
from headgrid.cli.pick import pick
from headgrid.cli.record import record
from headgrid.cli.render import demo, render
from headgrid.cli.roles import roles
from headgrid.cli.shared import complain, show_warning
from headgrid.cli.stats import stats
from headgrid.cli.survey import survey
from headgrid.errors import HeadgridError, OptionError, explain
from headgrid.text import shorten_text


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
        except HeadgridError as error:
            complain(error)
            code = 2 if isinstance(error, OptionError) else 1
        except (_Stopped, KeyboardInterrupt, click.Abort):
            after = "\n" if sys.stderr.isatty() else ""  # the terminal's own ^C
            click.echo(f"{after}headgrid: stopped; every file written so far is whole", err=True)
            code = 130
        except BrokenPipeError:
            _close_output()  # its reader has gone
            code = 1
        except Exception as error:  # no traceback reaches a user
            if os.environ.get("HEADGRID_DEBUG"):
                raise
            complain(_explain(error))
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _close_output() -> None:
    """Keep Python from complaining at exit of what it can not write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> str:
    """Return what an error means to the user that came up where nobody foresaw it."""
    reason = getattr(error, "strerror", None)
    if isinstance(error, OSError) and error.filename is not None:
        where = shorten_text(str(error.filename), 80)
        return f"{where}: can not be used ({reason}), expected another path; choose a shorter one"
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return f"the working folder can not be used ({reason}); go to one that is there"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        _close_output()
        return f"standard output can not be written ({reason}), expected a place that has room"
    return str(explain("this command", error))


@click.group(
    cls=_Group,
    commands=[assets, budget, compare, demo, explore, pick, record, render, roles, stats, survey],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="headgrid")
def main() -> None:
    """Draw transformer attention as vector figures, facetted by head."""
    warnings.showwarning = show_warning  # type: ignore[assignment]
