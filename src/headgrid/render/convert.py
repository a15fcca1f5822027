"""Specification -> the same, checked -> bytes of SVG, PNG, PDF or JSON, by way of the engine.

Refused, in every format alike and before the engine sees them, are data, pictures,
links and paints from elsewhere, settings of the page around the figure, and amounts
with which the engine would take the process down. Expressions may be any: they are not
JavaScript and have no function that fetches, and the engine has no network.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

from headgrid.charts.spec import MAX_MARKS, Spec, check_depth, to_json
from headgrid.errors import RenderError
from headgrid.options import FONT_FAMILY, SERIF_FAMILY
from headgrid.render import vega as engine
from headgrid.render.cells import Nodes, cut_cells, draw_cells, walk_spec
from headgrid.render.rows import cut_rows
from headgrid.render.svg import finish as svg
from headgrid.render.svg.bars import Stops
from headgrid.render.svg.cells import Cells
from headgrid.render.svg.panels import Panels
from headgrid.text import PNG_URI, clean_text, leads_out, quote_text, shorten_text

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/vega-lite/v\d+(\.\d+)*\.json#?")
_PNG = re.compile(re.escape(PNG_URI) + r"[A-Za-z0-9+/]*={0,2}")
_PAINTS = ("fill", "stroke", "background", "range", "scheme")
# Transforms that make no field but those that they name.
_NAMED_TRANSFORMS = {"calculate", "as", "filter", "aggregate", "groupby", "flatten", "window"}
#: Functions that make much of little: a few bytes are enough to fill the engine's heap.
_GENERATOR = re.compile(r"\b(?:sequence|pad|timeSequence|utcSequence)\s*\(")
_EXPRESSIONS = ("calculate", "expr", "labelExpr", "signal", "update", "filter", "test")
#: The largest numbers that may stand under a key; far above what can be seen in a figure.
_LARGEST = {
    **dict.fromkeys(("width", "height", "step", "continuousWidth", "continuousHeight"), 100_000),
    **dict.fromkeys(("maxbins", "steps", "tickCount"), 10_000),
    "stop": MAX_MARKS,  # of a sequence
    "order": 100,  # of a polynomial
}
_PANEL_MARKS = 150  # 150 kB of V8's heap, measured with 9,000 panels; a cell takes about 1 kB

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
    cut, maps = cut_cells(spec)
    parts = [*cut_rows(cut, maps), (cut, lambda _: (draw_cells(maps) if maps else None, None))]
    first = _begin_drawing(parts[0][0], executor) if set(formats) - {"json"} else None

    def draw_alone(part: Spec) -> str:
        return _finish(part, _begin_drawing(part, executor)())

    def draw() -> str:
        # What headgrid would not write, or Vega drew otherwise, Vega draws alone.
        for part, write in parts:
            with suppress(ArithmeticError, LookupError, TypeError, ValueError):
                raw = (first if part is parts[0][0] else None) or _begin_drawing(part, executor)
                return _finish(spec, raw(), *write(draw_alone))
        return draw_alone(spec)

    def finish() -> list[bytes]:
        drawing = draw() if first else ""
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


def _begin_drawing(spec: Spec, executor: Executor | None) -> Callable[[], Any]:
    check_marks(spec)
    return _call(executor, engine.draw_svg, _safe_text(spec), str(spec.get("$schema", "")))


def _finish(
    spec: Spec, raw: str, maps: Iterable[Cells] | None = None, panels: Panels | None = None
) -> str:
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
        maps=maps,
        panels=panels,
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


def _gradients(spec: Spec) -> list[Stops]:
    """Return offset and colour of the stops of the figure's colour bars, if they are ours.

    Vega samples a gradient at round values instead, up to 8 levels off.
    """
    found: list[Stops] = []
    for _, node in walk_spec(spec):
        match node.get("scale"):
            case {"interpolate": "rgb", "domain": [low, *_, high] as stops, "range": [*colors]}:
                with suppress(ArithmeticError, TypeError, ValueError):  # no scale of numbers
                    offsets = [round((stop - low) / (high - low), 6) for stop in stops]
                    found.append(list(zip(offsets, map(str, colors), strict=True)))
    return found if any(stops != found[0] for stops in found) else found[:1]


def check_spec(spec: Spec) -> Spec:
    """Return a specification that is safe to draw and to embed, or say why it is not.

    Options of vega-embed in ``usermeta`` are left out; the name of a theme stays.

    >>> check_spec({"mark": "bar", "data": {"url": "https://example.org/a.csv"}})
    Traceback (most recent call last):
        ...
    headgrid.errors.RenderError: the specification has 'https://example.org/a.csv' at data.url, \
expected data inside the specification; nothing is fetched or linked
    """
    check_depth(spec)
    schema = spec.get("$schema")
    if schema and not _SCHEMA.fullmatch(str(schema)):
        raise RenderError(
            f"the specification's $schema is {quote_text(str(schema))}, expected one of "
            "Vega-Lite's (https://vega.github.io/schema/vega-lite/v6.json)"
        )
    nodes = walk_spec(spec)
    for path, node in nodes:
        for key, value in node.items():
            expected = _find_fault(path, key, value)
            if expected:
                place = f"{path}.{key}".lstrip(".")
                raise RenderError(
                    f"the specification has {quote_text(str(value), 60)} at {place[:80]}, "
                    f"expected {expected}"
                )
    _check_data(spec, nodes)
    return _without_embed_options(spec)


def check_marks(spec: Spec) -> None:
    """Refuse a figure of more marks than the engine survives."""
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
    nodes = [(path, node) for path, node in walk_spec(spec) if not path.startswith("config")]
    marks = [node["mark"] for _, node in nodes if "mark" in node]
    names = [mark.get("type") if isinstance(mark, Mapping) else mark for mark in marks]
    # A frame is one mark a panel: its data are aggregated.
    frames = sum(isinstance(node.get("aggregate"), list) for _, node in nodes)
    weight = sum(0.5 if name in ("line", "area", "trail") else 1.0 for name in names) - frames
    facet = spec.get("facet")
    field = facet.get("field") if isinstance(facet, Mapping) else None
    values, longest, panels = 0, 1, set()
    for record in _records(_sources(spec, nodes)):
        inside = record if isinstance(record, Mapping) else {}
        length = max((len(v) for v in inside.values() if isinstance(v, list)), default=1)
        values, longest = values + length, max(longest, length)
        panels.add(str(inside.get(field) if isinstance(field, str) else None))
    # One step lays out the lists that are counted above; from the second on they multiply.
    steps = [[s for s in _steps(node) if {"flatten", "fold"} & s.keys()] for _, node in nodes]
    folds = [len(_list(step.get("fold"))) for several in steps for step in several]
    times = max(longest, *folds, 1) ** max(max(map(len, steps)) - 1, 0)
    copies = spec.get("repeat")
    for part in copies.values() if isinstance(copies, Mapping) else [copies]:
        times *= len(_list(part)) or 1
    return int(values * times * max(weight, 1.0)) + _PANEL_MARKS * len(panels)


def _sources(spec: Spec, nodes: Nodes) -> list[Any]:
    datasets = spec.get("datasets")
    named = datasets.values() if isinstance(datasets, Mapping) else ()
    inline = [node["data"] for _, node in nodes if node.get("data") is not None]
    return [*inline, *({"values": records} for records in named)]


def _records(sources: list[Any]) -> list[Any]:
    tables = [source.get("values") for source in sources if isinstance(source, Mapping)]
    return [record for table in tables for record in _list(table)]


def _steps(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [step for step in _list(node.get("transform")) if isinstance(step, Mapping)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _find_fault(path: str, key: str, value: Any) -> str | None:
    """Return what is expected in the place of what leads out of the figure, or is too much."""
    if key == "href" or (key in ("url", "baseURL") and not _is_field(value) and not _is_png(value)):
        return "data inside the specification; nothing is fetched or linked"
    if (key.lower().endswith("color") or key in _PAINTS) and any(map(leads_out, _texts(value))):
        return "a colour or another plain value; nothing is fetched"
    cursor = key == "cursor" and not re.fullmatch(r"[a-z-]{1,20}", str(value))
    bound = key == "element" and "bind" in re.split(r"[.\[]", path)
    if cursor or bound or (key in ("signals", "events") and path == "config"):
        return "a figure that leaves its page and its machine alone; take it out"
    if key in _EXPRESSIONS and any(map(_GENERATOR.search, _texts(value))):
        return "no sequence and no padding, beyond which the renderer runs out of memory"
    largest = _LARGEST.get(key, math.inf)
    if isinstance(value, (int, float)) and not abs(value) <= largest:
        return f"at most {largest:,}, beyond which the renderer runs out of time or memory"
    return None


def _check_data(spec: Spec, nodes: Nodes) -> None:
    """Refuse data whose texts are drawn as they are, unless they are plain colours or PNGs."""
    sources = _sources(spec, nodes)
    records = _records(sources)
    if any(node.get("scale", "") is None or "field" in str(node.get("range")) for _, node in nodes):
        for paint in filter(leads_out, _texts(records)):
            raise RenderError(
                f"the data name {quote_text(paint)} where colours are taken as they are, expected "
                "colours, or a scale; nothing is fetched"
            )
    fields = [node["url"]["field"] for _, node in nodes if _is_field(node.get("url"))]
    made = {text for _, n in nodes for key in ("as", "flatten") for text in _texts(n.get(key))}
    kinds = {key for _, node in nodes for step in _steps(node) for key in step}
    plain = all(
        isinstance(source, Mapping)
        and source.keys() <= {"values", "name"}
        and isinstance(source.get("values", []), list)
        for source in sources
    )
    computed = made.intersection(fields) or kinds - _NAMED_TRANSFORMS or not plain
    # Of a record that is no mapping Vega makes a field `data`.
    rows = [record if isinstance(record, Mapping) else {"data": record} for record in records]
    found = [row[field] for row in rows for field in fields if field in row]
    if fields and (computed or not all(map(_is_png, found))):
        raise RenderError(
            f"the specification takes pictures from the field {quote_text(fields[0])}, expected "
            f"each as a PNG ({PNG_URI}...) in a list of records, and none made by a transform; "
            "nothing is fetched"
        )


def _is_png(value: Any) -> bool:
    return isinstance(value, str) and _PNG.fullmatch(value) is not None


def _is_field(value: Any) -> bool:
    """Whether a channel says by a plain name which field holds its pictures, and nothing else."""
    match value:
        case {"field": str(name), **rest}:
            return name.isidentifier() and rest.keys() <= {"type", "title"}
    return False


def _without_embed_options(spec: Spec) -> Spec:
    usermeta = spec.get("usermeta")
    if not isinstance(usermeta, Mapping) or "embedOptions" not in usermeta:
        return spec
    options = usermeta["embedOptions"]
    theme = options.get("theme") if isinstance(options, Mapping) else None
    named = isinstance(theme, str) and theme.isalnum() and theme != "constructor"
    return {**spec, "usermeta": {**usermeta, "embedOptions": {"theme": theme} if named else {}}}
