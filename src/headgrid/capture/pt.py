"""A `.pt` -> plain values and numpy arrays, without torch and without running anything.

The file is a zip that holds a pickle (`<prefix>/data.pkl`) and the raw bytes of every tensor
(`<prefix>/data/<key>`). A pickle is a program. Here one pass goes over the operations that
`torch.save` writes, and a name in it is a `Word`, text that nothing can call. Where a function of
this module is known for that name, it makes the value instead; all else that is done with a word
gives the word, so that metadata of any class is read as the name of the class.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headgrid.capture.dtypes import DTYPES, WIDENED, Array, check_characters, to_native
from headgrid.capture.files import Archive
from headgrid.errors import CaptureError, damaged, describe_error
from headgrid.text import quote_text, shorten_list, shorten_text

#: Operations of a pickle; a capture has about 250. 400,000 take half a second.
_MAX_OPERATIONS = 400_000
#: A view may repeat its storage (`Tensor.expand`) up to so many values.
_MAX_REPEATED = 2**24
#: What is noted of a view instead of being done to its values.
_FLAGS: dict[Any, Callable[[Array], Array]] = {"conj": np.conj, "neg": np.negative}
_BYTE_ORDERS: Any = {b"little": "<", b"big": ">"}
_MAX_NAME, _MAX_KEY, _MAX_DIMENSIONS = 1000, 2**16, 32
_KINDS = (
    "Bool=bool Byte=uint8 Char=int8 Short=int16 Int=int32 Long=int64 Half=float16 Float=float32 "
    "Double=float64 ComplexFloat=complex64 ComplexDouble=complex128 BFloat16=bfloat16"
)
_STORAGES = {f"torch.{kind}Storage": d for kind, d in (k.split("=") for k in _KINDS.split())}
_STORAGES["torch.storage.UntypedStorage"] = "uint8"


def read_pt(path: Path) -> Any:
    """Return what `torch.save` wrote, usually a dictionary, with words for what has no plain value.

    Tensors are read-only numpy arrays of their shape, those of a big file views of the mapped
    file; bfloat16 and float8 become float32 (exactly), numpy scalars become Python numbers,
    torch's dtypes and devices become text.
    """
    with path.open("rb") as file:
        if file.read(1) == b"\x80":
            raise CaptureError(
                f"{path.name}: is a bare pickle, the format of torch before 1.6, and was not run, "
                "expected the zip of later versions; save it anew: torch.save(torch.load(file), "
                "file)"
            )
        archive = Archive(path.name, file)
        found = [name for name in archive.entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(found) != 1 or found[0].replace("data.pkl", "constants.pkl") in archive.entries:
            shown = shorten_list([quote_text(name, 30) for name in archive.entries])
            raise CaptureError(
                f"{path.name}: is a zip of {shown or 'nothing'}, expected one data.pkl, as "
                "torch.save writes; name a numpy archive .npz, and save tensors of a TorchScript "
                "program in a dictionary"
            )
        size = archive.entries[found[0]].file_size
        archive.spend(5 * size)  # what text takes: its bytes, and up to four for each of them
        return _Reader(archive, found[0]).run(bytes(archive.read(found[0], size)))


class Word(str):
    """A name that a file mentions instead of a value: text, with nothing behind it."""


class _Storage(Word):
    """The raw values of tensors, by their key; as text the name of its type."""

    key: str
    dtype: str
    size: int


class _Unfinished:
    """A value of numpy between its creation and the operation that sets its state."""

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish
        self.memo_keys: list[int] = []


class _Reader:
    """Goes over a pickle's operations with a stack and a memo, within the archive's budget."""

    def __init__(self, archive: Archive, program: str) -> None:
        self.archive, self.prefix = archive, program.removesuffix("data.pkl")
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # a mark begins a stack of its own
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Return the value that the pickle makes."""
        try:
            for count, (operation, argument, _) in enumerate(pickletools.genops(program)):
                if operation.name == "STOP":
                    return self.stack.pop()
                if count >= _MAX_OPERATIONS:
                    raise self.broken(f"its pickle has more than {_MAX_OPERATIONS:,} operations")
                if operation.name in _CHANGES:
                    _CHANGES[operation.name](self, argument)
                elif operation.name in _PUSHES:
                    value = _PUSHES[operation.name](self, argument)
                    self.stack.append(value)  # which a mark may have changed
                else:
                    raise self.broken(f"its pickle has the operation {operation.name}")
        except CaptureError:
            raise
        except Exception as error:  # noqa: BLE001 - a pickle passes anything to anything
            raise self.broken(f"its pickle does not add up: {describe_error(error)}") from None

    def broken(self, finding: str) -> CaptureError:
        """Return the error for what torch would not have written."""
        return damaged(self.archive.name, finding, "plain values and tensors, from torch.save")

    # The stack, the memo and containers

    def pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def put(self, key: int | None) -> None:
        index = len(self.memo) if key is None else key
        self.memo[index] = self.stack[-1]
        if isinstance(self.stack[-1], _Unfinished):
            self.stack[-1].memo_keys.append(index)

    def add(self, items: list[Any]) -> None:
        """Add items to the container on top, or to a word, which takes all and keeps nothing."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(self.key, items))
        elif type(target) is dict:
            target.update(zip(map(self.key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Word):
            raise TypeError(f"items for a {type(target).__name__}")

    def key(self, key: Any, *, nested: bool = False) -> Any:
        """Return a key that can be hashed and compared in no time, words as text.

        Hashing nested tuples doubles with each level where they share parts; integers that
        agree modulo 2**61 - 1 all land in one place, and so may tuples: few are allowed.
        """
        if type(key) is tuple and len(key) <= 64 and not nested:
            self.archive.spend(2**15)
            return tuple(self.key(part, nested=True) for part in key)
        if isinstance(key, (str, bytes)) and len(key) <= _MAX_KEY:
            return str(key) if isinstance(key, Word) else key
        if (type(key) is int and abs(key) < 2**60) or type(key) in (float, bool, type(None)):
            return key
        raise self.broken(f"a dictionary key or set member is a long or odd {type(key).__name__}")

    def copy(self, items: Any) -> list[Any]:
        self.archive.spend(400 + 64 * len(items))
        return list(items)

    # Names and calls

    def name(self, module: Any, name: Any) -> str:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _MAX_NAME:
            raise TypeError("a name that is no text, or too long")
        module = "builtins" if module == "__builtin__" else module  # of protocol 2
        full = f"{module}.{name}".replace("numpy.core.", "numpy._core.", 1)
        is_dtype = full.startswith("torch.") and full.removeprefix("torch.") in DTYPES
        return full if is_dtype else Word(shorten_text(full, 80))

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what a known name makes of the arguments; the word of an unknown one."""
        if not isinstance(function, Word) or type(arguments) is not tuple:
            raise TypeError("a call of what has no name")
        return _CALLS[function](self, *arguments) if function in _CALLS else function

    def build(self, target: Any, state: Any) -> Any:
        if isinstance(target, _Unfinished):
            made = target.finish(state)
            self.memo.update(dict.fromkeys(target.memo_keys, made))
            return made
        if not isinstance(target, (Word, dict)):  # a state_dict has attributes
            raise TypeError(f"a state for a {type(target).__name__}")
        return target

    # Tensors

    def load(self, identity: Any) -> Word:
        """Return the storage that a persistent id means, or the word of an unknown kind."""
        what, kind, key, _, length = identity
        if what != "storage" or not isinstance(kind, Word) or type(key) is not str:
            raise TypeError("a storage without type or key")
        if kind not in _STORAGES:
            return kind  # of quantized values, for example
        storage = _Storage(kind)
        storage.key, storage.dtype = key, _STORAGES[kind]
        storage.size = self.sizes([length])[0] * np.dtype(DTYPES[storage.dtype]).itemsize
        return storage

    def sizes(self, numbers: Any) -> tuple[int, ...]:
        """Return the numbers of a shape, or of strides, once they can be that."""
        is_list = type(numbers) in (tuple, list) and len(numbers) <= _MAX_DIMENSIONS
        if not is_list or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise TypeError("an impossible shape, stride or offset")
        return tuple(numbers)

    def tensor(self, storage: Any, dtype: str, place: tuple[Any, ...], flags: Any = None) -> Any:
        """Return a tensor of a storage, a dtype (or the storage's own), offset, shape and strides.

        What is no storage, as for sparse tensors, is the word that it was.
        """
        if not isinstance(storage, _Storage) or dtype not in ("", *DTYPES):
            return storage
        dtype = dtype or storage.dtype
        array = self._view(self._read(storage, dtype), *place)
        changes: list[Callable[[Array], Array]] = [
            _FLAGS[f] for f in _FLAGS if (flags or {}).get(f)
        ]
        if dtype in WIDENED or not array.dtype.isnative:
            changes.insert(0, lambda raw: to_native(raw, dtype))
        for change in changes:
            self.archive.spend(array.size * max(4, array.itemsize))
            array = change(array)
            array.flags.writeable = False
        return array

    def _view(self, values: Array, offset: Any, shape: Any, strides: Any) -> Array:
        """Return a view of values, after checking that it stays within."""
        (start,), shape, strides = self.sizes([offset]), self.sizes(shape), self.sizes(strides)
        shown, stored, count = shorten_text(str(shape), 60), len(values), math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if count and last >= stored:
            raise self.broken(f"a tensor {shown} reaches value {last:,} of the {stored:,} stored")
        if count > max(stored, _MAX_REPEATED):
            raise self.broken(f"a tensor {shown} repeats {stored:,} stored values")
        if not count:
            return np.empty(shape, values.dtype)
        width = values.itemsize
        # The stride of an axis of length 1 is never used, and may be anything.
        apart = [width * (step if n > 1 else 1) for n, step in zip(shape, strides, strict=True)]
        return np.ndarray(shape, values.dtype, values, start * width, apart)

    def _read(self, storage: _Storage, dtype: str) -> Array:
        """Return a storage as numbers, those that numpy lacks as their bits."""
        inner, shown = f"{self.prefix}data/{storage.key}", shorten_text(storage.key, 20)
        entry = self.archive.entries.get(inner)
        if entry is None or entry.file_size < storage.size:
            has = "is missing" if entry is None else f"has {entry.file_size:,} bytes"
            raise self.broken(f"the tensor storage data/{shown} {has} of {storage.size:,}")
        data = self.archive.read(inner, storage.size)
        order = b"little"
        if self.prefix + "byteorder" in self.archive.entries:
            order = bytes(self.archive.read(self.prefix + "byteorder", 16))
        kind = np.dtype(DTYPES[dtype])
        return np.frombuffer(data, kind.newbyteorder(_BYTE_ORDERS[order]))


# What known names make of their arguments, which may be anything


def _make_dtype(reader: _Reader, code: Any, *_: Any) -> Any:
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,9}", code):
        return Word(f"numpy.dtype {shorten_text(code, 20)}")
    return _Unfinished(lambda state: np.dtype(code).newbyteorder(state[1]))


def _make_unfilled(reader: _Reader, kind: Any, *_: Any) -> Any:
    """Return an array whose state is everything; arrays of other classes stay words."""
    if kind != "numpy.ndarray":
        return kind
    # The state: version, shape, dtype, whether Fortran's order, bytes.
    return _Unfinished(lambda s: _make_array(reader, s[4], s[2], s[1], "F" if s[3] else "C"))


def _make_scalar(reader: _Reader, dtype: Any, data: Any) -> Any:
    reader.archive.spend(len(data))
    if isinstance(dtype, np.dtype) and not data:  # the empty text has no bytes to read
        return "" if dtype.kind == "U" else b""
    value = _make_array(reader, data, dtype, (1,), "C")
    return value.tolist()[0] if isinstance(value, np.ndarray) else value


def _make_array(
    reader: _Reader, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> Any:
    if isinstance(dtype, Word):
        return dtype
    if not isinstance(dtype, np.dtype) or type(data) is not bytes:
        raise TypeError("a numpy array that is not made of bytes")
    shape = reader.sizes(shape)
    if dtype.itemsize * math.prod(shape) != len(data) or not dtype.itemsize:
        raise TypeError(f"{len(data):,} bytes of a numpy array of {dtype}")
    array = np.ndarray(shape, dtype, data or None, order="F" if order == "F" else "C")
    if order == "K":
        array = array.transpose(axes)
    check_characters(array)
    if not dtype.isnative:
        reader.archive.spend(len(data))
        array = array.astype(dtype.newbyteorder("="))
    return array


def _make_bytes(reader: _Reader, text: Any = b"", *_: Any) -> bytes:
    reader.archive.spend(len(text))
    return text if type(text) is bytes else text.encode("latin1")


def _join(reader: _Reader, separator: str, parts: Any) -> str:
    reader.archive.spend(sum(map(len, parts)))
    return separator.join(parts)


# A tensor on its way to another class or device.
_SAME = "parameter parameter_with_state device_tensor_from_numpy device_tensor_from_cpu_tensor"
#: Names that a pickle may call -> what is called in their place, and nothing else ever is.
_CALLS: dict[Any, Callable[..., Any]] = {
    "collections.OrderedDict": lambda r: {},
    "collections.Counter": lambda r, items: items,
    "builtins.set": lambda r, items=(): set(map(r.key, r.copy(items))),
    "builtins.frozenset": lambda r, items=(): frozenset(map(r.key, r.copy(items))),
    **dict.fromkeys(("builtins.range", "builtins.xrange"), lambda r, *n: r.copy(range(*n))),
    "builtins.complex": lambda r, real, imaginary: complex(real, imaginary),
    **dict.fromkeys(("_codecs.encode", "builtins.bytes", "builtins.bytearray"), _make_bytes),
    "numpy.dtype": _make_dtype,
    "numpy._core.multiarray._reconstruct": _make_unfilled,
    "numpy._core.multiarray.scalar": _make_scalar,
    "numpy._core.numeric._frombuffer": _make_array,
    # Storage, offset, shape, strides, two that do not matter, in v3 the dtype, and flags.
    "torch._utils._rebuild_tensor_v2": lambda r, s, *more: r.tensor(s, "", more[:3], *more[5:]),
    "torch._utils._rebuild_tensor_v3": lambda r, s, *more: r.tensor(
        s, more[5].removeprefix("torch."), more[:3], *more[6:]
    ),
    **dict.fromkeys(
        (f"torch._utils._rebuild_{name}" for name in _SAME.split()), lambda r, data, *_: data
    ),
    # A tensor that has attributes, which are left out.
    "torch._tensor._rebuild_from_type_v2": lambda r, make, kind, args, state: r.call(make, args),
    "torch.Size": lambda r, sizes=(): r.sizes(sizes),
    "torch.device": lambda r, kind, *index: _join(r, ":", [kind, *map(str, r.sizes(index))]),
    "torch.serialization._get_layout": lambda r, name: name,
}
for _kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
    _CALLS[f"pathlib.{_kind}"] = lambda r, *parts: _join(r, "/", parts).replace("//", "/")
    _CALLS[f"pathlib._local.{_kind}"] = _CALLS[f"pathlib.{_kind}"]

_LITERALS = (
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8"
)
#: Operations that `torch.save` writes, in protocols 2 to 5 -> the value that each pushes.
_PUSHES: dict[str, Callable[[_Reader, Any], Any]] = {
    **dict.fromkeys(_LITERALS.split(), lambda r, value: value),
    "BYTEARRAY8": lambda r, value: bytes(value),
    "NONE": lambda r, _: None,
    "NEWTRUE": lambda r, _: True,
    "NEWFALSE": lambda r, _: False,
    "EMPTY_TUPLE": lambda r, _: (),
    "EMPTY_LIST": lambda r, _: [],
    "EMPTY_DICT": lambda r, _: {},
    "EMPTY_SET": lambda r, _: set(),
    "TUPLE1": lambda r, _: tuple(r.pop(1)),
    "TUPLE2": lambda r, _: tuple(r.pop(2)),
    "TUPLE3": lambda r, _: tuple(r.pop(3)),
    "TUPLE": lambda r, _: tuple(r.pop_mark()),
    "FROZENSET": lambda r, _: frozenset(map(r.key, r.pop_mark())),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda r, key: r.memo[key]),
    "GLOBAL": lambda r, name: r.name(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.name(*r.pop(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda r, _: r.call(*r.pop(2))),
    "NEWOBJ_EX": lambda r, _: r.call(*r.pop(3)[:2]),
    "BUILD": lambda r, _: r.build(*r.pop(2)),
    "BINPERSID": lambda r, _: r.load(*r.pop(1)),
}
#: Operations that change what is there, and push nothing.
_CHANGES: dict[str, Callable[[_Reader, Any], Any]] = {
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Reader.put),
    **dict.fromkeys(("PROTO", "FRAME"), lambda r, _: None),
    "MARK": lambda r, _: r.mark(),
    "APPEND": lambda r, _: r.add(r.pop(1)),
    "SETITEM": lambda r, _: r.add(r.pop(2)),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), lambda r, _: r.add(r.pop_mark())),
}
