"""One attention call of one layer -> what it adds to the layer's matrix."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from headgrid.errors import RecordError
from headgrid.recorder.place.fingerprints import keys_changed
from headgrid.recorder.place.positions import CallInfo
from headgrid.recorder.place.segments import (
    FrameSlices,
    Segments,
    Spans,
    count_tokens,
    fitting_frame_sizes,
)
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum import shards
from headgrid.recorder.sum.logits import PairSums, pool_sums, sum_logits
from headgrid.recorder.sum.matrix import LayerRecord
from headgrid.recorder.sum.softmax import sum_softmax
from headgrid.recorder.watch.sites import CallSite

if TYPE_CHECKING:
    from headgrid.recorder.recording import Recording


class Step:
    """One attention call of one recorded layer."""

    def __init__(
        self,
        recording: Recording,
        layer: LayerRecord,
        call: AttentionCall,
        site: CallSite,
        last: Spans | None,
    ) -> None:
        self.recording, self.layer, self.call = recording, layer, call
        self.site, self.last = site, last
        self.options = recording.options
        self.queries: Spans = ()
        self.keys: Spans = ()
        self.own_queries: Spans = ()
        self.own_keys: Spans = ()

    def prepare(self) -> Callable[[], None]:
        """Compute what the call adds; return what enters it once the call has run."""
        self._find_positions()
        options, layer = self.options, self.layer
        queries = options.query_segments.slice_frames(self.own_queries)
        keys = options.key_segments.slice_frames(self.own_keys)
        self._check_frames(queries, "query", options.query_segments, self.queries)
        self._check_frames(keys, "key", options.key_segments, self.keys)
        pooled: tuple[torch.Tensor, torch.Tensor] | None = None
        if options.shard == "sequence":
            pooled, queries, keys = self._pool_over_processes()
        pooled_keys = pool_sums(self.call.key, keys) if pooled is None else pooled[1]
        marks = self._check_keys(pooled_keys, keys)
        block = self.own_queries if options.shard == "queries" else self.queries
        forward = layer.count_forward(block, options.query_segments)
        sums = None
        if layer.counts(forward):
            pooled_queries = None if pooled is None else pooled[0]
            sums = self._sum(queries, keys, pooled_queries, pooled_keys)
        lock: threading.RLock = self.recording.lock

        def commit() -> None:
            with lock:
                layer.commit(block, forward, sums)
                if marks is not None:
                    layer.fingerprints.store(*marks)

        return commit

    def _find_positions(self) -> None:
        """Ask the policies where the tokens of the whole call and of this process lie."""
        options, path = self.options, self.layer.facts.path
        tokens = [int(self.call.query.shape[2]), int(self.call.key.shape[2])]
        sizes, offsets = list(tokens), [0, 0]
        cut = {"queries": (0,), "sequence": (0, 1)}.get(options.shard or "", ())
        for axis in cut:
            offsets[axis], sizes[axis] = shards.find_offset(
                tokens[axis], self.call.query.device, options.group
            )
        info = CallInfo(
            layer=self.layer.facts.number,
            path=path,
            index=self.layer.calls,
            query_tokens=sizes[0],
            key_tokens=sizes[1],
            query_segments=options.query_segments,
            key_segments=options.key_segments,
            site=self.site,
            last=self.last,
        )
        self.queries = options.query_position(info)
        self.keys = options.key_position(replace(info, query=self.queries))
        for name, spans, size in (("query", self.queries, sizes[0]), ("key", self.keys, sizes[1])):
            if count_tokens(spans) != size or not spans or spans[0][0] < 0:
                raise RecordError(
                    f"{path}: {name}_position gives {count_tokens(spans)} token positions from "
                    f"{spans[0][0] if spans else 0}, but the call has {size} {name} tokens; "
                    "positions must be as many, from 0"
                )
        self.own_queries, self.own_keys = self.queries, self.keys
        if 0 in cut:
            self.own_queries = shards.cut_spans(self.queries, offsets[0], tokens[0])
        if 1 in cut:
            self.own_keys = shards.cut_spans(self.keys, offsets[1], tokens[1])

    def _check_frames(
        self, slices: FrameSlices, name: str, segments: Segments, spans: Spans
    ) -> None:
        """Refuse tokens that lie in no frame, or frames that no later call can complete."""
        path, tokens = self.layer.facts.path, count_tokens(spans)
        if not len(slices):
            raise RecordError(
                f"{path}: the call's {tokens} {name} tokens (from {spans[0][0]}) lie in none of "
                f"the {segments.describe()}; pass segments that cover them"
            )
        single = self.call.query.shape[2] == 1
        one_by_one = self.call.is_token_causal or self.call.has_mask or single
        if one_by_one or self.options.gaps == "keep" or not segments.cuts_frame(spans):
            return
        size = segments.tokens_per_frame
        if size is None:
            raise RecordError(
                f"{path}: the call's {name} tokens ({spans[0][0]} to {spans[-1][1]}) end inside a "
                f"segment, and there are {segments.describe()}; boundaries that end at "
                f"{spans[-1][1]} would fit"
            )
        model = self.layer.facts.model_class
        raise RecordError(
            f"{path}: {tokens} {name} tokens from token {spans[0][0]} are no whole frames of "
            f"{size} tokens ({tokens / size:.2f} frames); {fitting_frame_sizes(tokens, size)}, or "
            f"pass segments=, or model= if {model} is not the one to record"
        )

    def _pool_over_processes(
        self,
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], FrameSlices, FrameSlices]:
        options, call = self.options, self.call
        shards.check_sequence_call(call, self.layer.facts.path, options.attention)
        queries, query_slices = shards.reduce_pooled(
            call.query, self.own_queries, self.queries, options.query_segments, options.group
        )
        keys, key_slices = shards.reduce_pooled(
            call.key, self.own_keys, self.keys, options.key_segments, options.group
        )
        return (queries, keys), query_slices, key_slices

    def _check_keys(
        self, pooled: torch.Tensor, keys: FrameSlices
    ) -> tuple[torch.Tensor, list[int], list[int]] | None:
        options, layer = self.options, self.layer
        if not options.check_keys or options.attention == "cross":
            return None
        marks, rows, frames, problem = layer.fingerprints.compare(
            pooled, keys, options.key_segments, self.queries, self.call.key.dtype
        )
        if problem is not None:
            raise keys_changed(layer.facts.path, problem)
        return marks, rows, frames

    def _sum(
        self,
        queries: FrameSlices,
        keys: FrameSlices,
        pooled_queries: torch.Tensor | None,
        pooled_keys: torch.Tensor,
    ) -> PairSums:
        options, call = self.options, self.call
        if options.irregular_mask == "ignore" and options.statistic == "logit":
            call = _without_masks(call)
        if options.statistic != "logit":
            return sum_softmax(
                call,
                queries,
                keys,
                options.statistic,
                sample=options.sample,
                generator=self.recording.generator,
            )
        try:
            plans = self.recording.plans.plan(call, queries, keys)
        except RecordError as error:
            if options.irregular_mask == "mean":
                return sum_softmax(call, queries, keys, "logit")
            raise RecordError(f"{self.layer.facts.path}: {error}") from None
        return sum_logits(call, queries, keys, plans, pooled_keys, pooled_queries)


def _without_masks(call: AttentionCall) -> AttentionCall:
    """Return the call as though nothing were hidden, added or capped."""
    return replace(
        call,
        lower=None,
        upper=None,
        mask=None,
        mask_function=None,
        score_function=None,
        softcap=None,
        sink_logits=None,
    )
