"""What caches keep of recorded masses, against the softmax of every token worked out in full."""

import numpy as np
import pytest

from headgrid import Capture, CaptureError, OptionError, budget_table
from headgrid.tables.budgets import drop_table, smallest_budgets
from synthetic import waves

BLOCKS, TOKENS = (1, 2, 3), 4
FRAMES = sum(BLOCKS)


def masses(heads=2, blocks=BLOCKS, *, shift=0.0, **options):
    """Return a capture of softmaxed waves that see the frames up to the end of their block."""
    frames = sum(blocks)
    ends = np.repeat(np.cumsum(blocks), blocks)
    seen = np.arange(frames) < ends[:, None]
    weights = np.exp(2 * waves(heads, frames, frames) + shift * np.arange(frames)) * seen
    mass = weights / weights.sum(axis=2, keepdims=True)
    return Capture.from_array(mass, block_sizes=list(blocks), statistic="mass", **options)


def kept_keys(seen, sink, size):
    """Return which of the visible keys a cache of so many keeps, one after the other."""
    chosen = seen[: min(sink, size)]
    for key in reversed(seen):
        if len(chosen) < size and key not in chosen:
            chosen = [*chosen, key]
    return chosen


def count_by_hand(capture, head, sink, size):
    """Return the shares of blocks that the two kinds of cache keep."""
    recent, best, start = [], [], 0
    for length in capture.block_sizes:
        rows = capture.head_matrix(head)[start : start + length]
        start += length
        both = []
        for row in rows.tolist():
            seen = [key for key, mass in enumerate(row) if mass == mass]
            if seen:
                total = sum(row[key] for key in seen)
                kept = sum(row[key] for key in kept_keys(seen, sink, size))
                large = sum(sorted((row[key] for key in seen), reverse=True)[:size])
                both.append((kept / total, large / total))
        if both:
            recent.append(sum(kept for kept, _ in both) / len(both))
            best.append(sum(large for _, large in both) / len(both))
    return {"sink+recent": recent, "best": best}


def punch(capture):
    """Return a capture without some of its pairs, a row, and a head."""
    mass = capture.full_frame_attention.copy()
    mass[0, 4, [1, 5]] = mass[0, 2] = mass[1] = np.nan
    return Capture.from_array(mass, block_sizes=capture.block_sizes, statistic="mass")


@pytest.mark.parametrize("sink", [0, 1, 3, 9])
def test_a_table_is_what_counting_key_by_key_gives(sink):
    runs = [punch(masses(3)).replace(run="a"), masses(3, shift=0.7, run="b")]
    table = budget_table(runs, sink=sink)
    assert len(table) == 2 * 3 * 2 * FRAMES
    for row in table.itertuples():
        capture = runs["ab".index(row.run)]
        shares = count_by_hand(capture, row.head, sink, row.frames)[row.policy]
        assert row.blocks == len(shares)
        told = row.mean, row.std, row.least
        if not shares:
            assert np.isnan(told).all()
            continue
        std = np.std(shares, ddof=1) if len(shares) > 1 else np.nan
        np.testing.assert_allclose(told, (np.mean(shares), std, min(shares)), atol=1e-12)


def test_curves_rise_to_exactly_one_and_no_cache_is_better_than_the_best():
    table = budget_table([masses(4), masses(4, (6,), layer=1), masses(4, (2,) * 9, layer=2)])
    for _, curve in table.groupby(["layer", "head", "policy"]):
        assert (curve["mean"].diff().dropna() >= 0).all()
        assert curve["frames"].tolist() == [*range(1, len(curve) + 1)]
        assert curve[["mean", "least"]].iloc[-1].tolist() == [1, 1]
    by_policy = table.pivot(index=["layer", "head", "frames"], columns="policy", values="mean")
    assert (by_policy["best"] >= by_policy["sink+recent"] - 1e-12).all()


@pytest.mark.parametrize("cache", [(1, 2), (2, 1), (0, 3)])
def test_the_kept_mass_is_that_of_a_model_with_the_cache_as_its_mask(cache):
    torch = pytest.importorskip("torch")
    from headgrid import record

    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 3, FRAMES * TOKENS, 8, dtype=torch.float64) for _ in range(3))
    q = 3 * q
    seen = np.arange(FRAMES) < np.repeat(np.cumsum(BLOCKS), BLOCKS)[:, None]
    kept = np.zeros_like(seen)
    for query, row in enumerate(seen):
        kept[query, kept_keys(np.flatnonzero(row).tolist(), cache[0], sum(cache))] = True
    whole, cut = (
        torch.tensor(np.kron(mask, np.ones((TOKENS, TOKENS))) > 0) for mask in (seen, kept)
    )
    functional = torch.nn.functional
    with record(tokens_per_frame=TOKENS, statistic="mass") as recording:
        functional.scaled_dot_product_attention(q, k, v, attn_mask=whole)
    (capture,) = recording.captures
    capture = Capture.from_array(capture.full_frame_attention, block_sizes=BLOCKS, statistic="mass")

    logits = q @ k.transpose(2, 3) / 8**0.5
    parts = [logits.masked_fill(~mask, -torch.inf).logsumexp(dim=3) for mask in (cut, whole)]
    by_hand = (parts[0] - parts[1]).exp()[0]
    # The cached model gives the same values, but for what its softmax no longer sums over.
    part = logits.masked_fill(~whole, -torch.inf).softmax(dim=3).masked_fill(~cut, 0) @ v
    of_model = (part / functional.scaled_dot_product_attention(q, k, v, attn_mask=cut)).mean(dim=3)[
        0
    ]
    np.testing.assert_allclose(of_model, by_hand, atol=1e-9)

    ends = np.cumsum(BLOCKS) * TOKENS
    blocks = np.stack(
        [block.mean(axis=1) for block in np.split(by_hand.numpy(), ends[:-1], axis=1)]
    )
    found = drop_table(capture, cache)
    np.testing.assert_allclose(found["mean"], blocks.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["dropped"], 1 - blocks.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["least"], blocks.min(axis=0), rtol=0, atol=1e-6)
    assert found["dropped"].min() > 0.01


def test_the_smallest_cache_is_the_first_that_is_enough_and_rounding_takes_nothing_from_it():
    mass = [[[0.85, 0.05, 0.06, 0.04]], [[0.05, 0.06, 0.04, 0.85]], [[np.nan] * 4]]
    table = budget_table(Capture.from_array(mass, statistic="mass"))
    found = smallest_budgets(table)
    sizes = found.pivot(index=["head", "policy"], columns="share", values="frames")
    assert sizes.columns.tolist() == [0.9, 0.95, 0.99]
    assert sizes.loc[0].loc["sink+recent"].tolist() == [3, 3, 4]
    assert sizes.loc[1].loc["sink+recent"].tolist() == [2, 4, 4]
    assert sizes.loc[1].loc["best"].tolist() == [2, 3, 4]
    assert set(found["head"]) == {0, 1}


def test_a_cache_larger_than_a_capture_drops_nothing_of_it_beside_a_larger_one():
    found = drop_table([masses(1, (2, 2)), masses(1, (3, 3, 3))], (1, 5))
    assert found["frames"].tolist() == [4, 6]
    assert found["dropped"].iloc[0] == 0 < found["dropped"].iloc[1]


@pytest.mark.parametrize(
    ("values", "statistic", "told"),
    [
        ([[0.5, 0.5]], "logit", r"holds logit, expected masses, .* --statistic mass"),
        ([[0.5, 0.5]], "mass_mean", "holds mass_mean, expected masses, token by token"),
        ([[0.5, 0.6]], "mass", r"masses from 0\.5, and up to 1\.1 in a row, expected 0 to 1"),
        ([[-0.1, 0.5]], "mass", r"head 0 has masses from -0\.1, and up to 0\.4 in a row"),
    ],
)
def test_what_holds_no_masses_is_refused(values, statistic, told):
    with pytest.raises(CaptureError, match=told):
        budget_table(Capture.from_array(values, statistic=statistic))


def test_what_can_not_be_told_is_refused():
    row = Capture.from_array(last_block=[[0.5, 0.5]], statistic="mass")
    with pytest.raises(CaptureError, match="full_frame_attention is absent, expected"):
        budget_table(row)
    with pytest.raises(CaptureError, match="there is no capture"):
        budget_table([])
    with pytest.raises(OptionError, match="sink is -1, expected a whole number"):
        budget_table(masses(), sink=-1)
