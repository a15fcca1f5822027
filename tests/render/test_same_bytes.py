"""The same input gives the same bytes: between calls, processes and font set-ups."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headgrid.capture.demo import demo_folder

PROGRAM = """
import hashlib, sys
import headgrid
from headgrid.render.convert import begin_render
capture = headgrid.load_capture(sys.argv[1])
for draw in (headgrid.heatmap, headgrid.perhead):
    chart = draw(capture, title="{prompt} \\u732b \\U0001f431")
    for content in begin_render(headgrid.to_spec(chart), sys.argv[2].split(","))():
        print(hashlib.sha256(content).hexdigest())
"""


def digests(formats="svg,json", before=(), **environment):
    """Return the digest of each figure and format, made in a process of its own."""
    with demo_folder() as folder:
        command = [*before, sys.executable, "-c", PROGRAM, str(folder / "layer0.pt"), formats]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_two_processes_give_the_same_svg_json_and_png():
    first = digests("svg,json,png", PYTHONHASHSEED="1")
    assert first == digests("svg,json,png", PYTHONHASHSEED="2")
    assert len(set(first)) == 6


def test_one_process_gives_the_same_svg_again_and_again():
    from headgrid import load_capture, perhead, to_spec
    from headgrid.render.convert import render

    with demo_folder() as folder:
        spec = to_spec(perhead(load_capture(folder / "layer0.pt")))
    assert len({hashlib.sha256(render(spec, "svg")).digest() for _ in range(3)}) == 1


def hide_fonts(tmp_path):
    """Return a command prefix under which no system font can be seen, or None."""
    if shutil.which("unshare") is None:
        return None
    empty = tmp_path / "empty"
    empty.mkdir()
    folders = [f for f in ("/usr/share/fonts", "/usr/local/share/fonts") if Path(f).is_dir()]
    mounts = " && ".join(f"mount --bind {empty} {folder}" for folder in folders) or "true"
    prefix = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    probe = subprocess.run([*prefix, "true"], capture_output=True)
    return prefix if probe.returncode == 0 else None


def test_svg_and_json_do_not_depend_on_the_fonts_of_the_machine(tmp_path):
    prefix = hide_fonts(tmp_path)
    if prefix is None:
        # Where no mount is allowed: another font set-up, by a home with none of its fonts.
        assert digests() == digests(HOME=str(tmp_path), FONTCONFIG_FILE=os.devnull)
        return
    fonts = subprocess.run([*prefix, "ls", "/usr/share/fonts"], capture_output=True, text=True)
    assert fonts.stdout.strip() == ""
    assert digests() == digests(before=prefix, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path))


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="pdftoppm is not installed")
def test_two_pdfs_have_the_same_pixels(tmp_path):
    import headgrid

    with demo_folder() as folder:
        chart = headgrid.heatmap(headgrid.load_capture(folder / "layer0.pt"))
    pictures = []
    for name in ("a", "b"):
        path = headgrid.save(chart, tmp_path / f"{name}.pdf")
        subprocess.run(["pdftoppm", "-r", "72", path, tmp_path / name], check=True)
        (picture,) = tmp_path.glob(f"{name}*.ppm")
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1]
