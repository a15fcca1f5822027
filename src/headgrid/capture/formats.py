"""A dictionary <-> the bytes of a .npz, .safetensors or .pt file with the same keys.

Reading never runs code from a file. A `.npz` and a `.safetensors` hold arrays as
such; what else the dictionary has is JSON in one entry, or in the metadata. A `.npy`
holds one array alone and is read, not written.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from headgrid.capture.dtypes import DTYPES, WIDENED, check_characters, to_native
from headgrid.capture.files import MAPPED_FROM, MIB, Archive, read_or_map
from headgrid.capture.pt import read_pt
from headgrid.capture.schema import LIST_KEYS, MAX_FRAMES, as_array
from headgrid.errors import CaptureError, damaged, describe_error
from headgrid.text import quote_text

#: The entry of a `.npz`, and the marker of a `.safetensors`, that headgrid wrote.
_JSON_KEY = "headgrid_json"
_MAX_HEADER = 8 * MIB

#: By the name in safetensors: torch's name of a dtype.
_SAFETENSORS = {
    "BOOL": "bool",
    "C64": "complex64",
    "BF16": "bfloat16",
    **{f"F8_{name[7:].removesuffix('fn').upper()}": name for name in WIDENED if name[5] == "8"},
    **{f"{kind[0].upper()}{n}": f"{kind}{n}" for kind in ("int", "uint") for n in (8, 16, 32, 64)},
    **{f"F{n}": f"float{n}" for n in (16, 32, 64)},
}


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        archive = Archive(path.name, file)
        data = {}
        for inner in archive.entries:
            name = inner.removesuffix(".npy")
            data[name] = _read_npy(path.name, name, archive.read(inner))
    text = data.pop(_JSON_KEY, None)
    values = {} if text is None else _parse_json(path.name, _JSON_KEY, str(text))
    if not isinstance(values, dict):
        raise damaged(path.name, f"{_JSON_KEY} is no dictionary", "what headgrid writes")
    for name, value in data.items():  # in others' files, flat arrays are lists
        is_list = (text is None or name in LIST_KEYS) and isinstance(value, np.ndarray)
        if is_list and value.ndim == 1 and len(value) <= MAX_FRAMES:
            data[name] = value.tolist()  # 64 MiB of bytes would take 512 as a list
    return data | values


def _read_npy_file(path: Path) -> Any:
    with path.open("rb") as file:
        return _read_npy(path.name, "the array", memoryview(read_or_map(file)))


def _read_npy(source: str, name: str, content: memoryview) -> Any:
    """Return the array of an entry, or its value where it is a single one."""
    head = io.BytesIO(content[: 2**16 + 12])
    try:
        wide = np.lib.format.read_magic(head) != (1, 0)
        read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, is_fortran, dtype = read(head)
        if dtype.hasobject:
            raise TypeError("Python objects, which can hold code; save numbers, text, flat lists")
        count = math.prod(shape) if min(shape, default=0) >= 0 else len(content)
        raw = content[head.tell() :]
        flat = np.frombuffer(raw, dtype, count) if count else np.empty(0, dtype)
        if flat.nbytes < len(raw):
            raise ValueError(f"{len(raw) - flat.nbytes:,} bytes more than its shape says")
        if flat.nbytes < MAPPED_FROM:  # sums of values that are not aligned are rounded otherwise
            flat = np.require(flat, requirements="A")
        value = flat.reshape(shape, order="F" if is_fortran else "C")
        check_characters(value)
    except Exception as error:  # noqa: BLE001 - numpy, and the tokenizer behind it, raise anything
        finding = f"{quote_text(name)}: {describe_error(error)}"
        raise damaged(source, finding, "what numpy writes") from None
    return value.item() if value.ndim == 0 and value.dtype.kind in "biufcUS" else value


def _parse_json(source: str, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        finding = f"{quote_text(name)} is not JSON: {describe_error(error)}"
        raise damaged(source, finding, "what headgrid writes") from None


# .safetensors


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        buffer = read_or_map(file)
    length = int.from_bytes(buffer[:8], "little")
    if length > _MAX_HEADER:
        finding = f"the header claims {length:,} bytes, at most {_MAX_HEADER // MIB} MiB are read"
        raise damaged(path.name, finding, "what safetensors writes")
    try:
        with safe_open(path, framework="numpy") as checked:
            stored = checked.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path.name, describe_error(error), "what safetensors writes") from None
    header = json.loads(buffer[8 : 8 + length])  # sound: the library has checked it
    data = {
        name: _read_tensor(path.name, name, entry, buffer, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    # headgrid writes every value as JSON. In the files of others, text that happens to be JSON
    # is taken for a value, but the prompt is always text.
    ours = stored.pop(_JSON_KEY, None) is not None
    data |= stored
    for name, text in stored.items():
        with nullcontext() if ours else suppress(CaptureError):
            value = _parse_json(path.name, name, text)
            data[name] = value if ours or not (name == "prompt" or type(value) is str) else text
    return data


def _read_tensor(source: str, name: str, entry: Mapping[str, Any], buffer: Any, start: int) -> Any:
    """Return a tensor as a view of the file, dtypes that numpy lacks as float32."""
    dtype, shape = _SAFETENSORS.get(entry["dtype"]), tuple(entry["shape"])
    if dtype is None:
        raise CaptureError(
            f"{source}: {quote_text(name)} has dtype {entry['dtype']}, expected float16 to "
            "float64, bfloat16, float8, integers or bool; save it as float32"
        )
    first, last = entry["data_offsets"]
    code = np.dtype(DTYPES[dtype]).newbyteorder("<")
    count = math.prod(shape)
    values: Any = np.frombuffer(buffer, code, count, start + first) if last > first else []
    array = to_native(np.asarray(values, code).reshape(shape), dtype)
    return array.item() if array.ndim == 0 else array


READERS: dict[str, Callable[[Path], Any]] = {
    ".pt": read_pt,
    ".pth": read_pt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".npy": _read_npy_file,
}

#: Suffixes of the files that can hold a capture.
SUFFIXES = tuple(READERS)


# Dictionary -> file


def to_storable(data: Mapping[Any, Any], source: str, suffix: str) -> dict[Any, Any]:
    """Return the dictionary as plain Python and numpy; refuse what the format can not hold."""
    is_json = suffix not in (".pt", ".pth")
    stored = {}
    for key, value in data.items():
        try:
            stored[key] = _to_plain(value, is_json)
            if is_json:
                _check_entry(key, stored[key], suffix)
        # Of tensors that are sparse or quantized, and of what holds itself.
        except (TypeError, RuntimeError) as error:
            raise CaptureError(
                f"{source}: metadata {quote_text(str(key))} holds {describe_error(error)}, "
                "expected numbers, text, lists, dictionaries with text keys, or arrays; store it "
                "as text, or leave it out with capture.replace(metadata=...)"
            ) from None
    return stored


def _check_entry(key: Any, value: Any, suffix: str) -> None:
    if not isinstance(key, str) or key == _JSON_KEY:
        raise TypeError(f"a key that is a {type(key).__name__}, or headgrid's own")
    if isinstance(value, np.ndarray):
        # The entry's name is a file name within the zip.
        if not re.fullmatch(r"\w[\w .-]*(?<!\.npy)", key):
            raise TypeError("an array under a name with signs")
        if suffix == ".safetensors" and value.dtype.kind == "c":
            raise TypeError(f"an array of {value.dtype}")


def _to_plain(value: Any, is_json: bool, *, nested: bool = False) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    scalars = (str, bool, int, float, type(None)) + (() if is_json else (bytes, complex))
    if type(value) in scalars:
        return value
    if isinstance(value, (list, tuple)):
        parts = [_to_plain(part, is_json, nested=True) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        for key in value:
            is_odd = is_json or type(key) not in scalars or (type(key) is int and abs(key) >= 2**60)
            if type(key) is not str and is_odd:
                raise TypeError(f"a dictionary with a key that is a {type(key).__name__}")
        return {key: _to_plain(part, is_json, nested=True) for key, part in value.items()}
    array = as_array(value) if type(value).__module__.partition(".")[0] == "torch" else value
    if not isinstance(array, np.ndarray) or (is_json and nested):
        raise TypeError(f"a {'nested ' if nested else ''}{type(value).__name__}")
    if array.dtype.kind == "U":
        return array.tolist()
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16 or array.dtype == "g":
        raise TypeError(f"an array of {array.dtype}")
    return array


def _write_npz(data: Mapping[str, Any], file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key, value in data.items():
        # numpy drops the NUL at the end of text
        is_text = isinstance(value, str) and not value.endswith("\x00")
        is_number = type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)
        is_entry = key in LIST_KEYS or ((is_text or is_number) and re.fullmatch(r"\w+", key))
        (arrays if is_entry or isinstance(value, np.ndarray) else values)[key] = value
    arrays[_JSON_KEY] = json.dumps(values)
    with zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            # The date is fixed: the same capture gives the same bytes.
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _write_safetensors(data: Mapping[str, Any], file: IO[bytes]) -> None:
    from safetensors.numpy import save

    texts = {key: json.dumps(v) for key, v in data.items() if not isinstance(v, np.ndarray)}
    arrays = {
        key: np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        for key, value in data.items()
        if isinstance(value, np.ndarray)
    }
    content = save(arrays, texts | {_JSON_KEY: "1"})
    # The library writes the metadata in random order.
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    file.write(len(text).to_bytes(8, "little") + text + content[start:])


def _write_pt(data: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a dictionary as torch does, its arrays as tensors."""
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            return torch.from_numpy(native)
        if isinstance(value, (list, tuple)):
            return type(value)(map(tensors, value))
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return value

    try:
        # An open file, as a name would go into the zip and change its bytes.
        torch.save(tensors(data), file)
    except RuntimeError as error:  # torch's zip writer reports a full disk this way
        raise OSError(describe_error(error)) from None


WRITERS: dict[str, Callable[[Mapping[str, Any], IO[bytes]], None]] = {
    ".pt": _write_pt,
    ".pth": _write_pt,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}
