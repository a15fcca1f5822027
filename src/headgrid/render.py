"""Specification -> bytes of SVG, PNG, PDF or JSON; the only module that talks to vl-convert.

Text is laid out with Liberation Sans, which vl-convert carries and which has
Arial's widths, so that the same specification gives the same SVG on every
machine; the family list that a reader should see is written in at the end.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headgrid import svg as svg_
from headgrid.errors import RenderError, check_choice
from headgrid.labels import FONT_FAMILY, clean_text
from headgrid.options import FORMATS
from headgrid.spec import MAX_MARKS, Spec, to_json

LAYOUT_FONT = "Liberation Sans"

_POINTS_PER_INCH = 72
_MAX_PIXELS = 500_000_000
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
    for format in formats:
        check_choice("format", format, FORMATS)
    drawing = render_svg(spec) if set(formats) - {"json"} else ""
    writers: dict[str, Callable[[], bytes]] = {
        "svg": lambda: drawing.encode("utf-8"),
        "png": lambda: _rasterise(drawing, ppi),
        "pdf": lambda: _to_pdf(drawing),
        "json": lambda: to_json(spec).encode("utf-8"),
    }
    return [writers[format]() for format in formats]


def render_svg(spec: Spec) -> str:
    """Return the finished SVG text of a specification; see `render`."""
    import vl_convert

    _refuse_urls(spec)
    _refuse_too_many_marks(spec)
    text = _safe_text(spec)
    try:
        raw = vl_convert.vegalite_to_svg(
            text, vl_version=_version(spec, vl_convert), allowed_base_urls=[]
        )
    except ValueError as error:
        raise RenderError(
            f"Vega-Lite could not draw the specification ({_first_line(error)}); "
            "expected a valid Vega-Lite chart"
        ) from None
    description = clean_text(str(spec.get("description", "")))
    return svg_.finish(raw, LAYOUT_FONT, FONT_FAMILY, description, gradient=_gradient(spec))


def _rasterise(drawing: str, ppi: float) -> bytes:
    import vl_convert
    from PIL import Image

    width, height = svg_.size(drawing)
    scale = ppi / _POINTS_PER_INCH
    if not 1 <= ppi <= 2400 or width * height * scale**2 > _MAX_PIXELS:
        raise RenderError(
            f"a PNG of {width:g} x {height:g} pt at {ppi:g} ppi would have "
            f"{width * height * scale**2:,.0f} pixels, expected 1 to 2400 ppi and at most "
            f"{_MAX_PIXELS:,}; lower --ppi or save SVG or PDF"
        )
    raw = vl_convert.svg_to_png(svg_.for_layout(drawing, FONT_FAMILY, LAYOUT_FONT), scale=scale)
    Image.MAX_IMAGE_PIXELS = None  # our own drawing, limited above
    packed = io.BytesIO()
    with Image.open(io.BytesIO(raw)) as image:
        image.convert("RGB").save(packed, "PNG", compress_level=6, dpi=(ppi, ppi))
    return packed.getvalue()


def _to_pdf(drawing: str) -> bytes:
    import vl_convert

    return vl_convert.svg_to_pdf(svg_.for_layout(drawing, FONT_FAMILY, LAYOUT_FONT))


def _version(spec: Spec, vl_convert: Any) -> str:
    """Return the Vega-Lite version that the specification names, as vl-convert spells it."""
    schema = str(spec.get("$schema", ""))
    available = vl_convert.get_vegalite_versions()
    if not schema:
        return str(available[-1])
    found = re.search(r"/vega-lite/v(\d+)(?:\.(\d+))?", schema)
    if not found:
        raise RenderError(
            f"the specification's $schema is {schema!r}, expected one of Vega-Lite's "
            "(https://vega.github.io/schema/vega-lite/v6.json)"
        )
    major, minor = found.groups()
    same_major = [version for version in available if version.split(".")[0] == major]
    if not same_major:
        raise RenderError(
            f"the specification is for Vega-Lite {major}, expected one of {', '.join(available)}"
        )
    exact = f"{major}.{minor}"
    return exact if exact in same_major else str(same_major[-1])


def _safe_text(spec: Spec) -> str:
    """Return the specification as JSON that the renderer survives, in the layout font."""
    config = {"aria": False, **(spec.get("config") or {})}
    try:
        text = json.dumps({**spec, "config": config}, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RenderError(
            f"the specification holds a value that JSON does not have ({error})"
        ) from None
    return _ESCAPE.sub(_clean_escape, text).replace(
        json.dumps(FONT_FAMILY), json.dumps(LAYOUT_FONT)
    )


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
            if isinstance(record, Mapping) and not _is_inline(record.get(field)):
                raise RenderError(
                    f"the data name {str(record.get(field))[:80]!r} as an image, expected a PNG "
                    f"as a data URI ({_PNG_URI}...); nothing is fetched"
                )


def _gradient(spec: Spec) -> list[tuple[float, str]]:
    """Return offset and colour of the stops of the figure's colour bar, if it is one of ours.

    Vega samples a gradient at round values instead, up to 8 levels off.
    """
    for _, key, value in _walk(spec, ""):
        if key != "scale" or not isinstance(value, Mapping) or value.get("interpolate") != "rgb":
            continue
        domain, colors = value.get("domain"), value.get("range")
        if isinstance(domain, list) and isinstance(colors, list) and len(domain) == len(colors):
            low, high = domain[0], domain[-1]
            offsets = [round((stop - low) / (high - low), 6) for stop in domain]
            return list(zip(offsets, colors, strict=True))
    return []


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
    marks = count_values(spec)
    if marks > MAX_MARKS:
        raise RenderError(
            f"the figure has {marks:,} marks, expected at most {MAX_MARKS:,}, beyond which the "
            "renderer runs out of memory; draw fewer heads or frames, or draw cells as an image"
        )


def count_values(spec: Spec) -> int:
    """Return the number of values in the inline data, arrays counted by their entries."""
    total = 0
    for record in _records(spec):
        if isinstance(record, Mapping):
            lengths = [len(value) for value in record.values() if isinstance(value, list)]
            total += max(lengths, default=1)
        else:
            total += 1
    return total


def _records(spec: Spec) -> Iterator[Any]:
    """Yield every record of the inline data."""
    data = spec.get("data")
    sets = list((spec.get("datasets") or {}).values())
    sets.append(data.get("values") if isinstance(data, Mapping) else None)
    for records in sets:
        yield from records if isinstance(records, list) else ()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), lines[0] if lines else "no reason")
