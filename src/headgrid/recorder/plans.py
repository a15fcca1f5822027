"""A call's masks -> pair plans, read once for a mask that many layers share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from headgrid.recorder.calls import AttentionCall
from headgrid.recorder.masks import PairPlan, iterate_elements, plan_pairs
from headgrid.recorder.segments import FrameSlices


class PlanCache:
    """Plans of the masks seen lately.

    A mask is known by its memory, view and version. Only a weak reference to the
    memory is held, and an address cannot come again while that reference stands.
    """

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._plans: OrderedDict[Any, tuple[StorageWeakRef | None, list[PairPlan]]] = OrderedDict()

    def plan(self, call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> list[PairPlan]:
        """Return one plan for the whole batch, or one an element.

        Raises
        ------
        RecordError
            Where a mask cannot be read; see `headgrid.recorder.masks.plan_pairs`.
        """
        key, owner = self._key(call)
        if key is None:
            return _read(call, queries, keys)
        whole = (key, call.band, call.softcap, queries, keys)
        held = self._plans.get(whole)
        if held is not None and (held[0] is None or not held[0].expired()):
            self._plans.move_to_end(whole)
            return held[1]
        plans = _read(call, queries, keys)
        self._plans[whole] = (owner, plans)
        while len(self._plans) > self._size:
            self._plans.popitem(last=False)
        return plans

    def clear(self) -> None:
        """Forget everything."""
        self._plans.clear()

    def _key(self, call: AttentionCall) -> tuple[Any, StorageWeakRef | None]:
        """Return what a mask is known by; None where it is a function, or has no version."""
        if call.mask_function is not None or call.score_function is not None:
            return None, None
        mask = call.mask
        if mask is None:
            return (), None
        if mask.is_inference():
            return None, None
        owner = StorageWeakRef(mask.untyped_storage())
        view = (mask.storage_offset(), tuple(mask.shape), mask.stride(), mask.dtype)
        return (owner.cdata, view, mask._version), owner


def _read(call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> list[PairPlan]:
    with torch.no_grad():
        return [plan_pairs(call, queries, keys, element) for element in iterate_elements(call)]
