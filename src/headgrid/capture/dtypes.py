"""What torch calls its dtypes -> numpy's codes, and the values that numpy lacks -> float32."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FLOAT8 = ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
#: Dtypes that numpy lacks, by their name in torch -> the code of their raw bits.
WIDENED = {"bfloat16": "u2"} | {f"float8_{kind}": "u1" for kind in _FLOAT8}
_SHARED = (
    "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 "
    "float16 float32 float64 complex64 complex128"
)
#: By the name in torch: numpy's code of the raw values.
DTYPES = {name: name for name in _SHARED.split()} | WIDENED


def to_native(raw: Array, dtype: str) -> Array:
    """Return values in this machine's byte order, bfloat16 and float8 as float32 (exactly)."""
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if dtype not in WIDENED:
        return native
    import ml_dtypes

    return np.asarray(native.view(getattr(ml_dtypes, dtype)), np.float32)


def check_characters(array: Array) -> None:
    """Refuse an array of text that is none: numbers of 32 bits, which Python can not print."""
    for part in array.dtype.names or ():
        check_characters(array[part])
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
        if codes.max() > sys.maxunicode:
            raise ValueError(f"text with a character {codes.max()}")
