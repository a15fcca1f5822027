"""Damaged capture files: each becomes a figure, or an error of one sentence."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_harness import SEED
from fuzz_mutations import edit_schema, mutate_file
from fuzz_seeds import schema_variants, seeds, to_npz, to_pt, to_safetensors, to_tensors

from places import SHARED

SUFFIXES = (".pt", ".npz", ".safetensors")
FULL, LAST = "full_frame_attention", "last_block_frame_attention"


def claims():
    """Yield small files that claim much: their name, what they are, and what is said of them."""
    ones, bytes_ = torch.ones(1), np.zeros(60_000_000, np.uint8)
    yield "heads.pt", to_pt({FULL: ones.expand(2**23, 1, 1)}), "at most 10,000 heads"
    yield "keys.pt", to_pt({LAST: ones.expand(1, 2**24)}), "at most 20,000 key frames"
    yield "queries.pt", to_pt({FULL: ones.expand(1, 2**20, 2)}), "at most 20,000 query frames"
    yield "square.pt", to_pt({FULL: ones.expand(1, 4000, 4000)}), "figures"
    yield "rows.pt", to_pt({LAST: ones.expand(1, 10_000)}), "one figure"
    whole = {FULL: np.ones((1, 2, 2))}
    yield "heads.npz", to_npz({FULL: np.ones((10**6, 1, 1))}, packed=True), "at most 10,000 heads"
    long = to_npz({**whole, "block_sizes": bytes_}, packed=True)
    yield "blocks.npz", long, "block_sizes lists 60,000,000 numbers, expected at most 20,000"
    yield "other.npz", to_npz({**whole, "other": bytes_}, packed=True), "figures"
    far = {**whole, "key_frames": [5, 7], "query_frames": [5, 7]}
    yield "sum.npz", to_npz({**far, "block_sizes": [10**8 - 1]}), "expected at most 20,000 frames"
    wide = {FULL: torch.ones(1, 2, 20_000), "last_block_query_frames": [1] * 20_000}
    yield "repeated.pt", to_pt(wide), "names a frame twice"
    keys = {f"full_frame_attentio{number}" * 50: 1 for number in range(60_000)}
    yield "keys.safetensors", to_safetensors({"a": np.ones(1), **keys}), "header"
    yield "names.pt", to_pt({f"{number}" * 50: 1 for number in range(30_000)}), "there are 0000"


def test_small_files_that_claim_much_cost_little(lab):
    for name, content, found in claims():
        outcome = lab.run(lab.write(content, f"{Path(name).stem}/layer3{Path(name).suffix}"))
        assert found in outcome, name


def fuzz_files(lab, files, suffix, cases):
    """Damage files of one format, one after another, and run each."""
    others = list(files.values())
    names = sorted(name for name in files if name.endswith(suffix))
    for number in range(cases):
        name = names[number % len(names)]
        rng = random.Random(f"{SEED}/{name}/{number}")
        content = mutate_file(rng, files[name], suffix, others)
        lab.run(lab.write(content, f"{name.removesuffix(suffix)}-{number}/layer3{suffix}"))


def fuzz_dictionaries(lab, cases):
    """Write dictionaries that are wrong in files that are right."""
    variants = schema_variants()
    for number in range(cases):
        rng = random.Random(f"{SEED}/dictionaries/{number}")
        data = edit_schema(rng, variants[rng.choice(sorted(variants))])
        suffix = rng.choice(SUFFIXES)
        try:
            if suffix == ".pt":
                content = to_pt(to_tensors(data))
            elif suffix == ".npz":
                content = to_npz({str(key): value for key, value in data.items()})
            else:
                content = to_safetensors({str(key): value for key, value in data.items()})
        except Exception:  # noqa: BLE001 - whoever writes the format refuses it
            continue
        lab.run(lab.write(content, f"{number}/layer3{suffix}"))


def test_every_seed_is_a_sound_capture(lab):
    for name, content in seeds(lab.cases).items():
        outcome = lab.run(lab.write(content, f"{name}/layer3{Path(name).suffix}"))
        expected = "one figure" if name.startswith("rows") else "figures"
        assert outcome == expected, name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_end_in_a_figure_or_a_sentence(lab, suffix):
    fuzz_files(lab, seeds(lab.cases), suffix, 60)
    assert lab.tally["CaptureError"] > 9
    assert lab.tally["figures"] > 3


def test_wrong_dictionaries_end_in_a_figure_or_a_sentence(lab):
    fuzz_dictionaries(lab, 30)
    assert lab.tally["CaptureError"] > 5
    assert lab.tally["figures"] > 1


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_very_many_damaged_files(lab, suffix):
    fuzz_files(lab, seeds(lab.cases), suffix, 30_000)


@pytest.mark.nightly
def test_very_many_wrong_dictionaries(lab):
    fuzz_dictionaries(lab, 20_000)


@pytest.mark.nightly
def test_very_many_damaged_real_files(lab, shared):
    paths = sorted((SHARED / "data").rglob("*.pt"))
    files = {f"{path.parent.name}-{path.stem}.pt": path.read_bytes() for path in paths}
    fuzz_files(lab, files, ".pt", 2_000)
