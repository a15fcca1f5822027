"""Chart -> the mime bundle with which a notebook, and whatever it is exported to, shows it.

Every reader of a notebook takes the richest form that it knows:

- ``text/html`` (JupyterLab, VS Code, nbconvert, viewers): the figure as a picture,
  which needs no script and no style, beside its inert specification. Where scripts run,
  the figure offers to become live, and is live at once on a page that has vega-embed.
  Nothing is fetched before somebody asks for it.
- ``image/svg+xml``, for large figures ``image/png``: readers without HTML, such as
  nbconvert to Markdown or LaTeX.
- ``application/vnd.vegalite.v6+json``: readers that draw Vega-Lite by themselves.
- ``text/plain``: terminals.
"""

from __future__ import annotations

import base64
from html import escape
from typing import Any, TypeAlias

from headgrid.charts.spec import ChartLike, Spec, to_json, to_spec
from headgrid.errors import HeadgridError
from headgrid.render.convert import render, render_svg
from headgrid.render.svg import finish as svg
from headgrid.web import page
from headgrid.web.assets import notebook_code

VEGALITE = "application/vnd.vegalite.v6+json"

#: Bytes of an SVG beyond which a notebook gets pixels; of a specification beyond which the
#: HTML does not repeat it. At 72 frames both are below 310,000.
LARGE = 500_000
#: Pixels per inch of those pixels: two for each of the figure's points.
PPI = 144

#: Content by mime type; with metadata by mime type where there is any, as altair has it.
Bundle: TypeAlias = "dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]"


def bundle_chart(chart: ChartLike, include: Any = None, exclude: Any = None) -> Bundle | None:
    """Return what a notebook shows of a chart.

    Parameters
    ----------
    chart : altair chart
        One of headgrid's, customised or not.
    include, exclude : collection of str, optional
        Mime types, as IPython's ``display`` names them; by default all.

    Returns
    -------
    dict, (dict, dict) or None
        Content by mime type, and metadata where pixels have a size. None where headgrid
        does not draw the chart (it loads data from elsewhere, or has too many marks):
        altair may.

    Notes
    -----
    Costs one SVG: 0.1 s in a process that has drawn before, and 0.5 s the first time
    (of 21 frames; 0.5 s of 72, on two cores).
    """
    spec = to_spec(chart)
    try:
        drawing = render_svg(spec)
        picture, uri, metadata = _make_picture(spec, drawing)
        text = to_json(spec)
        live = len(text) <= LARGE
        image = _write_image(uri, drawing, ", ".join(page.find_title(spec)))
        html = page.write_figure(spec, picture=image, data=live)
    except HeadgridError:
        return None
    script = f"\n<script>{notebook_code(str(spec.get('$schema', '')))}</script>" if live else ""
    contents = {
        "text/plain": repr(chart),
        VEGALITE: spec,
        **picture,
        "text/html": html + script,
    }
    chosen = _select(contents, include, exclude)
    return (chosen, _select(metadata, include, exclude)) if metadata else chosen


def _make_picture(spec: Spec, drawing: str) -> tuple[dict[str, str], str, dict[str, Any]]:
    """Return the picture by mime type, its data URI, and its metadata."""
    raw = drawing.encode("utf-8")
    if len(raw) <= LARGE:
        return {"image/svg+xml": drawing}, _data_uri("image/svg+xml", raw), {}
    png = render(spec, "png", ppi=PPI)
    width, height = _pixels(drawing)
    metadata = {"image/png": {"width": width, "height": height}}
    encoded = base64.b64encode(png).decode("ascii")
    return {"image/png": encoded}, f"data:image/png;base64,{encoded}", metadata


def _write_image(uri: str, drawing: str, title: str) -> str:
    # As large as the live figure, whose points the browser shows as pixels.
    width, height = _pixels(drawing)
    alt = escape(title, quote=True)
    style = "background: #fff; height: auto; max-width: 100%"
    return f'<img alt="{alt}" width="{width}" height="{height}" style="{style}" src="{uri}">'


def _data_uri(type: str, content: bytes) -> str:
    return f"data:{type};base64,{base64.b64encode(content).decode('ascii')}"


def _pixels(drawing: str) -> tuple[int, int]:
    width, height = svg.size(drawing)
    return round(width), round(height)


def _select(part: dict[str, Any], include: Any, exclude: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in part.items()
        if (not include or name in include) and name not in (exclude or ())
    }
