"""Arguments of an attention function -> `AttentionCall`, one reader for each signature.

A reader takes exactly the arguments of the function that it reads, and states
the layout of its tensors; nothing is guessed from sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.calls import AttentionCall

#: A function with the arguments of the one it reads.
Reader = Callable[..., AttentionCall]


def read_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> AttentionCall:
    """Read ``torch.nn.functional.scaled_dot_product_attention``: (..., heads, tokens, dim)."""
    return AttentionCall(
        *_match_batches(_four_axes(query), _four_axes(key)),
        scale=_scale_or_default(scale, query),
        upper=0 if is_causal else None,
        mask=as_mask(attn_mask),
        function="scaled_dot_product_attention",
    )


def _four_axes(tokens: torch.Tensor) -> torch.Tensor:
    """Return (batch, heads, tokens, dim); three axes are heads of one element."""
    if tokens.ndim == 2:
        return tokens[None, None]
    if tokens.ndim == 3:
        return tokens[None]
    return tokens.flatten(0, -4) if tokens.ndim > 4 else tokens


def _match_batches(query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Broadcast a batch of one, as torch does for learned queries."""
    batch = max(query.shape[0], key.shape[0])
    return (
        query.expand(batch, -1, -1, -1) if query.shape[0] == 1 else query,
        key.expand(batch, -1, -1, -1) if key.shape[0] == 1 else key,
    )


def _scale_or_default(scale: float | None, query: torch.Tensor) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def as_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a mask with the four axes batch, heads, query and key."""
    if mask is None or mask.ndim == 4:
        return mask
    if mask.ndim > 4:
        return mask.flatten(0, -4)
    return mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))


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
    mask, function = attn_mask, None
    if mask is not None and hasattr(mask, "mask_mod"):
        mask, function = None, attn_mask.mask_mod
    elif mask is not None and mask.ndim == 2 and mask.shape == (query.shape[0], key.shape[1]):
        mask = mask[:, None, None]
    return AttentionCall(
        query.transpose(1, 2),
        key.transpose(1, 2),
        scale=_scale_or_default(scale, query),
        upper=0 if is_causal else None,
        mask=as_mask(mask),
        mask_function=function,
        function="dispatch_attention_fn",
    )


def read_attention_scores(
    self: Any, query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> AttentionCall:
    """Read ``diffusers...Attention.get_attention_scores``: (batch * heads, tokens, dim)."""
    heads = int(self.heads)
    mask = attention_mask
    if mask is not None and mask.ndim == 3 and mask.shape[0] > 1:
        mask = mask.unflatten(0, (-1, heads))
    return AttentionCall(
        query.unflatten(0, (-1, heads)),
        key.unflatten(0, (-1, heads)),
        scale=float(self.scale),
        mask=as_mask(mask),
        function="get_attention_scores",
    )


def read_flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., Any] | None = None,
    block_mask: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> AttentionCall:
    """Read ``torch.nn.attention.flex_attention.flex_attention``: (batch, heads, tokens, dim)."""
    return AttentionCall(
        *_match_batches(query, key),
        scale=_scale_or_default(scale, query),
        score_function=score_mod,
        mask_function=None if block_mask is None else block_mask.mask_mod,
        function="flex_attention",
    )


def read_flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    **_: Any,
) -> AttentionCall:
    """Read ``flash_attn.flash_attn_func``: (batch, tokens, heads, dim), causal from the end."""
    left, right = window_size
    return AttentionCall(
        q.transpose(1, 2),
        k.transpose(1, 2),
        scale=_scale_or_default(softmax_scale, q),
        lower=-left if left >= 0 else None,
        upper=0 if causal else (right if right >= 0 else None),
        from_end=True,
        softcap=softcap or None,
        score_function=_alibi(alibi_slopes, k.shape[1] - q.shape[1]),
        function="flash_attn",
    )


def _alibi(slopes: torch.Tensor | None, shift: int) -> Callable[..., Any] | None:
    if slopes is None:
        return None
    table = slopes if slopes.ndim == 2 else slopes[None]

    def add_distance(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        row = batch % table.shape[0]
        return score - table[row, head] * (query + shift - key).abs()

    return add_distance


def read_flash_packed(qkv: torch.Tensor, *args: Any, **kwargs: Any) -> AttentionCall:
    """Read ``flash_attn_qkvpacked_func``: (batch, tokens, 3, heads, dim)."""
    return read_flash(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], *args, **kwargs)


def read_flash_kv_packed(
    q: torch.Tensor, kv: torch.Tensor, *args: Any, **kwargs: Any
) -> AttentionCall:
    """Read ``flash_attn_kvpacked_func``: keys and values (batch, tokens, 2, heads, dim)."""
    return read_flash(q, kv[:, :, 0], kv[:, :, 1], *args, **kwargs)


def read_flash_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
    **_: Any,
) -> AttentionCall:
    """Read ``flash_attn.flash_attn_varlen_func``: (tokens of all sequences, heads, dim)."""
    if block_table is not None or alibi_slopes is not None:
        raise RecordError(
            "flash_attn_varlen_func was called with a paged cache (block_table) or alibi_slopes, "
            "expected contiguous keys without a bias; pass functions={path: reader} with a reader "
            "of your own"
        )
    call = read_flash(
        q[None], k[None], v[None], dropout_p, softmax_scale, causal, window_size, softcap
    )
    return _pack(call, cu_seqlens_q.tolist(), cu_seqlens_k.tolist())


def _pack(call: AttentionCall, queries: list[int], keys: list[int]) -> AttentionCall:
    pairs = zip(pairwise(queries), pairwise(keys), strict=True)
    return replace(call, sequences=tuple((*q, *k) for q, k in pairs), packed=True)


def read_wan(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_lens: torch.Tensor | None = None,
    k_lens: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    q_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    **_: Any,
) -> AttentionCall:
    """Read ``attention`` and ``flash_attention`` of Wan and Self-Forcing.

    Tensors are (batch, tokens, heads, dim); tokens beyond ``q_lens`` and
    ``k_lens`` are padding.
    """
    scale = _scale_or_default(softmax_scale, q) * (1.0 if q_scale is None else float(q_scale))
    call = read_flash(q, k, v, dropout_p, scale, causal, window_size)
    if q_lens is not None or k_lens is not None:
        rows = [q.shape[1]] * q.shape[0] if q_lens is None else q_lens.tolist()
        columns = [k.shape[1]] * q.shape[0] if k_lens is None else k_lens.tolist()
        sequences = tuple((0, a, 0, b) for a, b in zip(rows, columns, strict=True))
        if any((a, b) != (q.shape[1], k.shape[1]) for _, a, _, b in sequences):
            call = replace(call, sequences=sequences)
    return replace(call, function="flash_attention")


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
        scale=_scale_or_default(scale, query),
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


def read_flash3(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **_: Any,
) -> AttentionCall:
    """Read FlashAttention 3's ``flash_attn_interface.flash_attn_func``."""
    return read_flash(q, k, v, 0.0, softmax_scale, causal, window_size, softcap)


def read_flash3_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    seqused_q: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **_: Any,
) -> AttentionCall:
    """Read FlashAttention 3's ``flash_attn_interface.flash_attn_varlen_func``."""
    call = read_flash3(
        q[None],
        k[None],
        v[None],
        softmax_scale,
        causal,
        window_size=window_size,
        softcap=softcap,
    )
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    call = _pack(call, starts_q, starts_k)
    used_q = None if seqused_q is None else seqused_q.tolist()
    used_k = None if seqused_k is None else seqused_k.tolist()
    assert call.sequences is not None
    trimmed = tuple(
        (a, b if used_q is None else a + used_q[i], c, d if used_k is None else c + used_k[i])
        for i, (a, b, c, d) in enumerate(call.sequences)
    )
    return replace(call, sequences=trimmed)
