"""``headgrid record`` on a look-alike of Self-Forcing -> what a tap inside its model has seen.

The look-alike has the parts that matter: a pipeline whose `inference` runs a generator, a text
encoder and a VAE that all call attention, a cache with sinks and a window, a script that reads a
file of prompts and goes to another folder.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from recorder_brute import all_logits, assert_exact, equal_frames, mean_by_frame

from headgrid import load_capture
from headgrid.cli.record import record as command
from headgrid.recorder import RecordError, record
from places import ROOT

FOLDER = Path(__file__).parent / "self_forcing"
TOKENS, LAYERS, HEADS, FRAMES = 24, 3, 2, 12


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return what the look-alike's model taps, from the beginning."""
    monkeypatch.syspath_prepend(FOLDER)
    found: list[Any] = importlib.import_module("wan.modules.causal_model").TAP
    found.clear()
    yield found
    torch.set_grad_enabled(True)
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("wan", "pipeline"):
            del sys.modules[name]


def matrices(calls: list[Any]) -> list[np.ndarray]:
    """Matrix of each layer from every token's logits; a later call of a block replaces it."""
    found = [np.full((HEADS, FRAMES, FRAMES), np.nan) for _ in range(LAYERS)]
    for layer, rows, columns, q, k in calls:
        means = mean_by_frame(
            all_logits(q.transpose(1, 2), k.transpose(1, 2))[0],
            equal_frames(len(rows), TOKENS),
            equal_frames(len(columns), TOKENS),
        )
        found[layer][:, rows] = np.nan
        found[layer][np.ix_(range(HEADS), rows, columns)] = means
    return found


def run(
    tmp_path: Path, *flags: str, prompts: str = "an eagle", script: tuple[str, ...] = ()
) -> Any:
    (tmp_path / "prompts.txt").write_text(f"{prompts}\n")
    arguments = [
        "-o", "out", *flags, "--forwards", "last", "--", str(FOLDER / "inference.py"),
        "--data_path", "prompts.txt", "--output_folder", "videos", *script,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        return CliRunner().invoke(command, arguments)


def load(folder: Path) -> list[Any]:
    return [load_capture(folder / f"layer{number}.pt") for number in range(LAYERS)]


def test_the_script_is_recorded_without_a_word_about_it(tmp_path: Path, tap: list[Any]) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    captures = load(tmp_path / "out")
    assert_exact(captures, matrices(tap), 1e-6)
    assert (captures[0].prompt, captures[0].block_sizes) == ("an eagle", (3, 3, 3, 3))
    assert result.output.splitlines()[-1] == (
        "out: WanDiffusionWrapper: 3 layers x 2 heads, 4 blocks of 3 frames, 5 forwards a block "
        "(last kept), 60 calls, 12 x 12 frames of 24 tokens (grid_sizes of CausalWanSelfAttention)"
        "; prompt 'an eagle'; ran too and was not recorded: WanTextEncoder (4 layers), Sequential "
        "(1 layer)"
    )


def test_the_command_of_the_readme_works_as_it_stands(tmp_path: Path, tap: list[Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(headgrid record .*?)^```", readme, re.M | re.S)
    (tmp_path / "prompts.txt").write_text("an eagle\n")
    (tmp_path / "inference.py").symlink_to(FOLDER / "inference.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(command, shlex.split(block.replace("\\\n", " "))[2:])
    assert result.exit_code == 0, result.output
    assert_exact(load(tmp_path / "captures"), matrices(tap), 1e-6)


def test_two_prompts_are_two_runs_each_with_its_own(tmp_path: Path, tap: list[Any]) -> None:
    result = run(tmp_path, "--layers", "0-2", prompts="an eagle\na river")
    assert result.exit_code == 0, result.output
    for number, prompt in enumerate(("an eagle", "a river")):
        captures = load(tmp_path / "out" / f"run_{number:03d}")
        half = len(tap) // 2
        assert_exact(captures, matrices(tap[number * half : (number + 1) * half]), 1e-6)
        assert {capture.prompt for capture in captures} == {prompt}


@pytest.mark.parametrize(("window", "sink"), [("6", "3"), ("3", "0"), ("7", "1")])
def test_the_error_of_a_rolling_cache_says_what_records_it(
    tmp_path: Path, tap: list[Any], window: str, sink: str
) -> None:
    script = ("--local_attn_size", window, "--sink_size", sink)
    result = run(tmp_path, script=script)
    assert result.exit_code == 1
    held = f"window:{window}" if sink == "0" else f"sink:{sink},window:{window}"
    assert f"--key-position {held}" in result.output
    assert "--query-position argument:current_start" in result.output
    assert not (tmp_path / "out").exists()
    tap.clear()
    stated = ("--key-position", held, "--query-position", "argument:current_start")
    result = run(tmp_path, *stated, script=script)
    assert result.exit_code == 0, result.output
    assert_exact(load(tmp_path / "out"), matrices(tap), 1e-6)
    assert f"sink of {sink} and window of {window} frames" in result.output


def test_guidance_with_two_caches_is_an_error_until_a_stream_is_chosen(
    tmp_path: Path, tap: list[Any]
) -> None:
    result = run(tmp_path, script=("--guidance",))
    assert result.exit_code == 1
    assert "two caches alternate" in result.output
    assert "--stream 0 or --stream 1 for one of them, or --stream both" in result.output
    tap.clear()
    result = run(tmp_path, "--stream", "both", script=("--guidance",))
    assert result.exit_code == 0, result.output
    turns = [tap[start : start + LAYERS] for start in range(0, len(tap), LAYERS)]
    for stream in range(2):
        calls = [call for turn in turns[stream::2] for call in turn]
        assert_exact(load(tmp_path / "out" / f"stream_{stream}"), matrices(calls), 1e-6)


def test_a_prompt_file_is_written_for_each_line(tmp_path: Path, tap: list[Any]) -> None:
    (tmp_path / "lines.txt").write_text("an eagle\na river\n")
    result = run(
        tmp_path, "--prompts", "lines.txt", "--layers", "0",
        script=("--data_path", "{prompt_file}", "--num_output_frames", "3"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    texts = [load_capture(path).prompt for path in sorted((tmp_path / "out").rglob("layer0.pt"))]
    assert texts == ["an eagle", "a river"]


@pytest.mark.parametrize("how", ["pipeline", "generator", "model.forward", "class"])
def test_the_model_may_be_given_as_what_holds_it(tap: list[Any], how: str) -> None:
    pipeline: Any = importlib.import_module("pipeline").CausalInferencePipeline()
    model = {
        "pipeline": pipeline,
        "generator": pipeline.generator,
        "model.forward": None,
        "class": "CausalWan*",
    }[how]
    if how == "model.forward":
        # A plain function in its place is no module that is called.
        del pipeline._modules["generator"]
        generator = importlib.import_module("pipeline").WanDiffusionWrapper()
        object.__setattr__(pipeline, "generator", generator.forward)
        generator.forward.__func__.model = generator.model
    with torch.no_grad(), record(model, forwards="last") as recording:
        pipeline.inference(torch.randn(1, FRAMES, 4, 8, 12), ["an eagle"])
    assert_exact(recording.captures, matrices(tap), 1e-6)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["-o", "prompts.txt"], 2, "prompts.txt is no folder that can be written"),
        (["--layers", "2-0"], 2, "expected layers from the lower to the higher"),
        (
            ["--layers", "blokcs.*"],
            1,
            "none of the 45 module paths of CausalInferencePipeline",
        ),
        (["--prompts", "prompts.txt"], 2, "holds {prompt} or {prompt_file}"),
        (["--tokens-per-frame", "20"], 1, "frames; the model states 24 tokens (grid_sizes"),
        (
            ["--batch", "1"],
            1,
            "batch is 1, but scaled_dot_product_attention was called with a",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_videos_are_made(
    tmp_path: Path, tap: list[Any], flags: list[str], code: int, text: str
) -> None:
    result = run(tmp_path, *flags)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert "Traceback" not in result.output
    assert "videos are written" not in result.output


def test_an_error_of_the_model_that_is_meant_is_not_hidden_by_one_that_fits(
    tap: list[Any],
) -> None:
    pipeline: Any = importlib.import_module("pipeline").CausalInferencePipeline()
    noise = torch.randn(2, 6, 4, 8, 12)
    with torch.no_grad(), pytest.raises(RecordError, match="batch of 2"), record(forwards="last"):
        pipeline.inference(noise, ["an eagle", "a river"])
