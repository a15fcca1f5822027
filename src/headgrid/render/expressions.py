"""Vega expression -> the first thing in it that a figure may not use, if there is one.

Vega expressions look like JavaScript and are less: no statements, no methods, only
Vega's own functions. Some of these still reach out: to the event and through it
to the page, to other marks, to stored data, to the console. A figure needs none.
What this finds is text; the boundary behind it is Vega's interpreter of expressions,
which makes no code of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Functions whose result depends on their arguments alone (and `now`), by the
#: groups of Vega's own list: https://vega.github.io/vega/docs/expressions/. Without those
#: that make much of little: sequences, padding, and patterns, whose search may never end.
FUNCTIONS = _words(
    """
    isArray isBoolean isDate isDefined isFinite isNaN isNumber isObject isRegExp isString isValid
    toBoolean toDate toNumber toString
    if abs acos asin atan atan2 ceil clamp cos exp floor hypot log max min pow random round sin
    sqrt tan
    now datetime date day dayofyear year quarter month week hours minutes seconds milliseconds time
    timezoneoffset timeOffset timeUnitSpecifier utc utcdate utcday utcdayofyear
    utcyear utcquarter utcmonth utcweek utchours utcminutes utcseconds utcmilliseconds utcOffset
    extent clampRange indexof inrange join lastindexof length lerp peek pluck reverse slice span
    sort substring split trim lower upper parseFloat parseInt replace truncate
    format monthAbbrevFormat monthFormat dayFormat dayAbbrevFormat timeFormat timeParse utcFormat
    utcParse
    rgb hsl lab hcl luminance contrast
    """
)
CONSTANTS = _words(
    "true false null undefined NaN E LN2 LN10 LOG2E LOG10E PI SQRT1_2 SQRT2 MIN_VALUE MAX_VALUE"
    " datum parent"
)
#: What an event may be asked for.
EVENT_MEMBERS = _words("shiftKey altKey ctrlKey metaKey button buttons key")

#: Members that lead out of a value.
FORBIDDEN = _words(
    "constructor prototype __proto__ __defineGetter__ __defineSetter__ __lookupGetter__"
    " __lookupSetter__ caller callee arguments ownerDocument defaultView"
)
_TOKEN = re.compile(
    r"""
    (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|0[xX][0-9a-fA-F]+)
    |(?P<name>(?:[^\W\d]|\$)[\w$]*)
    |(?P<space>\s+)
    |(?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGN = re.compile(r"[!-/:-@\[\]^{|}~]")  # of ASCII, but no backslash, underscore or backtick
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def find_forbidden(text: str, names: Collection[str] = (), *, selector: bool = False) -> str | None:
    """Return the first name in an expression that is neither the figure's own nor harmless.

    Parameters
    ----------
    text : str
        An expression, or a selector of events.
    names : collection of str
        The chart's own parameters.
    selector : bool
        A selector names events and marks freely; only its members are looked at.

    Returns
    -------
    str or None

    Examples
    --------
    >>> find_forbidden("'Head ' + datum.value")
    >>> find_forbidden("datum.constructor"), find_forbidden("warn('a')")
    ('constructor', 'warn')
    """
    parts = [(m.lastgroup, m.group()) for m in _TOKEN.finditer(text) if m.lastgroup != "space"]
    for position, (kind, word) in enumerate(parts):
        before = parts[position - 1][1] if position else ""
        after = [entry[1] for entry in parts[position + 1 : position + 3]]
        if (
            (kind == "string" and _plain(word) in FORBIDDEN and _is_member(parts, position))
            or (kind == "sign" and not _SIGN.fullmatch(word))
            or (word == "/" and not selector and not _ends_value(parts, position - 1))
            or (kind == "name" and _is_forbidden(word, before, after, names, selector=selector))
        ):
            return word
    return None


def _is_forbidden(
    word: str, before: str, after: list[str], names: Collection[str], *, selector: bool
) -> bool:
    if word in FORBIDDEN:
        return True
    if before == ".":
        return False
    if word == "event":
        return len(after) < 2 or after[0] != "." or after[1] not in EVENT_MEMBERS
    called = after[:1] == ["("]
    if selector:
        return called
    if after[:1] == [":"] and before in ("{", ","):
        return False
    return word not in FUNCTIONS if called else word not in CONSTANTS and word not in names


def _ends_value(parts: list[tuple[str | None, str]], position: int) -> bool:
    """Whether a value may end here, so that a slash after it divides and begins no pattern."""
    kind, word = parts[position] if position >= 0 else (None, "")
    return kind in ("name", "number", "string") or word in (")", "]", "}")


def _is_member(parts: list[tuple[str | None, str]], position: int) -> bool:
    """Whether a text stands in brackets after something, and not in a list of texts."""
    if position < 2 or parts[position - 1][1] != "[":
        return False
    kind, word = parts[position - 2]
    return kind in ("name", "string") or word in (")", "]")


def _plain(text: str) -> str:
    """Return the text of a quoted text, its escapes resolved."""
    return _ESCAPE.sub(lambda m: m.group(3) or chr(int(m.group(1) or m.group(2), 16)), text[1:-1])
