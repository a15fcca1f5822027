"""One attention call and its frames -> attention mass, entropy or max logit, in bounded memory.

These depend on every single logit. They are computed row by row with a chunked
log-sum-exp over all key tokens of the call, those in no frame included, and
never derived from pooled logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import torch

from headgrid.recorder.place.segments import FrameSlices
from headgrid.recorder.read.call import HIDING_BIAS, AttentionCall
from headgrid.recorder.sum.logits import wide_dtype
from headgrid.recorder.sum.masks import evaluate, mask_rows
from headgrid.recorder.sum.matrix import PairSums

#: Logits that are held at once, for all query heads that share a key head.
ROW_CHUNK = 2**20


def sum_softmax(
    call: AttentionCall,
    queries: FrameSlices,
    keys: FrameSlices,
    statistic: str,
    sample: int | None = None,
    generator: torch.Generator | None = None,
) -> PairSums:
    """Sum a statistic that depends on every logit over the query tokens of each frame pair."""
    batch, heads = call.query.shape[:2]
    wide = wide_dtype(call.query.device)
    shape = (batch, heads, len(queries), len(keys))
    total, variance, counts = (call.query.new_zeros(shape, dtype=wide) for _ in range(3))
    chosen = [_choose_rows(queries, index, sample, generator) for index in range(len(queries))]
    pieces = _cover(keys)
    most = max(1, ROW_CHUNK // max(1, call.group * call.key.shape[2]))  # query tokens at once
    for element in range(batch):
        for head in range(call.key.shape[1]):
            own = slice(head * call.group, (head + 1) * call.group)
            key = call.key[element, head].float()
            sinks = None if call.sink_logits is None else call.sink_logits[own].float()
            for first, last in _group(queries, chosen, most):
                tokens = torch.cat(chosen[first:last]).to(key.device)
                scored = (score_rows(call, key, rows, element, head) for rows in tokens.split(most))
                parts = [_summarise(scores, pieces, sinks, statistic) for scores in scored]
                values, seen, alive = (
                    torch.cat(part, dim=1).unflatten(1, (last - first, -1))
                    for part in zip(*parts, strict=True)
                )
                stretch = queries.lengths[first] / len(chosen[first])
                found = _reduce(values, seen, alive, statistic, stretch)
                for target, summed in zip((total, variance, counts), found, strict=True):
                    target[element, own, first:last] = summed
    count = counts.cpu().numpy().astype(np.float64)
    totals = total[None] if sample is None else torch.stack([total, variance])
    return PairSums(queries, keys, totals, count)


def _choose_rows(
    queries: FrameSlices, index: int, sample: int | None, generator: torch.Generator | None
) -> torch.Tensor:
    """Return the token indices of one slice that are looked at."""
    start, stop = queries.starts[index], queries.stops[index]
    if sample is None or sample >= stop - start:
        return torch.arange(start, stop)
    drawn = torch.randperm(stop - start, generator=generator)[:sample]
    return start + drawn.sort().values


def _group(
    queries: FrameSlices, chosen: list[torch.Tensor], most: int
) -> Iterator[tuple[int, int]]:
    """Yield ``(first, last + 1)`` of equally long slices, as many as memory holds together."""
    for start, stop in queries.runs:
        step = max(1, most // len(chosen[start]))
        yield from ((first, min(first + step, stop)) for first in range(start, stop, step))


def _cover(keys: FrameSlices) -> list[tuple[int, int, bool]]:
    """Return (start, stop, whether in a frame) of pieces that make up the whole key axis."""
    edges = sorted({0, *keys.starts, *keys.stops, keys.tokens})
    inside = {*keys.starts}
    return [(start, stop, start in inside) for start, stop in pairwise(edges)]


def score_rows(
    call: AttentionCall, key: torch.Tensor, rows: torch.Tensor, element: int, head: int
) -> torch.Tensor:
    """Return the logits of some query tokens, -inf where hidden, (group, rows, key tokens)."""
    first = head * call.group
    query = call.query[element, first : first + call.group][:, rows].float()
    if query.is_cuda and torch.backends.cuda.matmul.allow_tf32:  # it would lose digits
        scores = (query.double() @ key.double().T).float() * call.scale
    else:
        scores = (query @ key.T) * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if call.score_function is not None:
        changed = evaluate(call.score_function, scores, element, rows, first)
        scores = changed.masked_fill(changed - scores <= HIDING_BIAS, -torch.inf)
        call = replace(call, score_function=None)
    if call.has_mask or call.band != (None, None):
        visible, bias = mask_rows(call, element, rows)
        if bias is not None:
            scores = scores + _heads_of(bias, call, first)
        scores = scores.masked_fill(~_heads_of(visible, call, first), -torch.inf)
    return scores


def _heads_of(values: torch.Tensor, call: AttentionCall, first: int) -> torch.Tensor:
    return values if values.shape[0] == 1 else values[first : first + call.group]


def _summarise(
    scores: torch.Tensor,
    pieces: list[tuple[int, int, bool]],
    sinks: torch.Tensor | None,
    statistic: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reduce logits, (heads, rows, key tokens), with one log-sum-exp over all of them.

    Returns the statistic in each key frame and its number of visible logits, both (heads, rows,
    slices); and whether a token attends anything, (heads, rows).
    """
    parts = []
    for length, alike in groupby(pieces, key=lambda piece: piece[1] - piece[0]):
        run = list(alike)
        part = scores[:, :, run[0][0] : run[-1][1]].unflatten(2, (len(run), length))
        hidden = part == -torch.inf
        values = part.masked_fill(hidden, 0.0)
        top = part.amax(dim=3)
        powers = (part - top.nan_to_num(neginf=0.0)[:, :, :, None]).exp()
        summed = (powers, powers * values, values, ~hidden)
        parts.append((top, *(terms.sum(dim=3) for terms in summed)))
    top, sums, weighted, total, seen = (torch.cat(x, dim=2) for x in zip(*parts, strict=True))
    alive = seen.sum(dim=2) > 0
    values = top if statistic == "max_logit" else total
    if statistic in ("mass", "entropy"):
        finite = top.nan_to_num(neginf=0.0)
        exponents = sums.log() + finite
        if sinks is not None:
            sinks = sinks[:, None, None].expand(-1, scores.shape[1], 1)
            exponents = torch.cat([exponents, sinks], dim=2)
        norm = torch.logsumexp(exponents, dim=2, keepdim=True)
        factor = (finite - norm).exp()
        mass = sums * factor
        values = mass if statistic == "mass" else norm * mass - weighted * factor
        values = values.where(alive[:, :, None], 0.0)
    kept = [place for place, (_, _, inside) in enumerate(pieces) if inside]
    return values[:, :, kept], seen[:, :, kept], alive


def _reduce(
    values: torch.Tensor, seen: torch.Tensor, alive: torch.Tensor, statistic: str, stretch: float
) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]:
    """Sum the rows of query slices, [heads, slice, row, key slice]: total, variance, counted."""
    visible = (seen > 0).any(dim=2)
    if statistic == "max_logit":
        return values.amax(dim=2), 0.0, visible
    values = values.to(wide_dtype(values.device))
    if statistic == "logit":
        return values.sum(dim=2), 0.0, seen.sum(dim=2)
    total = values.sum(dim=2) * stretch
    count = visible * alive.sum(dim=2, keepdim=True) * stretch
    drawn = values.shape[2]
    if stretch == 1 or drawn == 1:
        return total, 0.0, count
    return total, values.var(dim=2) * drawn * stretch * (stretch - 1), count
