"""An attention function's arguments -> one `AttentionCall`, all that is known behind readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from headgrid.errors import RecordError

#: A sum added to a logit at or below this hides the pair: libraries write -10000 (which is
#: -9984 in bfloat16), -1e9, the dtype's minimum or -inf to mean "do not attend".
HIDING_BIAS = -9e3


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What one attention call computes, before any position is known."""

    query: torch.Tensor  #: (batch, heads, query tokens, dim)
    key: torch.Tensor  #: (batch, key heads, key tokens, dim); heads are a multiple of key heads
    scale: float  #: what ``q·k`` is multiplied by before the softmax

    #: Query token ``i`` attends key token ``j`` only where ``lower <= j - i <= upper`` (a causal
    #: mask has ``upper = 0``), counted from the last tokens (flash-attn) or the first (torch).
    lower: int | None = None
    upper: int | None = None
    from_end: bool = False

    #: Broadcastable to (batch, heads, query tokens, key tokens): True attends, numbers are added.
    mask: torch.Tensor | None = None
    mask_function: Callable[..., Any] | None = None  #: ``f(batch, head, query, key) -> bool``
    score_function: Callable[..., Any] | None = None  #: ``f(score, batch, head, query, key)``
    softcap: float | None = None  #: logits become ``softcap * tanh(logit / softcap)``
    sink_logits: torch.Tensor | None = None  #: (heads,) of a learned key that has no token

    #: (query start, query stop, key start, key stop) of the sequences that lie one behind the
    #: other in a packed batch (of 1), or of the unpadded part of each batch element.
    sequences: tuple[tuple[int, int, int, int], ...] | None = None
    packed: bool = False
    function: str = "attention"  #: name of the function, for messages

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return int(self.query.shape[1])

    @property
    def group(self) -> int:
        """Number of query heads that share one key head."""
        return self.heads // int(self.key.shape[1])

    @property
    def batch_size(self) -> int:
        """Number of batch elements (of sequences, where the batch is packed)."""
        return len(self.sequences) if self.packed and self.sequences else int(self.query.shape[0])

    @property
    def band(self) -> tuple[int | None, int | None]:
        """Bounds on ``j - i``, counted from the first query and key token."""
        shift = int(self.key.shape[2]) - int(self.query.shape[2]) if self.from_end else 0
        return (
            None if self.lower is None else self.lower + shift,
            None if self.upper is None else self.upper + shift,
        )

    @property
    def is_token_causal(self) -> bool:
        """Whether the call itself states that a token sees no later token."""
        return self.upper is not None

    @property
    def has_mask(self) -> bool:
        """Whether pairs are hidden or shifted by a tensor or a function."""
        given = (self.mask, self.mask_function, self.score_function)
        return any(part is not None for part in given)

    def without_masks(self) -> AttentionCall:
        """Return the call as though nothing were hidden, added or capped."""
        return AttentionCall(self.query, self.key, self.scale, function=self.function)


def check_call(call: AttentionCall) -> AttentionCall:
    """Return the call if its shapes agree."""
    query, key = call.query, call.key
    if query.is_nested or key.is_nested:
        raise RecordError(
            f"{call.function} was called with nested tensors, expected dense or packed ones; "
            "for nn.TransformerEncoder pass enable_nested_tensor=False"
        )
    fits = (
        query.ndim == key.ndim == 4
        and query.shape[0] == key.shape[0]
        and query.shape[3] == key.shape[3]
        and key.shape[1] > 0
        and query.shape[1] % key.shape[1] == 0
    )
    if not fits:
        raise RecordError(
            f"{call.function} was called with query {tuple(query.shape)} and key "
            f"{tuple(key.shape)}, expected (batch, heads, tokens, dim) after reading: one batch "
            "size, one head size, and query heads that are a multiple of the key heads; pass "
            "functions={path: reader} with a reader that fits this layout"
        )
    full = (*query.shape[:3], key.shape[2])
    mask = full if call.mask is None else tuple(call.mask[..., : full[3]].shape)
    if len(mask) != 4 or any(size not in (1, most) for size, most in zip(mask, full, strict=True)):
        raise RecordError(
            f"{call.function} was called with a mask that is {mask} after reading, expected one "
            f"that broadcasts to {full}; pass functions={{path: reader}} with a reader that fits it"
        )
    return call


def choose_batch(call: AttentionCall, batch: int | str | None) -> AttentionCall:
    """Return the call with only the batch elements that are recorded, none of them packed."""
    size = call.batch_size
    if batch is None and size > 1:
        raise RecordError(
            f"{call.function} was called with a batch of {size} (classifier-free guidance, or "
            f"several prompts), expected one; pass batch=0 ... {size - 1}, 'mean' or 'all'"
        )
    if batch is None or isinstance(batch, int):
        element = batch or 0
        if not -size <= element < size:
            raise RecordError(
                f"batch is {batch}, but {call.function} was called with a batch of {size}; "
                f"expected 0 to {size - 1}, 'mean' or 'all'"
            )
        return _take_element(call, element % size)
    if call.sequences is None:
        return call
    return _stack_elements(call, [_take_element(call, index) for index in range(size)])


def _take_element(call: AttentionCall, index: int) -> AttentionCall:
    row, q0, k0 = 0 if call.packed else index, 0, 0
    query, key = call.query[row : row + 1], call.key[row : row + 1]
    mask = call.mask
    if mask is not None and mask.shape[0] > 1:
        mask = mask[row : row + 1]
    if call.sequences is not None:
        q0, q1, k0, k1 = call.sequences[index]
        query, key = query[:, :, q0:q1], key[:, :, k0:k1]
        if mask is not None:
            mask = mask[..., q0:q1, k0:k1]
    return replace(
        call,
        query=query,
        key=key,
        mask=mask,
        mask_function=_shift(call.mask_function, 0, row, q0, k0),
        score_function=_shift(call.score_function, 1, row, q0, k0),
        sequences=None,
        packed=False,
    )


def _shift(function: Callable[..., Any] | None, place: int, row: int, q0: int, k0: int) -> Any:
    """Return the function of a mask with the batch and token indices of the chosen element."""
    if function is None or row == q0 == k0 == 0:
        return function

    def of_chosen_element(*arguments: Any) -> Any:
        batch, head, query, key = arguments[place:]
        return function(*arguments[:place], batch + row, head, query + q0, key + k0)

    return of_chosen_element


def _stack_elements(call: AttentionCall, parts: list[AttentionCall]) -> AttentionCall:
    shapes = {(part.query.shape, part.key.shape) for part in parts}
    if len(shapes) > 1:
        lengths = ", ".join(f"{p.query.shape[2]}x{p.key.shape[2]}" for p in parts[:6])
        raise RecordError(
            f"{call.function} was called with sequences of different lengths (query x key tokens: "
            f"{lengths}), which cannot be one matrix; pass batch=0 ... {len(parts) - 1}"
        )
    masks = [part.mask for part in parts if part.mask is not None]
    return replace(
        parts[0],
        query=torch.cat([part.query for part in parts]),
        key=torch.cat([part.key for part in parts]),
        mask=torch.cat(masks) if len(masks) == len(parts) else None,
    )
