"""fontconfig's files -> the folders where the system's fonts are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Names the file that fontconfig, and the engine, read in place of the usual ones.
_VARIABLE = "FONTCONFIG_FILE"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ENTRY = re.compile(r"<(dir|include)\b([^<>]*)>([^<>]+)</\1>")
#: A folder that is not there: without any, the usual ones would be searched.
_NO_FONTS = '<?xml version="1.0"?><fontconfig><dir>/nonexistent</dir></fontconfig>'


@contextmanager
def without_system_fonts() -> Iterator[Path]:
    """Hide the system's fonts from what loads fonts by fontconfig's files in the block.

    Yields
    ------
    Path
        An empty folder.
    """
    from tempfile import TemporaryDirectory

    before = os.environ.get(_VARIABLE)
    with TemporaryDirectory() as folder:
        empty, config = Path(folder, "empty"), Path(folder, "fonts.conf")
        empty.mkdir()
        config.write_text(_NO_FONTS, encoding="utf-8")
        os.environ[_VARIABLE] = str(config)
        try:
            yield empty
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


def find_font_folders() -> list[Path]:
    """Return the folders of fonts that are there; none on systems without fontconfig."""
    if sys.platform in ("darwin", "win32"):
        return []
    home, found = Path.home(), list[Path]()
    given = os.environ.get(_VARIABLE)
    etc = Path("/etc/fonts")
    own = _xdg("XDG_CONFIG_HOME", ".config") / "fontconfig/fonts.conf"
    files = [Path(given)] if given else [own, etc / "local.conf", etc / "fonts.conf"]
    seen: set[Path] = set()
    for file in files:
        found += _read_folders(file, seen)
    usual = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    usual += [home / ".fonts", home / ".local/share/fonts"]
    return [folder for folder in dict.fromkeys(found or usual) if folder.is_dir()]


def _read_folders(file: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the folders that a file of fontconfig names, and those that it includes."""
    if file in seen:
        return
    seen.add(file)
    if file.is_dir():
        for part in sorted(file.glob("*.conf")):
            yield from _read_folders(part, seen)
        return
    try:
        text = _COMMENT.sub("", file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return
    for kind, attributes, content in _ENTRY.findall(text):
        base = file.parent
        if 'prefix="xdg"' in attributes:
            base = _xdg(*(("XDG_DATA_HOME", ".local/share") if kind == "dir" else _CONFIG))
        path = base / Path(content.strip()).expanduser()
        if kind == "dir":
            yield path
        else:
            yield from _read_folders(path, seen)


_CONFIG = ("XDG_CONFIG_HOME", ".config")


def _xdg(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / usual)
