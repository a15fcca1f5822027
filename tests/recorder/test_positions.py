"""Calls of a cached, block-causal model -> which frame is which, or an error."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import largest_difference
from recorder_toy import BLOCK, FORWARDS, TOKENS, brute_matrices, build, toy
from torch import nn

from headgrid import load_capture
from headgrid.errors import OptionError
from headgrid.recorder import CallInfo, RecordError, SinkWindow, record
from headgrid.recorder.captures import copy_together, infer_blocks
from headgrid.recorder.place import fingerprints


def sink_and_window(sink: int, window: int) -> Any:
    def held(end: int) -> list[int]:
        if end <= window:
            return list(range(end))
        return [*range(sink), *range(end - (window - sink), end)]

    return held


@pytest.mark.parametrize(("forwards", "index"), [("first", 0), ("last", 4), (2, 2)])
def test_the_forward_that_counts_is_recorded(forwards: Any, index: int) -> None:
    model = build()
    with record(model, tokens_per_frame=TOKENS, forwards=forwards) as recording:
        toy.generate(model)
    assert [capture.layer_index for capture in recording.captures] == [0, 1, 2]
    for capture, expected in zip(recording.captures, brute_matrices(model, index), strict=True):
        assert capture.block_sizes == (3, 3, 3, 3)
        assert largest_difference(capture.full_frame_attention, expected) < 1e-6


def test_all_forwards_are_kept_apart_and_their_mean_is_their_mean() -> None:
    model = build()
    with record(model, tokens_per_frame=TOKENS, forwards="all") as every:
        toy.generate(model)
    with record(model, tokens_per_frame=TOKENS, forwards="mean") as mean:
        toy.generate(model)
    per_forward = [brute_matrices(model, index)[1] for index in range(FORWARDS)]
    found = [c for c in every.captures if c.layer_index == 1]
    assert [c.run for c in found] == [f"forward_{i:03d}" for i in range(FORWARDS)]
    for capture, expected in zip(found, per_forward, strict=True):
        assert largest_difference(capture.full_frame_attention, expected) < 1e-6
    average = np.mean(per_forward, axis=0)
    assert largest_difference(mean.captures[1].full_frame_attention, average) < 1e-6


def test_each_forward_is_saved_into_a_folder_of_its_own(tmp_path: Any) -> None:
    model = build()
    with record(model, tokens_per_frame=TOKENS, forwards="all", layers=[0, 2]) as recording:
        toy.generate(model)
    paths = recording.save(tmp_path)
    assert paths == sorted(tmp_path.glob("*/*.pt"))
    assert [path.parent.name for path in paths[::2]] == [
        f"forward_{i:03d}" for i in range(FORWARDS)
    ]
    loaded = load_capture(tmp_path / "forward_003" / "layer2.pt")
    assert loaded.metadata["forward"] == 3
    expected = brute_matrices(model, 3)[2]
    assert largest_difference(loaded.full_frame_attention, expected) < 1e-6


def test_the_model_is_undisturbed() -> None:
    model = build()
    bare = toy.generate(model)
    with record(model, tokens_per_frame=TOKENS, forwards="last", statistic="mass"):
        assert torch.equal(toy.generate(model), bare)


def test_repeated_forwards_without_a_rule_are_an_error() -> None:
    model = build()
    with (
        pytest.raises(RecordError, match=r"frames 0-2 \(tokens 0 to 36\) came a second time"),
        record(model, tokens_per_frame=TOKENS),
    ):
        toy.generate(model)


ROLLING = {
    "counted": {"query_position": f"counted:{FORWARDS}", "key_position": "sink:1,window:7"},
    "argument": {
        "query_position": "argument:current_start",
        "key_position": SinkWindow(sink=1, window=7),
    },
    "callables": {
        "query_position": lambda info: info.site.argument("current_start") // TOKENS,
        "key_position": lambda info: sink_and_window(1, 7)(info.query[-1][1] // TOKENS),
    },
}


@pytest.mark.parametrize("policy", ROLLING)
def test_a_declared_rolling_cache_records_the_exact_key_frames(policy: str) -> None:
    model = build(sink=1, window=7)
    options: Any = ROLLING[policy]
    with record(model, tokens_per_frame=TOKENS, forwards="last", **options) as recording:
        toy.generate(model, blocks=5)
    expected = brute_matrices(model, 4, 5, sink_and_window(1, 7))
    assert np.isnan(expected[0][0, 9, 1:6]).all()
    for capture, matrix in zip(recording.captures, expected, strict=True):
        assert largest_difference(capture.full_frame_attention, matrix) < 1e-6


@pytest.mark.parametrize(("sink", "window"), [(0, 6), (1, 7), (2, 5)])
def test_a_cache_that_rolls_undeclared_is_an_error(sink: int, window: int) -> None:
    model = build(sink=sink, window=window)
    with (
        pytest.raises(RecordError, match=r"the cache has rolled.*pass key_position="),
        record(model, tokens_per_frame=TOKENS, forwards="last"),
    ):
        toy.generate(model)


def test_a_wrong_count_of_forwards_is_an_error() -> None:
    model = build(sink=1, window=7)
    with (
        pytest.raises(RecordError, match=r"which is 72 key tokens .* but the call has 36"),
        record(
            model,
            tokens_per_frame=TOKENS,
            forwards="last",
            query_position="counted:4",
            key_position="sink:1,window:7",
        ),
    ):
        toy.generate(model)


def test_a_wrong_sink_is_an_error() -> None:
    model = build(sink=1, window=7)
    with (
        pytest.raises(RecordError, match="the keys of frames 1 are not those seen before"),
        record(
            model,
            tokens_per_frame=TOKENS,
            forwards="last",
            query_position="counted:5",
            key_position="sink:2,window:7",
        ),
    ):
        toy.generate(model)


def reencode(model: Any, layer: int) -> None:
    attention = model.blocks[layer].self_attn
    attention.keys = attention.keys * 1.01


def test_a_cache_that_is_encoded_again_is_an_error_unless_it_is_declared() -> None:
    model = build()

    def run() -> None:
        toy.generate(model, blocks=1)
        reencode(model, 0)
        with torch.no_grad():
            model(torch.zeros(1, 36, 32), torch.zeros(1, 12, 32), clean=True, current_start=36)

    with (
        pytest.raises(RecordError, match="frames 0, 1, 2 are not those seen before"),
        record(model, tokens_per_frame=TOKENS, forwards="last"),
    ):
        run()
    with record(model, tokens_per_frame=TOKENS, forwards="last", check_keys=False) as recording:
        run()
    assert recording.captures[0].block_sizes == (3, 3)


def test_a_device_that_runs_ahead_is_asked_once_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fingerprints, "runs_ahead", lambda device: True)
    model, steps = build(window=6), []
    model.register_forward_hook(lambda *_: steps.append(1))
    with (
        pytest.raises(RecordError, match="frames 0, 1, 2 are not those seen before"),
        record(model, tokens_per_frame=TOKENS, forwards="last"),
    ):
        toy.generate(model)
    assert len(steps) == 4 * FORWARDS
    model = build()
    with record(model, tokens_per_frame=TOKENS, forwards="last") as recording:
        toy.generate(model)
    assert len(recording.captures) == 3


def test_recording_from_the_middle_is_a_gap_unless_it_is_declared() -> None:
    model = build()
    run: Any = lambda: model(  # noqa: E731
        torch.zeros(1, 36, 32), torch.zeros(1, 12, 32), clean=True, current_start=36
    )
    toy.generate(model, blocks=1)
    with (
        pytest.raises(RecordError, match=r"frames 0, 1, 2 of 6 were never seen.*self_attn.* x1"),
        torch.no_grad(),
        record(model, tokens_per_frame=TOKENS),
    ):
        run()
    toy.generate(model, blocks=1)
    with torch.no_grad(), record(model, tokens_per_frame=TOKENS, gaps="keep") as recording:
        run()
    found = recording.captures[0].full_frame_attention
    assert found is not None
    assert np.isnan(found[:, :3]).all()
    assert not np.isnan(found[:, 3:]).any()


def test_cross_attention_takes_its_queries_from_self_attention() -> None:
    model = build()
    options: Any = {"attention": "cross", "key_tokens_per_frame": TOKENS}
    with record(model, tokens_per_frame=TOKENS, forwards="last", **options) as recording:
        toy.generate(model)
    expected = brute_matrices(model, 4, cross=True)
    for capture, matrix in zip(recording.captures, expected, strict=True):
        assert capture.metadata["module_path"].endswith("cross_attn")
        assert capture.block_sizes is None
        assert largest_difference(capture.full_frame_attention, matrix) < 1e-6


class Plain(nn.Module):
    """Attention in a module whose name says nothing."""

    def __init__(self, *lengths: tuple[int, int]) -> None:
        super().__init__()
        self.lengths = lengths
        self.mix = Mixer()

    def forward(self) -> None:
        for queries, keys in self.lengths:
            self.mix(queries, keys)


class Mixer(nn.Module):
    def forward(self, queries: int, keys: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        k = torch.randn(1, 1, keys, 4, generator=generator)
        return F.scaled_dot_product_attention(k[:, :, keys - queries :], k, k)


def test_without_a_name_equal_lengths_are_self_attention_and_later_ones_its_cache() -> None:
    model = Plain((8, 8), (4, 12))
    with record(model, tokens_per_frame=4) as recording:
        model()
    assert recording.captures[0].block_sizes == (2, 1)


def test_without_a_name_more_keys_than_queries_are_ambiguous() -> None:
    with pytest.raises(RecordError, match=r"4 query and 12 key tokens, which may be .*layers='mix"):
        run_plain((4, 12))


def run_plain(*lengths: tuple[int, int], **options: Any) -> Any:
    model = Plain(*lengths)
    with record(model, **{"tokens_per_frame": 4, **options}) as recording:
        model()
    return recording


def test_a_glob_settles_an_ambiguity() -> None:
    recording = run_plain((4, 12), layers="mix", gaps="keep")
    assert len(recording.captures) == 1


class TwoKinds(nn.Module):
    def forward(self) -> None:
        q, k = torch.randn(1, 1, 8, 4), torch.randn(1, 1, 4, 4)
        F.scaled_dot_product_attention(q, q, q)
        F.scaled_dot_product_attention(q, k, k)


def test_one_module_that_does_both_kinds_is_an_error() -> None:
    model = TwoKinds()
    with (
        pytest.raises(RecordError, match="computes both self- and cross-attention"),
        record(model, tokens_per_frame=4),
    ):
        model()


def test_blocks_that_overlap_without_being_the_same_are_an_error() -> None:
    with pytest.raises(RecordError, match=r"query frames 1-2 .* overlap queries seen before"):
        run_plain((8, 8), (8, 12), forwards="last")


def test_a_callable_that_returns_too_few_frames_is_an_error() -> None:
    def two_frames(info: CallInfo) -> list[int]:
        assert info.path == "mix"
        return [0, 1]

    text = "query_position returned [0, 1], which is 8 tokens, but the call has 12 query tokens"
    with pytest.raises(RecordError, match=re.escape(text)):
        run_plain((12, 12), query_position=two_frames)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"query_position": "growin"}, "did you mean 'growing'"),
        ({"query_position": "counted:0"}, "expected one of growing"),
        ({"query_position": "sink:1,window:6"}, "counted and argument place queries"),
        ({"key_position": "sink:6,window:6"}, "expected one of growing"),
        ({"key_position": 7}, "key_position is 7"),
        ({"forwards": "lats"}, "did you mean 'last'"),
        ({"forwards": "mean", "statistic": "max_logit"}, "a maximum has no mean"),
        ({"statistic": "logits"}, "did you mean 'logit'"),
        ({"batch": "men"}, "did you mean 'mean'"),
        ({"gaps": "drop"}, "expected one of error, keep"),
        ({"sample": 8}, "statistic 'mass' or 'entropy'"),
        ({"sample": 1, "statistic": "mass"}, "at least 2"),
        ({"layers": -1}, "layer numbers from 0"),
        ({"layers": []}, "layer numbers from 0"),
        ({"segments": [0, 4]}, "both given"),
        ({"tokens_per_frame": 0}, "whole number, at least 1"),
        ({"tokens_per_frame": None}, "frames are not given"),
        ({"attention": "cross"}, "key_tokens_per_frame=1"),
        ({"attention": "both"}, "expected one of self, cross"),
        ({"shard": "rows"}, "expected one of queries, sequence, heads"),
    ],
)
def test_an_option_that_cannot_be_says_what_can(option: Any, text: str) -> None:
    with (
        pytest.raises(OptionError, match=re.escape(text)),
        record(None, **{"tokens_per_frame": 4, **option}),
    ):
        pass


@pytest.mark.parametrize("segments", [[0, 9, 4], [(0, 4), (3, 8)], [5], [], [-1, 4], ["a", "b"]])
def test_segments_out_of_order_are_an_error(segments: Any) -> None:
    with (
        pytest.raises(OptionError, match="expected token positions"),
        record(None, segments=segments),
    ):
        pass


def test_tokens_per_frame_that_do_not_divide_are_an_error_with_what_would_fit() -> None:
    with pytest.raises(RecordError, match=r"12 query tokens .* 5 tokens .*3, 4 or 6 tokens"):
        run_plain((12, 12), tokens_per_frame=5)


def test_segments_that_end_inside_the_tokens_say_where_they_should_end() -> None:
    with pytest.raises(RecordError, match=r"never seen|would fit"):
        run_plain((12, 12), tokens_per_frame=None, segments=[0, 5, 14])


def test_globs_and_numbers_that_match_nothing_are_errors() -> None:
    with pytest.raises(OptionError, match="'mxi' matches none of the 2 module paths of Plain"):
        run_plain((12, 12), tokens_per_frame=4, layers="mxi")
    with pytest.raises(RecordError, match=r"layers=3 matches none of the 1 layers"):
        run_plain((12, 12), tokens_per_frame=4, layers=3)


def test_a_model_without_attention_is_an_error() -> None:
    model = nn.Linear(2, 2)
    with (
        pytest.raises(RecordError, match="no attention call was seen inside Linear"),
        record(model, tokens_per_frame=4),
    ):
        model(torch.zeros(1, 2))


def test_a_kind_of_attention_that_never_comes_is_an_error_with_the_sites() -> None:
    with pytest.raises(RecordError, match=r"no cross-attention was seen; .*mix \(scaled_dot"):
        run_plain((12, 12), tokens_per_frame=4, attention="cross", key_tokens_per_frame=1)


def test_two_models_without_a_choice_are_an_error_and_a_class_name_chooses() -> None:
    first, second = Plain((8, 8)), TwoKinds()

    def run_both() -> None:
        first()
        second()

    with (
        pytest.raises(RecordError, match="two models, Plain and TwoKinds; pass model="),
        record(tokens_per_frame=4),
    ):
        run_both()
    with record("Plain", tokens_per_frame=4) as recording:
        run_both()
    assert recording.captures[0].metadata["model_class"] == "Plain"


def test_a_pipeline_is_not_a_model_and_its_part_is_named() -> None:
    class Pipeline:
        transformer = Plain((8, 8))

    with (
        pytest.raises(OptionError, match=r"model is a Pipeline.*pass its \.transformer"),
        record(Pipeline(), tokens_per_frame=4),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("batch", [0, 1, -1, "mean", "all", None, 2])
def test_batch_elements_are_chosen_averaged_or_kept(batch: Any) -> None:
    x = torch.randn(2, 1, 8, 4, generator=torch.Generator().manual_seed(0))
    single = []
    for element in range(2):
        with record(tokens_per_frame=4) as recording:
            F.scaled_dot_product_attention(*(x[element : element + 1],) * 3)
        single.append(np.asarray(recording.captures[0].full_frame_attention))
    if batch in (None, 2):
        with (
            pytest.raises(RecordError, match="batch of 2"),
            record(tokens_per_frame=4, batch=batch),
        ):
            F.scaled_dot_product_attention(x, x, x)
        return
    with record(tokens_per_frame=4, batch=batch) as recording:
        F.scaled_dot_product_attention(x, x, x)
    found = [capture.full_frame_attention for capture in recording.captures]
    expected = {0: single[:1], 1: single[1:], -1: single[1:], "all": single}
    wanted = expected.get(batch, [np.mean(single, axis=0)])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [
        ([[1, 0, 0], [1, 1, 0], [1, 1, 1]], (1, 1, 1)),
        ([[1, 1, 0], [1, 1, 0], [1, 1, 1]], (2, 1)),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], (3,)),
        ([[1, 0, 0], [0, 1, 0], [1, 0, 1]], (1, 1, 1)),
        ([[1, 1, 0], [1, 1, 1], [1, 1, 1]], None),
        ([[1, 0, 0], [0, 0, 0], [1, 1, 1]], None),
        ([[1, 0], [1, 1], [1, 1]], None),
    ],
)
def test_block_sizes_are_inferred_from_what_was_seen(rows: Any, blocks: Any) -> None:
    assert infer_blocks(np.array(rows, dtype=bool)) == blocks


def test_matrices_are_copied_together_and_come_apart_again() -> None:
    shapes = [(1, 2, 3, 4), (1, 1, 1, 1), (2, 2, 2, 2)]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    copies = copy_together(tensors)
    assert len({copy.base is None for copy in copies}) == 1
    for tensor, copy in zip(tensors, copies, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), copy)


def test_the_example_writes_captures(tmp_path: Any) -> None:
    toy.main(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"layer{i}.pt" for i in range(3)]


def test_everything_about_the_recording_is_in_the_capture() -> None:
    model = build()
    options: Any = {"forwards": "last", "prompt": "雨 <b>", "metadata": {"seed": 7}}
    with record(model, tokens_per_frame=TOKENS, layers="blocks.1.*", **options) as recording:
        toy.generate(model)
    (capture,) = recording.captures
    assert (capture.layer_index, capture.statistic, capture.prompt) == (1, "logit", "雨 <b>")
    assert capture.full_frame_attention is not None
    assert capture.full_frame_attention.dtype == np.float32
    assert capture.last_block_query_frames == (9, 10, 11)
    facts = capture.metadata
    assert facts["frame_seq_length"] == facts["tokens_per_frame"] == TOKENS
    assert facts["num_frame_per_block"] == BLOCK
    assert (facts["num_heads"], facts["num_frames"], facts["calls"]) == (4, 12, 20)
    assert facts["model_class"] == "ToyVideoModel"
    assert facts["module_path"] == "blocks.1.self_attn"
    assert facts["dtype"] == "float32"
    assert facts["seed"] == 7
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["observation"]["forwards"] == "last"
    assert facts["observation"]["key_position"] == "growing"
