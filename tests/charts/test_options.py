import dataclasses

import pytest

from headgrid import Capture, ColorRange, FigureOptions, OptionError, perhead
from headgrid.options import read_length


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FigureOptions().columns = 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("columns", 0, "columns is 0, expected a whole number, at least 1"),
        *(("columns", value, "expected a whole number") for value in (2.5, True, "4")),
        ("palette", "rdbo", "palette is 'rdbo', expected one of rdbu, custom; did you mean 'rdbu'"),
        ("palette", None, "palette is None, expected one of rdbu, custom"),
        ("color_range", "minmx", "expected one of symmetric, .*did you mean 'minmax'"),
        ("color_range", (3, 1), "color range is 3,1, expected two finite numbers"),
        ("color_range", (0, float("nan")), "expected two finite numbers"),
        ("color_range", (1, 2, 3), "color range is .* expected one of"),
        ("color_range", ("a", "b"), "color range is .* expected"),
        ("color_range", None, "color range is None, expected one of"),
        ("color_range", ColorRange(2, 1, "fixed"), "color range is 2,1, expected two finite"),
        ("title", "{leyer}", "title has the field {leyer}, expected .*did you mean 'layer'"),
        ("title", "{layer:03}", "title has the field {layer}, expected one of"),
        ("title", "{prompt!r}", "title has the field {prompt}, expected one of"),
        ("title", "{prompt.__class__}", "title has the field {prompt.__class__}"),
        ("title", "{}", "title has the field {}, expected one of"),
        ("title", "{layer", "title is '{layer' .*write {{ and }} for braces"),
        ("title", "a } b", "write {{ and }} for braces"),
        ("title", 3, "title is 3, expected"),
        ("value_axis", "shard", "value axis is 'shard', expected .*did you mean 'shared'"),
        *(("heads", value, "heads is .*as in 0,3,7-9") for value in ("a", "3-1", (), 3, [True])),
        ("heads", "0-999999999", "heads is '0-999999999', expected whole numbers"),
        ("marks", "block", "marks is 'block', expected .* or blocks, as in"),
    ],
)
def test_other_values_are_refused_with_what_was_expected(field, value, message):
    with pytest.raises(OptionError, match=message):
        FigureOptions(**{field: value})


def test_a_template_is_filled_once():
    capture = Capture.from_array(last_block=[[1.0]], layer=3, run="r", prompt="{layer}")
    spec = perhead(capture, title="{layer}|{run}|{prompt}|{{x}}").to_dict()
    assert spec["title"]["text"][0] == "3|r|{layer}|{x}"


HUGE = 10**5000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("columns", value) for value in ("x" * 5000, -HUGE)),
        *(("palette", value) for value in ("漢" * 100_000, HUGE)),
        ("cells", "a\n\x1b[31m\ud800"),
        *(("title", value) for value in (b"x" * 5000, "{" + "x" * 5000 + "}", "x" * 5000 + "{")),
        *(("width", value) for value in (HUGE, "x" * 5000)),
        *(("heads", value) for value in ((0, HUGE), "x" * 5000)),
        *(("color_range", value) for value in ((0, HUGE), ("x" * 5000, 1), "x" * 5000)),
    ],
    ids=lambda value: value[:9] if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_can_not_be_is_shown_short_and_printable(field, value):
    with pytest.raises(OptionError, match="expected") as caught:
        FigureOptions(**{field: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_heads_and_marks_are_numbers_each_once():
    options = FigureOptions(heads=" 0, 3,7-9,3", marks=["blocks", 4])
    assert (options.heads, options.marks) == ((0, 3, 7, 8, 9), ("blocks", 4))
    assert FigureOptions(heads=range(2)).heads == (0, 1)


@pytest.mark.parametrize("text", ["13.97cm", "139.7 mm", "5.5in", "396pt", "396", 396, "13.97 CM"])
def test_lengths_become_points(text):
    assert read_length("width", text) == pytest.approx(396.0, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    ["", "wide", "12px", "-5cm", "1e3pt", "0.1cm", "9999cm", "nan", float("nan"), None, True, [9]],
)
def test_anything_else_is_an_error_with_the_units(wrong):
    with pytest.raises(OptionError, match=r"width is .*pt, in, cm, mm .*36 to 14,400 points"):
        read_length("width", wrong)
