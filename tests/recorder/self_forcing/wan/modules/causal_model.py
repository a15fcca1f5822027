"""A small block-causal video model with a cache that the pipeline owns, and a tap on it."""

import math

import torch
from torch import nn
from wan.modules.attention import attention

#: (layer, frames of the queries, frames of the keys, q, k) of every call, as the cache has them.
TAP = []


class CausalWanSelfAttention(nn.Module):
    def __init__(self, number, dim, heads, local_attn_size, sink_size):
        super().__init__()
        self.number, self.heads, self.sink_size = number, heads, sink_size
        self.local_attn_size = local_attn_size
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x, grid_sizes, block_mask, kv_cache=None, current_start=0, cache_start=None):
        q, k, v = (f(x).unflatten(2, (self.heads, -1)) for f in (self.q, self.k, self.v))
        size = math.prod(grid_sizes[0][1:]).item()
        frames = [*range(current_start // size, (current_start + x.shape[1]) // size)]
        held = [frame for frame in kv_cache["frames"] if frame not in frames] + frames
        if self.local_attn_size != -1 and len(held) > self.local_attn_size:
            sinks = held[: self.sink_size]
            held = sinks + held[len(held) - self.local_attn_size + len(sinks) :]
        for frame, key, value in zip(frames, k.split(size, 1), v.split(size, 1), strict=True):
            kv_cache["k"][frame], kv_cache["v"][frame] = key, value
        kv_cache["frames"] = held
        k, v = (torch.cat([kv_cache[name][frame] for frame in held], 1) for name in "kv")
        TAP.append((self.number, frames, held, q.double(), k.double()))
        return attention(q, k, v, dtype=x.dtype).flatten(2)


class WanT2VCrossAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x, context, context_lens, crossattn_cache=None):
        q, k, v = (
            f(part).unflatten(2, (self.heads, -1))
            for f, part in ((self.q, x), (self.k, context), (self.v, context))
        )
        return attention(q, k, v, k_lens=context_lens, dtype=x.dtype).flatten(2)


class CausalWanAttentionBlock(nn.Module):
    def __init__(self, number, dim, heads, local_attn_size, sink_size):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.self_attn = CausalWanSelfAttention(number, dim, heads, local_attn_size, sink_size)
        self.cross_attn = WanT2VCrossAttention(dim, heads)

    def forward(
        self, x, e, grid_sizes, context, context_lens, block_mask,
        kv_cache=None, crossattn_cache=None, current_start=0, cache_start=None,
    ):  # fmt: skip
        y = self.norm(x) + e
        x = x + self.self_attn(y, grid_sizes, block_mask, kv_cache, current_start, cache_start)
        return x + self.cross_attn(self.norm(x), context, context_lens, crossattn_cache)


class CausalWanModel(nn.Module):
    def __init__(self, dim=16, heads=2, layers=3, patch_size=(1, 2, 2), window=-1, sink=0):
        super().__init__()
        self.patch_size = patch_size
        self.patch_embedding = nn.Conv3d(4, dim, kernel_size=patch_size, stride=patch_size)
        self.blocks = nn.ModuleList(
            CausalWanAttentionBlock(number, dim, heads, window, sink) for number in range(layers)
        )
        self.head = nn.Linear(dim, 4 * math.prod(patch_size))

    def forward(
        self, x, t, context, seq_len, kv_cache=None, crossattn_cache=None, current_start=0,
        cache_start=0,
    ):  # fmt: skip
        x = self.patch_embedding(x)
        grid_sizes = torch.tensor([x.shape[2:]] * len(x))
        tokens = x.flatten(2).transpose(1, 2)
        e = t.float().mean() / 1000
        for block, cache in zip(self.blocks, kv_cache, strict=True):
            lens = torch.tensor([context.shape[1]] * len(x))
            tokens = block(
                tokens, e, grid_sizes, context, lens, None, kv_cache=cache,
                current_start=current_start, cache_start=cache_start,
            )  # fmt: skip
        out = self.head(tokens).unflatten(1, tuple(grid_sizes[0].tolist()))
        b, f, h, w, _ = out.shape
        return (
            out.reshape(b, f, h, w, 2, 2, 4)
            .permute(0, 6, 1, 2, 4, 3, 5)
            .reshape(b, 4, f, 2 * h, 2 * w)
        )
