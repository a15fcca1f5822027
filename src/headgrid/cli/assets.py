"""Arguments of ``headgrid assets`` -> the script that pages and fragments share."""

from __future__ import annotations

from pathlib import Path

import click

from headgrid.cli.shared import path_option, show_path


@click.command()
@path_option("-o --output folder DIR", "Where the script goes.", required=True)
def assets(folder: Path) -> None:
    """Write the one script that many pages share.

    It holds Vega and draws every headgrid figure of the page that loads it, also
    where the Content-Security-Policy is "default-src 'self'". Prints its path; the
    name holds the version and a hash of the content.
    """
    from headgrid.web.assets import write_assets

    show_path(write_assets(folder))
