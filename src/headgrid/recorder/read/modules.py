"""Arguments of functions that are given a module, or are one -> `AttentionCall`."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from headgrid.errors import RecordError
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.read.readers import (
    as_mask,
    is_off,
    join_masks,
    scale_or_default,
    split_mask,
    with_four_axes,
)

_CHANGES_LOGITS = re.compile(r"scal|bias|softcap|logit_cap|sink|slope|window|seq_?len")


def read_transformers(
    name: str,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    cache: Any = None,
    **others: Any,
) -> AttentionCall:
    """Read the entry of transformers' attention registry that has this name.

    All of them get (batch, heads, tokens, dim); they differ in what an absent mask means.
    """
    for word, given in others.items():
        if _CHANGES_LOGITS.search(word) and not is_off(given):
            raise TypeError(f"got an unexpected keyword argument {word!r}")
    if cache is not None or "paged" in name:
        raise RecordError(
            f"transformers' {name} attention was called with a paged cache (continuous batching), "
            "expected one sequence a batch row; use model.generate or model(...)"
        )
    flash = name.startswith("flash")
    places: Any = others.get("position_ids")
    packed = flash and attention_mask is None and places is not None and places.shape[0] == 1
    if packed and places.ndim == 2 and bool((places.diff() != 1).any()):
        raise RecordError(
            f"transformers' {name} attention was called with position_ids that begin again (packed "
            "sequences), expected one sequence a batch row; pad the sequences with an "
            "attention_mask, or run one at a time"
        )
    causal = _is_causal(name, module, query, attention_mask, is_causal)
    mask, function = split_mask(attention_mask)
    if mask is not None and flash:
        key = key[:, :, : mask.shape[1]]  # a static cache is longer than what it holds
        mask = mask.bool()[:, None, None, -key.shape[2] :]
    elif mask is not None:
        mask = with_four_axes(mask)[..., : key.shape[2]]
    window = sliding_window if flash and sliding_window and key.shape[2] > sliding_window else None
    reach = None if window is None else _find_reach(window)
    return AttentionCall(
        query,
        key,
        scale=scale_or_default(scaling, query),
        lower=None if reach is None else -reach,
        upper=0 if causal else reach,
        from_end=flash,
        mask=join_masks(position_bias, mask),
        mask_function=function,
        softcap=softcap if name != "sdpa" else None,  # it has neither
        sink_logits=s_aux if name != "sdpa" else None,
        function=f"transformers {name} attention",
    )


def _find_reach(window: int) -> int:
    """Ask transformers how far a window reaches to each side: in versions, one token differs."""
    loaded = sys.modules.get("transformers.modeling_flash_attention_utils")
    process = getattr(loaded, "_process_flash_attention_kwargs", None)
    if process is None:  # before 4.55
        return window if loaded else window - 1
    asked = {"sliding_window": window, "supports_mapping": defaultdict(lambda: True)}
    return int(process(1, window + 1, True, **asked)["window_size"][0])


def _is_causal(name: str, module: Any, query: torch.Tensor, mask: Any, stated: bool | None) -> bool:
    """Return whether an absent mask means causal, as each implementation has it."""
    if name == "eager" or name == "flex_attention":
        return False
    causal = bool(getattr(module, "is_causal", True) if stated is None else stated)
    return causal if name.startswith("flash") else causal and mask is None and query.shape[2] > 1


def read_multihead(
    self: torch.nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> AttentionCall:
    """Read ``torch.nn.MultiheadAttention.forward``; queries and keys are projected again."""
    if self.bias_k is not None or self.add_zero_attn:
        raise RecordError(
            "nn.MultiheadAttention has add_bias_kv or add_zero_attn, which append a key that is no "
            "token; record it with a reader of your own (functions={path: reader})"
        )
    if query.ndim == 2:
        query, key = query[None], key[None]
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
    elif not self.batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    weights = self.q_proj_weight, self.k_proj_weight
    if self.in_proj_weight is not None:
        weights = self.in_proj_weight.chunk(3)[:2]
    biases = (None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[:2]
    masks = attn_mask, key_padding_mask
    return _project((query, key), weights, biases, self.num_heads, masks, "nn.MultiheadAttention")


def _project(
    tokens: tuple[torch.Tensor, torch.Tensor],
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor | None],
    heads: int,
    masks: tuple[torch.Tensor | None, torch.Tensor | None],
    function: str,
) -> AttentionCall:
    """Return a call of tokens that become queries and keys, with masks of pairs and of keys.

    In the masks of `torch.nn` True means *hidden*.
    """
    query, key = (
        torch.nn.functional.linear(part.to(weight.dtype), weight, bias)
        .unflatten(2, (heads, -1))
        .transpose(1, 2)
        for part, weight, bias in zip(tokens, weights, biases, strict=True)
    )
    mask, padding = masks
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, heads))
    given = (as_mask(mask), None if padding is None else padding[:, None, None])
    seen = (~m if m is not None and m.dtype == torch.bool else m for m in given)
    scale = scale_or_default(None, query)
    return AttentionCall(query, key, scale, mask=join_masks(*seen), function=function)


def read_encoder_layer(src: torch.Tensor, *arguments: Any) -> AttentionCall:
    """Read ``torch._transformer_encoder_layer_fwd``, the fused nn.TransformerEncoderLayer."""
    if src.is_nested:
        return AttentionCall(src, src, scale=1.0, function="nn.TransformerEncoderLayer")
    dim, heads, qkv_weight, qkv_bias = arguments[:4]
    norm_first, eps, norm_weight, norm_bias = arguments[7:11]
    tokens = src
    if norm_first:
        tokens = torch.nn.functional.layer_norm(src, (dim,), norm_weight, norm_bias, eps)
    mask, kind = (*arguments[17:19], None, None)[:2]
    mask = None if mask is None else mask.bool()  # as the fused layer does with numbers
    if kind == 2 and mask is not None and mask.ndim == 3:
        mask = mask[:, None]
    masks: tuple[Any, Any] = (None, mask) if kind == 1 else (mask, None)  # 1 is padding
    weights, biases = qkv_weight.chunk(3)[:2], qkv_bias.chunk(3)[:2]
    return _project((tokens, tokens), weights, biases, heads, masks, "nn.TransformerEncoderLayer")


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
