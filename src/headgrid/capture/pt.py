"""A `.pt` -> plain values and numpy arrays, without torch and without running anything.

The file is a zip that holds a pickle (`<prefix>/data.pkl`) and the raw bytes of every tensor
(`<prefix>/data/<key>`). A pickle is a program, which Python's own unpickler would run with
the caller's rights. Here a name in it is a `Word`, text that nothing can call: where a
function of this module is known for that name, it makes the value instead; all else that is
done with a word gives the word, so that metadata of any class is read as the name of the class.

Big files are memory-mapped and their arrays are read-only views, so reading one
costs no memory. Such a file must not be overwritten in place while its arrays
live; `headgrid.save_capture` replaces files whole.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from headgrid.capture.dtypes import DTYPES
from headgrid.capture.files import MIB, read_or_map
from headgrid.capture.rebuild import ANEW, CALLS, CONTAINER, MAX_NAME, Maker, Unfinished
from headgrid.capture.schema import FULL, LAST
from headgrid.capture.values import Word, make_plain
from headgrid.capture.zips import Archive
from headgrid.errors import CaptureError, OutputError, describe_error
from headgrid.text import quote_text, shorten_text

#: A pickle holds no tensors, so it is small unless numpy arrays are inside.
MAX_PICKLE = 24 * MIB
#: Operations of a pickle; a capture has about 250. 400,000 take half a second.
MAX_OPERATIONS = 400_000
MAX_INTEGER_BITS = 2048
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


def read_pt(path: Path) -> tuple[Any, list[str]]:
    """Read what `torch.save` wrote.

    Returns
    -------
    value : object
        Usually a dictionary. Tensors are read-only numpy arrays of their shape;
        bfloat16 and float8 become float32 (exactly), numpy scalars become Python
        numbers, dtypes and devices become text (``"torch.float16"``).
    warnings : list of str
        What was odd and could be read as text.

    Raises
    ------
    CaptureError
        Where the file is damaged, holds no plain values, or would need absurd resources.
    """
    name = path.name
    with path.open("rb", buffering=0) as file:
        buffer = read_or_map(file)
    _check_head(name, buffer[:64], len(buffer))
    archive = Archive(name, buffer)
    prefix = _find_prefix(name, list(archive.entries))
    most = min(MAX_PICKLE, 4 * MIB + len(archive))
    size = archive.entries[prefix + "data.pkl"].size
    if size > most:
        raise CaptureError(
            f"{name}: data.pkl has {size:,} bytes, expected at most {most // MIB} MiB; store large "
            "arrays as tensors (torch.from_numpy)"
        )
    program = bytes(archive.read(prefix + "data.pkl", size))
    value = _Machine(archive, prefix).run(program)
    for key in (FULL, LAST) if isinstance(value, dict) else ():
        if isinstance(value.get(key), Word):
            raise CaptureError(
                f"{name}: {key} is made by {value[key]}, expected a plain tensor of numbers; "
                "store it dense (tensor.to_dense(), tensor.dequantize())"
            )
    if isinstance(value, Word):
        raise CaptureError(f"{name}: holds a {value}, expected a dictionary of tensors; {ANEW}")
    value, words = make_plain(name, value, 8_000_000 + 2 * len(program))
    if not words:
        return value, []
    shown = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
    return value, [
        f"{name}: objects of {shown} are no plain values and were not made; their place holds "
        "that name as text"
    ]


def _check_head(name: str, head: bytes, size: int) -> None:
    if head.startswith(_LEGACY_MAGIC):
        raise CaptureError(
            f"{name}: has the format of torch before 1.6, expected the zip that torch.save writes "
            "since then; save it anew with torch.save(torch.load(file), file)"
        )
    if head[:1] == b"\x80":
        raise CaptureError(
            f"{name}: is a bare pickle, which can hold code and was not run, expected what "
            f"torch.save writes; {ANEW}"
        )
    if head[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise CaptureError(
            f"{name}: is no capture (it starts with {head[:8]!r}, {size:,} bytes), expected what "
            "torch.save writes; record it anew"
        )


def _find_prefix(name: str, entries: list[str]) -> str:
    found = [entry for entry in entries if re.fullmatch(r"([^/]+/)?data\.pkl", entry)]
    if len(found) == 1:
        prefix = found[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in entries:
            raise CaptureError(
                f"{name}: is a TorchScript program, expected a dictionary of tensors; {ANEW}"
            )
        return prefix
    if any(entry.endswith(".npy") for entry in entries):
        raise CaptureError(
            f"{name}: holds .npy arrays, expected what torch.save writes; it is a numpy "
            "archive, so rename it to .npz"
        )
    shown = ", ".join(quote_text(entry, 30) for entry in entries[:3])
    raise CaptureError(
        f"{name}: is a zip with {len(found) or 'no'} data.pkl ({shown or 'no entries'}), "
        f"expected what torch.save writes; {ANEW}"
    )


class _Machine:
    """Walks through a pickle's operations with a stack and a memo, within the archive's budget."""

    def __init__(self, archive: Archive, prefix: str) -> None:
        self.name, self.archive, self.maker = archive.name, archive, Maker(archive, prefix)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Return the value that the pickle makes; its names are words."""
        try:
            return self._execute(program)
        except CaptureError:
            raise
        except MemoryError:
            raise self.maker.broken("it needs more memory than there is") from None
        except (
            LookupError,
            ValueError,
            TypeError,
            ArithmeticError,
            AttributeError,
            struct.error,
            Warning,  # of text with wrong escapes, where warnings are errors
        ) as error:
            reason = shorten_text(str(error).partition("\n")[0], 60)
            raise self.maker.broken(f"its pickle does not add up: {reason}") from None

    def _execute(self, program: bytes) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_OPERATIONS:
                raise CaptureError(
                    f"{self.name}: the pickle has more than {MAX_OPERATIONS:,} operations, "
                    "expected some hundred; store long lists as tensors"
                )
            if operation.name == "STOP":
                if isinstance(self.stack[-1], Unfinished):
                    raise ValueError("an array without values")
                return self.pop()
            step = _OPERATIONS.get(operation.name)
            if step is None:
                raise self.maker.broken(f"its pickle has the operation {operation.name}")
            step(self, argument)
        raise ValueError("no end")  # genops raises before; for the type checker

    # The stack and the memo

    def push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise CaptureError(
                f"{self.name}: the pickle holds an integer of {value.bit_length():,} bits, "
                f"expected numbers of 64 bits; {ANEW}"
            )
        self.stack.append(bytes(value) if isinstance(value, bytearray) else value)

    def push_new(self, container: Any) -> None:
        self.archive.spend(CONTAINER)
        if any(isinstance(part, Unfinished) for part in container):
            raise ValueError("an array without values")
        self.stack.append(container)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def drop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def put(self, key: int | None) -> None:
        index = len(self.memo) if key is None else key
        if isinstance(self.stack[-1], Unfinished):
            self.stack[-1].memo_keys.append(index)
        self.memo[index] = self.stack[-1]

    # Containers

    def add(self, kinds: tuple[type, ...], items: list[Any]) -> None:
        """Add items to the container on top, or to a word, which takes all and keeps nothing."""
        target = self.stack[-1]
        if isinstance(target, Word):
            return
        if type(target) not in kinds or any(isinstance(item, Unfinished) for item in items):
            raise TypeError(f"items for a {type(target).__name__}")
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(self.maker.check_key, items))
        else:
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[self.maker.check_key(key)] = value

    # Names and calls

    def push_name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or len(module + name) > MAX_NAME:
            raise TypeError("a name that is no text, or too long")
        full = f"{module}.{name}"
        for old, new in (("__builtin__.", "builtins."), ("numpy.core.", "numpy._core.")):
            if full.startswith(old):
                full = new + full.removeprefix(old)
        if full.removeprefix("torch.") in DTYPES and full.startswith("torch."):
            self.stack.append(full)
        else:
            self.archive.spend(CONTAINER)
            self.stack.append(Word(full if full in CALLS else shorten_text(full, 80)))

    def reduce(self, parts: int = 2) -> None:
        function, arguments = self.pop_many(parts)[:2]
        self.stack.append(self.maker.call(function, arguments))

    def push_dict(self, items: list[Any]) -> None:
        self.push_new({})
        self.add(_DICTS, items)

    def build(self) -> None:
        state, target = self.pop_many(2)[::-1]
        if isinstance(target, Unfinished):
            made = target.make(state)
            for key in target.memo_keys:
                self.memo[key] = made
            target.memo_keys.clear()
            target = made
        elif not isinstance(target, (Word, OrderedDict)):
            # An OrderedDict carries attributes where it is a module's state_dict.
            raise TypeError(f"a state for a {type(target).__name__}")
        self.stack.append(target)


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8"
)
_DICTS, _FROZENSET = (dict, OrderedDict), Word("builtins.frozenset")
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_LITERALS.split(), _Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.stack.append(m.memo[a])),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, a: None),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: m.push_new(m.pop_many(1)),
    "TUPLE2": lambda m, _: m.push_new(m.pop_many(2)),
    "TUPLE3": lambda m, _: m.push_new(m.pop_many(3)),
    "TUPLE": lambda m, _: m.push_new(tuple(m.pop_to_mark())),
    "EMPTY_LIST": lambda m, _: m.push_new([]),
    "EMPTY_DICT": lambda m, _: m.push_new({}),
    "EMPTY_SET": lambda m, _: m.push_new(set()),
    "LIST": lambda m, _: m.push_new(m.pop_to_mark()),
    "DICT": lambda m, _: m.push_dict(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m.maker.call(_FROZENSET, (m.pop_to_mark(),))),
    "APPEND": lambda m, _: m.add((list,), [m.pop()]),
    "APPENDS": lambda m, _: m.add((list,), m.pop_to_mark()),
    "SETITEM": lambda m, _: m.add(_DICTS, list(m.pop_many(2))),
    "SETITEMS": lambda m, _: m.add(_DICTS, m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.add((set,), m.pop_to_mark()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.drop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "GLOBAL": lambda m, name: m.push_name(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.push_name(*m.pop_many(2)),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.reduce(),
    "NEWOBJ_EX": lambda m, _: m.reduce(3),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stack.append(m.maker.load(m.pop())),
}


def write_pt(data: Mapping[str, Any], file: IO[bytes], name: str) -> None:
    """Write a dictionary as torch does, its arrays as tensors."""
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            return torch.from_numpy(native)
        if isinstance(value, (list, tuple)):
            parts = [tensors(part) for part in value]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return value

    try:
        # An open file, as a name would go into the zip and change its bytes.
        torch.save(tensors(data), file)
    except RuntimeError as error:  # torch's zip writer reports a full disk this way
        raise OutputError(
            f"{name}: can not be written ({describe_error(error)}), expected a folder with room"
        ) from None
