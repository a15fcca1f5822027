"""`headgrid budget` from outside: the files it leaves, what it prints, and what it refuses."""

import csv
import gc
import json
import weakref

import numpy as np
import pytest

import headgrid
from commandline import files_under
from headgrid import Capture
from headgrid.capture.store import read_capture
from synthetic import block_capture

JSON = ["--format", "json"]


def write_masses(folder, names, layers=2):
    """Write captures whose first head looks at key 0 and itself, and whose second at all alike."""
    frames = 6
    seen = np.tril(np.ones((frames, frames)))
    sinks = np.eye(frames) + 3 * (np.arange(frames) == 0)
    for name in names:
        for layer in range(layers):
            weights = np.stack([sinks * seen, seen])
            mass = weights / weights.sum(axis=2, keepdims=True)
            capture = Capture.from_array(mass, causal=True, statistic="mass", layer=layer)
            headgrid.save_capture(capture, folder / name / f"layer{layer}.npz")
    return folder


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_curves_maps_and_what_a_cache_drops_are_written(cli, tmp_path):
    folder, out = write_masses(tmp_path / "in", ["run_0", "run_1"]), tmp_path / "out"
    done = cli("budget", folder, "-o", out, "--cache", "recent:1, sink:1", *JSON)
    assert done.exit_code == 2
    assert "cache is 'recent:1, sink:1', expected frames, as in sink:1,recent:6" in done.stderr
    assert not out.exists()
    done = cli("budget", folder, "-o", out, "--cache", "sink:1,recent:1", *JSON)
    assert (done.exit_code, done.stderr) == (0, "")
    places = [f"run_{run}/layer{layer}" for run in (0, 1) for layer in (0, 1)]
    figures = [f"{place}_{name}.json" for place in places for name in ("budget", "dropped")]
    figures += [f"cache_{n}.json" for n in (90, 95, 99)]
    tables = ["budget.csv", "dropped.csv", "smallest.csv"]
    assert files_under(out) == sorted([*tables, *figures])

    rows = read_csv(out / "budget.csv")
    assert len(rows) == 4 * 2 * 2 * 6
    assert {row["run"] for row in rows} == {"run_0", "run_1"}
    dropped = {
        (row["run"], row["layer"], row["head"]): row for row in read_csv(out / "dropped.csv")
    }
    assert len(dropped) == 8
    assert float(dropped["run_1", "1", "0"]["dropped"]) == 0
    alike = np.mean([1 - min(2, n) / n for n in range(1, 7)])
    assert float(dropped["run_1", "1", "1"]["dropped"]) == pytest.approx(alike, abs=1e-6)
    spec = json.loads((out / "run_1/layer1_dropped.json").read_bytes())
    names = json.loads(spec["facet"]["header"]["labelExpr"].removesuffix("[datum.value]"))
    assert names == ["Head 0 (drops 0.0%)", f"Head 1 (drops {100 * alike:.1f}%)"]
    spec = json.loads((out / "cache_99.json").read_bytes())
    assert {row["cache_99"] for row in spec["data"]["values"] if row.get("head") == 0} == {2}
    sizes = [row for row in read_csv(out / "smallest.csv") if row["policy"] == "sink+recent"]
    assert {row["frames"] for row in sizes if row["head"] == "0"} == {"2"}
    assert "sink+recent 0.90     2" in done.stdout
    worst = done.stdout.partition("dropped most by sink:1,recent:1\n")[2].splitlines()
    assert [line.split()[2] for line in worst[1:]] == ["1"] * 4 + ["0"] * 4


def test_what_is_no_mass_is_refused_and_what_can_not_be_read_is_told(cli, tmp_path):
    folder = write_masses(tmp_path / "in", ["run_0"], layers=1)
    (folder / "run_0/layer1.npz").write_bytes(b"no capture")
    done = cli("budget", folder, "-o", tmp_path / "out", *JSON, "--sink", 0)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "layer1.npz" in done.stderr
    assert "run_0/layer0_budget.json" in files_under(tmp_path / "out")
    logits = headgrid.save_capture(block_capture(layer=1), tmp_path / "logits/run_0/layer1.npz")
    for given, code, told in (
        ([logits], 1, "layer1.npz: holds logit, expected masses"),
        ([folder / "run_0/layer0.npz", logits], 1, "differ in the statistic: mass and logit"),
        ([folder / "run_0/layer0.npz", "--sink", -1], 2, "sink is -1"),
    ):
        done = cli("budget", *given, "-o", tmp_path / "none")
        assert (done.exit_code, len(done.stderr.splitlines())) == (code, 1)
        assert told in done.stderr
    assert not (tmp_path / "none").exists()


def test_two_captures_of_one_run_and_layer_are_refused(cli, tmp_path):
    write_masses(tmp_path, ["a/x", "b/x"], layers=1)
    inputs = [tmp_path / "a/x", tmp_path / "b/x"]
    done = cli("budget", *inputs, "-o", tmp_path / "out", *JSON)
    assert done.exit_code == 1
    assert "b/x/layer0.npz are both x, layer 0, expected one capture" in done.stderr
    assert not (tmp_path / "out").exists()


def test_each_capture_is_read_once_and_few_are_held(cli, tmp_path, monkeypatch):
    folder, held, most = write_masses(tmp_path / "in", ["run_0", "run_1"]), [], []

    def read(file):
        held.append(weakref.ref((found := read_capture(file))[0]))
        gc.collect()
        most.append(sum(one() is not None for one in held))
        return found

    monkeypatch.setattr("headgrid.capture.store.read_capture", read)
    assert cli("budget", folder, "-o", tmp_path / "out", *JSON).exit_code == 0
    assert max(most) <= 2 < len(held) == 4  # the one that is drawn, and the next
