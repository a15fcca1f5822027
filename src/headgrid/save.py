"""Chart -> file, its format chosen by suffix, written atomically."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgrid.errors import OptionError, OutputError, near_miss
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


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file so that it is whole or not there, making its folder where needed.

    Raises
    ------
    OutputError
        Where that is not possible; no temporary file stays.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: can not be written ({error.strerror or error}), expected a folder that "
            "can be written to; choose another one"
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
    return path


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
