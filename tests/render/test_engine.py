"""Where the engine can not run, a sentence says so; it neither hangs nor ends the process."""

import subprocess
import sys

import pytest

from commandline import run_process
from headgrid.capture.demo import demo_folder

resource = pytest.importorskip("resource")
linux = pytest.mark.skipif(sys.platform != "linux", reason="fork and limits as on Linux")

WORKERS = """
import multiprocessing, sys
import headgrid

def draw(name):
    try:
        chart = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
        return headgrid.save(chart, f"{sys.argv[1]}/{name}.svg").name
    except headgrid.RenderError as error:
        return str(error)

if __name__ == "__main__":
    draw("first")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.map(draw, [method])[0])
"""


@linux
def test_a_forked_process_says_why_it_can_not_draw_and_a_spawned_one_draws(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    command = [sys.executable, script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    forked, spawned = done.stdout.splitlines()
    assert "forked from one that has drawn figures" in forked
    assert "start workers with multiprocessing.get_context('spawn')" in forked
    assert spawned == "spawn.svg"


@linux
def test_a_limit_of_addresses_is_named_with_its_remedy(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    with demo_folder() as folder:
        done = run_process("render", folder / "layer0.pt", "-o", tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    assert "limited to 2.0 GB (ulimit -v)" in done.stderr
    assert "run ulimit -v unlimited" in done.stderr
    assert "stack trace" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
