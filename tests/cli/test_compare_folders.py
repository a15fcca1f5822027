"""``headgrid compare A/ B/``: two models as folders -> tables, figures, a summary."""

import numpy as np
import pandas as pd
import pytest

import headgrid
from commandline import files_under
from headgrid import Capture
from svgreader import parse_number, read_svg
from synthetic import waves


@pytest.fixture
def models(tmp_path):
    """Return folders of a model, and of one with heads 0 and 2 of layer 1 in each other's place."""
    for name, order in (("teacher", [0, 1, 2]), ("student", [2, 1, 0])):
        for run, layer in ((0, 0), (0, 1), (1, 0), (1, 1)):
            values = waves(3, 6, 6, scale=1 + layer + 0.1 * run)
            values = values[order] if layer else values
            capture = Capture.from_array(values, layer=layer, block_sizes=[2, 2, 2])
            headgrid.save_capture(capture, tmp_path / name / f"run_{run}" / f"layer{layer}.npz")
    return tmp_path / "teacher", tmp_path / "student"


def test_two_heads_that_change_places_are_all_that_is_found(cli, models, tmp_path):
    done = cli("compare", *models, "-o", tmp_path / "out", "--rule", "sink", "--statistic", "sink")
    assert done.exit_code == 0
    names = ["difference.csv", "difference.svg", "role_changes.csv", "role_changes.svg"]
    assert files_under(tmp_path / "out") == [*names, "scatter.svg"]
    table = pd.read_csv(tmp_path / "out/difference.csv")
    changed = table[table["difference"] != 0]
    assert changed[["layer", "head"]].to_numpy().tolist() == [[1, 0], [1, 2]]
    lines = done.stdout.splitlines()
    assert lines[-4] == "2 of 6 heads differ (sink, B - A)"
    assert [line.split()[:2] for line in lines[-2:]] == [["1", "0"], ["1", "2"]]
    drawing = read_svg((tmp_path / "out/difference.svg").read_text("utf-8"))
    cells = [t for t in drawing.texts if "cell mark-text" in t.classes]
    shown = sorted(cells, key=lambda t: (round(t.y), t.x))
    values = [parse_number(t.content) != 0 for t in shown]
    assert values[:3] + values[4:7] == [False] * 3 + [True, False, True]
    named = read_svg((tmp_path / "out/scatter.svg").read_text("utf-8")).texts
    assert {t.content for t in named if "cell mark-text" in t.classes} == {"L1 H0", "L1 H2"}
    roles = pd.read_csv(tmp_path / "out/role_changes.csv")
    moved = roles[roles["role_a"] != roles["role_b"]]
    assert f"in teacher (rows) and in student (columns): {len(moved)} of 6 change" in done.stdout
    assert set(moved["layer"]) <= {1}
    assert set(moved["head"]) <= {0, 2}


def test_a_model_against_itself_differs_nowhere(cli, models, tmp_path):
    options = ("--rule", "sink", "--statistic", "period", "--format", "json")
    done = cli("compare", models[0], models[0], "-o", tmp_path / "out", *options)
    assert done.exit_code == 0
    assert "0 of 6 change" in done.stdout
    assert done.stdout.endswith("\n0 of 6 heads differ (period, B - A)\n")
    assert (pd.read_csv(tmp_path / "out/difference.csv")["difference"] == 0).all()
    roles = pd.read_csv(tmp_path / "out/role_changes.csv")
    assert (roles["role_a"] == roles["role_b"]).all()
    assert "difference.json" in files_under(tmp_path / "out")


def test_runs_of_several_sets_count_as_one_model(cli, models, tmp_path):
    (tmp_path / "sets").mkdir()
    for number, name in enumerate(("cats", "dogs")):
        target = tmp_path / "sets" / name / f"run_{number}"
        target.parent.mkdir()
        (models[0] / f"run_{number}").rename(target)
    done = cli("compare", tmp_path / "sets", models[1], "-o", tmp_path / "out", "--rule", "sink")
    assert done.exit_code == 0
    table = pd.read_csv(tmp_path / "out/difference.csv")
    assert (table["runs_a"] == 2).all()
    assert (table["difference"] != 0).sum() == 2


@pytest.mark.filterwarnings("default::headgrid.HeadgridWarning")
def test_other_visibility_is_told(cli, models, tmp_path):
    whole = tmp_path / "whole"
    for layer in (0, 1):
        capture = Capture.from_array(waves(3, 6, 6), layer=layer, last_block_query_frames=[4, 5])
        headgrid.save_capture(capture, whole / f"layer{layer}.npz")
    done = cli("compare", whole, models[1], "-o", tmp_path / "out")
    assert (
        "see (roles are not); the other does not see 33.3 % of A's pairs, 0 % of B's\n"
        in done.stderr
    )
    assert (pd.read_csv(tmp_path / "out/difference.csv")["only_a"] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "{f}", "-o", "out"], "teacher: is a folder, expected another one beside it"),
        (["{f}", "{a}", "-o", "out.svg"], "teacher: is a folder, expected another one beside it"),
        (["{a}", "{a}", "-o", "out.svg"], "one -o DIR"),
        (["{a}", "{a}", "-o", "out", "--table", "x.csv"], "and no --table"),
        (["{a}", "{a}", "-o", "out", "--statistic", "sinks"], "did you mean 'sink'"),
        (["{f}", "{f}", "-o", "out.svg", "--rule", "sink"], "A and B are files, expected folders"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    cli, models, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    filled = [text.format(a=models[0], f=models[0] / "run_0/layer0.npz") for text in arguments]
    before = files_under(tmp_path)
    done = cli("compare", *filled)
    assert done.exit_code == 2
    assert message in done.stderr
    assert files_under(tmp_path) == before


@pytest.mark.filterwarnings("default::headgrid.HeadgridWarning")
def test_real_models_of_21_and_72_frames_are_compared(cli, shared, tmp_path):
    data = shared / "data"
    done = cli("compare", data / "frames21", data / "frames72", "-o", tmp_path)
    assert "A and B differ in the key frames: 21 (0, 1, 2, ..., 18, 19, 20) and 72" in done.stderr
    published = pd.read_csv(data / "published_sink.csv")
    table = pd.read_csv(tmp_path / "difference.csv")
    published = published.pivot(index=["layer", "head"], columns="frames", values="sink")
    found = table.set_index(["layer", "head"])[["a", "b"]]
    assert len(found) == 360
    assert np.abs(found.to_numpy() - published[[21, 72]].to_numpy()).max() < 0.0051
    texts = [t.content for t in read_svg((tmp_path / "scatter.svg").read_text("utf-8")).texts]
    assert "Sink Score (logits), frames72" in texts
