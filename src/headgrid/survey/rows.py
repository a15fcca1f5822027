"""Rows -> CSV and Parquet files, in pieces, so that long tables take no memory.

Numbers keep every bit: CSV holds the shortest text that reads back as the same
float64. A value that is not defined is an empty field of CSV, and NaN in Parquet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headgrid.capture.files import replace_file

if TYPE_CHECKING:
    import pandas as pd

#: Columns of a piece of a table, as lists of equal length.
Piece = Mapping[str, Sequence[Any]]

#: Rows that are in memory together, and in a row group of Parquet.
ROWS_IN_A_PIECE = 8192


def write_tables(pieces: Iterable[Piece], *paths: Path) -> list[Path]:
    r"""Write one table into several files, each by its suffix.

    Parameters
    ----------
    pieces : iterable of mapping
        Columns under the same names in each, as lists of int, float or str; read
        once.
    *paths : Path
        ``.csv`` or ``.parquet``. The files appear whole, when all are, or not at all.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OutputError
        Where one can not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (path,) = write_tables([{"head": [0, 1], "sink": [0.1, float("nan")]}],
    ...                            Path(folder, "a.csv"))
    ...     path.read_text()
    'head,sink\n0,0.1\n1,\n'
    """
    writers: dict[str, Callable[[Path], AbstractContextManager[_Writer]]]
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    with ExitStack() as stack:
        files = [stack.enter_context(writers[path.suffix](path)) for path in paths]
        for piece in regroup(pieces):
            for file in files:
                file.write(piece)
    return list(paths)


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write a small table that is in memory; see `write_tables`."""
    columns = {str(name): _to_list(frame[name]) for name in frame.columns}
    return write_tables([columns], path)[0]


def regroup(pieces: Iterable[Piece], rows: int = ROWS_IN_A_PIECE) -> Iterator[dict[str, list[Any]]]:
    """Yield the same rows in pieces of one length (the last is shorter); at least one.

    >>> list(regroup([{"a": [1]}, {"a": [2, 3]}], rows=2))
    [{'a': [1, 2]}, {'a': [3]}]
    """
    waiting: dict[str, list[Any]] = {}
    length = 0
    given = False
    for piece in pieces:
        for name, values in piece.items():
            waiting.setdefault(name, []).extend(values)
        length = len(next(iter(waiting.values()), []))
        while length >= rows:
            yield {name: values[:rows] for name, values in waiting.items()}
            waiting = {name: values[rows:] for name, values in waiting.items()}
            length, given = length - rows, True
    if length or not given:
        yield waiting


class _Writer(Protocol):
    def write(self, piece: Piece) -> None: ...


@contextmanager
def _write_csv(path: Path) -> Iterator[_Csv]:
    with replace_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield _Csv(text)
        text.flush()
        text.detach()  # closing the file is up to who opened it


class _Csv:
    def __init__(self, file: io.TextIOWrapper) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._names: list[str] = []

    def write(self, piece: Piece) -> None:
        if not self._names:
            self._names = list(piece)
            self._writer.writerow(self._names)
        columns = [_blank_missing(piece[name]) for name in self._names]
        self._writer.writerows(zip(*columns, strict=True))


@contextmanager
def _write_parquet(path: Path) -> Iterator[_Parquet]:
    with replace_file(path) as file:
        table = _Parquet(file)
        try:
            yield table
        finally:
            table.close()


class _Parquet:
    def __init__(self, file: Any) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, piece: Piece) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table({name: pa.array(values) for name, values in piece.items()})
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        finally:
            self._writer.is_open = False  # or it tries again when it is collected, and complains


def _to_list(column: pd.Series[Any]) -> list[Any]:
    values: list[Any] = column.tolist()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    # pandas' own missing value is no float, and comparing it gives itself.
    return type(value).__name__ == "NAType"


def _blank_missing(values: Sequence[Any]) -> Sequence[Any]:
    """Return the values with an empty text for None and for NaN, which is unequal to itself."""
    return ["" if value is None or value != value else value for value in values]
