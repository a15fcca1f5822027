"""One frozen `FigureOptions` that API keywords, command line and manifest all build."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from headgrid.errors import OptionError, check_choice, check_whole, near_miss, show_value
from headgrid.notebook import Card
from headgrid.text import shorten_float, shorten_text

PaletteName = Literal["rdbu", "custom"]
ColorRule = Literal["symmetric", "shared", "minmax", "quantile", "log", "head"]
FigureName = Literal["heatmap", "perhead"]
FormatName = Literal["svg", "png", "pdf", "html", "json"]
EmbedName = Literal["inline", "cdn", "assets"]  # where an HTML page has Vega from
CellsName = Literal["auto", "vector", "image"]
ThemeName = Literal["default", "paper"]
FontName = Literal["sans", "serif"]
ValueAxisName = Literal["independent", "shared"]
#: Whole numbers, or text as on the command line: ``"0,3,7-9"``.
Numbers: TypeAlias = str | Sequence[int]
COLOR_RULES: tuple[str, ...] = get_args(ColorRule)
FIGURES: tuple[str, ...] = get_args(FigureName)
FORMATS: tuple[str, ...] = get_args(FormatName)
EMBEDS: tuple[str, ...] = get_args(EmbedName)
#: What `FigureOptions.marks` has for the borders between blocks.
BLOCKS = "blocks"
_CHOICES = {"palette": PaletteName, "cells": CellsName, "theme": ThemeName, "font": FontName}
#: What goes into SVG and HTML for each, so that text looks the same where it is opened.
FONT_FAMILY = "Arial, DejaVu Sans, Helvetica, sans-serif"
SERIF_FAMILY = "Times New Roman, DejaVu Serif, Times, serif"
TITLE_FIELDS = ("layer", "run", "prompt")

#: Points of 1/72 inch in each unit.
UNITS = {"pt": 1.0, "in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4}
_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_LENGTH = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*")
#: Narrower nothing can be read; wider no renderer's page can be.
_SHORTEST, _LONGEST = 36.0, 14_400.0

#: Below this, steps of a scale are no longer numbers.
SMALLEST_SPAN = 1e-290


def read_format(file: Path) -> str:
    """Return the format that a file's suffix names; an unknown one is refused."""
    suffixes = [f".{name}" for name in FORMATS]
    return check_choice(f"the suffix of {file.name}", file.suffix.lower(), suffixes)[1:]


@dataclass(frozen=True)
class ColorRange(Card):
    """The values at the two ends of the colour scale, and the rule that found them.

    Made by `headgrid.resolve_color_range`; every ``color_range`` takes one in place of a rule.

    Attributes
    ----------
    low, high : float
        In the unit of the statistic, ``low < high``.
    rule : str
        A rule of `FigureOptions`, or ``"fixed"`` for numbers; of ``"head"``, ends are shares.

    Examples
    --------
    >>> FigureOptions(color_range=ColorRange(-5.0, 5.0, "fixed")).color_range.high
    5.0
    """

    low: float
    high: float
    rule: str

    @classmethod
    def around_zero(cls, low: float, high: float, signed: bool, rule: str) -> ColorRange:
        """Return the range that holds values, as far to both sides; from 0 where they are above."""
        size = shorten_float(max(abs(low), abs(high)))
        size = size if size > SMALLEST_SPAN else 1.0  # one value everywhere
        return cls(-size if signed else shorten_float(min(low, 0.0)), size, rule)


#: What every ``color_range`` takes.
ColorChoice: TypeAlias = ColorRule | tuple[float, float] | ColorRange


@dataclass(frozen=True)
class FigureOptions:
    """How a figure is drawn; checked when made.

    Attributes
    ----------
    columns : int
        Panels in a row of the grid, at least 1.
    palette : {"rdbu", "custom"}
        Diverging palette of signed statistics; masses and entropies are viridis.
    color_range : {"symmetric", "shared", "quantile", "minmax", "log", "head"} or (low, high)
        What the two ends of the colour scale stand for, in the statistic's unit, or a
        `ColorRange`; see `headgrid.resolve_color_range`. ``head``, of maps only: each
        head on a scale of its own, which its title names.
    title : str or None
        Template of the first title line; ``{layer}``, ``{run}`` and ``{prompt}``
        are filled in. None: the figure's own (the paper theme has none).
    cells : {"auto", "vector", "image"}
        Cells of a heatmap as vector shapes, or one PNG tile per head in the same
        chart. ``auto``: vector up to `headgrid.charts.heatmap.VECTOR_CELLS` visible cells.
    theme : {"default", "paper"}
        ``paper``: text of 6 to 8 points, hairlines, labels inside the panels, axes
        at the border of the grid only, one value axis for all profiles.
    font : {"sans", "serif"}
        Typeface of all text.
    width : float, str or None
        Exact width of the figure in SVG, PDF and PNG: points, or text with a unit
        (``"13.97cm"``, ``"140mm"``, ``"5.5in"``, ``"396pt"``). Panels take what is
        left; text keeps its size. None: as wide as whole-point cells make it.
    value_axis : {"independent", "shared"} or None
        Whether each profile has a value axis of its own, or all have one. None: what
        the figure and the theme have.
    heads : sequence of int or str, optional
        The heads of a capture that are drawn, ``[0, 3]`` or ``"0,3,7-9"``; a color range of
        one figure is theirs. None: all of them.
    marks : sequence of int or "blocks", or str
        Thin lines over maps and profiles: in the middle of these frames, and between the
        blocks of frames that were generated together.
    sums : bool
        Of masses: at the right of each map the sum over the keys that it shows, row by row.

    Raises
    ------
    OptionError
        Where a value is not one of these, with the choices and the near miss.
    """

    columns: int = 4
    palette: PaletteName = "rdbu"
    color_range: ColorChoice = "symmetric"
    title: str | None = None
    cells: CellsName = "auto"
    theme: ThemeName = "default"
    font: FontName = "sans"
    width: float | str | None = None
    value_axis: ValueAxisName | None = None
    heads: Numbers | None = None
    marks: str | Sequence[int | str] = ()
    sums: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", check_whole("columns", self.columns))
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(choices))
        if self.width is not None:
            object.__setattr__(self, "width", read_length("width", self.width))
        if self.value_axis is not None:
            check_choice("value axis", self.value_axis, get_args(ValueAxisName))
        if self.heads is not None:
            object.__setattr__(self, "heads", read_numbers("heads", self.heads))
        marks = read_numbers("marks", self.marks, (BLOCKS,)) if self.marks else ()
        object.__setattr__(self, "marks", marks)
        check_color_rule(self.color_range)
        if self.title is not None:
            _check_template(self.title)

    @property
    def points(self) -> float | None:
        """The wanted width in points."""
        return None if self.width is None else float(self.width)


def _check_template(template: object) -> None:
    if not isinstance(template, str):
        raise OptionError(f"title is {show_value(template)}, expected text")
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(
            f"title is {show_value(template)} ({error}), expected text with {{layer}}, {{run}} or "
            "{prompt}; write {{ and }} for braces"
        ) from None
    for _, name, spec, conversion in fields:
        if name is not None and (name not in TITLE_FIELDS or spec or conversion):
            raise OptionError(
                f"title has the field {{{shorten_text(name, 40)}}}, expected one of "
                f"{', '.join('{' + field + '}' for field in TITLE_FIELDS)}"
                f"{near_miss(name[:40], TITLE_FIELDS)}; write {{{{ and }}}} for braces"
            )


def parse_color_range(text: str) -> ColorRule | tuple[float, float]:
    """Return the colour rule, or the two numbers, that a command-line text names.

    >>> parse_color_range("-5,10")
    (-5.0, 10.0)
    """
    if "," not in text:
        return check_color_rule(text)  # type: ignore[return-value]
    low, _, high = text.partition(",")
    return _check_limits(low, high)


def check_color_rule(rule: object) -> str | tuple[float, float]:
    """Return a colour rule, or two numbers, that are valid."""
    if isinstance(rule, ColorRange):
        return _check_limits(rule.low, rule.high)
    if hasattr(rule, "tolist"):  # a numpy array
        rule = rule.tolist()
    if isinstance(rule, (tuple, list)) and len(rule) == 2:
        return _check_limits(*rule)
    return check_choice("color range", rule, [*COLOR_RULES, "LO,HI (two numbers)"])


def _check_limits(low: Any, high: Any) -> tuple[float, float]:
    with suppress(TypeError, ValueError, OverflowError):
        limits = float(low), float(high)
        if math.isfinite(limits[1] - limits[0]) and limits[1] - limits[0] > SMALLEST_SPAN:
            return limits
    found = ",".join(show_value(limit).strip("'") for limit in (low, high))
    raise OptionError(
        f"color range is {found}, expected two finite numbers LO,HI with LO below HI, as in -5,10"
    )


def read_numbers(name: str, value: object, words: tuple[str, ...] = ()) -> tuple[Any, ...]:
    """Return whole numbers, each once, from a sequence or a text; and words, where some may be.

    >>> read_numbers("heads", "0,3,7-9"), read_numbers("marks", ["blocks", 4], ("blocks",))
    ((0, 3, 7, 8, 9), ('blocks', 4))
    """
    found: list[int | str] = []
    with suppress(TypeError, ValueError):  # no sequence; a number with thousands of digits
        for text in value.split(",") if isinstance(value, str) else map(str, value):  # type: ignore[call-overload]
            ends = _SPAN.fullmatch(text.strip())
            first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
            numbers = [text.strip()] if text.strip() in words else range(first, last + 1)
            if not 0 < len(numbers) <= 100_000:
                raise ValueError
            found += numbers
        if found:
            return tuple(dict.fromkeys(found))
    raise OptionError(
        f"{name} is {show_value(value)}, expected whole numbers or ranges of them"
        f"{''.join(f' or {word}' for word in words)}, as in 0,3,7-9"
    )


def read_length(name: str, value: object) -> float:
    """Return a length in points; ``name`` says in messages what it is the length of.

    >>> read_length("width", "13.97cm"), read_length("width", 396)
    (396.0, 396.0)
    """
    points = math.nan
    if isinstance(value, str):
        if found := _LENGTH.fullmatch(value):
            points = float(found[1]) * UNITS.get(found[2].lower() or "pt", math.nan)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # of a whole number with hundreds of digits
            points = float(value)
    if not _SHORTEST <= points <= _LONGEST:
        size = f", that is {points:,.4g} pt" if math.isfinite(points) else ""
        raise OptionError(
            f"{name} is {show_value(value)}{size}, expected points or a number with one of "
            f"{', '.join(UNITS)} (13.97cm), {_SHORTEST:g} to {_LONGEST:,.0f} points in all"
        )
    return round(points, 6)
