"""Files and folders -> the capture files in them, in natural order."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, NoReturn

from headgrid.capture.formats import SUFFIXES
from headgrid.errors import CaptureError, describe_error, near_miss
from headgrid.text import clean_name


@dataclass(frozen=True)
class CaptureFile:
    """A file that should hold a capture, found by `find_captures`.

    ``path`` is spelled as its input was, ``relative`` is its folder relative to that (``.`` for a
    file), and ``run`` the name of its folder where that looks like a run (``run_000``).
    """

    path: Path
    relative: PurePath
    run: str

    @property
    def root(self) -> Path:
        """The folder that was given as the input, or that holds the file that was given."""
        return Path(*self.path.parent.parts[: -len(self.relative.parts) or None])

    @property
    def order(self) -> object:
        """Sort key within a run: layer2 before layer10."""
        return _natural(self.path.name)


@dataclass(frozen=True)
class Place:
    """Where a capture stands among the others: its set, and its run in that set."""

    set: str
    run: str

    @property
    def text(self) -> str:
        """Set and run for messages and metadata, ``SET/run_000``; empty where both are."""
        return "/".join(part for part in (self.set, self.run) if part)

    @property
    def order(self) -> tuple[object, object]:
        """Sort key that counts: run_2 before run_10."""
        return _natural(self.set), _natural(self.run)


def find_captures(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[CaptureFile], list[CaptureError]]:
    """Find the capture files in files and folders, with all subfolders but the hidden ones.

    Files are in the order of the inputs and in natural order within a folder (layer2 before
    layer10), each once; there is one error for each input or subfolder that can not be used.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    files: dict[str, CaptureFile] = {}
    errors: list[CaptureError] = []
    spelled: dict[str, str] = {}
    for given in map(Path, inputs):
        try:
            for path in _find(given, errors):
                real = os.path.realpath(path)
                # Bytes of a name that are no text are all shown, and stored, as one character.
                if spelled.setdefault(clean_name(real), real) == real:
                    relative = path.parent.relative_to(given) if path != given else ""
                    run = name_folder(path.parent)
                    run = run if _looks_like_run(run) else ""
                    files.setdefault(real, CaptureFile(path, PurePath(relative), run))
                    continue
                shown = clean_name(str(path))
                errors.append(
                    CaptureError(
                        f"{shown}: there are two such files, whose names differ in bytes that are "
                        "no text, expected names of text; rename their folders"
                    )
                )
        except CaptureError as error:
            errors.append(error)
    return list(files.values()), errors


def place_captures(
    files: Sequence[CaptureFile], *, by: Literal["set"] | None = None
) -> list[Place]:
    """Say of which set and run each file is, by the names of folders.

    A folder that holds captures is a run (with what lies below it, where its name looks like a
    run), and the folders above the run are its set. Folders above an input have no say: a tree
    that is moved as a whole keeps its sets and runs. By "set", or where several inputs are given,
    a set is named also where the input itself is the only folder above the runs. A run has no name
    where its folder is the only input and does not look like a run (``run_000``).
    """
    # By its real folder, since `.` and `../x` may be the same one.
    names = {root: name_folder(root) for root in {file.root for file in files}}
    several = len({os.path.realpath(root) for root in names}) > 1
    places = []
    for file in files:
        name, folders = names[file.root], file.relative.parts
        if not folders:
            places.append(Place("", name if several or _looks_like_run(name) else ""))
            continue
        # A run starts at the first folder that looks like one; those above it are its set.
        at = [*map(_looks_like_run, folders[:-1]), True].index(True)
        above = (name, *folders[:at]) if several or (by == "set" and not at) else folders[:at]
        places.append(Place("/".join(above), "/".join(folders[at:])))
    return places


def _looks_like_run(name: str) -> bool:
    return re.match(r"run[_-]?\d+", name, re.IGNORECASE) is not None


def list_captures(folder: Path) -> list[Path]:
    """Return the capture files that lie directly in a folder, in natural order."""
    with reading(folder, str(folder), "folder", "a readable folder"):
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise CaptureError(
                f"{folder.name}: is a file, expected a folder; load_capture reads a file"
            )
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return [folder / name for name in _pick(names)] or _refuse_folder(folder, names)


def name_folder(folder: Path) -> str:
    """Return the name as spelled, also of `.`; that of a link stays."""
    name = folder.absolute().name
    return folder.resolve().name if name == ".." else name


def _find(given: Path, errors: list[CaptureError]) -> list[Path]:
    with reading(given, str(given), "file or folder", "a file or folder"):
        is_folder = stat.S_ISDIR(given.stat().st_mode)
    if not is_folder:
        check_suffix(given)
        return [given]

    def report(error: OSError) -> None:
        where = error.filename or given
        errors.append(CaptureError(f"{where}: {describe_error(error)}, expected a readable folder"))

    found: list[Path] = []
    others: list[str] = []
    visited, before = {os.path.realpath(given)}, len(errors)
    for folder, subfolders, names in os.walk(given, onerror=report, followlinks=True):
        # A link may lead back up; each real folder is searched once.
        shown = sorted((name for name in subfolders if name[0] != "."), key=_natural)
        real = {os.path.realpath(Path(folder, name)): name for name in reversed(shown)}
        subfolders[:] = sorted((real[path] for path in real.keys() - visited), key=_natural)
        visited.update(real)
        found += [Path(folder, name) for name in _pick(names)]
        others += names
    return found or (_refuse_folder(given, others) if len(errors) == before else [])


def _pick(names: Iterable[str]) -> list[str]:
    """Return the names that look like captures, in natural order."""
    return sorted(
        (n for n in names if n[0] != "." and Path(n).suffix.lower() in SUFFIXES), key=_natural
    )


def _refuse_folder(folder: Path, names: Iterable[str]) -> NoReturn:
    others = Counter(Path(name).suffix for name in names).most_common(3)
    counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others)
    raise CaptureError(
        f"{folder}: holds no capture (found {counts or 'no files'}), expected "
        f"{', '.join(SUFFIXES)} files"
    )


def _natural(name: str) -> tuple[list[int | str], str]:
    """Sort key that counts: layer2 before layer10, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def check_suffix(path: Path) -> None:
    """Refuse a file whose suffix is none of a capture."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CaptureError(
            f"{path.name}: the suffix is {suffix!r}, expected one of {', '.join(SUFFIXES)}"
            f"{near_miss(suffix, SUFFIXES)}"
        )


@contextmanager
def reading(path: Path, shown: str, kind: str, expected: str) -> Iterator[None]:
    """Say in a sentence why a path can not be read, or that nothing is there."""
    try:
        yield
    except CaptureError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path, kind) from None
    except (OSError, MemoryError, ValueError) as error:
        raise CaptureError(f"{shown}: {describe_error(error)}, expected {expected}") from None


def _missing(path: Path, kind: str) -> CaptureError:
    """Return the error for a path where nothing is, with the nearest name beside it."""
    if path.is_symlink():
        return CaptureError(
            f"{path}: is a link to {path.readlink()}, which does not exist, expected a {kind}"
        )
    try:
        siblings = sorted(sibling.name for sibling in path.parent.iterdir())[:10_000]
    except (OSError, ValueError):
        return CaptureError(
            f"{path}: there is no folder {str(path.parent)!r}, expected a {kind} there"
        )
    hint = near_miss(path.name, siblings) or "; check the path"
    return CaptureError(f"{path}: there is no such {kind}, expected a capture{hint}")
