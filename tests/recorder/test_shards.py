"""One model on two processes -> the matrices of one process; many prompts -> many folders."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F  # noqa: N812
from torch import nn

from headgrid import load_capture
from headgrid.cli.record import fill_arguments
from headgrid.errors import OptionError
from headgrid.recorder import RecordError, record, record_runs
from headgrid.recorder.session import Run, plan_runs

TOKENS, FRAMES, HEADS, CUT = 6, 4, 4, 15  # the cut lies in the middle of frame 2
LENGTH = TOKENS * FRAMES


class Attention(nn.Module):
    """Attends to tensors that are put into it."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, mask: Any = None) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask, enable_gqa=True)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(2))

    def forward(self, *args: Any) -> None:
        for layer in self.layers:
            layer(*args)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, grouped keys, and a token-causal mask, the same on every process."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, HEADS, LENGTH, 8, generator=generator)
    k = torch.randn(1, 2, LENGTH, 8, generator=generator)
    return q, k, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def own_part(rank: int, shard: str, masked: bool) -> tuple[Any, ...]:
    q, k, mask = tensors()
    rows = slice(0, CUT) if rank == 0 else slice(CUT, LENGTH)
    seen = mask if masked else None
    if shard == "heads":
        return q[:, 2 * rank : 2 * rank + 2], k[:, rank : rank + 1], seen
    if shard == "queries":
        return q[:, :, rows], k, None if seen is None else seen[rows]
    return q[:, :, rows], k[:, :, rows], None if seen is None else seen[rows, rows]


#: What is cut, the statistic, and whether a token-causal mask is given.
CASES = (
    ("sequence", "logit", False),
    ("queries", "logit", True),
    ("queries", "mass", True),
    ("queries", "max_logit", False),
    ("heads", "logit", True),
    ("heads", "mass", False),
)


def record_parts(rank: int, folder: str) -> None:
    """Record one process's part of each case, an error, and three prompts shared by two."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/join", rank=rank, world_size=2)
    for index, (shard, statistic, masked) in enumerate(CASES):
        model = Model()
        options: Any = {"shard": shard, "statistic": statistic, "tokens_per_frame": TOKENS}
        with record(model, **options) as recording:
            model(*own_part(rank, shard, masked))
        written = recording.save(Path(folder) / f"captures{index}")
        assert bool(written) == (rank == 0)
        found = [torch.from_numpy(c.full_frame_attention) for c in recording.captures]
        torch.save(found, Path(folder) / f"case{index}_rank{rank}.pt")
    model = Model()
    options = {"shard": "queries", "statistic": "mass", "sample": 3, "tokens_per_frame": TOKENS}
    with record(model, **options) as sampled:
        model(*own_part(rank, "queries", masked=False))
    errors = [capture.metadata["sampling_error_mean"] for capture in sampled.captures]
    torch.save(errors, Path(folder) / f"errors_rank{rank}.pt")
    try:
        with record(model, shard="sequence", tokens_per_frame=TOKENS):
            model(*own_part(rank, "sequence", masked=True))
    except RecordError as error:
        (Path(folder) / f"error_rank{rank}.txt").write_text(str(error))
    q, k, _ = tensors()

    def generate(prompt: str, seed: int) -> None:
        model(q * len(prompt), k * seed, None)

    prompts, runs = ["a", "bb", "ccc"], Path(folder) / "runs"
    record_runs(model, prompts, generate, runs, seeds=[1, 2, 3], tokens_per_frame=TOKENS)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def recorded_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    torch.multiprocessing.spawn(record_parts, args=(str(folder),), nprocs=2, join=True)
    return folder


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{a}-{b}" for a, b, _ in CASES])
def test_two_processes_record_what_one_does(recorded_by_two: Path, case: int) -> None:
    shard, statistic, masked = CASES[case]
    q, k, mask = tensors()
    model = Model()
    options: Any = {"tokens_per_frame": TOKENS, "statistic": statistic}
    with record(model, **options) as recording:
        model(q, k, mask if masked else None)
    for rank in range(2):
        found = torch.load(recorded_by_two / f"case{case}_rank{rank}.pt")
        assert len(found) == 2
        for values, capture in zip(found, recording.captures, strict=True):
            np.testing.assert_allclose(values, capture.full_frame_attention, atol=1e-6)
    written = load_capture(recorded_by_two / f"captures{case}" / "layer1.pt")
    assert written.num_heads == 4
    assert written.metadata["observation"]["shard"] == shard


def test_the_error_of_a_sample_is_that_of_all_processes(recorded_by_two: Path) -> None:
    first, second = (torch.load(recorded_by_two / f"errors_rank{rank}.pt") for rank in range(2))
    assert first == second
    assert min(first) > 0


def test_cut_keys_with_a_mask_are_an_error(recorded_by_two: Path) -> None:
    for rank in range(2):
        assert "pass shard='queries'" in (recorded_by_two / f"error_rank{rank}.txt").read_text()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/join", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("shard", "statistic"), [(s, t) for s, t, masked in CASES if not masked])
def test_a_model_cut_into_one_part_is_recorded_whole(shard: str, statistic: str) -> None:
    model, (q, k, _) = Model(), tensors()
    options: Any = {"tokens_per_frame": TOKENS, "statistic": statistic}
    with record(model, shard=shard, **options) as cut, record(model, **options) as whole:
        model(q, k)
    for one, other in zip(cut.captures, whole.captures, strict=True):
        np.testing.assert_array_equal(one.full_frame_attention, other.full_frame_attention)


def test_a_cut_needs_torch_distributed() -> None:
    with (
        pytest.raises(RecordError, match=r"needs torch.distributed, which is not initialised"),
        record(tokens_per_frame=4, shard="heads"),
    ):
        pass


def test_prompts_are_shared_between_processes(recorded_by_two: Path) -> None:
    folders = sorted((recorded_by_two / "runs").iterdir())
    assert [folder.name for folder in folders] == ["run_000", "run_001", "run_002"]
    q, k, _ = tensors()
    expected = (q.double() @ k.double().repeat_interleave(2, 1).transpose(2, 3) * 8**-0.5)[0]
    expected = expected.unflatten(1, (FRAMES, TOKENS)).unflatten(3, (FRAMES, TOKENS)).mean((2, 4))
    for index, (folder, prompt) in enumerate(zip(folders, ["a", "bb", "ccc"], strict=True)):
        facts = json.loads((folder / "run.json").read_text())
        assert (facts["prompt"], facts["seed"], facts["run"]) == (prompt, index + 1, folder.name)
        assert facts["layers"] == [0, 1]
        assert facts["files"] == ["layer0.pt", "layer1.pt"]
        assert facts["options"]["attention"] == "self"
        capture = load_capture(folder / "layer0.pt")
        assert capture.prompt == prompt
        factor = (index + 1) ** 2
        np.testing.assert_allclose(capture.full_frame_attention, factor * expected, atol=1e-5)


def test_the_launchers_rank_shares_runs_without_torch_distributed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert [run.index for run in plan_runs(["p"] * 8)] == [1, 4, 7]


def test_runs_need_prompts_and_as_many_seeds() -> None:
    with pytest.raises(OptionError, match="0 prompts and 0 seeds"):
        plan_runs([])
    with pytest.raises(OptionError, match="3 prompts and 2 seeds"):
        plan_runs(["a", "b", "c"], [1, 2])


def test_placeholders_are_filled_in_and_other_braces_are_left(tmp_path: Path) -> None:
    run = Run(index=2, prompt="a {seed}", seed=5)
    given = ["--p={prompt}", "{seed}", "{run}", "{other}"]
    filled = fill_arguments(given, run, tmp_path / "prompt.txt")
    assert filled == ["--p=a {seed}", "5", "run_002", "{other}"]
