"""What a pickle may mention of Python itself -> functions that stand in for it.

A pickle calls constructors by name. Each function here takes what the pickle
passes, which may be anything, and either makes a plain value within a budget or
refuses with TypeError, ValueError or CaptureError.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headgrid.capture.files import MIB
from headgrid.errors import CaptureError, damaged

#: Bytes that calls within one pickle may produce (text to bytes, list to set).
MAX_PRODUCED = 64 * MIB

EXPECTED = "expected tensors, numbers, text, lists and dictionaries"
ANEW = "write the capture anew with torch.save(dict)"


# What is on the stack beside values


class Part:
    """A step on the way to a value, which is none itself."""

    def __str__(self) -> str:
        return f"a {type(self).__name__.lower()}"


@dataclass(frozen=True)
class Name(Part):
    """A name that a pickle may mention, and not call."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call(Name):
    """A name that a pickle may call, and the function that is called instead."""

    function: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Unfinished(Part):
    """A value between its creation and the operation that sets its state."""

    memo_keys: list[int] = field(default_factory=list, init=False)

    def build(self, state: Any) -> Any:
        """Return what takes its place."""
        raise NotImplementedError


@dataclass(frozen=True)
class Exotic:
    """Stands for whatever only torch can rebuild, until the pickle has been checked."""

    what: str


class Budget:
    """Bytes that the calls of one pickle may produce."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._produced = 0

    def spend(self, size: int) -> None:
        """Count bytes before they are made.

        Raises
        ------
        CaptureError
            Where they are too many in all.
        """
        self._produced += size
        if self._produced > MAX_PRODUCED:
            raise CaptureError(
                f"{self.name}: the pickle makes more than {MAX_PRODUCED // MIB} MiB out of "
                f"little, expected plain values; {ANEW}"
            )


def broken(name: str, finding: str) -> CaptureError:
    """Return the error for what torch would not have written."""
    return damaged(name, finding, "what torch.save writes")


def describe(value: Any) -> str:
    """Return what is on the stack, in words."""
    return str(value) if isinstance(value, Part) else f"a {type(value).__name__}"


# Python's own constructors


class PlainCalls:
    """Makes sets, bytes, ranges and the like; sharing one budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def names(self) -> dict[str, Any]:
        """Return what each name stands for."""
        calls: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._make_ordered_dict,
            "collections.Counter": self._make_dict,
            "_codecs.encode": self._encode,
            "builtins.set": self._make_set,
            "builtins.frozenset": self.make_frozenset,
            "builtins.bytes": self._make_bytes,
            "builtins.bytearray": self._make_bytes,
            "builtins.complex": self._make_complex,
            "builtins.range": self._make_range,
            "builtins.xrange": self._make_range,
        }
        for module in ("pathlib", "pathlib._local"):
            for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
                calls[f"{module}.{kind}"] = self._make_path
        return {name: Call(name, function) for name, function in calls.items()}

    def check_key(self, key: Any) -> Any:
        """Return the key if it can be hashed in no time.

        Hashing nested tuples doubles with each level where they share parts and
        overflows the C stack where they are deep; integers that agree modulo
        2**61 - 1 all land in one place.
        """
        parts = key if type(key) is tuple and len(key) <= 64 else (key,)
        for part in parts:
            if type(part) is int and abs(part) < 2**60:
                continue
            if type(part) not in (str, bytes, float, bool, type(None), Exotic):
                raise CaptureError(
                    f"{self.budget.name}: a dictionary key or set member is {describe(part)}, "
                    f"expected text or a number; {ANEW}"
                )
        return key

    def _make_ordered_dict(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        self.budget.spend(64 * len(pairs))
        return OrderedDict((self.check_key(key), value) for key, value in pairs)

    def _make_dict(self, items: Any = None) -> dict[Any, Any]:
        if type(items) not in (dict, type(None)):
            raise TypeError("a counter of something else")
        self.budget.spend(64 * len(items or ()))
        return dict(items or {})

    def _make_set(self, items: Any = ()) -> set[Any]:
        self.budget.spend(64 * len(items))
        return {self.check_key(item) for item in items}

    def make_frozenset(self, items: Any = ()) -> frozenset[Any]:
        """Return a frozenset of members that can be hashed in no time."""
        return frozenset(self._make_set(items))

    def _make_bytes(self, data: Any = b"", encoding: Any = None) -> bytes:
        if encoding is not None:
            return self._encode(data, encoding)
        if type(data) is not bytes:
            raise TypeError("bytes of something else")
        return data

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise TypeError("text in another encoding")
        self.budget.spend(len(text))
        return text.encode("latin1")

    def _make_complex(self, real: Any, imaginary: Any) -> complex:
        if type(real) is not float or type(imaginary) is not float:
            raise TypeError("a complex number of something else")
        return complex(real, imaginary)

    def _make_range(self, *bounds: Any) -> list[int]:
        if not bounds or any(type(bound) is not int for bound in bounds):
            raise TypeError("a range of something else")
        numbers = range(*bounds)
        self.budget.spend(64 * min(max(len(numbers), 1), MAX_PRODUCED))
        return list(numbers)

    def _make_path(self, *parts: Any) -> str:
        if any(type(part) is not str for part in parts):
            raise TypeError("a path of something else")
        self.budget.spend(sum(map(len, parts)) + len(parts))
        return "/".join(parts).replace("//", "/")
