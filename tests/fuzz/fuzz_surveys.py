"""Captures and a saved state of their survey -> the survey, which the state must not change."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
from fuzz_mutations import edit_tree, mutate_bytes, odd_value

import headgrid
from headgrid.capture.folders import find_captures, place_captures
from headgrid.survey.reading import read_files
from headgrid.survey.surveys import survey_tally
from synthetic import block_capture


def make_runs(folder: Path) -> list[Path]:
    """Write two runs of two layers, and a file that is no capture."""
    for run in (0, 1):
        for layer in (0, 1):
            capture = block_capture(layer=layer, scale=1 + run + layer)
            headgrid.save_capture(capture, folder / f"run_{run}" / f"layer{layer}.npz")
    (folder / "run_1" / "layer7.npz").write_bytes(b"PK no zip")
    return [folder]


def take_survey(inputs, state: Path | None, *, resume: bool) -> bytes:
    """Return every table and map of a survey as bytes."""
    files, _ = find_captures(inputs)
    tally = read_files(files, place_captures(files), folder=state, resume=resume)
    found = survey_tally(tally)
    buffer = io.StringIO()
    found.statistics.to_csv(buffer)
    found.summary().to_csv(buffer)
    parts = [buffer.getvalue(), repr(found), repr(found.failures), repr(found.warnings)]
    parts.append(repr(found.color_range("quantile")))
    for moments in tally.moments.values():
        for name, value in moments.to_arrays().items():
            parts.append(f"{name} {np.asarray(value).tolist()}")
    found.close()
    return "\n".join(parts).encode()


def survey_again(state: Path, files) -> None:
    """Take up a state that may be damaged; the result has to be that of a survey without one."""
    fresh = take_survey(files, None, resume=False)
    again = take_survey(files, state, resume=True)
    assert again == fresh, "a damaged state has changed the survey"
    shutil.rmtree(state, ignore_errors=True)


def damage_state(rng: random.Random, state: Path) -> None:
    """Damage one of the files of a state: its bytes, or what it says, in a sound zip."""
    name = rng.choice(("state.npz", "state.npz", "state.npz", "rows.bin"))
    path = state / name
    if name == "rows.bin" or rng.random() < 0.4:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return
    with np.load(path) as found:
        arrays = {key: found[key] for key in found.files}
    if rng.random() < 0.6:
        about = json.loads(arrays["about"].tobytes())
        kept = {key: about[key] for key in about if key not in ("fingerprint", "checksum")}
        text = json.dumps({**about, **edit_tree(rng, kept, odd_value)})
        arrays["about"] = np.frombuffer(text.encode(), np.uint8)
    else:
        key, other = rng.choice(sorted(arrays)), rng.choice(sorted(arrays))
        old = arrays[key]
        whole = old.ndim == 0
        arrays[key] = rng.choice((arrays[other], np.zeros(3), old if whole else old[..., :1]))
        if rng.random() < 0.3:
            del arrays[key]
    np.savez(path, **arrays)
