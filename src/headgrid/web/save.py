"""Chart -> file, its format chosen by suffix, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgrid.capture.files import write_bytes
from headgrid.charts.spec import ChartLike, to_spec
from headgrid.errors import OptionError, near_miss
from headgrid.options import FORMATS, EmbedName
from headgrid.render.convert import render
from headgrid.web.assets import write_assets


def save(
    chart: ChartLike | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    ppi: float = 300,
    embed: EmbedName = "inline",
) -> Path:
    """Write a chart, or a specification, to a file.

    Parameters
    ----------
    chart : altair chart or mapping
        What `heatmap` and `perhead` return, customised or not, or a Vega-Lite
        specification.
    path : path
        Its suffix chooses the format: ``.svg``, ``.png``, ``.pdf``, ``.html`` or
        ``.json``.
    ppi : float
        Pixels per inch of a PNG.
    embed : {"inline", "cdn", "assets"}
        Where an HTML page has Vega from. ``inline``: it stands in the page, which
        needs nothing else (0.9 MB). ``cdn``: the page loads exact versions and checks
        them by their hashes. ``assets``: a script beside the page that all pages of
        a folder share, and which is written along with it.

    Returns
    -------
    Path
        The file written. It is whole, or not there.

    Raises
    ------
    OptionError
        For an unknown suffix or ``embed``.
    RenderError
        Where the chart can not be drawn, or asks for something outside itself.
    OutputError
        Where the file can not be written.
    """
    target = Path(path)
    format = target.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise OptionError(
            f"{target.name}: suffix is {target.suffix!r}, expected one of "
            f"{', '.join('.' + name for name in FORMATS)}{near_miss(format, FORMATS)}"
        )
    spec = to_spec(chart)
    content = render(spec, format, ppi=ppi, embed=embed)
    if format == "html" and embed == "assets":
        write_assets(target.parent, schema=str(spec.get("$schema", "")))
    return write_bytes(target, content)
