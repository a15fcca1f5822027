"""Vega's SVG -> small, seamless, deterministic SVG with live text."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr


def finish(raw: str, layout_font: str, family: str, description: str) -> str:
    body = raw.replace(f'font-family="{layout_font}"', f"font-family={quoteattr(family)}")
    width, height = size(raw)
    start = body.index(">") + 1
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'version="1.1" class="marks" width="{width:g}pt" height="{height:g}pt" '
        f'viewBox="0 0 {width:g} {height:g}" role="img">'
    )
    return f"{root}<desc>{escape(description)}</desc>{body[start:]}\n"


def size(drawing: str) -> tuple[float, float]:
    """Return width and height of a drawing in points."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    assert found is not None
    return float(found[1]), float(found[2])


def for_layout(drawing: str, family: str, layout_font: str) -> str:
    """Return the drawing as the renderer wants it: its own font, and no unit on its size."""
    drawing = drawing.replace(f"font-family={quoteattr(family)}", f'font-family="{layout_font}"')
    return re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', drawing, count=2)
