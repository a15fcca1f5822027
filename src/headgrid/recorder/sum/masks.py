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

#: Mask elements that are looked at together.
MASK_CHUNK = 2**21

#: Plans that are kept.
PLANS = 16

Band = tuple[int | None, int | None]


@dataclass
class PairPlan:
    """What a mask leaves of every frame pair, for one batch element or for all of them.

    ``whole``, (query slices, key slices), is where every token pair is visible; ``bands`` has the
    bounds on ``j - i`` inside every pair of which only a part is; ``bias``, (heads or 1, query
    slices, key slices) in float32, is what is added to every logit of a pair.
    """

    whole: npt.NDArray[np.bool_]
    bands: dict[tuple[int, int], Band] = field(default_factory=dict)
    bias: torch.Tensor | None = None


def _plan_band(call: AttentionCall, queries: FrameSlices, keys: FrameSlices) -> PairPlan:
    """Read what the call's own bounds on ``j - i`` leave."""
    lower, upper = call.band
    q0, q1 = np.array(queries.starts), np.array(queries.stops)
    k0, k1 = np.array(keys.starts), np.array(keys.stops)
    least = k0[None, :] - (q1[:, None] - 1)
    most = (k1[None, :] - 1) - q0[:, None]
    low = np.iinfo(np.int64).min if lower is None else lower
    high = np.iinfo(np.int64).max if upper is None else upper
    plan = PairPlan((least >= low) & (most <= high))
    for row, column in np.argwhere(~plan.whole & (most >= low) & (least <= high)):
        shift = int(k0[column] - q0[row])
        plan.bands[row, column] = (
            None if lower is None else lower - shift,
            None if upper is None else upper - shift,
        )
    return plan


class _Planner:
    """Reads what masks hide and add, for one batch element."""

    def __init__(
        self, call: AttentionCall, queries: FrameSlices, keys: FrameSlices, element: int
    ) -> None:
        self.call, self.queries, self.keys, self.element = call, queries, keys, element

    def plan(self) -> PairPlan:
        plan = PairPlan(np.zeros((len(self.queries), len(self.keys)), dtype=np.bool_))
        biases = []
        for row, length in enumerate(self.queries.lengths):
            seen, added = self._pool_rows(row)
            plan.whole[row] = (seen == length * np.array(self.keys.lengths)).all(axis=0)
            for column in np.flatnonzero(~plan.whole[row] & seen.any(axis=0)).tolist():
                plan.bands[row, column] = self._find_band(row, column)
            if added is not None:
                biases.append(added)
        if any(bool(bias.any()) for bias in biases):
            plan.bias = torch.stack(biases, dim=1)
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
            visible, bias = self._mask_rows(start, min(start + size, last))
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

    def _find_band(self, row: int, column: int) -> Band:
        """Return the diagonal along which a mask cuts a frame pair."""
        visible, _ = self._mask_rows(self.queries.starts[row], self.queries.stops[row])
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

    def _mask_rows(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows = torch.arange(start, stop, device=self.call.query.device)
        return mask_rows(self.call, self.element, rows)


def mask_rows(
    call: AttentionCall, element: int, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what query tokens of one batch element see, and any bias: (heads or 1, rows, keys)."""
    columns = int(call.key.shape[2])
    visible = see_band(rows, columns, call.band)[None]
    bias: torch.Tensor | None = None
    if call.mask is not None:
        mask = call.mask[element if call.mask.shape[0] > 1 else 0, :, :, :columns]
        mask = mask[:, rows] if mask.shape[1] > 1 else mask
        if mask.dtype == torch.bool:
            visible = visible & mask
        else:
            bias = mask.float()
    none = torch.zeros((), device=call.query.device).expand(call.heads, len(rows), columns)
    if (sees := call.mask_function) is not None:
        allowed = evaluate(lambda score, *place: sees(*place), none, element, rows).bool()
        visible = visible & (allowed if allowed.stride(0) else allowed[:1])  # few ask for the head
    if call.score_function is not None:
        added = _score_bias(call, none, element, rows)
        bias = added if bias is None else bias + added
    if bias is not None:
        visible = visible & (bias > HIDING_BIAS)
        bias = torch.where(visible, bias, 0.0)
    return visible, bias


def see_band(rows: torch.Tensor, columns: int, band: Band) -> torch.Tensor:
    """Return which of so many key tokens ``j`` query tokens ``i`` see, by bounds on ``j - i``."""
    lower, upper = band
    keys = torch.arange(columns, device=rows.device)
    seen = torch.ones((len(rows), columns), dtype=torch.bool, device=rows.device)
    if lower is not None:
        seen &= keys >= rows[:, None] + lower
    if upper is not None:
        seen &= keys <= rows[:, None] + upper
    return seen


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


def _score_bias(
    call: AttentionCall, none: torch.Tensor, element: int, rows: torch.Tensor
) -> torch.Tensor:
    """Return what a score function adds to scores of 0; refuse one that does more than add."""
    assert call.score_function is not None
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
    fitted = see_band(torch.arange(rows), columns, (lower, upper)).numpy()
    return (lower, upper) if (fitted == block).all() else None


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
    if call.softcap is not None:
        raise _irregular(call, f"logits are capped at {call.softcap:g}")
    if not call.has_mask:
        return [_plan_band(call, queries, keys)]
    alike = call.mask is not None and call.mask.shape[0] == 1
    by_function = call.mask_function is not None or call.score_function is not None
    elements = 1 if alike and not by_function else call.query.shape[0]
    return [_Planner(call, queries, keys, element).plan() for element in range(elements)]
