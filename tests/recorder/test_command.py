"""``headgrid record`` on a script that knows nothing of headgrid -> the files of the API."""

import json
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from recorder_brute import assert_exact

from headgrid import load_capture
from headgrid.cli.record import record as command
from headgrid.recorder import record

MODEL = """
import torch
from torch.nn.functional import scaled_dot_product_attention


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.project(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return x + scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*(Layer() for _ in range(3)))

    def forward(self, x):
        return self.layers(x)


def run(seed, times=1):
    torch.manual_seed(seed)
    model = Encoder()
    with torch.no_grad():
        for _ in range(times):
            found = model(torch.randn(1, 24, 16))
    return found
"""

SCRIPT = """
import sys
import warnings

import tiny_model

if __name__ == "__main__":
    assert sys.argv[1] == "--seed", sys.argv
    if sys.argv[3:] == ["raise"]:
        raise KeyError("no such file")
    times = 1 + (sys.argv[3:] == ["twice"])
    print("sum", float(tiny_model.run(int(sys.argv[2]), times).sum()), *sys.argv[3:])
    if sys.argv[3:] == ["fail"]:
        sys.exit(3)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script and the model it imports, in a folder of their own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "tiny_model.py").write_text(MODEL)
    (folder / "generate.py").write_text(SCRIPT)
    return folder / "generate.py"


@pytest.fixture(autouse=True)
def forget_the_model() -> Any:
    yield
    sys.modules.pop("tiny_model", None)


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def run_by_api(script: Path, seed: int, **options: Any) -> list[Any]:
    run = runpy.run_path(str(script.parent / "tiny_model.py"))["run"]
    with record(**{"tokens_per_frame": 6, **options}) as recording:
        run(seed)
    return recording.captures


@pytest.mark.parametrize("named", [["--", "generate.py"], ["-m", "generate", "--"]])
def test_a_script_or_a_module_gives_the_files_of_the_api(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.chdir(script.parent)
    result = invoke("--tokens-per-frame", 6, "-o", tmp_path / "out", *named, "--seed", 3)
    assert result.exit_code == 0, result.output
    captures = run_by_api(script, 3)
    loaded = [load_capture(tmp_path / "out" / f"layer{number}.pt") for number in range(3)]
    assert_exact(loaded, [capture.full_frame_attention for capture in captures], 1e-12)
    assert [c.metadata["module_path"] for c in loaded] == [f"layers.{i}" for i in range(3)]
    assert {capture.metadata["model_class"] for capture in loaded} == {"Encoder"}


def test_options_reach_the_recorder(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_positions.py").write_text("def first(info):\n    return 0\n")
    result = invoke(
        "--query-position", "call:my_positions.first",
        "--segments", "0,5,24", "--layers", "0,layers.2", "--statistic", "mass",
        "--model", "Encoder", "--prompt", "an eagle", "-o", tmp_path / "out",
        "--", script, "--seed", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = run_by_api(script, 1, tokens_per_frame=None, segments=[0, 5, 24], statistic="mass")
    for number in (0, 2):
        found = load_capture(tmp_path / "out" / f"layer{number}.pt")
        assert (found.statistic, found.prompt) == ("mass", "an eagle")
        np.testing.assert_array_equal(
            found.full_frame_attention, expected[number].full_frame_attention
        )
    assert found.metadata["observation"]["query_position"] == "callable first"
    assert not (tmp_path / "out" / "layer1.pt").exists()


def test_many_prompts_write_a_folder_each(script: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("first\n\nsecond one\n")
    result = invoke(
        "--tokens-per-frame", 6, "-o", tmp_path / "out",
        "--prompts", tmp_path / "prompts.txt", "--seed", 4, "--seed", 5,
        "--", script, "--seed", "{seed}", "{prompt}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "second one" in result.output
    facts = json.loads((tmp_path / "out" / "run_001" / "run.json").read_text())
    assert (facts["prompt"], facts["seed"]) == ("second one", 5)
    assert facts["arguments"] == ["--seed", "{seed}", "{prompt}"]
    found = load_capture(tmp_path / "out" / "run_001" / "layer1.pt").full_frame_attention
    expected = run_by_api(script, 5)[1].full_frame_attention
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("how", "texts"),
    [
        ("fail", ["exited with 3, expected it to run to its end"]),
        (
            "raise",
            ["Traceback (most recent call last):\n  File", "KeyError: 'no such file'\nheadgrid: "],
        ),
    ],
)
def test_a_script_that_fails_writes_nothing(
    script: Path, tmp_path: Path, how: str, texts: list[str]
) -> None:
    out = tmp_path / "out"
    result = invoke("--tokens-per-frame", 6, "-o", out, "--", script, "--seed", 1, how)
    assert result.exit_code == 1
    assert all(text in result.output for text in texts)
    assert "runpy" not in result.output
    assert not out.exists()


def test_a_recording_is_not_mixed_with_another(script: Path, tmp_path: Path) -> None:
    arguments = ("--tokens-per-frame", 6, "-o", tmp_path / "out", "--", script, "--seed", 1)
    assert invoke(*arguments).exit_code == 0
    again = invoke("--layers", 0, *arguments)
    assert again.exit_code == 2
    assert "holds 3 captures of an earlier recording (layer0.pt ...)" in again.output
    (tmp_path / "prompts.txt").write_text("first\nsecond\n")
    same = invoke("--prompts", tmp_path / "prompts.txt", *arguments)
    assert same.exit_code == 2
    assert "no argument of the script holds {prompt}" in same.output
    (tmp_path / "prompts.txt").write_bytes(b"caf\xe9\n")
    for name in ("prompts.txt", "nosuch.txt"):
        odd = invoke("--prompts", tmp_path / name, *arguments)
        assert (odd.exit_code, f"{name}' can not be read" in odd.output) == (2, True)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--tokens-per-frame", 7], 1, "4, 6 or 8 tokens per frame would fit"),
        (["--tokens-per-frame", 6, "--forwards", "lats"], 2, "did you mean 'last'"),
        (["--tokens-per-frame", 6, "--batch", "men"], 2, "did you mean 'mean'"),
        (["--tokens-per-frame", 6, "--layers", "9"], 1, "--layers 9 matches none of the 3 layers"),
        ([], 2, "expected --tokens-per-frame 1560, or boundaries --segments 0,12,30"),
        (["--segments", "0,x"], 2, "expected token positions"),
        (["--function", "no_reader"], 2, "expected PATH=READER"),
        (["--tokens-per-frame", 6, "--key-position", "call:no.such"], 2, "cannot be imported"),
    ],
)
def test_bad_use_is_one_sentence_and_an_exit_code(
    script: Path, tmp_path: Path, flags: list[Any], code: int, text: str
) -> None:
    result = invoke(*flags, "-o", tmp_path / "out", "--", script, "--seed", 1)
    assert result.exit_code == code
    assert text in result.output
    assert "Traceback" not in result.output


def test_choices_are_spelled_as_the_command_line_takes_them(script: Path, tmp_path: Path) -> None:
    flags = ["--tokens-per-frame", 6, "-o", tmp_path / "out", "--", script, "--seed", 1]
    found = invoke(*flags, "twice").output
    assert "pass --forwards first (noisiest), last (clean), mean or all if the model" in found


def test_a_missing_script_is_wrong_usage(tmp_path: Path) -> None:
    flags = ["--tokens-per-frame", 6, "-o", tmp_path]
    assert "there is no such script" in invoke(*flags, "--", tmp_path / "nope.py").output
    assert "no script is given" in invoke(*flags).output


PROMPTS = """
import sys
import warnings

import torch
from torch.nn.functional import scaled_dot_product_attention


class Layer(torch.nn.Module):
    def forward(self, q, k):
        return scaled_dot_product_attention(q, k, k)


class Blocks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(3))

    def forward(self, q, k, fails):
        for number, layer in enumerate(self.layers):
            if number == fails:
                raise RuntimeError("out of memory")
            layer(q * (number + 1), k)


def generate(model, prompt, death):
    torch.manual_seed(len(prompt))
    q, k = torch.randn(2, 1, 2, 18, 8)
    for block in range(3):
        for step in range(2):
            part = q[:, :, 6 * block : 6 * block + 6] * (step + 1)
            here = death[:3] == (prompt, block, step)
            model(part, k[:, :, : 6 * block + 6], death[3] if here else None)


if __name__ == "__main__":
    model, (how, name, *where) = Blocks(), sys.argv[1:]
    for prompt in ("one", "three", "seventh"):
        try:
            generate(model, prompt, (name, *map(int, where)))
        except RuntimeError:
            if how == "die":
                raise
"""


@pytest.mark.parametrize(
    ("block", "step", "layer"), [(0, 0, 1), (0, 1, 0), (0, 1, 2), (1, 0, 0), (2, 0, 1), (2, 1, 0)]
)
def test_a_run_whose_error_a_script_catches_is_left_out_and_others_are_whole(
    tmp_path: Path, block: int, step: int, layer: int
) -> None:
    (tmp_path / "prompts.py").write_text(PROMPTS)
    options = ("--tokens-per-frame", 3, "--forwards", "last", "-o", tmp_path / "out", "--")
    death = (block, step, layer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = invoke(*options, tmp_path / "prompts.py", "catch", "three", *death)
    assert result.exit_code == 0, result.output
    whole = death == (1, 0, 0)  # it died between two blocks
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == (
        ["run_000", "run_001", "run_002"] if whole else ["run_000", "run_002"]
    )
    assert whole or "run_001 is left out: layers." in str([each.message for each in told])
    for name, prompt in (("run_000", "one"), ("run_002", "seventh")):
        script = runpy.run_path(str(tmp_path / "prompts.py"))
        with record(tokens_per_frame=3, forwards="last") as recording:
            script["generate"](script["Blocks"](), prompt, ("", 0, 0, 0))
        for expected in recording.captures:
            found = load_capture(tmp_path / "out" / name / f"layer{expected.layer_index}.pt")
            assert found.prompt == prompt
            np.testing.assert_array_equal(found.full_frame_attention, expected.full_frame_attention)


def test_runs_that_had_ended_when_a_script_failed_are_written(tmp_path: Path) -> None:
    (tmp_path / "prompts.py").write_text(PROMPTS)
    options = ("--tokens-per-frame", 3, "--forwards", "last", "-o", tmp_path / "out", "--")
    result = invoke(*options, tmp_path / "prompts.py", "die", "seventh", 2, 1, 1)
    assert result.exit_code == 1
    assert "only runs that had ended are written" in result.output
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["run_000", "run_001"]


def test_the_error_of_a_script_is_told_where_its_device_gives_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.py").write_text(PROMPTS)
    monkeypatch.setattr("headgrid.recorder.model.build_captures", lambda *_: 1 / 0)
    options = ("--tokens-per-frame", 3, "--forwards", "last", "-o", tmp_path / "out", "--")
    result = invoke(*options, tmp_path / "prompts.py", "die", "seventh", 2, 1, 1)
    assert "prompts.py failed; only runs that had ended are written" in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_process_that_fails_does_not_wait_for_those_that_share_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.py").write_text(PROMPTS)
    join = f"file://{tmp_path}/join"
    torch.distributed.init_process_group("gloo", init_method=join, rank=0, world_size=1)
    asked: list[Any] = []
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda *of, **_: asked.append(of))
    options = ("--tokens-per-frame", 3, "--forwards", "last", "--shard", "queries", "-o")
    try:
        out = tmp_path / "out"
        result = invoke(*options, out, "--", tmp_path / "prompts.py", "die", "seventh", 2, 1, 1)
    finally:
        torch.distributed.destroy_process_group()
    assert (result.exit_code, out.exists(), asked) == (1, False, [])


def test_processes_that_share_no_model_write_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.py").write_text(PROMPTS)
    options = ("--tokens-per-frame", 3, "--forwards", "last", "-o", tmp_path / "out", "--")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        result = invoke(*options, tmp_path / "prompts.py", "catch", "nobody", 0, 0, 0)
        assert result.exit_code == 0, result.output
        assert f"out/rank_{rank}/run_002: Blocks: 3 layers" in result.output
    assert invoke(*options, tmp_path / "prompts.py", "catch", "nobody", 0, 0, 0).exit_code == 2
    assert len(list((tmp_path / "out").glob("rank_?/run_00?/layer?.pt"))) == 2 * 3 * 3
