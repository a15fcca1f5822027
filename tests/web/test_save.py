import json
import os

import pytest

import headgrid
from headgrid import OptionError, OutputError, RenderError, perhead, save
from headgrid.capture.files import write_bytes
from synthetic import block_capture

SIGNATURES = {"svg": b"<svg", "png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "json": b"{"}
SIGNATURES["html"] = b"<!doctype html>"


@pytest.fixture(scope="module")
def spec():
    return headgrid.to_spec(perhead(block_capture(1, (1, 2))))


@pytest.mark.parametrize("format", SIGNATURES)
def test_the_suffix_chooses_the_format(spec, format, tmp_path):
    path = save(spec, tmp_path / f"chart.{format.upper()}")
    assert path.read_bytes().startswith(SIGNATURES[format])


def test_a_chart_and_its_spec_give_the_same_file(tmp_path):
    chart = perhead(block_capture(1, (1, 2)))
    one = save(chart, tmp_path / "a.svg").read_bytes()
    two = save(headgrid.to_spec(chart), tmp_path / "b.svg").read_bytes()
    assert one == two


def test_the_json_is_the_canonical_text(spec, tmp_path):
    text = save(spec, tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == headgrid.to_json(spec)


def test_a_png_has_the_pixels_and_the_resolution_asked_for(spec, tmp_path):
    from PIL import Image

    size = [float(v) for v in _view_box(save(spec, tmp_path / "a.svg").read_text())]
    for ppi in (72, 300):
        with Image.open(save(spec, tmp_path / "a.png", ppi=ppi)) as image:
            assert image.size == pytest.approx([side * ppi / 72 for side in size], abs=1)
            assert image.info["dpi"] == pytest.approx((ppi, ppi), rel=1e-3)


def _view_box(text):
    return text.partition('viewBox="0 0 ')[2].partition('"')[0].split()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.svgg", r"a\.svgg: suffix is '\.svgg', expected one of \.svg, .*did you mean 'svg'"),
        ("a.gif", r"suffix is '\.gif', expected one of \.svg, \.png, \.pdf, \.html, \.json"),
        ("a", "suffix is '', expected one of"),
    ],
)
def test_other_suffixes_are_refused_with_the_choices(spec, name, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        save(spec, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(spec, tmp_path):
    assert save(spec, tmp_path / "a/b/c.json").exists()


def test_a_folder_that_can_not_be_made_is_one_sentence(spec, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"can not be written \(.*\), expected a folder"):
        save(spec, tmp_path / "file" / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root"
)
def test_a_folder_that_may_not_be_written_to_is_one_sentence(spec, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="can not be written"):
        save(spec, folder / "a.json")


def test_a_target_that_is_a_folder_is_one_sentence(spec, tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OutputError, match="can not be written"):
        save(spec, tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    return path


def test_a_write_that_fails_halfway_leaves_the_old_file_and_nothing_else(old_file):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"can not be written \(File too large\)"):
            write_bytes(old_file, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert old_file.read_bytes() == b"old"
    assert [p.name for p in old_file.parent.iterdir()] == ["a.json"]


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(old_file, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_bytes(old_file, b"new")
    assert old_file.read_bytes() == b"old"
    assert [p.name for p in old_file.parent.iterdir()] == ["a.json"]


def test_an_interrupt_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_chart_that_can_not_be_drawn_writes_nothing(tmp_path):
    with pytest.raises(RenderError, match="Vega-Lite could not draw"):
        save({"mark": "nosuch", "encoding": {"x": {"field": "a"}}}, tmp_path / "a.svg")
    with pytest.raises(RenderError, match="nothing is fetched"):
        save({"mark": "bar", "data": {"url": "https://example.org/a.csv"}}, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        path = write_bytes(tmp_path / "a.json", b"x")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_long_names_are_no_trouble(tmp_path):
    name = "注" * 70 + ".json"
    assert write_bytes(tmp_path / name, b"x").name == name


def test_too_many_pixels_are_refused_before_they_are_made(spec, tmp_path):
    for ppi in (0, -5, 1e9, float("nan")):
        with pytest.raises(RenderError, match="expected 1 to 2400 ppi"):
            save(spec, tmp_path / "a.png", ppi=ppi)
    assert list(tmp_path.iterdir()) == []


def test_hostile_text_comes_out_right_in_every_format(tmp_path):
    from xml.etree import ElementTree

    words = "a <b> & \"q\" 'r' 注意力 😀 שלום مرحبا\x00\x1b"
    chart = perhead(block_capture(4, (1, 2), prompt=words), title="{prompt}")
    shown = words.replace("\x00", "␀").replace("\x1b", "␛")
    root = ElementTree.parse(save(chart, tmp_path / "a.svg"))
    lines = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")]
    assert any(shown in line for line in lines)
    assert json.loads(save(chart, tmp_path / "a.json").read_text())["title"]["text"][0] == shown
    for suffix in ("png", "pdf"):
        assert save(chart, tmp_path / f"a.{suffix}").read_bytes().startswith(SIGNATURES[suffix])
