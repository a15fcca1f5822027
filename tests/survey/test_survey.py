"""Surveys in memory: what is read, how it is named, and what is made of it."""

import math
import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import headgrid
from headgrid import Capture, CaptureError, HeadgridWarning, OptionError
from headgrid.capture.folders import find_captures, place_captures
from headgrid.survey.read import RUNS_IN_A_PART, split_parts, survey
from headgrid.tables.measures import MEASURES, measure_heads
from synthetic import block_capture, waves


def write_tree(folder, names, layers=(0, 1), **options):
    """Write runs whose values all differ; return the captures by (folder name, layer)."""
    made = {}
    for number, name in enumerate(names):
        for layer in layers:
            values = block_capture(heads=3, blocks=(2, 2, 2)).full_frame_attention
            shift = np.sin(np.arange(values.size).reshape(values.shape) * (number + 1) + layer)
            capture = Capture.from_array(
                values + shift, block_sizes=[2, 2, 2], layer=layer, **options
            )
            path = folder / name / f"layer{layer}.npz"
            headgrid.save_capture(capture, path)
            made[name, layer] = headgrid.load_capture(path)
    return made


def places_of(inputs, **options):
    files, errors = find_captures(inputs)
    assert not errors
    return [(p.set, p.run) for p in place_captures(files, **options)]


# which set and run a file is of


@pytest.mark.parametrize(
    ("made", "inputs", "expected"),
    [
        (["a/run_0", "b/run_0", "b/x"], ["."], [("a", "run_0"), ("b", "run_0"), ("b", "x")]),
        (["a/run_0/attention"], ["."], [("a", "run_0/attention")]),
        (["a/run_0"], ["a"], [("", "run_0")]),
        (["a/run_0", "b/run_0"], ["a", "b"], [("a", "run_0"), ("b", "run_0")]),
        (["a/run_0", "a/x"], ["a/run_0", "a/x"], [("", "run_0"), ("", "x")]),
        (["a/run_0", "a/x"], ["a/run_0/layer0.npz", "a/x/layer0.npz"], [("", "run_0"), ("", "x")]),
        (["frames"], ["frames"], [("", "")]),
        (["a/run_7"], ["a/run_7"], [("", "run_7")]),
    ],
)
def test_the_folder_of_captures_is_a_run_and_the_folders_above_it_in_the_input_are_its_set(
    capture_file, tmp_path, made, inputs, expected
):
    for name in made:
        capture_file(f"IN/{name}/layer0.npz")
    assert places_of([tmp_path / "IN" / name for name in inputs]) == expected


def test_a_single_input_is_a_set_where_that_is_asked_for(capture_file, tmp_path):
    capture_file("cats/run_0/layer0.npz")
    assert places_of([tmp_path / "cats"], by="set") == [("cats", "run_0")]
    assert places_of([tmp_path / "cats/run_0"], by="set") == [("", "run_0")]


def test_the_name_of_a_folder_above_the_input_is_never_used(capture_file, tmp_path, monkeypatch):
    capture_file("secret/run_3/layer0.npz")
    for folder in ("secret/run_3", "secret"):
        monkeypatch.chdir(tmp_path / folder)
        assert places_of(["."]) == [("", "run_3")]


# parts


def test_parts_hold_every_file_once_and_one_layer_of_some_runs_each(capture_file, tmp_path):
    runs = RUNS_IN_A_PART + 2
    for run in range(runs):
        for layer in (0, 10, 2):
            path = tmp_path / f"in/run_{run}/layer{layer}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    files, _ = find_captures(tmp_path / "in")
    parts = split_parts([*zip(files, place_captures(files), strict=True)])
    found = [file for part in parts for file, _ in part]
    assert len(found) == len({*found}) == 3 * runs
    assert {*found} == {*files}
    assert [{file.path.name for file, _ in part} for part in parts] == [
        {f"layer{layer}.npz"} for layer in (0, 2, 10) * 2
    ]
    assert [len(part) for part in parts] == [RUNS_IN_A_PART] * 3 + [2] * 3


# statistics


def test_statistics_have_one_row_for_each_run_layer_and_head_in_natural_order(tmp_path):
    made = write_tree(tmp_path / "in", ["run_10", "run_9"], layers=(10, 9))
    table = survey(tmp_path / "in").statistics
    assert list(table.columns) == ["set", "run", "layer", "head", "statistic", *MEASURES]
    keys = list(table[["run", "layer", "head"]].itertuples(index=False, name=None))
    assert keys == [
        (run, layer, head) for run in ("run_9", "run_10") for layer in (9, 10) for head in range(3)
    ]
    for (run, layer), capture in made.items():
        rows = table[(table["run"] == run) & (table["layer"] == layer)]
        for name, values in measure_heads(capture).items():
            np.testing.assert_array_equal(rows[name].to_numpy(), values)


def test_the_layer_in_the_file_counts_and_not_its_name(capture_file, tmp_path):
    capture_file("in/b.npz", layer=1)
    capture_file("in/a.npz", layer=2)
    assert survey(tmp_path / "in").statistics["layer"].tolist() == [1, 1, 2, 2]


def test_summary_is_mean_and_deviation_over_runs_of_each_head_and_of_their_mean(tmp_path):
    made = write_tree(tmp_path / "in", ["run_0", "run_1", "run_2"])
    summary = survey(tmp_path / "in").summary("first")
    for layer in (0, 1):
        values = np.array([measure_heads(made[f"run_{run}", layer])["first"] for run in range(3)])
        rows = summary[summary["layer"] == layer]
        heads, margin = rows[rows["head"].notna()], rows[rows["head"].isna()]
        np.testing.assert_allclose(heads["mean"], values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(heads["std"], values.std(axis=0, ddof=1), rtol=1e-12)
        np.testing.assert_allclose(margin["mean"], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(margin["std"], values.mean(axis=1).std(ddof=1), rtol=1e-12)
        assert rows["runs"].tolist() == [3, 3, 3, 3]


def test_an_unknown_measure_is_an_error_with_the_near_miss(small):
    with pytest.raises(OptionError, match=r"statistic is 'sinks', .* did you mean 'sink'\?"):
        survey(small).summary("sinks")


def test_stability_has_a_row_for_each_set_measure_and_layer_and_one_for_all_layers(tmp_path):
    write_tree(tmp_path, ["cats/run_0", "cats/run_1", "dogs/run_0"])
    table = survey(tmp_path).stability("first", "sink")
    rows = table[["set", "measure", "scope", "layer", "heads", "runs"]].fillna({"layer": -1})
    assert list(rows.itertuples(index=False, name=None)) == [
        (set, name, scope, layer, heads, runs)
        for set, runs in (("cats", 2), ("dogs", 1))
        for name in ("first", "sink")
        for scope, layer, heads in (("layer", 0, 3), ("layer", 1, 3), ("all", -1, 6))
    ]
    assert table["icc"].notna().equals(table["set"] == "cats")


def test_agreement_is_the_rank_correlation_of_the_sets_mean_scores(tmp_path):
    from scipy.stats import spearmanr

    names = ["cats/run_0", "cats/run_1", "dogs/run_0", "layer/run_5"]
    made = write_tree(tmp_path, names)
    rows = survey(tmp_path).agreement("first").itertuples(index=False, name=None)

    def mean(set, layers):
        runs = [name for name in names if name.startswith(set)]
        scores = [[measure_heads(made[run, layer])["first"] for layer in layers] for run in runs]
        return np.mean(scores, axis=0).ravel()

    for a, b in combinations(("cats", "dogs", "layer"), 2):
        for scope, layers in (("layer", [0]), ("layer", [1]), ("all", [0, 1])):
            rho = pytest.approx(spearmanr(mean(a, layers), mean(b, layers)).statistic)
            set_a, set_b, *found = next(rows)
            assert (set_a, set_b) == (a, b)
            assert found == ["first", scope, *found[2:3], 3 * len(layers), rho]


@pytest.mark.parametrize(
    ("cats", "dogs", "rho", "heads"),
    [
        ([0.1, 0.5, 0.5, 3.0], [1.0, 2.0, 2.0, 9.0], 1.0, 4),
        ([0.1, 0.5, 0.5, 3.0], [0.0, -1.0, -1.0, -7.0], -1.0, 4),
        ([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], math.sqrt(3) / 2, 3),
        ([1.0, 2.0, np.nan, 9.0], [np.nan, 1.0, 5.0, 2.0], 1.0, 2),
        ([1.0, 1.0], [1.0, 2.0], math.nan, 2),
        ([1.0, np.nan], [np.nan, 1.0], math.nan, 0),
        ([1.0], [2.0], math.nan, 1),
    ],
    ids=["same", "opposite", "ties", "missing", "constant", "no head in both", "one head"],
)
def test_sets_agree_as_far_as_they_order_the_heads_alike(tmp_path, cats, dogs, rho, heads):
    for name, scores in (("cats", cats), ("dogs", dogs)):
        capture = Capture.from_array(last_block=[[score, 1.0] for score in scores])
        headgrid.save_capture(capture, tmp_path / name / "run_0/layer0.npz")
    table = survey(tmp_path).agreement("first")
    assert table["heads"].tolist() == [heads, heads]
    assert table["rho"].tolist() == pytest.approx([rho, rho], nan_ok=True)


def test_a_layer_that_one_set_lacks_is_in_no_agreement(tmp_path):
    write_tree(tmp_path, ["cats/run_0"], layers=(0, 1))
    write_tree(tmp_path, ["dogs/run_0"], layers=(0,))
    with pytest.warns(HeadgridWarning, match="dogs/run_0: layer 1 is missing"):
        table = survey(tmp_path).agreement()
    assert table["heads"].tolist() == [3, 0, 3]
    assert np.isnan(table["rho"][1])


# maps over runs


def test_captures_are_the_mean_over_the_runs_of_each_set(tmp_path):
    made = write_tree(tmp_path / "in", ["cats/run_0", "cats/run_1", "dogs/run_0"])
    found = survey(tmp_path / "in")
    assert list(found.captures) == [("cats", 0), ("cats", 1), ("dogs", 0), ("dogs", 1)]
    both = [made[f"cats/run_{run}", 1].full_frame_attention for run in (0, 1)]
    mean = found.captures["cats", 1]
    seen = mean.attendable
    assert mean.statistic == "logit_mean"
    np.testing.assert_allclose(mean.full_frame_attention[:, seen], np.mean(both, axis=0)[:, seen])
    np.testing.assert_allclose(
        found.deviation("cats", 1).full_frame_attention[:, seen],
        np.std(both, axis=0, ddof=1)[:, seen],
    )
    assert found.captures["dogs", 0].statistic == "logit_mean"  # one statistic in all
    assert found.deviation("dogs", 0) is None


def test_a_single_run_is_shown_as_it_is(small):
    capture = survey(small.replace(prompt="a cat")).captures["", 0]
    assert capture.prompt == "a cat"
    assert capture.statistic == "logit"


def test_pooled_captures_weigh_every_run_the_same(tmp_path):
    made = write_tree(tmp_path / "in", ["cats/run_0", "cats/run_1", "dogs/run_0"], layers=(0,))
    pooled = survey(tmp_path / "in").pooled_captures()[0]
    mean = np.mean([capture.full_frame_attention for capture in made.values()], axis=0)
    seen = pooled.attendable
    np.testing.assert_allclose(pooled.full_frame_attention[:, seen], mean[:, seen])


# colour ranges


def test_quantiles_are_pooled_over_all_values_of_all_captures(shared):
    folder = shared / "data" / "frames72"
    values = [headgrid.load_capture(path) for path in folder.glob("*.pt")]
    pooled = np.concatenate([c.full_frame_attention[:, c.attendable].ravel() for c in values])
    low, high = np.quantile(pooled.astype(float), [0.01, 0.99])
    found = survey(folder).color_range("quantile")
    assert found.high == pytest.approx(max(-low, high), rel=0.001)
    assert found.low == -found.high
    assert survey(folder).color_range("shared").high == np.abs(pooled).max()


# every order and executor gives the same


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    write_tree(folder, [f"run_{n}" for n in range(RUNS_IN_A_PART + 3)], layers=(0, 1))
    return folder


@pytest.fixture(scope="module")
def of_many_runs(many_runs):
    return survey(many_runs)


def assert_same(one, other):
    assert one.statistics.equals(other.statistics)
    assert one.stability().equals(other.stability())
    for key, capture in one.captures.items():
        for name in ("full_frame_attention", "last_block_frame_attention"):
            mine, theirs = getattr(capture, name), getattr(other.captures[key], name)
            assert mine.tobytes() == theirs.tobytes()


def test_threads_give_the_same_bits_as_none(many_runs, of_many_runs):
    with ThreadPoolExecutor(3) as executor:
        assert_same(of_many_runs, survey(many_runs, executor=executor))


def test_the_order_of_inputs_does_not_matter(many_runs, of_many_runs):
    assert_same(of_many_runs, survey(sorted(many_runs.iterdir())[::-1]))


def test_what_reads_files_loads_numpy_only(many_runs):
    code = (
        "import sys\n"
        "from headgrid.capture.folders import find_captures, place_captures\n"
        "from headgrid.survey.read import read_files\n"
        "files, _ = find_captures(sys.argv[1])\n"
        "assert len(read_files(files, place_captures(files)).inputs) > 1\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, many_runs], capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"pandas", "altair", "torch", "pyarrow", "vl_convert"}


def test_captures_in_memory_are_surveyed_like_files(tmp_path):
    made = write_tree(tmp_path, ["run_0", "run_1"])
    found = survey(capture.replace(run=name) for (name, _), capture in made.items())
    assert_same(survey(tmp_path), found)
    assert repr(found) == "<Survey of 4 captures: 2 runs, 2 layers x 3 heads, logit>"
    assert found.agreement().empty


# bad input


def test_a_file_that_is_no_capture_is_a_warning_and_the_rest_is_surveyed(capture_file, tmp_path):
    capture_file("in/layer0.npz")
    (tmp_path / "in/layer1.npz").write_bytes(b"nonsense")
    with pytest.warns(HeadgridWarning, match=r"layer1\.npz: "):
        found = survey(tmp_path / "in")
    assert len(found.failures) == 1
    assert found.layers == (0,)


def test_without_a_usable_capture_there_is_no_survey(tmp_path):
    (tmp_path / "layer0.npz").write_bytes(b"")
    with pytest.raises(
        CaptureError, match=r"none of 1 inputs is a usable capture, .*file is empty"
    ):
        survey(tmp_path)
    with pytest.raises(CaptureError, match="none of 0 inputs is a usable capture"):
        survey([])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"statistic": "mass"}, "the statistic: logit and mass"),
        ({"heads": 3}, "the number of heads: 2 and 3"),
        ({"blocks": (2, 2, 2)}, r"the query frames: 4 \(0, 1, 2, 3\) and 6 \(0, 1, 2, 3, 4, 5\)"),
        ({"blocks": (1, 3)}, r"block_sizes: 2 \(2, 2\) and 2 \(1, 3\)"),
    ],
)
@pytest.mark.parametrize("second", ["in/run_0/layer1.npz", "in/run_1/layer0.npz"])
def test_captures_that_can_not_be_compared_are_an_error_that_names_both(
    capture_file, tmp_path, change, text, second
):
    first = capture_file("in/run_0/layer0.npz")
    other = capture_file(second, **change)
    with pytest.raises(CaptureError, match=f"differ in {text}; expected captures that") as caught:
        survey(tmp_path / "in")
    assert str(caught.value).startswith(f"{first} and {other} differ in ")


def test_a_capture_without_its_matrix_beside_one_with_it_is_an_error(capture_file, tmp_path):
    capture_file("in/layer0.npz")
    rows = Capture.from_array(last_block=waves(2, 1, 4)[:, 0], block_sizes=[2, 2], layer=1)
    headgrid.save_capture(rows, tmp_path / "in/layer1.npz")
    with pytest.raises(CaptureError, match="full_frame_attention: present and absent"):
        survey(tmp_path / "in")


def test_the_same_layer_of_a_run_twice_is_an_error_that_names_both(capture_file, tmp_path):
    paths = [capture_file(f"in/run_0/{name}.npz", layer=3) for name in ("copy", "layer3")]
    with pytest.raises(CaptureError, match="are both run_0, layer 3, expected one") as caught:
        survey(tmp_path / "in")
    for path in paths:
        assert str(path) in str(caught.value)


def test_runs_that_lack_layers_are_named_once_for_all_that_lack_the_same(tmp_path):
    write_tree(tmp_path / "in", [f"run_{n}" for n in range(9)], layers=(0,))
    write_tree(tmp_path / "in", ["run_9"], layers=(0, 1, 2, 3))
    (tmp_path / "in/run_9/layer2.npz").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeadgridWarning)
        found = survey(tmp_path / "in")
    assert found.layers == (0, 1, 2, 3)
    many, one = found.missing
    assert many.startswith(
        "run_0, run_1, run_2, ..., run_6, run_7, run_8 (9 runs): layers 1, 2, 3 are missing"
    )
    assert one.startswith("run_9: layer 2 is missing, expected every layer of 0 to 3")


def test_layers_at_a_regular_step_are_not_missing(tmp_path):
    write_tree(tmp_path / "in", ["run_0"], layers=(2, 6, 14))
    with pytest.warns(HeadgridWarning, match="layer 10 is missing"):
        assert survey(tmp_path / "in").layers == (2, 6, 10, 14)


def test_what_is_odd_in_many_files_is_said_once(tmp_path):
    values = waves(1, 5, 5)
    values[:, 3:, :], values[:, :, 3:] = 0, 0
    for run in range(3):
        folder = tmp_path / "in" / f"run_{run}"
        folder.mkdir(parents=True)
        data = {"full_frame_attention": values, "block_sizes": np.array([1, 2])}
        np.savez(folder / "layer1.npz", **data)
    with pytest.warns(HeadgridWarning) as caught:
        survey(tmp_path / "in")
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith(f"{tmp_path / 'in/run_0/layer1.npz'}: block_sizes sum to 3")
    assert text.endswith("(and 2 more files)")


def test_words_that_differ_between_runs_are_numbers_with_one_warning(cli, tmp_path):
    cats, dogs = ["The", "cat", "sat"], ["A", "dog", "ran"]
    for run, words in enumerate([cats, cats, dogs, cats, dogs]):
        for layer in (0, 1):
            capture = Capture.from_array(waves(2, 3, 3), key_labels=words, layer=layer)
            headgrid.save_capture(capture, tmp_path / f"in/run_{run}/layer{layer}.npz")
    text = (
        "run_0 and run_2 differ in the key labels: 3 (The, cat, sat) and 3 (A, dog, ran); what is "
        "made of both shows plain numbers instead of labels"
    )
    with pytest.warns(HeadgridWarning) as caught:
        found = survey(tmp_path / "in")
    assert [str(warning.message) for warning in caught] == [text]
    assert {capture.key_labels for capture in found.captures.values()} == {None}
    done = cli("survey", tmp_path / "in", "-o", tmp_path / "out", "--format", "json")
    assert done.stderr == f"headgrid: warning: {text}\n"
    alike = survey([tmp_path / "in/run_0", tmp_path / "in/run_1"])  # without a warning
    assert alike.captures["", 0].key_labels == tuple(cats)


def test_a_name_that_can_not_be_printed_is_made_visible(small):
    table = survey(small.replace(run="a\x1b[31m")).statistics
    assert table["run"].unique().tolist() == ["a␛[31m"]


def test_sets_that_differ_only_in_what_is_no_text_are_not_one(tmp_path):
    for layer, name in enumerate(map(os.fsdecode, (b"a\xfe/run_0", b"a\xff/run_1"))):
        (tmp_path / name).mkdir(parents=True)
        headgrid.save_capture(block_capture(layer=layer), tmp_path / name / "layer.npz")
    with pytest.raises(CaptureError, match=r"udcfe.* and '.*udcff.* differ only in what can not"):
        survey(tmp_path)


def test_files_of_a_survey_may_be_given_as_text(capture_file):
    assert survey(str(capture_file())).layers == (3,)
    assert survey([Path(capture_file())]).num_runs == 1


def test_what_is_neither_a_path_nor_a_capture_is_refused():
    with pytest.raises(OptionError, match="inputs is NoneType, expected paths, or captures"):
        headgrid.survey(None)


ROW = Capture.from_array(last_block=[[1.0]])


@pytest.mark.parametrize("inputs", [[1], ["tree", ROW], [ROW, "tree"], [None]])
def test_paths_and_captures_are_not_mixed(inputs):
    with pytest.raises(OptionError, match="expected paths only, or captures only"):
        headgrid.survey(inputs)


def test_what_is_no_capture_and_no_survey_is_named_by_its_type():
    pick = partial(headgrid.pick, heads=["0:0"])
    for draw in (headgrid.sheet, pick, headgrid.measure_table, lambda ones: headgrid.compare(1, 2)):
        with pytest.raises(CaptureError, match="found int, expected one Capture"):
            draw([1])
    for draw in (headgrid.overview, headgrid.trend):
        with pytest.raises(CaptureError, match="found list, expected a survey"):
            draw([])


def test_a_layer_of_one_run_among_several_is_a_mean_as_well():
    captures = [block_capture(2, (2, 2), layer=n, run=f"run_{r}") for r in range(3) for n in (0, 1)]
    with pytest.warns(HeadgridWarning, match="run_1, run_2: layer 2 is missing"):
        found = survey([*captures, block_capture(2, (2, 2), layer=2, run="run_0")])
    assert {capture.statistic for capture in found.captures.values()} == {"logit_mean"}
    spec = headgrid.to_spec(headgrid.sheet(found))
    assert spec["usermeta"]["headgrid"]["statistic"] == "logit_mean"


def test_deviations_of_several_runs_are_refused_with_both_names():
    captures = [block_capture(2, (2, 2), statistic="logit_std", run=f"run_{r}") for r in range(2)]
    with pytest.raises(CaptureError, match=r"hold logit_std of several runs, which has no mean"):
        survey(captures)


def write_large(path, kind):
    """Write random logits, 12 x 4096 x 4096."""
    import torch

    name, _, order = kind.partition(" ")
    values = torch.empty(12, 4096, 4096, dtype=getattr(torch, name))
    for head in values:
        head[:] = torch.randn(4096, 4096)
    values = values.mT if order else values
    if path.suffix == ".npz":
        np.savez(path, full_frame_attention=values.numpy())
    else:
        torch.save({"full_frame_attention": values}, path)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("bfloat16", "pt"),
        ("float64", "pt"),
        ("float32", "npz"),
        ("float32 transposed", "pt"),
        ("bfloat16 transposed", "pt"),
    ],
)
def test_a_large_capture_is_surveyed_in_little_memory(tmp_path, kind, suffix):
    """Peak of the whole command, of a file of up to 1.6 GB: at most 1.5 GiB."""
    path = tmp_path / f"layer0.{suffix}"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as writer:
        writer.submit(write_large, path, kind).result()
    command = [sys.executable, "-m", "headgrid", "survey", path, "-o", tmp_path / "out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    path.unlink()
    assert process.returncode == 0
    assert usage.ru_maxrss < 1.5 * 2**20  # in KiB
