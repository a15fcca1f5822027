"""Values of a file -> the same, once it is certain that they can be walked and printed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.errors import CaptureError, damaged

MAX_DEPTH = 64
#: Values and characters that text of a file (JSON, metadata) may be written out to.
MAX_SIZE = 64_000_000
_LAST_CHARACTER = 0x10FFFF
_CONTAINERS = (dict, OrderedDict, list, tuple, set, frozenset)
_PLAIN = "expected plain dictionaries and lists; write the capture anew"


class Word(str):
    """A name that a file mentions instead of a value: text, with nothing behind it."""

    __slots__ = ()


def check_characters(name: str, array: npt.NDArray[Any]) -> None:
    """Refuse an array of text that is none: any number of 32 bits, which Python can not print.

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


class _Walk:
    """Measures values, and turns the words among them into text."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.words: dict[str, None] = {}
        #: Each container by its identity, with its size, height and plain form; None on the way.
        self._known: dict[int, tuple[Any, int, int, Any] | None] = {}

    def plain(self, item: Any, depth: int = 0) -> tuple[int, int, Any]:
        """Return values and characters of an item, the levels below it, and its plain form."""
        if isinstance(item, (Word, np.dtype)):
            self.words[f"numpy dtype {item}" if isinstance(item, np.dtype) else str(item)] = None
            item = str(item)
        if isinstance(item, (str, bytes)):
            return 1 + len(item), 0, item
        if type(item) not in _CONTAINERS:
            return 1, 0, item
        known = self._known.get(id(item))
        if known is None and id(item) in self._known:
            raise CaptureError(f"{self.name}: a {type(item).__name__} holds itself, {_PLAIN}")
        if depth + (known[2] if known else 0) > MAX_DEPTH:
            raise CaptureError(
                f"{self.name}: values are nested more than {MAX_DEPTH} deep, {_PLAIN}"
            )
        if known is None:
            self._known[id(item)] = None
            # The item is kept: another one could get its identity.
            known = self._known[id(item)] = (item, *self._plain_container(item, depth))
        return known[1:]

    def _plain_container(self, item: Any, depth: int) -> tuple[int, int, Any]:
        weight, height, parts = 1, 0, []
        is_dict = isinstance(item, dict)
        for part in item.values() if is_dict else item:
            size, levels, plain = self.plain(part, depth + 1)
            weight, height = weight + size, max(height, levels + 1)
            parts.append(plain)
            self._check(weight)
        if isinstance(item, dict):
            self._check(weight + sum(1 + len(key) for key in item if type(key) in (str, bytes)))
            item.update(zip(item, parts, strict=True))
        elif type(item) is list:
            item[:] = parts
        elif type(item) is tuple and any(a is not b for a, b in zip(item, parts, strict=True)):
            item = tuple(parts)
        return weight, height, item

    def _check(self, weight: int) -> None:
        if weight > self.limit:
            raise CaptureError(
                f"{self.name}: values repeat themselves to {weight:,} and more when written out, "
                f"{_PLAIN}"
            )


def make_plain(name: str, value: Any, limit: int = MAX_SIZE) -> tuple[Any, list[str]]:
    """Return values whose words are text, and what words there were.

    Refuses values that hold themselves, are deep, or grow when written out: a list that
    holds a list twice, which holds a list twice, ... takes no memory, and 2**n as text.

    >>> make_plain("a.pt", {"frames": [0, 1, 2], "args": (Word("argparse.Namespace"),)})
    ({'frames': [0, 1, 2], 'args': ('argparse.Namespace',)}, ['argparse.Namespace'])
    >>> make_plain("a.pt", [["x" * 60] * 2], 100)
    Traceback (most recent call last):
    headgrid.errors.CaptureError: a.pt: values repeat themselves to 123 and more when ...
    """
    walk = _Walk(name, limit)
    return walk.plain(value)[2], list(walk.words)
