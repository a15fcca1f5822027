"""Our kinds of altair chart: with our look under what a user configures, also where composed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import wraps
from typing import Any

import altair as alt

from headgrid.charts.axes import restore_look
from headgrid.charts.spec import Spec, configure
from headgrid.errors import OptionError, show_value
from headgrid.inert import make_altair_inert
from headgrid.text import shorten_text

# Pages that altair writes of our charts, and of what it composes of them, hold our texts.
make_altair_inert()

#: What captions say of the value axes of panels, by how their scale is resolved.
VALUE_AXES = {
    "independent": "A value axis for each head",
    "shared": "One value axis for all heads",
}
#: Channels with a legend, of which each part of a composition keeps its own.
_CHANNELS = ("color", "fill", "opacity", "shape", "size", "stroke")
_COMPOSED = ("hconcat", "vconcat", "concat", "spec")


class _Ours:
    """What makes an altair chart a figure of headgrid's; see `_extend_altair`."""

    def properties(self, **changes: Any) -> Any:
        """Set properties of the chart, as of every altair chart; sizes are headgrid's."""
        for name in ("width", "height"):
            if name in changes:
                raise OptionError(
                    f"found {name}={show_value(changes[name])} in properties(), expected width= "
                    "where the figure is made, as in headgrid.heatmap(capture, width='13.97cm'); "
                    "a grid of panels has no other size"
                )
        parent: Any = super()
        return parent.properties(**changes)

    def __repr__(self) -> str:
        # altair's own is the whole chart, data and all.
        description = self.description  # type: ignore[attr-defined]
        told = shorten_text(description, 100) if isinstance(description, str) else "no data"
        return f"<{type(self).__name__} of {told}>"


class Grid(_Ours, alt.FacetChart):
    """An altair facet chart with headgrid's look under what a user configures."""


class Stack(_Ours, alt.VConcatChart):
    """Altair charts over each other, with headgrid's look under what a user configures."""


def _extend_altair() -> None:
    """Let altair's charts that are ours, or composed of ours, have their look and be shown alike.

    ``a | b`` is a chart of altair's own, and only the outermost chart may have a configuration:
    that of the first of our parts, under what a user configures, so that
    ``configure_axis(labelFontSize=9)`` changes that one setting alone.
    """
    mixin: Any = alt.TopLevelMixin
    to_dict, show = mixin.to_dict, mixin._repr_mimebundle_

    @wraps(to_dict)
    def with_look(self: Any, *args: Any, **options: Any) -> Spec:
        spec: Spec = to_dict(self, *args, **options)
        parts = _parts(self)
        if not parts or options.get("format", "vega-lite") != "vega-lite":
            return spec
        whole = parts[0] is self
        if whole:
            _tell_value_axes(spec)
        else:
            scales = spec.setdefault("resolve", {}).setdefault("scale", {})
            spec["resolve"]["scale"] = {**dict.fromkeys(_CHANNELS, "independent"), **scales}
        if (options.get("context") or {}).get("top_level", True):
            _complete(spec, self, parts)
        elif whole:
            spec.pop("usermeta", None)
            _name_apart(spec)
        return spec

    @wraps(show)
    def show_alike(self: Any, include: Any = None, exclude: Any = None, **options: Any) -> Any:
        # Unless somebody has chosen a renderer of altair's, or options of one.
        if alt.renderers.active == "default" and not alt.renderers.options and _parts(self):
            from headgrid.web.mimebundle import bundle_chart

            if (bundle := bundle_chart(self, include, exclude)) is not None:
                return bundle
        return show(self, include, exclude, **options)

    mixin.to_dict, mixin._repr_mimebundle_ = with_look, show_alike


def _parts(chart: Any) -> list[Any]:
    """Return the charts of ours that a chart is or is composed of."""
    if isinstance(chart, _Ours):
        return [chart]
    inner = (getattr(chart, kind, None) for kind in _COMPOSED)
    charts = [c for found in inner for c in (found if isinstance(found, list) else [found])]
    return [part for c in charts if isinstance(c, alt.TopLevelMixin) for part in _parts(c)]


def _complete(spec: Spec, chart: Any, parts: Sequence[Any]) -> None:
    """Add look and caption to a whole specification."""
    found = parts[0].usermeta
    stored = found.get("headgrid") if isinstance(found, dict) else None
    stored = dict(stored) if isinstance(stored, dict) else {}
    if parts[0] is not chart:  # the size of each is its own
        stored = {name: stored[name] for name in ("theme", "font") if name in stored}
        spec.setdefault("description", "; ".join(_captions(spec)))
    if isinstance(spec.get("description"), str):
        stored["caption"] = spec["description"]
    chosen = chart.config
    if not isinstance(chosen, dict):
        chosen = {} if chosen is alt.Undefined else chosen.to_dict()
    config = _overlay(spec.get("config") or {}, configure(restore_look(stored)))
    spec["config"] = _overlay(config, chosen)
    meta = spec.get("usermeta")
    spec["usermeta"] = {**(meta if isinstance(meta, dict) else {}), "headgrid": stored}


def _captions(spec: Spec) -> list[str]:
    """Return the captions of the parts of a composition."""
    if isinstance(spec.get("description"), str):
        return [spec["description"]]
    inner = [spec[kind] for kind in _COMPOSED if kind in spec]
    parts = [part for found in inner for part in (found if isinstance(found, list) else [found])]
    return [caption for part in parts for caption in _captions(part)]


def _tell_value_axes(spec: Spec) -> None:
    """Let the caption say of the value axes what holds for the finished chart."""
    caption = spec.get("description")
    if not isinstance(caption, str):
        return
    panel, resolved = spec.get("spec") or {}, (spec.get("resolve") or {}).get("scale") or {}
    channels = [(layer.get("encoding") or {}).get("y") for layer in panel.get("layer", ())]
    fixed = any("domain" in (y.get("scale") or {}) for y in channels if y)
    independent = resolved.get("y") == "independent" and not fixed
    told = VALUE_AXES["independent" if independent else "shared"]
    for sentence in VALUE_AXES.values():
        caption = caption.replace(sentence, told)
    spec["description"] = caption


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


_extend_altair()
