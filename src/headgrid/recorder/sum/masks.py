"""A call's masks and biases -> which frame pairs are whole, hidden, or cut along a diagonal.

A frame pair that is visible as a whole keeps the O(tokens * dim) route, and so
does one that a token-causal mask cuts along a diagonal. Everything else cannot
be read off pooled queries and keys, and is an error unless the user says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from headgrid.errors import RecordError
from headgrid.recorder.place.segments import FrameSlices
from headgrid.recorder.read.call import HIDING_BIAS, AttentionCall

HIDDEN, WHOLE, CUT = 0, 1, 2

#: Mask elements that are looked at together.
MASK_CHUNK = 2**21

#: Plans that are kept.
PLANS = 16

Band = tuple[int | None, int | None]


@dataclass
class PairPlan:
    """What a mask leaves of every frame pair, for one batch element or for all of them.

    ``state``, (query slices, key slices), is `HIDDEN`, `WHOLE` or `CUT`; ``bands`` has the bounds
    on ``j - i`` inside every cut pair; ``bias``, (heads or 1, query slices, key slices) in float32,
    is what is added to every logit of a pair.
    """

    state: npt.NDArray[np.int8]
    bands: dict[tuple[int, int], Band] = field(default_factory=dict)
    bias: torch.Tensor | None = None


class _Planner:
    """Reads what a call hides and adds, for one batch element."""

    def __init__(
        self, call: AttentionCall, queries: FrameSlices, keys: FrameSlices, element: int
    ) -> None:
        self.call, self.queries, self.keys, self.element = call, queries, keys, element

    def plan(self) -> PairPlan:
        plan = self._plan_band()
        if self.call.softcap is not None:
            raise _irregular(self.call, f"logits are capped at {self.call.softcap:g}")
        if not self.call.has_mask:
            return plan
        biases = []
        for index in range(len(self.queries)):
            seen, added = self._pool_rows(index)
            self._merge_row(plan, index, seen)
            if added is not None:
                biases.append(added)
        if any(bool(bias.any()) for bias in biases):
            plan.bias = torch.stack(biases, dim=1)
        return plan

    def _plan_band(self) -> PairPlan:
        """Read what the call's own bounds on ``j - i`` leave."""
        lower, upper = self.call.band
        plan = PairPlan(np.full((len(self.queries), len(self.keys)), WHOLE, dtype=np.int8))
        q0, q1 = np.array(self.queries.starts), np.array(self.queries.stops)
        k0, k1 = np.array(self.keys.starts), np.array(self.keys.stops)
        least = k0[None, :] - (q1[:, None] - 1)
        most = (k1[None, :] - 1) - q0[:, None]
        low = np.iinfo(np.int64).min if lower is None else lower
        high = np.iinfo(np.int64).max if upper is None else upper
        plan.state[(least < low) | (most > high)] = CUT
        plan.state[(most < low) | (least > high)] = HIDDEN
        for row, column in np.argwhere(plan.state == CUT):
            shift = int(k0[column] - q0[row])
            plan.bands[row, column] = (
                None if lower is None else lower - shift,
                None if upper is None else upper - shift,
            )
        return plan

    def _pool_rows(self, index: int) -> tuple[npt.NDArray[np.int64], torch.Tensor | None]:
        """Count visible pairs of one query slice, and return its bias if it is constant."""
        call, keys = self.call, self.keys
        mask_heads = 1 if call.mask is None else call.mask.shape[1]
        heads = mask_heads if call.score_function is None else call.heads
        size = max(1, MASK_CHUNK // max(1, keys.tokens * heads))
        counts, low, high = [], [], []
        last = self.queries.stops[index]
        for start in range(self.queries.starts[index], last, size):
            visible, bias = mask_rows(call, self.element, start, min(start + size, last))
            assert visible is not None
            counts.append(_pool(visible.int(), keys, "sum").sum(dim=1))
            if bias is not None:
                low.append(_pool(bias.masked_fill(~visible, torch.inf), keys, "amin").amin(1))
                high.append(_pool(bias.masked_fill(~visible, -torch.inf), keys, "amax").amax(1))
        count = torch.stack(counts).sum(dim=0)
        seen = count.cpu().numpy().astype(np.int64)
        if not low:
            return seen, None
        least, most = torch.stack(low).amin(dim=0), torch.stack(high).amax(dim=0)
        spread, added = (torch.where(count > 0, part, 0.0) for part in (most - least, least))
        over = spread - 1e-6 * (1 + added.abs())
        if bool((over > 0).any()):
            column = int(over.amax(dim=0).argmax())
            raise _irregular(
                self.call,
                f"the bias varies by {float(spread[:, column].max()):.3g} between query frame "
                f"{self.queries.frames[index]} and key frame {keys.frames[column]}",
            )
        return seen, added

    def _merge_row(self, plan: PairPlan, index: int, seen: npt.NDArray[np.int64]) -> None:
        """Combine the counts of visible pairs of one query slice with the call's own band."""
        whole = self.queries.lengths[index] * np.array(self.keys.lengths)
        empty, full = (seen == 0).all(axis=0), (seen == whole).all(axis=0)
        plan.state[index, empty] = HIDDEN
        for column in np.flatnonzero(~full & (plan.state[index] != HIDDEN)):
            pair = (index, int(column))
            plan.bands[pair] = _intersect(
                plan.bands.get(pair, (None, None)), self._find_band(*pair)
            )
            plan.state[pair] = CUT

    def _find_band(self, row: int, column: int) -> Band:
        """Return the diagonal along which a mask cuts a frame pair."""
        visible, _ = mask_rows(
            self.call, self.element, self.queries.starts[row], self.queries.stops[row]
        )
        assert visible is not None
        part = visible[:, :, self.keys.starts[column] : self.keys.stops[column]].cpu().numpy()
        band = None if (part != part[:1]).any() else _fit_band(part[0])
        if band is None:
            hidden = int((~part).sum(axis=(1, 2)).max())
            raise _irregular(
                self.call,
                f"it hides {hidden} of {part[0].size} token pairs of query frame "
                f"{self.queries.frames[row]} and key frame {self.keys.frames[column]}",
            )
        return band


def mask_rows(
    call: AttentionCall, element: int, start: int, stop: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Evaluate masks for some query tokens of one batch element, without the call's own band."""
    visible: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    columns = int(call.key.shape[2])
    if call.mask is not None:
        mask = call.mask[element if call.mask.shape[0] > 1 else 0]
        rows = mask[:, start:stop] if mask.shape[1] > 1 else mask.expand(-1, stop - start, -1)
        rows = rows.expand(-1, -1, columns) if rows.shape[2] == 1 else rows[:, :, :columns]
        if rows.dtype == torch.bool:
            visible = rows
        else:
            bias = rows.float()
    none = torch.zeros((), device=call.query.device).expand(call.heads, stop - start, columns)
    if (sees := call.mask_function) is not None:
        tokens = torch.arange(start, stop, device=none.device)
        allowed = evaluate(lambda score, *place: sees(*place), none, element, tokens).bool()
        allowed = allowed if allowed.stride(0) else allowed[:1]  # most do not ask for the head
        visible = allowed if visible is None else visible & allowed
    if call.score_function is not None:
        added = _score_bias(call, none, element, start)
        bias = added if bias is None else bias + added
    if bias is not None:
        kept = bias > HIDING_BIAS
        visible = kept if visible is None else visible & kept
        bias = torch.where(visible, bias, 0.0)
    return visible, bias


def evaluate(
    function: Callable[..., Any],
    scores: torch.Tensor,
    element: int,
    rows: torch.Tensor,
    first_head: int = 0,
) -> torch.Tensor:
    """Apply ``f(score, batch, head, query, key)`` to scores of shape (heads, rows, key tokens)."""
    device = scores.device
    batch = torch.tensor(element, device=device)
    heads = torch.arange(first_head, first_head + scores.shape[0], device=device)
    columns = torch.arange(scores.shape[2], device=device)
    for axes in ((0, None, None, None, 0), (0, None, None, 0, None), (0, None, 0, None, None)):
        function = torch.vmap(function, in_dims=axes)
    found: torch.Tensor = function(scores, batch, heads, rows, columns)
    return found


def _score_bias(call: AttentionCall, none: torch.Tensor, element: int, start: int) -> torch.Tensor:
    """Return what a score function adds to scores of 0; refuse one that does more than add."""
    assert call.score_function is not None
    rows = torch.arange(start, start + none.shape[1], device=none.device)
    bias = evaluate(call.score_function, none, element, rows).float()
    for probe in (1.0, -3.0):
        moved = evaluate(call.score_function, none + probe, element, rows).float()
        kept = bias > HIDING_BIAS
        off = torch.where(kept, (moved - bias - probe).abs() - 1e-5 * (1 + bias.abs()), 0.0)
        if bool((off > 0).any()):
            raise _irregular(call, "the score function does more than add to a logit")
    return bias


def _pool(values: torch.Tensor, keys: FrameSlices, how: str) -> torch.Tensor:
    """Reduce (heads, rows, key tokens) over the tokens of every key slice."""
    parts = []
    for first, last in keys.runs:
        part = values[:, :, keys.starts[first] : keys.stops[last - 1]]
        part = part.unflatten(2, (last - first, keys.stops[first] - keys.starts[first]))
        parts.append(getattr(part, how)(dim=3))
    return torch.cat(parts, dim=2)


def _fit_band(block: npt.NDArray[np.bool_]) -> Band | None:
    """Return (lower, upper) such that ``block[i, j] == (lower <= j - i <= upper)``, or None."""
    rows, columns = block.shape
    seen = np.flatnonzero(block.any(axis=1))
    top, bottom = int(seen[0]), int(seen[-1])
    last = columns - 1 - int(block[top, ::-1].argmax())
    first = int(block[bottom].argmax())
    upper = last - top if top > 0 or last < columns - 1 else None
    lower = first - bottom if bottom < rows - 1 or first > 0 else None
    offset = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    fitted = np.ones_like(block)
    if upper is not None:
        fitted &= offset <= upper
    if lower is not None:
        fitted &= offset >= lower
    return (lower, upper) if (fitted == block).all() else None


def _intersect(one: Band, other: Band) -> Band:
    lowers = [bound for bound in (one[0], other[0]) if bound is not None]
    uppers = [bound for bound in (one[1], other[1]) if bound is not None]
    return (max(lowers) if lowers else None, min(uppers) if uppers else None)


def _irregular(call: AttentionCall, what: str) -> RecordError:
    return RecordError(
        f"{call.function}: the mask, bias or score function of this call is not constant over a "
        f"frame pair: {what}; expected whole pairs or a token-causal diagonal. Pass segments "
        "that leave padding out, irregular_mask='mean' for the exact mean over the pairs that are "
        "visible (slower), or irregular_mask='ignore' for q·k alone"
    )


class PlanCache:
    """Plans of the masks seen lately, since all layers of a model share a mask.

    A mask is known by its memory, view and version. Only a weak reference to the
    memory is held, and an address cannot come again while that reference stands.
    """

    def __init__(self) -> None:
        self._plans: dict[Any, tuple[StorageWeakRef | None, list[PairPlan]]] = {}

    def plan(self, call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> list[PairPlan]:
        """Return one plan for the whole batch, or one an element."""
        mask, owner, view = call.mask, None, None
        by_function = call.mask_function is not None or call.score_function is not None
        if by_function or (mask is not None and mask.is_inference()):  # it has no version
            return plan_call(call, queries, keys)
        if mask is not None:
            owner = StorageWeakRef(mask.untyped_storage())
            shape = (mask.storage_offset(), tuple(mask.shape), mask.stride(), mask.dtype)
            view = (owner.cdata, shape, mask._version)
        key = (view, call.band, call.softcap, queries, keys)
        held = self._plans.pop(key, None)
        if held is None or (held[0] is not None and held[0].expired()):
            held = (owner, plan_call(call, queries, keys))
        self._plans[key] = held  # the latest is the last
        if len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]
        return held[1]


def plan_call(call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> list[PairPlan]:
    """Return one plan for the whole batch, or one an element where their masks can differ."""
    differs = call.mask is not None and call.mask.shape[0] > 1
    by_function = call.mask_function is not None or call.score_function is not None
    elements = call.query.shape[0] if differs or by_function else 1
    return [_Planner(call, queries, keys, element).plan() for element in range(elements)]
