"""Charts -> HTML: a page that stands alone, or a fragment for a page that has vega-embed.

The specification stands in the page as inert JSON, and what draws it is a script that is the same
for every figure; so nothing that data say is ever markup or code. A page also carries a
Content-Security-Policy that names its scripts by their hashes and allows nothing else: no
connection, no picture from elsewhere, no ``eval``. Vega's expressions are interpreted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from html import escape
from typing import Any, TypeAlias
from urllib.parse import quote

from headgrid.charts.spec import ChartLike, Spec, to_json, to_spec
from headgrid.errors import HeadgridError, OptionError
from headgrid.inert import make_inert
from headgrid.render.convert import check_spec, count_marks, render_svg
from headgrid.text import clean_text, shorten_text
from headgrid.web import assets

#: Marks up to which a figure is drawn as SVG in the browser, and as pixels beyond: 33,000
#: (72 frames) take 0.3 s longer than pixels in Chromium, and print and zoom sharply.
SVG_MARKS = 60_000

#: An element of a page, and the source that the page's policy has to allow for it.
Script: TypeAlias = tuple[str, str]

_DOCUMENT = """\
<!doctype html>
<html lang="en" class="headgrid-{kind}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="headgrid">
{icon}<title>{title}</title>
{style}</head>
<body>
{body}
{scripts}
</body>
</html>
"""

_MAIN = """\
<main>
<h1>{title}</h1>
{figure}
<noscript><p>The figure above is drawn by a script, and this browser runs none.</p></noscript>
</main>"""

_FIGURE = """\
<figure class="headgrid" id="{id}" role="figure" aria-label="{caption}"{renderer}>
<div class="headgrid-view" role="img" aria-label="{title}" tabindex="0">{picture}</div>
{data}{figcaption}</figure>"""


def fragment(
    chart: ChartLike | Mapping[str, Any],
    *,
    loader: bool = True,
    caption: bool = True,
    id: str | None = None,
    picture: bool = True,
) -> str:
    """Return the HTML that draws a chart on a page that has vega-embed, and shows it on others.

    Parameters
    ----------
    chart : altair chart or mapping
        What `heatmap` and `perhead` return, or a Vega-Lite specification.
    loader : bool
        End with the small script that hands the figure to ``vegaEmbed``; the same
        for every figure. False: nothing but inert HTML, for pages whose
        Content-Security-Policy allows no script inside; the script that
        `write_assets` (``headgrid assets``) writes finds such figures and draws them.
    caption : bool
        Show the figure's caption under it. It is the figure's label either way.
    id : str, optional
        The figure's ``id``; by default one that follows from its content, so that
        only the same figure twice on a page needs another.
    picture : bool
        Hold the finished figure too, as SVG with live text, which is shown until a script
        draws it and where none does. Costs one SVG: of 21 frames 0.1 s, and 0.5 s the first
        time; a figure that headgrid does not draw itself has none. False: an empty box.

    Returns
    -------
    str
        A ``<figure>``, and the loader after it.

    Raises
    ------
    RenderError
        Where the specification asks for something outside itself.
    OptionError
        Where ``id`` is not one.

    Examples
    --------
    >>> html = fragment({"mark": "bar", "data": {"values": []}, "title": "a < b"}, picture=False)
    >>> print(html.splitlines()[1])
    <div class="headgrid-view" role="img" aria-label="a &lt; b" tabindex="0"></div>
    """
    if id is not None and (not id or any(c.isspace() or not c.isprintable() for c in id)):
        raise OptionError(f"id is {id!r}, expected text without spaces")
    spec = to_spec(chart)
    finished = _draw_inline(check_spec(spec)) if picture else ""
    figure = write_figure(spec, caption=caption, id=id, picture=finished)
    return f"{figure}\n" + (f"<script>{assets.fragment_code()}</script>\n" if loader else "")


def _draw_inline(spec: Spec) -> str:
    """Return the finished figure, its points a page's pixels as the live one's; empty without."""
    try:
        drawing = render_svg(spec)
    except HeadgridError:
        return ""
    points = r'width="([\d.]+)pt" height="([\d.]+)pt"'
    return re.sub(points, r'width="\1" height="\2"', drawing, count=1)


def write_page(
    spec: Spec, *, embed: str = "inline", base: str = "", executor: Executor | None = None
) -> str:
    """Return the page of a specification, drawn by scripts that ``embed`` places.

    ``base`` is the relative address of the folder with the script of ``embed="assets"``,
    empty or ending in ``/``. The engine runs in ``executor``, by default here.
    """
    title = find_title(spec)[0]
    body = _MAIN.format(title=escape(title), figure=write_figure(spec))
    scripts = _scripts(embed, str(spec.get("$schema") or ""), base, executor)
    return write_document("page", title, body, scripts, icon=embed != "assets")


def write_document(
    kind: str, title: str, body: str, scripts: Sequence[Script], style: str = "", icon: bool = True
) -> str:
    """Return a page whose policy allows its own scripts and style, and nothing else."""
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(source for _, source in scripts),
        **({"style-src": _hash_source(style)} if style else {}),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return _DOCUMENT.format(
        kind=kind,
        policy=escape("; ".join(f"{name} {value}" for name, value in rules.items()), quote=True),
        # Browsers ask the site of a page for one, unless there is one.
        icon='<link rel="icon" href="data:,">\n' if icon else "",
        title=escape(title),
        style=f"<style>{style}</style>\n" if style else "",
        body=body,
        scripts="\n".join(element for element, _ in scripts),
    )


def write_script(text: str, element: str = "") -> Script:
    """Return a script in its element, or in another one from which a script takes it."""
    return element or f"<script>{text}</script>", _hash_source(text)


def write_figure(
    spec: Spec, *, caption: bool = True, id: str | None = None, picture: str = "", data: bool = True
) -> str:
    """Return the ``<figure>`` of a specification, without any script that draws it.

    ``picture`` is HTML that is shown until a script draws the figure; without ``data`` none
    can, as the specification is left out. See `fragment` for the rest.
    """
    spec = check_spec(spec)
    if not spec.get("$schema"):  # vega-embed would guess what it is
        spec = {"$schema": assets.SCHEMA, **spec}
    text = make_inert(to_json(spec))
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    label = find_caption(spec)
    return _FIGURE.format(
        id=escape(clean_text(id or f"headgrid-{digest[:12]}"), quote=True),
        caption=escape(label, quote=True),
        title=escape(", ".join(find_title(spec)), quote=True),
        renderer=' data-renderer="canvas"' if count_marks(spec) > SVG_MARKS else "",
        picture=picture,
        data=f'<script type="application/json">{text.strip()}</script>\n' if data else "",
        figcaption=f"<figcaption>{escape(label)}</figcaption>\n" if caption else "",
    )


def find_title(spec: Spec) -> list[str]:
    """Return the title lines of a specification, or the start of its caption; never empty."""
    title = spec.get("title")
    text = title.get("text") if isinstance(title, Mapping) else title
    lines = text if isinstance(text, list) else [text]
    clean = [shorten_text(line, 200) for line in lines[:4] if isinstance(line, str)]
    caption = shorten_text(_own_caption(spec), 80)
    return [line for line in clean if line] or [caption or "Figure"]


def find_caption(spec: Spec) -> str:
    """Return the caption of a specification, or for want of one its title."""
    return shorten_text(_own_caption(spec), 2000) or ", ".join(find_title(spec))


def _own_caption(spec: Spec) -> str:
    match spec:
        case {"usermeta": {"headgrid": {"caption": str(text)}}} | {"description": str(text)}:
            return text
    return ""


def _scripts(embed: str, schema: str, base: str, executor: Executor | None) -> list[Script]:
    if embed == "assets":
        source = quote(base, safe="/:.") + assets.shared_script(schema, executor)[0]
        return [(f'<script src="{source}"></script>', "'self'")]
    if embed == "cdn":
        tag = '<script src="{}" integrity="{}" crossorigin="anonymous"></script>'
        vega = [(tag.format(*pinned), pinned[0]) for pinned in assets.pinned_scripts(schema)]
    else:
        vega = [write_script(assets.load_bundle(schema, executor))]
    return [*vega, write_script(assets.start_code())]


def _hash_source(text: str) -> str:
    """Return the source with which a policy allows a script or style.

    >>> _hash_source("alert(1)")
    "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"
    """
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
