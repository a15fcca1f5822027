"""A capture -> bytes that a script in a page turns back into the numbers that figures print.

A number has four significant digits everywhere in a figure, so it travels as a
whole number times a power of ten, two bytes each. Bytes of equal meaning stand
together (all low bytes of the whole numbers, then all high ones, ...), as deflate
makes most of them so, and only visible pairs are there.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.tables.tidy import DIGITS, round_values

#: The whole number that stands for "no value"; others stay below 10,000 in magnitude.
NO_VALUE = -32768
_LEVEL = 9


def pack_capture(capture: Capture) -> bytes:
    r"""Return what a page needs of a capture.

    Parameters
    ----------
    capture : Capture
        With or without a full matrix.

    Returns
    -------
    bytes
        A bit for each (query, key) that is visible in some head, the first pair in
        the highest bit of the first byte (none without a full matrix); then the
        planes of `pack_numbers` of the last-block rows [heads, key] and, behind
        them, of the visible pairs [heads, pair].

    Examples
    --------
    >>> capture = Capture.from_array([[[1.5, 0.0], [2.0, -3.0]]], block_sizes=[1, 1])
    >>> packed = pack_capture(capture)
    >>> packed[:1], unpack_numbers(packed[1:])
    (b'\xb0', array([ 2. , -3. ,  1.5,  2. , -3. ]))
    """
    rows = capture.last_block_rows.ravel()
    if capture.full_frame_attention is None:
        return pack_numbers(rows)
    matrices = [capture.head_matrix(head) for head in range(capture.num_heads)]
    seen = np.zeros(matrices[0].shape, dtype=bool)
    for matrix in matrices:
        seen |= ~np.isnan(matrix)
    numbers = np.concatenate([rows, *(matrix[seen] for matrix in matrices)])
    return np.packbits(seen).tobytes() + pack_numbers(numbers)


def pack_numbers(values: npt.NDArray[np.floating]) -> bytes:
    """Return numbers as four planes of bytes: whole number low, high, exponent low, high.

    Parameters
    ----------
    values : array, shape (n,)
        Rounded here as everywhere (`headgrid.tables.tidy.round_values`); NaN becomes `NO_VALUE`.

    Returns
    -------
    bytes
        4 n of them.
    """
    rounded = round_values(values)
    size = np.abs(rounded)
    some = size > 0  # neither zero nor NaN
    exponents = np.zeros(rounded.shape, dtype="<i2")
    exponents[some] = np.floor(np.log10(size[some])) - (DIGITS - 1)
    whole = np.zeros(rounded.shape, dtype="<i2")
    # A number of so few digits: what powers of ten lack in the last bit is rounded away.
    whole[some] = np.rint(rounded[some] / 10.0 ** exponents[some].astype(np.float64))
    whole[np.isnan(rounded)] = NO_VALUE
    planes = [numbers.view(np.uint8).reshape(-1, 2).T for numbers in (whole, exponents)]
    return np.concatenate(planes).tobytes()


def unpack_numbers(planes: bytes) -> npt.NDArray[np.float64]:
    """Return the numbers of `pack_numbers`, the same to the last bit.

    >>> unpack_numbers(pack_numbers(np.array([1 / 7, np.nan, -2e-30])))
    array([ 1.429e-01,        nan, -2.000e-30])
    """
    planes_of_bytes = np.frombuffer(planes, dtype=np.uint8).reshape(4, -1)
    whole, exponents = (
        np.ascontiguousarray(planes_of_bytes[start : start + 2].T).view("<i2").ravel()
        for start in (0, 2)
    )
    pairs = zip(whole.tolist(), exponents.tolist(), strict=True)
    return np.array(
        [np.nan if number == NO_VALUE else float(f"{number}e{power}") for number, power in pairs]
    )


def compress_text(content: bytes) -> str:
    """Return bytes as text that stands in a page: deflated, in base64.

    >>> compress_text(b"")
    'eNoDAAAAAAE='
    """
    return base64.b64encode(zlib.compress(content, _LEVEL)).decode("ascii")
