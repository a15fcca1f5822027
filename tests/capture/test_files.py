"""Zips that lie are refused, and files are written whole or not at all, whatever the format."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def make_zip(suffix: str, change: Callable[..., object], start: bytes = b"") -> bytes:
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


def edited(entry: int = 1, **changes: Any) -> Callable[[zipfile.ZipFile, str], None]:
    """A change of what the table of contents says of an entry; numbers are added."""

    def change(archive: zipfile.ZipFile, name: str) -> None:
        info = archive.filelist[entry]
        for key, value in changes.items():
            setattr(info, key, value if key == "filename" else getattr(info, key) + value)

    return change


def very_many(archive: zipfile.ZipFile, name: str) -> None:
    for index in range(40):
        entry = zipfile.ZipInfo(f"b{index}")
        entry.comment = b"x" * 60_000
        archive.writestr(entry, b"")


def hidden(archive: zipfile.ZipFile, name: str) -> None:
    """An entry that the table of contents does not list."""
    archive.writestr("b", bytes(100))
    del archive.filelist[2], archive.NameToInfo["b"]


LIES = {
    "twice": (lambda archive, name: archive.writestr(name, bytes(24)), "the same name"),
    "longer": (edited(file_size=2**31, compress_size=2**31), "overlap"),
    "other size": (edited(file_size=1), "states two sizes"),
    "shorter": (edited(file_size=-20, compress_size=-20), "other bytes"),
    "overlapping": (edited(0, file_size=40, compress_size=40), "overlap"),
    "encrypted": (edited(flag_bits=1), "encrypted"),
    "patched": (edited(flag_bits=0x20), "damaged"),
    "moved": (edited(header_offset=-1), "damaged"),
    "renamed": (edited(filename="b"), "differ"),
    "otherwise packed": (lambda archive, _: archive.writestr("b", b"x", 12), "has method 12"),
    "very many": (very_many, "a table of contents of more than 2 MiB"),
    "hidden": (hidden, "other bytes stand between"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("lie", LIES)
@SUFFIXES
def test_zips_that_lie_are_refused(suffix: str, lie: str, tmp_path: Path) -> None:
    change, found = LIES[lie]
    # Newer versions of Python find some of it themselves, and say "Overlapped".
    assert found.lower() in refusal(suffix, make_zip(suffix, change), tmp_path).lower()


@SUFFIXES
def test_two_tables_of_contents_or_one_elsewhere_are_refused(suffix: str, tmp_path: Path) -> None:
    whole = make_zip(suffix, lambda archive, name: None)
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


@SUFFIXES
def test_names_that_lead_out_are_refused(suffix: str, tmp_path: Path) -> None:
    for name in ("/etc/cron", "../up", "a/../../up", "a\\..\\b", "x\x00y"):
        info = zipfile.ZipInfo("a/zzzz")
        info.filename = info.orig_filename = name
        content = make_zip(suffix, lambda archive, _, info=info: archive.writestr(info, b""))
        assert "leads out of it" in refusal(suffix, content, tmp_path)


# Limits


SHAPES = ["[9]", f"[{2**62},4]", f"[0,{2**62}]", "[1" + ",1" * 10**6 + "]"]
TEXTS = ["[" * 10**6, "[" * 70 + "]" * 70, "[" + "1," * 10**6 + "1]", "9" * 10**6]
PICKLES = [
    b")" + b"\x85" * 390_000,  # deep
    b"\x8f\x94" * 190_000,  # sets, all of them in the memo
    b"]" + b"q\x00](h\x00h\x00e" * 60,  # each list holds the one before twice
    b"](" + b"}" * 390_000 + b"e",  # wide
    b"(" * 390_000,
    b"X" + struct.pack("<I", 2**20 + 4) + "🦅".encode() + b"x" * 2**20 + b"q\x00](h\x00h\x00e",
]


def bombs() -> Iterator[tuple[str, bytes]]:
    """Files that make much of little, and one that is what it says."""
    for shape in SHAPES:
        header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
        yield ".safetensors", len(header).to_bytes(8, "little") + header
    for text in TEXTS:
        yield ".npz", archived(headgrid_json=np.asarray(text))
        header = f'{{"__metadata__":{{"a":"{text}"}}}}'.encode()
        yield ".safetensors", len(header).to_bytes(8, "little") + header
    for pickle in PICKLES:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + pickle + b".")
        yield ".pt", buffer.getvalue()
    yield ".npz", archived(np.savez_compressed, b=np.zeros(2**24, "U1"))
    yield ".npz", archived(b=np.ones((1, 1000, 1000)))


def archived(save: Callable[..., None] = np.savez, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **{FULL: np.ones((1, 2, 2))}, **arrays)
    return buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="needs to measure the peak of memory")
def test_reading_takes_memory_and_time_in_proportion_and_neither_torch_nor_pandas(
    tmp_path: Path,
) -> None:
    for number, (suffix, content) in enumerate(bombs()):
        (tmp_path / f"layer{number}{suffix}").write_bytes(content)
    code = """
import re, sys, time
from pathlib import Path
from headgrid.capture.store import load_capture
def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")
    before, start, size = memory("VmRSS"), time.process_time(), path.stat().st_size
    try:
        load_capture(path)
    except ValueError:
        pass
    taken, seconds = memory("VmHWM") - before, time.process_time() - start
    if taken > 4 * size + 100e6 or seconds > size / 1e8 + 2:
        print(path.name, size, taken, seconds)
print(sorted({"torch", "pandas", "altair"} & set(sys.modules)))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr


# Writing


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "new" / "folder" / "a.svg", b"old")

    def fail(error: BaseException) -> None:
        with replace_file(path) as file:
            file.write(b"half")
            raise error

    for error in (KeyboardInterrupt(), OSError(28, "full")):
        with pytest.raises((KeyboardInterrupt, OutputError)):
            fail(error)
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
