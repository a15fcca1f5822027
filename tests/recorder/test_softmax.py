"""Mass, entropy and max logit -> exact in bounded memory, against softmax in float64."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import all_logits, causal

from headgrid.recorder import RecordError, record
from headgrid.recorder.place.segments import Segments
from headgrid.recorder.read.call import AttentionCall
from headgrid.recorder.sum import softmax

FRAMES, TOKENS, HEADS = 5, 30, 4
LENGTH = FRAMES * TOKENS

pytestmark = pytest.mark.usefixtures("watched")


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statistic here is put together from many chunks."""
    monkeypatch.setattr(softmax, "ROW_CHUNK", 7 * LENGTH)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    q = 3 * torch.randn(1, HEADS, LENGTH, 16, generator=generator)
    return q.to(dtype), (2 * torch.randn(1, 2, LENGTH, 16, generator=generator)).to(dtype)


def recorded(statistic: str, is_causal: bool = False, **options: Any) -> Any:
    q, k = tensors(options.pop("dtype", torch.float32))
    with record(tokens_per_frame=TOKENS, statistic=statistic, **options) as recording:
        F.scaled_dot_product_attention(q, k, k, is_causal=is_causal, enable_gqa=True)
    return recording.captures[0]


def expected(statistic: str, is_causal: bool = False, dtype: Any = torch.float32) -> np.ndarray:
    logits = all_logits(*tensors(dtype))[0]
    if is_causal:
        logits = logits.masked_fill(~causal(LENGTH, LENGTH), -torch.inf)
    tiles = logits.unflatten(1, (FRAMES, TOKENS)).unflatten(3, (FRAMES, TOKENS))
    hidden = (tiles == -torch.inf).all(dim=4).all(dim=2)
    if statistic == "max_logit":
        values = tiles.amax(dim=(2, 4))
    else:
        p = logits.softmax(dim=2)
        values = p if statistic == "mass" else -torch.special.xlogy(p, p)
        values = values.unflatten(1, (FRAMES, TOKENS)).unflatten(3, (FRAMES, TOKENS))
        values = values.sum(dim=4).mean(dim=2)
    return values.masked_fill(hidden, torch.nan).numpy()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("statistic", ["mass", "entropy", "max_logit"])
def test_every_statistic_is_exact(statistic: str, is_causal: bool) -> None:
    assert np.abs(all_logits(*tensors()).numpy()).max() > 25
    found = recorded(statistic, is_causal).full_frame_attention
    np.testing.assert_allclose(found, expected(statistic, is_causal), rtol=0, atol=2e-5)


@pytest.mark.parametrize("statistic", ["logit", "mass", "entropy", "max_logit"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_query_that_is_no_number_is_an_error(statistic: str, number: float) -> None:
    q = torch.ones(1, 2, 6, 4)
    q[0, 1, 4, 2] = number
    with (
        pytest.raises(RecordError, match="query frame 1 or key frame 0 hold NaN or infinity"),
        record(tokens_per_frame=3, statistic=statistic),
    ):
        F.scaled_dot_product_attention(q, q.nan_to_num(0, 0), q)


def test_mass_in_bfloat16_sums_to_one() -> None:
    found = recorded("mass", dtype=torch.bfloat16).full_frame_attention
    np.testing.assert_allclose(found, expected("mass", dtype=torch.bfloat16), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.nansum(found, axis=2), 1.0, rtol=0, atol=1e-6)


def test_keys_in_no_frame_take_their_share_of_the_mass() -> None:
    q, k = tensors()
    bounds = [TOKENS, 3 * TOKENS, LENGTH]
    with record(segments=bounds, statistic="mass", gaps="keep") as recording:
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    rows = np.nansum(recording.captures[0].full_frame_attention, axis=2)
    p = all_logits(q, k)[0].softmax(dim=2)[:, TOKENS : 3 * TOKENS, TOKENS:]
    np.testing.assert_allclose(rows[:, 0], p.sum(2).mean(1).numpy(), rtol=0, atol=1e-6)


def test_a_learned_sink_takes_its_share_of_the_mass() -> None:
    q, k = tensors()
    sinks = torch.tensor([0.0, 4.0, 8.0, 20.0])
    call = AttentionCall(q, k, scale=0.25, sink_logits=sinks)
    slices = Segments.equal(TOKENS).slice_frames(((0, LENGTH),))
    sums = softmax.sum_softmax(call, slices, slices, "mass")
    logits = all_logits(q, k)[0]
    wide = torch.cat([logits, sinks.double()[:, None, None].expand(-1, LENGTH, 1)], dim=2)
    share = 1 - wide.softmax(dim=2)[:, :, -1].unflatten(1, (FRAMES, TOKENS)).mean(2)
    found = (sums.totals[0, 0].numpy() / sums.count[0]).sum(axis=2)
    np.testing.assert_allclose(found, share.numpy(), rtol=0, atol=1e-6)


def test_sampled_mass_lies_within_its_error_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    capture = recorded("mass", sample=10, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    off = np.abs(capture.full_frame_attention - expected("mass"))
    stated = capture.metadata["sampling_error_max"]
    assert 0 < off.max() < 5 * stated
    assert stated < 0.2
    assert capture.metadata["observation"]["sample"] == 10
    exact = recorded("mass", sample=TOKENS)
    np.testing.assert_allclose(exact.full_frame_attention, expected("mass"), rtol=0, atol=1e-6)
    assert exact.metadata["sampling_error_max"] == 0
