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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from headgrid import engine
from headgrid import svg as svg_
from headgrid.errors import RenderError, check_choice
from headgrid.labels import FONT_FAMILY, SERIF_FAMILY, clean_text
from headgrid.options import FORMATS
from headgrid.spec import MAX_MARKS, Spec, to_json

LAYOUT_FONT = "Liberation Sans"
#: What pictures are drawn with: only the first of the second list may be missing on a machine.
_PICTURE_FONTS = {
    FONT_FAMILY: LAYOUT_FONT,
    SERIF_FAMILY: f"Liberation Serif, Times New Roman, DejaVu Serif, {LAYOUT_FONT}",
}

_POINTS_PER_INCH = 72
_MAX_PIXELS = 500_000_000
_PANEL_MARKS = 150  # 150 kB of V8's heap, measured with 9,000 panels; a cell takes about 1 kB
_PNG_URI = "data:image/png;base64,"
# Everything that JSON escapes; of these, `_clean_escape` lets harmless ones pass.
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.)")


def render(spec: Spec, format: str, *, ppi: float = 300) -> bytes:
    """Return a specification as a picture, or as its own canonical text.

    Parameters
    ----------
    spec : dict
        A Vega-Lite specification with its data inside.
    format : {"svg", "png", "pdf", "json"}
        What to make.
    ppi : float
        Pixels per inch of a PNG; a point of the chart is 1/72 inch.

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
    return render_all(spec, [format], ppi=ppi)[0]


def render_all(spec: Spec, formats: Sequence[str], *, ppi: float = 300) -> list[bytes]:
    """Return a specification in several formats, laid out once; see `render`."""
    return begin_render(spec, formats, ppi=ppi)()


def begin_render(
    spec: Spec, formats: Sequence[str], *, ppi: float = 300, executor: Executor | None = None
) -> Callable[[], list[bytes]]:
    """Check a specification and set the engine to work on it.

    Parameters
    ----------
    spec, formats, ppi
        See `render`.
    executor : concurrent.futures.Executor, optional
        Where the engine runs; by default here, when the result is asked for.

    Returns
    -------
    callable
        Waits for the engine, finishes the drawing, and returns the contents in
        the order of ``formats``.
    """
    for format in formats:
        check_choice("format", format, FORMATS)
    if not set(formats) - {"json"}:
        return lambda: [to_json(spec).encode("utf-8") for _ in formats]
    _refuse_urls(spec)
    _refuse_too_many_marks(spec)
    raw = _call(executor, engine.draw_svg, _safe_text(spec), str(spec.get("$schema", "")))

    def finish() -> list[bytes]:
        drawing = _finish(spec, raw())
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


def _call(executor: Executor | None, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Start a call elsewhere, or prepare it here; return what waits for its result."""
    if executor is None:
        return partial(function, *args)
    return executor.submit(function, *args).result


def _finish(spec: Spec, raw: str) -> str:
    description = clean_text(str(spec.get("description", "")))
    family = _family(spec)
    drawing = svg_.finish(raw, LAYOUT_FONT, family, description, gradients=_gradients(spec))
    width = _wanted_width(spec)
    return drawing if width is None else svg_.set_width(drawing, width)


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
    config = {"aria": False, **(spec.get("config") or {})}
    try:
        text = json.dumps({**spec, "config": config}, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RenderError(
            f"the specification holds a value that JSON does not have ({error})"
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


def _refuse_urls(spec: Spec) -> None:
    """Refuse everything that would be fetched: a figure holds all that it shows."""
    for path, key, value in _walk(spec, ""):
        if key == "href" or (key in ("url", "baseURL") and not _is_inline(value)):
            raise RenderError(
                f"the specification names {str(value)[:80]!r} at {path}, expected data inside the "
                "specification; nothing is fetched or linked"
            )
    fields = [v["field"] for _, k, v in _walk(spec, "") if k == "url" and "field" in v]
    for record in _records(spec) if fields else ():
        for field in fields:
            named = record.get(field) if isinstance(record, Mapping) else None
            if named is not None and not _is_inline(named):
                raise RenderError(
                    f"the data name {str(named)[:80]!r} as an image, expected a PNG "
                    f"as a data URI ({_PNG_URI}...); nothing is fetched"
                )


def _gradients(spec: Spec) -> list[list[tuple[float, str]]]:
    """Return offset and colour of the stops of the figure's colour bars, if they are ours.

    Vega samples a gradient at round values instead, up to 8 levels off.
    """
    found = []
    for _, key, value in _walk(spec, ""):
        if key != "scale" or not isinstance(value, Mapping) or value.get("interpolate") != "rgb":
            continue
        domain, colors = value.get("domain"), value.get("range")
        if isinstance(domain, list) and isinstance(colors, list) and len(domain) == len(colors):
            low, high = domain[0], domain[-1]
            offsets = [round((stop - low) / (high - low), 6) for stop in domain]
            found.append(list(zip(offsets, colors, strict=True)))
    return found if any(stops != found[0] for stops in found) else found[:1]


def _is_inline(value: Any) -> bool:
    """Whether a URL is a picture in itself, or a mapping that says which field holds one."""
    if isinstance(value, Mapping):
        return "field" in value or _is_inline(value.get("value"))
    return isinstance(value, str) and value.startswith(_PNG_URI)


def _walk(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("datasets", "usermeta") or (key == "values" and path.endswith("data")):
                continue
            yield f"{path}.{key}".lstrip("."), str(key), value
            yield from _walk(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]")


def _refuse_too_many_marks(spec: Spec) -> None:
    marks = count_marks(spec)
    if marks > MAX_MARKS:
        raise RenderError(
            f"the figure would have about {marks:,} marks, expected at most {MAX_MARKS:,}, beyond "
            "which the renderer runs out of memory; draw fewer heads or frames, or the cells of a "
            "heatmap as images (cells='image', --cells image)"
        )


def count_marks(spec: Spec) -> int:
    """Return about how many marks a figure will have, in units of a heatmap's cell.

    Every value is a mark in each layer that draws it; a vertex of a line takes
    half a mark, and a panel with its axes and labels as much as 150.
    """
    marks = [_mark_type(part) for part in _parts(spec) if "mark" in part]
    # A frame is one mark a panel: its data are aggregated.
    frames = sum("aggregate" in step for part in _parts(spec) for step in _steps(part))
    weight = sum(0.5 if mark in ("line", "area", "trail") else 1.0 for mark in marks) - frames
    values, panels = 0, set()
    facet = spec.get("facet")
    field = facet.get("field") if isinstance(facet, Mapping) else None
    for record in _records(spec):
        if isinstance(record, Mapping):
            lengths = [len(value) for value in record.values() if isinstance(value, list)]
            values += max(lengths, default=1)
            panels.add(str(record.get(field)))
        else:
            values += 1
    return int(values * max(weight, 1.0)) + _PANEL_MARKS * len(panels)


def _mark_type(part: Mapping[str, Any]) -> str:
    mark = part["mark"]
    return str(mark.get("type") if isinstance(mark, Mapping) else mark)


def _steps(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = part.get("transform")
    return [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []


def _records(spec: Spec) -> Iterator[Any]:
    """Yield every record of the inline data."""
    for records in (spec.get("datasets") or {}).values():
        yield from records if isinstance(records, list) else ()
    for part in _parts(spec):
        data = part.get("data")
        records = data.get("values") if isinstance(data, Mapping) else None
        yield from records if isinstance(records, list) else ()


def _parts(spec: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a specification and every specification inside it."""
    if not isinstance(spec, Mapping):
        return
    yield spec
    for key in ("layer", "hconcat", "vconcat", "concat"):
        for part in spec.get(key) or ():
            yield from _parts(part)
    yield from _parts(spec.get("spec"))
