"""Attention calls of a running model, one after the other -> captures of its layers."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from headgrid.capture.model import Capture
from headgrid.capture.store import save_capture
from headgrid.errors import HeadgridWarning, near_miss
from headgrid.errors import RecordError as RecordError
from headgrid.notebook import Card
from headgrid.recorder.captures import build_captures
from headgrid.recorder.layer import LayerRecord
from headgrid.recorder.options import RecordOptions, fits_layer, match_path
from headgrid.recorder.place.segments import Spans
from headgrid.recorder.read.call import AttentionCall, choose_batch
from headgrid.recorder.sum import shards
from headgrid.recorder.sum.masks import PlanCache
from headgrid.recorder.watch.intercept import Commit
from headgrid.recorder.watch.sites import (
    CallSite,
    find_site,
    has_context,
    hint_kind,
    module_path,
    sibling_paths,
    state_kind,
    unwrap,
)
from headgrid.recorder.watch.targets import find_missing
from headgrid.text import shorten_list

#: A model, the name of its class (a glob), or None for the only one that runs.
Model: TypeAlias = "torch.nn.Module | str | None"

#: Stands for the model where attention is called outside any module.
_NO_MODEL = torch.nn.Module()


class Recording(Card):
    """What a ``with headgrid.record(...)`` block has recorded, under these options."""

    def __init__(self, model: Model, options: RecordOptions) -> None:
        self.options = options
        self._model = unwrap(model) if isinstance(model, torch.nn.Module) else model
        self._root: torch.nn.Module | None = None
        self._layers: dict[str, list[LayerRecord]] = {}  # one for each run
        self._numbers: dict[str, int] = {}
        self._siblings: list[str] = []  # of the layer that was seen first
        self._kinds: dict[str, str] = {}
        self._turns: dict[str, int] = {}  # calls of each layer, those of both streams
        self._sites: dict[str, int] = {}
        self._latest: dict[int, Spans] = {}
        self._plans = PlanCache()
        self._lock = threading.RLock()
        self._generator = torch.Generator().manual_seed(options.seed)
        self._runs: list[list[Capture]] | None = None
        self._error: Exception | None = None

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
        its own (``run_000``). In a run over several processes that share one model, only the
        first process writes.
        """
        folder = Path(directory)
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
            if self._error is not None:
                return None
            try:
                return self._prepare(read)
            except Exception as error:
                self._error = error  # the model may go on as though nothing had happened
                raise

    def _prepare(self, read: Callable[[], AttentionCall]) -> Commit | None:
        site = find_site()
        root = self._find_root(site)
        if root is None:
            return None
        call = read()
        if call.query.is_meta:
            return None  # a run for shapes only
        path = self._name_site(root, site, call)
        kind = self._tell_kind(root, site, path, call)
        if kind != self.options.attention:
            queries, keys = int(call.query.shape[2]), int(call.key.shape[2])
            if kind == "self" and keys >= queries:  # cross-attention has its queries there
                self._latest[threading.get_ident()] = ((keys - queries, keys),)
            return None
        return self._prepare_layer(site, root, path, call)

    def _find_root(self, site: CallSite) -> torch.nn.Module | None:
        """Return the model that the call belongs to, or None if it is not the one recorded."""
        wanted = self._model
        if isinstance(wanted, torch.nn.Module):
            return wanted if any(part is wanted for part in site.modules) else None
        fits = [p for p in site.modules if wanted is None or match_path(type(p).__name__, wanted)]
        if wanted is not None and not fits:
            return None
        found = unwrap(fits[0]) if fits else _NO_MODEL
        if self._root is not None and found is not self._root:
            raise RecordError(
                f"attention runs in two models, {type(self._root).__name__} and "
                f"{type(found).__name__}; pass model= (a module, or its class name) to say which"
            )
        self._root = found
        return found

    def _name_site(self, root: torch.nn.Module, site: CallSite, call: AttentionCall) -> str:
        path = module_path(root, site.modules[-1]) if site.modules else site.place
        path = path or type(root).__name__
        name = f"{path} ({call.function} at {site.place})"
        self._sites[name] = self._sites.get(name, 0) + 1
        return path

    def _tell_kind(
        self, root: torch.nn.Module, site: CallSite, path: str, call: AttentionCall
    ) -> str:
        """Tell self- from cross-attention: by option, module, then by keys."""
        if self.options.names_exactly(path):
            return self.options.attention
        stated = state_kind(site)
        if stated is not None:
            return stated
        hint = hint_kind(root, site)
        queries, keys = call.query.shape[2], call.key.shape[2]
        known = self._kinds.get(path)
        # A name is no proof: "cross" may be across frames, and "attn2" may have no context.
        told = known != "self" and (keys != queries or has_context(site))
        if hint == "self" or (hint == "cross" and told):
            return hint
        if keys == queries:
            return self._kinds.setdefault(path, "self")
        if known == "self" and keys < queries:
            raise RecordError(
                f"{path} has computed self-attention, and now {queries} query and {keys} key "
                "tokens: it computes both self- and cross-attention, which cannot be told apart "
                "by module; name the function of one of them in functions=, or record its parent"
            )
        if known is not None or keys < queries:
            return self._kinds.setdefault(path, "cross")
        if self.options.names(path) or self.options.shard is not None:
            return self.options.attention
        raise RecordError(
            f"{path} ({type(site.modules[-1]).__name__ if site.modules else call.function}) has "
            f"{queries} query and {keys} key tokens, which may be a cache or cross-attention, and "
            f"its name does not say; pass layers='{path}' (or a glob) to name what to record"
        )

    def _prepare_layer(
        self, site: CallSite, root: torch.nn.Module, path: str, call: AttentionCall
    ) -> Commit | None:
        number = self._number_layer(root, path)
        turn = self._turns[path] = self._turns.get(path, -1) + 1
        stream = self.options.stream
        if not self.options.wants(number, path) or stream not in (None, turn % 2):
            return None
        facts = {"model_class": type(root).__name__}
        fresh = LayerRecord(number, path, self.options, self._plans, self._generator, facts)
        runs = self._layers.setdefault(path, [fresh])
        chosen = choose_batch(call, self.options.batch)
        last = self._latest.get(threading.get_ident())
        places = runs[-1].find_places(chosen, site, last)
        if runs[-1].begins_again(places):
            runs.append(fresh)
        commit = runs[-1].prepare(chosen, site, places)

        def enter() -> None:
            with self._lock:
                commit()

        return enter

    def _number_layer(self, root: torch.nn.Module, path: str) -> int:
        """Return a layer's place among its siblings, as long as only these are seen."""
        if path not in self._numbers:
            if not self._numbers:
                self._siblings = sibling_paths(root, path)
            alone = path in self._siblings and self._numbers.keys() <= set(self._siblings)
            after = max(self._numbers.values(), default=-1) + 1
            self._numbers[path] = self._siblings.index(path) if alone else after
        return self._numbers[path]

    def _warn_of_unseen(self) -> None:
        unseen = [path for path in self._siblings if path not in self._numbers]
        if unseen and self.options.layers is None:
            warnings.warn(
                f"{len(unseen)} of {len(self._siblings)} layers were not seen and have no capture: "
                f"{shorten_list(unseen)}; pass functions= to name the function that they call",
                HeadgridWarning,
                stacklevel=4,
            )

    def finish(self) -> None:
        """Turn what was recorded into captures; called when the block ends.

        Raises
        ------
        RecordError
            Where nothing was recorded, frames are missing, or a cache changed.
        """
        if self._error is not None:
            raise self._error
        ran = [[layer for layer in runs if layer.calls] for runs in self._layers.values()]
        runs = [[layer for layer in run if layer] for run in itertools.zip_longest(*ran)]
        self._check_found(runs[0] if runs else [])
        self._warn_of_unseen()
        self._runs = []
        for run in runs:
            layers = sorted(run, key=lambda layer: layer.number)
            captures = build_captures(layers, self.options, self._list_sites())
            if len(runs) > 1:
                name = f"run_{len(self._runs):03d}"
                captures = [c.replace(run=f"{name}_{c.run}".strip("_")) for c in captures]
            self._runs.append(captures)
        # Nothing is kept that refers to the model and its tensors.
        self._layers.clear()
        self._latest.clear()
        self._plans.clear()
        self._model = self._root = None

    def _list_sites(self) -> str:
        """Return the attention calls that were seen, for the end of a message."""
        counted = [f"{site} x{times}" for site, times in self._sites.items()]
        return f"attention calls seen: {shorten_list(counted)}"

    def _check_found(self, layers: list[LayerRecord]) -> None:
        seen = self._list_sites()
        missing = find_missing(self.options.functions)
        if missing:
            raise RecordError(
                f"functions names {', '.join(missing)}, but no module that was loaded has it; "
                f"expected the path under which the model's code defines it; {seen}"
            )
        if not self._sites:
            name = self._model if isinstance(self._model, str) else type(self._model).__name__
            where = "in the block" if self._model is None else f"inside {name}"
            raise RecordError(
                f"no attention call was seen {where}: the model was not run, has no attention, or "
                "calls a function that headgrid does not know; pass functions={'package.module."
                "attention': 'heads_last'} to name it"
            )
        if not self._numbers:
            raise RecordError(
                f"no {self.options.attention}-attention was seen; {seen}; pass attention= "
                "'self' or 'cross', or layers= with a glob of module paths"
            )
        for wanted in self.options.layers or ():
            if any(fits_layer(wanted, layer.number, layer.path) for layer in layers):
                continue
            names = list(self._numbers)
            raise RecordError(
                f"layers={wanted!r} matches none of the {len(names)} layers with "
                f"{self.options.attention}-attention (0 to {len(names) - 1}: {names[0]} ... "
                f"{names[-1]}){near_miss(str(wanted), names)}; {seen}"
            )
