"""Captures, options, names, specifications and folders: a figure, or one sentence."""

import os
from random import Random

import pytest
from fuzz_lab import SEED, keep
from fuzz_mutations import edit_json, mutate_file
from fuzz_seeds import seeds
from fuzz_strategies import capture_data, figure_options, head_names, rarely, texts
from fuzz_strategies import specifications as specs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commandline import files_under
from headgrid import HeadgridError, load_capture, save_capture
from headgrid.batch.manifest import NAME
from synthetic import block_capture

#: By day the same cases on each run; by night others, and many.
some = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
very_many = settings(some, max_examples=10_000, derandomize=False, print_blob=True)

HEADS = [f"{run}/3:{head}" for run in "abc" for head in (0, 1)]
CASES = {
    "capture": {"data": capture_data(), "run": texts, "options": figure_options},
    "pick": {
        "runs": st.lists(
            rarely(texts, st.sampled_from("abc")), min_size=1, max_size=3, unique=True
        ),
        "heads": st.lists(rarely(head_names, st.sampled_from(HEADS)), min_size=1, max_size=4),
        "options": figure_options,
    },
    "spec": {
        "spec": specs(),
        "nested": st.sampled_from([0, 0, 0, 0, 0, 0, 0, 10, 200, 2_000]),
        "around": st.booleans(),
    },
}


@pytest.mark.parametrize(
    "how", [some, pytest.param(very_many, marks=pytest.mark.nightly)], ids=["some", "very many"]
)
@pytest.mark.parametrize("kind", CASES)
def test_any_input_ends_in_a_figure_or_a_sentence(lab, kind, how):
    @how
    @given(st.fixed_dictionaries(CASES[kind]))
    def run(case):
        lab.run(kind, **case)

    run()
    assert lab.tally["figures"] > 1
    assert lab.tally.total() > lab.tally["figures"]


@pytest.mark.nightly
def test_a_damaged_list_does_not_change_what_a_resumed_run_leaves(lab):
    for layer in (0, 1):
        save_capture(block_capture(layer=layer), lab.cases / f"in/layer{layer}.npz")
    out = lab.cases / "out"
    arguments = ["render", str(lab.cases / "in"), "-o", str(out), "--figure", "perhead", "-j", "1"]
    assert lab.run("command", arguments=arguments) == "exit 0"
    whole = {name: (out / name).read_bytes() for name in files_under(out)}
    for number in range(500):
        damaged = edit_json(Random(f"{SEED}/resumed/{number}"), whole[NAME]) or b"{"
        (out / NAME).write_bytes(damaged)
        assert lab.run("command", arguments=[*arguments, "--resume"]) == "exit 0"
        left = {name: (out / name).read_bytes() for name in files_under(out)}
        assert left == whole, keep(damaged, NAME)


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
def test_a_folder_of_damaged_files_is_drawn_as_far_as_it_can_be(lab):
    folder, usable = lab.cases / "in", 1
    (folder / os.fsdecode(b"run_0 \xff\n\x1b[31m")).mkdir(parents=True)
    (folder / os.fsdecode(b"run_0 \xff\n\x1b[31m") / "layer3.npz").write_bytes(seeds()["whole.npz"])
    for number, name in enumerate(sorted(seeds())[:16]):
        path = folder / f"run_{number}" / f"layer3.{name.rpartition('.')[2]}"
        path.parent.mkdir()
        path.write_bytes(mutate_file(Random(f"{SEED}/folder/{number}"), name, seeds()))
        try:
            load_capture(path)
            usable += 1
        except HeadgridError:
            continue
    out = lab.cases / "out"
    for arguments in (
        ["stats", str(folder)],
        ["render", str(folder), "-o", str(out), "--figure", "perhead", "-j", "1"],
        ["survey", str(folder), "-o", str(lab.cases / "survey")],
        ["pick", str(folder), "--head", "3:0", "-o", str(lab.cases / "pick.svg")],
    ):
        assert lab.run("command", arguments=arguments) == "exit 1", arguments
    assert 1 < usable < 17
    assert len(list(out.rglob("*.svg"))) == usable
