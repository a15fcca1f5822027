from xml.etree import ElementTree

import pytest
from PIL import Image

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
def test_the_suffix_chooses_the_format_and_missing_folders_are_made(spec, format, tmp_path):
    path = save(spec, tmp_path / f"a/b/chart.{format.upper()}")
    assert path.read_bytes().startswith(SIGNATURES[format])


def test_a_chart_and_its_spec_give_the_same_file(spec, tmp_path):
    chart = perhead(block_capture(1, (1, 2)))
    assert (
        save(chart, tmp_path / "a.svg").read_bytes() == save(spec, tmp_path / "b.svg").read_bytes()
    )
    assert save(chart, tmp_path / "a.json").read_text("utf-8") == headgrid.to_json(spec)


def test_a_png_has_the_pixels_and_the_resolution_asked_for(spec, tmp_path):
    box = ElementTree.parse(save(spec, tmp_path / "a.svg")).getroot().get("viewBox").split()
    for ppi in (72, 300):
        with Image.open(save(spec, tmp_path / "a.png", ppi=ppi)) as image:
            assert image.size == pytest.approx([float(v) * ppi / 72 for v in box[2:]], abs=1)
            assert image.info["dpi"] == pytest.approx((ppi, ppi), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "a.svgg",
            {},
            r"suffix of a\.svgg is '\.svgg', expected one of \.svg, .*did you mean '\.svg'",
        ),
        (
            "a.gif",
            {},
            r"suffix of a\.gif is '\.gif', expected one of \.svg, \.png, \.pdf, \.html, \.json",
        ),
        ("a", {}, "the suffix of a is '', expected one of"),
        *(("a.png", {"ppi": n}, "expected 1 to 2400 ppi") for n in (0, -5, 1e9, float("nan"))),
    ],
)
def test_wrong_options_are_refused_with_the_choices(spec, name, options, message, tmp_path):
    with pytest.raises((OptionError, RenderError), match=message):
        save(spec, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_chart_that_can_not_be_drawn_writes_nothing(tmp_path):
    with pytest.raises(RenderError, match="Vega-Lite could not draw"):
        save({"mark": "nosuch", "encoding": {"x": {"field": "a"}}}, tmp_path / "a.svg")
    with pytest.raises(RenderError, match="nothing is fetched"):
        save({"mark": "bar", "data": {"url": "https://example.org/a.csv"}}, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_to_is_one_sentence(spec, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(OutputError, match=r"can not be written \(.*\), expected a folder"):
        save(spec, tmp_path / "file" / "a.json")
    with pytest.raises(OutputError, match="can not be written"):
        save(spec, tmp_path / "b.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_ends_early_leaves_the_old_file_and_nothing_else(error, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises((OutputError, KeyboardInterrupt), match=r"No space left on device|^$"):
        write_bytes(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", b"old")]
