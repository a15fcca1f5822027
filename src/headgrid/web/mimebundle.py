"""Chart -> the mime bundle with which a notebook, and whatever it is exported to, shows it.

Every reader of a notebook takes the richest form that it knows: ``text/html`` (JupyterLab, VS
Code, nbconvert) is the figure as a picture, which needs no script and no style, beside its inert
specification; where scripts run it offers to become live, and is live at once on a page that has
vega-embed. Nothing is fetched before somebody asks for it. Readers without HTML (nbconvert to
Markdown or LaTeX) take ``image/svg+xml``, for large figures ``image/png``; others draw Vega-Lite
by themselves, and terminals show ``text/plain``.
"""

from __future__ import annotations

import base64
from html import escape
from typing import Any, TypeAlias

from headgrid.charts.spec import ChartLike, to_json, to_spec
from headgrid.errors import HeadgridError
from headgrid.render.convert import render, render_svg
from headgrid.render.svg import finish as svg
from headgrid.text import shorten_text
from headgrid.web import page
from headgrid.web.assets import notebook_code

VEGALITE = "application/vnd.vegalite.v6+json"

#: Bytes of an SVG beyond which a notebook gets pixels; of a specification beyond which the
#: HTML does not repeat it. At 72 frames both are below 310,000.
LARGE = 500_000
#: Pixels per inch of those pixels: two for each of the figure's points.
PPI = 144

# Content by mime type; with metadata by mime type where there is any, as altair has it.
_Bundle: TypeAlias = "dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]"


def bundle_chart(chart: ChartLike, include: Any = None, exclude: Any = None) -> _Bundle | None:
    """Return what a notebook shows of a chart, in all mime types or those that it asks for.

    None where headgrid does not draw the chart (it loads data from elsewhere, or has too many
    marks): altair may. Costs one SVG: of 21 frames 0.1 s, and 0.5 s the first time.
    """
    spec = to_spec(chart)
    try:
        drawing = render_svg(spec)
        width, height = (round(side) for side in svg.size(drawing))
        raw, kind, metadata = drawing.encode("utf-8"), "image/svg+xml", {}
        if len(raw) > LARGE:
            raw, kind = render(spec, "png", ppi=PPI), "image/png"
            metadata = {kind: {"width": width, "height": height}}
        encoded = base64.b64encode(raw).decode("ascii")
        # As large as the live figure, whose points the browser shows as pixels.
        image = (
            f'<img alt="{escape(", ".join(page.find_title(spec)), quote=True)}" width="{width}" '
            f'height="{height}" style="background: #fff; height: auto; max-width: 100%" '
            f'src="data:{kind};base64,{encoded}">'
        )
        live = len(to_json(spec)) <= LARGE
        html = page.write_figure(spec, picture=image, data=live)
    except HeadgridError:
        return None
    script = f"\n<script>{notebook_code(str(spec.get('$schema', '')))}</script>" if live else ""
    told = shorten_text(str(spec.get("description", "no data")), 100)
    contents = {
        "text/plain": f"<{type(chart).__name__} of {told}>",
        VEGALITE: spec,
        kind: encoded if metadata else drawing,
        "text/html": html + script,
    }
    asked = {*(include or contents)} - {*(exclude or ())}
    chosen, about = ({n: part[n] for n in part if n in asked} for part in (contents, metadata))
    return (chosen, about) if metadata else chosen
