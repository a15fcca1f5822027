"""Old objects and new ones -> every reference that Python can reach leads to the new.

The garbage collector knows who refers to an object. That covers names in
modules that imported a function long ago, registries, instances and closures.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any


def rebind(changes: Iterable[tuple[Any, Any]], *, tables: bool = False) -> None:
    """Let every reference to an old object lead to its new one.

    References in local variables of running functions, in tuples and behind
    slots cannot be changed, and are left alone.
    """
    new = dict[int, Any]()
    olds = list[Any]()
    for old, fresh in changes:
        new[id(old)] = fresh
        olds.append(old)
    for referrer in gc.get_referrers(*olds) if olds else ():
        if referrer is olds or referrer is new:
            continue
        _rebind_referrer(referrer, new)
        if tables:
            _rebind_keys(referrer, new)


def _rebind_keys(referrer: Any, new: Mapping[int, Any]) -> None:
    if isinstance(referrer, dict):
        for key in [key for key in list(referrer) if id(key) in new]:
            referrer[new[id(key)]] = referrer.pop(key)
    elif isinstance(referrer, set):
        for item in [item for item in list(referrer) if id(item) in new]:
            referrer.remove(item)
            referrer.add(new[id(item)])


def _rebind_referrer(referrer: Any, new: Mapping[int, Any]) -> None:
    if isinstance(referrer, dict):
        _rebind_dict(referrer, new)
    elif isinstance(referrer, types.CellType):
        referrer.cell_contents = new.get(id(referrer.cell_contents), referrer.cell_contents)
    elif isinstance(referrer, functools.partial):
        if id(referrer.func) in new:
            state = (new[id(referrer.func)], referrer.args, referrer.keywords, vars(referrer))
            referrer.__setstate__(state)  # type: ignore[attr-defined]
    elif isinstance(referrer, staticmethod):
        _rebind_static(referrer, new)
    elif isinstance(getattr(referrer, "__dict__", None), dict):
        _rebind_dict(vars(referrer), new)


def _rebind_dict(referrer: dict[Any, Any], new: Mapping[int, Any]) -> None:
    names = [name for name, value in list(referrer.items()) if id(value) in new]
    owner = _class_of(referrer) if names else None
    for name in names:
        if owner is None:
            referrer[name] = new[id(referrer[name])]
        else:
            setattr(owner, name, new[id(referrer[name])])


def _rebind_static(held: Any, new: Mapping[int, Any]) -> None:
    """Give the classes that hold a static method another one; it cannot be changed itself."""
    if id(held.__func__) not in new:
        return
    fresh = new[id(held.__func__)]
    for namespace in gc.get_referrers(held):
        owner = _class_of(namespace) if isinstance(namespace, dict) else None
        if owner is None:
            continue
        for name in [name for name, value in list(namespace.items()) if value is held]:
            setattr(owner, name, staticmethod(fresh))


def _class_of(namespace: dict[Any, Any]) -> type | None:
    """Return the class whose namespace this is: classes must be changed by `setattr`."""
    if "__module__" not in namespace or "__name__" in namespace:
        return None
    module = sys.modules.get(str(namespace["__module__"]))
    near = [] if module is None else list(vars(module).values())
    found = [owner for owner in near if _owns(owner, namespace)]  # most are names of their module
    found = found or [owner for owner in gc.get_referrers(namespace) if _owns(owner, namespace)]
    return found[0] if found else None


def _owns(owner: Any, namespace: dict[Any, Any]) -> bool:
    if not isinstance(owner, type) or len(owner.__dict__) != len(namespace):
        return False
    return all(owner.__dict__.get(name) is value for name, value in namespace.items())
