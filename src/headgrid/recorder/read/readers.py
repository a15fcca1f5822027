"""Arguments of an attention function -> `AttentionCall`, whatever library the function is of.

Nothing is guessed from sizes. Functions that differ only in the order of their arguments
share a reader: the order is a line of text.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.read.call import AttentionCall

#: A function with the arguments of the one it reads.
Reader = Callable[..., AttentionCall]


def _in_order(order: str, read: Reader, ignored: str = "", **fixed: Any) -> Reader:
    """Return the reader of a function whose positional arguments come in this order.

    What changes no logit is ignored, and so is what is switched off; `read` refuses any other
    keyword that it does not know. A name may stand as `own=read's`.
    """
    pairs = [name.partition("=") for name in order.split()]
    names, dropped = [pair[0] for pair in pairs], {"value", "v", "dropout_p", *ignored.split()}
    renamed = {own: other for own, _, other in pairs if other}

    def read_arguments(*args: Any, **kwargs: Any) -> AttentionCall:
        if len(args) > len(names):
            raise TypeError(f"{len(args)} positional arguments, expected at most {len(names)}")
        given = dict(zip(names, args, strict=False)) | kwargs
        kept = {
            renamed.get(k, k): v for k, v in given.items() if k not in dropped and not is_off(v)
        }
        return read(**fixed | kept)

    return read_arguments


def is_off(value: Any) -> bool:
    """Return whether an argument asks for nothing."""
    return value is None or (isinstance(value, (bool, int, float)) and not value)


def scale_or_default(scale: float | None, query: torch.Tensor) -> float:
    """Return the scale that a call means: one over the root of the head size, if none is given."""
    return 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def with_four_axes(tensor: torch.Tensor) -> torch.Tensor:
    """Return tokens or a mask with one axis for the batch, one for heads, and the last two."""
    return tensor[(None,) * (4 - tensor.ndim)] if tensor.ndim < 4 else tensor.flatten(0, -4)


def as_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a mask with the four axes batch, heads, query and key."""
    return None if mask is None else with_four_axes(mask)


def join_masks(*masks: torch.Tensor | None) -> torch.Tensor | None:
    """Return one mask from several, each of them boolean (True attends) or added."""
    given = [mask for mask in masks if mask is not None]
    if len(given) < 2:
        return given[0] if given else None
    if all(mask.dtype == torch.bool for mask in given):
        return functools.reduce(torch.logical_and, given)
    numbers = [torch.where(m, 0.0, -torch.inf) if m.dtype == torch.bool else m for m in given]
    return functools.reduce(torch.add, numbers)


def _read_heads_first(
    query: torch.Tensor,
    key: torch.Tensor,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    score_mod: Callable[..., Any] | None = None,
    block_mask: Any = None,
    function: str = "scaled_dot_product_attention",
) -> AttentionCall:
    """Read (..., heads, tokens, dim); a batch of one is broadcast, as torch does."""
    if hasattr(attn_mask, "_materialize"):  # a CausalBias of torch, whose memory holds nothing
        attn_mask = attn_mask._materialize()
    if attn_mask is not None and query.ndim > 4 and attn_mask.ndim > 3:
        attn_mask = attn_mask.expand(*query.shape[:-3], *attn_mask.shape[-3:])
    query, key = with_four_axes(query), with_four_axes(key)
    batch = max(query.shape[0], key.shape[0])
    return AttentionCall(
        query.expand(batch, -1, -1, -1) if query.shape[0] == 1 else query,
        key.expand(batch, -1, -1, -1) if key.shape[0] == 1 else key,
        scale=scale_or_default(scale, query),
        upper=0 if is_causal else None,
        mask=as_mask(attn_mask),
        mask_function=split_mask(block_mask)[1],
        score_function=score_mod,
        function=function,
    )


def _read_heads_last(
    query: torch.Tensor,
    key: torch.Tensor,
    attn_mask: Any = None,
    attention_kwargs: Mapping[str, Any] | None = None,
    **more: Any,
) -> AttentionCall:
    """Read (batch, tokens, heads, dim)."""
    more |= {k: v for k, v in (attention_kwargs or {}).items() if k != "return_lse"}
    if more.get("is_causal"):  # from which end depends on the backend
        _check_square("dispatch_attention_fn", query, key)
    mask, function = split_mask(attn_mask)
    if mask is not None and mask.ndim == 2 and mask.shape == (query.shape[0], key.shape[1]):
        mask = mask[:, None, None]
    call = _read_heads_first(
        query.transpose(1, 2), key.transpose(1, 2), mask, function="dispatch_attention_fn", **more
    )
    return replace(call, mask_function=function)


def split_mask(mask: Any) -> tuple[torch.Tensor | None, Callable[..., Any] | None]:
    """Return a mask as a tensor, or as the function of a flex_attention block mask."""
    if not hasattr(mask, "mask_mod"):
        return mask, None
    if getattr(mask.mask_mod, "__name__", "") == "noop_mask" and not mask.to_dense().all():
        raise RecordError(
            "flex_attention was called with a block mask that leaves blocks out but has no mask_mod"
            ", which only compiled code obeys; pass mask_mod= to BlockMask.from_kv_blocks"
        )
    return None, mask.mask_mod


def _check_square(function: str, q: torch.Tensor, k: torch.Tensor) -> None:
    if q.shape[1] != k.shape[1]:
        raise RecordError(
            f"{function} was called causally with {q.shape[1]} query and {k.shape[1]} key tokens, "
            "expected as many; pass functions={path: reader} that says which a query sees"
        )


def _read_flash(
    q: torch.Tensor,
    k: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (-1, -1),
    softcap: float = 0.0,
    q_scale: float | None = None,
    learnable_sink: torch.Tensor | None = None,
    tensor_layout: str = "NHD",
    square: bool = False,
    function: str = "flash_attn",
) -> AttentionCall:
    """Read (batch, tokens, heads, dim), or "HND"; causal from the last tokens."""
    if tensor_layout != "NHD":
        q, k = q.transpose(1, 2), k.transpose(1, 2)
    if causal and square:
        _check_square(function, q, k)
    left, right = (-1 if side is None else side for side in window_size)
    return AttentionCall(
        q.transpose(1, 2),
        k.transpose(1, 2),
        scale=scale_or_default(softmax_scale, q) * (1.0 if q_scale is None else float(q_scale)),
        lower=-left if left >= 0 else None,
        upper=0 if causal else (right if right >= 0 else None),
        from_end=True,
        softcap=softcap or None,
        sink_logits=learnable_sink,
        function=function,
    )


def _read_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    seqused_q: torch.Tensor | None = None,
    seqused_k: torch.Tensor | None = None,
    **more: Any,
) -> AttentionCall:
    """Read (tokens of all sequences, heads, dim)."""
    call = _read_flash(q[None], k[None], **more)
    queries = _used(cu_seqlens_q.tolist(), seqused_q)
    return _pack(call, queries, _used(cu_seqlens_k.tolist(), seqused_k))


def _used(starts: Sequence[int], used: torch.Tensor | None) -> list[tuple[int, int]]:
    """Return where each sequence begins and ends: before the next one, or after what is used."""
    if used is None:
        return list(pairwise(starts))
    return [(start, start + n) for start, n in zip(starts, used.tolist(), strict=False)]


def _pack(
    call: AttentionCall, queries: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]]
) -> AttentionCall:
    """Return the call with its sequences, one behind the other."""
    pairs = zip(queries, keys, strict=True)
    return replace(call, sequences=tuple((*q, *k) for q, k in pairs), packed=True)


def _read_wan(
    q: torch.Tensor,
    k: torch.Tensor,
    q_lens: torch.Tensor | None = None,
    k_lens: torch.Tensor | None = None,
    **more: Any,
) -> AttentionCall:
    """Read (batch, tokens, heads, dim), where tokens beyond the lengths are padding."""
    call = _read_flash(q, k, function="flash_attention", **more)
    rows = [q.shape[1]] * q.shape[0] if q_lens is None else q_lens.tolist()
    return _cut(call, rows, [k.shape[1]] * q.shape[0] if k_lens is None else k_lens.tolist())


def _cut(call: AttentionCall, rows: Sequence[int], columns: Sequence[int]) -> AttentionCall:
    """Return the call with so many query and key tokens in each batch element."""
    sequences = tuple((0, a, 0, b) for a, b in zip(rows, columns, strict=True))
    whole = (0, call.query.shape[2], 0, call.key.shape[2])
    return call if {*sequences} == {whole} else replace(call, sequences=sequences)


def _read_flash_cache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    cache_seqlens: torch.Tensor | int | None = None,
    **more: Any,
) -> AttentionCall:
    """Read a cache of which each element has filled a part, and the keys that the call adds."""
    batch, new = q.shape[0], 0 if k is None else k.shape[1]
    if cache_seqlens is None:
        cache_seqlens = 0 if new else k_cache.shape[1]  # keys are added to no cache without it
    filled = torch.as_tensor(cache_seqlens).expand(batch).tolist()
    ends = [length + new for length in filled]
    keys = k_cache[:, : max(ends)]
    if k is not None:
        keys = keys.clone()
        for element, (start, end) in enumerate(zip(filled, ends, strict=True)):
            keys[element, start:end] = k[element]
    call = _read_flash(q, keys, function="flash_attn_with_kvcache", **more)
    return _cut(call, [q.shape[1]] * batch, ends)


def _xformers_axes(tokens: torch.Tensor) -> torch.Tensor:
    if tokens.ndim == 3:  # (batch * heads, tokens, dim)
        return tokens[None]
    if tokens.ndim == 5:  # keys may be expanded over the heads of a group: one stands for all
        return (tokens.flatten(2, 3) if tokens.stride(3) else tokens[:, :, :, 0]).transpose(1, 2)
    return tokens.transpose(1, 2)


_XFORMERS_BIASES = (
    "LowerTriangularMask",
    "LowerTriangularFromBottomRightMask",
    "BlockDiagonalMask",
    "BlockDiagonalCausalMask",
    "BlockDiagonalCausalFromBottomRightMask",
)


def _read_xformers(
    query: torch.Tensor, key: torch.Tensor, attn_bias: Any = None, scale: float | None = None
) -> AttentionCall:
    """Read (batch, tokens, heads, dim), also without heads, or with groups of them."""
    call = AttentionCall(
        _xformers_axes(query),
        _xformers_axes(key),
        scale=scale_or_default(scale, query),
        function="memory_efficient_attention",
    )
    if attn_bias is None or isinstance(attn_bias, torch.Tensor):
        return replace(call, mask=as_mask(attn_bias))
    name = type(attn_bias).__name__
    if name not in _XFORMERS_BIASES:
        raise RecordError(
            f"memory_efficient_attention was called with attn_bias {name}, expected a tensor or "
            f"one of {', '.join(_XFORMERS_BIASES)}; pass functions={{path: reader}} with a reader "
            "of your own"
        )
    if name.startswith("BlockDiagonal"):
        queries, keys = attn_bias.q_seqinfo.seqstart_py, attn_bias.k_seqinfo.seqstart_py
        call = _pack(call, list(pairwise(queries)), list(pairwise(keys)))
    causal = "Causal" in name or "LowerTriangular" in name
    return replace(call, upper=0 if causal else None, from_end="BottomRight" in name)


_SETTINGS = "dropout_p softmax_scale causal window_size softcap alibi_slopes"
_SEQUENCES = "q k v cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k"
_FLASH = "deterministic return_attn_probs max_seqlen_q max_seqlen_k"
_FLASH3 = f"{_FLASH} num_splits pack_gqa sm_margin"

_FLASH4 = (
    "softmax_scale causal window_size learnable_sink softcap num_splits pack_gqa deterministic"
)
_SAGE = (
    f"{_FLASH} return_lse smooth_k smooth_v qk_quant_gran pv_accum_dtype quantization_backend "
    "simthreshd1 cdfthreshd topk pvthreshd attention_sink output_dtype return_sparsity"
)
_SAGE_SCALE = "is_causal=causal sm_scale=softmax_scale"
_HND: Mapping[str, Any] = {"tensor_layout": "HND", "square": True}

#: Ready readers, by the name that an option can give: of torch, diffusers, flash-attn 2 to 4,
#: SageAttention, SpargeAttn, flex_attention, xformers, and ``attention`` of Wan.
READERS: Mapping[str, Reader] = {
    "sdpa": _in_order(
        "query key value attn_mask dropout_p is_causal", _read_heads_first, "enable_gqa"
    ),
    "heads_last": _in_order(
        "query key value attn_mask dropout_p is_causal scale enable_gqa",
        _read_heads_last,
        "enable_gqa backend parallel_config",
    ),
    "flash": _in_order(f"q k v {_SETTINGS}", _read_flash, _FLASH),
    "flash_packed": _in_order(  # (batch, tokens, 3, heads, dim)
        f"qkv {_SETTINGS}",
        lambda qkv, **more: _read_flash(qkv[:, :, 0], qkv[:, :, 1], **more),
        _FLASH,
    ),
    "flash_kv_packed": _in_order(
        f"q kv {_SETTINGS}", lambda q, kv, **more: _read_flash(q, kv[:, :, 0], **more), _FLASH
    ),
    "flash_varlen": _in_order(
        f"{_SEQUENCES} {_SETTINGS} deterministic return_attn_probs block_table",
        _read_varlen,
        _FLASH,
    ),
    "flash_cache": _in_order(
        "q k_cache v_cache k v rotary_cos rotary_sin cache_seqlens cache_batch_idx cache_leftpad "
        "block_table softmax_scale causal window_size softcap",
        _read_flash_cache,
        "v_cache rotary_interleaved num_splits return_softmax_lse max_seqlen_q scheduler_metadata "
        "pack_gqa sm_margin",
    ),
    "flash3": _in_order("q k v softmax_scale causal", _read_flash, _FLASH3),
    "flash3_varlen": _in_order(
        f"{_SEQUENCES} seqused_q seqused_k softmax_scale causal", _read_varlen, _FLASH3
    ),
    "flash4": _in_order(
        f"q k v qv gather_kv_indices {_FLASH4}", _read_flash, f"{_FLASH3} return_lse"
    ),
    "flash4_varlen": _in_order(
        "q k v qv cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k min_seqlen_k seqused_q "
        f"seqused_k gather_kv_indices page_table {_FLASH4}",
        _read_varlen,
        f"{_FLASH3} min_seqlen_k return_lse",
    ),
    "varlen": _in_order(
        "query=q key=k value cu_seq_q=cu_seqlens_q cu_seq_k=cu_seqlens_k max_q max_k "
        "is_causal=causal return_aux scale=softmax_scale",
        _read_varlen,
        "max_q max_k return_aux enable_gqa num_splits",
        function="varlen_attn",
    ),
    "sage": _in_order(
        f"q k v tensor_layout {_SAGE_SCALE}", _read_flash, _SAGE, **_HND, function="sageattn"
    ),
    "sage_varlen": _in_order(
        f"{_SEQUENCES} {_SAGE_SCALE}", _read_varlen, _SAGE, square=True, function="sageattn_varlen"
    ),
    "sparge": _in_order(
        "q k v attn_mask dropout_p is_causal=causal scale=softmax_scale",
        _read_flash,
        _SAGE,
        **_HND,
        function="SpargeAttn",
    ),
    "flex": _in_order(
        "query key value score_mod block_mask scale enable_gqa",
        _read_heads_first,
        "enable_gqa return_lse return_aux kernel_options",
        function="flex_attention",
    ),
    "xformers": _in_order("query key value attn_bias p scale", _read_xformers, "p op output_dtype"),
    "wan": _in_order(
        "q k v q_lens k_lens dropout_p softmax_scale q_scale causal window_size deterministic",
        _read_wan,
        "deterministic dtype version fa_version",
    ),
}
