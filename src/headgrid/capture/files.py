"""Bytes <-> files: large files are mapped, and each is written whole or not at all.

A mapped file must not be overwritten in place while its bytes are in use, which
is one more reason why `replace_file` puts a new file in the place of the old one.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from headgrid.errors import OutputError

MIB = 2**20
#: Up to this size a file is read, above it is mapped: a mapped file that another
#: program cuts short kills the process, so only files that gain from it are.
MAPPED_FROM = 16 * MIB

#: Names of the files that `replace_file` writes to before they take their place, with the
#: number of the process that does.
_TEMPORARY = re.compile(r"\..{1,40}-([0-9a-f]{8})[0-9a-f]{8}\.tmp", re.DOTALL)


def read_or_map(file: io.FileIO) -> bytes | mmap.mmap:
    """Return all bytes of an open file, without copying those of a large one."""
    if os.fstat(file.fileno()).st_size >= MAPPED_FROM:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.readall()


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of an older one when the block ends well.

    Parameters
    ----------
    path : Path
        The file to write; its folder is made where there is none. An exception
        within the block leaves it as it was.

    Yields
    ------
    binary file
        A temporary one in the same folder; it never stays.

    Raises
    ------
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replace_file(Path(folder, "a.txt")) as file:
    ...         _ = file.write(b"whole")
    ...     [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
    [('a.txt', b'whole')]
    """
    # Only the start of the name: the whole one may be as long as a name can be.
    temporary = path.with_name(f".{path.name[:40]}-{os.getpid():08x}{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: can not be written ({error.strerror or error}), expected a folder that can "
            "be written to and has room; choose another one"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file so that it is whole or not there, making its folder where needed.

    Raises
    ------
    OutputError
        Where that is not possible.
    """
    with replace_file(path) as file:
        file.write(content)
    return path


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove the temporary files that a process which was killed has left directly in folders."""
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder)]
        except OSError:  # it is not there yet, or is none: writing will say so
            continue
        for name in names:
            ours = _TEMPORARY.fullmatch(name)
            if ours and not _is_other(int(ours[1], 16)):
                with suppress(OSError):
                    (folder / name).unlink()


def _is_other(pid: int) -> bool:
    """Return whether another process of that number is there, which may be writing."""
    if pid == os.getpid() or os.name == "nt":  # where a signal of 0 would end it
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
