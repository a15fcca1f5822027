"""Cases -> verdicts: each is run in another process, and what goes wrong is kept as a file.

`HEADGRID_FUZZ_DIR` names the folder where failing cases are kept (by default
`headgrid-fuzz` in the folder for temporary files), `HEADGRID_FUZZ_SEED` the first
number of the random generators.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from fuzz_child import Found, measure, move_in

SEED = int(os.environ.get("HEADGRID_FUZZ_SEED", "0"))
#: Of processor time, so that a busy machine is no finding; waiting is bounded beside it.
MAX_SECONDS, MAX_WAIT, START_WAIT = 5.0, 120.0, 120.0
#: Of a process that draws; what reading a file adds is bounded by the file's size.
MAX_PEAK = 1000 * 2**20
MAX_ADDED = 100 * 2**20
#: Cases after which a process is replaced, as its memory only grows.
CASES_A_CHILD = 250
SPAWN = multiprocessing.get_context("spawn")


class Lab:
    """Runs cases in a child process, and watches its time, its memory and its files.

    The child is at home in `root/inside`; all below `root` but `root/cases` has to stay as it is.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.cases, self.inside = root, root / "cases", root / "inside"
        for folder in (root, *(self.inside / name for name in ("work", "home", "tmp"))):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "canary.txt").write_text("alive")
        self.tally: Counter[str] = Counter()
        self._child: ProcessPoolExecutor | None = None
        self._count = 0
        self.before = self.tree()

    def clear(self) -> None:
        """Start a test: no case is there, and nothing is counted."""
        shutil.rmtree(self.cases, ignore_errors=True)
        self.cases.mkdir()
        self.tally.clear()

    def tree(self) -> dict[str, bytes]:
        """Return every file and folder but the cases themselves, and what it holds."""
        paths = (path for path in self.root.rglob("*") if not path.is_relative_to(self.cases))
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    def read(self, content: bytes, name: str, *, figures: bool = False) -> str:
        """Read a capture file, and draw it where figures are wanted; return how it ended."""
        path = self.cases / f"{Path(name).stem}/layer3{Path(name).suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = self._ask("file", {"path": str(path), "figures": figures})
        bounds = (found.peak, MAX_PEAK) if figures else (found.added, 4 * len(content) + MAX_ADDED)
        return self._judge(found, *bounds, content, path.name)

    def run(self, kind: str, **case) -> str:
        """Run a case, what it is in `fuzz_child` behind ``run_``; return how it ended."""
        found, content = self._ask(kind, case), pickle.dumps((kind, case))
        return self._judge(found, found.peak, MAX_PEAK, content, "layer3.case")

    def _judge(self, found: Found, used: int, limit: int, content: bytes, name: str) -> str:
        """Fail, and keep the case, where the child died, hung, or found something wrong."""
        problem = found.wrong
        if not problem and found.seconds > MAX_SECONDS:
            problem = f"took {found.seconds:.1f} s of processor time, expected {MAX_SECONDS:g}"
        if not problem and used > limit:
            problem = f"took {used / 2**20:,.0f} MiB, expected {limit / 2**20:,.0f}"
            self.close()  # a new one starts small
        if problem:
            raise AssertionError(f"{keep(content, name)}: {problem}")
        self.tally[found.outcome.partition(":")[0]] += 1
        return found.outcome

    def _ask(self, kind: str, case: dict) -> Found:
        if self._count % CASES_A_CHILD == 0:
            self.close()
        if self._child is None:
            self._child = ProcessPoolExecutor(1, SPAWN, move_in, (self.inside,))
            self._child.submit(int).result(START_WAIT)
        self._count += 1
        try:
            return self._child.submit(measure, kind, case).result(MAX_WAIT)
        except TimeoutError:
            what = f"hung for {MAX_WAIT:g} s"
        except BrokenProcessPool:
            what = "killed its process"
        self.close()
        return Found("", what)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            for process in self._child._processes.values():
                process.kill()
            self._child.shutdown()
            self._child = None


def keep(content: bytes, name: str) -> Path:
    """Write a failing case to where it outlives the test; return its file."""
    folder = os.environ.get("HEADGRID_FUZZ_DIR") or Path(tempfile.gettempdir(), "headgrid-fuzz")
    path = Path(folder, hashlib.sha256(content).hexdigest()[:12], name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
