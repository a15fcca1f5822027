"""What a pickle says of tensors, numpy arrays and containers -> the value, once it is checked.

Each function takes what the pickle passes, which may be anything, and makes a plain
value or refuses with TypeError, ValueError or CaptureError. Every number is checked
before anything is made of it.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from headgrid.capture.dtypes import DTYPES, Array, is_widened, widen
from headgrid.capture.values import Word, check_characters
from headgrid.capture.zips import Archive
from headgrid.errors import CaptureError, damaged
from headgrid.text import shorten_text

ANEW = "write the capture anew with torch.save(dict)"
MAX_DIMENSIONS = 32
#: A view may repeat its storage (`Tensor.expand`) up to so many values.
MAX_REPEATED = 2**24
MAX_NAME, _MAX_KEY = 1000, 2**16
#: Bytes that a container takes, with what is noted of it.
CONTAINER = 400
_STORAGES = {dtype.storage: name for name, dtype in DTYPES.items() if dtype.storage}
_STORAGES["UntypedStorage"] = "uint8"


class _Storage(Word):
    """The raw values of tensors, by their key; left in a value it is the name of its type."""

    __slots__ = ("dtype", "key", "length")
    key: str
    dtype: str
    length: int


class Unfinished:
    """A value of numpy between its creation and the operation that sets its state."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make
        self.memo_keys: list[int] = []


class Maker:
    """Makes values of what a pickle passes, within the budget of its archive."""

    def __init__(self, archive: Archive, prefix: str) -> None:
        self.name, self.archive, self.prefix = archive.name, archive, prefix
        self._elements: dict[tuple[str, str, int], Array] = {}

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what a known name makes of the arguments; the word of an unknown one."""
        if not isinstance(function, Word) or type(arguments) is not tuple:
            raise TypeError("a call of what has no name")
        known = CALLS.get(function)
        return known(self, *arguments) if known else function

    def broken(self, finding: str) -> CaptureError:
        """Return the error for what torch would not have written."""
        return damaged(self.name, finding, "what torch.save writes")

    def check_key(self, key: Any) -> Any:
        """Return a key that can be hashed and compared in no time, words as text.

        Hashing nested tuples doubles with each level where they share parts; integers that
        agree modulo 2**61 - 1 all land in one place, and so may tuples: few are allowed.
        """
        if type(key) is tuple and len(key) <= 64:
            self.archive.spend(2**15)
            return tuple(self._check_scalar(part) for part in key)
        return self._check_scalar(key)

    def _check_scalar(self, key: Any) -> Any:
        if isinstance(key, (str, bytes)) and len(key) <= _MAX_KEY:
            return str(key) if isinstance(key, Word) else key
        if (type(key) is int and abs(key) < 2**60) or type(key) in (float, bool, type(None)):
            return key
        raise CaptureError(
            f"{self.name}: a dictionary key or set member is a {type(key).__name__}, expected "
            f"short text or a number; {ANEW}"
        )

    def load(self, identity: Any) -> Any:
        """Return the storage that a persistent id means, which has to be there as a whole."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise TypeError("an unknown reference")
        _, kind, key, _, length = identity
        if not isinstance(kind, Word) or type(key) is not str:
            raise TypeError("a storage without type or key")
        storage = _Storage(kind)
        storage.key, storage.length = key, self.shape(length)[0]
        storage.dtype = _STORAGES.get(kind.rpartition(".")[2], "")
        if not storage.dtype or not kind.startswith("torch."):
            return kind  # of quantized values, for example
        self.check_storage(storage)
        return storage

    def check_storage(self, storage: _Storage) -> int:
        """Return the bytes of a storage."""
        needed = storage.length * np.dtype(DTYPES[storage.dtype].code).itemsize
        shown = shorten_text(storage.key, 20)
        entry = self.archive.entries.get(f"{self.prefix}data/{storage.key}")
        if entry is None:
            raise self.broken(f"the tensor storage data/{shown} is missing")
        if entry.size < needed:
            raise self.broken(
                f"the tensor storage data/{shown} has {entry.size:,} of {needed:,} bytes"
            )
        return needed

    def _read_elements(self, storage: _Storage) -> Array:
        """Return a storage as numbers, once per storage and dtype."""
        index = (storage.key, storage.dtype, storage.length)
        if index in self._elements:
            return self._elements[index]
        needed = self.check_storage(storage)
        data = self.archive.read(f"{self.prefix}data/{storage.key}", needed)
        if len(data) < needed:
            raise self.broken("a tensor storage unpacks to less than it states")
        kind = np.dtype(DTYPES[storage.dtype].code).newbyteorder(self._byteorder())
        values: Array = np.frombuffer(data, kind)
        if not kind.isnative:
            self.archive.spend(needed)
            values = values.astype(kind.newbyteorder("="))
        if is_widened(storage.dtype):
            self.archive.spend(4 * storage.length)
            values = widen(values, storage.dtype)
        values.flags.writeable = False
        self._elements[index] = values
        return values

    def _byteorder(self) -> Any:
        """Return numpy's sign for it; files of older versions of torch are little-endian."""
        if self.prefix + "byteorder" not in self.archive.entries:
            return "<"
        order = bytes(self.archive.read(self.prefix + "byteorder", 16))
        if order not in (b"little", b"big"):
            raise self.broken(f"byteorder is {order!r}")
        return "<" if order == b"little" else ">"

    def shape(self, sizes: Any) -> tuple[int, ...]:
        """Return whole numbers, none negative, no more of them than numpy has axes."""
        sizes = (sizes,) if type(sizes) is int else sizes
        if type(sizes) not in (tuple, list) or len(sizes) > MAX_DIMENSIONS:
            raise self.broken("a shape is not a short list of numbers")
        for size in sizes:
            if type(size) is not int or not 0 <= size < 2**48:
                shown = size if type(size) is int and abs(size) < 2**64 else type(size).__name__
                raise self.broken(f"a tensor has {shown} in its shape, strides or offset")
        return tuple(sizes)

    def view(self, storage: _Storage, offset: Any, size: Any, strides: Any) -> Array:
        """Return a view of a storage, after checking that it stays within."""
        (start,), shape, steps = self.shape(offset), self.shape(size), self.shape(strides)
        if len(shape) != len(steps):
            raise self.broken(f"a tensor {shape} has {len(steps)} strides")
        count = math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if count and last >= storage.length:
            raise self.broken(
                f"a tensor {shape} reaches value {last:,} of the {storage.length:,} stored"
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


# What known names make of their arguments, which may be anything


def _make_tensor(
    maker: Maker,
    storage: Any,
    offset: Any,
    size: Any,
    strides: Any,
    requires_grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Any:
    if not isinstance(storage, _Storage):
        return _pass_word(maker, storage)
    array = maker.view(storage, offset, size, strides)
    for part, change in (("conj", np.conj), ("neg", np.negative)):
        if type(metadata) is dict and metadata.get(part):
            maker.archive.spend(array.nbytes)
            array = change(array)
    return array


def _make_typed_tensor(maker: Maker, storage: Any, *arguments: Any) -> Any:
    dtype = str(arguments[5]).removeprefix("torch.")
    if not isinstance(storage, _Storage) or dtype not in DTYPES:
        return _pass_word(maker, storage)
    typed = _Storage(storage)
    typed.key, typed.dtype = storage.key, dtype
    bytes_ = maker.check_storage(storage)
    typed.length = bytes_ // np.dtype(DTYPES[dtype].code).itemsize
    return _make_tensor(maker, typed, *arguments[:5], *arguments[6:])


def _make_subclass(maker: Maker, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Return a tensor that has attributes; they are left out."""
    if CALLS.get(function) not in (_make_tensor, _make_typed_tensor, _pass_word):
        return _pass_word(maker, function)
    return maker.call(function, arguments)


def _pass_word(maker: Maker, data: Any, *_: Any) -> Any:
    """Return a tensor as it is, of a parameter for example, or the word in its place."""
    if not isinstance(data, (np.ndarray, Word)):
        raise TypeError("a tensor without values")
    return data


def _make_device(maker: Maker, kind: Any, index: Any = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)) or len(kind) > MAX_NAME:
        raise TypeError("a device without name")
    return kind if index is None else f"{kind}:{index}"


def _make_dtype(maker: Maker, code: Any, *_: Any) -> Any:
    if type(code) is not str or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,9}", code):
        return Word("numpy.dtype " + (shorten_text(code, 20) if type(code) is str else ""))

    def order(state: Any) -> Any:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise TypeError("a numpy dtype with fields")
        return np.dtype(code).newbyteorder(state[1])

    return Unfinished(order)


def _make_scalar(maker: Maker, dtype: Any, data: Any) -> Any:
    if isinstance(dtype, np.dtype) and data == b"":  # the empty text has no bytes to read
        return "" if dtype.kind == "U" else b""
    if isinstance(dtype, Word):
        return dtype
    maker.archive.spend(len(data))
    return _make_array(maker, data, dtype, (), "C").item()


def _make_unfilled(maker: Maker, kind: Any, *_: Any) -> Any:
    """Return an array whose state is everything; arrays of other classes stay words."""
    if kind != "numpy.ndarray":
        return _pass_word(maker, kind)

    def fill(state: Any) -> Any:
        _, shape, dtype, fortran, data = state
        return _make_array(maker, data, dtype, shape, "F" if fortran else "C")

    return Unfinished(fill)


def _make_array(
    maker: Maker, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> Any:
    if isinstance(dtype, Word):
        return dtype
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or order not in ("C", "F", "K"):
        raise TypeError("a numpy array that is not made of bytes")
    sizes = maker.shape(shape)
    if dtype.itemsize * math.prod(sizes) != len(data):
        raise maker.broken(f"a numpy array {sizes} of {dtype} has {len(data):,} bytes")
    if not data:
        return np.empty(sizes, dtype)
    array = np.frombuffer(data, dtype).reshape(sizes, order="F" if order == "F" else "C")
    if order == "K":
        array = array.transpose(maker.shape(axes))
    if not dtype.isnative or dtype.kind == "U":
        maker.archive.spend(len(data))
        check_characters(maker.name, array)
        array = array.astype(dtype.newbyteorder("="))
    return array


def _make_dict(maker: Maker, items: Any = (), kind: type = dict) -> Any:
    maker.archive.spend(CONTAINER + 64 * len(items))
    pairs = items.items() if type(items) is dict else items
    return kind((maker.check_key(key), value) for key, value in pairs)


def _make_set(maker: Maker, items: Any = (), kind: type = set) -> Any:
    maker.archive.spend(CONTAINER + 64 * len(items))
    return kind(maker.check_key(item) for item in items)


def _make_bytes(maker: Maker, text: Any = b"", encoding: Any = None) -> bytes:
    if type(text) is bytes and encoding is None:
        return text
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise TypeError("text in another encoding")
    maker.archive.spend(len(text))
    return text.encode("latin1")


def _make_complex(maker: Maker, real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise TypeError("a complex number of something else")
    return complex(real, imaginary)


def _make_range(maker: Maker, *bounds: Any) -> list[int]:
    if not bounds or any(type(bound) is not int for bound in bounds):
        raise TypeError("a range of something else")
    numbers = range(*bounds)
    maker.archive.spend(CONTAINER + 64 * len(numbers))
    return list(numbers)


def _make_path(maker: Maker, *parts: Any) -> str:
    if any(type(part) is not str for part in parts):
        raise TypeError("a path of something else")
    maker.archive.spend(sum(map(len, parts)) + len(parts))
    return "/".join(parts).replace("//", "/")


#: Names that a pickle may call -> what is called in their place, and nothing else ever is.
CALLS: dict[Any, Callable[..., Any]] = {
    "collections.OrderedDict": lambda m, items=(): _make_dict(m, items, OrderedDict),
    "collections.Counter": _make_dict,
    "_codecs.encode": _make_bytes,
    "builtins.bytes": _make_bytes,
    "builtins.bytearray": _make_bytes,
    "builtins.set": _make_set,
    "builtins.frozenset": lambda m, items=(): _make_set(m, items, frozenset),
    "builtins.complex": _make_complex,
    "builtins.range": _make_range,
    "builtins.xrange": _make_range,
    "numpy.dtype": _make_dtype,
    "numpy._core.multiarray._reconstruct": _make_unfilled,
    "numpy._core.multiarray.scalar": _make_scalar,
    "numpy._core.numeric._frombuffer": _make_array,
    "torch._utils._rebuild_tensor": _make_tensor,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_tensor_v3": _make_typed_tensor,
    "torch._utils._rebuild_parameter": _pass_word,
    "torch._utils._rebuild_parameter_with_state": _pass_word,
    "torch._utils._rebuild_device_tensor_from_numpy": _pass_word,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _pass_word,
    "torch._tensor._rebuild_from_type_v2": _make_subclass,
    "torch.Size": lambda m, sizes=(): m.shape(sizes),
    "torch.device": _make_device,
    "torch.serialization._get_layout": _make_device,
}
for _module in ("pathlib", "pathlib._local"):
    for _kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        CALLS[f"{_module}.{_kind}"] = _make_path
