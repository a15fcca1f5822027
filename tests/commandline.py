"""The command line as a user meets it: in a process of its own."""

import subprocess
import sys
import time

ENDED_BY_CTRL_C = "headgrid: stopped; every file written so far is whole\n"


def run_process(*arguments, **options):
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "headgrid", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        **options,
    )


def start_process(*arguments, **options):
    """Start the command in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headgrid", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for_files(folder, pattern, count):
    """Wait until so many files are there."""
    deadline = time.monotonic() + 120
    while len(list(folder.rglob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def files_under(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def contents(folder):
    """Return every file below a folder with its bytes."""
    return {name: (folder / name).read_bytes() for name in files_under(folder)}
