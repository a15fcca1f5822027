"""Readers of libraries that need a GPU -> right layouts, tested with stand-ins.

Calls are those of flash-attn 2.8, FlashAttention 3, xformers 0.0.32 and Wan 2.1.
"""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import all_logits, causal, equal_frames, largest_difference, mean_by_frame
from torch import nn

from headgrid.errors import OptionError
from headgrid.recorder import AttentionCall, RecordError, record
from headgrid.recorder.read.modules import transformers_reader
from headgrid.recorder.sum import softmax

TOKENS, FRAMES, HEADS, DIM = 4, 3, 4, 8
LENGTH = TOKENS * FRAMES
SPANS = equal_frames(FRAMES, TOKENS)


def tokens_first(heads: int = HEADS, length: int = LENGTH, batch: int = 1, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, heads, DIM, generator=generator)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[..., types.ModuleType]:
    """Return a function that puts a module of functions by these names into `sys.modules`."""

    def install(name: str, *functions: str) -> types.ModuleType:
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function, lambda *args, **kwargs: None)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def matrix_of(q: torch.Tensor, k: torch.Tensor, seen: torch.Tensor | None = None) -> np.ndarray:
    logits = all_logits(q.transpose(1, 2), k.transpose(1, 2))[0]
    return mean_by_frame(logits, SPANS, SPANS, seen)


def test_flash_attention_is_read_tokens_first_with_grouped_heads(library: Any) -> None:
    module = library("flash_attn", "flash_attn_func")
    q, k = tokens_first(), tokens_first(heads=2, seed=1)
    with record(tokens_per_frame=TOKENS) as recording:
        module.flash_attn_func(q, k, k)
    capture = recording.captures[0]
    assert largest_difference(capture.full_frame_attention, matrix_of(q, k)) < 1e-6
    assert capture.metadata["attention_function"] == "flash_attn"
    assert capture.metadata["num_key_heads"] == 2


def test_causal_flash_attention_is_aligned_to_the_last_tokens(library: Any) -> None:
    module = library("flash_attn", "flash_attn_func")
    q, k = tokens_first(length=2 * TOKENS), tokens_first(seed=1)
    with record(tokens_per_frame=TOKENS, gaps="keep", layers="*") as recording:
        module.flash_attn_func(q, k, k, causal=True)
    seen = causal(2 * TOKENS, LENGTH, TOKENS)
    logits = all_logits(q.transpose(1, 2), k.transpose(1, 2))[0]
    expected = mean_by_frame(logits, SPANS[:2], SPANS, seen)
    found = recording.captures[0].full_frame_attention
    assert found is not None
    assert largest_difference(found[:, 1:], expected) < 1e-6
    assert np.isnan(found[:, 0]).all()


def test_a_flash_window_is_read_and_a_bias_that_is_not_known_is_an_error(library: Any) -> None:
    module = library("flash_attn", "flash_attn_func")
    q, k = tokens_first(), tokens_first(seed=1)
    with record(tokens_per_frame=TOKENS) as recording:
        module.flash_attn_func(q, k, k, 0.0, None, True, (5, 0))
    expected = matrix_of(q, k, causal(LENGTH, LENGTH) & ~causal(LENGTH, LENGTH, -6))
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6
    with (
        pytest.raises(RecordError, match="unexpected keyword argument 'alibi_slopes'"),
        record(tokens_per_frame=TOKENS),
    ):
        module.flash_attn_func(q, k, k, alibi_slopes=torch.ones(HEADS))


def test_packed_flash_attention_is_unpacked(library: Any) -> None:
    module = library("flash_attn", "flash_attn_qkvpacked_func", "flash_attn_kvpacked_func")
    q, k = tokens_first(), tokens_first(seed=1)
    for call in (
        lambda: module.flash_attn_qkvpacked_func(torch.stack([q, k, k], dim=2)),
        lambda: module.flash_attn_kvpacked_func(q, torch.stack([k, k], dim=2)),
    ):
        with record(tokens_per_frame=TOKENS) as recording:
            call()
        found = recording.captures[0].full_frame_attention
        assert largest_difference(found, matrix_of(q, k)) < 1e-6


@pytest.mark.parametrize("is_causal", [False, True])
def test_varlen_flash_attention_is_cut_into_sequences(library: Any, is_causal: bool) -> None:
    module = library("flash_attn", "flash_attn_varlen_func")
    q, k = tokens_first(length=8 + LENGTH)[0], tokens_first(length=8 + LENGTH, seed=1)[0]
    ends = torch.tensor([0, 8, 8 + LENGTH], dtype=torch.int32)
    with record(tokens_per_frame=TOKENS, batch=1) as recording:
        module.flash_attn_varlen_func(q, k, k, ends, ends, LENGTH, LENGTH, causal=is_causal)
    seen = causal(LENGTH, LENGTH) if is_causal else None
    expected = matrix_of(q[None, 8:], k[None, 8:], seen)
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_sequences_of_different_length_are_no_one_matrix(library: Any) -> None:
    module = library("flash_attn", "flash_attn_varlen_func")
    q, ends = tokens_first(length=8 + LENGTH)[0], torch.tensor([0, 8, 8 + LENGTH])
    with (
        pytest.raises(RecordError, match=r"different lengths .*8x8, 12x12.*batch=0 \.\.\. 1"),
        record(tokens_per_frame=TOKENS, batch="mean"),
    ):
        module.flash_attn_varlen_func(q, q, q, ends, ends, LENGTH, LENGTH)


def test_flash_attention_3_has_its_own_argument_order(library: Any) -> None:
    module = library("flash_attn_interface", "flash_attn_func")
    q, k = tokens_first(), tokens_first(seed=1)
    with record(tokens_per_frame=TOKENS) as recording:
        module.flash_attn_func(q, k, k, None, True)
    expected = matrix_of(q, k, causal(LENGTH, LENGTH))
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


class LowerTriangularMask:
    pass


@dataclass
class SequenceInfo:
    seqstart_py: list[int]


@dataclass
class BlockDiagonalCausalMask:
    q_seqinfo: SequenceInfo
    k_seqinfo: SequenceInfo


def test_xformers_biases_are_read(library: Any) -> None:
    module = library("xformers.ops", "memory_efficient_attention")
    q, k = tokens_first(), tokens_first(seed=1)
    for bias in (
        LowerTriangularMask(),
        torch.where(causal(LENGTH, LENGTH), 0.0, -torch.inf)[None, None],
        BlockDiagonalCausalMask(SequenceInfo([0, LENGTH]), SequenceInfo([0, LENGTH])),
    ):
        with record(tokens_per_frame=TOKENS) as recording:
            module.memory_efficient_attention(q, k, k, attn_bias=bias)
        expected = matrix_of(q, k, causal(LENGTH, LENGTH))
        assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_xformers_groups_of_heads_are_read(library: Any) -> None:
    module = library("xformers.ops", "memory_efficient_attention")
    q, k = tokens_first(), tokens_first(heads=2, seed=1)
    expanded = k[:, :, :, None].expand(-1, -1, -1, 2, -1)
    with record(tokens_per_frame=TOKENS) as recording:
        module.memory_efficient_attention(q.unflatten(2, (2, 2)), expanded, expanded)
    found = recording.captures[0].full_frame_attention
    assert largest_difference(found, matrix_of(q, k)) < 1e-6


def test_an_unknown_xformers_bias_is_an_error(library: Any) -> None:
    module = library("xformers.ops", "memory_efficient_attention")
    q = tokens_first()
    with (
        pytest.raises(RecordError, match="attn_bias PagedMask, expected a tensor or one of"),
        record(tokens_per_frame=TOKENS),
    ):
        module.memory_efficient_attention(q, q, q, attn_bias=type("PagedMask", (), {})())


def test_wans_attention_is_ready_and_leaves_padding_out(library: Any) -> None:
    module = library("wan.modules.attention", "flash_attention")
    q, k = tokens_first(length=LENGTH + 3), tokens_first(length=LENGTH + 3, seed=1)
    lengths = torch.tensor([LENGTH])
    with record(tokens_per_frame=TOKENS) as recording:
        module.flash_attention(q, k, k, q_lens=lengths, k_lens=lengths, q_scale=2.0)
    expected = 2 * matrix_of(q[:, :LENGTH], k[:, :LENGTH])
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_a_function_named_by_dotted_path_is_read_by_the_users_reader(library: Any) -> None:
    module = library("my_model.layers", "mix")
    q, k = tokens_first(), tokens_first(seed=1)

    def read(tokens: Any, *, context: Any) -> AttentionCall:
        return AttentionCall(tokens.transpose(1, 2), context.transpose(1, 2), scale=1.0)

    with record(tokens_per_frame=TOKENS, functions={"my_model.layers.mix": read}) as recording:
        module.mix(q, context=k)
    expected = matrix_of(q, k) * DIM**0.5
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_a_reader_that_does_not_fit_is_named_with_the_arguments(library: Any) -> None:
    module = library("my_model.layers", "memory_efficient_attention")
    path = "my_model.layers.memory_efficient_attention"
    with (
        pytest.raises(RecordError, match=r"arguments do not fit the reader .*'query'"),
        record(tokens_per_frame=TOKENS, functions={path: lambda x: x}),
    ):
        module.memory_efficient_attention(query=1, key=2, value=3)


def test_a_named_function_that_was_never_loaded_is_an_error() -> None:
    q = tokens_first().transpose(1, 2)
    with (
        pytest.raises(RecordError, match=r"functions names my_model\.attend, but no module"),
        record(tokens_per_frame=TOKENS, functions={"my_model.attend": "flash"}),
    ):
        F.scaled_dot_product_attention(q, q, q)


def test_an_unknown_reader_name_is_an_error_with_a_near_miss() -> None:
    with (
        pytest.raises(OptionError, match=r"functions\['a.b'\] is 'flahs'.*did you mean 'flash'"),
        record(tokens_per_frame=TOKENS, functions={"a.b": "flahs"}),
    ):
        pass


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
    for one, other in zip(fused.captures, plain_layers.captures, strict=True):
        expected = np.asarray(other.full_frame_attention, dtype=np.float64)
        assert largest_difference(one.full_frame_attention, expected) < 1e-5


class FlashModule:
    """What transformers' flash attention is given as its module."""

    is_causal = True


@pytest.mark.parametrize(("window", "padded"), [(None, False), (5, False), (None, True)])
def test_transformers_flash_attention_is_causal_from_the_end(window: Any, padded: bool) -> None:
    def flash_attention_forward(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> Any:
        return query

    read = transformers_reader(flash_attention_forward, "flash_attention_2")
    q, k = tokens_first(length=5).transpose(1, 2), tokens_first(seed=1).transpose(1, 2)
    attended = torch.ones(1, LENGTH, dtype=torch.long)
    attended[0, : TOKENS if padded else 0] = 0
    call = read(
        FlashModule(), q, k, k, attended if padded else None, sliding_window=window, scaling=0.5
    )
    seen = causal(5, LENGTH, LENGTH - 5)
    if window:
        seen &= ~causal(5, LENGTH, LENGTH - 5 - window)
    seen &= attended.bool()
    rows = softmax.score_rows(call, k[0, 0], torch.arange(5), 0, 0)
    assert torch.equal(rows[0] > -torch.inf, seen)
    assert torch.allclose(rows[0][seen], all_logits(q, k, 0.5)[0, 0][seen].float(), atol=1e-5)


def test_a_paged_cache_of_transformers_is_an_error() -> None:
    def paged(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any) -> Any:
        return query

    q = tokens_first().transpose(1, 2)
    with pytest.raises(RecordError, match="paged cache"):
        transformers_reader(paged, "paged|eager")(FlashModule(), q, q, q, None)
