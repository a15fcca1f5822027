"""A base of altair charts: HTML with inert JSON, and a finished picture in a notebook."""

from __future__ import annotations

from typing import Any

from headgrid.inert import InertEncoder

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

            bundle = bundle_chart(self, include, exclude)
            if bundle is not None:
                return bundle
        if renderers.active not in _HTML_RENDERERS:
            return parent._repr_mimebundle_(include, exclude, **options)
        with renderers.enable(**_with_encoder(renderers.options)):
            return parent._repr_mimebundle_(include, exclude, **options)


def _with_encoder(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "json_kwds": {**(options.get("json_kwds") or {}), "cls": InertEncoder}}
