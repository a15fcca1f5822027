"""Specification -> the same, if it names nothing outside itself and can be drawn.

Refused, in every format alike and before the engine sees them, are data, pictures,
links and paints from elsewhere, settings of the page around the figure, and amounts
with which the engine would take the process down. Expressions may be any: they are not
JavaScript and have no function that fetches, and the engine has no network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from headgrid.charts.spec import MAX_MARKS, Spec
from headgrid.errors import RenderError
from headgrid.text import quote_text

PNG_URI = "data:image/png;base64,"
#: Every mapping in a specification but its data and ``usermeta``, and where it stands.
Nodes: TypeAlias = list[tuple[str, Mapping[str, Any]]]

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/vega-lite/v\d+(\.\d+)*\.json#?")
_PNG = re.compile(re.escape(PNG_URI) + r"[A-Za-z0-9+/]*={0,2}")
_PAINTS = ("fill", "stroke", "background", "range", "scheme")
# Transforms that make no field but those that they name.
_NAMED_TRANSFORMS = {"calculate", "as", "filter", "aggregate", "groupby"}
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
#: Levels of lists and dictionaries within each other; the engine reads JSON up to 128.
_MAX_DEPTH = 100
_PANEL_MARKS = 150  # 150 kB of V8's heap, measured with 9,000 panels; a cell takes about 1 kB

_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|(.))", re.IGNORECASE | re.DOTALL)
_REFERENCE = re.compile(r"(?:url|image-set)\((?!#)", re.IGNORECASE)


def check_spec(spec: Spec) -> Spec:
    """Return a specification that is safe to draw and to embed, or say why it is not.

    Options of vega-embed in ``usermeta`` are left out; the name of a theme stays.

    >>> check_spec({"mark": "bar", "data": {"url": "https://example.org/a.csv"}})
    Traceback (most recent call last):
        ...
    headgrid.errors.RenderError: the specification has 'https://example.org/a.csv' at data.url, \
expected data inside the specification; nothing is fetched or linked
    """
    _check_depth(spec)
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


def leads_out(paint: str) -> bool:
    r"""Whether a paint or a style, as CSS reads it, names something outside the figure.

    >>> leads_out(r"u\72l(http://x)"), leads_out("url(#gradient_0)")
    (True, False)
    """
    plain = _CSS_ESCAPE.sub(lambda m: chr(int(m[1], 16) % 0x110000) if m[1] else m[2], paint)
    return _REFERENCE.search(plain) is not None


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


def walk_spec(spec: Spec) -> Nodes:
    """Return every mapping in a specification but its data and ``usermeta``, with its path."""
    found: Nodes = []
    rest: list[tuple[str, Any]] = [("", spec)]
    while rest:
        path, node = rest.pop()
        if isinstance(node, Mapping):
            found.append((path, node))
            is_data = path.rpartition(".")[2] == "data"
            skipped = ("datasets", "usermeta", "values" if is_data else "")
            inner = [(f"{path}.{k}".lstrip("."), v) for k, v in node.items() if k not in skipped]
        elif isinstance(node, (list, tuple)):
            inner = [(f"{path}[{index}]", value) for index, value in enumerate(node)]
        else:
            continue
        rest += reversed(inner)
    return found


def _check_depth(spec: Any) -> None:
    level = [spec]
    for _ in range(_MAX_DEPTH):
        inner = [list(node.values()) if isinstance(node, Mapping) else node for node in level]
        deeper = [v for values in inner for v in values if isinstance(v, (list, tuple, Mapping))]
        level = list({id(value): value for value in deeper}.values())
        if not level:
            return
    raise RenderError(
        f"the specification is nested more than {_MAX_DEPTH} levels, expected a Vega-Lite "
        "specification; figures have about 12"
    )


def _sources(spec: Spec, nodes: Nodes) -> list[Any]:
    """Return everything that data come from."""
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
    """Yield all texts in a value, its lists and its mappings."""
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
    made = {text for _, node in nodes for text in _texts(node.get("as"))}
    kinds = {key for _, node in nodes for step in _steps(node) for key in step}
    plain = all(
        isinstance(source, Mapping)
        and source.keys() <= {"values", "name"}
        and isinstance(source.get("values", []), list)
        for source in sources
    )
    computed = made.intersection(fields) or kinds - _NAMED_TRANSFORMS or not plain
    found = [r.get(field) if isinstance(r, Mapping) else r for r in records for field in fields]
    if fields and (computed or not all(map(_is_png, found))):
        raise RenderError(
            f"the specification takes pictures from the field {quote_text(fields[0])}, expected "
            f"each as a PNG ({PNG_URI}...) in a list of records, and none made by a transform; "
            "nothing is fetched"
        )


def _is_png(value: Any) -> bool:
    return isinstance(value, str) and _PNG.fullmatch(value) is not None


def _is_field(value: Any) -> bool:
    """Whether a channel says which field holds its pictures, and nothing else."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("field"), str)
        and set(value) <= {"field", "type", "title"}
    )


def _without_embed_options(spec: Spec) -> Spec:
    usermeta = spec.get("usermeta")
    if not isinstance(usermeta, Mapping) or "embedOptions" not in usermeta:
        return spec
    options = usermeta["embedOptions"]
    theme = options.get("theme") if isinstance(options, Mapping) else None
    named = isinstance(theme, str) and theme.isalnum() and theme != "constructor"
    return {**spec, "usermeta": {**usermeta, "embedOptions": {"theme": theme} if named else {}}}
