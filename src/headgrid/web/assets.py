"""Vega's libraries and headgrid's start code -> the scripts of pages.

The one that pages share is at once an ES module and a plain script (a page opened from disk may
load no module), sets ``vegaEmbed``, and draws every figure it finds. What comes from a CDN instead
is pinned in ``web/cdn.json``: the addresses of exact versions, each with the hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import Executor
from functools import cache
from importlib.resources import files
from pathlib import Path

from headgrid._version import __version__
from headgrid.capture.files import write_bytes
from headgrid.errors import OptionError, RenderError
from headgrid.options import FONT_FAMILY
from headgrid.render import vega as engine

#: What a specification that names no version is taken for: what headgrid itself makes.
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

_bundles: dict[str, str] = {}


def write_assets(folder: str | Path, *, schema: str = "", executor: Executor | None = None) -> Path:
    """Write the script that pages and fragments share.

    Parameters
    ----------
    folder : path
        Made where there is none.
    schema : str
        ``$schema`` of the figures; by default that of headgrid's own.
    executor : concurrent.futures.Executor, optional
        Where the engine runs; by default here.

    Returns
    -------
    Path
        ``headgrid-VERSION-HASH.js``. The same versions of headgrid and vl-convert
        write the same bytes; another content has another name, so that it can be
        cached for ever.

    Raises
    ------
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_assets(folder).name.startswith("headgrid-")
    True
    """
    name, script = shared_script(schema, executor)
    path = Path(folder) / name
    if not (path.is_file() and path.read_bytes() == script):
        write_bytes(path, script)
    return path


def shared_script(schema: str, executor: Executor | None) -> tuple[str, bytes]:
    """Return the shared script: Vega, Vega-Lite, vega-embed and the start code.

    Its name, which comes first, has the version and a hash of its content.
    """
    script = f"{load_bundle(schema, executor)}\n{start_code()}".encode()
    return f"headgrid-{__version__}-{hashlib.sha256(script).hexdigest()[:12]}.js", script


def load_bundle(schema: str = "", executor: Executor | None = None) -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that leaves no other names behind."""
    schema = schema or SCHEMA
    if schema not in _bundles:
        make = engine.bundle_javascript
        raw = make(schema) if executor is None else executor.submit(make, schema).result()
        _bundles[schema] = check_script(f"(()=>{{{raw}\n}})();")
    return _bundles[schema]


@cache
def start_code() -> str:
    """Return the script that draws every figure of a page, its style inside."""
    code = read_file("start.js").replace('"__GUARD__";', read_file("guard.js"))
    return check_script(code.replace('"__STYLE__"', json.dumps(read_style("style.css"))))


@cache
def fragment_code() -> str:
    """Return the script that draws the one figure before it."""
    return check_script(f"({_draw_code()})(document.currentScript.previousElementSibling);")


def _draw_code() -> str:
    return _on_one_line("fragment.js").replace('"__GUARD__";', _on_one_line("guard.js"))


@cache
def notebook_code(schema: str = "") -> str:
    """Return the script that makes the picture before it live, or offers to by a button."""
    try:
        pinned = pinned_scripts(schema)
    except (OptionError, RenderError):
        pinned = []
    code = _on_one_line("notebook.js").replace('"__SCRIPTS__"', json.dumps(pinned))
    # Longest part last: it may hold no mark that is replaced.
    return check_script(code.replace('"__DRAW__"', _draw_code()))


def pinned_scripts(schema: str = "") -> list[tuple[str, str]]:
    """Return address and integrity hash of each library on the CDN, in loading order."""
    table: dict[str, dict[str, str]] = json.loads(read_file("cdn.json"))
    wanted = engine.find_versions(schema or SCHEMA)["vega-lite"]
    if wanted not in table:
        raise OptionError(
            f"embed is 'cdn' and the specification is for Vega-Lite {wanted}, expected one of "
            f"{', '.join(table)}, whose files are pinned; use embed='inline'"
        )
    return [*table[wanted].items()]


def check_script(text: str) -> str:
    """Return a script that may stand in a page, where ``</script`` would end it."""
    lowered = text.lower()
    for mark in ("</script", "<script", "<!--"):
        if mark in lowered:
            raise RenderError(
                f"a library holds {mark!r}, expected a script that can stand in a page; use "
                "embed='assets' or report it with the version of vl-convert-python"
            )
    return text


@cache
def read_file(name: str) -> str:
    """Return the text of a file that stands beside this one."""
    return files("headgrid.web").joinpath(name).read_text(encoding="utf-8")


def read_style(name: str) -> str:
    """Return a style sheet, on one line, with the fonts of the figures."""
    return _on_one_line(name).replace("__FONT__", FONT_FAMILY)


def _on_one_line(name: str) -> str:
    return " ".join(re.sub("(?m)^//.*", "", read_file(name)).split())
