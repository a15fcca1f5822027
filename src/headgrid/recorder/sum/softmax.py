"""One attention call and its frames -> attention mass, entropy or max logit, in bounded memory.

These depend on every single logit. They are computed row by row with a chunked
log-sum-exp over all key tokens of the call, those in no frame included, and
never derived from pooled logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from headgrid.recorder.place.segments import FrameSlices
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum.logits import PairSums, wide_dtype
from headgrid.recorder.sum.masks import evaluate_scores, mask_rows

#: Logits that are held at once, for all query heads that share a key head.
ROW_CHUNK = 2**20


@dataclass
class _Rows:
    """Some query tokens of one slice, for the heads of one key head.

    Attributes
    ----------
    mass, entropy, top : tensor, shape (heads, rows, slices)
        Share of the softmax in each key frame, its ``-p log p`` in nats, and the
        largest logit (-inf where the frame is hidden).
    total : tensor, shape (heads, rows, slices)
        Sum of visible logits.
    seen : tensor, shape (heads, rows, slices)
        Number of visible key tokens.
    alive : tensor, shape (heads, rows), bool
        Whether the token attends anything.
    """

    mass: torch.Tensor
    entropy: torch.Tensor
    top: torch.Tensor
    total: torch.Tensor
    seen: torch.Tensor
    alive: torch.Tensor


def sum_softmax(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    statistic: str,
    *,
    sample: int | None = None,
    generator: torch.Generator | None = None,
) -> PairSums:
    """Sum a statistic that depends on every logit over the query tokens of each frame pair."""
    batch, heads = call.query.shape[:2]
    shape = (batch, heads, len(queries), len(keys))
    wide = wide_dtype(call.query.device)
    total = torch.zeros(shape, dtype=wide, device=call.query.device)
    if statistic == "max_logit":
        total.fill_(-torch.inf)
    counts = torch.zeros(shape, dtype=wide, device=call.query.device)
    variance = None if sample is None else torch.zeros_like(total)
    chosen = [_choose_rows(queries, index, sample, generator) for index in range(len(queries))]
    pieces = _cover(keys)
    for element in range(batch):
        for head in range(call.key.shape[1]):
            own = slice(head * call.group, (head + 1) * call.group)
            key = call.key[element, head].float()
            for index, rows in enumerate(chosen):
                parts = list(_iterate_rows(call, key, pieces, rows, element, head))
                _reduce(
                    parts,
                    statistic,
                    queries.lengths[index] / len(rows),
                    total[element, own, index],
                    counts[element, own, index],
                    None if variance is None else variance[element, own, index],
                )
    return PairSums(queries, keys, total, counts.cpu().numpy().astype(np.float64), variance)


def _choose_rows(
    queries: FrameSlices, index: int, sample: int | None, generator: torch.Generator | None
) -> torch.Tensor:
    """Return the token indices of one slice that are looked at."""
    start, stop = queries.starts[index], queries.stops[index]
    if sample is None or sample >= stop - start:
        return torch.arange(start, stop)
    drawn = torch.randperm(stop - start, generator=generator)[:sample]
    return start + drawn.sort().values


def _cover(keys: FrameSlices) -> list[tuple[int, int, int]]:
    """Return (slice or -1, start, stop) for the whole key axis; -1 is in no frame."""
    pieces, position = list[tuple[int, int, int]](), 0
    for index, (start, stop) in enumerate(zip(keys.starts, keys.stops, strict=True)):
        if start > position:
            pieces.append((-1, position, start))
        pieces.append((index, start, stop))
        position = stop
    if position < keys.tokens:
        pieces.append((-1, position, keys.tokens))
    return pieces


def _iterate_rows(
    call: AttentionCall,
    key: torch.Tensor,
    pieces: list[tuple[int, int, int]],
    rows: torch.Tensor,
    element: int,
    head: int,
) -> Iterator[_Rows]:
    """Yield the statistics of query tokens, as many at a time as memory allows."""
    step = max(1, ROW_CHUNK // max(1, call.group * key.shape[0]))
    for low in range(0, len(rows), step):
        chosen = rows[low : low + step].to(key.device)
        scores = score_rows(call, key, chosen, element, head)
        yield _summarise(scores, pieces, _sinks(call, head))


def _sinks(call: AttentionCall, head: int) -> torch.Tensor | None:
    if call.sink_logits is None:
        return None
    own = call.sink_logits[head * call.group : (head + 1) * call.group]
    return own.float()[:, None]


def score_rows(
    call: AttentionCall, key: torch.Tensor, rows: torch.Tensor, element: int, head: int
) -> torch.Tensor:
    """Return the logits of some query tokens, -inf where hidden, (group, rows, key tokens)."""
    first = head * call.group
    query = call.query[element, first : first + call.group][:, rows].float()
    if _loses_digits(query):
        scores = (query.double() @ key.double().T).float() * call.scale
    else:
        scores = (query @ key.T) * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.score_function is not None:
        scores = evaluate_scores(call, scores, element, rows, first)
    plain = call if call.score_function is None else _without_score(call)
    if plain.has_mask:
        low, high = int(rows[0]), int(rows[-1]) + 1
        visible, bias = mask_rows(plain, element, low, high)
        if bias is not None:
            scores = scores + _heads_of(bias, call, first)[:, rows - low]
        if visible is not None:
            scores = scores.masked_fill(~_heads_of(visible, call, first)[:, rows - low], -torch.inf)
    lower, upper = call.band
    if lower is not None or upper is not None:
        offset = torch.arange(key.shape[0], device=rows.device)[None, :] - rows[:, None]
        if upper is not None:
            scores = scores.masked_fill(offset > upper, -torch.inf)
        if lower is not None:
            scores = scores.masked_fill(offset < lower, -torch.inf)
    return scores


def _loses_digits(query: torch.Tensor) -> bool:
    return bool(query.is_cuda and torch.backends.cuda.matmul.allow_tf32)


def _without_score(call: AttentionCall) -> AttentionCall:
    return replace(call, score_function=None)


def _heads_of(values: torch.Tensor, call: AttentionCall, first: int) -> torch.Tensor:
    return values if values.shape[0] == 1 else values[first : first + call.group]


def _summarise(
    scores: torch.Tensor, pieces: list[tuple[int, int, int]], sinks: torch.Tensor | None
) -> _Rows:
    """Reduce logits to one number a key frame, with one log-sum-exp over all of them."""
    tops, sums, weighted, totals, seen = [], [], [], [], []
    for _, start, stop in pieces:
        part = scores[:, :, start:stop]
        hidden = part == -torch.inf
        values = part.masked_fill(hidden, 0.0)
        top = part.amax(dim=2)
        powers = (part - top.nan_to_num(neginf=0.0)[:, :, None]).exp()
        tops.append(top)
        sums.append(powers.sum(dim=2))
        weighted.append((powers * values).sum(dim=2))
        totals.append(values.sum(dim=2))
        seen.append((~hidden).sum(dim=2))
    top = torch.stack(tops, dim=2)
    exponents = torch.stack(sums, dim=2).log() + top.nan_to_num(neginf=0.0)
    if sinks is not None:
        wide = sinks.expand(scores.shape[0], scores.shape[1])[:, :, None]
        exponents = torch.cat([exponents, wide], dim=2)
    norm = torch.logsumexp(exponents, dim=2, keepdim=True)
    alive = torch.stack(seen, dim=2).sum(dim=2) > 0
    factor = (top.nan_to_num(neginf=0.0) - norm).exp()
    mass = torch.stack(sums, dim=2) * factor
    entropy = norm * mass - torch.stack(weighted, dim=2) * factor
    kept = [place for place, piece in enumerate(pieces) if piece[0] >= 0]
    blank = alive[:, :, None]
    return _Rows(
        mass=mass[:, :, kept].where(blank, 0.0),
        entropy=entropy[:, :, kept].where(blank, 0.0),
        top=top[:, :, kept],
        total=torch.stack(totals, dim=2)[:, :, kept],
        seen=torch.stack(seen, dim=2)[:, :, kept],
        alive=alive,
    )


def _reduce(
    parts: list[_Rows],
    statistic: str,
    stretch: float,
    total: torch.Tensor,
    count: torch.Tensor,
    variance: torch.Tensor | None,
) -> None:
    """Sum the rows of one query slice into ``total`` and ``count``, (heads, slices)."""
    seen = torch.cat([part.seen for part in parts], dim=1)
    visible = (seen > 0).any(dim=1)
    if statistic == "max_logit":
        tops = torch.cat([part.top for part in parts], dim=1).amax(dim=1)
        total.copy_(tops)
        count.copy_(visible)
        return
    if statistic == "logit":
        sums = torch.cat([part.total for part in parts], dim=1).to(total.dtype).sum(dim=1)
        total.copy_(sums)
        count.copy_(seen.sum(dim=1))
        return
    values = torch.cat([getattr(part, statistic) for part in parts], dim=1).to(total.dtype)
    alive = torch.cat([part.alive for part in parts], dim=1)
    total.copy_(values.sum(dim=1) * stretch)
    count.copy_(visible * alive.sum(dim=1, keepdim=True) * stretch)
    if variance is not None and values.shape[1] > 1 and stretch > 1:
        drawn = values.shape[1]
        whole = drawn * stretch
        spread = values.var(dim=1) / drawn * (1 - drawn / whole)
        variance.copy_(spread * whole**2)
