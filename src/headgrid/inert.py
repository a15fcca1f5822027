"""JSON -> JSON that can stand in a script element, also where altair puts it there.

altair writes a chart's specification into ``<script>`` as it is, so that a prompt
with ``</script>`` in it would run what follows. Escaped, it is the same JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headgrid.shown import show_chart

# `<` could end the script, `>` and `&` matter in XHTML, and the two separators were no
# part of a text in older JavaScript. In JSON they only occur inside texts.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
# altair's renderers that write HTML; the others would take an option for their own.
_HTML_RENDERERS = ("default", "html", "colab", "kaggle", "zeppelin", "olli", "browser")


def make_inert(text: str) -> str:
    r"""Return JSON with everything escaped that means something in HTML or JavaScript.

    >>> make_inert('{"title": "</script>"}')
    '{"title": "\\u003c/script\\u003e"}'
    """
    return text.translate(_ESCAPES)


class InertEncoder(json.JSONEncoder):
    r"""A JSON encoder whose output can stand in a script element.

    altair takes it for charts that it composes of ours:
    ``alt.renderers.enable("default", json_kwds={"cls": InertEncoder})``.

    >>> json.dumps(["<!--"], cls=InertEncoder)
    '["\\u003c!--"]'
    """

    def encode(self, o: Any) -> str:
        """Return a value as JSON."""
        return make_inert(super().encode(o))

    def iterencode(self, o: Any, _one_shot: bool = False) -> Iterator[str]:
        """Yield a value as pieces of JSON."""
        return map(make_inert, super().iterencode(o, _one_shot))


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
            bundle = show_chart(self, include, exclude)
            if bundle is not None:
                return bundle
        if renderers.active not in _HTML_RENDERERS:
            return parent._repr_mimebundle_(include, exclude, **options)
        with renderers.enable(**_with_encoder(renderers.options)):
            return parent._repr_mimebundle_(include, exclude, **options)


def _with_encoder(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "json_kwds": {**(options.get("json_kwds") or {}), "cls": InertEncoder}}
