"""Values of a file -> the same, once it is certain that they can be walked and printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError, damaged

MAX_DEPTH = 64
#: Values and characters that text of a file (JSON, metadata) may be written out to.
MAX_SIZE = 64_000_000
_LAST_CHARACTER = 0x10FFFF
_PLAIN = "expected plain dictionaries and lists; write the capture anew"


def check_characters(name: str, array: npt.NDArray[Any]) -> None:
    """Refuse an array of text that is none: any number of 32 bits, which Python can not print.

    Raises
    ------
    CaptureError
        Where one of them is no character.

    Examples
    --------
    >>> check_characters("a.npz", np.array(["a", "鹰"]))
    >>> check_characters("a.npz", np.array([2**31 - 1], dtype="u4").view("<U1"))
    Traceback (most recent call last):
    headgrid.errors.CaptureError: a.npz: the file is damaged (text with a character 2147483647), ...
    """
    for part in array.dtype.names or ():
        check_characters(name, array[part])
    if array.dtype.kind != "U" or not array.size * array.dtype.itemsize:
        return
    codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
    if codes.max() > _LAST_CHARACTER:
        raise damaged(name, f"text with a character {codes.max()}", "text of Unicode")


def check_expansion(name: str, value: Any, limit: int, unfinished: type | None = None) -> None:
    """Refuse values that hold themselves, are deep, or grow when written out.

    A list that holds a list twice, which holds a list twice, ... takes no room in
    memory, and 2**n as text.

    Parameters
    ----------
    name : str
        Name of the file, for the message.
    value : object
    limit : int
        Values and characters that may be below it, counted as often as they appear.
    unfinished : type, optional
        What must not be left among the values.

    Raises
    ------
    CaptureError

    Examples
    --------
    >>> check_expansion("a.pt", {"frames": [0, 1, 2]}, 100)
    >>> check_expansion("a.pt", [["x" * 60] * 2], 100)
    Traceback (most recent call last):
    headgrid.errors.CaptureError: a.pt: values repeat themselves to 123 and more when ...
    """
    #: Values and characters below, and levels, by identity; None while on the way.
    weights: dict[int, tuple[int, int] | None] = {}

    def measure(item: Any, depth: int) -> tuple[int, int]:
        if isinstance(item, (str, bytes)):
            return 1 + len(item), 0
        if unfinished is not None and isinstance(item, unfinished):
            raise damaged(name, f"its pickle leaves {item} behind", "what torch.save writes")
        if not isinstance(item, (dict, list, tuple, set, frozenset)):
            return 1, 0
        known = weights.get(id(item))
        if known is None and id(item) in weights:
            raise CaptureError(f"{name}: a {type(item).__name__} holds itself, {_PLAIN}")
        if depth + (known[1] if known else 0) > MAX_DEPTH:
            raise CaptureError(f"{name}: values are nested more than {MAX_DEPTH} deep, {_PLAIN}")
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
                f"{_PLAIN}"
            )
        weights[id(item)] = (weight, height)
        return weight, height

    measure(value, 0)
