"""`headgrid roles` from outside: the files that it leaves, and what other programs read of them."""

import json

import numpy as np
import pandas as pd
import pytest

import headgrid
from commandline import files_under
from headgrid import Capture, head_roles, role_votes

FRAMES = np.arange(60)


def write(folder, runs=("run_0", "run_1"), layers=3, statistic="logit", skip=()):
    """Write runs of four heads: one positive, one negative, a wave, one without a side."""
    for number, run in enumerate(runs):
        random = np.random.default_rng(number)
        for layer in (n for n in range(layers) if n not in skip):
            rows = [FRAMES * 0 + 2.0, FRAMES * 0 - 2.0, np.sin(1.3 * FRAMES), np.sin(0.3 * FRAMES)]
            rows = np.array(rows) + random.normal(0, 0.4, (4, 60))
            if statistic == "mass":
                rows[:, -4:] += [[5], [0], [9], [random.choice([0, 9])]]
                rows = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
            capture = Capture.from_array(last_block=rows, layer=layer, statistic=statistic)
            headgrid.save_capture(capture, folder / run / f"layer{layer}.npz")
    return folder


def test_runs_become_tables_a_figure_and_a_summary(cli, tmp_path):
    done = cli("roles", write(tmp_path / "in"), "-o", tmp_path / "out", "--format", "svg,json")
    assert (done.exit_code, done.stderr) == (0, "")
    names = ["agreement.csv", "roles.csv", "roles.json", "roles.svg", "votes.csv"]
    assert files_under(tmp_path / "out") == names
    *paths, titles, summary = done.stdout.splitlines()
    assert sorted(path.rpartition("/")[2] for path in paths) == names
    table = head_roles(headgrid.survey(tmp_path / "in"))
    written = pd.read_csv(tmp_path / "out/roles.csv", keep_default_na=False)
    assert written["role"].tolist() == table["role"].tolist()
    np.testing.assert_allclose(written["margin"], table["margin"], rtol=1e-12)
    votes, counts = role_votes(table), role_votes(table)["role"].value_counts(sort=False)
    assert titles.split()[1:] == ["runs", "pairs", "share", "kappa", "Anchor", "Wave", "Veil"]
    assert summary.split()[:2] == ["2", "1"]
    assert summary.split()[-3:] == [str(count) for count in counts]
    assert set(written["rule"]) == {"sign-period"}
    assert "by sign-period (Anchor" in (tmp_path / "out/roles.svg").read_text()
    assert pd.read_csv(tmp_path / "out/votes.csv")["role"].tolist() == votes["role"].tolist()


def test_pyramid_forcing_reads_a_number_a_head(cli, tmp_path):
    done = cli("roles", write(tmp_path / "in"), "-o", tmp_path / "out", "--export", "pyramid")
    assert done.exit_code == 0
    numbers = np.loadtxt(tmp_path / "out/pyramid.csv", delimiter=",", dtype=int)
    votes = role_votes(head_roles(headgrid.survey(tmp_path / "in")))
    told = votes["role"].astype(object).map({"Wave": -1, "Anchor": 1, "Veil": 2})
    assert numbers.tolist() == told.to_numpy().reshape(3, 4).tolist()
    assert numbers[:, :3].tolist() == [[1, 2, -1]] * 3


def test_forcing_kv_and_duo_attention_read_every_head_once(cli, tmp_path):
    runs = [f"{s}/run_{n}" for s in ("cats", "dogs") for n in range(3)]
    folder, out = write(tmp_path / "in", runs, statistic="mass"), tmp_path / "out"
    exports = ["--export", "forcing-kv", "--export", "duo"]
    done = cli("roles", folder, "-o", out, "--rule", "recent-mass", "-p", "skip", "3", *exports)
    assert (done.exit_code, done.stderr) == (0, "")
    table = head_roles(headgrid.survey(folder), "recent-mass", skip=3)
    votes = role_votes(table)
    for name in ("cats", "dogs"):
        content = json.loads((out / name / "forcing-kv.json").read_text())
        assert (content["num_layers"], content["num_heads"]) == (3, 4)
        of_set = votes[votes["set"] == name]
        for layer in content["layers"]:
            own = of_set[of_set["layer"] == layer["layer_idx"]]
            for role in ("static", "dynamic"):
                assert layer[f"{role}_head"] == own.loc[own["role"] == role, "head"].tolist()
        assert [layer["layer_idx"] for layer in content["layers"]] == [0, 1, 2]
        scores = np.loadtxt(out / name / "duo/full_attention_heads.tsv", delimiter="\t")
        dynamic = (table["role"] == "dynamic")[table["set"] == name].groupby(
            [table["layer"], table["head"]]
        )
        np.testing.assert_allclose(scores.ravel(), dynamic.mean(), atol=1e-6)
        sizes = json.loads((out / name / "duo/config.json").read_text())
        assert sizes == {"sink_size": 128, "recent_size": 256}
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["cats", "dogs"]
    assert set(pd.read_csv(out / "roles.csv")["rule"]) == {"recent-mass skip=3"}


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [(["--rule", "sinks"], 2, "did you mean 'sink'"),
     (["-p", "shar", "1"], 2, "did you mean 'share'"),
     (["-p", "share", "x"], 2, "'x' is not a valid float"),
     (["--export", "duo"], 2, "rule of export duo is .*, expected one of recent-mass, sink"),
     (["--export", "duos"], 2, "did you mean 'duo'"),
     (["--rule", "recent-mass"], 1, "expected mass; .*--statistic mass")],
)  # fmt: skip
def test_what_can_not_be_is_told_and_nothing_is_written(cli, tmp_path, options, code, text):
    done = cli("roles", write(tmp_path / "in", ["r"], 1), "-o", tmp_path / "out", *options)
    assert done.exit_code == code
    assert pd.Series([done.stderr]).str.contains(text)[0], done.stderr
    assert not (tmp_path / "out").exists()


def test_an_export_needs_every_layer(cli, tmp_path):
    folder = write(tmp_path / "in", skip=[1])
    done = cli("roles", folder, "-o", tmp_path / "out", "--export", "pyramid")
    assert done.exit_code == 1
    assert "layer 1, head 0 has no role, expected one in all layers" in done.stderr
    assert not (tmp_path / "out").exists()
