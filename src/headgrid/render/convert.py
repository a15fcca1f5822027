"""Specification -> bytes of SVG, PNG, PDF or JSON, by way of the engine."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

from headgrid.charts.spec import Spec, to_json
from headgrid.errors import RenderError
from headgrid.options import FONT_FAMILY, SERIF_FAMILY
from headgrid.render import vega as engine
from headgrid.render.guard import check_marks, check_spec, count_marks, walk_spec
from headgrid.render.svg import finish as svg
from headgrid.text import clean_text, shorten_text

__all__ = ["begin_render", "count_marks", "render", "render_svg"]

_MAX_PIXELS = 500_000_000
# What JSON escapes in any text; of these, `_clean_escape` lets harmless ones pass.
_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.)")


def render(spec: Spec, format: str, *, ppi: float = 300) -> bytes:
    """Return a specification in a format; see `begin_render`."""
    return begin_render(spec, [format], ppi=ppi)()[0]


def render_svg(spec: Spec) -> str:
    """Return the finished SVG text of a specification; see `begin_render`."""
    return render(spec, "svg").decode("utf-8")


def begin_render(
    spec: Spec, formats: Sequence[str], *, ppi: float = 300, executor: Executor | None = None
) -> Callable[[], list[bytes]]:
    """Check a specification, and set the engine to work on it in an executor, if there is one.

    Returns what waits for the engine, finishes the drawing, and returns the contents in
    the order of ``formats`` (svg, png, pdf, json). A PNG has ``ppi`` pixels per inch, of 72
    points. Raises a RenderError where the specification asks for something outside itself,
    has more marks than can be drawn safely, or is not valid Vega-Lite.
    """
    spec = check_spec(spec)
    raw = None
    if set(formats) - {"json"}:
        check_marks(spec)
        raw = _call(executor, engine.draw_svg, _safe_text(spec), str(spec.get("$schema", "")))

    def finish() -> list[bytes]:
        drawing = _finish(spec, raw()) if raw else ""
        writers: dict[str, Callable[[], bytes]] = {
            "svg": lambda: drawing.encode("utf-8"),
            "png": lambda: _rasterise(drawing, ppi, executor),
            "pdf": lambda: _call(executor, engine.draw_pdf, svg.for_layout(drawing))(),
            "json": lambda: to_json(spec).encode("utf-8"),
        }
        return [writers[format]() for format in formats]

    return finish


def _call(executor: Executor | None, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Start a call elsewhere, or prepare it here; return what waits for its result."""
    if executor is None:
        return partial(function, *args)
    return executor.submit(function, *args).result


def _finish(spec: Spec, raw: str) -> str:
    config, usermeta = spec.get("config"), spec.get("usermeta")
    serif = isinstance(config, Mapping) and config.get("font") == SERIF_FAMILY
    ours = usermeta.get("headgrid") if isinstance(usermeta, Mapping) else None
    width = ours.get("width") if isinstance(ours, Mapping) else None  # exact, in points
    return svg.finish(
        raw,
        SERIF_FAMILY if serif else FONT_FAMILY,
        title=_title(spec.get("title")),
        description=str(spec.get("description", "")),
        gradients=_gradients(spec),
        width=width if isinstance(width, (int, float)) and 0 < width < 1e9 else None,
    )


def _title(title: Any) -> str:
    """Return a title without its last line, which names the frames."""
    text = title.get("text") if isinstance(title, Mapping) else title
    if isinstance(text, list):
        return " ".join(map(str, text[:-1] if len(text) > 1 else text))
    return text if isinstance(text, str) else ""


def _rasterise(drawing: str, ppi: float, executor: Executor | None = None) -> bytes:
    from PIL import Image

    width, height = svg.size(drawing)
    scale = ppi / 72
    if not 1 <= ppi <= 2400 or width * height * scale**2 > _MAX_PIXELS:
        raise RenderError(
            f"a PNG of {width:g} x {height:g} pt at {ppi:g} ppi would have "
            f"{width * height * scale**2:,.0f} pixels, expected 1 to 2400 ppi and at most "
            f"{_MAX_PIXELS:,}; lower --ppi or save SVG or PDF"
        )
    raw = _call(executor, engine.draw_png, svg.for_layout(drawing), scale)()
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
    safe = {**spec, "config": config}
    try:
        text = json.dumps(safe, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        found = shorten_text(str(error).partition("\n")[0], 200)
        raise RenderError(
            f"the specification holds a value that JSON does not have ({found})"
        ) from None
    text = _ESCAPE.sub(_clean_escape, clean_text(text))
    for family in svg.PICTURE_FONTS:
        text = text.replace(json.dumps(family), json.dumps(svg.LAYOUT_FONT))
    return text


def _clean_escape(match: re.Match[str]) -> str:
    escape = match.group()
    if escape in ("\\n", '\\"', "\\\\", "\\/"):
        return escape
    return json.dumps(clean_text(json.loads(f'"{escape}"')), ensure_ascii=False)[1:-1]


def _gradients(spec: Spec) -> list[svg.Stops]:
    """Return offset and colour of the stops of the figure's colour bars, if they are ours.

    Vega samples a gradient at round values instead, up to 8 levels off.
    """
    found: list[svg.Stops] = []
    for _, node in walk_spec(spec):
        match node.get("scale"):
            case {"interpolate": "rgb", "domain": [low, *_, high] as stops, "range": [*colors]}:
                with suppress(ArithmeticError, TypeError, ValueError):  # no scale of numbers
                    offsets = [round((stop - low) / (high - low), 6) for stop in stops]
                    found.append(list(zip(offsets, map(str, colors), strict=True)))
    return found if any(stops != found[0] for stops in found) else found[:1]
