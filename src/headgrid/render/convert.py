"""Specification -> bytes of SVG, PNG, PDF or JSON, by way of the engine.

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

from headgrid.charts.spec import Spec, to_json
from headgrid.errors import RenderError, check_choice
from headgrid.options import FONT_FAMILY, FORMATS, SERIF_FAMILY
from headgrid.render import vega as engine
from headgrid.render.guard import check_drawing, check_marks, check_spec, count_marks, walk_spec
from headgrid.render.svg import finish as svg_
from headgrid.text import clean_text, shorten_text

__all__ = ["begin_render", "count_marks", "render", "render_svg"]

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


def render(spec: Spec, format: str, *, ppi: float = 300) -> bytes:
    """Return a specification as a picture, or as its own canonical text.

    Parameters
    ----------
    spec : dict
        A Vega-Lite specification with its data inside.
    format : {"svg", "png", "pdf", "json"}
        What to make; pages are `headgrid.web.save.begin_save`'s.
    ppi : float
        Pixels per inch of a PNG; a point of the chart is 1/72 inch.

    Raises
    ------
    OptionError
        For an unknown format.
    RenderError
        Where the specification asks for something outside itself, has more marks
        than can be drawn safely, or is not valid Vega-Lite.
    """
    return begin_render(spec, [format], ppi=ppi)()[0]


def begin_render(
    spec: Spec, formats: Sequence[str], *, ppi: float = 300, executor: Executor | None = None
) -> Callable[[], list[bytes]]:
    """Check a specification, and set the engine to work on it in an executor, if there is one.

    Returns
    -------
    callable
        Waits for the engine, finishes the drawing, and returns the contents in
        the order of ``formats``; see `render`.
    """
    for format in formats:
        check_choice("format", format, [name for name in FORMATS if name != "html"])
    spec = check_spec(spec)
    raw = _draw(spec, executor) if set(formats) - {"json"} else None

    def finish() -> list[bytes]:
        drawing = _finish(spec, raw()) if raw else ""
        writers: dict[str, Callable[[], bytes]] = {
            "svg": lambda: drawing.encode("utf-8"),
            "png": lambda: _rasterise(drawing, ppi, executor),
            "pdf": lambda: _call(executor, engine.draw_pdf, _for_layout(drawing))(),
            "json": lambda: to_json(spec).encode("utf-8"),
        }
        return [writers[format]() for format in formats]

    return finish


def render_svg(spec: Spec) -> str:
    """Return the finished SVG text of a specification; see `render`."""
    return render(spec, "svg").decode("utf-8")


def _draw(spec: Spec, executor: Executor | None) -> Callable[[], str]:
    check_marks(spec)
    schema = str(spec.get("$schema", ""))
    return _call(executor, engine.draw_svg, _safe_text(spec), schema)


def _call(executor: Executor | None, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Start a call elsewhere, or prepare it here; return what waits for its result."""
    if executor is None:
        return partial(function, *args)
    return executor.submit(function, *args).result


def _finish(spec: Spec, raw: str) -> str:
    # The text was laid out with the layout font all the same.
    font = _get(spec.get("config"), "font")
    family = SERIF_FAMILY if font == SERIF_FAMILY else FONT_FAMILY
    description = clean_text(str(spec.get("description", "")))
    drawing = svg_.finish(
        raw, LAYOUT_FONT, family, description, title=_title(spec), gradients=_gradients(spec)
    )
    width = _get(_get(spec.get("usermeta"), "headgrid"), "width")  # exact, in points
    if isinstance(width, (int, float)) and not isinstance(width, bool) and 0 < width < 1e9:
        drawing = svg_.set_width(drawing, width)
    check_drawing(drawing)
    return drawing


def _get(found: Any, key: str) -> Any:
    return found.get(key) if isinstance(found, Mapping) else None


def _title(spec: Spec) -> str | None:
    """Return an empty title for a figure of ours without one; None: what is drawn says it.

    The first text of a grid with rows is the name of a row.
    """
    if _get(spec.get("usermeta"), "headgrid") is None:
        return None
    title = spec.get("title")
    text = title.get("text") if isinstance(title, Mapping) else title
    if isinstance(text, list):
        return " ".join(map(str, text[:-1] if len(text) > 1 else text))
    return str(text or "")


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
    for node in walk_spec(spec):
        scale = node.get("scale")
        if _get(scale, "interpolate") != "rgb":
            continue
        domain, colors = _get(scale, "domain"), _get(scale, "range")
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
