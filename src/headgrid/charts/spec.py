"""Composed chart -> finished altair chart -> its canonical Vega-Lite specification and text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import altair as alt

from headgrid.capture.model import Capture
from headgrid.charts.axes import FAMILIES, INK, Look, store_look
from headgrid.errors import RenderError
from headgrid.options import FigureOptions
from headgrid.text import shorten_list, shorten_text, wrap_text

Spec: TypeAlias = dict[str, Any]
Records: TypeAlias = list[dict[str, Any]]
Drawn = TypeVar("Drawn")

_SCHEMA = re.compile(r"(/vega-lite/v\d+)\.[\d.]+json")
#: V8's heap ends, and the process with it, between 0.6 and 1.39 million marks (vl-convert 1.9).
MAX_MARKS = 400_000
#: Levels of lists and dictionaries within each other; the engine reads JSON up to 128.
_MAX_DEPTH = 100


class ChartLike(Protocol):
    """What can be drawn: an altair chart, or anything with ``to_dict``."""

    def to_dict(self, validate: bool = True) -> Spec:
        """Return a Vega-Lite specification."""


def configure(look: Look) -> dict[str, Any]:
    """Return the configuration of a chart with a look."""
    ink = {"labelColor": INK, "titleColor": INK, "labelLimit": 0, "titleLimit": 0}
    return {
        "font": FAMILIES[look.font],
        "background": "white",
        "padding": look.padding,
        "title": {"fontSize": look.figure_title, "fontWeight": "bold", "color": INK, "limit": 0},
        "header": {"labelFontWeight": "bold", "labelPadding": look.header_padding, **ink},
        "legend": {
            "gradientThickness": look.bar_thickness,
            "gradientStrokeColor": INK,
            "gradientStrokeWidth": look.frame_width,
            # Finished figures have ticks.
            "gradientLabelOffset": look.tick_size + look.label_padding,
            "labelFontSize": look.bar_label,
            "titleFontSize": look.bar_title,
            "titleFontWeight": "normal",
            "titlePadding": look.bar_title / 2,
            "offset": look.bar_offset,
            **ink,
        },
        # Vega would draw a frame up to half a point from its panel.
        "style": {"cell": {"strokeOffset": 0}},
        "axis": {
            "domain": False,
            # Ticks and grid stand at their values: Vega rounds them, and moves them half a point.
            "tickRound": False,
            "translate": 0,
            "gridColor": "#b0b0b0",
            "gridOpacity": 0.3,
            "gridWidth": look.frame_width,  # which hides its ends
            "labelFontSize": look.tick_label,
            "labelPadding": look.label_padding,
            "tickColor": INK,
            "tickSize": look.tick_size,
            "tickWidth": look.frame_width,
            "titleFontSize": look.axis_title,
            "titleFontWeight": "normal",
            "titlePadding": look.title_padding,
            **ink,
        },
        "axisBand": {"tickOffset": 0},
    }


def finish_chart(
    chart: Drawn,
    records: Records | None,
    look: Look,
    *,
    title: Sequence[str] = (),
    caption: str = "",
    meta: Mapping[str, Any] | None = None,
) -> Drawn:
    """Add data (None where the parts have their own), title, caption and look to a composed chart.

    Its width in points is found by `headgrid.render.convert` in ``usermeta``.
    """
    stored = {**(meta or {}), **store_look(look), "caption": caption}
    composed: Any = chart
    text = alt.TitleParams(text=list(title), anchor="middle", offset=look.title_offset)
    finished: Drawn = composed.properties(
        **({"title": text} if title else {}),
        description=caption,
        usermeta={"headgrid": stored},
        # A grid has no size of its own in the layout of what stands over it.
        bounds="full" if isinstance(chart, alt.VConcatChart) else "flush",
    )
    return finished if records is None else fill(finished, records)


def fill(chart: Drawn, records: Records) -> Drawn:
    """Put data into a chart that is otherwise ready."""
    # Records that are there while altair builds the chart are validated and copied one by one.
    inline = alt.InlineData(values=[])
    inline.values = records
    chart.data = inline  # type: ignore[attr-defined]
    return chart


def write_title(
    options: FigureOptions,
    look: Look,
    own: Sequence[str],
    captures: Sequence[Capture],
    columns: int,
    layers: Sequence[int] = (),
) -> list[str]:
    """Return the title's lines: what is asked for, with what captures share, or a figure's own."""
    if options.title is None:
        return list(own) if look.own_title else []
    numbers = sorted({*layers, *(capture.layer_index for capture in captures)})
    runs = list(dict.fromkeys(capture.run for capture in captures if capture.run))
    prompts = {capture.prompt for capture in captures}
    prompt = prompts.pop() if len(prompts) == 1 else ""
    layer, run = shorten_list(numbers), shorten_list(runs)
    return wrap_text(options.title.format(layer=layer, run=run, prompt=prompt), columns)


def check_depth(spec: Any) -> None:
    """Refuse what is nested so deep that neither the engine nor JSON can follow."""
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


def to_spec(chart: ChartLike | Mapping[str, Any], *, validate: bool = True) -> Spec:
    """Return the canonical Vega-Lite specification of a chart.

    Parameters
    ----------
    chart : altair chart or mapping
        A mapping is taken to be a specification already.
    validate : bool
        Let altair check the chart against Vega-Lite's schema, which takes longer
        than all else; for charts that nobody customised it finds nothing.

    Returns
    -------
    dict
        JSON-able. The same chart gives the same specification, with its data
        inline; stable within a minor version of headgrid.

    Raises
    ------
    RenderError
        For anything that is neither, and for values that JSON does not have.

    Examples
    --------
    >>> to_spec({"mark": "bar", "data": {"values": []}})["mark"]
    'bar'
    """
    if isinstance(chart, Mapping):
        spec = dict(chart)
    elif hasattr(chart, "to_dict"):
        spec = chart.to_dict(validate=validate)
        # Versions of altair name versions of Vega-Lite that draw the same.
        if isinstance(schema := spec.get("$schema"), str):
            spec["$schema"] = _SCHEMA.sub(r"\1.json", schema)
    else:
        raise RenderError(
            f"found {type(chart).__name__}, expected an altair chart or a Vega-Lite specification"
        )
    try:
        return _with_inline_data(spec)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None


def to_json(chart: ChartLike | Mapping[str, Any]) -> str:
    """Return the canonical text of a specification: sorted keys, one line a record, UTF-8.

    Raises
    ------
    RenderError
        For values that JSON does not have (NaN, infinity, numpy scalars).

    Examples
    --------
    >>> print(to_json({"mark": "bar", "data": {"values": [{"b": 1, "a": 2}]}}), end="")
    {
     "data": {
      "values": [
       {"a":2,"b":1}
      ]
     },
     "mark": "bar"
    }
    """
    spec = to_spec(chart)
    check_depth(spec)
    data: Any = spec.get("data")
    records = data.get("values") if isinstance(data, Mapping) else None
    try:
        if not isinstance(records, list):
            return _dump(spec, indent=1) + "\n"
        outline = _dump({**spec, "data": {**data, "values": []}}, indent=1)
        lines = ",\n".join(f"   {_dump(record)}" for record in records)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None
    before, start, rest = outline.partition('\n "data": {')  # no text of JSON's has a line end
    place = '\n  "values": ['
    return before + start + rest.replace(place, f"{place}\n{lines}\n  ", 1) + "\n"


def _unwritable(error: Exception) -> RenderError:
    found = shorten_text(str(error).partition("\n")[0], 200)
    return RenderError(
        f"the specification holds a value that JSON does not have ({found}); "
        "expected text, finite numbers, lists and dictionaries"
    )


def _dump(value: Any, indent: int | None = None) -> str:
    style: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "sort_keys": True}
    text = json.dumps(value, indent=indent, separators=(",", ": " if indent else ":"), **style)
    # A lone surrogate has no UTF-8; JSON's escape for it is kept instead.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _with_inline_data(spec: Spec) -> Spec:
    """Put the data set that altair moved to the top under a hash back where it is used."""
    data, datasets = spec.get("data"), spec.get("datasets")
    if not (isinstance(data, Mapping) and isinstance(datasets, Mapping)):
        return spec
    name = data.get("name")
    if not isinstance(name, str) or name not in datasets or not name.startswith("data-"):
        return spec
    others = {key: value for key, value in datasets.items() if key != name}
    rest = {key: value for key, value in spec.items() if key != "datasets"}
    if f'"{name}"' in json.dumps({**rest, "data": None}, default=str):
        return spec
    inline = {**data, "values": datasets[name]}
    del inline["name"]
    return {**rest, "data": inline, **({"datasets": others} if others else {})}
