"""Chart -> file, its format chosen by suffix, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgrid.errors import OptionError, near_miss
from headgrid.files import write_bytes
from headgrid.options import FORMATS
from headgrid.render import render
from headgrid.spec import ChartLike, to_spec


def save(
    chart: ChartLike | Mapping[str, Any], path: str | os.PathLike[str], *, ppi: float = 300
) -> Path:
    """Write a chart, or a specification, to a file.

    Parameters
    ----------
    chart : altair chart or mapping
        What `heatmap` and `perhead` return, customised or not, or a Vega-Lite
        specification.
    path : path
        Its suffix chooses the format: ``.svg``, ``.png``, ``.pdf`` or ``.json``.
    ppi : float
        Pixels per inch of a PNG.

    Returns
    -------
    Path
        The file written. It is whole, or not there.

    Raises
    ------
    OptionError
        For an unknown suffix.
    RenderError
        Where the chart can not be drawn.
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
    return write_bytes(target, render(to_spec(chart), format, ppi=ppi))
