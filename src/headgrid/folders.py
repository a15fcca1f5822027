"""Files and folders -> the capture files in them, in natural order."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from headgrid.errors import CaptureError, describe_error, near_miss
from headgrid.formats import SUFFIXES, check_suffix


@dataclass(frozen=True)
class CaptureFile:
    """A file that should hold a capture, found by `find_captures`.

    Attributes
    ----------
    path : Path
        The file, spelled as its input was.
    relative : PurePath
        Its folder, relative to the input it was found in (``.`` for a file).
    run : str
        Name of its folder where that looks like a run (``run_000``), else ``""``.
    """

    path: Path
    relative: PurePath
    run: str


def find_captures(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[CaptureFile], list[CaptureError]]:
    """Find the capture files in files and folders.

    Parameters
    ----------
    inputs : path or iterable of paths
        A folder is searched with all its subfolders, except hidden ones.

    Returns
    -------
    files : list of CaptureFile
        In the order of the inputs, and in natural order within a folder (layer2
        before layer10). A file that is reached twice appears once.
    errors : list of CaptureError
        One for each input (or subfolder) that could not be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("layer10.npz", "layer2.npz", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     files, errors = find_captures([folder, folder + "/layer2.npz"])
    >>> [file.path.name for file in files], errors
    (['layer2.npz', 'layer10.npz'], [])
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    files: list[CaptureFile] = []
    errors: list[CaptureError] = []
    seen: set[str] = set()
    for given in map(Path, inputs):
        try:
            found = _find(given, errors)
        except CaptureError as error:
            errors.append(error)
            continue
        for path in found:
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                files.append(_describe_file(path, given))
    return files, errors


def list_captures(folder: Path) -> list[Path]:
    """Return the capture files that lie directly in a folder, in natural order.

    Raises
    ------
    CaptureError
        Where there is no such folder, or no capture in it.
    """
    if not folder.exists():
        raise missing(folder, "folder")
    if not folder.is_dir():
        raise CaptureError(
            f"{folder.name}: is a file, expected a folder; load_capture reads a file"
        )
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise CaptureError(
            f"{folder}: {describe_error(error)}, expected a readable folder"
        ) from None
    captures = _pick(names)
    if not captures:
        raise _no_captures(folder, Counter(Path(name).suffix for name in names))
    return [folder / name for name in captures]


def _describe_file(path: Path, given: Path) -> CaptureFile:
    relative = path.parent.relative_to(given) if path != given else PurePath()
    folder = name_folder(path.parent)
    looks_like_run = re.match(r"run[_-]?\d+", folder, re.IGNORECASE)
    return CaptureFile(path, PurePath(relative), folder if looks_like_run else "")


def name_folder(folder: Path) -> str:
    """Return the name as spelled, also of `.`; that of a link stays."""
    name = folder.absolute().name
    return folder.resolve().name if name == ".." else name


def _find(given: Path, errors: list[CaptureError]) -> list[Path]:
    try:
        mode = given.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise missing(given, "file or folder") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"{given}: {describe_error(error)}, expected a file or folder") from None
    if not stat.S_ISDIR(mode):
        check_suffix(given)
        return [given]

    def report(error: OSError) -> None:
        where = error.filename or given
        errors.append(CaptureError(f"{where}: {describe_error(error)}, expected a readable folder"))

    found: list[Path] = []
    others: Counter[str] = Counter()
    visited: set[str] = set()
    before = len(errors)
    for folder, subfolders, names in os.walk(given, onerror=report, followlinks=True):
        # A link may lead back up; each real folder is searched once.
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(
            (name for name in subfolders if _is_new(folder, name, visited)), key=_natural
        )
        found += [Path(folder, name) for name in _pick(names)]
        others.update(Path(name).suffix for name in names)
    if not found and len(errors) == before:
        raise _no_captures(given, others)
    return found


def _is_new(folder: str, name: str, visited: set[str]) -> bool:
    if name.startswith("."):
        return False
    real = os.path.realpath(Path(folder, name))
    if real in visited:
        return False
    visited.add(real)
    return True


def _pick(names: Iterable[str]) -> list[str]:
    """Return the names that look like captures, in natural order."""
    return sorted(
        (
            name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ),
        key=_natural,
    )


def _no_captures(folder: Path, others: Counter[str]) -> CaptureError:
    counts = [f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(3)]
    found = f"found {', '.join(counts)}" if counts else "found no files"
    return CaptureError(
        f"{folder}: holds no capture ({found}), expected {', '.join(SUFFIXES)} files"
    )


def _natural(name: str) -> tuple[list[int | str], str]:
    """Sort key that counts: layer2 before layer10, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def missing(path: Path, kind: str) -> CaptureError:
    """Return the error for a path where nothing is, with the nearest name beside it."""
    try:
        siblings = sorted(sibling.name for sibling in path.parent.iterdir())[:10_000]
    except (OSError, ValueError):
        return CaptureError(
            f"{path}: there is no folder {str(path.parent)!r}, expected a {kind} there"
        )
    hint = near_miss(path.name, siblings) or "; check the path"
    return CaptureError(f"{path}: there is no such {kind}, expected a capture{hint}")
