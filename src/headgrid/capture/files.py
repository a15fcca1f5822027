"""Bytes <-> files: large ones are mapped, zips read within limits, each is written whole or not.

A mapped file must not be overwritten in place while its bytes are in use, which
is one more reason why `replace_file` puts a new file in the place of the old one.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from headgrid.errors import CaptureError, OutputError, damaged, describe_error
from headgrid.text import quote_text

MIB = 2**20
#: Up to this size a file is read, above it is mapped: a mapped file that another
#: program cuts short kills the process, so only files that gain from it are.
MAPPED_FROM = 16 * MIB

#: Table of contents of a zip: some 20,000 entries; a capture has about 10.
_MAX_DIRECTORY = 2 * MIB

#: Names of the files that `replace_file` writes to before they take their place, with the
#: number of the process that does.
_TEMPORARY = re.compile(r"\..{1,40}-([0-9a-f]{8})[0-9a-f]{8}\.tmp", re.DOTALL)


def read_or_map(file: IO[bytes]) -> bytes | mmap.mmap:
    """Return all bytes of an open file, without copying those of a large one."""
    if os.fstat(file.fileno()).st_size >= MAPPED_FROM:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return file.read()


def let_go(held: Any) -> None:
    """Give back the memory of a mapped file that something is a view of; use reads it again."""
    while held is not None and not isinstance(held, mmap.mmap):
        held = held.obj if isinstance(held, memoryview) else getattr(held, "base", None)
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        held.madvise(mmap.MADV_DONTNEED)


def _crc_of(content: memoryview) -> int:
    crc = 0
    for start in range(0, len(content), MAPPED_FROM):
        crc = zlib.crc32(content[start : start + MAPPED_FROM], crc)
        let_go(content)
    return crc


class Archive:
    """A zip from anywhere, without copying the entries that are stored as they are.

    `zipfile` believes what a zip says. Here is checked that its table of contents stands before its
    end and lists every byte once, and counted what is made out of the file, which has to stay in
    proportion.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        file.seek(0)
        self.name, self.buffer = name, read_or_map(file)
        self._left = 64 * MIB + 3 * len(self.buffer)
        directory = self._check_end()
        with self._refusing():
            self._zip = zipfile.ZipFile(file)
            self.entries = {entry.orig_filename: entry for entry in self._zip.infolist()}
            if len(self.entries) < len(self._zip.infolist()):
                raise self._broken("two entries have the same name")
            self._starts = {name: self._find(entry) for name, entry in self.entries.items()}
        spans = [
            (e.header_offset, self._starts[n] + e.compress_size) for n, e in self.entries.items()
        ]
        edges = [0, *(edge for span in sorted(spans) for edge in span), directory]
        # Sizes may follow the bytes of an entry once more, in up to 24 bytes.
        most = 24 if any(entry.flag_bits & 8 for entry in self.entries.values()) else 0
        if any(not 0 <= b - a <= most for a, b in zip(edges[::2], edges[1::2], strict=True)):
            raise self._broken("entries overlap, or other bytes stand between them")

    def spend(self, size: int) -> None:
        """Count bytes before they are made; refuse where they are too many in all."""
        self._left -= size
        if self._left < 0:
            raise CaptureError(
                f"{self.name}: makes more than {64 + 3 * len(self.buffer) // MIB:,} MiB out of "
                f"{len(self.buffer):,} bytes, expected moderately packed values; write the capture "
                "anew, without compression"
            )

    def read(self, inner: str, limit: int | None = None) -> memoryview:
        """Return the first ``limit`` bytes of an entry, or all of them once they are checked."""
        entry, content = self.entries[inner], memoryview(b"")
        size = entry.file_size if limit is None else min(limit, entry.file_size)
        if entry.compress_type == zipfile.ZIP_STORED:
            content = memoryview(self.buffer)[self._starts[inner] :][:size]
        else:
            self.spend(size)
            plain = bytearray()
            with self._refusing(), self._zip.open(entry) as stream:
                while piece := stream.read(min(MIB, size - len(plain))):  # or twice the memory
                    plain += piece
            content = memoryview(plain)
        if len(content) < size or (limit is None and _crc_of(content) != entry.CRC):
            raise self._broken(f"{quote_text(inner, 40)} is not whole")
        return content

    def _broken(self, finding: str) -> CaptureError:
        return damaged(self.name, finding, "a sound zip")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except CaptureError:
            raise
        except Exception as error:  # noqa: BLE001 - zipfile raises anything
            raise self._broken(describe_error(error)) from None

    def _check_end(self) -> int:
        """Return where the table of contents starts; refuse where that is not before its end."""
        buffer, total = self.buffer, len(self.buffer)
        end = buffer.rfind(b"PK\x05\x06", max(0, total - 2**16 - 22))
        if end < 0 or end + 22 > total:
            raise CaptureError(
                f"{self.name}: is no whole zip (it starts with {bytes(buffer[:8])!r}, {total:,} "
                "bytes), expected a capture; where it was cut short, copy or record it anew"
            )
        size, start, comment = struct.unpack_from("<IIH", buffer, end + 12)
        stop, wide = end, end - 76
        if wide >= 0 and buffer[wide : wide + 4] == b"PK\x06\x06":  # zip64
            size, start = struct.unpack_from("<2Q", buffer, wide + 40)
            stop = wide
        if end + 22 + comment != total or start + size != stop:
            raise self._broken("its table of contents is not where its end record says")
        if size > _MAX_DIRECTORY:
            raise self._broken(f"a table of contents of more than {_MAX_DIRECTORY // MIB} MiB")
        return int(start)

    def _find(self, entry: zipfile.ZipInfo) -> int:
        """Return where the bytes of an entry start, after its own header."""
        method, shown = entry.compress_type, quote_text(entry.orig_filename, 40)
        if re.search(r"^/|[\\\x00]|(^|/)\.\.(/|$)", entry.orig_filename):
            raise self._broken(f"it names an entry {shown}, which leads out of it")
        if method != zipfile.ZIP_DEFLATED and (method or entry.compress_size != entry.file_size):
            raise self._broken(f"{shown} has method {method}, or states two sizes")
        self._zip.open(entry).close()  # compares with the header that the entry itself has
        lengths = struct.unpack_from("<2H", self.buffer, entry.header_offset + 26)
        return int(entry.header_offset + 30 + sum(lengths))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(MIB):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of an older one when the block ends well.

    Its folder is made where there is none. An exception within the block leaves the old file, and
    the temporary one in the same folder never stays.
    """
    # Only the start of the name: the whole one may be as long as a name can be.
    temporary = path.with_name(f".{path.name[:40]}-{os.getpid():08x}{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: can not be written ({error.strerror or error}), expected a folder that can "
            "be written to and has room; choose another one"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file so that it is whole or not there, making its folder where needed."""
    with replace_file(path) as file:
        file.write(content)
    return path


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove the temporary files that a process which was killed has left directly in folders."""
    for path in [path for folder in folders for path in folder.glob(".*.tmp")]:
        ours = _TEMPORARY.fullmatch(path.name)
        if ours and not _is_other(int(ours[1], 16)):
            with suppress(OSError):
                path.unlink()


def _is_other(pid: int) -> bool:
    """Return whether another process of that number is there, which may be writing."""
    if pid == os.getpid() or os.name == "nt":  # where a signal of 0 would end it
        return False
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True
