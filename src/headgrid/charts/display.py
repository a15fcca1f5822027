"""altair charts with our look under what a user configures, inert HTML and a finished picture."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import altair as alt

from headgrid.charts.look import configure, restore_look
from headgrid.charts.spec import Spec
from headgrid.inert import InertEncoder
from headgrid.text import shorten_text

# altair's renderers that write HTML; the others would take an option for their own.
_HTML_RENDERERS = ("default", "html", "colab", "kaggle", "zeppelin", "olli", "browser")


class InertDisplay:
    """A base of altair charts (before altair's own) that writes HTML with inert JSON."""

    def to_html(self, *args: Any, **options: Any) -> str:
        """Return the chart in a page, as every altair chart does."""
        parent: Any = super()
        html: str = parent.to_html(*args, **_with_encoder(options))
        return html

    def save(self, *args: Any, **options: Any) -> None:
        """Write the chart to a file, as every altair chart does."""
        parent: Any = super()
        parent.save(*args, **_with_encoder(options))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **options: Any) -> Any:
        # headgrid's own, unless somebody has chosen a renderer of altair's, or options of one.
        from altair import renderers

        parent: Any = super()
        if renderers.active == "default" and not renderers.options:
            from headgrid.web.mimebundle import bundle_chart

            chart: Any = self
            bundle = bundle_chart(chart, include, exclude)
            if bundle is not None:
                return bundle
        if renderers.active not in _HTML_RENDERERS:
            return parent._repr_mimebundle_(include, exclude, **options)
        with renderers.enable(**_with_encoder(renderers.options)):
            return parent._repr_mimebundle_(include, exclude, **options)


def _with_encoder(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "json_kwds": {**(options.get("json_kwds") or {}), "cls": InertEncoder}}


class _Looked:
    """A chart whose look lies under what a user configures.

    ``configure_axis(labelFontSize=9)`` changes that one setting, and not all
    others back to Vega-Lite's; a chart that is put beside another leaves its look
    and its ``usermeta`` out, as only the outermost chart may have them.
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
        outermost = (context or {}).get("top_level", True)
        if format != "vega-lite":  # altair compiles what it gets from a call without format
            compiled: Spec = parent.to_dict(validate, format=format, ignore=ignore, context=context)
            return compiled
        spec: Spec = parent.to_dict(validate, ignore=ignore, context=context)
        if not outermost:
            spec.pop("usermeta", None)
            _name_apart(spec)
            return spec
        config = self.config  # type: ignore[attr-defined]
        chosen = {} if config is alt.Undefined else _as_dict(config)
        own = configure(restore_look(spec.get("usermeta")))
        spec["config"] = _overlay(_overlay(spec.get("config") or {}, own), chosen)
        return spec

    def __repr__(self) -> str:
        # altair's own is the whole chart, data and all.
        description = self.description  # type: ignore[attr-defined]
        told = shorten_text(description, 100) if isinstance(description, str) else "no data"
        return f"<{type(self).__name__} of {told}>"


class Grid(InertDisplay, _Looked, alt.FacetChart):
    """An altair facet chart with headgrid's look under what a user configures."""


class Stack(InertDisplay, _Looked, alt.VConcatChart):
    """Altair charts over each other, with headgrid's look under what a user configures."""


def _name_apart(spec: Spec) -> None:
    """Give the marks names of their own, as Vega-Lite mixes up parts whose marks share names."""
    text = json.dumps(spec, sort_keys=True, default=str)
    prefix = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()
    for layer in (spec.get("spec") or {}).get("layer") or ():
        if str(layer.get("name", "")).startswith("headgrid_"):
            layer["name"] = f"p{prefix}_{layer['name']}"


def _as_dict(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = config if isinstance(config, dict) else config.to_dict()
    return found


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one nested dictionary over another."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _overlay(below, value)
        merged[key] = value
    return merged
