"""Which fonts lay out the text, whatever the machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headgrid.render.fonts import find_font_folders, without_system_fonts

NOTHING = '<?xml version="1.0"?><fontconfig><dir>/nonexistent</dir></fontconfig>'

# The label 11 is kerned by some versions of Liberation Sans and not by others.
PROGRAM = """
import hashlib, sys
import numpy as np
import headgrid
from headgrid.render.convert import render
capture = headgrid.Capture.from_array(np.eye(12)[None])
spec = headgrid.to_spec(headgrid.heatmap(capture))
for format in sys.argv[1].split(","):
    content = render(spec, format)
    if format == "svg":
        print(hashlib.sha256(content).hexdigest())
"""


def digests(formats, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, formats],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


def test_the_systems_version_of_the_font_does_not_change_a_byte(tmp_path):
    (tmp_path / "fonts.conf").write_text(NOTHING)
    expected = digests("svg", FONTCONFIG_FILE=str(tmp_path / "fonts.conf"))
    assert digests("svg") == expected
    # A PNG needs the fonts of the system; what is drawn after it stays the same.
    assert set(digests("png,svg")) == set(expected)
    assert set(digests("svg,png,svg")) == set(expected)


def test_the_variable_is_as_before_once_the_fonts_are_loaded(monkeypatch):
    for value in (None, "/some/fonts.conf"):
        if value is None:
            monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
        else:
            monkeypatch.setenv("FONTCONFIG_FILE", value)
        with without_system_fonts() as empty:
            assert list(empty.iterdir()) == []
            assert os.environ["FONTCONFIG_FILE"] != value
        assert os.environ.get("FONTCONFIG_FILE") == value
        assert not empty.exists()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home whose fontconfig file is the only one."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "etc/fonts.conf"))
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "etc").mkdir()
    return tmp_path


def write(path, *entries):
    path.write_text(f'<?xml version="1.0"?><fontconfig>{"".join(entries)}</fontconfig>')


def test_folders_are_those_that_fontconfig_names_and_that_are_there(home):
    for name in ("abc", "etc/beside", ".local/share/fonts", ".fonts", "hidden"):
        (home / name).mkdir(parents=True)
    write(
        home / "etc/fonts.conf",
        f"<dir>{home}/abc</dir><dir>\n  beside </dir><dir>~/.fonts</dir>",
        f'<dir prefix="xdg">fonts</dir><!-- <dir>{home}/hidden</dir> --><dir>/nowhere</dir>',
        f"<dir>{home}/abc</dir>",
    )
    assert find_font_folders() == [
        home / "abc",
        home / "etc/beside",
        home / ".fonts",
        home / ".local/share/fonts",
    ]


def test_included_files_and_folders_are_read_once(home):
    for name in ("one", "two", "etc/conf.d"):
        (home / name).mkdir(parents=True)
    again = '<include ignore_missing="yes">fonts.conf</include><include>missing.conf</include>'
    write(home / "etc/fonts.conf", "<include>conf.d</include>", again)
    write(home / "etc/conf.d/20-two.conf", f"<dir>{home}/two</dir>")
    write(home / "etc/conf.d/10-one.conf", f"<dir>{home}/one</dir>")
    write(home / "etc/conf.d/README", f"<dir>{home}</dir>")
    assert find_font_folders() == [home / "one", home / "two"]


def test_without_a_file_the_usual_folders_count(home):
    (home / ".fonts").mkdir()
    found = find_font_folders()
    assert home / ".fonts" in found
    assert set(found) <= {
        *map(Path, ("/usr/share/fonts", "/usr/local/share/fonts")),
        home / ".fonts",
    }


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_load_their_fonts_themselves(monkeypatch, platform):
    monkeypatch.setattr("sys.platform", platform)
    assert find_font_folders() == []
