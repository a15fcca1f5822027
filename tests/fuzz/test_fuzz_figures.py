"""Captures, options, names and specifications of all kinds: a figure, or one sentence."""

import pytest
from fuzz_strategies import (
    capture_data,
    figure_options,
    head_names,
    rarely,
    specifications,
    texts,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

#: In CI the same cases on each run; by night others, and many.
some = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
very_many = settings(some, max_examples=10_000, derandomize=False, print_blob=True)

captures = st.fixed_dictionaries(
    {"kind": st.just("capture"), "data": capture_data(), "run": texts, "options": figure_options()}
)
HEADS = [f"{run}/3:{head}" for run in "abc" for head in (0, 1)]
picks = st.fixed_dictionaries(
    {
        "kind": st.just("pick"),
        "runs": st.lists(
            rarely(texts, st.sampled_from("abc")), min_size=1, max_size=3, unique=True
        ),
        "heads": st.lists(rarely(head_names, st.sampled_from(HEADS)), min_size=1, max_size=4),
        "figure": rarely(texts, st.sampled_from(["heatmap", "perhead", "both"])),
        "options": figure_options(),
    }
)
specs = st.fixed_dictionaries(
    {
        "kind": st.just("spec"),
        "spec": specifications(),
        "nested": st.sampled_from([0, 0, 0, 0, 0, 0, 0, 10, 200, 2_000]),
        "around": st.booleans(),
    }
)


def fuzz(lab, cases, how):
    """Run cases that hypothesis thinks of."""

    @how
    @given(cases)
    def run(case):
        lab.run_case(case)

    run()


@pytest.mark.parametrize("cases", [captures, picks, specs], ids=["captures", "picks", "specs"])
def test_any_input_ends_in_a_figure_or_a_sentence(lab, cases):
    fuzz(lab, cases, some)
    assert lab.tally["figures"] > 1
    assert lab.tally.total() > lab.tally["figures"] + lab.tally["one figure"]


@pytest.mark.nightly
@pytest.mark.parametrize("cases", [captures, picks, specs], ids=["captures", "picks", "specs"])
def test_very_many_figures(lab, cases):
    fuzz(lab, cases, very_many)


@pytest.mark.nightly
def test_the_laboratory_sees_what_goes_wrong(lab, monkeypatch, tmp_path):
    """A case that raises, prints a traceback, hangs, dies, eats memory or writes is found."""
    monkeypatch.setenv("HEADGRID_FUZZ_DIR", str(tmp_path / "kept"))
    bad = {"kind": "no such kind"}
    with pytest.raises(AssertionError, match=r"kept.*layer3\.case: (.|\n)*KeyError"):
        lab.run_case(bad)
    assert list((tmp_path / "kept").rglob("layer3.case"))
    for kind, found in {
        "die": r"killed its process \(-11\)",
        "hang": "hung for 3 s",
        "spin": r"took \d+\.\d s of processor time",
        "eat": r"took [\d,]+ MiB",
    }.items():
        # A busy machine is slow in all else.
        monkeypatch.setattr("fuzz_harness.MAX_WAIT", 3.0 if kind == "hang" else 120.0)
        with pytest.raises(AssertionError, match=found):
            lab.run_case({"kind": kind})
    lab.run_case({"kind": "write"})
    with pytest.raises(AssertionError):
        lab.check_tree()
    (lab.inside / "work" / "stray.txt").unlink()
