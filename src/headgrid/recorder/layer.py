"""Attention calls of one layer, one after the other -> its matrices of frame pairs.

A *block* is the queries of one call, named by their token positions. A block
that is seen again is another *forward* of it (a denoising step, say), and the
option ``forwards`` says which of them count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.options import MisfitError, RecordOptions
from headgrid.recorder.place.fingerprints import Fingerprints, how_to_declare
from headgrid.recorder.place.positions import CallInfo, Counted
from headgrid.recorder.place.segments import (
    FrameSlices,
    Segments,
    Spans,
    count_tokens,
    fitting_frame_sizes,
    join_spans,
    overlap,
)
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum import shards
from headgrid.recorder.sum.logits import pool_sums, sum_logits
from headgrid.recorder.sum.masks import PlanCache
from headgrid.recorder.sum.matrix import Matrix, PairSums
from headgrid.recorder.sum.softmax import sum_softmax
from headgrid.recorder.watch.sites import CallSite
from headgrid.recorder.watch.statements import find_prompt, find_time
from headgrid.text import shorten_list

_turns = count()

#: Where queries and keys lie: those of the whole call, and those of this process.
Places = list[tuple[Spans, Spans]]


@dataclass
class LayerRecord:
    """Everything recorded of one layer; plans and random numbers are shared between layers.

    ``facts`` is what the captures' metadata tells of the layer and its latest call.
    """

    number: int
    path: str
    options: RecordOptions
    plans: PlanCache
    generator: torch.Generator
    facts: dict[str, Any]
    prompt: str = ""
    layers: int = 1  # of the model that are recorded
    first: bool = False  # of the model's layers: it looks at the time steps for all
    calls: int = 0
    turn: int = -1  # of the latest call, among those of all layers
    in_a_row: bool = False  # whether a block came again before any other layer was called
    seen: dict[Spans, int] = field(default_factory=dict)
    newest: Spans = ()
    positions: dict[Spans, dict[str, int]] = field(default_factory=dict)
    times: dict[Spans, list[Any]] = field(default_factory=dict)
    covered: Spans = ()
    matrices: dict[int, Matrix] = field(default_factory=dict)
    latest: dict[Spans, PairSums] = field(default_factory=dict)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)

    def _check_memory(self, call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> None:
        """Refuse matrices that would take more memory than all layers' may."""
        rows, columns = max(queries.frames) + 1, max(keys.frames) + 1
        size = 8 * (call.query.shape[0] * call.query.shape[1] + 1) * rows * columns
        if self.layers * size > self.options.memory * 2**30:
            raise RecordError(
                f"{self.path}: {rows:,} x {columns:,} pairs of {call.query.shape[1]} heads in "
                f"{self.layers} layers take {self.layers * size / 2**30:.3g} GiB, expected at most "
                f"{self.options.memory:g} (memory=); pool more tokens (pool=, tokens_per_frame=, "
                "segments=), record fewer layers (layers=), or allow more"
            )

    def prepare(self, call: AttentionCall, site: CallSite, places: Places) -> Callable[[], None]:
        """Compute what a call adds; return what enters it once the call has run."""
        options = self.options
        (all_queries, own_queries), _ = places
        queries, keys, pooled_queries, pooled_keys = self._pool(call, places)
        self.facts |= {
            "module_path": self.path,
            "attention_function": call.function,
            "call_site": site.place,
            "dtype": str(call.query.dtype).removeprefix("torch."),
            "head_dim": int(call.query.shape[3]),
            "num_key_heads": int(call.key.shape[1]),
            "scale": call.scale,
        }
        marks = {}
        if options.check_keys and options.attention == "self":
            marks = self.fingerprints.check(
                self.path, pooled_keys, keys, options.key_segments, all_queries, call.key.dtype
            )
        block = own_queries if options.shard == "queries" else all_queries
        if options.query_position_inferred:
            self._check_moved(block, site, keys)
        forward = self._count_forward(block, keys)
        sums = None
        wanted = 0 if options.forwards in (None, "first") else options.forwards
        if wanted in (forward, "last", "mean", "all"):
            sums = self._sum(call, queries, keys, pooled_queries, pooled_keys)
            self._check_own_keys(call, sums)

        def commit() -> None:
            self.calls += 1
            before, self.turn = self.turn, next(_turns)
            self.in_a_row |= block in self.seen and self.turn == before + 1
            if block not in self.seen:
                self.covered = join_spans(sorted([*self.covered, *block]))
            self.seen[block] = forward + 1
            if sums is not None and options.forwards == "last":
                self.latest[block] = sums
            elif sums is not None:
                self._add(forward if options.forwards == "all" else 0, sums)
            self.newest = all_queries
            self.positions.setdefault(block, site.positions())
            if self.first:
                self.times.setdefault(block, []).append(find_time(site))
            self.fingerprints.store(marks)

        return commit

    def _pool(
        self, call: AttentionCall, places: Places
    ) -> tuple[FrameSlices, FrameSlices, torch.Tensor | None, torch.Tensor]:
        """Return the frames of a call, and the sums of its keys (and queries, if not all here)."""
        options = self.options
        (all_queries, own_queries), (all_keys, own_keys) = places
        queries = self._slice(call, "query", options.query_segments, all_queries, own_queries)
        keys = self._slice(call, "key", options.key_segments, all_keys, own_keys)
        self._check_memory(call, queries, keys)
        if options.shard != "sequence":
            return queries, keys, None, pool_sums(call.key, keys)
        shards.check_sequence_call(call, self.path, options.attention)
        rows = options.query_segments.slice_frames(all_queries)
        columns = options.key_segments.slice_frames(all_keys)
        pooled = shards.reduce_pooled(call.query, queries, rows, options.group)
        return rows, columns, pooled, shards.reduce_pooled(call.key, keys, columns, options.group)

    def begins_again(self, places: Places) -> bool:
        """Return whether the first block comes after later ones, or for another prompt.

        Then another run of the model begins.
        """
        if places[0][0][0][0] > 0 or not self.newest:
            return False
        return self.newest[0][0] > 0 or self.has_other_prompt()

    def has_other_prompt(self) -> bool:
        """Return whether the script has gone on to another prompt."""
        return (self.options.prompt or find_prompt()) != self.prompt

    def find_places(self, call: AttentionCall, site: CallSite, last: Spans | None) -> Places:
        """Ask the policies where queries and keys lie: of the whole call, and of this process."""
        options, path = self.options, self.path
        tokens = [int(call.query.shape[2]), int(call.key.shape[2])]
        sizes, offsets = list(tokens), [0, 0]
        cut = {"queries": (0,), "sequence": (0, 1)}.get(options.shard or "", ())
        for axis in cut:
            offsets[axis], sizes[axis] = shards.find_offset(
                tokens[axis], call.query.device, options.group
            )
        info = CallInfo(
            layer=self.number,
            path=path,
            index=self.calls,
            query_tokens=sizes[0],
            key_tokens=sizes[1],
            query_segments=options.query_segments,
            key_segments=options.key_segments,
            site=site,
            last=last,
        )
        queries = options.query_position(info)
        keys = options.key_position(replace(info, query=queries))
        for name, spans, size in (("query", queries, sizes[0]), ("key", keys, sizes[1])):
            if count_tokens(spans) != size or not spans or spans[0][0] < 0:
                raise RecordError(
                    f"{path}: {name}_position gives {count_tokens(spans)} token positions from "
                    f"{spans[0][0] if spans else 0}, but the call has {size} {name} tokens; "
                    "positions must be as many, from 0"
                )
        return [
            (spans, shards.cut_spans(spans, offsets[axis], tokens[axis]) if axis in cut else spans)
            for axis, spans in enumerate((queries, keys))
        ]

    def _slice(
        self, call: AttentionCall, name: str, segments: Segments, spans: Spans, own: Spans
    ) -> FrameSlices:
        """Refuse tokens that lie in no frame, or frames that no later call can complete."""
        path, tokens, slices = self.path, count_tokens(spans), segments.slice_frames(own)
        if not len(slices):
            raise MisfitError(
                f"{path}: the call's {tokens} {name} tokens (from {spans[0][0]}) lie in none of "
                f"the {segments.describe()}; pass segments that cover them"
            )
        one_by_one = call.is_token_causal or call.has_mask or call.query.shape[2] == 1
        found = segments.slice_frames(spans).frame_lengths()
        cut = any(length < segments.length(frame) for frame, length in found.items())
        if one_by_one or self.options.gaps == "keep" or not cut:
            return slices
        size = segments.tokens_per_frame
        if size is None:
            raise MisfitError(
                f"{path}: the call's {name} tokens ({spans[0][0]} to {spans[-1][1]}) end inside a "
                f"segment, and there are {segments.describe()}; boundaries that end at "
                f"{spans[-1][1]} would fit"
            )
        stated = self.facts["frames_stated"]
        stated = "" if stated == "none" else f"; the model states {stated}"
        raise MisfitError(
            f"{path}: {tokens} {name} tokens from token {spans[0][0]} are no whole frames of "
            f"{size} tokens ({tokens / size:.2f} frames{stated}); "
            f"{fitting_frame_sizes(tokens, size)}, or pass segments=, or model= if "
            f"{self.facts['model_class']} is not the one to record"
        )

    def _check_moved(self, block: Spans, site: CallSite, keys: FrameSlices) -> None:
        """Refuse a block that comes again where a running module says that it is another."""
        now = site.positions()
        for name, before in self.positions.get(block, {}).items():
            if now.get(name, before) != before:
                raise RecordError(
                    f"{self.path}: {name_frames(self.options.query_segments, block)} came again, "
                    f"but {name} has moved from {before} to {now[name]}: the cache holds one block "
                    "and its sinks, so the number of tokens does not say which they are; "
                    f"{self._declare(block, keys.frames, name)}"
                )

    def _declare(self, block: Spans, held: Sequence[int], name: str = "current_start") -> str:
        """Return how to declare a cache that holds a block and its sinks."""
        own = self.options.query_segments.slice_frames(block).frames
        return how_to_declare(len(held), len({*held} - {*own}), name)

    def _check_own_keys(self, call: AttentionCall, sums: PairSums) -> None:
        """Refuse a growing cache in which no query frame sees its own keys: it is not its end."""
        cached = call.key.shape[2] > call.query.shape[2] and self.options.attention == "self"
        columns = {frame: column for column, frame in enumerate(sums.keys.frames)}
        own = [(row, columns[f]) for row, f in enumerate(sums.queries.frames) if f in columns]
        if not (cached and own and self.options.query_position_inferred):
            return
        if not any(sums.count[:, :, row, column].any() for row, column in own):
            raise RecordError(
                f"{self.path}: the mask hides the last {call.query.shape[2]} of "
                f"{call.key.shape[2]} key tokens from the queries, so they are not the queries' "
                "own, as they are in a cache that grows; pass query_position= and key_position= "
                "that say where the tokens lie"
            )

    def _check_repeats(self) -> None:
        """Refuse forwards that may be those of several blocks, prompts or streams."""
        *earlier, last = blocks = sorted(self.seen)
        counts = [self.seen[block] for block in blocks]
        told = not self.options.query_position_inferred or any(self.positions.values())
        if earlier and counts[-1] > max(counts[:-1]) and not told:
            self._raise_repeats(last, f"the blocks before at most {max(counts[:-1])} times")
        untimed = all(time is None for times in self.times.values() for time in times)
        after = max(counts[1:], default=0)
        if self.first and untimed and 1 < after < counts[0] and counts[0] % after == 0:
            self._raise_repeats(blocks[0], f"the blocks after at most {after} times")
        self._check_times()

    def _check_times(self) -> None:
        """Refuse forwards whose time steps are not those of one block in one stream."""
        timed = {b: [float(t) for t in found if t is not None] for b, found in self.times.items()}
        schedules = [*dict.fromkeys(map(tuple, timed.values()))]
        if isinstance(self.options.query_position, Counted) and len(schedules) > 1:
            raise RecordError(
                f"{self.path}: query_position says {self.options.query_position}, but the time "
                f"steps of blocks differ ({shorten_list(schedules[0])}; then "
                f"{shorten_list(schedules[1])}); expected all forwards of a block, those of both "
                "streams unless stream= chooses one"
            )
        for block, times in timed.items():
            left = next((n for n, time in enumerate(times) if time != times[0]), len(times))
            if times and times[0] in times[left:]:
                self._raise_repeats(block, f"and time step {times[0]:g} came back after others")
            paired = len(times) > 1 and times[::2] == times[1::2]
            if paired and self.options.stream is None and self.options.forwards in ("last", "mean"):
                raise RecordError(
                    f"{self.path}: {name_frames(self.options.query_segments, block)} came twice "
                    "with each time step (conditional and unconditional?); pass stream=0 or "
                    "stream=1 for one of them, stream='both', or the number of a forward"
                )

    def _raise_repeats(self, block: Spans, found: str) -> None:
        options = self.options
        if str(options.query_position) == "growing" and not options.query_position_inferred:
            return  # as the user says
        held = options.key_segments.slice_frames(((0, block[-1][1]),)).frames
        raise RecordError(
            f"{self.path}: {name_frames(options.query_segments, block)} came "
            f"{self.seen[block]} times, {found}: more forwards, another prompt, or several blocks "
            "in a cache that holds one and its sinks. For the first, pass query_position="
            "'growing'; for the second, make a recording for each prompt (--prompts); for the "
            f"third, {self._declare(block, held)}"
        )

    def _count_forward(self, block: Spans, keys: FrameSlices) -> int:
        """Return which forward of a block this is, from 0."""
        path, segments = self.path, self.options.query_segments
        if block in self.seen:
            if self.options.forwards is None:
                raise RecordError(
                    f"{path}: {name_frames(segments, block)} came a second time (at "
                    f"{self.facts['call_site']}); pass forwards='first' (noisiest), 'last' "
                    "(clean), 'mean' or 'all' if the model runs each block several times, or "
                    "query_position= if these are other frames"
                )
            return self.seen[block]
        for low, high in self.covered:
            if overlap((low, high), block):
                raise RecordError(
                    f"{path}: {name_frames(segments, block)} overlap queries seen before (tokens "
                    f"{low} to {high}) without being the same block; the cache has rolled, or "
                    f"positions are wrong: {how_to_declare(len(keys.frames), 1)}"
                )
        return 0

    def _sum(
        self,
        call: AttentionCall,
        queries: FrameSlices,
        keys: FrameSlices,
        pooled_queries: torch.Tensor | None,
        pooled_keys: torch.Tensor,
    ) -> PairSums:
        options = self.options
        if options.statistic != "logit":
            return sum_softmax(
                call, queries, keys, options.statistic, options.sample, self.generator
            )
        if options.irregular_mask == "ignore":
            call = call.without_masks()
        try:
            plans = self.plans.plan(call, queries, keys)
        except RecordError as error:
            if options.irregular_mask == "mean":
                return sum_softmax(call, queries, keys, "logit")
            raise RecordError(f"{self.path}: {error}") from None
        return sum_logits(call, queries, keys, plans, pooled_keys, pooled_queries)

    def _add(self, number: int, sums: PairSums) -> None:
        self.matrices.setdefault(number, Matrix(self.options.statistic, sums)).add(sums)

    def finish(self, alone: bool) -> None:
        """Complete the matrices, by forward (all under 0 unless ``forwards`` is "all")."""
        if self.in_a_row and not alone and self.options.forwards in ("first", "last", "mean"):
            raise RecordError(
                f"{self.path}: the same queries came several times in a row (heads one by one, or "
                "two attentions in a module?), which are no forwards of a block; pass functions= "
                "to name the function around them, forwards='all', or the number of one of them"
            )
        self.fingerprints.check_deferred(self.path)
        self._check_repeats()
        for sums in self.latest.values():
            self._add(0, sums)
        self.latest.clear()

    def merge_processes(self) -> None:
        """Make every process hold the whole matrices, where queries or heads are cut."""
        options, shard = self.options, self.options.shard or ""
        self.covered = shards.merge_matrices(
            self.matrices, self.covered, self.path, shard, options.statistic, options.group
        )
        if shard == "heads":
            self.facts["num_key_heads"] *= shards.world_size(options.group)


def name_frames(segments: Segments, block: Spans) -> str:
    """Return the frames (or the tokens, where they are no whole frames) of a block."""
    frames = segments.slice_frames(block).frames
    if not frames:
        return f"query tokens {block[0][0]} to {block[-1][1]}"
    numbers = f"{frames[0]}" if frames[0] == frames[-1] else f"{frames[0]}-{frames[-1]}"
    return f"query frames {numbers} (tokens {block[0][0]} to {block[-1][1]})"
