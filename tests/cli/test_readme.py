"""The README's commands and snippets, as they stand, in the folder that the first one leaves."""

import re
import shlex
from types import SimpleNamespace

import numpy as np

import headgrid
from headgrid.testing import assert_matches_golden
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_every_command_and_snippet_of_the_readme_works(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [part.strip() for block in blocks("sh") for part in re.split("&&|\n", block)]
    commands = [shlex.split(line) for line in lines if line.startswith("headgrid ")]
    others = [line for line in lines if line and not line.startswith("headgrid ")]
    assert all(line.startswith(("pip install", "python -m pytest")) for line in others), others
    assert commands[0] == ["headgrid", "demo", "-o", "figures"]
    told = re.findall(r"^\| `(\w+)` \|", README, re.M)
    assert {command[1] for command in commands[1:]} == set(told)
    for command in commands:
        done = cli(*command[1:])
        assert (done.exit_code, done.stderr) == (0, ""), command
        if "-o" in command:
            assert (tmp_path / command[command.index("-o") + 1]).exists(), command

    script, page, test, model = blocks("python")
    names = {"headgrid": headgrid}
    exec(script + page + test, names)
    assert (tmp_path / "layer0.svg").stat().st_size
    assert f'src="static/{next((tmp_path / "static").glob("*.js")).name}"' in names["page"]

    def write(chart, name):
        assert_matches_golden(chart, f"specs/{name}.vl.json", refresh=True)

    names["test_layer_0_looks_as_before"](write)
    assert (tmp_path / "specs/layer0_heatmap.vl.json").exists()
    maps = np.tril(np.ones((1, 2, 4, 4))) / np.arange(1, 5)[:, None]
    names["inputs"] = type("Words", (dict,), {"tokens": lambda _: ["A", "gull", "wait", "ed"]})()
    names["model"] = lambda **_: SimpleNamespace(attentions=(maps,) * 6)
    exec(model, names)
    assert "gull" in (tmp_path / "layer5.svg").read_text(encoding="utf-8")
