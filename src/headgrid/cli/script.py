"""A script or module with arguments -> the same, run in this process as ``__main__``."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from headgrid.errors import HeadgridError, OptionError, RecordError

#: Files whose frames stand between Python and the script.
_OURS = (__file__, runpy.__file__, "<frozen runpy>")


def run_script(script: str, arguments: Sequence[str], *, module: bool = False) -> None:
    """Run a script as Python would, and return when it is done."""
    if not module and not Path(script).is_file():
        raise OptionError(f"{script}: there is no such script; use -m for a module's name")
    argv, path = list(sys.argv), list(sys.path)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path.cwd()) if module else str(Path(script).resolve().parent))
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except (HeadgridError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - the script's own, shown as Python shows it
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        click.echo(f"headgrid: {script} failed, so nothing was written", err=True)
        raise click.exceptions.Exit(1) from None
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise RecordError(
                f"{script} exited with {stop.code!r}, so nothing was written; expected it to "
                "run to its end"
            ) from None
    finally:
        sys.argv, sys.path[:] = argv, path
