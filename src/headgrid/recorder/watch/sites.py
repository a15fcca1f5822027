"""The running Python stack -> which module of which model is computing attention.

The stack is read at the moment of an attention call and only then, so nothing is
registered on the model, threads cannot mix, and nothing can be left behind.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import types
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

CALL_CODE = torch.nn.Module._call_impl.__code__
_CROSS = re.compile(r"cross|attn_?2$|enc(oder)?_?dec(oder)?|encoder_attn|multihead_attn", re.I)
_CONTEXT = re.compile(r"context|ctx|encoder|memory|cond|key_value|^kv", re.I)
_SELF = re.compile(r"self|attn_?1$", re.I)
_NUMBER = re.compile(r"(?<!\d)(?<!attn)(?<!attn_)(?<!attention)\d+")
_KERNEL = re.compile(r"att(ention|n)|sage|flash", re.I)
_POSITION = re.compile(
    r"(^|_)(start|offset|pos|positions?)(_|$)|(frame|chunk|clip|segment)_?(idx|index)$"
)
OWN_CODE = str(Path(__file__).parent.parent)
_DYNAMO = "torch/_dynamo"
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True)
class CallSite:
    """Where an attention call comes from.

    The modules whose forward is running, outermost first, the arguments that each was called
    with, by name, and the line of Python that calls the attention function.
    """

    modules: tuple[torch.nn.Module, ...]
    arguments: tuple[Mapping[str, Any], ...] = field(repr=False)
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """``file.py:12``."""
        return f"{self.file.rpartition(os.sep)[2]}:{self.line}"

    def argument(self, name: str) -> Any:
        """Return an argument of the innermost running module that has it, or None."""
        return next((given[name] for given in reversed(self.arguments) if name in given), None)

    def positions(self) -> dict[str, int]:
        """Return the arguments that say where tokens lie (``current_start``), as far as known."""
        found: dict[str, int] = {}
        for arguments in self.arguments:
            for name, value in arguments.items():
                if not _names_position(name):
                    continue
                if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.numel():
                    value = value[(0,) * value.ndim].item()  # a GPU would have to be waited for
                if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                    found[name] = int(value)
        return found


@lru_cache
def _names_position(name: str) -> bool:
    return "step" not in name and _POSITION.search(name) is not None


def find_site() -> CallSite:
    """Return the site of the attention call that is running in this thread."""
    modules: list[torch.nn.Module] = []
    arguments: list[Mapping[str, Any]] = []
    file, line = "", 0
    frame: Any = sys._getframe(1)
    while frame is not None:
        code, found = frame.f_code, _module_of(frame)
        if found is not None:
            module, given = found
            if not modules or modules[0] is not module:
                modules.insert(0, module)
                arguments.insert(0, given)
            elif code is CALL_CODE:
                arguments[0] = given
        ours = code is CALL_CODE or code.co_filename.startswith(OWN_CODE)
        if not file and not ours and _DYNAMO not in code.co_filename:
            file, line = code.co_filename, frame.f_lineno
        frame = frame.f_back
    return CallSite(tuple(modules), tuple(arguments), file, line)


def _module_of(frame: Any) -> tuple[torch.nn.Module, Mapping[str, Any]] | None:
    """Return the module that a frame calls and its arguments; ``model.forward(x)`` counts too."""
    code = frame.f_code
    if code is CALL_CODE:
        module, given = frame.f_locals["self"], frame.f_locals
        forward = module.forward
        inner = inspect.unwrap(forward)  # decorators keep the arguments
        bound = inner is not forward or isinstance(inner, types.MethodType)
        own = getattr(inner, "__code__", None)
        names = () if own is None else own.co_varnames[int(bound) : own.co_argcount]
        positional = dict(zip(names, given.get("args") or (), strict=False))
        return module, positional | (given.get("kwargs") or {})
    if code.co_name != "forward" or code.co_varnames[:1] != ("self",):
        return None
    # Looking at a frame's variables keeps them alive, so it is done where it must be.
    callers = frame.f_back, getattr(frame.f_back, "f_back", None)
    if any(caller is not None and caller.f_code is CALL_CODE for caller in callers):
        return None
    module = frame.f_locals.get("self")
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
    return (module, given) if isinstance(module, torch.nn.Module) else None


#: Those of all modules of a model, by id; and of modules in no part of it.
PATHS: weakref.WeakKeyDictionary[torch.nn.Module, dict[int, str]] = weakref.WeakKeyDictionary()
_STRAYS: weakref.WeakKeyDictionary[torch.nn.Module, Any] = weakref.WeakKeyDictionary()


def module_path(root: torch.nn.Module, module: torch.nn.Module) -> str:
    """Return the dotted path of a module inside a model, without compile, DDP, FSDP wrappers."""
    known = PATHS.get(root)
    if known is None or (id(module) not in known and module not in _STRAYS.get(root, ())):
        known = PATHS[root] = {
            id(part): ".".join(word for word in name.split(".") if word not in _WRAPPERS)
            for name, part in root.named_modules()
        }
    if id(module) in known:
        return known[id(module)]
    names = _STRAYS.setdefault(root, weakref.WeakKeyDictionary())  # in a plain list, say
    free = (f"{type(module).__name__}.{n}" for n in count())
    return str(names.setdefault(module, next(one for one in free if one not in names.values())))


def sibling_paths(root: torch.nn.Module, path: str) -> list[str]:
    """Return the module paths that differ from this one in their numbers only, in order.

    Those of ``attn1`` and ``attn2`` are names.
    """
    numbered = re.compile(r"\d+".join(map(re.escape, _NUMBER.split(path))))
    module_path(root, root)
    return [other for other in dict.fromkeys(PATHS[root].values()) if numbered.fullmatch(other)]


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside a torch.compile wrapper."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, torch.nn.Module) else model


def state_kind(site: CallSite) -> str | None:
    """Return what the module or its caller states that the attention is: "self" or "cross"."""
    stated = [getattr(part, "is_cross_attention", None) for part in site.modules[-2:]]
    found = [word for word in stated if isinstance(word, bool)]
    return None if not found else "cross" if found[-1] else "self"


def has_context(site: CallSite) -> bool:
    """Return whether the module was given the tokens of a second sequence."""
    values = site.arguments[-1].values() if site.arguments else ()
    return len({id(v) for v in values if isinstance(v, torch.Tensor) and v.ndim == 3}) > 1


def context_name(site: CallSite, tokens: int) -> str:
    """Return the argument of the module that may be another sequence of so many tokens, or ""."""
    given = site.arguments[-1] if site.arguments else {}
    sequences = {n: v for n, v in given.items() if isinstance(v, torch.Tensor) and v.ndim == 3}
    first = next(iter(sequences.values()), None)
    fitting = (n for n, v in sequences.items() if v is not first and v.shape[1] == tokens)
    return next((name for name in fitting if _CONTEXT.search(name)), "")


def hint_kind(root: torch.nn.Module, site: CallSite) -> str | None:
    """Return what the names of the module and its caller say: "self", "cross" or nothing."""
    nearest = [part for part in site.modules[-2:] if part is not root]
    words = [type(part).__name__ for part in nearest]
    for part in nearest:
        words += [word for word in module_path(root, part).split(".")[-2:] if not word.isdigit()]
    for pattern, kind in ((_CROSS, "cross"), (_SELF, "self")):
        if any(pattern.search(word) for word in words):
            return kind
    return None


def name_kernel(module: torch.nn.Module) -> str:
    """Return the path of an attention function that a module's own code names, or nothing."""
    for function in vars(type(module)).values():
        code = getattr(function, "__code__", None)
        for name in () if code is None else code.co_names:
            found = function.__globals__.get(name)
            if _KERNEL.search(name) and callable(found) and not isinstance(found, type):
                return f"{getattr(found, '__module__', None) or function.__module__}.{name}"
    return ""
