"""Every example runs, and draws what its golden file holds."""

import json
import runpy

import numpy as np
import pytest

import headgrid
from headgrid.capture.demo import demo_folder
from headgrid.testing import find_orphans
from places import ROOT, SPECS

EXAMPLES = {
    path.stem: path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if "\ndef chart(" in path.read_text(encoding="utf-8")
}


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_saves_an_svg_and_draws_its_golden_specification(
    name, headgrid_golden, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES[name]), run_name="__main__")
    (written,) = tmp_path.iterdir()
    assert written.name == capsys.readouterr().out.strip() == f"{name}.svg"
    assert written.read_text(encoding="utf-8").rstrip().endswith("</svg>")
    gallery = ROOT / "examples/gallery" / written.name
    assert not gallery.exists() or gallery.read_bytes() == written.read_bytes()
    headgrid_golden(example["chart"](), name)
    text = (SPECS / f"{name}.vl.json").read_text(encoding="utf-8")
    assert headgrid.to_json(json.loads(text)) == text


def test_no_golden_is_without_an_example():
    assert find_orphans(SPECS, EXAMPLES) == []


def test_the_bundled_captures_are_what_their_script_makes(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["make_demo_captures", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples/make_demo_captures.py"), run_name="__main__")
    with demo_folder() as folder:
        bundled = {p.name: headgrid.load_capture(p) for p in folder.glob("*.pt")}
    made = {p.name: headgrid.load_capture(p) for p in tmp_path.glob("*.pt")}
    assert bundled.keys() == made.keys() == {"layer0.pt", "layer1.pt"}
    for name, capture in made.items():
        old, new = bundled[name].to_dict(), capture.to_dict()
        assert old.keys() == new.keys()
        for key, value in new.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(old[key], value)
                assert old[key].dtype == value.dtype
            else:
                assert old[key] == value
        assert "synthetic" in capture.prompt
