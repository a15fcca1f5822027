"""Attention functions -> the same functions, watched, wherever they are bound; and back.

While a recorder is open, every reference to an attention function that Python
can reach (module globals, also of modules that imported it by name; classes,
instances, registries, closures) leads to a stand-in with the same behaviour. When
the last recorder closes, every reference to a stand-in leads back.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.read.call import AttentionCall, check_call
from headgrid.recorder.read.readers import Reader
from headgrid.recorder.watch.sites import PATHS
from headgrid.recorder.watch.targets import Target, find_named, find_targets, touches_target

Commit = Callable[[], None]

#: Looks at a call before it runs; returns what to do when it has run.
Observer = Callable[[Callable[[], AttentionCall]], Commit | None]

#: With the functions that each has named, and by the id of those that are there, how it reads them.
_observers: list[tuple[Observer, Mapping[str, Reader], dict[int, Reader]]] = []
_lock = threading.RLock()
_local = threading.local()


def _run(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the original; the outermost attention function of a thread is shown to observers."""
    if not _observers or getattr(_local, "inside", False) or _is_replay():
        return target.original(*args, **kwargs)
    _local.inside = True
    try:
        with _undisturbed():
            prepared = []
            for observe, _, own in tuple(_observers):
                reader = own.get(id(target.original), target.reader)
                prepared.append(observe(functools.partial(_read, target, reader, args, kwargs)))
        result = target.original(*args, **kwargs)
        with _undisturbed():
            for commit in prepared:
                if commit is not None:
                    commit()
        return result
    finally:
        _local.inside = False


def _is_replay() -> bool:
    """Return whether this is a recomputation in backward (checkpointing), or a trace."""
    if torch._C._current_graph_task_id() != -1:
        return True
    compiling = getattr(torch.compiler, "is_compiling", None)  # since torch 2.3
    return bool((compiling is not None and compiling()) or torch.jit.is_tracing())


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Run recorder arithmetic outside autograd, autocast and inference mode."""
    with torch.inference_mode(False), torch.no_grad(), torch._C._DisableAutocast():
        yield


def _read(
    target: Target, reader: Reader, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AttentionCall:
    """Read the arguments of a call."""
    try:
        call = reader(*args, **kwargs)
    except (TypeError, AttributeError, IndexError) as error:
        raise RecordError(
            f"{target.name}: its arguments do not fit the reader "
            f"({str(error).splitlines()[0].rpartition('() ')[2]}); pass functions="
            f"{{{target.name!r}: reader}} with a reader that fits this version"
        ) from error
    if not isinstance(call, AttentionCall):
        raise RecordError(
            f"{target.name}: its reader returned {type(call).__name__}, expected a "
            "headgrid.recorder.AttentionCall"
        )
    return check_call(call)


class _WatchedBuiltin:
    """Stand-in of a builtin: like a builtin, it does not bind to instances."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.__name__ = str(getattr(target.original, "__name__", "attention"))
        self.__doc__ = target.original.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _run(self._target, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_target":
            raise AttributeError(name)
        return getattr(self._target.original, name)


def _watch(target: Target) -> Callable[..., Any]:
    if not isinstance(target.original, types.FunctionType):
        return _WatchedBuiltin(target)

    def watched(*args: Any, **kwargs: Any) -> Any:
        return _run(target, args, kwargs)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(watched, name, getattr(target.original, name))
    return watched


class ImportWatcher(MetaPathFinder):
    """Gives notice of every module that is imported while it is in `sys.meta_path`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that gives notice."""
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._hook(spec.loader)
        return spec

    def _hook(self, loader: Any) -> None:
        """Let one loader give notice once, after it has run the module."""
        execute = getattr(loader, "exec_module", None)
        if execute is None or isinstance(loader, type) or "exec_module" in vars(loader):
            return

        def execute_and_notify(module: ModuleType) -> None:
            with contextlib.suppress(AttributeError):
                del loader.exec_module
            execute(module)
            _patches.after_import(module)

        with contextlib.suppress(AttributeError):
            loader.exec_module = execute_and_notify


def _rebind(changes: Sequence[tuple[Any, Any]], *, tables: bool = False) -> list[Any]:
    """Let every reference to an old object lead to its new one, as the garbage collector sees it.

    References in local variables of running functions, in tuples and behind
    slots cannot be changed, and are left alone. Returns what refers to the objects.
    """
    new = {id(old): fresh for old, fresh in changes}
    olds = [old for old, _ in changes]
    referrers = [one for one in gc.get_referrers(*olds) if one is not olds] if olds else []
    for referrer in referrers:
        _rebind_referrer(referrer, new)
        if tables:
            _rebind_keys(referrer, new)
    return referrers


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
    put = referrer.__setitem__ if owner is None else functools.partial(setattr, owner)
    for name in names:
        put(name, new[id(referrer[name])])


def _rebind_static(held: Any, new: Mapping[int, Any]) -> None:
    """Give the classes that hold a static method another one; it cannot be changed itself."""
    function = held.__func__
    of_class = isinstance(function, types.BuiltinFunctionType) and "." in function.__qualname__
    if id(function) in new and not of_class:  # a class of C cannot be changed
        fresh = {id(held): staticmethod(new[id(function)])}
        for namespace in [one for one in gc.get_referrers(held) if isinstance(one, dict)]:
            _rebind_dict(namespace, fresh)


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
    return isinstance(owner, type) and any(one is namespace for one in gc.get_referents(owner))


class _Patches:
    """The stand-ins that are in place now."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Target, Any]] = []
        self.counts: list[int] = []  # references to each stand-in before it was put in place
        self.referrers: list[Any] = []
        self.stance: contextlib.AbstractContextManager[Any] | None = None

    def install(self) -> None:
        """Watch every attention function that is loaded and not watched yet."""
        known = {id(item) for target, new in self.pairs for item in (target.original, new)}
        readers = {path: reader for _, extra, _ in _observers for path, reader in extra.items()}
        fresh = [target for target in find_targets(readers) if id(target.original) not in known]
        pairs = [(target, _watch(target)) for target in fresh]
        self.pairs += pairs
        self.counts += [sys.getrefcount(stand_in) for _, stand_in in pairs]
        self.referrers += _rebind([(target.original, stand_in) for target, stand_in in pairs])
        for target, stand_in in pairs:
            name = target.name.rpartition(".")[2]
            if target.owner is not None and getattr(target.owner, name) is not stand_in:
                setattr(target.owner, name, stand_in)
        originals = {id(stand_in): target.original for target, stand_in in self.pairs}
        for _, extra, own in _observers:
            for found in find_named(extra):
                own[id(originals.get(id(found.original), found.original))] = found.reader
        loaded = sys.modules.get("torch._dynamo")
        set_stance = getattr(torch.compiler, "set_stance", None)
        if self.stance is None and set_stance is not None and hasattr(loaded, "eval_frame"):
            self.stance = set_stance("force_eager")  # compiled models
            self.stance.__enter__()

    def remove(self) -> None:
        """Put every original back."""
        back = {id(stand_in): target.original for target, stand_in in self.pairs}
        for referrer in self.referrers:
            _rebind_referrer(referrer, back)
        self.referrers.clear()
        counted = [sys.getrefcount(stand_in) for _, stand_in in self.pairs]
        if any(now > before for now, before in zip(counted, self.counts, strict=True)):
            # Something has come to refer to stand-ins while they were there.
            _rebind([(stand_in, target.original) for target, stand_in in self.pairs], tables=True)
        self.pairs.clear()
        self.counts.clear()
        if self.stance is not None:
            self.stance.__exit__(None, None, None)
            self.stance = None

    def after_import(self, module: ModuleType) -> None:
        """Watch the attention functions of a module that was just imported."""
        with _lock:
            name = module.__name__
            asked = [path for _, extra, _ in _observers for path in extra]
            if _observers and (name == "torch._dynamo" or touches_target(name, module, asked)):
                self.install()


_patches, _watcher = _Patches(), ImportWatcher()


@contextlib.contextmanager
def observe(observer: Observer, extra: Mapping[str, Reader]) -> Iterator[None]:
    """Show every attention call to an observer while the block runs."""
    opened = (observer, extra, dict[int, Reader]())
    with _lock:
        PATHS.clear()  # models may have changed since the last recording
        _observers.append(opened)
        if len(_observers) == 1:
            sys.meta_path.insert(0, _watcher)
    try:
        with _lock:
            _patches.install()
        yield
    finally:
        with _lock:
            _observers.remove(opened)
            if not _observers:
                sys.meta_path.remove(_watcher)
                _patches.remove()
