"""A zip from anywhere -> its entries and their bytes, within limits.

A zip states everything twice, and who wrote it may have lied: about sizes, about where its
table of contents and its entries lie, or about how much a few bytes unpack to.
"""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from typing import NamedTuple

from headgrid.capture.files import MIB
from headgrid.errors import CaptureError, damaged
from headgrid.text import quote_text

#: Table of contents of a zip: some 20,000 entries; a capture has about 10.
MAX_DIRECTORY = 2 * MIB
_STORED, _DEFLATED = 0, 8
_WIDE = 2**32 - 1


class Entry(NamedTuple):
    """Where an entry's bytes lie, from its header to its end, and what they are."""

    header: int
    start: int
    end: int
    size: int
    method: int
    crc: int


class Archive:
    """The entries of a zip, without copying those that are stored as they are.

    It also counts what is made out of the file in all: memory has to stay in proportion.
    """

    def __init__(self, name: str, buffer: bytes | mmap.mmap) -> None:
        self.name = name
        self._buffer = buffer
        self._left = 64 * MIB + 3 * len(buffer)
        try:
            self.entries = self._read_directory()
        except (struct.error, UnicodeDecodeError):
            raise self._broken("its table of contents does not add up") from None

    def __len__(self) -> int:
        """Bytes of the whole file."""
        return len(self._buffer)

    def spend(self, size: int) -> None:
        """Count bytes before they are made; refuse where they are too many in all."""
        self._left -= size
        if self._left < 0:
            raise CaptureError(
                f"{self.name}: makes more than {64 + 3 * len(self) // MIB:,} MiB out of "
                f"{len(self):,} bytes, expected plain or moderately packed values; write the "
                "capture anew, without compression"
            )

    def read(self, inner: str, limit: int) -> memoryview:
        """Return the first ``limit`` bytes of an entry; fewer where it is shorter."""
        entry = self.entries[inner]
        packed = memoryview(self._buffer)[entry.start : entry.end]
        if entry.method == _STORED:
            return packed[:limit]
        wanted = min(limit, entry.size)
        self.spend(wanted)
        plain, tail, unpacker = bytearray(), b"", zlib.decompressobj(-15)
        pieces = (packed[at : at + 2**16] for at in range(0, len(packed), 2**16))
        try:
            while len(plain) < wanted and not unpacker.eof:
                piece = tail or next(pieces, b"")
                part = unpacker.decompress(piece, min(MIB, wanted - len(plain)))
                if not piece and not part:
                    break
                plain += part
                tail = unpacker.unconsumed_tail
        except zlib.error:
            raise self._broken(f"{quote_text(inner)} does not unpack") from None
        return memoryview(plain)

    def _read_directory(self) -> dict[str, Entry]:
        start, end, count = self._find_directory()
        entries: dict[str, Entry] = {}
        at = start
        for _ in range(count):
            fields = struct.unpack_from("<4s6H3I5H2I", self._buffer, at)
            signature, flags, method, crc = fields[0], fields[3], fields[4], fields[7]
            lengths = fields[10:13]
            if signature != b"PK\x01\x02" or at + 46 + sum(lengths) > end:
                raise self._broken("its table of contents does not add up")
            raw = self._buffer[at + 46 : at + 46 + lengths[0]]
            extra = self._buffer[at + 46 + lengths[0] : at + 46 + lengths[0] + lengths[1]]
            size, packed, header = _widen_fields(extra, fields[9], fields[8], fields[16])
            name = raw.decode("utf-8" if flags & 0x800 else "cp437")
            if name in entries:
                raise self._broken(f"two entries have the same name {quote_text(name)}")
            self._check_entry(name, flags, method, packed == size)
            data = self._find_data(name, raw, header, method, (packed, size))
            entries[name] = Entry(header, data, data + packed, size, method, crc)
            at += 46 + sum(lengths)
        if at != end:
            raise self._broken("its table of contents does not add up")
        last = 0
        for entry in sorted(entries.values()):
            if entry.header < last:
                raise self._broken("entries overlap")
            last = entry.end
        if last > start:
            raise self._broken("an entry is longer than the file")
        return entries

    def _find_directory(self) -> tuple[int, int, int]:
        """Return where the table of contents starts and ends, and how many entries it has."""
        buffer, total = self._buffer, len(self._buffer)
        end = buffer.rfind(b"PK\x05\x06", max(0, total - 2**16 - 22))
        if end < 0 or end + 22 > total:
            raise CaptureError(
                f"{self.name}: the zip has no readable table of contents at its end ({total:,} "
                "bytes), expected a whole file; it was probably cut short, so copy or record it "
                "anew"
            )
        count, size, start, comment = struct.unpack_from("<HIIH", buffer, end + 10)
        if end + 22 + comment != total:
            raise self._broken("other bytes follow its end")
        if end >= 20 and buffer[end - 20 : end - 16] == b"PK\x06\x07":
            (at,) = struct.unpack_from("<Q", buffer, end - 12)
            if at + 56 != end - 20 or buffer[at : at + 4] != b"PK\x06\x06":
                raise self._broken("its end record is not where it says")
            narrow = (count, size, start)
            count, size, start = struct.unpack_from("<3Q", buffer, at + 32)
            wide = zip(narrow, (2**16 - 1, _WIDE, _WIDE), (count, size, start), strict=True)
            if any(n not in (full, value) for n, full, value in wide):
                raise self._broken("its two end records disagree")
            end = at
        if start + size != end:
            raise self._broken("its table of contents is not where its end record says")
        if size > MAX_DIRECTORY:
            raise CaptureError(
                f"{self.name}: the zip claims a table of contents of more than "
                f"{MAX_DIRECTORY // MIB} MiB, expected a few files; write the capture anew"
            )
        return start, end, count

    def _check_entry(self, name: str, flags: int, method: int, is_plain: bool) -> None:
        if name.startswith("/") or re.search(r"[\\\x00]|(^|/)\.\.(/|$)", name):
            raise CaptureError(
                f"{self.name}: the zip names an entry {quote_text(name)}, which leads out of it, "
                "expected plain names; write the capture anew"
            )
        if flags & 0x61:  # or a patch of another zip
            raise self._broken(f"{quote_text(name)} is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise self._broken(f"{quote_text(name)} has compression method {method}")
        if method == _STORED and not is_plain:
            raise self._broken(f"{quote_text(name)} states two sizes")

    def _find_data(
        self, name: str, raw: bytes, header: int, method: int, sizes: tuple[int, int]
    ) -> int:
        """Return where an entry's bytes start, which its own header has to agree with."""
        at = header + 30
        if header + 30 > len(self) or self._buffer[header : header + 4] != b"PK\x03\x04":
            raise self._broken(f"{quote_text(name)} has no header")
        flags, own, *_, packed, size, length, extra = struct.unpack_from(
            "<2H2H3I2H", self._buffer, header + 6
        )
        if own != method or self._buffer[at : at + length] != raw:
            raise self._broken(f"{quote_text(name)} has another header than listed")
        # Sizes may follow the data instead (flag 8), or stand in the zip64 field (all ones).
        stated = zip((packed, size), sizes, strict=True)
        if not flags & 8 and any(one not in (other, _WIDE) for one, other in stated):
            raise self._broken(f"{quote_text(name)} states two sizes")
        start: int = at + length + extra
        return start

    def _broken(self, finding: str) -> CaptureError:
        return damaged(self.name, finding, "a sound zip")


def _widen_fields(extra: bytes, *fields: int) -> list[int]:
    """Return numbers of a table of contents, those of all ones from its zip64 field."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    numbers = iter(struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8]))
    return [next(numbers, (field,))[0] if field == _WIDE else field for field in fields]
