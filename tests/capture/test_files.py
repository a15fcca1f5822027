"""Zips that lie are refused, and files are written whole or not at all, whatever the format."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headgrid.capture.files import replace_file, write_bytes
from headgrid.capture.store import load_capture
from headgrid.errors import CaptureError, OutputError

FULL = "full_frame_attention"
#: Names of the pickle or header, and of the values.
ENTRIES = {".pt": ("a/data.pkl", "a/data/0"), ".npz": (f"{FULL}.npy", "seed.npy")}
SUFFIXES = pytest.mark.parametrize("suffix", ENTRIES)


def contents(suffix: str) -> list[bytes]:
    if suffix == ".pt":
        return [b"\x80\x02N.", bytes(24)]
    files = [io.BytesIO(), io.BytesIO()]
    np.save(files[0], np.ones((1, 2, 2)))
    np.save(files[1], np.array(7))
    return [file.getvalue() for file in files]


def make_zip(suffix: str, change: Callable[[zipfile.ZipFile, str], object], start: bytes) -> bytes:
    """A zip that a change has made lie before its table of contents was written."""
    buffer = io.BytesIO(start)
    buffer.seek(len(start))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in zip(ENTRIES[suffix], contents(suffix), strict=True):
            archive.writestr(name, content)
        change(archive, ENTRIES[suffix][1])
    return buffer.getvalue()


def refusal(suffix: str, content: bytes, folder: Path) -> str:
    path = folder / f"layer3{suffix}"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"\Alayer3\.[ptnz]+: [^\n]*expected[^\n]*\Z") as caught:
        load_capture(path)
    return str(caught.value)


def resized(entry: int, size: int, packed: int) -> Callable[[zipfile.ZipFile, str], object]:
    def change(archive: zipfile.ZipFile, name: str) -> None:
        info = archive.filelist[entry]
        info.file_size, info.compress_size = info.file_size + size, info.compress_size + packed

    return change


def encrypted(archive: zipfile.ZipFile, name: str) -> None:
    archive.filelist[1].flag_bits |= 1


def patched(archive: zipfile.ZipFile, name: str) -> None:
    archive.filelist[1].flag_bits |= 0x20


def moved(archive: zipfile.ZipFile, name: str) -> None:
    archive.filelist[1].header_offset -= 1


def renamed(archive: zipfile.ZipFile, name: str) -> None:
    archive.filelist[1].filename = "b" + name[1:]


def otherwise_packed(archive: zipfile.ZipFile, name: str) -> None:
    archive.writestr("b", b"x", zipfile.ZIP_BZIP2)


def very_many(archive: zipfile.ZipFile, name: str) -> None:
    for index in range(40):
        entry = zipfile.ZipInfo(f"b{index}")
        entry.comment = b"x" * 60_000
        archive.writestr(entry, b"")


def hidden(archive: zipfile.ZipFile, name: str) -> None:
    """An entry, and a table of contents, that the table does not list."""
    archive.writestr("b", bytes(100))
    del archive.filelist[2], archive.NameToInfo["b"]


LIES = {
    "twice": (lambda archive, name: archive.writestr(name, bytes(24)), "the same name"),
    "longer": (resized(1, 2**31, 2**31), "overlap"),
    "other size": (resized(1, 1, 0), "states two sizes"),
    "shorter": (resized(1, -20, -20), "other bytes"),
    "overlapping": (resized(0, 40, 40), "overlap"),
    "encrypted": (encrypted, "encrypted"),
    "patched": (patched, "damaged"),
    "moved": (moved, "damaged"),
    "renamed": (renamed, "differ"),
    "otherwise packed": (otherwise_packed, "has method 12"),
    "very many": (very_many, "a table of contents of more than 2 MiB"),
    "hidden": (hidden, "other bytes stand between"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("lie", LIES)
@SUFFIXES
def test_zips_that_lie_are_refused(suffix: str, lie: str, tmp_path: Path) -> None:
    change, found = LIES[lie]
    content = make_zip(suffix, change, b"")
    assert found in refusal(suffix, content, tmp_path)


@SUFFIXES
def test_two_tables_of_contents_or_one_elsewhere_are_refused(suffix: str, tmp_path: Path) -> None:
    whole = make_zip(suffix, lambda archive, name: None, b"")
    at = whole.rfind(b"PK\x05\x06")
    size, start = struct.unpack_from("<2I", whole, at + 12)

    def ended(start: int, size: int) -> bytes:
        return whole[: at + 12] + struct.pack("<2I", size, start) + whole[at + 20 :]

    table = whole[start:at]
    for content, found in [
        (whole + whole, "not where its end record says"),
        (make_zip(suffix, lambda archive, name: None, whole), "other bytes stand"),
        (whole[:start] + table + whole[start:], "not where its end record says"),
        (whole[:start] + table + ended(start + len(table), size)[start:], "other bytes stand"),
        (ended(start - 1, size), "not where its end record says"),
        (ended(start + 46, size - 46), "damaged"),
        (whole + b"x", "not where its end record says"),
        (b"x" + whole, "not where its end record says"),
    ]:
        assert found in refusal(suffix, content, tmp_path)


@pytest.mark.parametrize("name", ["/etc/cron", "../up", "a/../../up", "a\\..\\b", "x\x00y"])
@SUFFIXES
def test_names_that_lead_out_are_refused(suffix: str, name: str, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a/zzzz")
    info.filename = info.orig_filename = name
    content = make_zip(suffix, lambda archive, _: archive.writestr(info, b""), b"")
    assert "leads out of it" in refusal(suffix, content, tmp_path)


# Writing


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_interrupted_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "new" / "folder" / "a.svg", b"old")

    def interrupt() -> None:
        with replace_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (path.read_bytes(), names_in(path.parent)) == (b"old", ["a.svg"])


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OutputError, match=r"b\.svg: can not be written .*expected a folder"):
        write_bytes(tmp_path / "a" / "b.svg", b"")
    assert names_in(tmp_path) == ["a"]


def test_names_may_be_as_long_as_they_can_be_and_permissions_are_the_usual(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / ("鹰" * 83 + ".npz"), b"")
    assert names_in(tmp_path) == [path.name]
    (tmp_path / "plain").touch()
    if os.name == "posix":
        modes = [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()]
        assert modes[0] == modes[1]
