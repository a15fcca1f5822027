"""Vega-Lite text -> Vega's SVG, SVG -> PNG and PDF; the only module that talks to vl-convert.

It imports little but that, so that a process of its own (see `headgrid.batch.processes`) starts
fast and stays small.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headgrid.errors import RenderError
from headgrid.text import shorten_text

#: Names the file that fontconfig, and the engine, read in place of the usual one.
_FONTCONFIG = "FONTCONFIG_FILE"
#: A folder that is not there: without any, the usual ones would be searched.
_NO_FONTS = '<?xml version="1.0"?><fontconfig><dir>/nonexistent</dir></fontconfig>'
_FOLDER = re.compile(r"<dir\b[^<>]*>([^<>]+)</dir>")
#: What may have a font of pictures alone: surely, and perhaps.
_EMOJI = "[\U0001f000-\U0001faff]", "[\u231a-\u23ff\u2600-\u27bf\u2b00-\u2bff]"
#: Address space that V8 reserves, 64 GiB, and some for all else; it uses little of it.
_ADDRESSES = 68 << 30
#: Megabytes; a chart that needs more is an error, and does not end the process.
_HEAP = 2048
# Threads may draw their first figures at the same time.
_LOADING = threading.Lock()
_loaded: set[str] = set()


def draw_svg(text: str, schema: str = "") -> str:
    """Return the SVG that Vega draws of JSON that it survives: no control characters, no URLs."""
    vl_convert = _load_engine()
    version = _find_version(schema, vl_convert.get_vegalite_versions())
    # From version 2 on the engine is told once.
    nothing: dict[str, Any] = {} if "configured" in _loaded else {"allowed_base_urls": []}
    try:
        return str(vl_convert.vegalite_to_svg(text, vl_version=version, **nothing))
    except ValueError as error:
        if "heap limit" in str(error):
            raise RenderError(
                f"the figure needs more memory than the engine's {_HEAP} MB; draw fewer heads or "
                "frames, or cells as images (cells='image', --cells image)"
            ) from None
        raise RenderError(
            f"Vega-Lite could not draw the specification ({_first_line(error)}); "
            "expected a valid Vega-Lite chart"
        ) from None


def draw_png(drawing: str, scale: float) -> bytes:
    """Return the pixels of an SVG, ``scale`` of them to a point, as a large PNG."""
    return bytes(_load_engine(system_fonts=True).svg_to_png(drawing, scale=scale))


def draw_pdf(drawing: str) -> bytes:
    """Return an SVG as a PDF with live text; the engine orders its objects anew every time."""
    engine = _load_engine(system_fonts=True)
    for signs in _EMOJI:
        try:
            return bytes(engine.svg_to_pdf(drawing))
        except RuntimeError:  # no PDF holds a font of pictures
            drawing = re.sub(signs, "\ufffd", drawing)
    return bytes(engine.svg_to_pdf(drawing))


def bundle_javascript(schema: str = "") -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``."""
    vl_convert = _import_engine()
    version = _find_version(schema, vl_convert.get_vegalite_versions())
    return str(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;", vl_version=version))


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


def _import_engine() -> Any:
    """Return vl-convert, where it can run: without a word it would hang, or end the process."""
    if "fork" in _loaded:
        raise RenderError(
            "this process was forked from one that has drawn figures, which the engine does not "
            "survive; start workers with multiprocessing.get_context('spawn') or 'forkserver'"
        )
    if sys.platform == "linux":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit < _ADDRESSES:
            raise RenderError(
                f"addresses are limited to {limit / 2**30:.1f} GB (ulimit -v), expected no limit "
                f"or {_ADDRESSES >> 30} GB, which the engine reserves and does not use; run ulimit "
                "-v unlimited, and limit memory by systemd-run -p MemoryMax= or a container"
            )
    import vl_convert

    if hasattr(vl_convert, "configure") and "engine" not in _loaded:
        vl_convert.configure(
            base_url=False, allowed_base_urls=[], max_v8_heap_size_mb=_HEAP, num_workers=1
        )
        _loaded.add("configured")
    _loaded.add("engine")
    return vl_convert


def _note_fork() -> None:
    if _loaded:
        _loaded.add("fork")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _load_engine(*, system_fonts: bool = False) -> Any:
    """Return vl-convert, which finds the fonts that it carries before those of the system.

    It would ask the system first, whose Liberation Sans may be of another version (text of
    other widths, figures of other bytes), and open that font's file anew for every text, a
    third of the time of a figure. The system's fonts are for scripts that its own lack.
    """
    vl_convert = _import_engine()
    with _LOADING:
        if "own" not in _loaded:
            _load_own_fonts(vl_convert)
            _loaded.add("own")
        if system_fonts and "system" not in _loaded:
            for folder in find_font_folders():
                vl_convert.register_font_directory(str(folder))
            _loaded.add("system")
    return vl_convert


def _load_own_fonts(vl_convert: Any) -> None:
    before = {name: value for name, value in os.environ.items() if name == _FONTCONFIG}
    with TemporaryDirectory() as folder:
        empty, config = Path(folder, "empty"), Path(folder, "fonts.conf")
        empty.mkdir()
        config.write_text(_NO_FONTS, encoding="utf-8")
        os.environ[_FONTCONFIG] = str(config)
        try:
            vl_convert.register_font_directory(str(empty))  # loads what there is before
        finally:
            del os.environ[_FONTCONFIG]
            os.environ.update(before)


def find_font_folders() -> list[Path]:
    """Return the usual folders of fonts, and those that fontconfig's files name, that are there."""
    if sys.platform in ("darwin", "win32"):
        return []
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    names = ["/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", f"{data}/fonts"]
    main = Path(os.environ.get(_FONTCONFIG) or "/etc/fonts/fonts.conf")
    for file in (main, *sorted(main.parent.glob("conf.d/*.conf"))):
        with suppress(OSError):
            names += _FOLDER.findall(file.read_text(encoding="utf-8", errors="replace"))
    folders = dict.fromkeys(Path(name.strip()).expanduser() for name in names)
    return [folder for folder in folders if folder.is_absolute() and folder.is_dir()]


def _find_version(schema: str, available: list[str]) -> Any:
    """Return the Vega-Lite version that a schema names, as vl-convert spells it."""
    if not schema:
        return available[-1]
    found = re.search(r"/vega-lite/v(\d+)(?:\.(\d+))?", schema)
    major, minor = found.groups() if found else ("", "")
    same_major = [version for version in available if version.split(".")[0] == major]
    if not same_major:
        raise RenderError(
            f"the specification's $schema is {schema!r}, expected one of Vega-Lite "
            f"{', '.join(available)} (https://vega.github.io/schema/vega-lite/v6.json)"
        )
    exact = f"{major}.{minor}"
    return exact if exact in same_major else same_major[-1]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if "Error" in line), lines[0] if lines else "no reason")
    return shorten_text(found, 400)
