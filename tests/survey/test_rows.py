"""Rows in pieces become CSV and Parquet files that hold every bit."""

import csv

import numpy as np
import pytest

from headgrid.errors import OutputError
from headgrid.survey.rows import ROWS_IN_A_PIECE, regroup, write_tables
from headgrid.survey.spool import Spool


def pieces(rows, length):
    values = np.random.default_rng(0).normal(size=rows) * 10.0 ** np.arange(-200, 200, 400 / rows)
    values[::7] = np.nan
    for start in range(0, rows, length):
        part = values[start : start + length].tolist()
        yield {"n": list(range(start, start + len(part))), "x": part, "s": ['é,"\n'] * len(part)}


@pytest.mark.parametrize("length", [1, 7, 5000])
def test_the_length_of_the_pieces_changes_no_byte(tmp_path, length):
    rows = ROWS_IN_A_PIECE + 3
    names = ["a.csv", "a.parquet"]
    one = write_tables(pieces(rows, rows), *(tmp_path / "one" / name for name in names))
    other = write_tables(pieces(rows, length), *(tmp_path / "other" / name for name in names))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_numbers_are_read_back_as_they_were(tmp_path):
    import pandas as pd

    (expected,) = pieces(1000, 1000)
    paths = write_tables(pieces(1000, 10), tmp_path / "a.csv", tmp_path / "a.parquet")
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["x"] or "nan") for row in rows], expected["x"])
    assert [int(row["n"]) for row in rows] == expected["n"]
    assert [row["s"] for row in rows] == expected["s"]
    table = pd.read_parquet(paths[1])
    np.testing.assert_array_equal(table["x"], expected["x"])
    assert table["n"].tolist() == expected["n"]
    assert table["s"].tolist() == expected["s"]


def test_parquet_is_written_in_row_groups(tmp_path):
    from pyarrow import parquet

    (path,) = write_tables(pieces(2 * ROWS_IN_A_PIECE + 1, 100), tmp_path / "a.parquet")
    assert parquet.ParquetFile(path).num_row_groups == 3


def test_neither_file_is_there_when_the_rows_can_not_be_made(tmp_path):
    def broken():
        yield from pieces(10_000, 100)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_tables(broken(), tmp_path / "a.csv", tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_an_error_in_one_sentence(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="can not be written"):
        write_tables(pieces(3, 3), tmp_path / "out/a.csv")


def test_regrouping_keeps_an_empty_table():
    assert list(regroup([{"a": []}])) == [{"a": []}]


def test_a_spool_takes_up_what_it_is_told_and_drops_the_rest(tmp_path):
    records = np.arange(24.0).reshape(4, 3, 2)
    spool = Spool(2, tmp_path / "rows")
    for record in records[:2]:
        spool.append(record)
    known = spool.count, spool.rows, spool.checksum
    spool.append(records[2])
    spool.close()
    again = Spool(2, tmp_path / "rows")
    assert again.keep(*known)
    again.append(records[3])
    np.testing.assert_array_equal(list(again.read([2, 0, 1])), records[[3, 0, 1]])
    again.close()


def test_a_spool_that_was_cut_short_is_not_taken_up(tmp_path):
    spool = Spool(2, tmp_path / "rows")
    spool.append(np.ones((3, 2)))
    known = spool.count, spool.rows, spool.checksum
    spool.close()
    (tmp_path / "rows").write_bytes((tmp_path / "rows").read_bytes()[:-1])
    again = Spool(2, tmp_path / "rows")
    assert not again.keep(*known)
    again.close()
