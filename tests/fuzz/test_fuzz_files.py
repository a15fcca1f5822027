"""Capture files damaged and made up: each is read as it is, or refused in one sentence."""

from random import Random

import numpy as np
import pytest
import torch
from fuzz_lab import SEED
from fuzz_mutations import craft_file, mutate_file
from fuzz_seeds import FULL, LAST, WRITERS, seeds, to_npz, to_pt, to_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz_figures import capture_data, some, very_many


def by_night(*values):
    return [pytest.param(value, marks=pytest.mark.nightly) for value in values]


def claims():
    """Yield small files that claim much: their name, what they are, and what is said of them."""
    ones, whole = torch.ones(1), {FULL: np.ones((1, 2, 2))}
    packed = to_npz({FULL: np.ones((10**6, 1, 1))}, packed=True)
    yield "heads.npz", packed, "at most 10,000 heads"
    yield "keys.pt", to_pt({LAST: ones.expand(1, 2**24)}), "at most 20,000 key frames"
    yield "square.pt", to_pt({FULL: ones.expand(1, 2000, 2000)}), "read"
    long = {"block_sizes": np.zeros(20_000_000, np.uint8)}
    yield "blocks.npz", to_npz({**whole, **long}, packed=True), "expected at most 20,000"
    keys = {f"full_frame_attentio{number}" * 50: 1 for number in range(20_000)}
    yield "keys.safetensors", to_safetensors({"a": np.ones(1), **keys}), "header"
    yield "names.pt", to_pt({f"{number}" * 50: 1 for number in range(30_000)}), "there are 0000"


def test_small_files_that_claim_much_cost_little(lab):
    for name, content, found in claims():
        assert found in lab.read(content, name), name


def test_every_seed_is_a_sound_capture(lab):
    for name, content in seeds().items():
        assert lab.read(content, name) == "read", name


@pytest.mark.parametrize("cases", [50, *by_night(700, 30_000)])
@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_files_are_read_or_refused(lab, suffix, cases):
    names = sorted(name for name in seeds() if name.endswith(suffix))
    for number in range(cases):
        name = names[number % len(names)]
        damaged = mutate_file(Random(f"{SEED}/{name}/{number}"), name, seeds())
        lab.read(damaged, name, figures=cases == 30_000)
    assert lab.tally["CaptureError"] > cases / 8
    assert lab.tally.total() > lab.tally["CaptureError"] + cases / 20


@pytest.mark.parametrize("cases", [30, *by_night(170, 10_000)])
@pytest.mark.parametrize("suffix", WRITERS)
def test_made_up_files_run_nothing(lab, suffix, cases):
    for number in range(cases):
        rng = Random(f"{SEED}/made up/{suffix}/{number}")
        lab.read(craft_file(rng, suffix, seeds()[f"whole{suffix}"]), f"{number}{suffix}")
    assert lab.tally["CaptureError"] > cases / 2


@pytest.mark.parametrize("how", [settings(some, max_examples=40), *by_night(very_many)])
def test_wrong_dictionaries_are_read_or_refused(lab, how):
    @how
    @given(capture_data(), st.sampled_from([*WRITERS]))
    def run(data, suffix):
        try:
            content = WRITERS[suffix](data)
        except Exception:  # noqa: BLE001 - whoever writes the format refuses it
            return
        lab.read(content, f"0{suffix}")

    run()
    assert lab.tally["CaptureError"] > 2
    assert lab.tally["read"] > 2


@pytest.mark.nightly
def test_the_laboratory_sees_what_goes_wrong(lab, monkeypatch, tmp_path):
    """A case that raises, hangs, dies, eats memory, runs something or writes is found."""
    monkeypatch.setenv("HEADGRID_FUZZ_DIR", str(tmp_path / "kept"))
    for code, found in {
        "1 / 0": r"kept.*layer3\.case: (.|\n)*ZeroDivisionError",
        "import os; os.kill(os.getpid(), 11)": "killed its process",
        "import time; time.sleep(3600)": "hung for 3 s",
        "while time.process_time() < 30: pass": r"took \d+\.\d s of processor time",
        "bytearray(os.urandom(2**20)) * 1200": r"took [\d,]+ MiB",
        "READING.append(1); os.system('true'); assert not HEARD, HEARD": "os.system",
    }.items():
        # A busy machine is slow in all else.
        monkeypatch.setattr("fuzz_lab.MAX_WAIT", 3.0 if "sleep" in code else 120.0)
        with pytest.raises(AssertionError, match=found):
            lab.run("code", code=code)
    assert list((tmp_path / "kept").rglob("layer3.case"))
    lab.run("code", code="Path('stray.txt').write_text('stray')")
    assert lab.tree() != lab.before
    (lab.inside / "work" / "stray.txt").unlink()
    lab.close()
