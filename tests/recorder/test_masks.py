"""Masks, biases and score functions -> exact means, or an error that says what to do."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import all_logits, causal, equal_frames, largest_difference, mean_by_frame
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from headgrid.recorder import AttentionCall, RecordError, record

FRAMES, TOKENS = 4, 6
LENGTH = FRAMES * TOKENS
SPANS = equal_frames(FRAMES, TOKENS)

pytestmark = [
    pytest.mark.usefixtures("watched"),
    pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile"),
]


def block_causal() -> torch.Tensor:
    return causal(FRAMES, FRAMES).repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)


def tensors(heads: int = 2, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    q = torch.randn(batch, heads, LENGTH, 8, generator=generator)
    return q, torch.randn(batch, heads, LENGTH, 8, generator=generator)


def recorded(q: torch.Tensor, k: torch.Tensor, options: Any = None, **mask: Any) -> np.ndarray:
    with record(tokens_per_frame=TOKENS, **(options or {})) as recording:
        F.scaled_dot_product_attention(q, k, k, **mask)
    found = recording.captures[0].full_frame_attention
    assert found is not None
    return found


SEEN = causal(LENGTH, LENGTH)
MASKS: dict[str, tuple[dict[str, Any], torch.Tensor]] = {
    "flag": ({"is_causal": True}, SEEN),
    "boolean": ({"attn_mask": SEEN}, SEEN),
    "numbers": ({"attn_mask": torch.where(SEEN, 0.0, -torch.inf)}, SEEN),
    "ten thousand": ({"attn_mask": torch.where(SEEN, 0.0, -1e4).bfloat16().float()}, SEEN),
    "minimum": ({"attn_mask": torch.where(SEEN, 0.0, torch.finfo(torch.float32).min)}, SEEN),
    "sliding window": (
        {"attn_mask": SEEN & ~causal(LENGTH, LENGTH, -8)},
        SEEN & ~causal(LENGTH, LENGTH, -8),
    ),
    "bias of torch": ({"attn_mask": causal_lower_right(LENGTH, LENGTH)}, SEEN),
    "frames": ({"attn_mask": block_causal()}, block_causal()),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_tokens_and_of_frames_are_exact_in_every_spelling(kind: str) -> None:
    q, k = tensors()
    mask, seen = MASKS[kind]
    expected = mean_by_frame(all_logits(q, k)[0], SPANS, SPANS, seen)
    assert np.isnan(expected[0]).any()
    assert largest_difference(recorded(q, k, **mask), expected) < 1e-6


def test_a_bias_that_is_constant_over_frame_pairs_is_added() -> None:
    q, k = tensors()
    bias = torch.randn(2, FRAMES, FRAMES, generator=torch.Generator().manual_seed(8))
    tokens = bias.repeat_interleave(TOKENS, 1).repeat_interleave(TOKENS, 2)
    expected = mean_by_frame(all_logits(q, k)[0] + tokens, SPANS, SPANS)
    assert largest_difference(recorded(q, k, attn_mask=tokens[None]), expected) < 1e-6


def test_a_bias_counts_only_where_the_bounds_of_a_call_let_pairs_be_seen() -> None:
    q, k = tensors()
    noise = torch.randn(LENGTH, LENGTH, generator=torch.Generator().manual_seed(8))
    bias = torch.where(SEEN, 0.25, noise)

    def causally(query: Any, key: Any, value: Any, **mask: Any) -> AttentionCall:
        return AttentionCall(query, key, scale=8**-0.5, upper=0, mask=bias[None, None])

    reader = {"torch.nn.functional.scaled_dot_product_attention": causally}
    expected = mean_by_frame(all_logits(q, k)[0] + 0.25, SPANS, SPANS, SEEN)
    assert largest_difference(recorded(q, k, {"functions": reader}), expected) < 1e-6


def test_masks_may_differ_between_batch_elements() -> None:
    q, k = tensors(batch=2)
    seen = torch.ones(2, 1, 1, LENGTH, dtype=torch.bool)
    seen[1, ..., :TOKENS] = False
    with record(tokens_per_frame=TOKENS, batch="all") as recording:
        F.scaled_dot_product_attention(q, k, k, attn_mask=seen)
    for element, capture in enumerate(recording.captures):
        wide = seen[element, 0].expand(LENGTH, LENGTH)
        expected = mean_by_frame(all_logits(q, k)[element], SPANS, SPANS, wide)
        assert largest_difference(capture.full_frame_attention, expected) < 1e-6


def test_masks_of_several_batch_axes_are_those_of_each_element() -> None:
    q, k = (part.unflatten(0, (2, 2)) for part in tensors(batch=4))
    seen = torch.ones(2, 1, 1, 1, LENGTH, dtype=torch.bool)
    seen[1, ..., :TOKENS] = False
    for mask, expected in ((seen, [0, 0, 1, 1]), (seen[:, 0], [0, 1, 0, 1])):
        with record(tokens_per_frame=TOKENS, batch="all") as recording:
            F.scaled_dot_product_attention(q, k, k, attn_mask=mask)
        hidden = [np.isnan(c.full_frame_attention[:, :, 0]).all() for c in recording.captures]
        assert hidden == expected


def test_the_function_of_a_mask_counts_all_tokens_of_a_packed_batch() -> None:
    def read(query: Any, key: Any, value: Any) -> AttentionCall:
        half = LENGTH // 2
        parts = ((0, half, 0, half), (half, LENGTH, half, LENGTH))
        sees: Any = lambda b, h, i, j: j >= half + TOKENS  # noqa: E731
        return AttentionCall(query, key, 1.0, mask_function=sees, sequences=parts, packed=True)

    q, k = tensors()
    functions = {"torch.nn.functional.scaled_dot_product_attention": read}
    found = recorded(q, k, {"functions": functions, "batch": 1})
    assert np.isnan(found).all(axis=(0, 1)).tolist() == [True, False]


def test_a_mask_of_another_shape_is_an_error() -> None:
    def read(query: Any, key: Any, value: Any, attn_mask: Any) -> AttentionCall:
        return AttentionCall(query, key, scale=1.0, mask=attn_mask)

    q, k = tensors()
    functions = {"torch.nn.functional.scaled_dot_product_attention": read}
    with pytest.raises(RecordError, match=r"mask that is \(24, 24\) after reading, expected one"):
        recorded(q, k, {"functions": functions}, attn_mask=SEEN)


def test_a_mask_that_cuts_frames_is_an_error_that_says_what_to_pass() -> None:
    q, k = tensors()
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    seen[:, 2] = False
    with pytest.raises(RecordError, match=r"hides 6 of 36 token pairs of query frame 0 and key"):
        recorded(q, k, attn_mask=seen)
    with pytest.raises(RecordError, match="irregular_mask='mean'"):
        recorded(q, k, attn_mask=torch.randn(LENGTH, LENGTH))


def test_an_irregular_mask_is_averaged_exactly_or_left_out_where_the_user_says_so() -> None:
    q, k = tensors()
    generator = torch.Generator().manual_seed(9)
    bias = torch.randn(LENGTH, LENGTH, generator=generator)
    bias[torch.rand(LENGTH, LENGTH, generator=generator) < 0.3] = -torch.inf
    expected = mean_by_frame(all_logits(q, k)[0] + bias, SPANS, SPANS, bias > -torch.inf)
    found = recorded(q, k, {"irregular_mask": "mean"}, attn_mask=bias)
    assert largest_difference(found, expected) < 1e-6
    found = recorded(q, k, {"irregular_mask": "ignore"}, attn_mask=bias)
    assert largest_difference(found, mean_by_frame(all_logits(q, k)[0], SPANS, SPANS)) < 1e-6


def test_flex_masks_and_additive_score_functions_are_read() -> None:
    q, k = tensors()

    def add_head(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return score + 0.5 * h

    mask = create_block_mask(
        lambda b, h, i, j: j // TOKENS <= i // TOKENS, 1, 1, LENGTH, LENGTH, device="cpu"
    )
    with record(tokens_per_frame=TOKENS) as recording:
        flex_attention(q, k, k, score_mod=add_head, block_mask=mask)
    logits = all_logits(q, k)[0] + 0.5 * torch.arange(2)[:, None, None]
    expected = mean_by_frame(logits, SPANS, SPANS, block_causal())
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_a_block_mask_without_a_function_is_an_error() -> None:
    q, k = (part.repeat_interleave(32, 2) for part in tensors())
    full = create_block_mask(lambda b, h, i, j: j <= i, 1, 1, 32 * LENGTH, 32 * LENGTH, "cpu")
    blocks = BlockMask.from_kv_blocks(full.full_kv_num_blocks, full.full_kv_indices)
    with (
        pytest.raises(
            RecordError, match=r"no mask_mod, which only .* pass mask_mod= to BlockMask.from_kv_blo"
        ),
        record(tokens_per_frame=32 * TOKENS),
    ):
        flex_attention(q, k, k, block_mask=blocks)


def test_a_mask_may_differ_between_heads() -> None:
    q, k = tensors()
    seen = torch.stack([block_causal(), torch.ones(LENGTH, LENGTH, dtype=torch.bool)]).flip(0)
    mask = create_block_mask(
        lambda b, h, i, j: (j // TOKENS <= i // TOKENS) | (h == 0), 1, 2, LENGTH, LENGTH, "cpu"
    )

    def run(call: Any, **options: Any) -> Any:
        with record(tokens_per_frame=TOKENS, **options) as recording:
            call()
        return recording.captures[0].full_frame_attention

    logits = all_logits(q, k)[0]
    expected = np.concatenate(
        [mean_by_frame(logits[h : h + 1], SPANS, SPANS, seen[h]) for h in range(2)]
    )
    hidden = seen.flip(0)[None]
    for call, means in (
        (lambda: flex_attention(q, k, k, block_mask=mask), expected),
        (lambda: F.scaled_dot_product_attention(q.flip(1), k.flip(1), k, hidden), expected[::-1]),
    ):
        with pytest.raises(RecordError, match="hides 36 of 36 token pairs of query frame 0"):
            run(call)
        assert largest_difference(run(call, irregular_mask="mean"), means) < 1e-6


def test_a_score_function_is_added_to_a_mask_of_numbers() -> None:
    q, k = tensors()
    bias = torch.randn(FRAMES, FRAMES, generator=torch.Generator().manual_seed(8))
    tokens = bias.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)

    def read(query: Any, key: Any, value: Any, attn_mask: Any) -> AttentionCall:
        more: Any = {"mask": attn_mask[None, None], "score_function": lambda s, b, h, i, j: s + h}
        return AttentionCall(query, key, scale=8**-0.5, **more)

    functions = {"torch.nn.functional.scaled_dot_product_attention": read}
    expected = mean_by_frame(
        all_logits(q, k)[0] + tokens + torch.arange(2)[:, None, None], SPANS, SPANS
    )
    found = recorded(q, k, {"functions": functions}, attn_mask=tokens)
    assert largest_difference(found, expected) < 1e-6


def test_a_score_function_that_does_more_than_add_is_an_error_or_averaged() -> None:
    q, k = tensors()

    def run(**options: Any) -> Any:
        with record(tokens_per_frame=TOKENS, **options) as recording:
            flex_attention(q, k, k, score_mod=lambda s, b, h, i, j: 2 * torch.tanh(s / 2))
        return recording.captures[0].full_frame_attention

    with pytest.raises(RecordError, match="does more than add"):
        run()
    expected = mean_by_frame(2 * torch.tanh(all_logits(q, k)[0] / 2), SPANS, SPANS)
    assert largest_difference(run(irregular_mask="mean"), expected) < 1e-6


def test_a_score_function_hides_with_large_numbers_whatever_is_recorded() -> None:
    q, k = tensors()
    seen = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(9)) < 0.7
    seen[:TOKENS, :TOKENS] = False
    with record(tokens_per_frame=TOKENS, irregular_mask="mean") as recording:
        flex_attention(q, k, k, score_mod=lambda s, b, h, i, j: torch.where(seen[i, j], s, -1e9))
    expected = mean_by_frame(all_logits(q, k)[0], SPANS, SPANS, seen)
    assert largest_difference(recording.captures[0].full_frame_attention, expected) < 1e-6


def test_another_mask_at_the_same_address_is_read_again() -> None:
    q, k = tensors()
    for hidden in range(FRAMES):
        mask = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool)
        mask[..., hidden * TOKENS : (hidden + 1) * TOKENS] = False
        found = recorded(q, k, attn_mask=mask)
        assert np.isnan(found[:, :, hidden]).all()
        del mask
