"""A ``with`` block in which models run -> the captures of the one that is recorded."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from headgrid.capture.model import Capture
from headgrid.capture.store import save_capture
from headgrid.errors import HeadgridWarning
from headgrid.errors import RecordError as RecordError
from headgrid.notebook import Card
from headgrid.recorder.model import ModelRecord, explain_unknown
from headgrid.recorder.options import MisfitError, RecordOptions, UnknownLayerError, match_path
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum import shards
from headgrid.recorder.watch.intercept import Commit
from headgrid.recorder.watch.sites import CallSite, find_site, unwrap
from headgrid.recorder.watch.targets import find_missing
from headgrid.text import count_noun

#: A model, a module that holds it, the name of its class (a glob), or None for whichever runs.
Model: TypeAlias = "torch.nn.Module | str | None"

#: Stands for the model where attention is called outside any module.
_NO_MODEL = torch.nn.Module()


class Recording(Card):
    """What a ``with headgrid.record(...)`` block has recorded, under these options."""

    def __init__(self, model: Model, options: RecordOptions) -> None:
        self.options = options
        name, _, place = model.partition(":") if isinstance(model, str) else ("", "", "")
        self._model = unwrap(model) if isinstance(model, torch.nn.Module) else name or model
        self._place = int(place) if place.isdigit() else None  # among the models of a class
        self._models: list[ModelRecord] = []
        self._lock = threading.RLock()
        self._runs: list[list[Capture]] | None = None

    def __repr__(self) -> str:
        found = self.finished
        state = "open" if found is None else f"{len(found)} captures"
        return (
            f"<Recording of {self.options.attention}-attention {self.options.statistic}: {state}>"
        )

    @property
    def finished(self) -> tuple[Capture, ...] | None:
        """The captures of all runs, or None while there are none."""
        return None if self._runs is None else tuple(c for run in self._runs for c in run)

    @property
    def runs(self) -> list[list[Capture]]:
        """The captures of each run of the model: a run begins where the first block comes again.

        Raises
        ------
        RecordError
            Before the ``with`` block has ended without an exception.
        """
        if self._runs is None:
            raise RecordError(
                "this recording has no captures: its with block has not ended, or ended with an "
                "exception; use recording.captures after the block"
            )
        return self._runs

    @property
    def captures(self) -> list[Capture]:
        """One capture a layer (a layer, forward and batch element, where all are kept).

        Raises
        ------
        RecordError
            Before the ``with`` block has ended without an exception, and where the model has
            run more than once.
        """
        if len(self.runs) > 1:
            raise RecordError(
                f"{len(self.runs)} runs were recorded, as the first block came again after later "
                "ones (several prompts?); use recording.runs, or a recording for each prompt"
            )
        return self.runs[0]

    def save(self, directory: str | Path) -> list[Path]:
        """Write ``layer{L}.pt`` for every capture and return the paths.

        Where several runs, forwards or batch elements were kept, each has a folder of
        its own (``run_000``). Of several processes that share one model (``shard``), only the
        first writes; those that do not share it have each a folder of its own (``rank_0``).

        Raises
        ------
        RecordError
            Before the ``with`` block has ended without an exception.
        """
        return self.write(Path(directory) / shards.name_folder(self.options.shard))

    def write(self, folder: Path) -> list[Path]:
        """Write the captures into a folder that no other process writes into."""
        if self.options.shard is not None and shards.rank() != 0:
            return []
        paths = []
        for capture in (capture for run in self.runs for capture in run):
            path = folder / capture.run / f"layer{capture.layer_index}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_capture(capture, path)
            paths.append(path)
        return paths

    def prepare(self, read: Callable[[], AttentionCall]) -> Commit | None:
        """Look at one attention call before it runs; called by the interceptor."""
        with self._lock:
            site = find_site()
            root = self._find_root(site)
            if root is None:
                return None
            record = next((one for one in self._models if one.root() is root), None)
            if record is None:
                record = ModelRecord(root, self.options)
                self._models.append(record)
            commit = self._guard(record, lambda: record.prepare(root, site, read))
        return None if commit is None else partial(self._guard, record, commit)

    def _guard(self, record: ModelRecord, step: Callable[[], Any]) -> Any:
        """Take a step unless the model has failed; the first error is kept for the end.

        It is raised at once where the model is given, or states its frames: it is the one meant.
        """
        with self._lock:
            if record.error is not None:  # and the model goes on as though nothing had happened
                if record.was_raised:
                    text = f"nothing more is recorded, as an error was caught: {record.error}"
                    warnings.warn(text, HeadgridWarning, stacklevel=2)
                record.was_raised = False
                return None
            try:
                return step()
            except Exception as error:
                record.error = error
                only = isinstance(self._model, str) and self._place is None
                given = only or record.root() is self._model
                unknown = isinstance(error, UnknownLayerError)
                if given or (record.states_frames and not unknown):
                    record.was_raised = True
                    raise
                if unknown:
                    self._check_globs()
                return None

    def _check_globs(self) -> None:
        """Raise where ``layers`` has a glob that fits no module of any model there is."""
        found = [part for part in gc.get_objects() if issubclass(type(part), torch.nn.Module)]
        names = {name for part in found for name, _ in part.named_modules()}
        for wanted in self.options.unknown_globs(names):
            largest = max(found, key=lambda part: sum(1 for _ in part.modules()))
            paths = [name for name, _ in largest.named_modules()]
            raise UnknownLayerError(explain_unknown(wanted, paths, type(largest).__name__))

    def _find_root(self, site: CallSite) -> torch.nn.Module | None:
        """Return the model that the call belongs to, or None if it is not one to record."""
        wanted, running = self._model, site.modules
        if isinstance(wanted, torch.nn.Module):
            if any(part is wanted for part in running):
                return wanted
            inside = bool(running) and any(part is running[0] for part in wanted.modules())
            return unwrap(running[0]) if inside else None
        fits = [p for p in running if wanted is None or match_path(type(p).__name__, wanted)]
        if fits:
            return unwrap(fits[0])
        return _NO_MODEL if wanted is None else None

    def finish(self, *, ended: bool = True) -> None:
        """Turn what was recorded into captures; called when the block ends.

        Where it ended with an exception, without the run that was under way.

        Raises
        ------
        RecordError
            Where nothing was recorded, frames are missing, or a cache changed.
        """
        record = self._choose()
        left = [other for other in self._models if other is not record]
        others = [f"{other.name} ({count_noun(other.size, 'layer')})" for other in left]
        self._runs = record.finish(others, ended=ended)
        self.options = record.options
        # Nothing is kept that refers to the model and its tensors.
        self._models.clear()
        self._model = None

    def _choose(self) -> ModelRecord:
        """Return the model that is named, or the one that states its frames, or has most layers."""
        self._check_seen()
        if self._place is not None and self._place >= len(self._models):
            raise RecordError(
                f"model is '{self._model}:{self._place}', but {len(self._models)} of this class "
                "ran, counted from 0"
            )
        ranked = sorted(self._models, key=_rank)
        best = ranked[-1] if self._place is None else self._models[self._place]
        if self._place is None and len(ranked) > 1 and _rank(ranked[-2]) == _rank(best):
            raise RecordError(
                f"attention runs in two models, {ranked[-2].name} and {best.name}; "
                "pass model= (a module, or its class name; of two of a class, in order of their "
                f"first calls, model='{best.name}:0' or model='{best.name}:1') to say which"
            ) from ranked[-2].error or best.error
        if best.error is None and not best.numbers:
            raise RecordError(
                f"no {self.options.attention}-attention was seen; {self._list_sites()}; pass "
                "attention='self' or 'cross', or layers= with a glob of module paths"
            )
        return best

    def _list_sites(self) -> str:
        return "; ".join(record.list_sites() for record in self._models if record.sites)

    def _check_seen(self) -> None:
        """Raise where no call was seen, or not the function that was named."""
        missing = find_missing(self.options.functions)
        if missing:
            raise RecordError(
                f"functions names {', '.join(missing)}, but no module that was loaded has it; "
                "expected the path under which the model's code defines it; " + self._list_sites()
            )
        if not any(record.sites or record.error for record in self._models):
            name = self._model if isinstance(self._model, str) else type(self._model).__name__
            where = "in the block" if self._model is None else f"inside {name}"
            raise RecordError(
                f"no attention call was seen {where}: the model was not run, has no attention, or "
                "calls a function that headgrid does not know; pass functions={'package.module."
                "attention': 'heads_last'} to name it"
            )


def _rank(record: ModelRecord) -> tuple[bool, bool, bool, int]:
    """Return how likely a model is the one that is meant."""
    error = record.error
    named = bool(record.numbers or error) and not isinstance(error, UnknownLayerError)
    fits = named and not isinstance(error, MisfitError)
    return named, record.states_frames, fits, record.size
