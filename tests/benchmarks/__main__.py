"""Print every table: `python -m tests.benchmarks [--layers N] [--repeats N]`."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.benchmarks import captures, processes

import headgrid
from headgrid.web.save import begin_save

FRAMES = (21, 72, 144, 200)
FORMATS = ("svg", "png", "pdf", "json")
_PYTHON = sys.executable
_HEADGRID = [_PYTHON, "-m", "headgrid", "render"]
_MATPLOTLIB = [_PYTHON, str(Path(__file__).with_name("matplotlib_figures.py"))]
console = Console(width=118)


def figures_table(folder: Path) -> Table:
    """Return what each figure costs in each format, warm in one process and as a whole process."""
    table = Table(title="One figure: engine warm, and as a whole process")
    for name in ("frames", "visible cells", "figure", "format", "warm ms", "process s", "peak MB"):
        table.add_column(name, justify="right")
    table.add_column("bytes (gzipped)", justify="right")
    for frames in FRAMES:
        capture = captures.make(frames)
        (path,) = captures.write(folder / "one", frames)
        for figure in (headgrid.heatmap, headgrid.perhead):
            for format in FORMATS:
                seconds, content = _time_figure(figure, capture, format)
                command = [*_HEADGRID, str(path), "-o", str(folder / "out")]
                command += ["--figure", figure.__name__, "--format", format]
                whole = processes.measure(command, 1)
                packed = len(gzip.compress(content, 9, mtime=0))
                drawn = [str(frames), f"{capture.num_visible:,}", figure.__name__, format]
                cost = [f"{whole.seconds:.2f}", f"{whole.megabytes:.0f}"]
                size = f"{len(content):,} ({packed:,})"
                table.add_row(*drawn, f"{seconds * 1000:,.0f}", *cost, size)
    return table


def growth_table() -> Table:
    """Return how the heatmap grows with its cells, as vectors and as images."""
    table = Table(title="Heatmap SVG by visible cells: milliseconds / bytes / bytes a cell")
    for name in ("frames", "visible cells", "vector", "image"):
        table.add_column(name, justify="right")
    for frames in (21, 36, 72, 102, 144, 200, 250):
        capture = captures.make(frames)
        row = [str(frames), f"{capture.num_visible:,}"]
        for cells in ("vector", "image"):
            draw = partial(headgrid.heatmap, cells=cells)
            seconds, content = _time_figure(draw, capture, "svg", repeats=1)
            each = len(content) / capture.num_visible
            row.append(f"{seconds * 1000:,.0f} / {len(content):,} / {each:.1f}")
        table.add_row(*row)
    return table


def processes_table(folder: Path, layers: int, repeats: int) -> Table:
    """Return whole processes beside matplotlib and seaborn, as ratios of the same run."""
    table = Table(title="Whole process, both figures as SVG: headgrid / matplotlib = ratio")
    for name in ("captures", "seconds", "peak MB", "bytes"):
        table.add_column(name, justify="right")
    for frames, count in (*((frames, 1) for frames in FRAMES), (21, layers)):
        paths = [str(path) for path in captures.write(folder / "in", frames, count)]
        runs = repeats if count == 1 else 1
        ours, theirs = folder / f"h{frames}-{count}", folder / f"m{frames}-{count}"
        mine = processes.measure([*_HEADGRID, *paths, "-o", str(ours)], runs)
        other = processes.measure([*_MATPLOTLIB, str(theirs), *paths], runs)
        table.add_row(
            f"{count} x {frames} frames",
            _ratio(mine.seconds, other.seconds, ".2f"),
            _ratio(mine.megabytes, other.megabytes, ".0f"),
            _ratio(_bytes(ours), _bytes(theirs), ",.0f"),
        )
    return table


def start_table(repeats: int) -> Table:
    """Return what starting costs above bare Python."""
    table = Table(title="Start, milliseconds above bare Python")
    table.add_column("command")
    table.add_column("ms", justify="right")
    bare = processes.measure([_PYTHON, "-c", "pass"], 2 * repeats).seconds
    for label, arguments in (
        ("import headgrid", ["-c", "import headgrid"]),
        ("headgrid --help", ["-m", "headgrid", "--help"]),
    ):
        cost = processes.measure([_PYTHON, *arguments], 2 * repeats)
        table.add_row(label, f"{(cost.seconds - bare) * 1000:.0f}")
    return table


def _time_figure(draw: object, capture: object, format: str, repeats: int = 3):
    best, content = float("inf"), b""
    for _ in range(repeats):
        started = time.perf_counter()
        content = begin_save(headgrid.to_spec(draw(capture), validate=False), [format])()[0]
        best = min(best, time.perf_counter() - started)
    return best, content


def _ratio(mine: float, other: float, style: str) -> str:
    return f"{mine:{style}} / {other:{style}} = {mine / other:.2f}"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.svg"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=30, help="captures of the long run")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    console.print(f"headgrid {headgrid.__version__}, {processes.load()}")
    begin_save(headgrid.to_spec(headgrid.heatmap(captures.make(21))), ["png"])()  # warm the engine
    console.print(start_table(arguments.repeats))
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("seaborn"):
            console.print(processes_table(Path(folder), arguments.layers, arguments.repeats))
        else:
            console.print("no matplotlib and seaborn beside it: pip install -e '.[benchmark]'")
        console.print(figures_table(Path(folder)))
    console.print(growth_table())


if __name__ == "__main__":
    main()
