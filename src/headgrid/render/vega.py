"""Vega-Lite text -> Vega's SVG, SVG -> PNG and PDF; the only module that talks to vl-convert.

It imports little but that, so that a process of its own (see `headgrid.batch.processes`) starts
fast and stays small.
"""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

from headgrid.errors import RenderError
from headgrid.render.fonts import find_font_folders, without_system_fonts
from headgrid.text import shorten_text

# Threads may draw their first figures at the same time.
_FONTS = threading.Lock()


def draw_svg(text: str, schema: str = "") -> str:
    """Return the SVG that Vega draws of a Vega-Lite specification, as text.

    Parameters
    ----------
    text : str
        JSON that the engine survives: no control characters, no URLs.
    schema : str
        The specification's ``$schema``, which names the version of Vega-Lite.

    Raises
    ------
    RenderError
        Where the version is unknown, or the specification is not valid.
    """
    import vl_convert

    _load_own_fonts()
    version = _find_version(schema, vl_convert.get_vegalite_versions())
    try:
        drawn: str = vl_convert.vegalite_to_svg(text, vl_version=version, allowed_base_urls=[])
    except ValueError as error:
        raise RenderError(
            f"Vega-Lite could not draw the specification ({_first_line(error)}); "
            "expected a valid Vega-Lite chart"
        ) from None
    return drawn


def draw_png(drawing: str, scale: float) -> bytes:
    """Return the pixels of an SVG, ``scale`` of them to a point, as a large PNG."""
    import vl_convert

    _add_system_fonts()
    return bytes(vl_convert.svg_to_png(drawing, scale=scale))


def draw_pdf(drawing: str) -> bytes:
    """Return an SVG as a PDF with live text."""
    import vl_convert

    _add_system_fonts()
    return bytes(vl_convert.svg_to_pdf(drawing))


def bundle_javascript(schema: str = "") -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``.

    Parameters
    ----------
    schema : str
        A specification's ``$schema``; its version of Vega-Lite is the one inside.

    Raises
    ------
    RenderError
        Where the version is unknown.
    """
    import vl_convert

    version = _find_version(schema, vl_convert.get_vegalite_versions())
    snippet = "window.vegaEmbed=vegaEmbed;"
    bundle: str = vl_convert.javascript_bundle(snippet, vl_version=version)
    return bundle


def find_versions(schema: str = "") -> dict[str, str]:
    """Return the versions that a specification is drawn with: of Vega-Lite as ``major.minor``."""
    import vl_convert

    return {
        "vega": vl_convert.get_vega_version(),
        "vega-lite": _find_version(schema, vl_convert.get_vegalite_versions()),
        "vega-embed": vl_convert.get_vega_embed_version(),
    }


def warm_up() -> None:
    """Start V8 and load its fonts: a figure with a mark and a text."""
    encoding = '{"x":{"field":"a","type":"ordinal"}}'
    draw_svg(f'{{"data":{{"values":[{{"a":1}}]}},"mark":"rect","encoding":{encoding}}}')


def _load_own_fonts() -> None:
    """Let the engine find the fonts that it carries before those of the system.

    It would ask the system first, whose Liberation Sans may be of another version: text
    of other widths, and figures of other bytes. It would also open that font's file
    anew for every text that it measures, a third of the time of a figure.
    """
    with _FONTS:
        _load_own_fonts_once()


@cache
def _load_own_fonts_once() -> None:
    import vl_convert

    with without_system_fonts() as empty:
        vl_convert.register_font_directory(str(empty))  # loads what there is before


def _add_system_fonts() -> None:
    """Let the engine find the fonts of the system as well, for scripts that its own lack."""
    _load_own_fonts()
    with _FONTS:
        _add_system_fonts_once()


@cache
def _add_system_fonts_once() -> None:
    import vl_convert

    for folder in find_font_folders():
        vl_convert.register_font_directory(str(folder))


def _find_version(schema: str, available: list[str]) -> Any:
    """Return the Vega-Lite version that a schema names, as vl-convert spells it."""
    if not schema:
        return available[-1]
    found = re.search(r"/vega-lite/v(\d+)(?:\.(\d+))?", schema)
    if not found:
        raise RenderError(
            f"the specification's $schema is {schema!r}, expected one of Vega-Lite's "
            "(https://vega.github.io/schema/vega-lite/v6.json)"
        )
    major, minor = found.groups()
    same_major = [version for version in available if version.split(".")[0] == major]
    if not same_major:
        raise RenderError(
            f"the specification is for Vega-Lite {major}, expected one of {', '.join(available)}"
        )
    exact = f"{major}.{minor}"
    return exact if exact in same_major else same_major[-1]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if "Error" in line), lines[0] if lines else "no reason")
    return shorten_text(found, 400)
