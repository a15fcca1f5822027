"""Attention in the layout of Wan: (batch, tokens, heads, dim)."""

import torch
import torch.nn.functional as F  # noqa: N812


def attention(
    q, k, v, q_lens=None, k_lens=None, dropout_p=0.0, softmax_scale=None, q_scale=None,
    causal=False, window_size=(-1, -1), deterministic=False, dtype=torch.bfloat16, fa_version=None,
):  # fmt: skip
    parts = (part.transpose(1, 2).to(dtype) for part in (q, k, v))
    out = F.scaled_dot_product_attention(*parts, is_causal=causal, dropout_p=dropout_p)
    return out.transpose(1, 2).type(q.dtype)
