"""Any text -> text that is safe to draw and to print: cleaned, shortened, wrapped, measured.

Every text that data can reach passes `clean_text` before it is drawn.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

#: Average width of a letter as a share of its size: measured on Liberation Sans.
_LETTER = 0.48
#: Widths of letters as shares of their size, in Arial; others are as wide as a digit.
_WIDTHS = {
    letter: width
    for letters, width in {
        "ijl": 0.222, " ftI.,:;/": 0.278, "()-r": 0.333, "cksvxyzJ": 0.5, "ABEKPSVXY": 0.667,
        "CDHNRUw": 0.722, "GOQ": 0.778, "mM%": 0.85, "W": 0.944, "@": 1.015,
    }.items()
    for letter in letters
}  # fmt: skip
_REPLACEMENTS = {
    # What is no character, and overrides of the writing direction, which would mirror whatever
    # follows them.
    **dict.fromkeys((0x202D, 0x202E, *range(0x80, 0xA0), *range(0xFDD0, 0xFDF0)), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **dict.fromkeys((0x10000 * p + n for p in range(17) for n in (0xFFFE, 0xFFFF)), "\ufffd"),
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) != "\n"},
    0x7F: "\u2421",
    # Line and paragraph separators break the expressions that Vega makes of text.
    **dict.fromkeys((0x09, 0x85, 0x2028, 0x2029), " "),
}

#: How a picture starts that is inside the figure.
PNG_URI = "data:image/png;base64,"

_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|(.))", re.IGNORECASE | re.DOTALL)
_REFERENCE = re.compile(r"(?:url|image-set)\((?!#)", re.IGNORECASE)


def clean_text(text: str) -> str:
    r"""Return text that is safe to draw: control characters made visible.

    Control characters end the process inside the renderer, and lone surrogates
    have no UTF-8. C0 controls become their control pictures, all else that is
    no character becomes U+FFFD; line ends become ``\n``.

    >>> clean_text("a\x1b[31mb\r\nc")
    'a␛[31mb\nc'
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_REPLACEMENTS)


def wrap_text(text: str, width: int, lines: int = 4) -> list[str]:
    """Return text in lines of at most ``width`` columns, at most so many, ended by "…" if cut.

    A wide (East Asian) character counts two columns, a combining one none.

    >>> wrap_text("one two three", 8)
    ['one two', 'three']
    >>> wrap_text("one two three four", 8, lines=2)
    ['one two', 'three…']
    """
    paragraphs = clean_text(text[: 64 * width * lines]).split("\n")
    wrapped = [line for paragraph in paragraphs for line in _wrap_paragraph(paragraph, width)]
    while len(wrapped) > 1 and not wrapped[-1]:
        wrapped.pop()
    if len(wrapped) <= lines:
        return wrapped
    return [*wrapped[: lines - 1], _truncate(wrapped[lines - 1], width - 1).rstrip() + "…"]


def shorten_text(text: str, length: int = 200) -> str:
    """Return clean text on one line, cut to about ``length`` characters."""
    flat = " ".join(clean_text(text[: 4 * length]).split())
    cut = len(flat) > length or len(text) > 4 * length
    return flat[: length - 1] + "…" if cut else flat


def fit_title(text: str, length: float, size: float) -> str | list[str]:
    """Return a title that stands along so much room, in several lines where one is too long.

    >>> fit_title("Attention Logits", 100, 7), fit_title("Attention Logits", 40, 7)
    ('Attention Logits', ['Attention', 'Logits'])
    """
    longest = max(map(count_columns, text.split()), default=1)
    for columns in range(max(longest, int(length / (_LETTER * size))), longest - 1, -1):
        lines = wrap_text(text, columns)
        if max(map(measure_text, lines)) * size <= length:
            break
    return text if len(lines) == 1 else lines


def quote_text(text: str, length: int = 80) -> str:
    r"""Return shortened text in quotes, for a message.

    >>> quote_text("two\nlines", 6)
    "'two l…'"
    """
    return f"'{shorten_text(text, length)}'"


def shorten_list(values: Sequence[object], shown: int = 6) -> str:
    """Return the values as text, the middle left out where there are many.

    >>> shorten_list(range(21))
    '0, 1, 2, ..., 18, 19, 20'
    """
    texts = [str(value) for value in values]
    if len(texts) > shown:
        half = shown // 2
        texts = [*texts[:half], "...", *texts[-half:]]
    return ", ".join(texts)


def count_noun(number: int, noun: str) -> str:
    """Return how many there are of something: ``1 layer``, ``1,200 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten_float(value: float, digits: int = 9) -> float:
    """Return the value with so many significant digits, so that its text is short.

    >>> shorten_float(0.1428571492433548)
    0.142857149
    """
    return float(f"{value:.{digits}g}")


def write_number(value: float, style: str = ".4g") -> str:
    """Return a number as people read it, with a minus sign, or that there is none.

    >>> write_number(-10.12719), write_number(float("nan"))
    ('−10.13', 'n/a')
    """
    if value != value:
        return "n/a"
    # One digit of an exponent where one is enough, as Vega writes it.
    return re.sub(r"(e[-+])0", r"\1", format(value, style)).replace("-", "\u2212")


def clean_name(name: str) -> str:
    r"""Return the name of a folder with lone surrogates as U+FFFD.

    They stand for bytes that are no UTF-8, and no file or table can hold them.

    >>> clean_name("run_\udcff")
    'run_�'
    """
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def measure_text(text: str) -> float:
    """Return the width of a text as a share of its size; bold takes a tenth more."""
    return sum(_WIDTHS.get(letter, 0.556 * _columns(letter)) for letter in text)


def count_columns(text: str) -> int:
    """Return the columns that a text takes; see `wrap_text`."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _truncate(text: str, width: int) -> str:
    """Return the start of a text that takes at most so many columns."""
    columns = itertools.accumulate(map(_columns, text))
    return text[: sum(1 for _ in itertools.takewhile(lambda used: used <= width, columns))]


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in paragraph.split(" "):
        candidate = f"{line} {word}" if line else word
        if count_columns(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while count_columns(word) > width:  # a word without spaces, as in Chinese
            head = _truncate(word, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line]


def leads_out(paint: str) -> bool:
    r"""Whether a paint or a style, as CSS reads it, names something outside the figure.

    >>> leads_out(r"u\72l(http://x)"), leads_out("url(#gradient_0)")
    (True, False)
    """
    plain = _CSS_ESCAPE.sub(lambda m: chr(int(m[1], 16) % 0x110000) if m[1] else m[2], paint)
    return _REFERENCE.search(plain) is not None
