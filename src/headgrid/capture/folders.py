"""Files and folders -> the capture files in them, in natural order."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from headgrid.capture.formats import SUFFIXES, check_suffix
from headgrid.errors import CaptureError, describe_error, near_miss


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
    set : str
        The folders between the input and the run, joined by ``/``; may be empty.
    """

    path: Path
    relative: PurePath
    run: str
    set: str = ""

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


def place_captures(
    files: Sequence[CaptureFile], *, by: Literal["set"] | None = None
) -> list[Place]:
    """Say of which set and run each file is, by the names of folders.

    A folder that holds captures is a run (with what lies below it, where its name
    looks like a run), and the folders above the run are its set. Folders above an input have no
    say: a tree that is moved as a whole keeps its sets and runs.

    Parameters
    ----------
    files : sequence of CaptureFile
        From `find_captures`, of all inputs that are looked at together.
    by : {"set"}, optional
        Name the set also where the input itself is the only folder above the
        runs. That is the default where several inputs are given.

    Returns
    -------
    list of Place
        In the order of ``files``. A run has no name where its folder is the only
        input and does not look like a run (``run_000``).

    Examples
    --------
    >>> one = CaptureFile(Path("in/cats/run_0/layer0.pt"), PurePath("cats/run_0"), "run_0")
    >>> two = CaptureFile(Path("dogs/run_0/layer0.pt"), PurePath("run_0"), "run_0")
    >>> place_captures([one])
    [Place(set='cats', run='run_0')]
    >>> place_captures([two]), place_captures([two], by="set")
    ([Place(set='', run='run_0')], [Place(set='dogs', run='run_0')])
    """
    # By its real folder, since `.` and `../x` may be the same one.
    names = {root: name_folder(root) for root in {file.root for file in files}}
    several = len({os.path.realpath(root) for root in names}) > 1
    return [_place(file, names[file.root], several=several, by=by) for file in files]


def _place(file: CaptureFile, name: str, *, several: bool, by: str | None) -> Place:
    folders = list(file.relative.parts)
    if not folders:
        return Place("", name if several or _looks_like_run(name) else "")
    above, run = _split_run(folders)
    if several or (by == "set" and not above):
        above = [name, *above]
    return Place("/".join(above), "/".join(run))


def _split_run(folders: list[str]) -> tuple[list[str], list[str]]:
    """Return the folders above a run, and those of the run: from the first that looks like one."""
    named = [position for position, name in enumerate(folders) if _looks_like_run(name)]
    at = named[0] if named else len(folders) - 1
    return folders[:at], folders[at:]


def _looks_like_run(name: str) -> bool:
    return re.match(r"run[_-]?\d+", name, re.IGNORECASE) is not None


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
    above = _split_run(list(relative.parts))[0] if relative.parts else []
    run = folder if _looks_like_run(folder) else ""
    return CaptureFile(path, PurePath(relative), run, "/".join(above))


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
