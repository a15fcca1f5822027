"""Damaged folders, lists of jobs and saved states: commands end in files and sentences."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_harness import SEED
from fuzz_mutations import edit_json_text, mutate_file
from fuzz_seeds import seeds

from headgrid import HeadgridError, load_capture, save_capture
from headgrid.batch.manifest import NAME
from synthetic import block_capture


def contents(folder):
    """Return every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The list of jobs


def fuzz_resumed_renders(lab, cases):
    """Resume with a damaged list: the folder ends as one that was never interrupted."""
    for layer in (0, 1):
        save_capture(block_capture(layer=layer), lab.cases / "in" / f"layer{layer}.npz")
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
    fuzz_resumed_renders(lab, 1)


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
    usable = damage_folder(folder, files, 16)
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
    assert usable > 1
    assert len(list(out.rglob("*.svg"))) == usable + 1


def test_a_damaged_file_is_one_line_of_the_command(lab):
    """The whole program: no traceback, exit code 1."""
    files = seeds(lab.cases)
    path = lab.write(files["whole.pt"][:500], "layer3.pt")
    command = [sys.executable, "-m", "headgrid", "render", str(path), "-o", str(lab.cases / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("headgrid: ")
    assert "expected" in line
    assert not (lab.cases / "out").exists()
