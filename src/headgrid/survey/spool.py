"""Arrays of one shape -> records in a file, so that many of them take no memory."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from headgrid.errors import OutputError

Record = npt.NDArray[np.float64]


class Spool:
    """Records of float64, appended one after another and read in any order.

    Parameters
    ----------
    columns : int
        Length of a record's last axis; the first is that of the first record.
    path : Path, optional
        Where the records lie; by default in memory. What is there stays, see
        `keep`.

    Examples
    --------
    >>> spool = Spool(2)
    >>> spool.append(np.array([[1.0, 2.0]]))
    >>> spool.append(np.array([[3.0, 4.0]]))
    >>> next(spool.read([1]))
    array([[3., 4.]])
    """

    def __init__(self, columns: int, path: Path | None = None) -> None:
        self.columns = columns
        self.count = 0
        self.rows = 0
        self.checksum = 0
        self._path = path
        self._file: BinaryIO = io.BytesIO()
        if path is not None:
            with self._told():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                self._file = path.open("r+b")

    def append(self, record: Record) -> None:
        """Add a record of shape (rows, columns).

        Raises
        ------
        OutputError
            Where it can not be written.
        """
        self.rows = self.rows or len(record)
        assert record.shape == (self.rows, self.columns)
        content = np.ascontiguousarray(record, dtype="<f8").tobytes()
        with self._told():
            self._file.seek(self.count * self._size)
            self._file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)
        self.count += 1

    def read(self, positions: Sequence[int]) -> Iterator[Record]:
        """Yield the records at these positions."""
        with self._told():
            self._file.flush()
        for position in positions:
            self._file.seek(position * self._size)
            content = self._file.read(self._size)
            yield np.frombuffer(content, dtype="<f8").reshape(self.rows, self.columns)

    def flush(self) -> None:
        """Hand what was appended to the system, so that it outlives this process."""
        with self._told():
            self._file.flush()

    def keep(self, count: int, rows: int, checksum: int) -> bool:
        """Take up the first records of an older file; drop what follows them.

        Returns
        -------
        bool
            Whether they are there, and as they were.
        """
        size = count * rows * self.columns * 8
        self._file.seek(0)
        found = left = 0
        while left < size and (content := self._file.read(min(2**20, size - left))):
            found = zlib.crc32(content, found)
            left += len(content)
        if left != size or found != checksum:
            return False
        with self._told():
            self._file.truncate(size)
        self.count, self.rows, self.checksum = count, rows, checksum
        return True

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written was said by `append`
            self._file.close()

    @property
    def _size(self) -> int:
        return self.rows * self.columns * 8

    def _told(self) -> _Told:
        return _Told(self._path)


class _Told:
    """Turn the system's errors into one sentence."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(
                f"{self._path}: can not be written ({error.strerror or error}), expected a folder "
                "that can be written to and has room; choose another one, or make room and go on "
                "with --resume"
            ) from None
