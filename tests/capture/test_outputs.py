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
from headgrid.capture.store import load_capture, load_run, save_capture
from headgrid.errors import CaptureError, HeadgridWarning, OptionError

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
        (masses(2, *SHAPE), r"has shape \(2, 2, 5, 5\), a batch of 2, .*save one of them"),
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
