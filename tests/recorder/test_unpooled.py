"""Axes that stay tokens, parts by name, words: against a softmax in float64 over all tokens."""

import re
import warnings

import numpy as np
import pytest
import torch

from headgrid import (
    HeadgridWarning,
    OptionError,
    RecordError,
    load_capture,
    record,
    record_runs,
    segment_table,
)

pytestmark = pytest.mark.usefixtures("watched")

TEXT, FRAMES, SIZE = 5, 4, 3
TOKENS = TEXT + FRAMES * SIZE
PARTS = {"text": (0, TEXT), "video": (TEXT, TOKENS, SIZE)}
WORDS = ["a", "red", "</script>", "猫", ""]


class Joint(torch.nn.Module):
    """Text and video tokens that all see each other, two heads."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, tokens, context=None):
        context = tokens if context is None else context
        q, k = (
            part.unflatten(-1, (2, 4)).transpose(1, 2)
            for part in (self.to_q(tokens), self.to_k(context))
        )
        self.tapped = (q.double() @ k.double().transpose(2, 3) / 2.0)[0].detach().numpy()
        return torch.nn.functional.scaled_dot_product_attention(q, k, k)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Joint()


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def recorded(model, *inputs, **options):
    with record(model, **options) as recording, torch.no_grad():
        model(*inputs)
    (capture,) = recording.captures
    return capture


def pooled(weights, queries, keys):
    """Sum masses over key spans, mean over query spans."""
    columns = np.stack([weights[:, :, a:b].sum(axis=2) for a, b in keys], axis=2)
    return np.stack([columns[:, a:b].mean(axis=1) for a, b in queries], axis=1)


SINGLE = [(n, n + 1) for n in range(TOKENS)]
PLACES = [(0, TEXT), *((n, n + SIZE) for n in range(TEXT, TOKENS, SIZE))]


@pytest.mark.parametrize(
    ("pool", "queries", "keys"),
    [
        ("both", PLACES, PLACES),
        ("queries", PLACES, SINGLE),
        ("keys", SINGLE, PLACES),
        ("none", SINGLE, SINGLE),
    ],
)
def test_each_axis_is_pooled_or_left_as_tokens(model, pool, queries, keys):
    tokens = torch.randn(1, TOKENS, 8)
    capture = recorded(model, tokens, segments=PARTS, pool=pool, statistic="mass")
    expected = pooled(softmax(model.tapped), queries, keys)
    np.testing.assert_allclose(capture.full_frame_attention, expected, atol=1e-6)
    names = {4 + 1: "Place", TOKENS: "Token"}
    assert capture.query_name == names[len(queries)]
    assert capture.key_name == names[len(keys)]
    whole = pooled(softmax(model.tapped), *[[(0, TEXT), (TEXT, TOKENS)]] * 2)
    sums = segment_table(capture).pivot_table(
        index=["head", "query_segment"], columns="key_segment", values="mass"
    )
    np.testing.assert_allclose(sums.to_numpy().reshape(2, 2, 2), whole, atol=1e-6)


def test_cross_attention_of_frames_and_the_words_of_the_prompt(model):
    video, text = torch.randn(1, FRAMES * SIZE, 8), torch.randn(1, TEXT, 8)
    options = {"attention": "cross", "tokens_per_frame": SIZE, "pool": "queries"}
    for statistic in ("mass", "logit"):
        capture = recorded(
            model, video, text, **options, key_labels=WORDS, statistic=statistic, layers="*"
        )
        assert capture.key_labels == tuple(WORDS)
        assert (capture.query_name, capture.key_name) == ("Frame", "Token")
        values = softmax(model.tapped) if statistic == "mass" else model.tapped
        expected = values.reshape(2, FRAMES, SIZE, TEXT).mean(axis=2)
        np.testing.assert_allclose(capture.full_frame_attention, expected, atol=1e-6)


def test_words_stand_at_the_tokens_of_the_text(model):
    capture = recorded(
        model,
        torch.randn(1, TOKENS, 8),
        segments={"text": (0, TEXT, 1), "video": (TEXT, TOKENS, SIZE)},
        key_labels=WORDS,
        query_labels=WORDS,
    )
    expected = (*WORDS, *(f"video {n}" for n in range(FRAMES)))
    assert capture.key_labels == capture.query_labels == expected
    assert [tuple(part) for part in capture.key_parts] == [("text", 0, 5), ("video", 5, 9)]


def test_words_that_are_too_few_are_left_out_with_a_warning(model):
    with pytest.warns(HeadgridWarning, match="key_labels lists 2 words for 17 tokens"):
        capture = recorded(model, torch.randn(1, TOKENS, 8), pool="none", key_labels=["a", "b"])
    assert capture.key_labels is None


def test_memory_is_refused_before_it_is_taken(model):
    tokens = torch.randn(1, TOKENS, 8)
    with pytest.raises(RecordError, match=re.escape("17 x 17 pairs of 2 heads in 1 layers take")):
        recorded(model, tokens, pool="none", memory=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded(model, tokens, pool="none", memory=1e-4)


@pytest.mark.parametrize(
    "parts",
    [
        *({}, {"a": (0, 5, 2)}, {"a": (3, 3)}, {"a": (0, 5), "b": (4, 9)}, {"a": 5}),
        *({"a": (0, "x")}, {"a": (0, 2.5)}, {"a": "05"}, {"a": (0, float("inf"))}),
    ],
)
def test_parts_that_can_not_be_are_refused(model, parts):
    with pytest.raises(OptionError, match="segments"):
        recorded(model, torch.randn(1, TOKENS, 8), segments=parts)


@pytest.mark.parametrize(
    ("labels", "said"),
    [("words", "is 'words'"), (5, "is 5"), (iter("ab"), "is <"), (["a", None], "holds None")],
)
def test_labels_that_can_not_be_are_refused_before_the_model_runs(labels, said):
    with pytest.raises(OptionError, match=f"^key_labels {said}"), record(key_labels=labels):
        pytest.fail("the model runs")


def test_runs_have_the_words_of_their_own_prompt(model, tmp_path):
    def generate(prompt, seed):
        model(torch.randn(1, len(prompt), 8))

    options = {"pool": "none", "tokens_per_frame": 1}
    record_runs(model, ["red", "a cat"], generate, tmp_path, key_labels=list, **options)
    assert load_capture(tmp_path / "run_000/layer0.pt").key_labels == ("r", "e", "d")
    assert load_capture(tmp_path / "run_001/layer0.pt").key_labels == tuple("a cat")
    with pytest.raises(OptionError, match="key_labels is one list for 2 prompts"):
        record_runs(model, ["red", "cat"], generate, tmp_path, key_labels=["r"], **options)
