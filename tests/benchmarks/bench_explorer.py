"""What an explorer costs: `python -m tests.benchmarks.bench_explorer [CAPTURES...]`.

Prints the size of the page, how long Chromium takes to open it (until its figures are
drawn), and how long a click on the overview and a move of the mouse over the map take:
from the event until the next frame. Of folders of captures that are given, and of synthetic
runs (30 layers, 12 heads).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks import captures, processes

import headgrid

LAYERS = 30
STEPS = 30
console = Console(width=110)

#: Sends events to cells one after the other, and returns how long each took until all is drawn.
_SEND = """async ([cells, events, stride, steps]) => {
  const main = document.querySelector("main");
  const drawn = () => new Promise((done) => {
    const look = () => main.dataset.shown === location.hash
      ? requestAnimationFrame(() => setTimeout(done, 0)) : setTimeout(look, 0);
    look();
  });
  const found = [...document.querySelectorAll(`${cells} .headgrid_cells_marks path`)];
  const times = [];
  for (let step = 1; step <= steps; step++) {
    const cell = found[(step * stride) % Math.min(found.length, 360)];
    const { x, y, width, height } = cell.getBoundingClientRect();
    const at = { bubbles: true, clientX: x + width / 2, clientY: y + height / 2 };
    const start = performance.now();
    for (const type of events) cell.dispatchEvent(new MouseEvent(type, at));
    await drawn();
    times.push(performance.now() - start);
  }
  return times;
}"""
_CLICK = ["#overview", ["pointerdown", "pointerup", "mousedown", "mouseup", "click"], 37, STEPS]
_MOVE = ["#map", ["mouseover", "pointermove", "mousemove"], 41, STEPS]


def measure_page(table: Table, name: str, path: Path, browser: Any) -> None:
    """Add a row with what a page costs."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(path.as_uri())
    while page.evaluate("document.querySelector('main').dataset.state") == "loading":
        page.wait_for_timeout(5)
    opened = time.perf_counter() - start
    row = [name, f"{path.stat().st_size / 1e6:.2f}", f"{opened:.2f}"]
    for gesture in (_CLICK, _MOVE):
        times = page.evaluate(_SEND, gesture)
        row.append(f"{statistics.median(times):.0f} / {max(times):.0f}")
    table.add_row(*row)
    context.close()


def main() -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of captures")
    arguments = parser.parse_args()
    table = Table(title=f"the explorer in Chromium; {processes.load()}")
    for column in ("captures", "MB", "open s", "click ms (most)", "move ms (most)"):
        table.add_column(column, justify="right")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        runs: dict[str, Any] = {str(given): given for given in arguments.folders}
        for frames in (21, 72):
            name = f"{LAYERS} x 12 x {frames} x {frames}"
            runs[name] = [captures.make(frames, layer=layer) for layer in range(LAYERS)]
        for name, given in runs.items():
            page = headgrid.explore(given, Path(folder, "explorer.html"))
            measure_page(table, name, page, browser)
        browser.close()
    console.print(table)


if __name__ == "__main__":
    main()
