"""Specification -> bytes of SVG, PNG, PDF, HTML or JSON, by way of the engine.

Text is laid out with Liberation Sans, which vl-convert carries and which has
Arial's widths, so that the same specification gives the same SVG on every
machine; the family list that a reader should see is written in at the end.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from headgrid.charts.labels import FONT_FAMILY, SERIF_FAMILY
from headgrid.charts.spec import MAX_MARKS, Spec, to_json
from headgrid.errors import RenderError, check_choice
from headgrid.options import EMBEDS, FORMATS
from headgrid.render import vega as engine
from headgrid.render.anatomy import count_marks, walk
from headgrid.render.policy import check_drawing, check_spec
from headgrid.render.svg import finish as svg_
from headgrid.text import clean_text, shorten_text
from headgrid.web import page

LAYOUT_FONT = "Liberation Sans"
#: What pictures are drawn with: only the first of the second list may be missing on a machine.
_PICTURE_FONTS = {
    FONT_FAMILY: LAYOUT_FONT,
    SERIF_FAMILY: f"Liberation Serif, Times New Roman, DejaVu Serif, {LAYOUT_FONT}",
}

_POINTS_PER_INCH = 72
_MAX_PIXELS = 500_000_000
# Everything that JSON escapes; of these, `_clean_escape` lets harmless ones pass.
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.)")


def render(spec: Spec, format: str, *, ppi: float = 300, embed: str = "inline") -> bytes:
    """Return a specification as a picture, or as its own canonical text.

    Parameters
    ----------
    spec : dict
        A Vega-Lite specification with its data inside.
    format : {"svg", "png", "pdf", "html", "json"}
        What to make.
    ppi : float
        Pixels per inch of a PNG; a point of the chart is 1/72 inch.
    embed : {"inline", "cdn", "assets"}
        Where an HTML page has Vega from; see `headgrid.web.page.write_page`.

    Returns
    -------
    bytes

    Raises
    ------
    OptionError
        For an unknown format.
    RenderError
        Where the specification asks for something outside itself, has more marks
        than can be drawn safely, or is not valid Vega-Lite.
    """
    return render_all(spec, [format], ppi=ppi, embed=embed)[0]


def render_all(
    spec: Spec, formats: Sequence[str], *, ppi: float = 300, embed: str = "inline"
) -> list[bytes]:
    """Return a specification in several formats, laid out once; see `render`."""
    return begin_render(spec, formats, ppi=ppi, embed=embed)()


def begin_render(
    spec: Spec,
    formats: Sequence[str],
    *,
    ppi: float = 300,
    executor: Executor | None = None,
    embed: str = "inline",
    base: str = "",
) -> Callable[[], list[bytes]]:
    """Check a specification and set the engine to work on it.

    Parameters
    ----------
    spec, formats, ppi, embed
        See `render`.
    executor : concurrent.futures.Executor, optional
        Where the engine runs; by default here, when the result is asked for.
    base : str
        Where a page of ``embed="assets"`` finds the script, relative to itself.

    Returns
    -------
    callable
        Waits for the engine, finishes the drawing, and returns the contents in
        the order of ``formats``.
    """
    for format in formats:
        check_choice("format", format, FORMATS)
    check_choice("embed", embed, EMBEDS)
    spec = check_spec(spec)
    drawn = set(formats) - {"json", "html"}
    if set(formats) - {"json"}:
        _refuse_too_many_marks(spec)
    raw = _draw(spec, executor) if drawn else None

    def write_page() -> bytes:
        html = page.write_page(spec, embed=embed, base=base, executor=executor)
        return html.encode("utf-8")

    def finish() -> list[bytes]:
        drawing = _finish(spec, raw()) if raw else ""
        writers: dict[str, Callable[[], bytes]] = {
            "svg": lambda: drawing.encode("utf-8"),
            "png": lambda: _rasterise(drawing, ppi, executor),
            "pdf": lambda: _call(executor, engine.draw_pdf, _for_layout(drawing))(),
            "html": write_page,
            "json": lambda: to_json(spec).encode("utf-8"),
        }
        return [writers[format]() for format in formats]

    return finish


def render_svg(spec: Spec) -> str:
    """Return the finished SVG text of a specification; see `render`."""
    return render(spec, "svg").decode("utf-8")


def _draw(spec: Spec, executor: Executor | None) -> Callable[[], str]:
    schema = str(spec.get("$schema", ""))
    return _call(executor, engine.draw_svg, _safe_text(spec), schema)


def _call(executor: Executor | None, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Start a call elsewhere, or prepare it here; return what waits for its result."""
    if executor is None:
        return partial(function, *args)
    return executor.submit(function, *args).result


def _finish(spec: Spec, raw: str) -> str:
    description = clean_text(str(spec.get("description", "")))
    family = _family(spec)
    drawing = svg_.finish(
        raw, LAYOUT_FONT, family, description, title=_title(spec), gradients=_gradients(spec)
    )
    width = _wanted_width(spec)
    drawing = drawing if width is None else svg_.set_width(drawing, width)
    check_drawing(drawing)
    return drawing


def _title(spec: Spec) -> str | None:
    """Return an empty title for a figure of ours without one; None: what is drawn says it.

    The first text of a grid with rows is the name of a row.
    """
    usermeta = spec.get("usermeta")
    ours = isinstance(usermeta, Mapping) and "headgrid" in usermeta
    if not ours:
        return None
    title = spec.get("title")
    text = title.get("text") if isinstance(title, Mapping) else title
    if isinstance(text, list):
        return " ".join(map(str, text[:-1] if len(text) > 1 else text))
    return str(text or "")


def _family(spec: Spec) -> str:
    """Return the family list of the text, which is laid out with the layout font all the same."""
    config = spec.get("config")
    font = config.get("font") if isinstance(config, Mapping) else None
    return SERIF_FAMILY if font == SERIF_FAMILY else FONT_FAMILY


def _wanted_width(spec: Spec) -> float | None:
    """Return the exact width in points that a figure asks for, if it does."""
    usermeta = spec.get("usermeta")
    ours = usermeta.get("headgrid") if isinstance(usermeta, Mapping) else None
    width = ours.get("width") if isinstance(ours, Mapping) else None
    usable = isinstance(width, (int, float)) and not isinstance(width, bool) and width > 0
    return float(width) if usable and math.isfinite(float(width)) else None  # type: ignore[arg-type]


def _for_layout(drawing: str) -> str:
    for family, fonts in _PICTURE_FONTS.items():
        drawing = svg_.for_layout(drawing, family, fonts)
    return drawing


def _rasterise(drawing: str, ppi: float, executor: Executor | None = None) -> bytes:
    from PIL import Image

    width, height = svg_.size(drawing)
    scale = ppi / _POINTS_PER_INCH
    if not 1 <= ppi <= 2400 or width * height * scale**2 > _MAX_PIXELS:
        raise RenderError(
            f"a PNG of {width:g} x {height:g} pt at {ppi:g} ppi would have "
            f"{width * height * scale**2:,.0f} pixels, expected 1 to 2400 ppi and at most "
            f"{_MAX_PIXELS:,}; lower --ppi or save SVG or PDF"
        )
    raw = _call(executor, engine.draw_png, _for_layout(drawing), scale)()
    Image.MAX_IMAGE_PIXELS = None  # our own drawing, limited above
    packed = io.BytesIO()
    with Image.open(io.BytesIO(raw)) as image:
        opaque = image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255)
        pixels = image.convert("RGB") if opaque else image
        pixels.save(packed, "PNG", compress_level=6, dpi=(ppi, ppi))
    return packed.getvalue()


def _safe_text(spec: Spec) -> str:
    """Return the specification as JSON that the renderer survives, in the layout font."""
    own = spec.get("config")
    config = {"aria": False, **own} if isinstance(own, Mapping) else {"aria": False}
    try:
        text = json.dumps({**spec, "config": config}, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        found = shorten_text(str(error).partition("\n")[0], 200)
        raise RenderError(
            f"the specification holds a value that JSON does not have ({found})"
        ) from None
    text = _ESCAPE.sub(_clean_escape, text)
    for family in _PICTURE_FONTS:
        text = text.replace(json.dumps(family), json.dumps(LAYOUT_FONT))
    return text


def _clean_escape(match: re.Match[str]) -> str:
    escape = match.group()
    if escape in ("\\n", '\\"', "\\\\", "\\/"):
        return escape
    character = json.loads(f'"{escape}"')
    return json.dumps(clean_text(character))[1:-1]


def _gradients(spec: Spec) -> list[list[tuple[float, str]]]:
    """Return offset and colour of the stops of the figure's colour bars, if they are ours.

    Vega samples a gradient at round values instead, up to 8 levels off.
    """
    found = []
    for _, key, value in walk(spec):
        if key != "scale" or not isinstance(value, Mapping) or value.get("interpolate") != "rgb":
            continue
        domain: Any = value.get("domain")
        colors: Any = value.get("range")
        if _is_scale(domain, colors):
            low, high = domain[0], domain[-1]
            offsets = [round((stop - low) / (high - low), 6) for stop in domain]
            found.append(list(zip(offsets, colors, strict=True)))
    return found if any(stops != found[0] for stops in found) else found[:1]


def _is_scale(domain: Any, colors: Any) -> bool:
    """Whether these are stops, increasing, and a colour for each."""
    if not isinstance(domain, list) or not isinstance(colors, list) or len(domain) < 2:
        return False
    numbers = all(isinstance(stop, (int, float)) and math.isfinite(stop) for stop in domain)
    texts = all(isinstance(color, str) for color in colors)
    return numbers and texts and len(domain) == len(colors) and domain[0] < domain[-1]


def _refuse_too_many_marks(spec: Spec) -> None:
    marks = count_marks(spec)
    if marks > MAX_MARKS:
        raise RenderError(
            f"the figure would have about {marks:,} marks, expected at most {MAX_MARKS:,}, beyond "
            "which the renderer runs out of memory; draw fewer heads or frames, or the cells of a "
            "heatmap as images (cells='image', --cells image)"
        )
