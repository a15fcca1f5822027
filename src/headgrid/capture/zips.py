"""A zip from anywhere -> its entries and their bytes, within limits.

A zip states everything twice, and who wrote it may have lied: about sizes, about
where entries lie, or about how much a few bytes unpack to.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

from headgrid.capture.files import MIB, read_or_map
from headgrid.errors import CaptureError, damaged
from headgrid.text import quote_text

#: Table of contents of a zip: some 20,000 entries; a capture has about 10.
MAX_DIRECTORY = 2 * MIB


class BoundedFile(io.FileIO):
    """A file that refuses to hand out more than a table of contents at once.

    `zipfile` reads the whole table that the file claims to have, and makes an
    object of about ten times its size out of it.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes, as many as a table of contents may have."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        if min(left, left if size is None or size < 0 else size) > MAX_DIRECTORY:
            raise CaptureError(
                f"{Path(str(self.name)).name}: the zip claims a table of contents of more than "
                f"{MAX_DIRECTORY // MIB} MiB, expected a few files; write the capture anew"
            )
        return super().read(size)


def list_entries(name: str, file: BoundedFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of a zip by name, after checking that they are sound."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries, start = archive.infolist(), archive.start_dir
    except CaptureError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        size = os.fstat(file.fileno()).st_size
        raise CaptureError(
            f"{name}: the zip has no readable table of contents at its end ({size:,} bytes), "
            "expected a whole file; it was probably cut short, so copy or record it anew"
        ) from None
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise _broken(name, f"entries overlap at {quote_text(entry.filename)}")
        end = entry.header_offset + 30 + entry.compress_size
        _check_entry(name, entry)
    if end > start:
        raise _broken(name, "an entry is longer than the file")
    found = {entry.filename: entry for entry in entries}
    if len(found) != len(entries):
        raise _broken(name, "two entries have the same name")
    return found


def _check_entry(name: str, entry: zipfile.ZipInfo) -> None:
    # orig_filename: zipfile cuts names at NUL and turns the separator of Windows
    inner = entry.orig_filename
    if inner.startswith("/") or re.search(r"[\\\x00]|(^|/)\.\.(/|$)", inner):
        raise CaptureError(
            f"{name}: the zip names an entry {quote_text(inner)}, which leads out of it, "
            "expected plain names; write the capture anew"
        )
    if entry.flag_bits & 1:
        raise _broken(name, f"{quote_text(inner)} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _broken(name, f"{quote_text(inner)} has compression method {entry.compress_type}")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise _broken(name, f"{quote_text(inner)} states two sizes")


def unpacked_limit(packed: int) -> int:
    """Bytes that compressed entries may unpack to in all: attention packs a few times."""
    return max(64 * MIB, 32 * packed)


class Archive:
    """The entries of a zip, without copying those that are stored as they are.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    file : BoundedFile
        May be closed afterwards.
    """

    def __init__(self, name: str, file: BoundedFile) -> None:
        self.name = name
        self.entries = list_entries(name, file)
        self.buffer = read_or_map(file)
        self._unpacked = 0

    def read(self, inner: str, limit: int) -> memoryview:
        """Return the first ``limit`` bytes of an entry; fewer where it is shorter."""
        entry = self.entries[inner]
        start = self._data_start(entry)
        packed = memoryview(self.buffer)[start : start + entry.compress_size]
        if entry.compress_type == zipfile.ZIP_STORED:
            return packed[:limit]
        wanted = min(limit, entry.file_size)
        self._unpacked += wanted
        if self._unpacked > unpacked_limit(len(self.buffer)):
            raise CaptureError(
                f"{self.name}: {quote_text(inner)} unpacks to {wanted:,} bytes from "
                f"{entry.compress_size:,}, expected plain or moderately packed tensors; write "
                "the capture anew"
            )
        try:
            # max_length 0 would mean "without limit"
            return memoryview(zlib.decompressobj(-15).decompress(packed, max(wanted, 1))[:wanted])
        except zlib.error:
            raise _broken(self.name, f"{quote_text(inner)} does not unpack") from None

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        header = bytes(self.buffer[entry.header_offset : entry.header_offset + 30])
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise _broken(self.name, f"{quote_text(entry.filename)} has no header")
        _, _, flags, method, _, _, _, packed, plain, name_length, extra_length = struct.unpack(
            "<4s5H3I2H", header
        )
        name_at = entry.header_offset + 30
        start: int = name_at + name_length + extra_length
        coding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        encoded = entry.orig_filename.encode(coding, "replace")
        if method != entry.compress_type or (
            bytes(self.buffer[name_at : name_at + name_length]) != encoded
        ):
            raise _broken(self.name, f"{quote_text(entry.filename)} has another header than listed")
        # Sizes may follow the data instead (flag 8), or in the zip64 field (all ones).
        stated = {(packed, entry.compress_size), (plain, entry.file_size)}
        if not flags & 8 and any(a not in (b, 0xFFFFFFFF) for a, b in stated):
            raise _broken(self.name, f"{quote_text(entry.filename)} states two sizes")
        if start + entry.compress_size > len(self.buffer):
            raise _broken(self.name, f"{quote_text(entry.filename)} reaches beyond the file")
        return start


def _broken(name: str, finding: str) -> CaptureError:
    return damaged(name, finding, "a sound zip")
