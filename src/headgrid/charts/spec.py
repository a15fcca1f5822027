"""Composed chart -> finished altair chart -> its canonical Vega-Lite specification and text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import altair as alt

from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, Look, restore_look, store_look
from headgrid.errors import RenderError
from headgrid.inert import make_altair_inert
from headgrid.options import FigureOptions, fill_title
from headgrid.text import shorten_list, shorten_text, wrap_text

# Pages that altair writes of our charts, and of what it composes of them, hold our texts.
make_altair_inert()

Spec: TypeAlias = dict[str, Any]
Records: TypeAlias = list[dict[str, Any]]
Drawn = TypeVar("Drawn")

#: V8's heap ends, and the process with it, between 0.6 and 1.39 million marks (vl-convert 1.9).
MAX_MARKS = 400_000


class ChartLike(Protocol):
    """What can be drawn: an altair chart, or anything with ``to_dict``."""

    def to_dict(self, validate: bool = True) -> Spec:
        """Return a Vega-Lite specification."""


class _Ours:
    """A base before altair's own: a look under what a user configures.

    ``configure_axis(labelFontSize=9)`` changes that one setting alone. A chart that is put beside
    another leaves its look and its ``usermeta`` out: only the outermost chart may have them.
    """

    def to_dict(
        self,
        validate: bool = True,
        *,
        format: Literal["vega-lite", "vega"] = "vega-lite",
        ignore: list[str] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Spec:
        """Return the Vega-Lite specification, as every altair chart does."""
        parent: Any = super()
        spec: Spec = parent.to_dict(validate, format=format, ignore=ignore, context=context)
        if format != "vega-lite":  # altair has compiled what it got from a call without format
            return spec
        if not (context or {}).get("top_level", True):
            spec.pop("usermeta", None)
            _name_apart(spec)
            return spec
        found: Any = spec.get("usermeta")
        stored = found.get("headgrid") if isinstance(found, dict) else None
        own = configure(restore_look(stored if isinstance(stored, dict) else {}))
        chosen = self.config  # type: ignore[attr-defined]
        if not isinstance(chosen, dict):
            chosen = {} if chosen is alt.Undefined else chosen.to_dict()
        spec["config"] = _overlay(_overlay(spec.get("config") or {}, own), chosen)
        return spec

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **options: Any) -> Any:
        # headgrid's own, unless somebody has chosen a renderer of altair's, or options of one.
        from altair import renderers

        parent: Any = super()
        if renderers.active == "default" and not renderers.options:
            from headgrid.web.mimebundle import bundle_chart

            chart: Any = self
            if (bundle := bundle_chart(chart, include, exclude)) is not None:
                return bundle
        return parent._repr_mimebundle_(include, exclude, **options)

    def __repr__(self) -> str:
        # altair's own is the whole chart, data and all.
        description = self.description  # type: ignore[attr-defined]
        told = shorten_text(description, 100) if isinstance(description, str) else "no data"
        return f"<{type(self).__name__} of {told}>"


class Grid(_Ours, alt.FacetChart):
    """An altair facet chart with headgrid's look under what a user configures."""


class Stack(_Ours, alt.VConcatChart):
    """Altair charts over each other, with headgrid's look under what a user configures."""


def _name_apart(spec: Spec) -> None:
    """Give the marks names of their own, as Vega-Lite mixes up parts whose marks share names."""
    text = json.dumps(spec, sort_keys=True, default=str)
    prefix = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()
    for layer in (spec.get("spec") or {}).get("layer") or ():
        if str(layer.get("name", "")).startswith("headgrid_"):
            layer["name"] = f"p{prefix}_{layer['name']}"


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one nested dictionary over another."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _overlay(under[key], over[key])
    return merged


def configure(look: Look) -> dict[str, Any]:
    """Return the configuration of a chart with a look."""
    ink = {"labelColor": INK, "titleColor": INK, "labelLimit": 0, "titleLimit": 0}
    return {
        "font": look.family,
        "background": "white",
        "padding": look.padding,
        "title": {"fontSize": look.figure_title, "fontWeight": "bold", "color": INK, "limit": 0},
        "header": {"labelFontWeight": "bold", "labelPadding": look.header_padding, **ink},
        "legend": {
            "gradientThickness": look.bar_thickness,
            "gradientStrokeColor": INK,
            "gradientStrokeWidth": look.tick_width,
            "gradientLabelOffset": look.tick_size
            + look.label_padding,  # finished figures have ticks
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
            "gridWidth": look.grid_width,
            "labelFontSize": look.tick_label,
            "labelPadding": look.label_padding,
            "tickColor": INK,
            "tickSize": look.tick_size,
            "tickWidth": look.tick_width,
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
    spacing: Mapping[str, float] | float = 0,
    meta: Mapping[str, Any] | None = None,
    width: float | None = None,
) -> Drawn:
    """Add data (None where the parts have their own), title, caption and look to a composed chart.

    ``width`` in points is found by `headgrid.render.convert` in ``usermeta``.
    """
    stored = {**(meta or {}), **store_look(look), "caption": caption}
    if width is not None:
        stored["width"] = width
    composed: Any = chart
    text = alt.TitleParams(text=list(title), anchor="middle", offset=look.title_offset)
    finished: Drawn = composed.properties(
        **({"title": text} if title else {}),
        description=caption,
        usermeta={"headgrid": stored},
        spacing=spacing,
        # A grid has no size of its own in the layout of what stands over it.
        bounds="full" if isinstance(chart, Stack) else "flush",
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
    return wrap_text(fill_title(options.title, layer=layer, run=run, prompt=prompt), columns)


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
    data: Any = spec.get("data")
    records = data.get("values") if isinstance(data, Mapping) else None
    try:
        if not isinstance(records, list):
            return _dump(spec, indent=1) + "\n"
        # It stands for the records while the outline is written, and in no title.
        stand_in = "headgrid-records-5b1f0c"
        rest = _dump({**spec, "data": {**data, "values": None}})
        while stand_in in rest:
            stand_in += "-"
        outline = _dump({**spec, "data": {**data, "values": stand_in}}, indent=1)
        lines = ",\n".join(f"   {_dump(record)}" for record in records)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None
    return outline.replace(f'"{stand_in}"', f"[\n{lines}\n  ]", 1) + "\n"


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
