"""Arguments of an attention function -> `AttentionCall`, whatever library the function is of.

A reader takes the arguments of the function that it reads and states the layout of its
tensors; nothing is guessed from sizes. Functions that differ only in the order of
their arguments share a reader: the order is a line of text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.read.call import AttentionCall

#: A function with the arguments of the one it reads.
Reader = Callable[..., AttentionCall]


def _in_order(names: str, read: Reader, **fixed: Any) -> Reader:
    """Return the reader of a function whose positional arguments come in this order."""
    order = names.split()

    def read_arguments(*args: Any, **kwargs: Any) -> AttentionCall:
        if len(args) > len(order):
            raise TypeError(f"{len(args)} positional arguments, expected at most {len(order)}")
        return read(**dict(zip(order, args, strict=False)), **kwargs, **fixed)

    return read_arguments


def scale_or_default(scale: float | None, query: torch.Tensor) -> float:
    """Return the scale that a call means: one over the root of the head size, if none is given."""
    return 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def as_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a mask with the four axes batch, heads, query and key."""
    if mask is None or mask.ndim == 4:
        return mask
    if mask.ndim > 4:
        return mask.flatten(0, -4)
    return mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))


def _read_heads_first(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    score_mod: Callable[..., Any] | None = None,
    block_mask: Any = None,
    function: str = "scaled_dot_product_attention",
    **_: Any,
) -> AttentionCall:
    """Read (..., heads, tokens, dim); a batch of one is broadcast, as torch does."""
    query, key = (
        part[(None,) * (4 - part.ndim)] if part.ndim < 4 else part.flatten(0, -4)
        for part in (query, key)
    )
    batch = max(query.shape[0], key.shape[0])
    return AttentionCall(
        query.expand(batch, -1, -1, -1) if query.shape[0] == 1 else query,
        key.expand(batch, -1, -1, -1) if key.shape[0] == 1 else key,
        scale=scale_or_default(scale, query),
        upper=0 if is_causal else None,
        mask=as_mask(attn_mask),
        mask_function=None if block_mask is None else block_mask.mask_mod,
        score_function=score_mod,
        function=function,
    )


#: ``torch.nn.functional.scaled_dot_product_attention`` and flex_attention.
read_sdpa = _in_order("query key value attn_mask dropout_p is_causal", _read_heads_first)
read_flex = _in_order(
    "query key value score_mod block_mask scale enable_gqa",
    _read_heads_first,
    function="flex_attention",
)


def read_heads_last(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> AttentionCall:
    """Read diffusers' ``dispatch_attention_fn``: (batch, tokens, heads, dim)."""
    mask, function = split_mask(attn_mask)
    if mask is not None and mask.ndim == 2 and mask.shape == (query.shape[0], key.shape[1]):
        mask = mask[:, None, None]
    return AttentionCall(
        query.transpose(1, 2),
        key.transpose(1, 2),
        scale=scale_or_default(scale, query),
        upper=0 if is_causal else None,
        mask=as_mask(mask),
        mask_function=function,
        function="dispatch_attention_fn",
    )


def split_mask(mask: Any) -> tuple[torch.Tensor | None, Callable[..., Any] | None]:
    """Return a mask as a tensor, or as the function of a flex_attention block mask."""
    return (None, mask.mask_mod) if hasattr(mask, "mask_mod") else (mask, None)


def _read_flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    q_scale: float | None = None,
    function: str = "flash_attn",
    **_: Any,
) -> AttentionCall:
    """Read (batch, tokens, heads, dim), causal from the last tokens."""
    left, right = window_size
    return AttentionCall(
        q.transpose(1, 2),
        k.transpose(1, 2),
        scale=scale_or_default(softmax_scale, q) * (1.0 if q_scale is None else float(q_scale)),
        lower=-left if left >= 0 else None,
        upper=0 if causal else (right if right >= 0 else None),
        from_end=True,
        softcap=softcap or None,
        score_function=_alibi(alibi_slopes, k.shape[1] - q.shape[1]),
        function=function,
    )


def _alibi(slopes: torch.Tensor | None, shift: int) -> Callable[..., Any] | None:
    if slopes is None:
        return None
    table = slopes if slopes.ndim == 2 else slopes[None]

    def add_distance(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        row = batch % table.shape[0]
        return score - table[row, head] * (query + shift - key).abs()

    return add_distance


def _read_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    seqused_q: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    **more: Any,
) -> AttentionCall:
    """Read (tokens of all sequences, heads, dim)."""
    if block_table is not None or alibi_slopes is not None:
        raise RecordError(
            "flash_attn_varlen_func was called with a paged cache (block_table) or alibi_slopes, "
            "expected contiguous keys without a bias; pass functions={path: reader} with a reader "
            "of your own"
        )
    call = _pack(
        _read_flash(q[None], k[None], v[None], **more),
        cu_seqlens_q.tolist(),
        cu_seqlens_k.tolist(),
    )
    used_q = None if seqused_q is None else seqused_q.tolist()
    used_k = None if seqused_k is None else seqused_k.tolist()
    sequences = tuple(
        (a, b if used_q is None else a + used_q[i], c, d if used_k is None else c + used_k[i])
        for i, (a, b, c, d) in enumerate(call.sequences or ())
    )
    return replace(call, sequences=sequences)


def _pack(call: AttentionCall, queries: Sequence[int], keys: Sequence[int]) -> AttentionCall:
    """Return the call with the sequences that lie between these starts, one behind the other."""
    pairs = zip(pairwise(queries), pairwise(keys), strict=True)
    return replace(call, sequences=tuple((*q, *k) for q, k in pairs), packed=True)


def _read_flash_packed(qkv: torch.Tensor, **more: Any) -> AttentionCall:
    """Read (batch, tokens, 3, heads, dim)."""
    return _read_flash(*qkv.unbind(2), **more)


def _read_flash_kv_packed(q: torch.Tensor, kv: torch.Tensor, **more: Any) -> AttentionCall:
    """Read keys and values of (batch, tokens, 2, heads, dim)."""
    return _read_flash(q, *kv.unbind(2), **more)


def _read_wan(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_lens: torch.Tensor | None = None,
    k_lens: torch.Tensor | None = None,
    **more: Any,
) -> AttentionCall:
    """Read (batch, tokens, heads, dim), where tokens beyond the lengths are padding."""
    call = _read_flash(q, k, v, function="flash_attention", **more)
    rows = [q.shape[1]] * q.shape[0] if q_lens is None else q_lens.tolist()
    columns = [k.shape[1]] * q.shape[0] if k_lens is None else k_lens.tolist()
    sequences = tuple((0, a, 0, b) for a, b in zip(rows, columns, strict=True))
    padded = any((a, b) != (q.shape[1], k.shape[1]) for _, a, _, b in sequences)
    return replace(call, sequences=sequences) if padded else call


_SETTINGS = "dropout_p softmax_scale causal window_size softcap alibi_slopes"
_SEQUENCES = "q k v cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k"

#: flash-attn 2, FlashAttention 3 (``flash_attn_interface``), and ``attention`` of Wan.
read_flash = _in_order(f"q k v {_SETTINGS}", _read_flash)
read_flash_packed = _in_order(f"qkv {_SETTINGS}", _read_flash_packed)
read_flash_kv_packed = _in_order(f"q kv {_SETTINGS}", _read_flash_kv_packed)
read_flash_varlen = _in_order(
    f"{_SEQUENCES} {_SETTINGS} deterministic return_attn_probs block_table", _read_varlen
)
read_flash3 = _in_order("q k v softmax_scale causal", _read_flash)
read_flash3_varlen = _in_order(
    f"{_SEQUENCES} seqused_q seqused_k softmax_scale causal", _read_varlen
)
read_wan = _in_order(
    "q k v q_lens k_lens dropout_p softmax_scale q_scale causal window_size", _read_wan
)


def read_xformers(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: Any = None,
    p: float = 0.0,
    scale: float | None = None,
    **_: Any,
) -> AttentionCall:
    """Read ``xformers.ops.memory_efficient_attention``.

    Tensors are (batch, tokens, heads, dim), (batch * heads, tokens, dim), or
    (batch, tokens, groups, heads of a group, dim) for grouped queries.
    """
    call = AttentionCall(
        _xformers_axes(query, expanded=False),
        _xformers_axes(key, expanded=True),
        scale=scale_or_default(scale, query),
        function="memory_efficient_attention",
    )
    return _add_xformers_bias(call, attn_bias)


def _xformers_axes(tokens: torch.Tensor, *, expanded: bool) -> torch.Tensor:
    if tokens.ndim == 3:
        return tokens[None]
    if tokens.ndim == 5:
        # Keys are expanded over the heads of a group, so one of them stands for all.
        return (tokens[:, :, :, 0] if expanded else tokens.flatten(2, 3)).transpose(1, 2)
    return tokens.transpose(1, 2)


def _add_xformers_bias(call: AttentionCall, bias: Any) -> AttentionCall:
    if bias is None:
        return call
    if isinstance(bias, torch.Tensor):
        return replace(call, mask=as_mask(bias))
    name = type(bias).__name__
    plain = "LowerTriangularMask", "LowerTriangularFromBottomRightMask"
    blocks = (
        "BlockDiagonalMask",
        "BlockDiagonalCausalMask",
        "BlockDiagonalCausalFromBottomRightMask",
    )
    if name in blocks:
        starts_q = [int(start) for start in bias.q_seqinfo.seqstart_py]
        starts_k = [int(start) for start in bias.k_seqinfo.seqstart_py]
        call = _pack(call, starts_q, starts_k)
    elif name not in plain:
        raise RecordError(
            f"memory_efficient_attention was called with attn_bias {name}, expected a tensor or "
            f"one of {', '.join((*plain, *blocks))}; pass functions={{path: reader}} with a reader "
            "of your own"
        )
    causal = "Causal" in name or "LowerTriangular" in name
    return replace(call, upper=0 if causal else None, from_end="BottomRight" in name)
