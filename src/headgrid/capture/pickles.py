"""A pickle program -> plain values, without running code.

A pickle is a program, which Python's own unpickler would run with the caller's
rights. The `Machine` walks through its operations itself: a name in the pickle is
looked up in a fixed table and is never imported, and every operation works within
a budget of memory and time.
"""

from __future__ import annotations

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from headgrid.capture.calls import (
    ANEW,
    EXPECTED,
    Budget,
    Call,
    Exotic,
    Part,
    PlainCalls,
    Unfinished,
    broken,
    describe,
)
from headgrid.capture.values import check_expansion
from headgrid.errors import CaptureError
from headgrid.text import shorten_text

#: Operations of a pickle; a capture has about 250. 400,000 take half a second.
MAX_OPERATIONS = 400_000
MAX_INTEGER_BITS = 2048

_RENAMED = {"__builtin__": "builtins", "numpy.core": "numpy._core"}
_LITERALS = frozenset(
    (
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CODE = frozenset(("INST", "OBJ", "EXT1", "EXT2", "EXT4"))


class Machine:
    """Walks through a pickle's operations with a stack, a memo and a budget.

    Parameters
    ----------
    budget : Budget
    names : mapping
        What the names stand for that the pickle may mention, beside Python's own.
    load : callable
        Gives the value of what the pickle calls a persistent id.

    Attributes
    ----------
    exotic : Exotic or None
        The first thing that only torch can rebuild.
    """

    def __init__(
        self, budget: Budget, names: Mapping[str, Any], load: Callable[[Any], Any]
    ) -> None:
        self.name = budget.name
        self.exotic: Exotic | None = None
        self._plain = PlainCalls(budget)
        self._names = self._plain.names() | dict(names)
        self._load = load
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Return the value that the pickle makes; it can be walked and printed.

        Raises
        ------
        CaptureError
            Where the pickle asks for code, is damaged, or needs absurd resources.
        """
        try:
            value = self._execute(program)
            check_expansion(self.name, value, 8_000_000 + 2 * len(program), unfinished=Part)
        except CaptureError:
            raise
        except MemoryError:
            raise broken(self.name, "it needs more memory than there is") from None
        except RecursionError:
            raise broken(self.name, "it is nested too deeply") from None
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
            raise broken(self.name, f"its pickle does not add up: {reason}") from None
        return value

    def _execute(self, program: bytes) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_OPERATIONS:
                raise CaptureError(
                    f"{self.name}: the pickle has more than {MAX_OPERATIONS:,} operations, "
                    "expected some hundred; store long lists as tensors"
                )
            name = operation.name
            if name in _LITERALS:
                self._push(self._literal(argument))
            elif name in _CONSTANTS:
                self._push(_CONSTANTS[name])
            elif name in _TUPLES:
                self._push(self._pop_many(_TUPLES[name]))
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name in _CODE:
                what = f"the class {shorten_text(str(argument), 80)}" if argument else "a class"
                raise self._refuse_code(what)
            elif name == "STOP":
                return self._pop()
            elif name not in ("PROTO", "FRAME"):
                raise broken(self.name, f"its pickle has the operation {name}")
        raise ValueError("no end")  # genops raises before; for the type checker

    def _literal(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise CaptureError(
                f"{self.name}: the pickle holds an integer of {value.bit_length():,} bits, "
                f"expected numbers of 64 bits; {ANEW}"
            )
        return bytes(value) if isinstance(value, bytearray) else value

    # The stack and the memo

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("the stack is empty")
        return self._stack.pop()

    def _pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self) -> Any:
        return self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _drop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _drop_to_mark(self) -> None:
        self._pop_to_mark()

    def _put(self, key: int | None) -> None:
        value = self._top()
        index = len(self._memo) if key is None else key
        if isinstance(value, Unfinished):
            value.memo_keys.append(index)
        self._memo[index] = value

    def _get(self, key: int) -> None:
        self._push(self._memo[key])

    # Containers

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Exotic):
            return
        if type(target) is not list:
            raise TypeError("items for what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Exotic):
            return
        if type(target) not in (dict, OrderedDict):
            raise TypeError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._plain.check_key(key)] = value

    def _add_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not set:
            raise TypeError("items for what is no set")
        target.update(map(self._plain.check_key, items))

    def _new_dict(self, items: list[Any]) -> None:
        self._push({})
        self._set_items(items)

    # Names and calls

    def _push_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push(self._find(module, name))

    def _push_stack_global(self) -> None:
        module, name = self._pop_many(2)
        if type(module) is not str or type(name) is not str:
            raise TypeError("a name that is no text")
        self._push(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        for old, new in _RENAMED.items():
            if module == old or module.startswith(old + "."):
                module = new + module[len(old) :]
        full = f"{module}.{name}"
        if full in self._names:
            return self._names[full]
        if module == "torch" or module.startswith("torch."):
            return self._note(Exotic(shorten_text(full, 80)))
        raise self._refuse_code(shorten_text(full, 80))

    def _note(self, value: Any) -> Any:
        if isinstance(value, Exotic) and self.exotic is None:
            self.exotic = value
        return value

    def _reduce(self) -> None:
        function, arguments = self._pop_many(2)
        if type(arguments) is not tuple:
            raise TypeError("a call without arguments")
        for part in (function, *arguments):
            if isinstance(part, Exotic):
                self._push(part)
                return
        if not isinstance(function, Call):
            raise self._refuse_code(f"a call of {describe(function)}")
        self._push(self._note(function.function(*arguments)))

    def _new_object(self, parts: int) -> None:
        kind = self._pop_many(parts)[0]
        if not isinstance(kind, Exotic):
            raise self._refuse_code(f"an object of {describe(kind)}")
        self._push(kind)

    def _build(self) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, Unfinished):
            value = self._stack[-1] = target.build(state)
            for key in target.memo_keys:
                self._memo[key] = value
        elif type(target) is not OrderedDict and not isinstance(target, Exotic):
            # An OrderedDict carries attributes where it is a module's state_dict.
            raise self._refuse_code(f"setting the state of {describe(target)}")

    def _refuse_code(self, what: str) -> CaptureError:
        return CaptureError(
            f"{self.name}: the pickle asks for {what}, which is code and not data; it was not "
            f"run. {EXPECTED.capitalize()}; {ANEW}"
        )


_OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": lambda m, _: m._mark(),
    "POP": lambda m, _: m._drop(),
    "POP_MARK": lambda m, _: m._drop_to_mark(),
    "DUP": lambda m, _: m._push(m._top()),
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._put,  # its argument is None
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "LIST": lambda m, _: m._push(m._pop_to_mark()),
    "TUPLE": lambda m, _: m._push(tuple(m._pop_to_mark())),
    "DICT": lambda m, _: m._new_dict(m._pop_to_mark()),
    "FROZENSET": lambda m, _: m._push(m._plain.make_frozenset(m._pop_to_mark())),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._pop_to_mark()),
    "SETITEM": lambda m, _: m._set_items(list(m._pop_many(2))),
    "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
    "ADDITEMS": lambda m, _: m._add_items(m._pop_to_mark()),
    "GLOBAL": Machine._push_global,
    "STACK_GLOBAL": lambda m, _: m._push_stack_global(),
    "REDUCE": lambda m, _: m._reduce(),
    "BUILD": lambda m, _: m._build(),
    "NEWOBJ": lambda m, _: m._new_object(2),
    "NEWOBJ_EX": lambda m, _: m._new_object(3),
    "BINPERSID": lambda m, _: m._push(m._load(m._pop())),
}
