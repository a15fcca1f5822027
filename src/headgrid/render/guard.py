"""Specification -> the same, if it names nothing outside itself and can be drawn.

A figure holds all that it shows. Refused, in every format alike and before the
engine sees them, are data, pictures, links and paints from elsewhere, settings of
the page around the figure, and amounts with which the engine would take the
process down (its heap ends at 1.4 GB). Expressions may be any: they are not
JavaScript and have no function that fetches, pages interpret them, and the engine
has no network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headgrid.charts.spec import MAX_MARKS, Spec
from headgrid.errors import RenderError
from headgrid.text import quote_text

PNG_URI = "data:image/png;base64,"

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/vega-lite/v\d+(\.\d+)*\.json#?")
_PNG = re.compile(re.escape(PNG_URI) + r"[A-Za-z0-9+/]*={0,2}")
_PAINTS = ("fill", "stroke", "background", "range", "scheme")
_THEME = re.compile(r"(?!constructor$)[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
# Transforms that make no field but those that they name.
_NAMED_TRANSFORMS = {"calculate", "as", "filter", "aggregate", "groupby"}
#: Functions that make much of little: a few bytes are enough to fill the engine's heap.
_GENERATOR = re.compile(r"\b(?:sequence|pad|timeSequence|utcSequence)\s*\(")
_EXPRESSIONS = ("calculate", "expr", "labelExpr", "signal", "update", "filter", "test")
#: The largest number, or the longest list, that may stand under a key; far above what can be
#: seen in a figure.
_LARGEST = {
    **dict.fromkeys(("width", "height", "continuousWidth", "continuousHeight"), 100_000),
    **dict.fromkeys(("step", "gradientLength", "columns"), 100_000),
    **dict.fromkeys(("maxbins", "steps", "keyvals"), 10_000),
    **dict.fromkeys(("text", "title", "subtitle", "repeat"), 1_000),
    "sequence": MAX_MARKS,
    "tickCount": 2_000,
    "order": 100,
}
#: Levels of lists and dictionaries within each other.
_MAX_DEPTH = 100
_PANEL_MARKS = 150  # 150 kB of V8's heap, measured with 9,000 panels; a cell takes about 1 kB

_REFERENCE = re.compile(
    r'url\((?!#|&quot;#)|href="(?!#|data:image/png;base64,)|(?:style|cursor)="[^"]*\\',
    re.IGNORECASE,
)
_TAG = re.compile(r'<[\w:]+(?:\s+[\w:-]+="[^"]*")*\s*/?>')
_ATTRIBUTE = re.compile(r'\s([\w:-]+)="([^"]*)"')


def check_spec(spec: Spec) -> Spec:
    """Return a specification that is safe to draw and to embed, or say why it is not.

    Options of vega-embed in ``usermeta`` are left out; the name of a theme stays.

    Raises
    ------
    RenderError
        With what is refused, and where it stands.

    Examples
    --------
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
    for path, node in _walk(spec):
        for key, value in node.items():
            expected = _find_escape(path, key, value) or _find_excess(path, key, value, node)
            if expected:
                place = f"{path}.{key}".lstrip(".")
                raise RenderError(
                    f"the specification has {quote_text(str(value), 60)} at {place[:80]}, "
                    f"expected {expected}"
                )
    _refuse_pictures(spec)
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


def check_drawing(drawing: str) -> None:
    """Refuse an SVG that names something outside itself."""
    if not _REFERENCE.search(drawing):
        return
    for tag in _TAG.finditer(drawing):  # a text may say the same, and is no reference
        for name, value in _ATTRIBUTE.findall(tag.group()):
            if _REFERENCE.search(f'{name}="{value}"'):
                raise RenderError(
                    f"the drawing names {quote_text(value)} in {name}, expected nothing outside "
                    "itself; nothing is fetched or linked"
                )


def count_marks(spec: Spec) -> int:
    """Return about how many marks a figure will have, in units of a heatmap's cell.

    Every value is a mark in each layer that draws it; a vertex of a line takes
    half a mark, and a panel with its axes and labels as much as 150.
    """
    nodes = [node for path, node in _walk(spec) if not path.startswith("config")]
    marks = [node["mark"] for node in nodes if "mark" in node]
    names = [mark.get("type") if isinstance(mark, Mapping) else mark for mark in marks]
    # A frame is one mark a panel: its data are aggregated.
    frames = sum(isinstance(node.get("aggregate"), list) for node in nodes)
    weight = sum(0.5 if name in ("line", "area", "trail") else 1.0 for name in names) - frames
    facet = spec.get("facet")
    field = facet.get("field") if isinstance(facet, Mapping) else None
    values, longest, panels = 0, 1, set()
    for record in _records(spec):
        inside = record if isinstance(record, Mapping) else {}
        length = max((len(v) for v in inside.values() if isinstance(v, list)), default=1)
        values, longest = values + length, max(longest, length)
        panels.add(str(inside.get(field) if isinstance(field, str) else None))
    # One step lays out the lists that are counted above; from the second on they multiply.
    steps = [[step for step in _steps(node) if {"flatten", "fold"} & step.keys()] for node in nodes]
    folds = [len(_texts(step.get("fold"))) for several in steps for step in several]
    times = max(longest, *folds, 1) ** max(max(map(len, steps)) - 1, 0)
    return int(values * times * max(weight, 1.0)) + _PANEL_MARKS * len(panels)


def walk_spec(spec: Spec) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a specification but its data and ``usermeta``."""
    return (node for _, node in _walk(spec))


def _check_depth(spec: Any) -> None:
    """Refuse what is nested deeper than any figure: the engine reads JSON up to 128 levels."""
    level = [spec]
    for _ in range(_MAX_DEPTH):
        children = (
            child
            for node in level
            for child in (node.values() if isinstance(node, Mapping) else node)
            if isinstance(child, (list, tuple, Mapping))
        )
        level = list({id(child): child for child in children}.values())
        if not level:
            return
    raise RenderError(
        f"the specification is nested more than {_MAX_DEPTH} levels, expected a Vega-Lite "
        "specification; figures have about 12"
    )


def _walk(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            is_data = key == "values" and path.rpartition(".")[2] == "data"
            if key not in ("datasets", "usermeta") and not is_data:
                yield from _walk(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]")


def _sources(spec: Spec) -> Iterator[Any]:
    """Yield everything that data come from."""
    yield from (node["data"] for node in walk_spec(spec) if node.get("data") is not None)
    datasets = spec.get("datasets")
    for records in datasets.values() if isinstance(datasets, Mapping) else ():
        yield {"values": records}


def _records(spec: Spec) -> Iterator[Any]:
    for source in _sources(spec):
        records = source.get("values") if isinstance(source, Mapping) else None
        yield from records if isinstance(records, list) else ()


def _steps(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = node.get("transform")
    return [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []


def _find_escape(path: str, key: str, value: Any) -> str | None:
    """Return what is expected in the place of something that leads out of the figure."""
    if key == "href" or (key in ("url", "baseURL") and not _is_field(value) and not _is_png(value)):
        return "data inside the specification; nothing is fetched or linked"
    paints = key.lower().endswith("color") or key in _PAINTS
    if paints and any("url(" in text.lower() for text in _texts(value)):
        return "a colour or another plain value; nothing is fetched"
    if (
        (key == "cursor" and not re.fullmatch(r"[a-z-]{1,20}", str(value)))
        or (key == "element" and "bind" in re.split(r"[.\[]", path))
        or (key in ("signals", "events") and path == "config")
    ):
        return "a figure that leaves its page and its machine alone; take it out"
    return None


def _find_excess(path: str, key: str, value: Any, node: Mapping[str, Any]) -> str | None:
    """Return what is expected in the place of an amount that the engine does not survive."""
    reason = "beyond which the renderer runs out of time or memory"
    if key in _EXPRESSIONS and any(_GENERATOR.search(text) for text in _texts(value)):
        return f"no sequence and no padding, {reason}"
    if key in _LARGEST and not _amount(key, value) <= _LARGEST[key]:
        return f"at most {_LARGEST[key]:,}, {reason}"
    smallest = 1e-4 if "quantile" in node else 0.1 if path.endswith("graticule") else 0.0
    if key.startswith("step") and any(abs(number) < smallest for number in _numbers(value)):
        return f"at least {smallest:g}, {reason}"
    return None


def _amount(key: str, value: Any) -> float:
    """Return the size of a number, the length of a list or a sequence; 0 of anything else."""
    if key in ("sequence", "keyvals") and not isinstance(value, list):
        try:
            return abs(float((value["stop"] - value.get("start", 0)) / value.get("step", 1)))
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return math.inf
    if key == "repeat" and isinstance(value, Mapping):
        return math.prod(len(part) for part in value.values() if isinstance(part, list))
    if isinstance(value, list):
        return len(value)
    return abs(_numbers(value)[0]) if _numbers(value) else 0


def _numbers(value: Any) -> list[float]:
    found = value if isinstance(value, list) else [value]
    return [n for n in found if isinstance(n, (int, float)) and not isinstance(n, bool)]


def _refuse_pictures(spec: Spec) -> None:
    """Refuse image marks unless every picture stands in the data, where it can be looked at."""
    nodes = list(walk_spec(spec))
    fields = [node["url"]["field"] for node in nodes if _is_field(node.get("url"))]
    if not fields:
        return
    made = {text for node in nodes for text in _texts(node.get("as"))}
    kinds = {key for node in nodes for step in _steps(node) for key in step}
    plain = all(
        isinstance(source, Mapping)
        and set(source) <= {"values", "name"}
        and isinstance(source.get("values", []), list)
        for source in _sources(spec)
    )
    if made.intersection(fields) or kinds - _NAMED_TRANSFORMS or not plain:
        raise RenderError(
            f"the specification computes pictures (field {quote_text(str(fields[0]))}), expected "
            f"them as PNGs in a list of records ({PNG_URI}...); nothing is fetched"
        )
    for record in _records(spec):
        for field in fields:
            found = record.get(field) if isinstance(record, Mapping) else record
            if not _is_png(found):
                raise RenderError(
                    f"the data name {quote_text(str(found))} as an image, expected a PNG as a "
                    f"data URI ({PNG_URI}...); nothing is fetched"
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


def _texts(value: Any) -> list[str]:
    """Return all texts in a value, its lists and conditions (``and``, ``or``, ``not``)."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value
    return [t for v in inner for t in _texts(v)] if isinstance(inner, Iterable) else []


def _without_embed_options(spec: Spec) -> Spec:
    usermeta = spec.get("usermeta")
    if not isinstance(usermeta, Mapping) or "embedOptions" not in usermeta:
        return spec
    options = usermeta["embedOptions"]
    theme = options.get("theme") if isinstance(options, Mapping) else None
    kept = {key: value for key, value in usermeta.items() if key != "embedOptions"}
    if isinstance(theme, str) and _THEME.fullmatch(theme):
        kept["embedOptions"] = {"theme": theme}
    return {**spec, "usermeta": kept}
