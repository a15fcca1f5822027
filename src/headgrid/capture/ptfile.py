"""A torch .pt zip -> plain Python values and numpy arrays, without importing torch.

A `.pt` file is a zip that holds a pickle (`<prefix>/data.pkl`) and the raw bytes
of every tensor (`<prefix>/data/<key>`).

Big files are memory-mapped and their arrays are read-only views, so reading one
costs no memory. Such a file must not be overwritten in place while its arrays
live; `headgrid.save_capture` replaces files whole.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from headgrid.capture.calls import ANEW, Budget
from headgrid.capture.files import MIB
from headgrid.capture.pickles import Machine
from headgrid.capture.tensors import NumpyCalls, TensorCalls
from headgrid.capture.zips import Archive, BoundedFile
from headgrid.errors import CaptureError
from headgrid.text import quote_text

#: A pickle holds no tensors, so it is small unless numpy arrays are inside.
MAX_PICKLE = 32 * MIB
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


class NotReadable(Exception):  # noqa: N818 - a signal to the caller, never shown
    """The file may be sound, but only torch knows its content; the text says what it is."""


def read_pt(path: Path) -> Any:
    """Read what `torch.save` wrote.

    Parameters
    ----------
    path : Path
        An existing, regular file.

    Returns
    -------
    object
        Usually a dictionary. Tensors are read-only numpy arrays of their shape;
        bfloat16 and float8 become float32 (exactly), numpy scalars become Python
        numbers, dtypes and devices become text (``"torch.float16"``).

    Raises
    ------
    CaptureError
        Where the file is damaged, asks for code, or would need absurd resources.
    NotReadable
        Where the file may be sound but holds what only torch can rebuild.
    """
    name = path.name
    with BoundedFile(path, "rb") as file:
        _check_head(name, file)
        archive = Archive(name, file)
    prefix = _find_prefix(name, list(archive.entries))
    budget = Budget(name)
    tensors = TensorCalls(budget, archive, prefix)
    machine = Machine(budget, tensors.names() | NumpyCalls(budget).names(), tensors.load)
    value = machine.run(_read_program(name, archive, prefix + "data.pkl"))
    if machine.exotic is not None:
        raise NotReadable(f"the pickle asks for {machine.exotic.what}")
    return value


def _check_head(name: str, file: BoundedFile) -> None:
    head = file.read(64)
    if head.startswith(_LEGACY_MAGIC):
        raise NotReadable("the file has the format of torch before 1.6")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return
    if head[:1] == b"\x80":
        raise CaptureError(
            f"{name}: is a bare pickle, which can hold code and was not run, expected what "
            f"torch.save writes; {ANEW}"
        )
    size = os.fstat(file.fileno()).st_size
    raise CaptureError(
        f"{name}: is no capture (it starts with {head[:8]!r}, {size:,} bytes), expected what "
        "torch.save writes; record it anew"
    )


def _find_prefix(name: str, entries: list[str]) -> str:
    found = [entry for entry in entries if re.fullmatch(r"([^/]+/)?data\.pkl", entry)]
    if len(found) == 1:
        prefix = found[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in entries:
            raise CaptureError(
                f"{name}: is a TorchScript program, expected a dictionary of tensors; {ANEW}"
            )
        return prefix
    if any(entry.endswith(".npy") for entry in entries):
        raise CaptureError(
            f"{name}: holds .npy arrays, expected what torch.save writes; it is a numpy "
            "archive, so rename it to .npz"
        )
    shown = ", ".join(quote_text(entry, 30) for entry in entries[:3])
    raise CaptureError(
        f"{name}: is a zip with {len(found) or 'no'} data.pkl ({shown or 'no entries'}), "
        f"expected what torch.save writes; {ANEW}"
    )


def _read_program(name: str, archive: Archive, entry: str) -> bytes:
    size = archive.entries[entry].file_size
    if size > MAX_PICKLE:
        raise CaptureError(
            f"{name}: data.pkl has {size:,} bytes, expected at most {MAX_PICKLE // MIB} MiB; "
            "store large arrays as tensors (torch.from_numpy)"
        )
    return bytes(archive.read(entry, size))
