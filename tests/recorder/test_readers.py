"""Readers of libraries that need a GPU -> right layouts, tested with stand-ins.

Calls are those of flash-attn 2.8, FlashAttention 3 and 4, SageAttention 2.2, SpargeAttn 0.1,
torch 2.13, xformers 0.0.32 and Wan 2.1.
"""

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recorder_brute import (
    all_logits,
    assert_exact,
    causal,
    equal_frames,
    largest_difference,
    mean_by_frame,
)
from torch import nn

from headgrid.errors import OptionError
from headgrid.recorder import AttentionCall, RecordError, record
from headgrid.recorder.read.modules import read_transformers
from headgrid.recorder.sum import softmax

TOKENS, FRAMES, HEADS, DIM = 4, 3, 4, 8
LENGTH = TOKENS * FRAMES
SPANS = equal_frames(FRAMES, TOKENS)


def tokens_first(heads: int = HEADS, length: int = LENGTH, batch: int = 1, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, heads, DIM, generator=generator)


def matrix_of(q: torch.Tensor, k: torch.Tensor, seen: torch.Tensor | None = None) -> np.ndarray:
    logits = all_logits(q.transpose(1, 2), k.transpose(1, 2))[0]
    return mean_by_frame(logits, SPANS, SPANS, seen)


@pytest.fixture
def attend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that calls a stand-in by its dotted path and returns what it records."""

    def call(path: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
        library, _, name = path.rpartition(".")
        module: Any = types.ModuleType(library)
        signature = SIGNATURES.get(name if "cute" not in library else f"cute.{name}")
        setattr(module, name, eval(f"lambda {signature or '*args, **kwargs'}: None"))
        monkeypatch.setitem(sys.modules, library, module)
        with record(**{"tokens_per_frame": TOKENS, **(options or {})}) as recording:
            getattr(module, name)(*args, **kwargs)
        return recording.captures[0]

    return call


_SAGE = "q, k, v, tensor_layout='HND', is_causal=False, "
_SPARGE = (
    "q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, smooth_k=True, "
    "simthreshd1=0.6, cdfthreshd=0.98, {}pvthreshd=50, attention_sink=False, tensor_layout='HND', "
    "output_dtype=None, return_sparsity=False, return_lse=False"
)
_CUTE = (
    "softmax_scale=None, causal=False, window_size=(None, None), learnable_sink=None, softcap=0.0, "
    "num_splits=1, pack_gqa=None, deterministic=False, score_mod=None, score_mod_bwd=None, "
    "mask_mod=None, aux_tensors=None, block_sparse_tensors=None, return_lse=False"
)
#: As the packages publish them.
SIGNATURES = {
    "flash_attn_with_kvcache": "q, k_cache, v_cache, k=None, v=None, rotary_cos=None, "
    "rotary_sin=None, cache_seqlens=None, cache_batch_idx=None, cache_leftpad=None, "
    "block_table=None, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, "
    "rotary_interleaved=True, alibi_slopes=None, num_splits=0, return_softmax_lse=False",
    "sageattn": _SAGE + "sm_scale=None, return_lse=False, **kwargs",
    "sageattn_varlen": "q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, "
    "is_causal=False, sm_scale=None, smooth_k=True, **kwargs",
    "sageattn_qk_int8_pv_fp16_triton": "q, k, v, tensor_layout='HND', "
    "quantization_backend='triton', is_causal=False, sm_scale=None, smooth_k=True, "
    "return_lse=False, **kwargs",
    "sageattn_qk_int8_pv_fp8_cuda_sm90": _SAGE + "qk_quant_gran='per_thread', sm_scale=None, "
    "pv_accum_dtype='fp32+fp32', smooth_k=True, return_lse=False, **kwargs",
    "spas_sage2_attn_meansim_cuda": _SPARGE.format(""),
    "spas_sage2_attn_meansim_topk_cuda": _SPARGE.format("topk=0.35, "),
    "block_sparse_sage2_attn_cuda": "q, k, v, mask_id=None, dropout_p=0.0, scale=None, "
    "smooth_k=True, pvthreshd=50, attention_sink=False, tensor_layout='HND'",
    "varlen_attn": "query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, "
    "scale=None, window_size=(-1, -1), enable_gqa=False, seqused_k=None, block_table=None, "
    "num_splits=None",
    "cute.flash_attn_func": f"q, k, v, qv=None, gather_kv_indices=None, {_CUTE}",
    "cute.flash_attn_varlen_func": "q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, "
    "max_seqlen_q=None, max_seqlen_k=None, min_seqlen_k=None, seqused_q=None, seqused_k=None, "
    f"gather_kv_indices=None, page_table=None, {_CUTE}",
}


class LowerTriangularMask:
    pass


class BlockDiagonalCausalMask:
    q_seqinfo = k_seqinfo = types.SimpleNamespace(seqstart_py=[0, LENGTH])


FLASH, FLASH3 = "flash_attn.flash_attn_func", "flash_attn_interface.flash_attn_func"
VARLEN, WAN = "flash_attn.flash_attn_varlen_func", "wan.modules.attention.flash_attention"
XFORMERS = "xformers.ops.memory_efficient_attention"
Q, K, GROUPED = tokens_first(), tokens_first(seed=1), tokens_first(heads=2, seed=1)
LONG_Q, LONG_K = tokens_first(length=8 + LENGTH), tokens_first(length=8 + LENGTH, seed=1)
PAIR = GROUPED[:, :, :, None].expand(-1, -1, -1, 2, -1)
ENDS = torch.tensor([0, 8, 8 + LENGTH], dtype=torch.int32)
SEQUENCES = (ENDS, ENDS, LENGTH, LENGTH)
LENGTHS = {"q_lens": torch.tensor([LENGTH]), "k_lens": torch.tensor([LENGTH])}
CAUSAL = causal(LENGTH, LENGTH)
SECOND = LONG_Q[:, 8:], LONG_K[:, 8:]


def read_mix(tokens: Any, *, context: Any) -> AttentionCall:
    return AttentionCall(tokens.transpose(1, 2), context.transpose(1, 2), scale=1.0)


def case(path: str, *args: Any, expected: Any = None, **kwargs: Any) -> tuple[Any, ...]:
    return path, args, kwargs, expected


WINDOW = CAUSAL & ~causal(LENGTH, LENGTH, -6)
PACKED = (LONG_Q[0], LONG_K[0], LONG_K[0], *SEQUENCES)
ADDED = torch.where(CAUSAL, 0.0, -torch.inf)[None, None]
UNPADDED = (LONG_Q[:, :LENGTH], LONG_K[:, :LENGTH])
SAGE, SPARGE = "sageattention.sageattn", "spas_sage_attn.spas_sage2_attn_meansim"
TORCH, CUTE = "torch.nn.attention.varlen.varlen_attn", "flash_attn.cute.flash_attn"
FIRST = tuple(part.transpose(1, 2) for part in (Q, K, K))  # heads first
SECOND_ALONE = {"options": {"batch": 1}}
MIX, CACHE = "my_model.layers.mix", "flash_attn.flash_attn_with_kvcache"
CACHED, NEW = tokens_first(length=LENGTH + 5, seed=1), tokens_first(length=2, seed=3)
GROWN = torch.cat([CACHED[:, : LENGTH - 2], NEW], dim=1)
CALLS = {
    "grouped heads": case(FLASH, Q, GROUPED, GROUPED, expected=(Q, GROUPED)),
    "a window": case(FLASH, Q, K, K, 0.0, None, True, (5, 0), expected=(Q, K, WINDOW)),
    "packed": case(
        "flash_attn.flash_attn_qkvpacked_func", torch.stack([Q, K, K], 2), expected=(Q, K)
    ),
    "packed keys": case(
        "flash_attn.flash_attn_kvpacked_func", Q, torch.stack([K, K], 2), expected=(Q, K)
    ),
    "sequences": case(VARLEN, *PACKED, options={"batch": 1}, expected=SECOND),
    "causal sequences": case(
        VARLEN, *PACKED, causal=True, options={"batch": 1}, expected=(*SECOND, CAUSAL)
    ),
    "a cache": case(
        CACHE, Q, CACHED, CACHED, cache_seqlens=LENGTH, expected=(Q, CACHED[:, :LENGTH])
    ),
    "a cache that grows": case(
        CACHE,
        Q,
        CACHED,
        CACHED,
        NEW,
        NEW,
        cache_seqlens=torch.tensor([LENGTH - 2], dtype=torch.int32),
        causal=True,
        expected=(Q, GROWN, CAUSAL),
    ),
    "a cache that begins": case(
        CACHE,
        Q,
        CACHED,
        CACHED,
        Q,
        Q,
        cache_seqlens=0,
        softmax_scale=1.0,
        expected=(Q * DIM**0.5, Q),
    ),
    "a cache of another fill": case(
        CACHE,
        LONG_Q[:, :LENGTH].expand(2, -1, -1, -1),
        torch.cat([CACHED, CACHED]),
        None,
        cache_seqlens=torch.tensor([LENGTH + 4, LENGTH]),
        options={"batch": 1, "layers": "*"},
        expected=(LONG_Q[:, :LENGTH], CACHED[:, :LENGTH]),
    ),
    "flash-attn 3": case(FLASH3, Q, K, K, None, True, num_splits=1, expected=(Q, K, CAUSAL)),
    "triangle": case(XFORMERS, Q, K, K, LowerTriangularMask(), expected=(Q, K, CAUSAL)),
    "numbers": case(XFORMERS, Q, K, K, attn_bias=ADDED, expected=(Q, K, CAUSAL)),
    "blocks": case(XFORMERS, Q, K, K, BlockDiagonalCausalMask(), expected=(Q, K, CAUSAL)),
    "groups": case(XFORMERS, Q.unflatten(2, (2, 2)), PAIR, PAIR, p=0.1, expected=(Q, GROUPED)),
    "groups of different keys": case(
        XFORMERS, *(part.unflatten(2, (2, 2)) for part in (Q, K, K)), expected=(Q, K)
    ),
    "padding": case(WAN, LONG_Q, LONG_K, LONG_K, **LENGTHS, expected=UNPADDED),
    "scaled": case(WAN, Q, K, K, q_scale=2.0, expected=(2 * Q, K)),
    "sage": case(SAGE, *FIRST, sm_scale=1.0, expected=(Q * DIM**0.5, K)),
    "sage, tokens first": case(SAGE, Q, K, K, "NHD", True, expected=(Q, K, CAUSAL)),
    "sage on sm86": case(f"{SAGE}_qk_int8_pv_fp16_triton", *FIRST, "HND", "cuda", expected=(Q, K)),
    "sage on sm90": case(
        f"{SAGE}_qk_int8_pv_fp8_cuda_sm90",
        *FIRST,
        "HND",
        True,
        "per_warp",
        1.0,
        expected=(Q * DIM**0.5, K, CAUSAL),
    ),
    "sage sequences": case(
        f"{SAGE}_varlen", *PACKED, True, **SECOND_ALONE, expected=(*SECOND, CAUSAL)
    ),
    "sparge": case(f"{SPARGE}_cuda", *FIRST, is_causal=True, pvthreshd=20, expected=(Q, K, CAUSAL)),
    "sparge, the best": case(
        f"{SPARGE}_topk_cuda",
        Q,
        K,
        K,
        topk=0.5,
        scale=1.0,
        tensor_layout="NHD",
        expected=(Q * DIM**0.5, K),
    ),
    "torch's sequences": case(
        TORCH, *PACKED, window_size=(-1, 0), **SECOND_ALONE, expected=(*SECOND, CAUSAL)
    ),
    "flash-attn 4": case(
        f"{CUTE}_func", Q, GROUPED, GROUPED, causal=True, expected=(Q, GROUPED, CAUSAL)
    ),
    "flash-attn 4, a window": case(
        f"{CUTE}_func",
        Q,
        K,
        K,
        window_size=(5, 0),
        learnable_sink=torch.ones(HEADS),
        expected=(Q, K, WINDOW),
    ),
    "flash-attn 4 sequences": case(
        f"{CUTE}_varlen_func", *PACKED[:3], None, *SEQUENCES, **SECOND_ALONE, expected=SECOND
    ),
    "the user's reader": case(
        MIX, Q, context=K, options={"functions": {MIX: read_mix}}, expected=(Q * DIM**0.5, K)
    ),
}
ERRORS = {
    r"different lengths .*8x8, 12x12.*batch=0 \.\.\. 1": case(
        VARLEN, *PACKED, options={"batch": "mean"}
    ),
    "attn_bias PagedMask, expected a tensor or one of": case(
        XFORMERS, Q, Q, Q, type("PagedMask", (), {})()
    ),
    "arguments do not fit the reader .*'query'": case(
        MIX, query=1, options={"functions": {MIX: lambda x: x}}
    ),
    r"functions names my_model\.attend, but no module": case(
        FLASH, Q, Q, Q, options={"functions": {"my_model.attend": "flash"}}
    ),
    r"functions\['a.b'\] is 'flahs'.*did you mean 'flash'": case(
        FLASH, Q, Q, Q, options={"functions": {"a.b": "flahs"}}
    ),
    "unexpected keyword argument 'sm_scale'": case(
        MIX, Q, K, K, sm_scale=1.0, options={"functions": {MIX: "heads_last"}}
    ),
    "unexpected keyword argument 'attn_mask'": case(SAGE, *FIRST, attn_mask=ADDED),
    "unexpected keyword argument 'mask_id'": case(
        "spas_sage_attn.block_sparse_sage2_attn_cuda", *FIRST, torch.ones(1)
    ),
    "unexpected keyword argument 'score_mod'": case(f"{CUTE}_func", Q, K, K, score_mod=max),
    "unexpected keyword argument 'page_table'": case(
        f"{CUTE}_varlen_func", *PACKED[:3], None, *SEQUENCES, page_table=ENDS
    ),
    "flash_attn_with_kvcache: .* unexpected keyword argument 'block_table'.*pass functions=": case(
        CACHE, Q, CACHED, CACHED, block_table=ENDS
    ),
    "unexpected keyword argument 'rotary_cos'": case(CACHE, Q, CACHED, CACHED, Q, Q, ADDED, ADDED),
    "called causally with 8 query and 12 key tokens, expected as many": case(
        SAGE, FIRST[0][:, :, 4:], *FIRST[1:], "HND", True
    ),
    "dispatch_attention_fn was called causally with 8 query and 12 key tokens, expected": case(
        "diffusers.models.attention_dispatch.dispatch_attention_fn",
        Q[:, TOKENS:],
        K,
        K,
        is_causal=True,
    ),
    "unexpected keyword argument 'softmax_bias'": case(
        "diffusers.models.attention_dispatch.dispatch_attention_fn",
        Q,
        K,
        K,
        attention_kwargs={"softmax_bias": 1.0},
    ),
    "unexpected keyword argument 'alibi_slopes'": case(
        FLASH, Q, K, K, alibi_slopes=torch.ones(HEADS)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_libraries_are_read_exactly(attend: Any, name: str) -> None:
    path, args, kwargs, expected = CALLS[name]
    capture = attend(path, *args, **kwargs)
    assert largest_difference(capture.full_frame_attention, matrix_of(*expected)) < 1e-6


@pytest.mark.parametrize("text", ERRORS)
def test_calls_that_cannot_be_read_are_an_error(attend: Any, text: str) -> None:
    path, args, kwargs, _ = ERRORS[text]
    with pytest.raises((RecordError, OptionError), match=text):
        attend(path, *args, **kwargs)


def test_causal_flash_attention_is_aligned_to_the_last_tokens(attend: Any) -> None:
    q = Q[:, : 2 * TOKENS]
    capture = attend(FLASH, q, K, K, causal=True, options={"gaps": "keep", "layers": "*"})
    logits = all_logits(q.transpose(1, 2), K.transpose(1, 2))[0]
    expected = mean_by_frame(logits, SPANS[:2], SPANS, causal(2 * TOKENS, LENGTH, TOKENS))
    assert largest_difference(capture.full_frame_attention[:, 1:], expected) < 1e-6
    assert np.isnan(capture.full_frame_attention[:, 0]).all()


def test_attention_of_wan_without_flash_attention_is_read_by_what_torch_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attend(q: Any, k: Any, v: Any, k_lens: Any = None, q_scale: Any = None) -> Any:
        parts = (part.transpose(1, 2) for part in (q, k, v))
        return nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)

    module: Any = types.ModuleType("wan.modules.attention")
    module.attention = attend
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with record(tokens_per_frame=TOKENS, statistic="mass") as recording:
        module.attention(Q, K, K, k_lens=torch.tensor([2 * TOKENS]), q_scale=2.0)
    weights = all_logits(Q.transpose(1, 2), K.transpose(1, 2))[0].softmax(2)
    expected = TOKENS * mean_by_frame(weights, SPANS, SPANS)
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_diffusers_old_attention_scores_are_read() -> None:
    processor = pytest.importorskip("diffusers.models.attention_processor")
    attention = processor.Attention(
        query_dim=16, heads=2, dim_head=8, processor=processor.AttnProcessor()
    ).eval()
    x = torch.randn(1, LENGTH, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad(), record(attention, tokens_per_frame=TOKENS) as recording:
        attention(x)
    with torch.no_grad():
        q, k = (part(x).unflatten(2, (2, 8)) for part in (attention.to_q, attention.to_k))
    found = recording.captures[0].full_frame_attention
    assert largest_difference(found, matrix_of(q, k)) < 1e-6


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention_equals_its_own_weights(weights: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, HEADS, batch_first=batch_first).eval()
    x = torch.randn(2, LENGTH, 16)
    given = x if batch_first else x.transpose(0, 1)
    hidden = torch.zeros(2, LENGTH, dtype=torch.bool)
    hidden[1, -TOKENS:] = True
    run: Any = lambda **more: module(given, given, given, key_padding_mask=hidden, **more)  # noqa: E731
    with torch.no_grad():
        bare = run(need_weights=weights)[0]
        with record(module, tokens_per_frame=TOKENS, statistic="mass", batch=1) as recording:
            watched = run(need_weights=weights)[0]
        p = run(average_attn_weights=False)[1][1]
    assert torch.equal(bare, watched)
    expected = p.unflatten(2, (FRAMES, TOKENS)).sum(3).unflatten(1, (FRAMES, TOKENS)).mean(2)
    expected[:, :, -1] = torch.nan
    found = recording.captures[0].full_frame_attention
    assert largest_difference(found, expected.double().numpy()) < 1e-6


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fused_encoder_layer_equals_the_plain_one(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(1, LENGTH, 16)
    with torch.no_grad():
        bare = model(x)
        with record(model, tokens_per_frame=TOKENS) as fused:
            watched = model(x)
    with record(model, tokens_per_frame=TOKENS) as plain_layers:
        model(x)
    assert torch.equal(bare, watched)
    names = [r.captures[0].metadata["attention_function"] for r in (fused, plain_layers)]
    assert names == ["nn.TransformerEncoderLayer", "nn.MultiheadAttention"]
    assert plain_layers.captures[0].metadata["calls"] == 1  # that of the outermost function
    expected = [np.float64(c.full_frame_attention) for c in plain_layers.captures]
    assert_exact(fused.captures, expected, 1e-5)


def test_the_fused_encoder_layer_hides_wherever_a_mask_has_a_number() -> None:
    layer = nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True).eval()
    x = torch.randn(1, LENGTH, 16)
    mask = torch.zeros(LENGTH, LENGTH)
    mask[:, :TOKENS] = 0.5
    with torch.no_grad(), record(layer, tokens_per_frame=TOKENS, forwards="first") as recording:
        assert torch.equal(layer(x, src_mask=mask), layer(x, src_mask=mask.bool()))
    assert np.isnan(recording.captures[0].full_frame_attention[:, :, 0]).all()


def test_a_sequence_without_a_batch_may_have_padding() -> None:
    module, x = nn.MultiheadAttention(16, HEADS).eval(), torch.randn(LENGTH, 16)
    with torch.no_grad(), record(module, tokens_per_frame=TOKENS) as recording:
        module(x, x, x, key_padding_mask=torch.arange(LENGTH) < TOKENS)
    hidden = np.isnan(recording.captures[0].full_frame_attention)
    assert (
        hidden.all(axis=(0, 1)).tolist() == hidden.any(axis=(0, 1)).tolist() == [True, False, False]
    )


MODULE = types.SimpleNamespace(is_causal=True)


@pytest.mark.parametrize(
    ("window", "padded", "causal_too"),
    [(None, False, True), (5, False, True), (None, True, True), (3, False, False)],
)
def test_transformers_flash_attention_is_aligned_to_the_end(
    window: Any, padded: bool, causal_too: bool
) -> None:
    q, k = tokens_first(length=5).transpose(1, 2), tokens_first(seed=1).transpose(1, 2)
    attended = torch.ones(1, LENGTH, dtype=torch.long)
    attended[0, : TOKENS if padded else 0] = 0
    mask = attended if padded else None
    name = "flash_attention_2"
    more: Any = {"sliding_window": window, "scaling": 0.5, "is_causal": causal_too}
    call = read_transformers(name, MODULE, q, k, k, mask, **more)
    seen = causal(5, LENGTH, LENGTH - 5 + (0 if causal_too else window - 1))
    if window:
        seen &= ~causal(5, LENGTH, LENGTH - 5 - window)
    seen &= attended.bool()
    rows = softmax.score_rows(call, k[0, 0], torch.arange(5), 0, 0)
    assert torch.equal(rows[0] > -torch.inf, seen)
    assert torch.allclose(rows[0][seen], all_logits(q, k, 0.5)[0, 0][seen].float(), atol=1e-5)


def test_flash_attention_of_transformers_leaves_out_what_a_static_cache_does_not_hold() -> None:
    q, k = Q[:, :5].transpose(1, 2), K.transpose(1, 2)
    held = torch.ones(1, 8, dtype=torch.long)
    call = read_transformers("flash_attention_2", MODULE, q, k, k, held)
    rows = softmax.score_rows(call, call.key[0, 0].float(), torch.arange(5), 0, 0)
    assert torch.equal(rows[0] > -torch.inf, causal(5, 8, 3))


def test_the_window_of_transformers_reaches_as_far_as_its_version_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "modeling_flash_attention_utils"
    module = pytest.importorskip(f"transformers.{name}")
    q = Q.transpose(1, 2)

    def reach() -> Any:
        call = read_transformers("flash_attention_2", MODULE, q, q, q, sliding_window=5)
        return call.lower, call.upper

    def older(*sizes: Any, sliding_window: int, **others: Any) -> Any:
        return {"window_size": (sliding_window,) * 2}

    assert reach() == (-4, 0)
    monkeypatch.setattr(module, "_process_flash_attention_kwargs", older)
    assert reach() == (-5, 0)
    monkeypatch.delattr(module, "_process_flash_attention_kwargs")
    assert reach() == (-5, 0)


def test_a_registered_function_is_read_by_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = pytest.importorskip("transformers.modeling_utils").AttentionInterface

    def attend_all(module: Any, query: Any, key: Any, value: Any, mask: Any = None) -> Any:
        return nn.functional.scaled_dot_product_attention(query, key, value), None

    monkeypatch.setitem(interface._global_mapping, "mine", attend_all)
    q, k = Q.transpose(1, 2), K.transpose(1, 2)
    with record(tokens_per_frame=TOKENS) as recording:
        interface._global_mapping["mine"](MODULE, q, k, k)
    found = recording.captures[0].full_frame_attention
    assert largest_difference(found, matrix_of(Q, K)) < 1e-6


def test_sdpa_of_transformers_has_no_sinks() -> None:
    q, sinks = Q.transpose(1, 2), torch.ones(HEADS)
    for name, expected in (("sdpa", None), ("eager", sinks)):
        call = read_transformers(name, MODULE, q, q, q, s_aux=sinks)
        assert call.sink_logits is expected


def test_a_paged_cache_of_transformers_and_packed_sequences_are_errors() -> None:
    q = tokens_first().transpose(1, 2)
    places = torch.arange(LENGTH)[None] % TOKENS
    with pytest.raises(RecordError, match="position_ids that begin again"):
        read_transformers("flash_attention_2", MODULE, q, q, q, None, position_ids=places)
    with pytest.raises(TypeError, match="unexpected keyword argument 'cu_seq_lens_q'"):
        read_transformers("sdpa", MODULE, q, q, q, None, cu_seq_lens_q=ENDS)
    with pytest.raises(RecordError, match="paged cache"):
        read_transformers("paged|eager", MODULE, q, q, q, None)
