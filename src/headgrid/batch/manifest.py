"""Inputs that became files -> `headgrid-jobs.json`: what a resumed run need not do again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from headgrid._version import __version__
from headgrid.capture.files import hash_file, replace_file
from headgrid.errors import OutputError

#: The manifest's name in the folder of the output.
NAME = "headgrid-jobs.json"

_PACKAGES = ("altair", "pillow", "vl-convert-python")
_FLUSH_SECONDS = 1.0
#: The manifest is written at most this share of the time, however large it grows.
_FLUSH_SHARE = 0.02


class Manifest:
    """The finished jobs of one folder, with what their files were made of.

    Only what is finished is listed, and all of it was made by one command with one set
    of options and versions; where those change, the list starts anew. It holds no times
    and no absolute paths, so the same work gives the same bytes.

    Parameters
    ----------
    folder : Path
        The root of the output, where `NAME` is written.
    command : str
        What makes the files, such as ``render``.
    options : mapping
        Everything that shapes the files apart from the inputs; JSON-able.
    color_range : (low, high), optional
        The colour range that was resolved over all inputs, in the statistic's unit.
    resume : bool
        Read the list of an earlier run, if it was made by the same command, options,
        colour range and versions.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = Path(folder, "a.svg")
    ...     _ = made.write_bytes(b"<svg/>")
    ...     with Manifest(Path(folder), "render", {"columns": 4}) as manifest:
    ...         manifest.add("layer0.pt", "f00d", {made: hash_bytes(b"<svg/>")})
    ...     again = Manifest(Path(folder), "render", {"columns": 4}, resume=True)
    ...     again.is_done("layer0.pt", "f00d"), again.is_done("layer0.pt", "beef")
    (True, False)
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        options: Mapping[str, Any],
        *,
        color_range: tuple[float, float] | None = None,
        resume: bool = False,
    ) -> None:
        self._folder = folder
        self._head: dict[str, Any] = {
            "headgrid": __version__,
            "command": command,
            "options": dict(options),
            "color_range": None if color_range is None else list(color_range),
            "versions": package_versions(),
        }
        # What an earlier run has left counts once `is_done` or `keep` has seen it.
        self._earlier, self._made = self._read()
        if not resume:
            self._earlier = {}
        self._lines: dict[str, str] = {}
        self._kept: set[str] = set()
        self._changed = True
        self._next_flush = 0.0  # the first job counts at once

    @property
    def path(self) -> Path:
        """The manifest's file."""
        return self._folder / NAME

    def is_done(self, key: str, digest: str) -> bool:
        """Whether a job is finished and nothing has changed since; then it is listed again.

        The input ``key``, as `name_inputs` spells it, has to have the SHA-256 ``digest`` as
        it had before, and its files have to be there unaltered.
        """
        found = self._earlier.get(key)
        if found is None or found["digest"] != digest:
            return False
        outputs: dict[str, str] = found["outputs"]
        if any(hash_output(self._folder / name) != made for name, made in outputs.items()):
            return False
        self._list(key, found)
        return True

    def add(self, key: str, digest: str, outputs: Mapping[Path, str]) -> None:
        """List a finished job, and write the manifest if the last time is a while ago.

        ``outputs`` are the files that it became, below the manifest's folder, and the
        SHA-256 of each.
        """
        named = {path.relative_to(self._folder).as_posix(): made for path, made in outputs.items()}
        self._list(key, {"digest": digest, "outputs": named})
        if time.monotonic() < self._next_flush:
            return
        try:
            self.flush()
        except OutputError:  # a full disk may have room again at the end
            self._next_flush = time.monotonic() + _FLUSH_SECONDS

    def outputs(self, key: str) -> set[str]:
        """Return the files that an earlier run made of an input, below the manifest's folder."""
        found = self._earlier.get(key)
        return set(found["outputs"]) if found else set()

    def remove_outdated(self) -> list[Path]:
        """Remove the files that an earlier run of the command made and this one did not.

        Only files below the folder that are byte for byte as they were listed; for
        commands whose folder holds the result of one run. Returns what was removed.
        """
        removed = []
        for name, made in sorted(self._made.items()):
            path = self._folder / name
            if name in self._kept or not _stays_below(name) or hash_output(path) != made:
                continue
            with suppress(OSError):
                path.unlink()
                removed.append(path)
                for parent in Path(name).parents[:-1]:
                    (self._folder / parent).rmdir()  # only where it is empty
        return removed

    def flush(self) -> None:
        """Write the manifest, whole or not at all; none where nothing was ever finished."""
        if not self._changed or not (self._lines or self.path.exists()):
            return
        started = time.monotonic()
        text = self._to_text()
        with replace_file(self.path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        self._changed = False
        now = time.monotonic()
        self._next_flush = now + max(_FLUSH_SECONDS, (now - started) / _FLUSH_SHARE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.flush()
        except OutputError:
            if error is None:
                raise

    def _list(self, key: str, job: Mapping[str, Any]) -> None:
        self._lines[key] = f"  {_dump(key)}: {_dump(job)}"
        self._kept.update(job["outputs"])
        self._changed = True

    def _to_text(self) -> str:
        """Return the text: sorted, one line a job."""
        outline = json.dumps({**self._head, "jobs": {}}, indent=1, sort_keys=True)
        if not self._lines:
            return outline + "\n"
        lines = ",\n".join(self._lines[key] for key in sorted(self._lines))
        # No text inside has a line end of its own, so this is the one place.
        return outline.replace('\n "jobs": {}', f'\n "jobs": {{\n{lines}\n }}', 1) + "\n"

    def _read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the jobs of an earlier run, and the files of all jobs of that command.

        No jobs where it was another run, and nothing where the list is damaged.
        """
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}, {}
        jobs = found.pop("jobs", None) if isinstance(found, dict) else None
        if not isinstance(jobs, dict) or found.get("command") != self._head["command"]:
            return {}, {}
        sound = {key: job for key, job in jobs.items() if _is_job(job)}
        made = {name: hash for job in sound.values() for name, hash in job["outputs"].items()}
        # Through JSON, as tuples become lists there.
        same = found == json.loads(json.dumps(self._head))
        return (sound if same else {}), made


def name_inputs(paths: Iterable[Path], inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return a name for every file that does not depend on where the inputs lie.

    Each file is one of the inputs or below one. Its name is its path from the folder that
    all inputs have in common, with ``/`` between its parts; all are different.

    >>> name_inputs([Path("in/run_0/layer1.pt"), Path("x/layer2.pt")], ["in", "x/layer2.pt"])
    ['in/run_0/layer1.pt', 'x/layer2.pt']
    >>> name_inputs([Path("in/run_0/layer1.pt")], ["in"])
    ['run_0/layer1.pt']
    """
    files = [_absolute(path) for path in paths]
    given = [_absolute(Path(path)) for path in inputs]
    known = set(files)
    folders = [path.parent if path in known else path for path in given]
    try:
        base = os.path.commonpath(folders) if folders else os.curdir
    except ValueError:  # on several drives
        base = ""
    names: dict[str, None] = {}
    for file in files:
        name = Path(os.path.relpath(file, base) if base else file).as_posix()
        # Two spellings may end up as one where a link is followed by "..".
        number = 1
        while (unique := name if number == 1 else f"{name} ({number})") in names:
            number += 1
        names[unique] = None
    return list(names)


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def package_versions() -> dict[str, str]:
    """Return the versions of the other packages that shape a figure's bytes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hash_output(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; nothing where there is none."""
    try:
        return hash_file(path)
    except (OSError, ValueError):  # of a name with NUL, too
        return ""


def _is_job(job: Any) -> bool:
    if not isinstance(job, dict) or set(job) != {"digest", "outputs"}:
        return False
    digest, outputs = job["digest"], job["outputs"]
    if not isinstance(digest, str) or not isinstance(outputs, dict) or not outputs:
        return False
    return all(isinstance(made, str) and _stays_below(name) for name, made in outputs.items())


def _stays_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "), sort_keys=True)
