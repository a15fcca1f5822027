import pytest

from headgrid import OptionError
from headgrid.options import read_length


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("13.97cm", 396.0),
        ("139.7 mm", 396.0),
        ("5.5in", 396.0),
        ("396pt", 396.0),
        ("396", 396.0),
        (396, 396.0),
        ("13.97 CM", 396.0),
    ],
)
def test_lengths_become_points(text, points):
    assert read_length("width", text) == pytest.approx(points, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "wide",
        "12px",
        "-5cm",
        "1e3pt",
        "0.1cm",
        "9999cm",
        "nan",
        float("nan"),
        None,
        True,
        [396],
    ],
)
def test_anything_else_is_an_error_with_the_units(wrong):
    with pytest.raises(OptionError, match=r"width is .*pt, in, cm, mm .*36 to 14,400 points"):
        read_length("width", wrong)
