"""Cases -> verdicts: each is run in another process, and what goes wrong is kept as a file.

`HEADGRID_FUZZ_DIR` names the folder where failing cases are kept (by default
`headgrid-fuzz` in the folder for temporary files), `HEADGRID_FUZZ_SEED` the first
number of the random generators.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SEED = int(os.environ.get("HEADGRID_FUZZ_SEED", "0"))
#: Of processor time, so that a busy machine is no finding; waiting is bounded beside it.
MAX_SECONDS = 5.0
MAX_WAIT = 120.0
START_WAIT = 120.0
MAX_BYTES = 1000 * 2**20
#: Cases after which a process is replaced, as its memory only grows.
CASES_A_CHILD = 250


def kept_folder() -> Path:
    folder = os.environ.get("HEADGRID_FUZZ_DIR") or Path(tempfile.gettempdir(), "headgrid-fuzz")
    return Path(folder)


class Lab:
    """Runs cases in a child process, and watches its time, its memory and its files.

    The child lives in `root/inside`, where its home, its temporary files and its
    current folder are. The cases lie in `root/cases`; everything else below `root` is a
    canary and has to stay as it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cases = root / "cases"
        self.inside = root / "inside"
        self.cases.mkdir(parents=True)
        for name in ("work", "home", "tmp"):
            (self.inside / name).mkdir(parents=True)
            (self.inside / name / "canary.txt").write_text("alive")
        (root / "canary.txt").write_text("alive")
        self.tally: Counter[str] = Counter()
        self._child: subprocess.Popen[str] | None = None
        self._count = 0
        self._before = self.tree()

    def tree(self) -> dict[str, str]:
        """Return every file and folder but the cases themselves, with a hash of its content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_relative_to(self.cases):
                continue
            content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(self.root))] = hashlib.sha256(content).hexdigest()
        return found

    def check_tree(self) -> None:
        """Fail where a file appeared, changed or went outside the folders of the cases."""
        assert self.tree() == self._before

    def write(self, content: bytes, name: str) -> Path:
        path = self.cases / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def run_case(self, case: dict, name: str = "layer3.case") -> str:
        """Run a case that is described by a dictionary; see `fuzz_child.RUNS`."""
        return self.run(self.write(pickle.dumps(case), name))

    def run(self, path: Path) -> str:
        """Run the case in a file; return how it ended.

        Fails, and keeps the file, where the child died, hung, or found something wrong.
        """
        found = self._ask(path)
        problem = found["wrong"]
        if problem is None and found["seconds"] > MAX_SECONDS:
            problem = f"took {found['seconds']:.1f} s of processor time, expected {MAX_SECONDS:g}"
        if problem is None and found["peak"] > MAX_BYTES:
            problem = f"took {found['peak'] / 2**20:,.0f} MiB, expected {MAX_BYTES / 2**20:,.0f}"
            self.close()  # a new one starts small
        if problem is not None:
            raise AssertionError(f"{self.keep(path)}: {problem}")
        self.tally[found["outcome"].partition(":")[0]] += 1
        return found["outcome"]

    def keep(self, path: Path) -> Path:
        """Copy a failing case to where it outlives the test; return the copy."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        target = kept_folder() / digest / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return target

    def _ask(self, path: Path) -> dict:
        if self._count >= CASES_A_CHILD:
            self.close()
        child = self._child or self._start()
        self._count += 1
        assert child.stdin is not None
        child.stdin.write(json.dumps(str(path)) + "\n")
        child.stdin.flush()
        line = self._answer(child, MAX_WAIT)
        if line:
            return json.loads(line)
        hung = child.poll() is None
        self.close()
        what = f"hung for {MAX_WAIT:g} s" if hung else f"killed its process ({child.returncode})"
        return {"outcome": "", "wrong": what, "seconds": 0.0, "peak": 0}

    def _answer(self, child: subprocess.Popen[str], wait: float) -> str:
        """Return the next line; empty where the child has died or says nothing."""
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], wait)
        line = child.stdout.readline() if ready else ""
        if ready and not line:
            child.wait()
        return line

    def _start(self) -> subprocess.Popen[str]:
        self.close()
        here = Path(__file__).parent
        paths = [str(here), str(here.parent), *sys.path]
        surroundings = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.inside / "home"),
            "TMPDIR": str(self.inside / "tmp"),
        }
        self._child = subprocess.Popen(
            [sys.executable, str(here / "fuzz_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.inside / "work",
            env=surroundings,
        )
        started = time.monotonic()
        line = self._answer(self._child, START_WAIT)
        assert line == "ready\n", f"no child after {time.monotonic() - started:.0f} s: {line!r}"
        self._count = 0
        return self._child

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
