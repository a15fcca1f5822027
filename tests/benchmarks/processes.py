"""A command -> its wall time and the peak memory of all its processes together."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    seconds: float
    megabytes: float


def measure(command: list[str], repeats: int = 3) -> Cost:
    """Run a command several times; return the least of the wall times and of the peaks."""
    costs = [_run(command) for _ in range(repeats)]
    return Cost(min(c.seconds for c in costs), min(c.megabytes for c in costs))


def _run(command: list[str]) -> Cost:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_proportional_set(pid) for pid in _family(process.pid)))
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(f"{command}: {process.stderr.read().decode()}")
    return Cost(seconds, peak / 1024)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    members = [pid]
    for member in members:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return members


def _proportional_set(pid: int) -> int:
    """Return KiB of memory of a process, what it shares counted in parts."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def load() -> str:
    """Return the machine's load, for beside the figures."""
    return f"load {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores"
