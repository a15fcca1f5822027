"""Chart -> contents in any format, and the file whose suffix chooses one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from headgrid.capture.files import write_bytes
from headgrid.charts.spec import ChartLike, Spec, to_spec
from headgrid.errors import check_choice
from headgrid.options import EMBEDS, EmbedName, read_format
from headgrid.render.convert import begin_render, check_marks
from headgrid.web.assets import write_assets
from headgrid.web.page import write_page


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
        What `heatmap` and others return, customised or not, or a Vega-Lite specification.
    path : path
        Its suffix chooses the format: ``.svg``, ``.png``, ``.pdf``, ``.html`` or
        ``.json``.
    ppi : float
        Pixels per inch of a PNG.
    embed : {"inline", "cdn", "assets"}
        Where an HTML page has Vega from. ``inline``: it stands in the page, which needs
        nothing else (0.9 MB). ``cdn``: the page loads exact versions and checks them by their
        hashes. ``assets``: a script beside the page that all pages of a folder share, and
        which is written along with it.

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

    Examples
    --------
    >>> import tempfile
    >>> chart = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(chart, f"{folder}/bar.svg").read_text("utf-8")[:18]
    '<svg xmlns="http:/'
    """
    target = Path(path)
    format = read_format(target)
    spec = to_spec(chart)
    (content,) = begin_save(spec, [format], ppi=ppi, embed=embed)()
    if format == "html" and embed == "assets":
        write_assets(target.parent, schema=str(spec.get("$schema", "")))
    return write_bytes(target, content)


def begin_save(
    spec: Spec,
    formats: Sequence[str],
    *,
    ppi: float = 300,
    executor: Executor | None = None,
    embed: str = "inline",
    base: str = "",
) -> Callable[[], list[bytes]]:
    """Check a specification and set the engine to work on it; pages are formats, too.

    The function that comes back waits for the engine, and returns the contents in the order of
    ``formats``. ``base`` is where a page of ``embed="assets"`` finds the script, relative to
    itself; the rest as in `headgrid.render.convert.begin_render` and `save`.
    """
    check_choice("embed", embed, EMBEDS)
    pictures = [format for format in formats if format != "html"]
    finish = begin_render(spec, pictures, ppi=ppi, executor=executor)
    if "html" not in formats:
        return finish
    check_marks(spec)

    def finish_all() -> list[bytes]:
        drawn = dict(zip(pictures, finish(), strict=True))
        page = write_page(spec, embed=embed, base=base, executor=executor)
        return [drawn[f] if f in drawn else page.encode("utf-8") for f in formats]

    return finish_all
