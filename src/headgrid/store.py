"""Files <-> captures, folders -> captures.

Three formats hold the same keys: `.pt` (`torch.save`), `.npz` and
`.safetensors`. Reading never runs code from a file, and torch is imported only
to write a `.pt` and to read the rare one that only torch understands.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import secrets
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from headgrid.capture import FULL, LAST, Capture, as_array
from headgrid.errors import (
    CaptureError,
    HeadgridWarning,
    OutputError,
    check_choice,
    near_miss,
)
from headgrid.ptfile import (
    MAPPED_FROM,
    MIB,
    NotReadable,
    _BoundedFile,
    check_expansion,
    open_zip,
    read_pt,
    shorten,
    unpacked_limit,
    widen,
)

Array = npt.NDArray[Any]

#: Suffixes of the files that can hold a capture.
SUFFIXES = (".pt", ".pth", ".npz", ".safetensors")

#: Keys whose lists are arrays in a `.npz`, so that others can read them as well.
_LIST_KEYS = ("block_sizes", "query_frames", "key_frames", "last_block_query_frames")
#: The entry of a `.npz`, and the marker of a `.safetensors`, that headgrid wrote.
_JSON_KEY = "headgrid_json"
_MAX_HEADER = 8 * MIB
_MAX_JSON = 64_000_000

#: safetensors names of the dtypes that numpy lacks -> (raw dtype, name for `widen`).
_WIDENED = {
    "BF16": ("<u2", "bfloat16"),
    "F8_E4M3": ("u1", "float8_e4m3fn"),
    "F8_E5M2": ("u1", "float8_e5m2"),
}


@dataclass(frozen=True)
class CaptureFile:
    """A file that should hold a capture, found by `find_captures`.

    Attributes
    ----------
    path : Path
        The file, spelled as its input was.
    relative : PurePath
        Its folder, relative to the input it was found in (``.`` for a file).
    run : str
        Name of its folder where that looks like a run (``run_000``), else ``""``.
    """

    path: Path
    relative: PurePath
    run: str


# Files -> captures


def load_capture(path: str | os.PathLike[str], *, run: str = "") -> Capture:
    """Read one layer's capture.

    Parameters
    ----------
    path : path
        A `.pt` or `.pth` (a dictionary, written by `torch.save`), `.npz` or
        `.safetensors` file with the keys of the capture schema. Code in the
        file is refused, never run.
    run : str
        Name of the run that the layer belongs to.

    Returns
    -------
    Capture
        With ``full_frame_attention`` [heads, query, key] and
        ``last_block_frame_attention`` [heads, key] as floating numpy arrays. Those
        of a file of 16 MiB and more are views of the file: replace such a file
        whole, never overwrite it in place. Where ``layer_index`` is absent, the
        number comes from the file name (``layer3.pt``).

    Raises
    ------
    CaptureError
        Where the file is missing, unreadable, damaged, or no capture.

    Warns
    -----
    HeadgridWarning
        Where something in the file is odd and was handled.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]], layer=3, block_sizes=[1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_capture(save_capture(capture, folder + "/layer3.npz"), run="run_000")
    <Capture run_000, layer 3: logit, 1 head, 2 query x 2 key frames, blocks [1, 1]>
    """
    return _load(Path(path), run, stacklevel=3)


def load_run(folder: str | os.PathLike[str]) -> list[Capture]:
    """Read all layers of a run.

    Parameters
    ----------
    folder : path
        A folder that directly holds captures; its name becomes the name of the run.

    Returns
    -------
    list of Capture
        In natural order of the file names (layer2 before layer10).

    Raises
    ------
    CaptureError
        For the first file that is not usable, and where there is none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for layer in (10, 2):
    ...         capture = Capture.from_array([[[1.0]]], layer=layer)
    ...         _ = save_capture(capture, f"{folder}/layer{layer}.npz")
    ...     [capture.layer_index for capture in load_run(folder)]
    [2, 10]
    """
    where = Path(folder)
    if not where.exists():
        raise _missing(where, "folder")
    if not where.is_dir():
        raise CaptureError(f"{where.name}: is a file, expected a folder; load_capture reads a file")
    try:
        names = [entry.name for entry in os.scandir(where) if entry.is_file()]
    except OSError as error:
        raise CaptureError(f"{folder}: {_reason(error)}, expected a readable folder") from None
    captures = sorted(filter(_looks_like_capture, names), key=_natural)
    if not captures:
        raise _no_captures(where, Counter(Path(name).suffix for name in names))
    run = _folder_name(where)
    return [_load(where / name, run, stacklevel=3) for name in captures]


def _load(path: Path, run: str, stacklevel: int) -> Capture:
    suffix = _check_file(path)
    try:
        data = _READERS[suffix](path)
    except PermissionError as error:
        raise CaptureError(f"{path.name}: {_reason(error)}, expected a readable file") from None
    except (OSError, MemoryError) as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"{path.name}: can not be read ({_reason(error)})") from None
    if not isinstance(data, Mapping):
        raise CaptureError(
            f"{path.name}: holds {_describe(data)}, expected a dictionary with {FULL} "
            f"(heads, query, key) or {LAST} (heads, key)"
        )
    named = re.search(r"layer[_-]?(\d+)", path.stem, re.IGNORECASE)
    layer = int(named[1]) if named else None
    capture = Capture.from_dict(data, source=path.name, layer=layer, run=run)
    for text in capture.warnings:
        warnings.warn(text, HeadgridWarning, stacklevel=stacklevel)
    return capture


def _check_file(path: Path) -> str:
    """Return the suffix of a file that can be opened and is not empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path, "file") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"{path.name}: {_reason(error)}, expected a readable file") from None
    if stat.S_ISDIR(status.st_mode):
        raise CaptureError(
            f"{path.name}: is a folder, expected a file ({', '.join(SUFFIXES)}); load_run reads "
            "the captures of a folder"
        )
    if not stat.S_ISREG(status.st_mode):
        raise CaptureError(f"{path.name}: is a device or pipe, expected a regular file")
    suffix = _check_suffix(path)
    if not status.st_size:
        raise CaptureError(
            f"{path.name}: the file is empty (0 bytes), expected a capture; record it anew"
        )
    return suffix


def _check_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CaptureError(
            f"{path.name}: the suffix is {suffix!r}, expected one of {', '.join(SUFFIXES)}"
            f"{near_miss(suffix, SUFFIXES)}"
        )
    return suffix


def _missing(path: Path, kind: str) -> CaptureError:
    try:
        siblings = sorted(sibling.name for sibling in path.parent.iterdir())[:10_000]
    except (OSError, ValueError):
        return CaptureError(
            f"{path}: there is no folder {str(path.parent)!r}, expected a {kind} there"
        )
    hint = near_miss(path.name, siblings) or "; check the path"
    return CaptureError(f"{path}: there is no such {kind}, expected a capture{hint}")


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return f"can not be opened ({text})" if isinstance(error, OSError) else text


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a tensor {value.shape}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)} values"
    return f"a {type(value).__name__}"


# .pt


def _read_pt(path: Path) -> Any:
    try:
        return read_pt(path)
    except NotReadable as reason:
        return _read_with_torch(path, str(reason))


def _read_with_torch(path: Path, reason: str) -> Any:
    """Let torch read what only torch can rebuild; it does not run code either."""
    remedy = (
        "expected tensors, numbers, text, lists and dictionaries; write the capture anew with "
        "torch.save(dict)"
    )
    try:
        import torch
    except ImportError:
        raise CaptureError(
            f"{path.name}: {reason}, which needs torch, and torch is not installed; {remedy}"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # noqa: BLE001 - torch raises anything; its text advises to run the code
        raise CaptureError(
            f"{path.name}: {reason}, and torch does not read it as data either; {remedy}"
        ) from None
    check_expansion(path.name, value, _MAX_JSON)
    return _without_torch(value)


def _without_torch(value: Any) -> Any:
    """Turn tensors into arrays, and dtypes and devices into text, at any depth."""
    if isinstance(value, Mapping):
        return {key: _without_torch(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_without_torch(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if type(value).__module__.partition(".")[0] != "torch":
        return value
    if not hasattr(value, "detach"):
        return str(value)
    try:
        return as_array(value)
    except (TypeError, RuntimeError):  # sparse, quantized: Capture says so if it matters
        return value


# .npz


def _read_npz(path: Path) -> dict[str, Any]:
    with _BoundedFile(path, "rb") as file:
        if file.read(2) != b"PK":
            raise CaptureError(
                f"{path.name}: is no zip of arrays, expected what numpy.savez writes; record it "
                "anew"
            )
        entries = open_zip(path.name, file)
        total = sum(entry.file_size for entry in entries.values())
        packed = sum(entry.compress_size for entry in entries.values())
        if total > max(unpacked_limit(packed), packed):
            raise CaptureError(
                f"{path.name}: {packed:,} bytes unpack to {total:,}, expected moderately packed "
                "arrays; write it anew with numpy.savez"
            )
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                data = {name: _read_entry(archive, name, path.name) for name in archive.files}
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, MemoryError) as error:
            if isinstance(error, CaptureError):
                raise
            raise _damaged(path.name, "numpy.savez", error) from None
    return _merge_json(path.name, data)


def _read_entry(archive: Any, name: str, source: str) -> Any:
    try:
        value = archive[name]
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise CaptureError(
                f"{source}: {shorten(name)} holds Python objects, which can hold code and were "
                "not read, expected numbers or text; save numbers, text and flat lists"
            ) from None
        raise _damaged(source, "numpy.savez", error, name) from None
    if not isinstance(value, np.ndarray):
        raise CaptureError(
            f"{source}: {shorten(name)} is no array, expected what numpy.savez writes"
        )
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
        is_list = text is None or name in _LIST_KEYS
        if is_list and isinstance(value, np.ndarray) and value.ndim == 1:
            data[name] = value.tolist()
    return data


def _parse_json(source: str, name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptureError(
            f"{source}: {shorten(name)} is not JSON ({_reason(error)}); save the capture anew"
        ) from None
    check_expansion(source, value, _MAX_JSON)
    return value


def _damaged(source: str, writer: str, error: BaseException, name: str = "") -> CaptureError:
    where = f"{shorten(name)}: " if name else ""
    reason = shorten(_reason(error), 90, quote=False)
    return CaptureError(
        f"{source}: the file is damaged ({where}{reason}), expected what {writer} writes; copy "
        "or record it anew"
    )


# .safetensors


def _read_safetensors(path: Path) -> dict[str, Any]:
    safe = _import_safetensors(path.name, CaptureError)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise CaptureError(
                f"{path.name}: the header claims {length:,} bytes, expected at most "
                f"{_MAX_HEADER // MIB} MiB; it is damaged or no safetensors file, record it anew"
            )
        try:
            with safe.safe_open(path, framework="numpy") as checked:
                stored = checked.metadata() or {}
        except (safe.SafetensorError, OSError, ValueError) as error:
            raise _damaged(path.name, "safetensors", error) from None
        header = json.loads(file.read(length))  # sound: the library has checked it
        buffer = _map_or_read(file)
    data = {
        name: _read_tensor(path.name, name, entry, buffer, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return data | _parse_metadata(path.name, stored)


def _map_or_read(file: IO[bytes]) -> bytes | mmap.mmap:
    if os.fstat(file.fileno()).st_size >= MAPPED_FROM:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.read()


def _read_tensor(
    source: str, name: str, entry: Mapping[str, Any], buffer: bytes | mmap.mmap, start: int
) -> Any:
    """Return a tensor as a view of the file, dtypes that numpy lacks as float32."""
    code, shape = entry["dtype"], tuple(entry["shape"])
    raw, wide = _WIDENED.get(code, ("", ""))
    if not raw:
        kinds = {"F": "f", "I": "i", "U": "u", "C": "c"}
        plain = re.fullmatch(r"([FIUC])(8|16|32|64)", code)
        if code == "BOOL":
            raw = "?"
        elif plain and code != "F8":
            raw = f"<{kinds[plain[1]]}{int(plain[2]) // 8}"
        else:
            raise CaptureError(
                f"{source}: {shorten(name)} has dtype {code}, expected float16 to float64, "
                "bfloat16, float8, integers or bool; save it as float32"
            )
    first, last = entry["data_offsets"]
    if first == last:
        return widen(np.empty(shape, raw), wide)
    array = np.frombuffer(buffer, raw, math.prod(shape), start + first).reshape(shape)
    array = widen(array, wide)
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


def _import_safetensors(source: str, error: Callable[[str], Exception]) -> Any:
    try:
        import safetensors
    except ImportError:
        raise error(
            f"{source}: needs the package safetensors, which is not installed; run "
            "pip install safetensors, or use .pt or .npz"
        ) from None
    return safetensors


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}


# Captures -> files


def save_capture(capture: Capture, path: str | os.PathLike[str]) -> Path:
    """Write one layer's capture.

    Parameters
    ----------
    capture : Capture
        Its arrays [heads, query, key] and [heads, key] keep their dtype.
    path : path
        The suffix says the format: `.pt` and `.pth` (needs torch), `.npz` or
        `.safetensors`. The file appears whole or not at all, and replaces an
        older one.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OptionError
        For another suffix.
    CaptureError
        Where the metadata holds what the format can not; the text names the key.
        Lists, dictionaries with text keys, numbers, text, booleans, None and
        arrays are possible in all three (tuples become lists outside of `.pt`).
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[1.0, 2.0]]], metadata={"seed": 7, "tags": ["a", "b"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_capture(save_capture(capture, folder + "/layer0.npz")).metadata
    {'seed': 7, 'tags': ['a', 'b']}
    """
    target = Path(path)
    suffix = check_choice(f"the suffix of {target.name}", target.suffix.lower(), SUFFIXES)
    data = {name: _storable(capture, name, value) for name, value in capture.to_dict().items()}
    with _replacing(target) as file:
        _WRITERS[suffix](capture, data, file, target.name)
    return target


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside the target that takes its place at the end."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{target}: can not be written ({error.strerror or error}), expected an existing "
            "folder with room that may be written to"
        ) from None
    finally:
        temporary.unlink(missing_ok=True) if target.parent.is_dir() else None


def _storable(capture: Capture, name: Any, value: Any) -> Any:
    """Return a value as plain Python and numpy, or say which key holds what can not be stored."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (str, bool, int, float, bytes, complex):
        return value
    if isinstance(value, (list, tuple)):
        parts = [_storable(capture, name, part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int, float, bool, type(None)):
                raise _unstorable(capture, name, f"a key that is a {type(key).__name__}")
        return {key: _storable(capture, name, part) for key, part in value.items()}
    return _storable_array(capture, name, value)


def _storable_array(capture: Capture, name: Any, value: Any) -> Any:
    try:
        is_tensor = type(value).__module__.partition(".")[0] == "torch"
        array = as_array(value) if is_tensor else value
    except (TypeError, RuntimeError):  # sparse, quantized
        array = None
    if not isinstance(array, np.ndarray):
        raise _unstorable(capture, name, f"a {type(value).__name__}")
    if array.dtype.kind == "U":
        return array.tolist()
    if array.dtype.kind in "biuc" or array.dtype in (np.float16, np.float32, np.float64):
        return array
    raise _unstorable(capture, name, f"an array of {array.dtype}")


def _unstorable(capture: Capture, name: Any, found: str) -> CaptureError:
    return CaptureError(
        f"{capture.source}: metadata {str(name)!r} holds {found}, expected numbers, text, lists, "
        "dictionaries with text keys, or arrays; store it as text, or leave it out with "
        "capture.replace(metadata=...)"
    )


def _write_pt(capture: Capture, data: dict[str, Any], file: IO[bytes], name: str) -> None:
    try:
        import torch
    except ImportError:
        raise OutputError(
            f"{name}: writing .pt needs torch, which is not installed; use .npz or .safetensors"
        ) from None

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            return torch.from_numpy(native)
        if isinstance(value, (list, tuple)):
            parts = [tensors(part) for part in value]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return value

    try:
        # An open file, as a name would go into the zip and change its bytes.
        torch.save(tensors(data), file)
    except RuntimeError as error:  # torch's zip writer reports a full disk this way
        raise OutputError(
            f"{name}: can not be written ({_reason(error)}), expected a folder with room"
        ) from None


def _split_arrays(
    capture: Capture, data: Mapping[Any, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Split into arrays, and values that JSON holds exactly."""
    arrays: dict[str, Array] = {}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if not isinstance(name, str):
            raise _unstorable(capture, name, f"a key that is a {type(name).__name__}")
        if name == _JSON_KEY:
            raise _unstorable(capture, name, "the key that headgrid itself uses")
        if isinstance(value, np.ndarray):
            # The entry's name is a file name within the zip.
            if not re.fullmatch(r"\w[\w .-]*", name) or name.endswith(".npy"):
                raise _unstorable(capture, name, "an array under a name with signs")
            arrays[name] = value
        else:
            _check_json(capture, name, value)
            values[name] = value
    return arrays, values


def _check_json(capture: Capture, name: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for part in value:
            _check_json(capture, name, part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if type(key) is not str:
                raise _unstorable(capture, name, f"a dictionary with the key {key!r}")
            _check_json(capture, name, part)
    elif value is not None and type(value) not in (str, bool, int, float):
        found = "a nested array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise _unstorable(capture, name, found)


def _write_npz(capture: Capture, data: dict[str, Any], file: IO[bytes], name: str) -> None:
    arrays, values = _split_arrays(capture, data)
    for key, value in list(values.items()):
        if (
            key in _LIST_KEYS
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


def _write_safetensors(capture: Capture, data: dict[str, Any], file: IO[bytes], name: str) -> None:
    _import_safetensors(name, OutputError)
    from safetensors.numpy import save

    arrays, values = _split_arrays(capture, data)
    for key, array in arrays.items():
        if array.dtype.kind == "c":
            raise _unstorable(capture, key, f"an array of {array.dtype}")
        arrays[key] = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    texts = {key: json.dumps(value) for key, value in values.items()}
    file.write(save(arrays, texts | {_JSON_KEY: "1"}))


_WRITERS: dict[str, Callable[[Capture, dict[str, Any], IO[bytes], str], None]] = {
    ".pt": _write_pt,
    ".pth": _write_pt,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}


# Folders -> files


def find_captures(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[CaptureFile], list[CaptureError]]:
    """Find the capture files in files and folders.

    Parameters
    ----------
    inputs : path or iterable of paths
        A folder is searched with all its subfolders, except hidden ones.

    Returns
    -------
    files : list of CaptureFile
        In the order of the inputs, and in natural order within a folder (layer2
        before layer10). A file that is reached twice appears once.
    errors : list of CaptureError
        One for each input (or subfolder) that could not be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("layer10.npz", "layer2.npz", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     files, errors = find_captures([folder, folder + "/layer2.npz"])
    >>> [file.path.name for file in files], errors
    (['layer2.npz', 'layer10.npz'], [])
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    files: list[CaptureFile] = []
    errors: list[CaptureError] = []
    seen: set[str] = set()
    for given in map(Path, inputs):
        try:
            found = _find(given, errors)
        except CaptureError as error:
            errors.append(error)
            continue
        for path in found:
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                files.append(_describe_file(path, given))
    return files, errors


def _describe_file(path: Path, given: Path) -> CaptureFile:
    relative = path.parent.relative_to(given) if path != given else PurePath()
    folder = _folder_name(path.parent)
    looks_like_run = re.match(r"run[_-]?\d+", folder, re.IGNORECASE)
    return CaptureFile(path, PurePath(relative), folder if looks_like_run else "")


def _folder_name(folder: Path) -> str:
    """Return the name as spelled, also of `.`; that of a link stays."""
    name = folder.absolute().name
    return folder.resolve().name if name == ".." else name


def _find(given: Path, errors: list[CaptureError]) -> list[Path]:
    try:
        mode = given.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(given, "file or folder") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"{given}: {_reason(error)}, expected a file or folder") from None
    if not stat.S_ISDIR(mode):
        _check_suffix(given)
        return [given]

    def report(error: OSError) -> None:
        where = error.filename or given
        errors.append(CaptureError(f"{where}: {_reason(error)}, expected a readable folder"))

    found: list[Path] = []
    others: Counter[str] = Counter()
    visited: set[str] = set()
    before = len(errors)
    for folder, subfolders, names in os.walk(given, onerror=report, followlinks=True):
        # A link may lead back up; each real folder is searched once.
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(
            (name for name in subfolders if _is_new(folder, name, visited)), key=_natural
        )
        captures = sorted(filter(_looks_like_capture, names), key=_natural)
        found += [Path(folder, name) for name in captures]
        others.update(Path(name).suffix for name in names)
    if not found and len(errors) == before:
        raise _no_captures(given, others)
    return found


def _is_new(folder: str, name: str, visited: set[str]) -> bool:
    if name.startswith("."):
        return False
    real = os.path.realpath(Path(folder, name))
    if real in visited:
        return False
    visited.add(real)
    return True


def _looks_like_capture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _no_captures(folder: Path, others: Counter[str]) -> CaptureError:
    counts = [f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(3)]
    found = f"found {', '.join(counts)}" if counts else "found no files"
    return CaptureError(
        f"{folder}: holds no capture ({found}), expected {', '.join(SUFFIXES)} files"
    )


def _natural(name: str) -> tuple[list[int | str], str]:
    """Sort key that counts: layer2 before layer10, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name
