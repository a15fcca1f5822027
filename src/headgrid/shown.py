"""A value -> what a notebook shows of it, made by `display`, which stands above the value."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# A notebook asks a value for its picture, and the picture needs the modules that draw
# values: the one question that goes up the list of modules. It is asked by name, so that
# values can be read, and carry no drawing code, where nothing is ever shown.
_HOME = "headgrid.web.cards"


def show_card(kind: str, value: Any) -> str:
    """Return the HTML of a value, from ``headgrid.web.cards.show_KIND``."""
    html: str = getattr(import_module(_HOME), f"show_{kind}")(value)
    return html


def show_chart(chart: Any, include: Any = None, exclude: Any = None) -> Any:
    """Return the mime bundle of a chart, or None where it is not headgrid's to draw."""
    return import_module("headgrid.web.mimebundle").bundle_chart(chart, include, exclude)
