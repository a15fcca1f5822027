"""What a survey costs: `python -m tests.benchmarks.bench_surveys [--runs 100 400] [CAPTURES...]`.

Prints wall time and the peak memory of all processes together, of synthetic runs
(30 layers of 12 x 21 x 21), and of folders of captures that are given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tests.benchmarks import captures, processes

import headgrid

LAYERS = 30
console = Console(width=110)


def write_runs(folder: Path, runs: int, frames: int = 21) -> Path:
    """Write runs of synthetic captures; what is there already stays."""
    generator = np.random.default_rng(0)
    plain = [captures.make(frames, layer=layer) for layer in range(LAYERS)]
    blocks = plain[0].block_sizes
    for run in range(runs):
        for layer, capture in enumerate(plain):
            assert capture.full_frame_attention is not None
            noise = generator.normal(size=capture.full_frame_attention.shape)
            path = folder / f"run_{run:03d}" / f"layer{layer}.npz"
            if not path.exists():
                values = (capture.full_frame_attention + noise).astype(np.float16)
                changed = headgrid.Capture.from_array(values, block_sizes=blocks, layer=layer)
                headgrid.save_capture(changed, path)
    return folder


def measure_survey(table: Table, name: str, folder: Path, jobs: int) -> None:
    """Add a row with what the survey of a folder costs."""
    files = sum(1 for path in folder.rglob("layer*") if path.is_file())
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "headgrid", "survey", str(folder), "-o", out]
        cost = processes.measure([*command, "--jobs", str(jobs)], 1)
        written = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    row = [f"{files:,}", f"{jobs}", f"{cost.seconds:.1f}", f"{files / cost.seconds:,.0f}"]
    table.add_row(name, *row, f"{cost.megabytes:.0f}", f"{written / 1e6:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of captures")
    parser.add_argument("--runs", nargs="*", type=int, default=[100, 400])
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    table = Table(title=f"headgrid survey, whole process; {processes.load()}")
    for column in ("captures", "files", "jobs", "seconds", "files/s", "peak MB", "written MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for given in arguments.folders:
            measure_survey(table, given.name, given, arguments.jobs)
        for runs in sorted(arguments.runs):
            made = write_runs(Path(folder, str(runs)), runs)
            name = f"{runs} runs x {LAYERS} x 12 x 21 x 21"
            measure_survey(table, name, made, arguments.jobs)
    console.print(table)


if __name__ == "__main__":
    main()
