"""A torch .pt zip -> plain Python values and numpy arrays, without importing torch.

A `.pt` file is a zip that holds a pickle (`<prefix>/data.pkl`) and the raw bytes
of every tensor (`<prefix>/data/<key>`). A pickle is a program. Python's own
unpickler would run it with the caller's rights, so this module walks through the
operations itself: a name in the pickle is looked up in a fixed table and is never
imported, and every operation works within a budget of memory and time.

Big files are memory-mapped and their arrays are read-only views, so reading one
costs no memory. Such a file must not be overwritten in place while its arrays
live; `headgrid.save_capture` replaces files whole.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickletools
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable

Array = npt.NDArray[Any]

MIB = 2**20
#: Up to this size a file is read, above it is mapped: a mapped file that another
#: program cuts short kills the process, so only files that gain from it are.
MAPPED_FROM = 16 * MIB
#: Table of contents of a zip: some 20,000 entries; a capture has about 10.
MAX_DIRECTORY = 2 * MIB
#: A pickle holds no tensors, so it is small unless numpy arrays are inside.
MAX_PICKLE = 32 * MIB
#: Operations of a pickle; a capture has about 250. 400,000 take half a second.
MAX_OPERATIONS = 400_000
#: Bytes that calls within the pickle may produce (text to bytes, list to set).
MAX_PRODUCED = 64 * MIB
MAX_DEPTH = 64
MAX_DIMENSIONS = 32
MAX_INTEGER_BITS = 2048
#: A view may repeat its storage (`Tensor.expand`) up to so many values.
MAX_REPEATED = 2**24

_EXPECTED = "expected tensors, numbers, text, lists and dictionaries"
_ANEW = "write the capture anew with torch.save(dict)"
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")

#: torch dtype -> numpy dtype of the raw bytes.
_RAW = {
    "bool": "?",
    "uint8": "u1",
    "int8": "i1",
    "uint16": "u2",
    "int16": "i2",
    "uint32": "u4",
    "int32": "i4",
    "uint64": "u8",
    "int64": "i8",
    "float16": "f2",
    "float32": "f4",
    "float64": "f8",
    "complex64": "c8",
    "complex128": "c16",
    "bfloat16": "u2",
    "float8_e4m3fn": "u1",
    "float8_e5m2": "u1",
}

_STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


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
    with _BoundedFile(path, "rb") as file:
        archive = _Archive(path.name, file)
        return _Machine(path.name, archive).run()


def widen(raw: Array, dtype: str) -> Array:
    """Turn the raw bits of bfloat16 or float8 into float32, which holds each value exactly.

    Parameters
    ----------
    raw : array of uint16 (bfloat16) or uint8 (float8)
    dtype : str
        ``"bfloat16"``, ``"float8_e4m3fn"`` or ``"float8_e5m2"``; others pass unchanged.

    Returns
    -------
    array of float32, same shape

    Examples
    --------
    >>> widen(np.array([0x3F80, 0xC000], dtype=np.uint16), "bfloat16")
    array([ 1., -2.], dtype=float32)
    >>> widen(np.array([0x38, 0xFF], dtype=np.uint8), "float8_e4m3fn")
    array([ 1., nan], dtype=float32)
    """
    if dtype == "bfloat16":
        wide = raw.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "float8_e5m2":  # the upper byte of a float16
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "float8_e4m3fn":
        return _float8_e4m3fn()[raw]
    return raw


def _float8_e4m3fn() -> Array:
    """All 256 values: 1 sign bit, 4 exponent bits (bias 7), 3 bits of fraction, no infinity."""
    codes = np.arange(256)
    exponent, fraction = (codes >> 3) & 15, codes & 7
    size = np.where(
        exponent == 0, np.ldexp(fraction / 8, -6), np.ldexp(1 + fraction / 8, exponent - 7)
    )
    size[(codes & 127) == 127] = np.nan
    return np.where(codes > 127, -size, size).astype(np.float32)


class _BoundedFile(io.FileIO):
    """A file that refuses to hand out more than a table of contents at once.

    `zipfile` reads the whole table that the file claims to have, and makes an
    object of about ten times its size out of it.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if min(left, left if size is None or size < 0 else size) > MAX_DIRECTORY:
            raise CaptureError(
                f"{Path(str(self.name)).name}: the zip claims a table of contents of more than "
                f"{MAX_DIRECTORY // MIB} MiB, expected a few files; {_ANEW}"
            )
        return super().read(size)


def open_zip(name: str, file: _BoundedFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of a zip by name, after checking that they are sound."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries, start = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        if isinstance(error, CaptureError):
            raise
        size = os.fstat(file.fileno()).st_size
        raise CaptureError(
            f"{name}: the zip has no readable table of contents at its end ({size:,} bytes), "
            "expected a whole file; it was probably cut short, so copy or record it anew"
        ) from None
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise _broken(name, f"entries overlap at {shorten(entry.filename)}")
        end = entry.header_offset + 30 + entry.compress_size
        _check_entry(name, entry)
    if end > start:
        raise _broken(name, "an entry is longer than the file")
    found = {entry.filename: entry for entry in entries}
    if len(found) != len(entries):
        raise _broken(name, "two entries have the same name")
    return found


def _check_entry(name: str, entry: zipfile.ZipInfo) -> None:
    # orig_filename: zipfile cuts names at NUL and turns the separator of Windows
    inner = entry.orig_filename
    if inner.startswith("/") or re.search(r"[\\\x00]|(^|/)\.\.(/|$)", inner):
        raise CaptureError(
            f"{name}: the zip names an entry {shorten(inner)}, which leads out of it, expected "
            f"plain names; {_ANEW}"
        )
    if entry.flag_bits & 1:
        raise _broken(name, f"{shorten(inner)} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _broken(name, f"{shorten(inner)} has compression method {entry.compress_type}")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise _broken(name, f"{shorten(inner)} states two sizes")


def unpacked_limit(packed: int) -> int:
    """Bytes that compressed entries may unpack to in all: attention packs a few times."""
    return max(64 * MIB, 32 * packed)


class _Archive:
    """The zip: names -> bytes, without copying where they are stored as they are."""

    def __init__(self, name: str, file: _BoundedFile) -> None:
        self.name = name
        self.size = os.fstat(file.fileno()).st_size
        _check_head(name, file.read(64), self.size)
        self.entries = open_zip(name, file)
        self.prefix = self._find_prefix()
        self.unpacked = 0
        self.buffer: bytes | mmap.mmap
        if self.size >= MAPPED_FROM:
            self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            file.seek(0)
            self.buffer = io.FileIO.readall(file)

    def _find_prefix(self) -> str:
        found = [entry for entry in self.entries if re.fullmatch(r"([^/]+/)?data\.pkl", entry)]
        if len(found) == 1:
            prefix = found[0].removesuffix("data.pkl")
            if prefix + "constants.pkl" in self.entries:
                raise CaptureError(
                    f"{self.name}: is a TorchScript program, expected a dictionary of tensors; "
                    f"{_ANEW}"
                )
            return prefix
        if any(entry.endswith(".npy") for entry in self.entries):
            raise CaptureError(
                f"{self.name}: holds .npy arrays, expected what torch.save writes; it is a numpy "
                "archive, so rename it to .npz"
            )
        shown = ", ".join(shorten(entry, 30) for entry in list(self.entries)[:3])
        raise CaptureError(
            f"{self.name}: is a zip with {len(found) or 'no'} data.pkl ({shown or 'no entries'}), "
            f"expected what torch.save writes; {_ANEW}"
        )

    def read(self, inner: str, limit: int) -> memoryview:
        """Return the first ``limit`` bytes of an entry; fewer where it is shorter."""
        entry = self.entries[self.prefix + inner]
        start = self._data_start(entry)
        packed = memoryview(self.buffer)[start : start + entry.compress_size]
        if entry.compress_type == zipfile.ZIP_STORED:
            return packed[:limit]
        wanted = min(limit, entry.file_size)
        self.unpacked += wanted
        if self.unpacked > unpacked_limit(self.size):
            raise CaptureError(
                f"{self.name}: {shorten(inner)} unpacks to {wanted:,} bytes from "
                f"{entry.compress_size:,}, expected plain or moderately packed tensors; {_ANEW}"
            )
        try:
            # max_length 0 would mean "without limit"
            return memoryview(zlib.decompressobj(-15).decompress(packed, max(wanted, 1))[:wanted])
        except zlib.error:
            raise _broken(self.name, f"{shorten(inner)} does not unpack") from None

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        header = bytes(self.buffer[entry.header_offset : entry.header_offset + 30])
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise _broken(self.name, f"{shorten(entry.filename)} has no header")
        _, _, flags, method, _, _, _, packed, plain, name_length, extra_length = struct.unpack(
            "<4s5H3I2H", header
        )
        name_at = entry.header_offset + 30
        start: int = name_at + name_length + extra_length
        coding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        encoded = entry.orig_filename.encode(coding, "replace")
        if method != entry.compress_type or (
            bytes(self.buffer[name_at : name_at + name_length]) != encoded
        ):
            raise _broken(self.name, f"{shorten(entry.filename)} has another header than listed")
        # Sizes may follow the data instead (flag 8), or in the zip64 field (all ones).
        stated = {(packed, entry.compress_size), (plain, entry.file_size)}
        if not flags & 8 and any(a not in (b, 0xFFFFFFFF) for a, b in stated):
            raise _broken(self.name, f"{shorten(entry.filename)} states two sizes")
        if start + entry.compress_size > self.size:
            raise _broken(self.name, f"{shorten(entry.filename)} reaches beyond the file")
        return start


def _check_head(name: str, head: bytes, size: int) -> None:
    if head.startswith(_LEGACY_MAGIC):
        raise NotReadable("the file has the format of torch before 1.6")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return
    if head[:1] == b"\x80":
        raise CaptureError(
            f"{name}: is a bare pickle, which can hold code and was not run, expected what "
            f"torch.save writes; {_ANEW}"
        )
    raise CaptureError(
        f"{name}: is no capture (it starts with {head[:8]!r}, {size:,} bytes), expected what "
        "torch.save writes; record it anew"
    )


@dataclass(frozen=True)
class _Call:
    """A function that the pickle may call: one of the methods of `_Machine`."""

    name: str
    method: str


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int


@dataclass(frozen=True, eq=False)
class _Exotic:
    """Whatever only torch can rebuild; stands in for it until the pickle has been checked."""

    name: str


@dataclass(eq=False)
class _NumpyDtype:
    code: str
    order: str = "<"

    def build(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class _UnfilledArray:
    """A numpy array between its creation and the operation that fills it."""

    memo_keys: list[int] = field(default_factory=list)


_INTERNAL = (_Call, _StorageType, _Storage, _NumpyDtype, _UnfilledArray)


def _allowed_names() -> dict[str, Any]:
    """Every name a pickle may mention -> what it stands for. Nothing else exists."""
    names: dict[str, Any] = {f"torch.{dtype}": f"torch.{dtype}" for dtype in _RAW}
    for storage, dtype in _STORAGES.items():
        for module in ("torch", "torch.storage", "torch.cuda"):
            names[f"{module}.{storage}"] = _StorageType(dtype)
    calls = {
        "torch._utils._rebuild_tensor": "_tensor",
        "torch._utils._rebuild_tensor_v2": "_tensor_v2",
        "torch._utils._rebuild_tensor_v3": "_tensor_v3",
        "torch._utils._rebuild_parameter": "_parameter",
        "torch.Size": "_size",
        "torch.device": "_device",
        "collections.OrderedDict": "_ordered_dict",
        "collections.Counter": "_plain_dict",
        "_codecs.encode": "_encode",
        "numpy._core.multiarray._reconstruct": "_numpy_array",
        "numpy._core.multiarray.scalar": "_numpy_scalar",
        "numpy._core.numeric._frombuffer": "_numpy_buffer",
        "numpy.dtype": "_numpy_dtype",
        "numpy.ndarray": "_refuse_call",
        "builtins.set": "_set",
        "builtins.frozenset": "_frozenset",
        "builtins.bytes": "_bytes",
        "builtins.bytearray": "_bytes",
        "builtins.complex": "_complex",
        "builtins.range": "_range",
    }
    for module in ("pathlib", "pathlib._local"):
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
            calls[f"{module}.{kind}"] = "_path"
    return names | {name: _Call(name, method) for name, method in calls.items()}


_NAMES = _allowed_names()
_RENAMED = {"__builtin__": "builtins", "numpy.core": "numpy._core"}

_LITERALS = frozenset(
    re.findall(
        r"\w+",
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE "
        "SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES "
        "BINBYTES8 BYTEARRAY8",
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CODE = frozenset(("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"))


class _Machine:
    """Walks through a pickle's operations with a stack, a memo and a budget."""

    def __init__(self, name: str, archive: _Archive) -> None:
        self.name = name
        self.archive = archive
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.produced = 0
        self.exotic: str | None = None
        self.elements: dict[tuple[str, str], Array] = {}
        self.big_endian = self._read_byteorder()

    def run(self) -> Any:
        size = self.archive.entries[self.archive.prefix + "data.pkl"].file_size
        if size > MAX_PICKLE:
            raise CaptureError(
                f"{self.name}: data.pkl has {size:,} bytes, expected at most "
                f"{MAX_PICKLE // MIB} MiB; store large arrays as tensors (torch.from_numpy)"
            )
        program = bytes(self.archive.read("data.pkl", size))
        try:
            value = self._execute(program)
            check_expansion(self.name, value, 8_000_000 + 2 * len(program))
        except CaptureError:
            raise
        except MemoryError:
            raise _broken(self.name, "it needs more memory than there is") from None
        except RecursionError:
            raise _broken(self.name, "it is nested too deeply") from None
        except (
            LookupError,
            ValueError,
            TypeError,
            ArithmeticError,
            AttributeError,
            struct.error,
        ) as error:
            reason = shorten(str(error).partition("\n")[0], 60, quote=False)
            raise _broken(self.name, f"its pickle does not add up: {reason}") from None
        if self.exotic is not None:
            raise NotReadable(f"the pickle asks for {self.exotic}")
        return value

    def _read_byteorder(self) -> bool:
        if self.archive.prefix + "byteorder" not in self.archive.entries:
            return False
        order = bytes(self.archive.read("byteorder", 16))
        if order not in (b"little", b"big"):
            raise _broken(self.name, f"byteorder is {order!r}")
        return order == b"big"

    def _execute(self, program: bytes) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_OPERATIONS:
                raise CaptureError(
                    f"{self.name}: the pickle has more than {MAX_OPERATIONS:,} operations, "
                    "expected some hundred; store long lists as tensors"
                )
            name = operation.name
            if name in _LITERALS:
                self.stack.append(self._literal(argument))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self.stack.append(self._pop_many(_TUPLES[name]))
            elif name in _CODE:
                what = f"the class {shorten(str(argument), quote=False)}" if argument else "a class"
                raise self._refuse_code(what)
            elif name == "STOP":
                return self._pop()
            elif name not in ("PROTO", "FRAME"):
                self._operate(name, argument)
        raise ValueError("no end")  # genops raises before; for the type checker

    def _operate(self, name: str, argument: Any) -> None:
        operation = _OPERATIONS.get(name)
        if operation is None:
            raise _broken(self.name, f"its pickle has the operation {name}")
        operation(self, argument)

    def _literal(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise CaptureError(
                f"{self.name}: the pickle holds an integer of {value.bit_length():,} bits, "
                f"expected numbers of 64 bits; {_ANEW}"
            )
        return bytes(value) if isinstance(value, bytearray) else value

    # The stack

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        return self.stack.pop()

    def _pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _top(self) -> Any:
        return self.stack[-1]

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _drop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _drop_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _put(self, key: int | None) -> None:
        value = self._top()
        index = len(self.memo) if key is None else key
        if isinstance(value, _UnfilledArray):
            value.memo_keys.append(index)
        self.memo[index] = value

    def _push_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._find(module, name))

    def _push_stack_global(self, _: Any) -> None:
        module, name = self._pop_many(2)
        self.stack.append(self._find(str(module)[:200], str(name)[:200]))

    def _find(self, module: str, name: str) -> Any:
        for old, new in _RENAMED.items():
            if module == old or module.startswith(old + "."):
                module = new + module[len(old) :]
        name = "range" if (module, name) == ("builtins", "xrange") else name
        full = f"{module}.{name}"
        if full in _NAMES:
            return _NAMES[full]
        if module == "torch" or module.startswith("torch."):
            self.exotic = self.exotic or shorten(full, quote=False)
            return _Exotic(full)
        raise self._refuse_code(shorten(full, quote=False))

    # Containers

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, _Exotic):
            return
        if type(target) is not list:
            raise TypeError("items for what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, _Exotic):
            return
        if type(target) not in (dict, OrderedDict):
            raise TypeError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._hashable(key)] = value

    def _add_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not set:
            raise TypeError("items for what is no set")
        target.update(map(self._hashable, items))

    def _hashable(self, key: Any) -> Any:
        """Return the key if it can be hashed in no time.

        Hashing nested tuples doubles with each level where they share parts and
        overflows the C stack where they are deep; integers that agree modulo
        2**61 - 1 all land in one place.
        """
        parts = key if type(key) is tuple and len(key) <= 64 else (key,)
        for part in parts:
            if type(part) is int and abs(part) < 2**60:
                continue
            if type(part) not in (str, bytes, float, bool, type(None), _Exotic):
                raise CaptureError(
                    f"{self.name}: a dictionary key or set member is {_kind(part)}, expected text "
                    f"or a number; {_ANEW}"
                )
        return key

    def _new_dict(self, items: list[Any]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        self.stack.append(result)
        self._set_items(items)
        self._pop()
        return result

    # Calls

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        if type(arguments) is not tuple:
            raise TypeError("a call without arguments")
        if isinstance(function, _Exotic) or any(isinstance(a, _Exotic) for a in arguments):
            self.stack.append(_Exotic("torch"))
            return
        if not isinstance(function, _Call):
            raise self._refuse_code(f"a call of {_kind(function)}")
        self.stack.append(getattr(self, function.method)(*arguments))

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, _UnfilledArray):
            _, shape, dtype, fortran, data = state
            array = self._numpy_buffer(data, dtype, shape, "F" if fortran else "C")
            self.stack[-1] = array
            for key in target.memo_keys:
                self.memo[key] = array
        elif isinstance(target, _NumpyDtype):
            if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
                raise TypeError("a numpy dtype with fields")
            target.order = state[1]
        elif type(target) is not OrderedDict and not isinstance(target, _Exotic):
            # An OrderedDict carries attributes where it is a module's state_dict.
            raise self._refuse_code(f"setting the state of {_kind(target)}")

    def _produce(self, size: int) -> None:
        self.produced += size
        if self.produced > MAX_PRODUCED:
            raise CaptureError(
                f"{self.name}: the pickle makes more than {MAX_PRODUCED // MIB} MiB out of "
                f"little, expected plain values; {_ANEW}"
            )

    def _refuse_code(self, what: str) -> CaptureError:
        return CaptureError(
            f"{self.name}: the pickle asks for {what}, which is code and not data; it was not "
            f"run. {_EXPECTED.capitalize()}; {_ANEW}"
        )

    def _refuse_call(self, *arguments: Any) -> Any:
        raise self._refuse_code("a numpy array of its own making")

    def _size(self, sizes: Any = ()) -> tuple[int, ...]:
        return self._shape(sizes)

    def _shape(self, sizes: Any) -> tuple[int, ...]:
        """Return whole numbers, none negative, no more of them than numpy has axes."""
        if type(sizes) is int:
            sizes = (sizes,)
        if type(sizes) not in (tuple, list) or len(sizes) > MAX_DIMENSIONS:
            raise _broken(self.name, "a shape is not a short list of numbers")
        for size in sizes:
            if type(size) is not int or not 0 <= size < 2**48:
                shown = size if type(size) is int and abs(size) < 2**64 else _kind(size)
                raise _broken(self.name, f"a tensor has {shown} in its shape, strides or offset")
        return tuple(sizes)

    def _device(self, kind: str, index: int | None = None) -> str:
        if type(kind) is not str or type(index) not in (int, type(None)):
            raise TypeError("a device without name")
        self._produce(len(kind))
        return kind if index is None else f"{kind}:{index}"

    def _ordered_dict(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        result: OrderedDict[Any, Any] = OrderedDict()
        self._produce(64 * len(pairs))
        for key, value in pairs:
            result[self._hashable(key)] = value
        return result

    def _plain_dict(self, items: Any = None) -> dict[Any, Any]:
        if type(items) not in (dict, type(None)):
            raise TypeError("a counter of something else")
        self._produce(64 * len(items or ()))
        return dict(items or {})

    def _set(self, items: Any = ()) -> set[Any]:
        self._produce(64 * len(items))
        return {self._hashable(item) for item in items}

    def _frozenset(self, items: Any = ()) -> frozenset[Any]:
        return frozenset(self._set(items))

    def _bytes(self, data: Any = b"", encoding: Any = None) -> bytes:
        return self._encode(data, encoding) if encoding is not None else self._as_bytes(data)

    def _as_bytes(self, data: Any) -> bytes:
        if type(data) is not bytes:
            raise TypeError("bytes of something else")
        return data

    def _encode(self, text: Any, encoding: Any = "utf-8") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise TypeError("text in another encoding")
        self._produce(len(text))
        return text.encode("latin1")

    def _complex(self, real: Any, imaginary: Any) -> complex:
        if type(real) is not float or type(imaginary) is not float:
            raise TypeError("a complex number of something else")
        return complex(real, imaginary)

    def _range(self, *bounds: Any) -> list[int]:
        if not bounds or any(type(bound) is not int for bound in bounds):
            raise TypeError("a range of something else")
        numbers = range(*bounds)
        self._produce(64 * min(max(len(numbers), 1), MAX_PRODUCED))
        return list(numbers)

    def _path(self, *parts: Any) -> str:
        if any(type(part) is not str for part in parts):
            raise TypeError("a path of something else")
        self._produce(sum(map(len, parts)) + len(parts))
        return "/".join(parts).replace("//", "/")

    # numpy

    def _numpy_dtype(self, code: Any, *_: Any) -> _NumpyDtype:
        if type(code) is not str or not re.fullmatch(
            r"b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,9}", code
        ):
            shown = shorten(code) if type(code) is str else _kind(code)
            raise CaptureError(
                f"{self.name}: a numpy array has dtype {shown}, expected numbers or text; store "
                "numbers, lists and dictionaries as such"
            )
        return _NumpyDtype(code)

    def _numpy_array(self, *_: Any) -> _UnfilledArray:
        return _UnfilledArray()

    def _numpy_scalar(self, dtype: Any, data: Any) -> Any:
        if type(dtype) is _NumpyDtype and data == b"":  # the empty text has no bytes to read
            return "" if dtype.code[0] == "U" else b""
        self._produce(len(data))
        return self._numpy_buffer(data, dtype, (), "C").item()

    def _numpy_buffer(self, data: Any, dtype: Any, shape: Any, order: Any) -> Array:
        if type(dtype) is not _NumpyDtype or type(data) is not bytes or order not in ("C", "F"):
            raise TypeError("a numpy array that is not made of bytes")
        shape, kind = self._shape(shape), dtype.build()
        if kind.itemsize * math.prod(shape) != len(data):
            raise _broken(self.name, f"a numpy array {shape} of {kind} has {len(data):,} bytes")
        if not data:
            return np.empty(shape, kind)
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        if not kind.isnative:
            self._produce(len(data))
            array = array.astype(kind.newbyteorder("="))
        return array

    # torch

    def _load_storage(self, _: Any) -> None:
        identity = self._pop()
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise TypeError("an unknown reference")
        _, kind, key, _, length = identity
        if isinstance(kind, _Exotic):
            self.stack.append(_Exotic("torch"))
            return
        if type(kind) is not _StorageType or type(key) is not str or not key.isalnum():
            raise TypeError("a storage without type or key")
        self.stack.append(_Storage(key, kind.dtype, self._shape(length)[0]))

    def _parameter(self, data: Any, *_: Any) -> Array:
        if not isinstance(data, np.ndarray):
            raise TypeError("a parameter without tensor")
        return data

    def _tensor_v2(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        strides: Any,
        requires_grad: Any = None,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Any:
        if metadata:  # conjugate or negative views: rare, and torch's business
            self.exotic = self.exotic or "a conjugate or negative view"
            return _Exotic("torch")
        return self._tensor(storage, offset, size, strides)

    def _tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        strides: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> Any:
        name = dtype.removeprefix("torch.") if type(dtype) is str else ""
        if type(storage) is not _Storage or name not in _RAW:
            raise TypeError("a tensor without storage or dtype")
        width = np.dtype(_RAW[name]).itemsize
        typed = _Storage(storage.key, name, storage.length * _item_size(storage) // width)
        return self._tensor_v2(typed, offset, size, strides, metadata=metadata)

    def _tensor(self, storage: Any, offset: Any, size: Any, strides: Any) -> Array:
        """Return a view of the storage, after checking that it stays within."""
        if type(storage) is not _Storage:
            raise TypeError("a tensor without storage")
        (start,), shape, steps = self._shape(offset), self._shape(size), self._shape(strides)
        if len(shape) != len(steps):
            raise _broken(self.name, f"a tensor {shape} has {len(steps)} strides")
        count = math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if count and last >= storage.length:
            raise _broken(
                self.name,
                f"a tensor {shape} reaches value {last:,} of the {storage.length:,} stored",
            )
        if count > max(storage.length, MAX_REPEATED):
            raise CaptureError(
                f"{self.name}: a tensor {shape} repeats {storage.length:,} stored values, expected "
                f"at most {MAX_REPEATED:,} values from that; store tensor.contiguous()"
            )
        values = self._read_elements(storage)
        if not count:
            return np.empty(shape, values.dtype)
        width = values.itemsize
        # The stride of an axis of length 1 is never used, and may be anything.
        bytes_apart = [width * (k if n > 1 else 1) for n, k in zip(shape, steps, strict=True)]
        return np.ndarray(shape, values.dtype, values, start * width, bytes_apart)

    def _read_elements(self, storage: _Storage) -> Array:
        """Return a storage as numbers, once per storage and dtype."""
        index = (storage.key, storage.dtype)
        if index in self.elements:
            if len(self.elements[index]) != storage.length:
                raise _broken(self.name, f"the tensor storage data/{storage.key} has two lengths")
            return self.elements[index]
        kind = np.dtype(_RAW[storage.dtype]).newbyteorder(">" if self.big_endian else "<")
        needed, inner = storage.length * kind.itemsize, f"data/{storage.key}"
        if self.archive.prefix + inner not in self.archive.entries:
            raise _broken(self.name, f"the tensor storage {inner} is missing")
        data = self.archive.read(inner, needed)
        if len(data) < needed:
            raise _broken(
                self.name, f"the tensor storage {inner} has {len(data):,} of {needed:,} bytes"
            )
        values: Array = np.frombuffer(data, kind)
        if not kind.isnative:
            values = values.astype(kind.newbyteorder("="))
        values = widen(values, storage.dtype)
        values.flags.writeable = False
        self.elements[index] = values
        return values


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_to_mark,
    "DUP": lambda m, _: m.stack.append(m._top()),
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": lambda m, _: m._put(None),
    "GET": lambda m, key: m.stack.append(m.memo[key]),
    "BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memo[key]),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "LIST": lambda m, _: m.stack.append(m._pop_to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m._pop_to_mark())),
    "DICT": lambda m, _: m.stack.append(m._new_dict(m._pop_to_mark())),
    "FROZENSET": lambda m, _: m.stack.append(m._frozenset(m._pop_to_mark())),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._pop_to_mark()),
    "SETITEM": lambda m, _: m._set_items(list(m._pop_many(2))),
    "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
    "ADDITEMS": lambda m, _: m._add_items(m._pop_to_mark()),
    "GLOBAL": _Machine._push_global,
    "STACK_GLOBAL": _Machine._push_stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._load_storage,
}


def check_expansion(name: str, value: Any, limit: int) -> None:
    """Refuse values that refer to themselves, are deep, or grow when written out.

    A list that holds a list twice, which holds a list twice, ... takes no room in
    memory, and 2**n as text. What passes here can be walked, compared and printed.
    """
    weights: dict[int, tuple[int, int] | None] = {}

    def measure(item: Any, depth: int) -> tuple[int, int]:
        """Return the number of values and characters below, and the levels."""
        if isinstance(item, (str, bytes)):
            return 1 + len(item), 0
        if isinstance(item, _INTERNAL):
            raise _broken(name, f"its pickle leaves {_kind(item)} behind")
        if not isinstance(item, (dict, list, tuple, set, frozenset)):
            return 1, 0
        known = weights.get(id(item))
        if known is None and id(item) in weights:
            raise CaptureError(
                f"{name}: a {type(item).__name__} holds itself, expected plain values; {_ANEW}"
            )
        if depth + (known[1] if known else 0) > MAX_DEPTH:
            raise CaptureError(
                f"{name}: values are nested more than {MAX_DEPTH} deep, expected plain "
                f"dictionaries and lists; {_ANEW}"
            )
        if known:
            return known
        weights[id(item)] = None
        weight, height = 1, 0
        for part in [*item, *item.values()] if isinstance(item, dict) else item:
            below = measure(part, depth + 1)
            weight, height = weight + below[0], max(height, below[1] + 1)
        if weight > limit:
            raise CaptureError(
                f"{name}: values repeat themselves to {weight:,} and more when written out, "
                f"expected plain dictionaries and lists; {_ANEW}"
            )
        weights[id(item)] = (weight, height)
        return weight, height

    measure(value, 0)


def shorten(text: str, length: int = 80, *, quote: bool = True) -> str:
    """Return text from a file for a message: short, printable, on one line."""
    clean = "".join(c if c.isprintable() else "?" for c in text[:length])
    clean += "..." if len(text) > length else ""
    return f"'{clean}'" if quote else clean


def _item_size(storage: _Storage) -> int:
    return int(np.dtype(_RAW[storage.dtype]).itemsize)


def _kind(value: Any) -> str:
    if isinstance(value, _Call):
        return f"the function {value.name}"
    if isinstance(value, _INTERNAL):
        return f"a {type(value).__name__.strip('_').lower()}"
    return f"a {type(value).__name__}"


def _broken(name: str, finding: str) -> CaptureError:
    return CaptureError(
        f"{name}: the file is damaged ({finding}), expected what torch.save writes; copy or "
        "record it anew"
    )
