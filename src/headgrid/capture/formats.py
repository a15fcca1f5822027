"""A dictionary <-> the bytes of a .npz, .safetensors or .pt file with the same keys.

Reading never runs code from a file. A `.npz` and a `.safetensors` hold arrays as
such; what else the dictionary has is JSON in one entry, or in the metadata.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from headgrid.capture.blocks import MAX_FRAMES
from headgrid.capture.dtypes import DTYPES, widen
from headgrid.capture.files import MIB, read_or_map
from headgrid.capture.pt import read_pt, write_pt
from headgrid.capture.schema import Array, as_array
from headgrid.capture.values import check_characters, make_plain
from headgrid.capture.zips import Archive
from headgrid.errors import CaptureError, damaged, describe_error, near_miss
from headgrid.text import quote_text, shorten_text

#: Keys whose lists are arrays in a `.npz`, so that others can read them as well.
LIST_KEYS = ("block_sizes", "query_frames", "key_frames", "last_block_query_frames")
#: The entry of a `.npz`, and the marker of a `.safetensors`, that headgrid wrote.
_JSON_KEY = "headgrid_json"
_MAX_HEADER = 8 * MIB

#: By the name in safetensors: torch's name of a dtype.
_SAFETENSORS = {dtype.safetensors: name for name, dtype in DTYPES.items() if dtype.safetensors}


def check_suffix(path: Path) -> str:
    """Return the suffix of a file that could hold a capture, in small letters.

    Raises
    ------
    CaptureError
        For another one.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CaptureError(
            f"{path.name}: the suffix is {suffix!r}, expected one of {', '.join(SUFFIXES)}"
            f"{near_miss(suffix, SUFFIXES)}"
        )
    return suffix


# .npz


def _read_npz(path: Path) -> tuple[dict[str, Any], list[str]]:
    with path.open("rb", buffering=0) as file:
        buffer = read_or_map(file)
    if buffer[:2] != b"PK":
        raise CaptureError(
            f"{path.name}: is no zip of arrays, expected what numpy.savez writes; record it anew"
        )
    archive = Archive(path.name, buffer)
    data = {}
    for inner, entry in archive.entries.items():
        content = archive.read(inner, entry.size)
        if len(content) < entry.size or zlib.crc32(content) != entry.crc:
            raise damaged(path.name, f"{quote_text(inner)} is not whole", "what numpy.savez writes")
        name = inner.removesuffix(".npy")
        data[name] = _read_npy(path.name, name, content)
    return _merge_json(path.name, data), []


def _read_npy(source: str, name: str, content: memoryview) -> Any:
    """Return the array of an entry, or its value where it is a single one."""
    head = io.BytesIO(content[: 2**16 + 12])
    try:
        version = np.lib.format.read_magic(head)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(head)
        if not dtype.hasobject:
            count = math.prod(shape)
            raw = content[head.tell() :]
            flat = np.frombuffer(raw, dtype, count) if count else np.empty(0, dtype)
            # Sums of values that are not aligned in memory are rounded in another order.
            aligned = np.require(flat, requirements="A")
            value = aligned.reshape(shape, order="F" if is_fortran else "C")
    except Exception as error:  # noqa: BLE001 - numpy, and the tokenizer behind it, raise anything
        finding = f"{quote_text(name)}: {_quote(error)}"
        raise damaged(source, finding, "what numpy.savez writes") from None
    if dtype.hasobject:
        raise CaptureError(
            f"{source}: {quote_text(name)} holds Python objects, which can hold code and "
            "were not read, expected numbers or text; save numbers, text and flat lists"
        )
    check_characters(source, value)
    return value.item() if value.ndim == 0 and value.dtype.kind in "biufcUS" else value


def _merge_json(source: str, data: dict[str, Any]) -> dict[str, Any]:
    """Merge the values that headgrid stored as JSON; in others' files, flat arrays are lists."""
    text = data.pop(_JSON_KEY, None)
    if text is not None:
        values = _parse_json(source, _JSON_KEY, str(text))
        if not isinstance(values, dict):
            raise CaptureError(f"{source}: {_JSON_KEY} is no JSON dictionary; save it anew")
        data.update(values)
    for name, value in data.items():
        is_list = text is None or name in LIST_KEYS
        if not is_list or not isinstance(value, np.ndarray) or value.ndim != 1:
            continue
        if len(value) <= MAX_FRAMES:  # as a list, 64 MiB of bytes would take 512
            data[name] = value.tolist()
    return data


def _parse_json(source: str, name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptureError(
            f"{source}: {quote_text(name)} is not JSON ({describe_error(error)}), expected what "
            "headgrid writes; save the capture anew"
        ) from None
    return make_plain(source, value)[0]


def _quote(error: BaseException) -> str:
    return shorten_text(describe_error(error), 90)


# .safetensors


def _read_safetensors(path: Path) -> tuple[dict[str, Any], list[str]]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb", buffering=0) as file:
        buffer = read_or_map(file)
    length = int.from_bytes(buffer[:8], "little")
    if length > _MAX_HEADER:
        raise CaptureError(
            f"{path.name}: the header claims {length:,} bytes, expected at most "
            f"{_MAX_HEADER // MIB} MiB; it is damaged or no safetensors file, record it anew"
        )
    try:
        with safe_open(path, framework="numpy") as checked:
            stored = checked.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path.name, _quote(error), "what safetensors writes") from None
    header = json.loads(buffer[8 : 8 + length])  # sound: the library has checked it
    data = {
        name: _read_tensor(path.name, name, entry, buffer, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return data | _parse_metadata(path.name, stored), []


def _read_tensor(
    source: str, name: str, entry: Mapping[str, Any], buffer: bytes | mmap.mmap, start: int
) -> Any:
    """Return a tensor as a view of the file, dtypes that numpy lacks as float32."""
    dtype, shape = _SAFETENSORS.get(entry["dtype"]), tuple(entry["shape"])
    if dtype is None:
        raise CaptureError(
            f"{source}: {quote_text(name)} has dtype {entry['dtype']}, expected float16 to "
            "float64, bfloat16, float8, integers or bool; save it as float32"
        )
    first, last = entry["data_offsets"]
    code = np.dtype(DTYPES[dtype].code).newbyteorder("<")
    count = math.prod(shape)
    values: Any = np.frombuffer(buffer, code, count, start + first) if last > first else []
    array = widen(np.asarray(values, code).reshape(shape), dtype)
    return array.item() if array.ndim == 0 else array


def _parse_metadata(source: str, stored: Mapping[str, str]) -> dict[str, Any]:
    """Turn safetensors' text-only metadata back into values.

    headgrid writes every value as JSON. In the files of others, text that happens
    to be JSON is taken for a value, but the prompt is always text.
    """
    ours = _JSON_KEY in stored
    data: dict[str, Any] = {}
    for name, text in stored.items():
        if name == _JSON_KEY:
            continue
        if ours:
            data[name] = _parse_json(source, name, text)
            continue
        data[name] = text
        if name != "prompt":
            try:
                value = _parse_json(source, name, text)
            except CaptureError:
                continue
            data[name] = text if isinstance(value, str) else value
    return data


#: Each returns what a file holds, and sentences about what is odd in it.
READERS: dict[str, Callable[[Path], tuple[Any, list[str]]]] = {
    ".pt": read_pt,
    ".pth": read_pt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}

#: Suffixes of the files that can hold a capture.
SUFFIXES = tuple(READERS)


# Dictionary -> file


def to_storable(data: Mapping[Any, Any], source: str) -> dict[Any, Any]:
    """Return the dictionary as plain Python and numpy.

    Raises
    ------
    CaptureError
        For a key whose value no file can hold.

    Examples
    --------
    >>> to_storable({"seed": np.int64(7)}, "a.npz")
    {'seed': 7}
    """
    return {key: _storable(source, key, value) for key, value in data.items()}


def _storable(source: str, key: Any, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (str, bool, int, float, bytes, complex):
        return value
    if isinstance(value, (list, tuple)):
        parts = [_storable(source, key, part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        for inner in value:
            if type(inner) not in (str, int, float, bool, type(None)):
                raise _unstorable(source, key, f"a key that is a {type(inner).__name__}")
        return {inner: _storable(source, key, part) for inner, part in value.items()}
    return _storable_array(source, key, value)


def _storable_array(source: str, key: Any, value: Any) -> Any:
    try:
        is_tensor = type(value).__module__.partition(".")[0] == "torch"
        array = as_array(value) if is_tensor else value
    except (TypeError, RuntimeError):  # sparse, quantized
        array = None
    if not isinstance(array, np.ndarray):
        raise _unstorable(source, key, f"a {type(value).__name__}")
    if array.dtype.kind == "U":
        return array.tolist()
    if array.dtype.kind in "biuc" or array.dtype in (np.float16, np.float32, np.float64):
        return array
    raise _unstorable(source, key, f"an array of {array.dtype}")


def _unstorable(source: str, key: Any, found: str) -> CaptureError:
    return CaptureError(
        f"{source}: metadata {str(key)!r} holds {found}, expected numbers, text, lists, "
        "dictionaries with text keys, or arrays; store it as text, or leave it out with "
        "capture.replace(metadata=...)"
    )


def _split_arrays(source: str, data: Mapping[Any, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Split into arrays, and values that JSON holds exactly."""
    arrays: dict[str, Array] = {}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if not isinstance(name, str):
            raise _unstorable(source, name, f"a key that is a {type(name).__name__}")
        if name == _JSON_KEY:
            raise _unstorable(source, name, "the key that headgrid itself uses")
        if isinstance(value, np.ndarray):
            # The entry's name is a file name within the zip.
            if not re.fullmatch(r"\w[\w .-]*", name) or name.endswith(".npy"):
                raise _unstorable(source, name, "an array under a name with signs")
            arrays[name] = value
        else:
            _check_json(source, name, value)
            values[name] = value
    return arrays, values


def _check_json(source: str, name: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for part in value:
            _check_json(source, name, part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if type(key) is not str:
                raise _unstorable(source, name, f"a dictionary with the key {key!r}")
            _check_json(source, name, part)
    elif value is not None and type(value) not in (str, bool, int, float):
        found = "a nested array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise _unstorable(source, name, found)


def _write_npz(data: dict[str, Any], file: IO[bytes], source: str) -> None:
    arrays, values = _split_arrays(source, data)
    for key, value in list(values.items()):
        if (
            key in LIST_KEYS
            or isinstance(value, (bool, float))
            or (isinstance(value, int) and abs(value) < 2**63)
            # numpy drops the NUL at the end of text
            or (isinstance(value, str) and not value.endswith("\x00"))
        ) and re.fullmatch(r"\w+", key):
            arrays[key] = np.asarray(values.pop(key))
    arrays[_JSON_KEY] = np.asarray(json.dumps(values))
    with zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            # The date is fixed: the same capture gives the same bytes.
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _write_safetensors(data: dict[str, Any], file: IO[bytes], source: str) -> None:
    from safetensors.numpy import save

    arrays, values = _split_arrays(source, data)
    for key, array in arrays.items():
        if array.dtype.kind == "c":
            raise _unstorable(source, key, f"an array of {array.dtype}")
        arrays[key] = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    texts = {key: json.dumps(value) for key, value in values.items()}
    file.write(_order_metadata(save(arrays, texts | {_JSON_KEY: "1"})))


def _order_metadata(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in random order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + content[start:]


WRITERS: dict[str, Callable[[dict[str, Any], IO[bytes], str], None]] = {
    ".pt": write_pt,
    ".pth": write_pt,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}
