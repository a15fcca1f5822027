"""Specification -> the same, after a check that it fetches, links and runs nothing.

A figure holds all that it shows. What would reach beyond it is refused, in every
format alike, whoever wrote the specification:

- data, pictures and links by URL; a picture may only be a PNG inside the data;
- a ``$schema`` that is not Vega-Lite's, which would let Vega itself read it;
- expressions with a name that Vega-Lite's expressions do not need: what they may
  use is ``datum``, the chart's own parameters, and functions of their arguments;
- amounts that the engine does not survive (see `amounts`);
- settings of the page: form fields elsewhere on it, images as mouse pointers,
  options of vega-embed other than the name of a theme.

Text is never an expression: labels of figures go into expressions as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headgrid.charts.spec import MAX_MARKS, Spec
from headgrid.errors import RenderError
from headgrid.render.amounts import count_sequence, refuse_amounts
from headgrid.render.anatomy import records_of, walk
from headgrid.render.expressions import find_forbidden
from headgrid.text import quote_text

PNG_URI = "data:image/png;base64,"

_SCHEMA = re.compile(r"https://vega\.github\.io/schema/vega-lite/v\d+(\.\d+)*\.json#?")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_EXPRESSIONS = ("calculate", "expr", "labelExpr", "signal", "update", "filter", "test", "toggle")
_SELECTORS = ("on", "clear", "translate", "zoom")
_PAINTS = ("fill", "stroke", "background", "range", "scheme", "cursor")
_UNSAFE_FIELD = re.compile(r"(^|[.\[\]'\"\\])(__proto__|constructor|prototype)($|[.\[\]'\"\\])")
# Transforms that make no field but those that they name.
_NAMED_TRANSFORMS = {"calculate", "as", "filter", "aggregate", "groupby"}
_SUSPICIOUS = re.compile(
    r'url\((?!#|&quot;#)|href="(?!#|data:image/png;base64,)|(?:style|cursor)="[^"]*\\',
    re.IGNORECASE,
)
_TAG = re.compile(r'<[\w:]+(?:\s+[\w:-]+="[^"]*")*\s*/?>')
_ATTRIBUTE = re.compile(r'\s([\w:-]+)="([^"]*)"')
_THEME = re.compile(r"[A-Za-z0-9_-]{1,40}")


def check_spec(spec: Spec) -> Spec:
    """Return a specification that is safe to draw and to embed, or say why it is not.

    Parameters
    ----------
    spec : dict
        A Vega-Lite specification.

    Returns
    -------
    dict
        The same, without options of vega-embed in ``usermeta`` (the name of a
        theme stays).

    Raises
    ------
    RenderError
        Where it asks for something outside itself; see the module's list.

    Examples
    --------
    >>> check_spec({"mark": "bar", "data": {"url": "https://example.org/a.csv"}})
    Traceback (most recent call last):
        ...
    headgrid.errors.RenderError: the specification names 'https://example.org/a.csv' at data.url, \
expected data inside the specification; nothing is fetched or linked
    """
    schema = spec.get("$schema")
    if schema and not _SCHEMA.fullmatch(str(schema)):
        raise RenderError(
            f"the specification's $schema is {quote_text(str(schema))}, expected one of "
            "Vega-Lite's (https://vega.github.io/schema/vega-lite/v6.json)"
        )
    names = {"width", "height", *_parameter_names(spec)}
    for path, key, value in walk(spec):
        _refuse_url(path, key, value)
        _refuse_page_settings(path, key, value)
        _refuse_expressions(path, key, value, names)
    _refuse_pictures(spec)
    refuse_amounts(spec)
    return _without_embed_options(spec)


def check_drawing(drawing: str) -> None:
    """Refuse an SVG that names something outside itself.

    Raises
    ------
    RenderError
        For a link, a picture that is not inside, or a paint from elsewhere.
    """
    if not _SUSPICIOUS.search(drawing):
        return
    for tag in _TAG.finditer(drawing):  # a text may say the same, and is no reference
        for name, value in _ATTRIBUTE.findall(tag.group()):
            if _SUSPICIOUS.search(f'{name}="{value}"'):
                raise RenderError(
                    f"the drawing names {quote_text(value)} in {name}, expected nothing outside "
                    "itself; nothing is fetched or linked"
                )


def _refuse_url(path: str, key: str, value: Any) -> None:
    if key == "href" or (key in ("url", "baseURL") and not _is_field(value) and not is_png(value)):
        raise RenderError(
            f"the specification names {quote_text(str(value))} at {path}, expected data inside "
            "the specification; nothing is fetched or linked"
        )
    paints = key.lower().endswith("color") or key in _PAINTS
    if paints and any("url(" in text.lower() for text in _strings(value)):
        raise RenderError(
            f"the specification has {quote_text(str(value))} at {path}, expected a colour or "
            "another plain value; nothing is fetched"
        )


def _refuse_page_settings(path: str, key: str, value: Any) -> None:
    wrong = (
        (key == "cursor" and not re.fullmatch(r"[a-z-]{1,20}", str(value)))
        or (key == "element" and ".bind." in f".{path}")
        or (key in ("signals", "events") and path.startswith("config."))
        or (path.endswith("data.sequence") and count_sequence(value) > MAX_MARKS)
    )
    if wrong:
        raise RenderError(
            f"the specification has {quote_text(str(value))} at {path}, expected a figure that "
            "leaves its page and its machine alone; take it out"
        )


def _refuse_expressions(path: str, key: str, value: Any, names: set[str]) -> None:
    found = None
    if key in _EXPRESSIONS or key in _SELECTORS:
        for text in _conditions(value):
            found = found or find_forbidden(text, names, selector=key in _SELECTORS)
    elif key in ("field", "as"):
        found = next((text for text in _strings(value) if _UNSAFE_FIELD.search(text)), None)
    elif key == "format" and isinstance(value, str) and re.search(r"[\"'\\]", value):
        found = value
    elif key == "formatType" and value not in ("number", "time", "utc"):
        found = str(value)
    if found is not None:
        raise RenderError(
            f"the specification uses {quote_text(found)} at {path}, expected datum, the chart's "
            "own parameters and Vega's functions of numbers, texts and dates; nothing else is run"
        )


def _refuse_pictures(spec: Spec) -> None:
    """Refuse image marks unless every picture stands in the data, where it can be looked at."""
    fields = [value["field"] for _, key, value in walk(spec) if key == "url" and _is_field(value)]
    if not fields:
        return
    made = [value for _, key, value in walk(spec) if key == "as"]
    kinds = {key for _, key, value in walk(spec) if key == "transform" for key in _keys(value)}
    if any(field in _strings(made) for field in fields) or kinds - _NAMED_TRANSFORMS:
        raise RenderError(
            f"the specification computes pictures (field {quote_text(str(fields[0]))}), expected "
            f"them as PNGs in the data ({PNG_URI}...); nothing is fetched"
        )
    if not all(_is_plain(source) for source in _sources(spec)):
        raise RenderError(
            "the data of pictures are generated, or written as text, expected a list of records; "
            "nothing is fetched"
        )
    for record in records_of(spec):
        for field in fields:
            found = record.get(field) if isinstance(record, Mapping) else record
            if not is_png(found):
                raise RenderError(
                    f"the data name {quote_text(str(found))} as an image, expected a PNG as a "
                    f"data URI ({PNG_URI}...); nothing is fetched"
                )


def _sources(spec: Spec) -> Iterator[Any]:
    """Yield everything that data come from."""
    yield from (value for _, key, value in walk(spec) if key == "data")
    datasets = spec.get("datasets")
    for records in datasets.values() if isinstance(datasets, Mapping) else ():
        yield {"values": records}


def _is_plain(source: Any) -> bool:
    """Whether data are a list of records as they stand, or the name of one."""
    return (
        isinstance(source, Mapping)
        and set(source) <= {"values", "name"}
        and isinstance(source.get("values", []), list)
    )


def is_png(value: Any) -> bool:
    """Whether a value is a PNG inside a data URI.

    >>> is_png("data:image/png;base64,iVBORw0KGgo="), is_png("https://example.org/a.png")
    (True, False)
    """
    return (
        isinstance(value, str)
        and value.startswith(PNG_URI)
        and _BASE64.fullmatch(value, len(PNG_URI)) is not None
    )


def _is_field(value: Any) -> bool:
    """Whether a channel says which field holds its pictures, and nothing else."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("field"), str)
        and set(value) <= {"field", "type", "title"}
    )


def _keys(transforms: Any) -> set[str]:
    steps = transforms if isinstance(transforms, list) else []
    return {str(key) for step in steps if isinstance(step, Mapping) for key in step}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in _strings(entry)]
    return []


def _conditions(value: Any) -> Iterator[str]:
    """Yield the expressions of a condition, which may be composed with and, or, not."""
    if isinstance(value, Mapping):
        for key in ("and", "or", "not"):
            yield from _conditions(value.get(key))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _conditions(entry)
    elif isinstance(value, str):
        yield value


def _parameter_names(spec: Spec) -> Iterator[str]:
    for _, key, value in walk(spec):
        if key == "params" and isinstance(value, Iterable):
            for entry in value:
                if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                    yield entry["name"]


def _without_embed_options(spec: Spec) -> Spec:
    usermeta = spec.get("usermeta")
    if not isinstance(usermeta, Mapping) or "embedOptions" not in usermeta:
        return spec
    options = usermeta["embedOptions"]
    theme = options.get("theme") if isinstance(options, Mapping) else None
    kept = {key: value for key, value in usermeta.items() if key != "embedOptions"}
    if isinstance(theme, str) and _THEME.fullmatch(theme) and not _UNSAFE_FIELD.search(theme):
        kept["embedOptions"] = {"theme": theme}
    return {**spec, "usermeta": kept}
