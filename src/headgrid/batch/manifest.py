"""Inputs that became files -> `headgrid-jobs.json`: what a resumed run need not do again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headgrid._version import __version__
from headgrid.capture.files import hash_file, write_bytes
from headgrid.errors import OutputError

#: The manifest's name in the folder of the output.
NAME = "headgrid-jobs.json"

#: The manifest is written at most once a second, and at most this share of the time.
_FLUSH_SECONDS, _FLUSH_SHARE = 1.0, 0.02
#: What stands in place of a PDF's hash.
_PDF = "pdf"


class Manifest:
    """The finished jobs of one folder, with what their files were made of.

    All of it was made by one command with one set of options (all that shapes the files apart
    from the inputs; JSON-able), one colour range over all inputs, and one set of versions;
    where those change, the list starts anew. The same work gives the same bytes.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        options: Mapping[str, Any],
        *,
        color_range: Sequence[float] | None = None,
        resume: bool = False,
    ) -> None:
        self.path = folder / NAME
        self._folder = folder
        versions = read_versions()
        self._head: dict[str, Any] = {
            "headgrid": versions.pop("headgrid"),
            "command": command,
            "options": dict(options),
            "color_range": None if color_range is None else list(color_range),
            "versions": versions,
        }
        # What an earlier run has left counts once `find_done` has seen it.
        self._earlier, self._made = self._read()
        if not resume:
            self._earlier = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._next_flush = 0.0  # the first job counts at once

    def find_done(
        self, key: str, digest: str, paths: Collection[Path] | None = None
    ) -> dict[Path, str] | None:
        """Return the files of a finished job with their hashes, and list it again.

        None where its input has another SHA-256 than before, a file is altered or gone, or
        its files are not those at ``paths``.
        """
        found = self._earlier.get(key)
        if found is None or found["digest"] != digest:
            return None
        made = {self._folder / name: hash for name, hash in found["outputs"].items()}
        is_other = paths is not None and made.keys() != set(paths)
        if is_other or any(hash_output(path) != hash for path, hash in made.items()):
            return None
        self._jobs[key] = found
        return made

    def add(self, key: str, digest: str, outputs: Mapping[Path, str]) -> None:
        """List a job whose input has a SHA-256, with its files below the folder and theirs."""
        named = {path.relative_to(self._folder).as_posix(): made for path, made in outputs.items()}
        self._jobs[key] = {"digest": digest, "outputs": named}
        if time.monotonic() >= self._next_flush:
            with suppress(OutputError):  # a full disk may have room again at the end
                self.flush()

    def remove_outdated(self) -> list[Path]:
        """Remove the files that an earlier run of the command made and this one did not.

        Only those that are byte for byte as they were listed, thus no PDF; for commands
        whose folder holds the result of one run. Returns what was removed.
        """
        kept = {name for job in self._jobs.values() for name in job["outputs"]}
        removed = []
        for name, made in sorted(self._made.items()):
            path = self._folder / name
            if name in kept or made == _PDF or hash_output(path) != made:
                continue
            with suppress(OSError):
                path.unlink()
                removed.append(path)
                for parent in Path(name).parents[:-1]:
                    (self._folder / parent).rmdir()  # only where it is empty
        return removed

    def flush(self) -> None:
        """Write the manifest, whole or not at all; none where nothing was ever finished."""
        if not (self._jobs or self.path.exists()):
            return
        started = time.monotonic()
        self._next_flush = started + _FLUSH_SECONDS
        write_bytes(self.path, self._to_text().encode("ascii"))
        self._next_flush += (time.monotonic() - started) / _FLUSH_SHARE

    def __enter__(self) -> Manifest:  # noqa: PYI034 - `Self` is of Python 3.11
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.flush()
        except OutputError:
            if error is None:
                raise

    def _to_text(self) -> str:
        """Return the text: sorted, one line a job."""
        outline = json.dumps({**self._head, "jobs": {}}, indent=1, sort_keys=True)
        if not self._jobs:
            return outline + "\n"
        lines = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(job, sort_keys=True)}"
            for key, job in sorted(self._jobs.items())
        )
        # No text inside has a line end of its own, so this is the one place.
        return outline.replace('\n "jobs": {}', f'\n "jobs": {{\n{lines}\n }}', 1) + "\n"

    def _read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the jobs of an earlier run of the same, and the files of all of the command."""
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
    """Return the path of every file from the folder that all inputs have in common.

    Each file is one of the inputs or below one; where those lie does not matter.
    """
    files = [Path(os.path.normpath(Path(path).absolute())) for path in paths]
    given = [Path(os.path.normpath(Path(path).absolute())) for path in inputs]
    known = set(files)
    folders = [path.parent if path in known else path for path in given]
    try:
        base = os.path.commonpath(folders) if folders else os.curdir
    except ValueError:  # on several drives
        return [file.as_posix() for file in files]
    return [Path(os.path.relpath(file, base)).as_posix() for file in files]


def read_versions() -> dict[str, str]:
    """Return the versions of all that shapes a figure's bytes, in this process."""
    from importlib.metadata import version

    others = {name: version(name) for name in ("altair", "pillow", "vl-convert-python")}
    return {"headgrid": __version__, **others}


def hash_output(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; nothing where there is none.

    Of a PDF, whose bytes differ each time that it is made, only that it is one.
    """
    with suppress(OSError, ValueError):  # of a name with NUL, too
        return _PDF if path.suffix == ".pdf" and path.is_file() else hash_file(path)
    return ""


def _is_job(job: Any) -> bool:
    match job:
        case {"digest": str(), "outputs": dict(outputs)} if outputs and len(job) == 2:
            return all(
                isinstance(made, str) and not path.is_absolute() and ".." not in path.parts
                for path, made in zip(map(Path, outputs), outputs.values(), strict=True)
            )
    return False
