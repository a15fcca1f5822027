"""Fixtures: the shared data where there is one, and small synthetic captures."""

import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest

import headgrid
from browser import open_visits, start_chromium
from places import SHARED
from synthetic import block_capture

pytest_plugins = ["pytester"]

# Workers, and processes that they start, share the cores; read where torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what runs in the background with SIGINT ignored, which every process that a
# test starts would inherit: Ctrl-C has to mean something there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared():
    """Return the folder of real captures; skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the shared captures are not here")
    return SHARED


@pytest.fixture(scope="session")
def chromium():
    """Return a headless Chromium; skip where there is none."""
    with start_chromium() as browser:
        yield browser


@pytest.fixture
def visit(chromium):
    """Return a function that opens a page and watches it."""
    with open_visits(chromium) as visits:
        yield visits


@pytest.fixture
def small():
    """Return a capture of 2 heads and 4 frames in blocks of 2."""
    return block_capture()


@pytest.fixture
def capture_file(tmp_path):
    """Return a function that writes a small capture file and returns its path."""

    def write(path="layer3.npz", **options):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        number = "".join(c for c in target.stem if c.isdigit())
        options.setdefault("layer", int(number) if number else 0)
        return headgrid.save_capture(block_capture(**options), target)

    return write


@pytest.fixture
def raw_file(tmp_path):
    """Return a function that writes data as they are, right or wrong, to a `.pt`."""

    torch = pytest.importorskip("torch")

    def write(data, path="layer3.pt"):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_tensors(torch, data), target)
        return target

    return write


def _tensors(torch, data):
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(data))
    if isinstance(data, dict):
        return {key: _tensors(torch, value) for key, value in data.items()}
    return data


@pytest.fixture
def cli(monkeypatch):
    """Return a function that runs a command in this process, its renderer included."""
    from click.testing import CliRunner

    from headgrid.cli.main import main

    @contextmanager
    def here():
        yield None

    monkeypatch.setattr("headgrid.batch.processes.rendering_process", here)

    def run(*arguments):
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert "Traceback" not in result.output
        assert "internal error" not in result.output
        return result

    return run
