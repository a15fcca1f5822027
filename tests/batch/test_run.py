import warnings
from pathlib import Path

import numpy as np
import pytest

from headgrid import Capture, CaptureError, FigureOptions, HeadgridWarning, save_capture
from headgrid.batch.run import Figures, plan_jobs, run_jobs
from synthetic import waves


def outputs(plan, folder):
    return [path.relative_to(folder).as_posix() for job in plan.jobs for path in job.paths]


def test_one_file_goes_straight_into_the_folder(capture_file, tmp_path):
    plan = plan_jobs([capture_file("deep/run_000/layer3.npz")], tmp_path / "out", Figures())
    assert outputs(plan, tmp_path / "out") == [
        "layer3_2d_heatmap.svg",
        "layer3_perhead_grid.svg",
    ]


def test_a_folder_is_mirrored_in_natural_order(capture_file, tmp_path):
    for name in ("run_10/layer0", "run_2/layer10", "run_2/layer2", "layer1"):
        capture_file(f"in/{name}.npz")
    plan = plan_jobs([tmp_path / "in"], tmp_path / "out", Figures(names=["heatmap"]))
    assert outputs(plan, tmp_path / "out") == [
        "layer1_2d_heatmap.svg",
        "run_2/layer2_2d_heatmap.svg",
        "run_2/layer10_2d_heatmap.svg",
        "run_10/layer0_2d_heatmap.svg",
    ]


@pytest.mark.parametrize("names", [("a/layer3", "b/layer3"), ("in/layer3", "in/other")])
def test_two_inputs_for_one_output_are_an_error_before_anything_is_drawn(
    capture_file, tmp_path, names
):
    inputs = [capture_file(f"{name}.npz", layer=3) for name in names]
    with pytest.raises(CaptureError, match=r"would both become .*layer3_2d_heatmap") as caught:
        plan_jobs(inputs, tmp_path / "out", Figures())
    for path in inputs:
        assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_same_file_given_twice_is_drawn_once(capture_file, tmp_path):
    path = capture_file()
    assert len(plan_jobs([path, path, path.parent], tmp_path / "out", Figures()).jobs) == 1


def test_shared_is_resolved_over_all_inputs(capture_file, tmp_path):
    inputs = [capture_file(f"layer{n}.npz", scale=s) for n, s in enumerate((1.0, 7.0, 3.0))]
    figures = Figures(options=FigureOptions(color_range="shared"))
    plan = plan_jobs(inputs, tmp_path, figures)
    alone = plan_jobs(inputs[1:2], tmp_path, figures)
    assert plan.figures.options.color_range == alone.figures.options.color_range
    assert plan.figures.options.color_range.low == -plan.figures.options.color_range.high


@pytest.fixture
def row_only(tmp_path):
    capture = Capture.from_array(last_block=waves(1, 1, 5)[:, 0], layer=4)
    return save_capture(capture, tmp_path / "layer4.npz")


def test_without_a_full_matrix_only_the_perhead_grid_is_drawn_with_a_warning(row_only, tmp_path):
    with pytest.warns(HeadgridWarning, match="no full matrix, so only the per-head figure"):
        plan = plan_jobs([row_only], tmp_path / "out", Figures())
    assert outputs(plan, tmp_path / "out") == ["layer4_perhead_grid.svg"]


def test_a_heatmap_asked_for_without_a_full_matrix_is_a_failure(row_only, tmp_path):
    plan = plan_jobs([row_only], tmp_path / "out", Figures(names=["heatmap"]))
    assert not plan.jobs
    assert "full_frame_attention is absent" in str(plan.failures[0])


def test_a_warning_of_an_input_is_given_once_for_each_file(tmp_path):
    values = waves(1, 5, 5)
    values[:, 3:, :], values[:, :, 3:] = 0, 0
    for run in ("run_0", "run_1"):
        (tmp_path / "in" / run).mkdir(parents=True)
        capture = {"full_frame_attention": values, "block_sizes": np.array([1, 2])}
        np.savez(tmp_path / "in" / run / "layer1.npz", **capture)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        plan = plan_jobs([tmp_path / "in"], tmp_path / "out", Figures(["json"]))
        assert len(list(run_jobs(plan))) == 2
    texts = [str(w.message) for w in caught]
    assert len(texts) == 2
    assert all("frames 3, 4 lie beyond the last block" in text for text in texts)
    assert any(str(Path("run_0/layer1.npz")) in text for text in texts)
    assert any(str(Path("run_1/layer1.npz")) in text for text in texts)
