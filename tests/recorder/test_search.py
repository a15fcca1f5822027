"""Random toy models, recorded in random ways -> what a tap inside them saw, or an error.

The tap knows nothing of headgrid: the model writes down which frames its queries and keys are,
and every matrix is made of all logits in float64.
"""

from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from torch import nn

from headgrid.errors import HeadgridError, HeadgridWarning
from headgrid.recorder import record
from headgrid.recorder.place import fingerprints

pytestmark = pytest.mark.usefixtures("watched")

TOKENS, DIM = 2, 4


@dataclass
class Case:
    """A model, how it is run, and how it is recorded."""

    layers: list[int]  # in the order in which they run
    prompts: list[int]  # blocks of each
    block: int
    window: int | None
    sink: int
    forwards: int
    guided: bool
    batch: int
    heads: int
    time: bool  # whether the model is told the time step
    position: str  # how the model is told where it is
    named: bool  # whether a variable holds the prompt
    ahead: bool  # whether keys are compared at the end, as on a device that runs ahead
    options: dict[str, Any]
    tap: list[Any] = field(default_factory=list)


@st.composite
def cases(draw: Any) -> Case:
    block, sink = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    window = draw(st.none() | st.integers(0, 3).map(lambda more: block + sink + more))
    forwards, guided = draw(st.integers(1, 3)), draw(st.booleans())
    batch = draw(st.integers(1, 2))
    position = draw(st.sampled_from(["none", "keyword", "positional"]))
    options: dict[str, Any] = {
        "forwards": draw(st.sampled_from([None, "first", "last", "mean", 1])),
        "batch": draw(st.sampled_from([None, 0, "mean"])) if batch > 1 else None,
        "stream": draw(st.sampled_from([None, 0, 1, "both"] if guided else [None] * 4 + [0])),
    }
    if draw(st.booleans()):
        held = {} if window is None else {"key_position": f"sink:{sink},window:{window}"}
        where = "argument:start" if position != "none" else f"counted:{forwards}"
        options |= held | {"query_position": where}
    return Case(
        layers=draw(st.permutations(range(draw(st.integers(1, 3))))),
        prompts=draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)),
        block=block,
        window=window,
        sink=sink,
        forwards=forwards,
        guided=guided,
        batch=batch,
        heads=draw(st.integers(1, 2)),
        time=draw(st.booleans()),
        position=position,
        named=draw(st.booleans()),
        ahead=draw(st.booleans()),
        options=options,
    )


class SelfAttention(nn.Module):
    """Keys of a cache: the first frames, then the latest, those of the queries included."""

    def __init__(self, case: Case, number: int) -> None:
        super().__init__()
        self.case, self.number = case, number

    def forward(self, x: Any, cache: Any, start: Any = 0, t: Any = None) -> Any:
        case = self.case
        own = [*range(cache["at"], cache["at"] + case.block)]
        held = [frame for frame in cache["held"] if frame not in own] + own
        if case.window is not None and len(held) > case.window:
            held = held[: case.sink] + held[len(held) - (case.window - case.sink) :]
        cache["held"] = held
        q = x.unflatten(2, (case.heads, DIM)).transpose(1, 2) * (1 + self.number)
        for place, frame in enumerate(own):
            cache[frame] = q[:, :, place * TOKENS : (place + 1) * TOKENS].cos()
        k = torch.cat([cache[frame] for frame in held], dim=2)
        case.tap.append((cache["stream"], self.number, own, held, q.double(), k.double()))
        return F.scaled_dot_product_attention(q, k, k).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    def __init__(self, case: Case, number: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(case, number)

    def forward(self, x: Any, cache: Any, *start: Any, **more: Any) -> Any:
        return x + self.self_attn(x, cache, *start, **more)


class Toy(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.blocks = nn.ModuleList(Layer(case, number) for number in range(len(case.layers)))

    def forward(self, x: Any, caches: Any, *start: Any, **more: Any) -> Any:
        for number in self.case.layers:
            x = self.blocks[number](x, caches[number], *start, **more)
        return x


def generate(model: Toy, case: Case, blocks: int, generator: torch.Generator) -> None:
    shape = (case.batch, case.block * TOKENS, case.heads * DIM)
    streams = [
        [{"stream": stream, "held": []} for _ in case.layers] for stream in range(1 + case.guided)
    ]
    words = torch.randn(2, 1, 1, shape[2], generator=generator)
    for number in range(blocks):
        x = torch.randn(shape, generator=generator)
        for step in range(case.forwards):
            more: dict[str, Any] = {"t": torch.tensor([1000 - 100 * step])} if case.time else {}
            start = number * case.block * TOKENS
            place = (start,) if case.position == "positional" else ()
            kind = (int, np.int64, torch.tensor)[number % 3]
            more |= {"start": kind(start)} if case.position == "keyword" else {}
            moved = []
            for word, caches in zip(words, streams, strict=False):
                for cache in caches:
                    cache["at"] = number * case.block
                moved.append(model(x + word, caches, *place, **more))
            x = 0.7 * x + 0.3 * sum(moved)


def run(case: Case) -> Any:
    generator = torch.Generator().manual_seed(0)
    model = Toy(case)
    with torch.no_grad(), record(model, tokens_per_frame=TOKENS, **case.options) as recording:
        for number, blocks in enumerate(case.prompts):
            case.tap.append(None)
            if case.named:
                generate_named(model, case, blocks, generator, prompt=f"prompt {number}")
            else:
                generate(model, case, blocks, generator)
    return recording


def generate_named(*given: Any, prompt: str) -> None:
    generate(*given)


def expect(case: Case, prompt: int, stream: int, layer: int) -> np.ndarray:
    """Matrix (heads, query, key) of what the tap of one prompt saw."""
    cuts = [*(place for place, seen in enumerate(case.tap) if seen is None), len(case.tap)]
    seen = [
        call
        for call in case.tap[cuts[prompt] + 1 : cuts[prompt + 1]]
        if call[:2] == (stream, layer)
    ]
    frames = case.prompts[prompt] * case.block
    result = np.full((case.heads, frames, frames), np.nan)
    by_block: dict[int, list[Any]] = {}
    for _, _, own, held, q, k in seen:
        logits = (q @ k.transpose(2, 3) * DIM**-0.5).unflatten(2, (-1, TOKENS))
        means = logits.unflatten(4, (-1, TOKENS)).mean((3, 5)).numpy()
        batch = case.options["batch"]
        by_block.setdefault(own[0], []).append(
            (own, held, means.mean(0) if batch == "mean" else means[batch or 0])
        )
    kept = case.options["forwards"]
    for calls in by_block.values():
        own, held, last = calls[-1]
        values = {
            "first": calls[0][2], "mean": np.mean([c[2] for c in calls], axis=0), 1: calls[1:2],
        }.get(kept, last)  # fmt: skip
        values = values[0][2] if isinstance(values, list) else values
        result[np.ix_(range(case.heads), own, held)] = values
    return result


def looks_like_more_forwards(case: Case) -> bool:
    """Whether the calls are those of a plain diffusion model that denoises the same frames longer.

    No prompt is named, no time step goes back, and no cached key can be compared.
    """
    another_prompt = len(case.prompts) > 1 and case.prompts[0] == 1 and not case.named
    uncached = max(case.prompts) == 1 or case.window == case.block
    another_stream = case.guided and uncached and case.options["stream"] is None
    stated = case.position != "none" or "query_position" in case.options
    another_block = case.window == case.block and max(case.prompts) > 1 and not stated
    counted_on = (
        case.window == case.block and len(case.prompts) > 1 and stated and case.position == "none"
    )
    no_stream = not case.guided and case.options["stream"] == 0
    untimed = not case.time or case.forwards == 1
    return (
        (untimed and (another_prompt or another_block or another_stream or no_stream))
        or (another_stream and case.options["forwards"] == 1)
        or (counted_on and not case.named)
    )


def check(case: Case) -> None:
    try:
        with mock.patch.object(fingerprints, "runs_ahead", return_value=case.ahead):
            recording = run(case)
    except (HeadgridError, HeadgridWarning) as told:
        if isinstance(told, HeadgridWarning) and "is left out" not in str(told):
            raise
        event(str(told).partition(":")[2][:40])
        return
    event("recorded")
    note(repr(case.tap[1][2:4]))
    if looks_like_more_forwards(case):
        return
    stream = case.options["stream"]
    streams = [0, 1] if stream == "both" else [stream or 0]
    assert not (case.guided and stream is None and case.options["forwards"] != "first")
    assert len(recording.runs) == len(case.prompts)
    for prompt, captures in enumerate(recording.runs):
        expected = [
            (number, expect(case, prompt, stream, number))
            for stream in streams
            for number in range(len(case.layers))
        ]
        assert [capture.layer_index for capture in captures] == [number for number, _ in expected]
        for capture, (_, matrix) in zip(captures, expected, strict=True):
            np.testing.assert_allclose(capture.full_frame_attention, matrix, atol=5e-5)
            if case.named:
                assert capture.prompt == f"prompt {prompt}"


FOUND = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@settings(FOUND, max_examples=500)
@given(cases())
def test_a_random_model_is_recorded_as_its_tap_saw_it_or_not_at_all(case: Case) -> None:
    check(case)


@pytest.mark.nightly
@settings(FOUND, max_examples=5000, derandomize=False)
@given(cases())
def test_five_thousand_models_are_recorded_as_their_taps_saw_them(case: Case) -> None:
    check(case)
