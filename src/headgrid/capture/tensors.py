"""What a pickle says of tensors and numpy arrays -> read-only numpy arrays.

A tensor in a pickle is a call with a shape, strides and the key of a storage,
whose bytes lie beside the pickle. Every number is checked before anything is
made of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headgrid.capture.calls import Budget, Call, Exotic, Name, Part, Unfinished, broken, describe
from headgrid.capture.values import check_characters
from headgrid.capture.zips import Archive
from headgrid.errors import CaptureError
from headgrid.text import quote_text, shorten_text

Array = npt.NDArray[Any]

MAX_DIMENSIONS = 32
#: A view may repeat its storage (`Tensor.expand`) up to so many values.
MAX_REPEATED = 2**24

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


def _check_shape(name: str, sizes: Any) -> tuple[int, ...]:
    """Return whole numbers, none negative, no more of them than numpy has axes."""
    if type(sizes) is int:
        sizes = (sizes,)
    if type(sizes) not in (tuple, list) or len(sizes) > MAX_DIMENSIONS:
        raise broken(name, "a shape is not a short list of numbers")
    for size in sizes:
        if type(size) is not int or not 0 <= size < 2**48:
            shown = size if type(size) is int and abs(size) < 2**64 else describe(size)
            raise broken(name, f"a tensor has {shown} in its shape, strides or offset")
    return tuple(sizes)


# numpy


@dataclass(frozen=True, eq=False)
class NumpyDtype(Unfinished):
    """A numpy dtype; its state is the byte order."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> NumpyDtype:
        """Return the dtype in the byte order of the state."""
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise TypeError("a numpy dtype with fields")
        return replace(self, order=state[1])

    def to_numpy(self) -> np.dtype[Any]:
        """Return it as numpy's own."""
        return np.dtype(self.order + self.code)


@dataclass(frozen=True, eq=False)
class UnfilledArray(Unfinished):
    """A numpy array; its state is everything."""

    fill: Callable[[Any, Any, Any, Any], Array]

    def build(self, state: Any) -> Array:
        """Return the array."""
        _, shape, dtype, fortran, data = state
        return self.fill(data, dtype, shape, "F" if fortran else "C")


class NumpyCalls:
    """Makes numpy's arrays, scalars and dtypes of plain bytes."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def names(self) -> dict[str, Any]:
        """Return what each name stands for."""
        calls: dict[str, Callable[..., Any]] = {
            "numpy._core.multiarray._reconstruct": lambda *_: UnfilledArray(self._make_array),
            "numpy._core.multiarray.scalar": self._make_scalar,
            "numpy._core.numeric._frombuffer": self._make_array,
            "numpy.dtype": self._make_dtype,
        }
        names: dict[str, Any] = {name: Call(name, calls[name]) for name in calls}
        return names | {"numpy.ndarray": Name("numpy.ndarray")}

    def _make_dtype(self, code: Any, *_: Any) -> NumpyDtype:
        if type(code) is not str or not re.fullmatch(
            r"b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,9}", code
        ):
            shown = quote_text(code) if type(code) is str else describe(code)
            raise CaptureError(
                f"{self.budget.name}: a numpy array has dtype {shown}, expected numbers or text; "
                "store numbers, lists and dictionaries as such"
            )
        return NumpyDtype(code)

    def _make_scalar(self, dtype: Any, data: Any) -> Any:
        if type(dtype) is NumpyDtype and data == b"":  # the empty text has no bytes to read
            return "" if dtype.code[0] == "U" else b""
        self.budget.spend(len(data))
        return self._make_array(data, dtype, (), "C").item()

    def _make_array(self, data: Any, dtype: Any, shape: Any, order: Any) -> Array:
        if type(dtype) is not NumpyDtype or type(data) is not bytes or order not in ("C", "F"):
            raise TypeError("a numpy array that is not made of bytes")
        shape, kind = _check_shape(self.budget.name, shape), dtype.to_numpy()
        if kind.itemsize * math.prod(shape) != len(data):
            raise broken(
                self.budget.name, f"a numpy array {shape} of {kind} has {len(data):,} bytes"
            )
        if not data:
            return np.empty(shape, kind)
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        if not kind.isnative:
            self.budget.spend(len(data))
            array = array.astype(kind.newbyteorder("="))
        check_characters(self.budget.name, array)
        return array


# torch


@dataclass(frozen=True)
class StorageType(Part):
    """The dtype of a storage."""

    dtype: str


@dataclass(frozen=True)
class Storage(Part):
    """The raw bytes of tensors, by their key, and how many values they are."""

    key: str
    dtype: str
    length: int

    @property
    def item_size(self) -> int:
        """Bytes of a value."""
        return int(np.dtype(_RAW[self.dtype]).itemsize)


class TensorCalls:
    """Makes torch's tensors, as views of storages in a zip.

    Parameters
    ----------
    budget : Budget
    archive : Archive
    prefix : str
        Where in the archive `data/` and `byteorder` lie.
    """

    def __init__(self, budget: Budget, archive: Archive, prefix: str) -> None:
        self.name = budget.name
        self.budget = budget
        self.archive = archive
        self.prefix = prefix
        self._byteorder = self._read_byteorder()
        self._elements: dict[tuple[str, str], Array] = {}

    def names(self) -> dict[str, Any]:
        """Return what each name stands for."""
        calls: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": self._make_tensor,
            "torch._utils._rebuild_tensor_v2": self._make_tensor_v2,
            "torch._utils._rebuild_tensor_v3": self._make_tensor_v3,
            "torch._utils._rebuild_parameter": self._make_parameter,
            "torch.Size": self._make_size,
            "torch.device": self._make_device,
        }
        names: dict[str, Any] = {name: Call(name, calls[name]) for name in calls}
        names |= {f"torch.{dtype}": f"torch.{dtype}" for dtype in _RAW}
        for storage, dtype in _STORAGES.items():
            for module in ("torch", "torch.storage", "torch.cuda"):
                names[f"{module}.{storage}"] = StorageType(dtype)
        return names

    def load(self, identity: Any) -> Any:
        """Return the storage that a persistent id of the pickle means."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise TypeError("an unknown reference")
        _, kind, key, _, length = identity
        if isinstance(kind, Exotic):
            return kind
        if type(kind) is not StorageType or type(key) is not str or not key.isalnum():
            raise TypeError("a storage without type or key")
        return Storage(key, kind.dtype, _check_shape(self.name, length)[0])

    def _make_size(self, sizes: Any = ()) -> tuple[int, ...]:
        return _check_shape(self.name, sizes)

    def _make_device(self, kind: Any, index: Any = None) -> str:
        if type(kind) is not str or type(index) not in (int, type(None)):
            raise TypeError("a device without name")
        self.budget.spend(len(kind))
        return kind if index is None else f"{kind}:{index}"

    def _make_parameter(self, data: Any, *_: Any) -> Array:
        if not isinstance(data, np.ndarray):
            raise TypeError("a parameter without tensor")
        return data

    def _make_tensor_v2(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        strides: Any,
        requires_grad: Any = None,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Any:
        if metadata:  # rare, and torch's business
            return Exotic("a conjugate or negative view")
        return self._make_tensor(storage, offset, size, strides)

    def _make_tensor_v3(
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
        if type(storage) is not Storage or name not in _RAW:
            raise TypeError("a tensor without storage or dtype")
        width = np.dtype(_RAW[name]).itemsize
        typed = Storage(storage.key, name, storage.length * storage.item_size // width)
        return self._make_tensor_v2(typed, offset, size, strides, metadata=metadata)

    def _make_tensor(self, storage: Any, offset: Any, size: Any, strides: Any) -> Array:
        """Return a view of the storage, after checking that it stays within."""
        if type(storage) is not Storage:
            raise TypeError("a tensor without storage")
        (start,) = _check_shape(self.name, offset)
        shape, steps = _check_shape(self.name, size), _check_shape(self.name, strides)
        if len(shape) != len(steps):
            raise broken(self.name, f"a tensor {shape} has {len(steps)} strides")
        count = math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if count and last >= storage.length:
            raise broken(
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

    def _read_elements(self, storage: Storage) -> Array:
        """Return a storage as numbers, once per storage and dtype."""
        index = (storage.key, storage.dtype)
        if index in self._elements:
            if len(self._elements[index]) != storage.length:
                shown = shorten_text(storage.key, 20)
                raise broken(self.name, f"the tensor storage data/{shown} has two lengths")
            return self._elements[index]
        kind = np.dtype(_RAW[storage.dtype]).newbyteorder(self._byteorder)
        needed = storage.length * kind.itemsize
        inner, shown = f"data/{storage.key}", shorten_text(storage.key, 20)
        if self.prefix + inner not in self.archive.entries:
            raise broken(self.name, f"the tensor storage data/{shown} is missing")
        data = self.archive.read(self.prefix + inner, needed)
        if len(data) < needed:
            raise broken(
                self.name,
                f"the tensor storage data/{shown} has {len(data):,} of {needed:,} bytes",
            )
        values: Array = np.frombuffer(data, kind)
        if not kind.isnative:
            values = values.astype(kind.newbyteorder("="))
        values = widen(values, storage.dtype)
        values.flags.writeable = False
        self._elements[index] = values
        return values

    def _read_byteorder(self) -> Literal["<", ">"]:
        """Return numpy's sign for it; files of older versions of torch are little-endian."""
        if self.prefix + "byteorder" not in self.archive.entries:
            return "<"
        order = bytes(self.archive.read(self.prefix + "byteorder", 16))
        if order not in (b"little", b"big"):
            raise broken(self.name, f"byteorder is {order!r}")
        return "<" if order == b"little" else ">"
