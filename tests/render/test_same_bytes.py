"""The same input gives the same bytes: between calls, processes and font set-ups."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headgrid
from headgrid.capture.demo import demo_folder
from headgrid.render.convert import begin_render
from headgrid.render.vega import find_font_folders

NO_FONTS = '<?xml version="1.0"?><fontconfig><dir>/nonexistent</dir></fontconfig>'


def digests(*formats):
    """Return the digest of each figure of a capture and format, in this process."""
    with demo_folder() as folder:
        demo = headgrid.load_capture(folder / "layer0.pt")
    title = "{prompt} \u732b \U0001f431"
    # The label 11 is kerned by some versions of Liberation Sans and not by others.
    figures = [headgrid.heatmap(headgrid.Capture.from_array(np.eye(12)[None]))]
    figures += [draw(demo, title=title) for draw in (headgrid.heatmap, headgrid.perhead)]
    contents = [begin_render(headgrid.to_spec(figure), formats)() for figure in figures]
    return [hashlib.sha256(part).hexdigest() for content in contents for part in content]


def digests_elsewhere(*formats, **environment):
    """Return the same from a process of its own."""
    code = f"from test_same_bytes import digests; print(*digests(*{formats!r}))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_svg_and_json_are_the_same_again_and_on_a_machine_without_fonts(tmp_path):
    # A PNG needs the fonts of the system; what is drawn after it stays the same.
    here = digests("svg", "json", "png", "svg")
    assert here[0::4] == here[3::4]
    (tmp_path / "fonts.conf").write_text(NO_FONTS)
    there = digests_elsewhere(
        *("svg", "json"),
        PYTHONHASHSEED="7",
        HOME=str(tmp_path),
        XDG_DATA_HOME=str(tmp_path),
        FONTCONFIG_FILE=str(tmp_path / "fonts.conf"),
    )
    assert there[0::2] == here[0::4]
    assert there[1::2] == here[1::4]


@pytest.mark.nightly
def test_two_processes_give_the_same_png():
    first = digests_elsewhere("png", PYTHONHASHSEED="1")
    assert first == digests_elsewhere("png", PYTHONHASHSEED="2")


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="pdftoppm is not installed")
def test_two_pdfs_have_the_same_pixels(tmp_path):
    chart = headgrid.heatmap(headgrid.Capture.from_array(np.eye(4)[None]))
    pictures = []
    for name in ("a", "b"):
        path = headgrid.save(chart, tmp_path / f"{name}.pdf")
        subprocess.run(["pdftoppm", "-r", "72", path, tmp_path / name], check=True)
        (picture,) = tmp_path.glob(f"{name}*.ppm")
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1]


def test_folders_of_fonts_are_the_usual_ones_and_those_that_fontconfig_names(tmp_path, monkeypatch):
    for name in ("one", "two", ".fonts", "data/fonts", "etc/conf.d"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "etc/fonts.conf"))
    named = f"<dir>{tmp_path}/one</dir><dir>~/.fonts</dir><dir>/nowhere</dir>"
    (tmp_path / "etc/fonts.conf").write_text(f"<fontconfig>{named}</fontconfig>")
    more = f'<dir prefix="xdg">fonts</dir><dir>\n  {tmp_path}/two </dir>'
    (tmp_path / "etc/conf.d/10-more.conf").write_text(f"<fontconfig>{more}</fontconfig>")
    monkeypatch.setattr("sys.platform", "linux")
    found = [folder for folder in find_font_folders() if folder.is_relative_to(tmp_path)]
    assert found == [tmp_path / name for name in (".fonts", "data/fonts", "one", "two")]
    for platform in ("darwin", "win32"):  # they load their fonts themselves
        monkeypatch.setattr("sys.platform", platform)
        assert find_font_folders() == []
