"""What torch and safetensors call their dtypes -> numpy's, and those that it lacks -> float32."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Dtype(NamedTuple):
    """One dtype: numpy's code of the raw values, and what others call it."""

    code: str
    safetensors: str = ""
    storage: str = ""


#: By the name in torch.
DTYPES = {
    "bool": Dtype("?", "BOOL", "BoolStorage"),
    "uint8": Dtype("u1", "U8", "ByteStorage"),
    "int8": Dtype("i1", "I8", "CharStorage"),
    "uint16": Dtype("u2", "U16"),
    "int16": Dtype("i2", "I16", "ShortStorage"),
    "uint32": Dtype("u4", "U32"),
    "int32": Dtype("i4", "I32", "IntStorage"),
    "uint64": Dtype("u8", "U64"),
    "int64": Dtype("i8", "I64", "LongStorage"),
    "float16": Dtype("f2", "F16", "HalfStorage"),
    "float32": Dtype("f4", "F32", "FloatStorage"),
    "float64": Dtype("f8", "F64", "DoubleStorage"),
    "complex64": Dtype("c8", "C64", "ComplexFloatStorage"),
    "complex128": Dtype("c16", "", "ComplexDoubleStorage"),
    "bfloat16": Dtype("u2", "BF16", "BFloat16Storage"),
    "float8_e4m3fn": Dtype("u1", "F8_E4M3"),
    "float8_e4m3fnuz": Dtype("u1", "F8_E4M3FNUZ"),
    "float8_e5m2": Dtype("u1", "F8_E5M2"),
    "float8_e5m2fnuz": Dtype("u1", "F8_E5M2FNUZ"),
    "float8_e8m0fnu": Dtype("u1", "F8_E8M0"),
}
#: Bits of the exponent and its bias, of the floats that have a sign and 8 bits.
_FLOAT8 = {
    "float8_e4m3fn": (4, 7),
    "float8_e4m3fnuz": (4, 8),
    "float8_e5m2": (5, 15),
    "float8_e5m2fnuz": (5, 16),
}
_WIDENED = ("bfloat16", *_FLOAT8, "float8_e8m0fnu")
_STEP = 2**18


def is_widened(dtype: str) -> bool:
    """Return whether numpy lacks a dtype of torch, so that it becomes float32."""
    return dtype in _WIDENED


def widen(raw: Array, dtype: str) -> Array:
    """Turn the raw bits of bfloat16 or float8 into float32, which holds each value exactly.

    >>> widen(np.array([0x3F80, 0xC000], dtype=np.uint16), "bfloat16")
    array([ 1., -2.], dtype=float32)
    >>> widen(np.array([0x38, 0xFF], dtype=np.uint8), "float8_e4m3fn")
    array([ 1., nan], dtype=float32)
    """
    if dtype not in _WIDENED:
        return raw
    values, codes = _values_of_codes(dtype), raw.reshape(-1)
    wide = np.empty(raw.size, np.float32)
    for start in range(0, raw.size, _STEP):  # numpy makes indices of 8 bytes of them
        wide[start : start + _STEP] = values[codes[start : start + _STEP]]
    return wide.reshape(raw.shape)


@cache
def _values_of_codes(dtype: str) -> Array:
    """Every value of a dtype, by its bits."""
    if dtype == "bfloat16":
        return (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    codes = np.arange(256)
    if dtype == "float8_e8m0fnu":  # powers of two, without sign
        return np.where(codes == 255, np.nan, np.exp2(codes - 127.0)).astype(np.float32)
    bits, bias = _FLOAT8[dtype]
    exponent, fraction = (codes & 127) >> (7 - bits), codes % 2 ** (7 - bits) / 2 ** (7 - bits)
    normal = np.ldexp(1 + fraction, exponent - bias)
    size = np.where(exponent == 0, np.ldexp(fraction, 1 - bias), normal)
    if dtype == "float8_e5m2":  # as IEEE has it; the others have no infinity
        size[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
    values = np.where(codes > 127, -size, size)
    if dtype.endswith("fnuz"):
        values[128] = np.nan  # in the place of -0
    elif dtype == "float8_e4m3fn":
        values[[127, 255]] = np.nan
    return np.asarray(values, np.float32)
