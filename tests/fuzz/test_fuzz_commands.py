"""Damaged folders, lists of jobs and saved states: commands end in files and sentences."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_harness import SEED
from fuzz_mutations import edit_json_text, mutate_file
from fuzz_seeds import seeds

from headgrid.batch.manifest import NAME, Manifest, hash_bytes
from headgrid.capture.store import load_capture, save_capture
from headgrid.errors import HeadgridError
from synthetic import block_capture

KEYS = {"a.pt": ["a.svg"], "run_0/b.pt": ["run_0/b.svg", "run_0/b.png"], 'x"\n.pt': ["c.svg"]}


def contents(folder):
    """Return every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The list of jobs


def write_jobs(folder):
    """Write the files and the list of three jobs, as a run does."""
    with Manifest(folder, "render", {"columns": 4}) as manifest:
        for key, names in KEYS.items():
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(name)
            made = {folder / name: hash_bytes(name.encode()) for name in names}
            manifest.add(key, hash_bytes(key.encode()), made)


def fuzz_jobs(folder, cases):
    """Damage a list of jobs; what is done by it has to be done, and the next list is sound."""
    folder.mkdir()
    write_jobs(folder)
    sound, files = (folder / NAME).read_bytes(), contents(folder)
    kept = 0
    for number in range(cases):
        damaged = edit_json_text(random.Random(f"{SEED}/jobs/{number}"), sound) or b"{"
        (folder / NAME).write_bytes(damaged)
        with Manifest(folder, "render", {"columns": 4}, resume=True) as manifest:
            for key, names in KEYS.items():
                listed = manifest.outputs(key)
                if manifest.is_done(key, hash_bytes(key.encode())) and listed == set(names):
                    kept += 1
        found = json.loads((folder / NAME).read_bytes())
        assert set(found["jobs"]) <= set(KEYS), damaged
        for job in found["jobs"].values():
            assert {name: hash_bytes(files[name]) for name in job["outputs"]} == job["outputs"]
        assert {**contents(folder), NAME: b""} == {**files, NAME: b""}
    assert kept > cases / 10


def test_a_damaged_list_of_jobs_is_believed_only_where_the_files_are_there(tmp_path):
    fuzz_jobs(tmp_path / "out", 1500)


@pytest.mark.nightly
def test_very_many_damaged_lists_of_jobs(tmp_path):
    fuzz_jobs(tmp_path / "out", 100_000)


def fuzz_resumed_renders(lab, cases):
    """Resume with a damaged list: the folder ends as one that was never interrupted."""
    for name in ("run_0/layer0", "run_0/layer1", "run_1/layer0", "run_1/layer1"):
        capture = block_capture(layer=int(name[-1]), scale=1 + int(name[4]))
        save_capture(capture, lab.cases / "in" / f"{name}.npz")
    out = lab.cases / "out"
    arguments = ["render", str(lab.cases / "in"), "-o", str(out), "--figure", "perhead", "-j", "1"]
    assert lab.run_case({"kind": "command", "arguments": arguments}) == "exit 0"
    undisturbed = contents(out)
    for number in range(cases):
        rng = random.Random(f"{SEED}/resumed/{number}")
        (out / NAME).write_bytes(edit_json_text(rng, undisturbed[NAME]) or b"{")
        case = {"kind": "command", "arguments": [*arguments, "--resume"]}
        assert lab.run_case(case) == "exit 0"
        assert contents(out) == undisturbed, lab.keep(out / NAME)


def test_a_damaged_list_does_not_change_what_a_resumed_run_leaves(lab):
    fuzz_resumed_renders(lab, 6)


@pytest.mark.nightly
def test_very_many_resumed_renders(lab):
    fuzz_resumed_renders(lab, 500)


# Folders of damaged files on the command line


def damage_folder(folder, files, count):
    """Write damaged files to one folder each; return how many of them can be read."""
    usable = 0
    for number in range(count):
        name = sorted(files)[number % len(files)]
        suffix = Path(name).suffix
        content = mutate_file(
            random.Random(f"{SEED}/folder/{number}"), files[name], suffix, list(files.values())
        )
        path = folder / f"run_{number}" / f"layer3{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        try:
            load_capture(path)
        except HeadgridError:
            continue
        usable += 1
    return usable


@pytest.mark.filterwarnings("ignore::headgrid.HeadgridWarning")
def test_a_folder_of_damaged_files_is_drawn_as_far_as_it_can_be(lab):
    folder, out = lab.cases / "in", lab.cases / "out"
    files = seeds(lab.cases)
    usable = damage_folder(folder, files, 60)
    hostile = lab.cases / "in" / os.fsdecode(b"run_0 \xff\n\x1b[31m")
    hostile.mkdir()
    (hostile / "layer3.npz").write_bytes(files["whole.npz"])
    for arguments in (
        ["stats", str(folder)],
        ["render", str(folder), "-o", str(out), "--figure", "perhead", "-j", "1"],
        ["survey", str(folder), "-o", str(lab.cases / "survey")],
        ["pick", str(folder), "--head", "3:0", "-o", str(lab.cases / "pick.svg")],
    ):
        assert lab.run_case({"kind": "command", "arguments": arguments}) == "exit 1", arguments
    assert usable > 5
    assert len(list(out.rglob("*.svg"))) == usable + 1


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors"])
def test_a_damaged_file_is_one_line_of_the_command(suffix, lab):
    """The whole program: no traceback, exit code 1."""
    files = seeds(lab.cases)
    content = files[f"whole{suffix}"]
    path = lab.write(content[: len(content) // 2], f"layer3{suffix}")
    command = [sys.executable, "-m", "headgrid", "render", str(path), "-o", str(lab.cases / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("headgrid: ")
    assert "expected" in line
    assert not (lab.cases / "out").exists()
