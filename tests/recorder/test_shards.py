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
from recorder_shards import CASES, FRAMES, TOKENS, Model, record_parts, tensors

from headgrid import load_capture
from headgrid.cli.record import fill_arguments
from headgrid.errors import OptionError
from headgrid.recorder import RecordError, record
from headgrid.recorder.session import Run, plan_runs


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


def test_placeholders_are_filled_in_and_other_braces_are_left() -> None:
    run = Run(index=2, prompt="a {seed}", seed=5)
    given = ["--p={prompt}", "{seed}", "{run}", "{other}"]
    assert fill_arguments(given, run) == ["--p=a {seed}", "5", "run_002", "{other}"]
