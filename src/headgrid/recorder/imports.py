"""Imports that happen while recording -> a notice after each, so that late libraries are seen."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportWatcher(MetaPathFinder):
    """Calls a function after every module that is imported between `start` and `stop`.

    Parameters
    ----------
    notify : callable
        Gets the module's name and the module.
    """

    def __init__(self, notify: Callable[[str, ModuleType], None]) -> None:
        self._notify = notify
        self._busy = threading.local()

    def start(self) -> None:
        """Begin to watch."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Stop watching; no trace is left in `sys.meta_path`."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that gives notice."""
        if getattr(self._busy, "on", False):
            return None
        self._busy.on = True
        try:
            spec = self._ask_others(fullname, path, target)
        finally:
            self._busy.on = False
        if spec is not None and spec.loader is not None:
            self._hook(spec.loader)
        return spec

    def _ask_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find: Any = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def _hook(self, loader: Any) -> None:
        """Let one loader give notice once, after it has run the module."""
        execute = getattr(loader, "exec_module", None)
        if execute is None or isinstance(loader, type) or "exec_module" in vars(loader):
            return

        def execute_and_notify(module: ModuleType) -> None:
            with contextlib.suppress(AttributeError):
                del loader.exec_module
            execute(module)
            self._notify(module.__name__, module)

        with contextlib.suppress(AttributeError):
            loader.exec_module = execute_and_notify
