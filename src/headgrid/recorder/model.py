"""Attention calls of one model, one after the other -> the records of its layers, run by run."""

from __future__ import annotations

import re
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from headgrid.capture.model import Capture
from headgrid.errors import HeadgridWarning, OptionError, RecordError, near_miss
from headgrid.recorder.captures import build_captures
from headgrid.recorder.layer import LayerRecord, name_frames
from headgrid.recorder.options import (
    MisfitError,
    RecordOptions,
    UnknownLayerError,
    fits_layer,
)
from headgrid.recorder.place.positions import Counted
from headgrid.recorder.place.segments import Segments, Spans
from headgrid.recorder.read.call import AttentionCall, choose_batch
from headgrid.recorder.sum.masks import PlanCache
from headgrid.recorder.watch.sites import (
    CallSite,
    context_name,
    has_context,
    hint_kind,
    module_path,
    name_kernel,
    sibling_paths,
    state_kind,
)
from headgrid.recorder.watch.statements import find_frame_size, find_prompt, find_time
from headgrid.text import count_noun, shorten_list


class NoFramesError(MisfitError, OptionError):
    """Neither the options nor the model say what a frame is."""


class ModelRecord:
    """What was recorded of one model, which is not kept alive for it."""

    def __init__(self, root: torch.nn.Module, options: RecordOptions) -> None:
        self.root = weakref.ref(root)
        self.name = type(root).__name__
        self.options = options
        self.error: Exception | None = None
        self.was_raised = False  # so that a call after it says that a script caught it
        self.states_frames = False
        self.sites: dict[str, int] = {}
        self._size = 0
        self._facts: dict[str, Any] = {"model_class": self.name, "frames_stated": "none"}
        self._layers: dict[tuple[str, int], dict[int, LayerRecord]] = {}  # by stream; then by run
        self._run = 0  # the one under way
        self.numbers: dict[str, int] = {}  # of the layers that were seen, by path
        self._siblings: list[str] = []  # of the layer that was seen first
        self._kinds: dict[str, str] = {}
        self._turns: dict[str, int] = {}  # calls of each layer, those of both streams
        self._forwards: list[tuple[Any, Any]] = []  # of the first layer, to pair streams
        self._latest: dict[int, Spans] = {}
        self._plans = PlanCache()
        self._generator = torch.Generator().manual_seed(options.seed)

    def prepare(
        self, root: torch.nn.Module, site: CallSite, read: Callable[[], AttentionCall]
    ) -> Callable[[], None] | None:
        """Look at one attention call of the model before it runs; return what enters it."""
        call = read()
        if call.query.is_meta:
            return None  # a run for shapes only
        path = module_path(root, site.modules[-1]) if site.modules else site.place
        path = path or self.name
        name = f"{path} ({call.function} at {site.place})"
        if name not in self.sites:
            self._size = max(self._size, len(sibling_paths(root, path)), 1)
        self.sites[name] = self.sites.get(name, 0) + 1
        kind = self._tell_kind(root, site, path, call)
        if kind != self.options.attention:
            queries, keys = int(call.query.shape[2]), int(call.key.shape[2])
            if kind == "self" and keys >= queries:  # cross-attention has its queries there
                self._latest[threading.get_ident()] = ((keys - queries, keys),)
            return None
        return self._prepare_layer(site, root, path, call)

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
            context = "" if known or self.options.names(path) else context_name(site, int(keys))
            if context and not self.options.layers:
                raise RecordError(
                    f"{path} was given {context}, a second sequence of as many tokens as its first "
                    f"({queries}), so that it may be cross-attention, and its name does not say; "
                    f"pass layers= with the modules (or a glob) to record, such as layers='{path}'"
                )
            if context:
                return {"self": "cross", "cross": "self"}[self.options.attention]
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
    ) -> Callable[[], None]:
        if not self.numbers:
            self._begin(root, site, call)
            self._siblings = sibling_paths(root, path)
        number = self._number_layer(path)
        turn, stream, forwards = self._turns.get(path, 0), self.options.stream, []
        if stream is not None and path == next(iter(self.numbers)):
            sizes = call.query.shape[2], call.key.shape[2]
            forwards.append((find_time(site), (*sizes, site.positions())))
        wanted = self.options.wants(number, path) and stream in (None, "both", turn % 2)
        own = 0 if stream is None else turn % 2
        enter = self._enter_layer(number, path, own, site, call) if wanted else None

        def commit() -> None:
            self._turns[path] = turn + 1  # of calls that ran: one that failed may come again
            self._forwards += forwards
            if enter is not None:
                enter()

        return commit

    def _enter_layer(
        self, number: int, path: str, stream: int, site: CallSite, call: AttentionCall
    ) -> Callable[[], None]:
        chosen = choose_batch(call, self.options.batch)
        runs = self._layers.setdefault((path, stream), {})
        last = self._latest.get(threading.get_ident())
        counted = isinstance(self.options.query_position, Counted)  # and would count on
        if counted and self._run in runs and runs[self._run].has_other_prompt():
            self._run += 1
        layer = runs.get(self._run) or self._make_layer(number, path)
        places = layer.find_places(chosen, site, last)
        if layer.begins_again(places):
            self._run += 1
            layer = self._make_layer(number, path)
        runs[self._run] = layer
        return layer.prepare(chosen, site, places)

    def _begin(self, root: torch.nn.Module, site: CallSite, call: AttentionCall) -> None:
        """Find the frames that the options leave to the model, and the layers that they name."""
        options = self.options
        stated, source, self.states_frames = find_frame_size(site, int(call.query.shape[2]))
        self._facts["frames_stated"] = f"{stated} tokens ({source})" if source else "none"
        if options.query_segments.is_open:
            if stated is None:
                raise NoFramesError(
                    "the frames are not given, and no running module states them (grid_sizes, "
                    f"patch_size or frame_seq_length of {self.name}); expected "
                    "tokens_per_frame=1560, or boundaries segments=[0, 12, 30]"
                )
            frames = Segments.equal(stated)
            keys = frames if options.key_segments.is_open else options.key_segments
            self.options = replace(options, query_segments=frames, key_segments=keys)
        paths = [module_path(root, part) for part in root.modules()]
        for wanted in options.unknown_globs(paths):
            raise UnknownLayerError(explain_unknown(wanted, paths, self.name))

    def _make_layer(self, number: int, path: str) -> LayerRecord:
        prompt = self.options.prompt or find_prompt()
        facts = dict(self._facts)
        first = path == next(iter(self._layers))[0]
        chosen = [one for one in self.options.layers or () if isinstance(one, int)]
        layers = len(chosen) if chosen == [*(self.options.layers or [""])] else self.size
        shared = self._plans, self._generator, facts, prompt, layers, first
        return LayerRecord(number, path, self.options, *shared)

    def _number_layer(self, path: str) -> int:
        """Return a layer's place among its siblings, as long as only these are seen."""
        if path not in self.numbers:
            alone = path in self._siblings and self.numbers.keys() <= set(self._siblings)
            after = max(self.numbers.values(), default=-1) + 1
            self.numbers[path] = self._siblings.index(path) if alone else after
        return self.numbers[path]

    @property
    def size(self) -> int:
        """Number of layers: of those seen, or of those like one that was seen."""
        return max(self._size, len(self.numbers))

    def list_sites(self) -> str:
        """Return the attention calls that were seen, for the end of a message."""
        counted = [f"{site} x{times}" for site, times in self.sites.items()]
        return f"attention calls seen: {shorten_list(counted)}"

    def finish(self, others: list[str], *, ended: bool) -> list[list[Capture]]:
        """Return the captures of each run that has ended; they name the other models that ran."""
        if self.error is not None:
            raise self.error
        self._check_layers()
        self._check_streams()
        self._warn_of_unseen()
        given, stated = self.options.query_segments.tokens_per_frame, self._facts["frames_stated"]
        if given and self.states_frames and not stated.startswith(f"{given} "):
            _warn(f"tokens_per_frame is {given}, but a frame of the model has {stated}")
        runs = {run: self._find_cut(run) for run in range(self._run + ended)}
        for run, cut in runs.items():
            if cut and all(runs.values()):
                raise RecordError(cut)
            if cut:
                _warn(f"run_{run:03d} is left out: {cut}")
        named = "run_{:03d}" * (self._run > 0)
        return [self._build(n, named.format(n), others) for n, cut in runs.items() if not cut]

    def _find_cut(self, run: int) -> str:
        """Return in what a run was cut short, as by an error that its script caught, or ""."""
        if not any(run in runs and runs[run].calls for runs in self._layers.values()):
            return f"no attention call ran to its end; {self.list_sites()}"
        latest = self.options.forwards in ("last", "mean")
        alike: dict[tuple[str, int], tuple[str, list[int]]] = {}
        for (path, stream), runs in self._layers.items():
            seen = runs[run].seen if run in runs else {}
            counts = [seen[block] for block in sorted(seen)]
            kind = re.sub(r"(?<![^.])\d+(?![^.])", "", path), stream
            first, expected = alike.setdefault(kind, (path, counts))
            if counts != expected if latest else len(counts) != len(expected):
                return (
                    f"{first} ran {count_noun(sum(expected), 'time')} and {path} {sum(counts)}, so "
                    "the run was cut short, or these layers are not run alike; record those that "
                    "are (layers=), or let the script end where the model fails"
                )
            others = [n for other in runs if other != run for n in runs[other].seen.values()]
            least = min(counts[:-1] or others, default=0)
            if latest and counts and counts[-1] < least:
                return (
                    f"{path}: {name_frames(self.options.query_segments, max(seen))} came "
                    f"{count_noun(counts[-1], 'time')}, all others at least {least} times, so the "
                    "run was cut short, or has another last forward there; pass forwards='first' "
                    "or a number that each of them has"
                )
        return ""

    def _build(self, run: int, name: str, others: list[str]) -> list[Capture]:
        """Return one run's captures, those of each stream under its name."""
        captures: list[Capture] = []
        for stream in sorted({stream for _, stream in self._layers}):
            kept = [runs for (_, own), runs in self._layers.items() if own == stream]
            layers = [runs[run] for runs in kept if run in runs and runs[run].calls]
            for layer in layers:
                layer.facts |= {"other_models": others, "stream": stream}
            layers.sort(key=lambda layer: layer.number)
            names = [name, f"stream_{stream}" * (self.options.stream == "both")]
            for capture in build_captures(layers, self.list_sites()):
                full = "_".join(filter(None, [*names, capture.run]))
                captures.append(capture.replace(run=full))
        return captures

    def _check_streams(self) -> None:
        """Raise where forwards do not come in pairs, one of each stream."""
        calls = [(None if t is None else float(t), call) for t, call in self._forwards]
        if calls[::2] != calls[1::2]:
            raise RecordError(
                f"stream is {self.options.stream!r}, but the {len(calls)} forwards of {self.name} "
                "do not come in pairs of one time step and place, one of each stream; leave stream "
                "out if the model runs once a step"
            )

    def _check_layers(self) -> None:
        """Raise where a layer that is asked for was not seen."""
        names = list(self.numbers)
        numbers = shorten_list(sorted(self.numbers.values()))
        for wanted in self.options.layers or ():
            if not any(fits_layer(wanted, n, path) for path, n in self.numbers.items()):
                raise UnknownLayerError(
                    f"layers={wanted!r} matches none of the {len(names)} layers whose "
                    f"{self.options.attention}-attention ran ({numbers}: {names[0]} ... "
                    f"{names[-1]}){near_miss(str(wanted), names)}; {self.list_sites()}"
                )

    def _warn_of_unseen(self) -> None:
        unseen = [path for path in self._siblings if path not in self.numbers]
        if not unseen or self.options.layers is not None:
            return
        root = self.root()
        parts = {} if root is None else {module_path(root, part): part for part in root.modules()}
        kernel = name_kernel(parts[unseen[0]]) if parts else ""
        reader = f"{{'{kernel}': reader}}" if kernel else ""
        _warn(
            f"{len(unseen)} of {len(self._siblings)} layers were not seen and have no capture: "
            f"{shorten_list(unseen)}; pass functions={reader} to name the function that they call"
        )


def _warn(text: str) -> None:
    warnings.warn(text, HeadgridWarning, stacklevel=6)


def explain_unknown(wanted: str, paths: list[str], name: str) -> str:
    """Return that a glob fits no module of a model."""
    return (
        f"layers={wanted!r} matches none of the {len(paths)} module paths of {name} (such as "
        f"{', '.join(paths[1:4])}){near_miss(wanted, paths)}"
    )
