"""Calls of a cached, block-causal model -> which frame is which, or an error."""

import contextlib
import re
import runpy
import types
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from recorder_brute import all_logits, assert_exact, equal_frames, mean_by_frame, spy
from torch import nn

from headgrid import load_capture
from headgrid.errors import HeadgridWarning, OptionError
from headgrid.recorder import RecordError, SinkWindow, record
from headgrid.recorder.place import fingerprints
from places import EXAMPLES

pytestmark = pytest.mark.usefixtures("watched")

toy = types.SimpleNamespace(**runpy.run_path(str(EXAMPLES / "record_toy_model.py")))
TOKENS, FORWARDS, BLOCK = toy.TOKENS, toy.FORWARDS, toy.FRAMES_PER_BLOCK


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return toy.ToyVideoModel(**options).eval()


def brute_matrices(
    model: Any, forward: int, blocks: int = 4, kept: Any = None, cross: bool = False, seed: int = 0
) -> list[np.ndarray]:
    """Matrix (heads, query, key) of each layer from every token's logits.

    ``kept`` gives for the end of a block the key frames that its cache holds.
    """
    with spy(F, "scaled_dot_product_attention") as spied:
        toy.generate(model, blocks, seed)
    layers, frames = len(model.blocks), blocks * BLOCK
    columns = 1 if cross else frames
    matrices = [np.full((4, frames, columns), np.nan) for _ in range(layers)]
    for block in range(blocks):
        end = (block + 1) * BLOCK
        held = [0] if cross else list(range(end)) if kept is None else kept(end)
        for layer, matrix in enumerate(matrices):
            index = ((block * FORWARDS + forward) * layers + layer) * 2 + int(cross)
            q, k, _ = spied.call_args_list[index].args
            means = mean_by_frame(
                all_logits(q, k)[0], equal_frames(BLOCK, TOKENS), equal_frames(len(held), TOKENS)
            )
            matrix[:, end - BLOCK : end, held] = means
    return matrices


def sink_and_window(sink: int, window: int) -> Any:
    def held(end: int) -> list[int]:
        if end <= window:
            return list(range(end))
        return [*range(sink), *range(end - (window - sink), end)]

    return held


@pytest.fixture(scope="module")
def matrices() -> list[list[np.ndarray]]:
    """Matrix of each layer, in each forward, from every token's logits."""
    return [brute_matrices(build(), index) for index in range(FORWARDS)]


def run_toy(model: Any, blocks: int = 4, **options: Any) -> Any:
    with record(model, **{"tokens_per_frame": TOKENS, "forwards": "last", **options}) as recording:
        toy.generate(model, blocks)
    return recording


@pytest.mark.parametrize(("forwards", "index"), [("first", 0), ("last", 4), (2, 2)])
def test_the_forward_that_counts_is_recorded(matrices: Any, forwards: Any, index: int) -> None:
    captures = run_toy(build(), forwards=forwards).captures
    assert [capture.layer_index for capture in captures] == [0, 1, 2]
    assert {capture.block_sizes for capture in captures} == {(3, 3, 3, 3)}
    assert_exact(captures, matrices[index])


def test_all_forwards_are_kept_and_saved_apart_and_their_mean_is_their_mean(
    matrices: Any, tmp_path: Any
) -> None:
    every = run_toy(build(), forwards="all", layers=[1])
    names = [f"forward_{i:03d}" for i in range(FORWARDS)]
    assert [capture.run for capture in every.captures] == names
    assert every.save(tmp_path) == [tmp_path / name / "layer1.pt" for name in names]
    loaded = [load_capture(tmp_path / name / "layer1.pt") for name in names]
    assert [capture.metadata["forward"] for capture in loaded] == list(range(FORWARDS))
    assert_exact(loaded, [found[1] for found in matrices])
    assert_exact(run_toy(build(), forwards="mean").captures, np.mean(matrices, axis=0))


ROLLING = {
    "counted": {"query_position": f"counted:{FORWARDS}", "key_position": "sink:1,window:7"},
    "one block and its sinks": {
        "query_position": "argument:current_start",
        "key_position": "sink:3,window:6",
    },
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
    sink, window = (3, 6) if "sinks" in policy else (1, 7)
    model = build(sink=sink, window=window)
    recording = run_toy(model, 5, **ROLLING[policy])
    expected = brute_matrices(model, 4, 5, sink_and_window(sink, window))
    assert np.isnan(expected[0][0, 9, 3:6]).all()
    assert_exact(recording.captures, expected)


CROSS = {"attention": "cross", "key_tokens_per_frame": TOKENS}
COUNTED = {"query_position": "counted:5", "key_position": "sink:1,window:7"}


@pytest.mark.parametrize(
    ("sink", "window", "options", "text"),
    [
        (0, 6, {}, r"the cache has rolled.*pass key_position="),
        (1, 7, {}, r"the cache has rolled.*pass key_position="),
        (2, 5, {}, r"the cache has rolled.*pass key_position="),
        (1, 7, COUNTED | {"query_position": "counted:4"}, "which is 72 key tokens .* has 36"),
        (1, 7, COUNTED | {"key_position": "sink:2,window:7"}, "keys of frames 1 are not those"),
        (3, 6, {}, r"current_start has moved from 36 to 72.*query_position='argument:current"),
        (0, 3, {}, r"current_start has moved from 0 to 36.*query_position='argument:current"),
        (3, 6, {"key_position": "sink:3,window:6"}, "current_start has moved from 36 to 72"),
        (3, 6, CROSS, "current_start has moved from 36 to 72"),
        (0, 6, CROSS, "current_start has moved from 36 to 72"),
        (-1, 99, {"forwards": None}, r"frames 0-2 \(tokens 0 to 36\) came a second time"),
    ],
)
def test_a_cache_that_is_not_as_declared_is_an_error(
    sink: int, window: int, options: Any, text: str
) -> None:
    with pytest.raises(RecordError, match=text):
        run_toy(build(sink=sink, window=window) if sink >= 0 else build(), **options)


@torch.no_grad()
def run_block(model: Any, **options: Any) -> Any:
    """Record the second block of a model that has run the first."""
    with record(model, tokens_per_frame=TOKENS, **options) as recording:
        model(torch.zeros(1, 36, 32), torch.zeros(1, 12, 32), clean=True, current_start=36)
    return recording


@pytest.mark.parametrize("ahead", [False, True])  # of the host, as a GPU, which is asked at the end
def test_a_cache_that_is_encoded_again_is_an_error_unless_it_is_declared(
    ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "runs_ahead", lambda device: ahead)
    model = build()

    def run(**options: Any) -> Any:
        with record(model, tokens_per_frame=TOKENS, forwards="first", **options) as recording:
            toy.generate(model, blocks=1)
            attention = model.blocks[0].self_attn
            attention.keys = attention.keys * 1.01
            with torch.no_grad():
                model(torch.zeros(1, 36, 32), torch.zeros(1, 12, 32), True, current_start=36)
        return recording

    with pytest.raises(RecordError, match="frames 0, 1, 2 are not those seen before"):
        run()
    assert run(check_keys=False).captures[0].block_sizes == (3, 3)


def test_recording_from_the_middle_is_a_gap_unless_it_is_declared() -> None:
    model = build()
    toy.generate(model, blocks=1)
    with pytest.raises(RecordError, match=r"frames 0, 1, 2 of 6 were never seen.*self_attn.* x1"):
        run_block(model)
    toy.generate(model, blocks=1)
    found = run_block(model, gaps="keep").captures[0].full_frame_attention
    assert np.isnan(found[:, :3]).all()
    assert not np.isnan(found[:, 3:]).any()


def test_cross_attention_takes_its_queries_from_self_attention() -> None:
    recording = run_toy(build(), **CROSS)
    assert {capture.block_sizes for capture in recording.captures} == {None}
    assert_exact(recording.captures, brute_matrices(build(), 4, cross=True))
    rolling = run_toy(build(window=6), query_position="argument:current_start", **CROSS)
    assert_exact(rolling.captures, brute_matrices(build(window=6), 4, cross=True))


def test_a_second_prompt_begins_another_run(tmp_path: Any) -> None:
    model = build()
    bare = toy.generate(model, 3)
    with record(model, tokens_per_frame=TOKENS, forwards="last") as recording:
        assert torch.equal(toy.generate(model, 3), bare)
        toy.generate(model, 2, seed=1)
    first, second = recording.runs
    assert_exact(first, brute_matrices(model, 4, 3))
    assert_exact(second, brute_matrices(model, 4, 2, seed=1))
    assert [path.parent.name for path in recording.save(tmp_path)][::3] == ["run_000", "run_001"]
    with pytest.raises(RecordError, match=r"2 runs were recorded.*use recording\.runs"):
        _ = recording.captures


def test_an_error_that_the_model_swallows_is_raised_at_the_end() -> None:
    def run() -> None:
        for _ in range(2):
            with contextlib.suppress(Exception):
                toy.generate(model)

    model = build()
    with (
        pytest.raises(RecordError, match="no whole frames"),
        pytest.warns(
            HeadgridWarning, match="nothing more is recorded, as .* no whole frames"
        ) as told,
        record(model, tokens_per_frame=5),
    ):
        run()
    assert len(told) == 1


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


def run_plain(*lengths: tuple[int, int], **options: Any) -> Any:
    model = Plain(*lengths)
    with record(model, **{"tokens_per_frame": 4, **options}) as recording:
        model()
    return recording


def test_without_a_name_equal_lengths_are_self_attention_and_later_ones_its_cache() -> None:
    assert run_plain((8, 8), (4, 12)).captures[0].block_sizes == (2, 1)
    assert len(run_plain((4, 12), layers="mix", gaps="keep").captures) == 1


FRAMES_12, ROLLED = [(12, 12)], [(4, 4), (4, 8), (4, 8), (4, 8)]


@pytest.mark.parametrize(
    ("lengths", "options", "text"),
    [
        (ROLLED, {"forwards": "last", "check_keys": False}, r"came 3 times.*query_position='gro"),
        ([(4, 4), (4, 4), (4, 8)], {"forwards": 1, "check_keys": False}, "ran 1 times, but forw"),
        ([(4, 12)], {}, r"4 query and 12 key tokens, which may be .*layers='mix"),
        ([(8, 8), (8, 12)], {"forwards": "last"}, r"query frames 1-2 .* overlap queries seen"),
        (
            FRAMES_12,
            {"query_position": lambda info: [0, 1]},
            "is 8 tokens, but the call has 12",
        ),
        (FRAMES_12, {"tokens_per_frame": 5}, r"12 query tokens .* 5 tokens .*3, 4 or 6 tokens"),
        (FRAMES_12, {"tokens_per_frame": None, "segments": [0, 5, 14]}, r"end at 12 would fit"),
        (FRAMES_12, {"tokens_per_frame": None}, "frames are not given, and no running module"),
        (
            FRAMES_12,
            {"layers": 3},
            r"layers=3 matches none of the 1 layers whose self-attention ran \(0: ",
        ),
        (FRAMES_12, CROSS, r"no cross-attention was seen; .*mix \(scaled_dot"),
    ],
)
def test_calls_that_do_not_fit_are_an_error(lengths: Any, options: Any, text: str) -> None:
    with pytest.raises(RecordError, match=text):
        run_plain(*lengths, **options)


def test_what_nothing_tells_apart_may_be_told_and_a_cache_that_is_not_full_is_an_error() -> None:
    stated = run_plain(*ROLLED, forwards="last", check_keys=False, query_position="growing")
    assert stated.captures[0].block_sizes == (1, 1)
    x, seen = torch.randn(1, 1, 12, 4), torch.ones(8, 12, dtype=torch.bool).tril()
    with (
        pytest.raises(RecordError, match="hides the last 8 of 12 key tokens from the queries"),
        record(tokens_per_frame=4, layers="*", gaps="keep"),
    ):
        F.scaled_dot_product_attention(x[:, :, :8], x, x, attn_mask=seen)


class Projected(nn.Module):
    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        k = (x if context is None else context)[:, None]
        return F.scaled_dot_product_attention(x[:, None], k, k)


@pytest.mark.parametrize(
    ("name", "lengths", "attention", "options"),
    [
        ("cross_frame_attn", [8], "self", {}),
        ("attn2", [8], "self", {}),
        ("attn2", [8, 8], "cross", {"key_tokens_per_frame": 4}),
        ("attn2", [8, 8], "self", {"layers": "attn2"}),
    ],
)
def test_attention_is_what_its_keys_say_unless_layers_names_it(
    name: str, lengths: list[int], attention: str, options: Any
) -> None:
    model = nn.ModuleDict({name: Projected()})
    model.forward = lambda *tokens: model[name](*tokens)  # type: ignore[method-assign]
    with record(model, tokens_per_frame=4, attention=attention, **options) as recording:
        model(*(torch.randn(1, tokens, 4) for tokens in lengths))
    assert [capture.metadata["module_path"] for capture in recording.captures] == [name]


def test_a_second_sequence_as_long_as_the_first_is_no_self_attention_without_a_word() -> None:
    model = nn.ModuleDict({"mix": Projected(), "read": Projected()})
    x, context = torch.randn(2, 1, 8, 4)
    model.forward = lambda: [model["mix"](x), model["read"](x, context)]  # type: ignore
    told = "read was given context, a second sequence of as many tokens as its first .8"
    with pytest.raises(RecordError, match=told), record(model, tokens_per_frame=4):
        model()
    for attention, name in (("self", "mix"), ("cross", "read")):
        options: Any = {"attention": attention, "tokens_per_frame": 4, "layers": name}
        options |= {"key_tokens_per_frame": 4} if attention == "cross" else {}
        with record(model, **options) as recording:
            model()
        assert [one.metadata["module_path"] for one in recording.captures] == [name]
    with record(model, tokens_per_frame=4) as recording:
        model["mix"](x, x)
    assert len(recording.captures) == 1


def fused_attention(x: torch.Tensor) -> torch.Tensor:
    """A kernel that nobody knows."""
    return x


class Fused(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fused_attention(x)


def test_a_layer_whose_attention_is_not_seen_keeps_its_number_and_is_named() -> None:
    model = nn.Sequential(Projected(), Fused(), Projected())
    model.forward = lambda x: [layer(x) for layer in model]  # type: ignore
    recorder = record(model, tokens_per_frame=4)
    recording = recorder.__enter__()
    model(torch.randn(1, 8, 4))
    text = (
        r"1 of 3 layers .*no capture: 1; pass functions=\{'test_positions.fused_attention': reader"
    )
    with pytest.warns(HeadgridWarning, match=text):
        recorder.__exit__(None, None, None)
    assert [capture.layer_index for capture in recording.captures] == [0, 2]


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
        ({"attention": "cross"}, "key_tokens_per_frame=1"),
        ({"attention": "both"}, "expected one of self, cross"),
        ({"shard": "rows"}, "expected one of queries, sequence, heads"),
        ({"layers": "mxi"}, "'mxi' matches none of the 2 module paths of Plain"),
        *(
            ({"tokens_per_frame": None, "segments": segments}, "expected token positions")
            for segments in ([0, 9, 4], [(0, 4), (3, 8)], [5], [], [-1, 4], ["a", "b"], [0, 4.5, 8])
        ),
    ],
)
def test_an_option_that_cannot_be_says_what_can(option: Any, text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(text)):
        run_plain((8, 8), **option)


def test_a_model_without_attention_is_an_error() -> None:
    model = nn.Linear(2, 2)
    with (
        pytest.raises(RecordError, match="no attention call was seen inside Linear"),
        record(model, tokens_per_frame=4),
    ):
        model(torch.zeros(1, 2))


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
    with record("Plain:1", tokens_per_frame=4) as recording:
        run_both()
        Plain((12, 12))()
    assert len(recording.captures[0].query_frames) == 3


def test_a_pipeline_is_not_a_model_and_its_part_is_named() -> None:
    pipeline: Any = types.SimpleNamespace(transformer=Plain((8, 8)))
    text = r"model is a SimpleNamespace.*pass its \.transformer"
    with pytest.raises(OptionError, match=text), record(pipeline, tokens_per_frame=4):
        pass


def test_batch_elements_are_chosen_averaged_or_kept() -> None:
    x = torch.randn(2, 1, 8, 4, generator=torch.Generator().manual_seed(0))

    def attend(tokens: torch.Tensor, batch: Any) -> list[Any]:
        with record(tokens_per_frame=4, batch=batch) as recording:
            F.scaled_dot_product_attention(tokens, tokens, tokens)
        return [capture.full_frame_attention for capture in recording.captures]

    single = attend(x[:1], None) + attend(x[1:], None)
    mean = [np.mean(single, axis=0)]
    for batch, expected in ((0, single[:1]), (-1, single[1:]), ("mean", mean), ("all", single)):
        np.testing.assert_allclose(attend(x, batch), expected, atol=1e-6)
    for wrong in (None, 2):
        with pytest.raises(RecordError, match="batch of 2"):
            attend(x, wrong)


def test_everything_about_the_recording_is_in_the_capture() -> None:
    options: Any = {"layers": "blocks.1.*", "prompt": "雨 <b>", "metadata": {"seed": 7}}
    (capture,) = run_toy(build(), **options).captures
    assert (capture.layer_index, capture.statistic, capture.prompt) == (1, "logit", "雨 <b>")
    assert capture.full_frame_attention is not None
    assert capture.full_frame_attention.dtype == np.float32
    assert capture.last_block_query_frames == (9, 10, 11)
    stated = {
        "frame_seq_length": TOKENS,
        "tokens_per_frame": TOKENS,
        "num_frame_per_block": BLOCK,
        "num_heads": 4,
        "num_frames": 12,
        "calls": 20,
        "model_class": "ToyVideoModel",
        "module_path": "blocks.1.self_attn",
        "dtype": "float32",
        "seed": 7,
    }
    assert capture.metadata.items() >= stated.items()
    assert capture.metadata["packages"]["torch"] == torch.__version__
    observed = capture.metadata["observation"]
    assert (observed["forwards"], observed["key_position"]) == ("last", "growing")
