"""What torch calls its dtypes -> numpy's codes, and the values that numpy lacks -> float32."""

from __future__ import annotations

import sys
from functools import cache
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


def widen(raw: Array, dtype: str) -> Array:
    """Turn the raw bits of bfloat16 or float8 into float32, which holds each value exactly."""
    values, wide = _values_of_codes(dtype), np.empty(raw.shape, np.float32)
    # Piece by piece, as numpy makes indices of 8 bytes of the codes.
    with np.nditer(
        [raw, wide],
        ["buffered", "external_loop", "zerosize_ok"],
        [["readonly"], ["writeonly"]],
        buffersize=2**18,
    ) as pieces:
        for codes, numbers in pieces:
            numbers[...] = values[codes]
    return wide


@cache
def _values_of_codes(dtype: str) -> Array:
    """Every value of a dtype, by its bits."""
    if dtype == "bfloat16":
        return (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    codes = np.arange(256, dtype=np.uint32)
    if dtype == "float8_e8m0fnu":  # powers of two, without sign
        return np.where(codes == 255, np.nan, np.exp2(codes - 127.0)).astype(np.float32)
    bits = int(dtype[8])  # of the exponent; the sign has one, the fraction the others
    bias = 2 ** (bits - 1) - (0 if dtype.endswith("fnuz") else 1)
    # Sign, exponent and fraction in the places of float32, whose exponent has another bias.
    moved = ((codes & 128) << 24 | (codes & 127) << (16 + bits)).view(np.float32)
    values = moved * np.float32(2.0 ** (127 - bias))
    if dtype == "float8_e5m2":  # as IEEE has it; the others have no infinity
        values[[125, 126, 127, 253, 254, 255]] = np.nan
        values[[124, 252]] = np.inf, -np.inf
    else:
        values[[128] if dtype.endswith("fnuz") else [127, 255]] = np.nan
    return np.asarray(values)


def check_characters(array: Array) -> None:
    """Refuse an array of text that is none: numbers of 32 bits, which Python can not print."""
    for part in array.dtype.names or ():
        check_characters(array[part])
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
        if codes.max() > sys.maxunicode:
            raise ValueError(f"text with a character {codes.max()}")
