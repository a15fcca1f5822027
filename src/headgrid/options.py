"""One frozen `FigureOptions` that API keywords, command line and manifest all build."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal, get_args

from headgrid.errors import OptionError, check_choice, near_miss, shorten_text, show_value
from headgrid.lengths import read_length
from headgrid.scales import PALETTES, ColorRange, ColorRule, PaletteName, check_color_rule

FigureName = Literal["heatmap", "perhead"]
FormatName = Literal["svg", "png", "pdf", "html", "json"]
FIGURES: tuple[str, ...] = get_args(FigureName)
FORMATS: tuple[str, ...] = get_args(FormatName)
EmbedName = Literal["inline", "cdn", "assets"]
#: Where an HTML page has Vega from.
EMBEDS: tuple[str, ...] = get_args(EmbedName)
CellsName = Literal["auto", "vector", "image"]
CELLS: tuple[str, ...] = get_args(CellsName)
ThemeName = Literal["default", "paper"]
THEMES: tuple[str, ...] = get_args(ThemeName)
FontName = Literal["sans", "serif"]
FONTS: tuple[str, ...] = get_args(FontName)
TITLE_FIELDS = ("layer", "run", "prompt")


@dataclass(frozen=True)
class FigureOptions:
    """How a figure is drawn; checked when made.

    Attributes
    ----------
    columns : int
        Panels in a row of the grid, at least 1.
    palette : {"rdbu", "custom"}
        Diverging palette of signed statistics; masses and entropies are viridis.
    color_range : {"symmetric", "shared", "quantile", "minmax"} or (low, high) or ColorRange
        What the two ends of the colour scale stand for, in the statistic's unit;
        see `headgrid.resolve_color_range`.
    title : str or None
        Template of the first title line; ``{layer}``, ``{run}`` and ``{prompt}``
        are filled in. None: the figure's own (the paper theme has none).
    cells : {"auto", "vector", "image"}
        Cells of a heatmap as vector shapes, or one PNG tile per head in the same
        chart. ``auto``: vector up to `headgrid.charts.VECTOR_CELLS` visible cells.
    theme : {"default", "paper"}
        ``paper``: text of 6 to 8 points, hairlines, labels inside the panels, axes
        at the border of the grid only, one value axis for all profiles.
    font : {"sans", "serif"}
        Typeface of all text.
    width : float, str or None
        Exact width of the figure in SVG, PDF and PNG: points, or text with a unit
        (``"13.97cm"``, ``"140mm"``, ``"5.5in"``, ``"396pt"``). Panels take what is
        left; text keeps its size. None: as wide as whole-point cells make it.

    Raises
    ------
    OptionError
        Where a value is not one of these, with the choices and the near miss.
    """

    columns: int = 4
    palette: PaletteName = "rdbu"
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric"
    title: str | None = None
    cells: CellsName = "auto"
    theme: ThemeName = "default"
    font: FontName = "sans"
    width: float | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.columns, bool) or not isinstance(self.columns, int) or self.columns < 1:
            raise OptionError(
                f"columns is {show_value(self.columns)}, expected a whole number, at least 1"
            )
        check_choice("palette", self.palette, PALETTES)
        check_choice("cells", self.cells, CELLS)
        check_choice("theme", self.theme, THEMES)
        check_choice("font", self.font, FONTS)
        if self.width is not None:
            object.__setattr__(self, "width", read_length("width", self.width))
        check_color_rule(self.color_range)
        if self.title is not None:
            _check_template(self.title)

    @property
    def points(self) -> float | None:
        """The wanted width in points."""
        return None if self.width is None else float(self.width)


def fill_title(template: str, *, layer: int | str, run: str, prompt: str) -> str:
    """Return a checked template with its fields filled in.

    >>> fill_title("Layer {layer}: {prompt}", layer=3, run="", prompt="a {cat}")
    'Layer 3: a {cat}'
    """
    return template.format(layer=layer, run=run, prompt=prompt)


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
                f"title has the field {{{shorten_text(name, 40, quote=False)}}}, expected one of "
                f"{', '.join('{' + field + '}' for field in TITLE_FIELDS)}"
                f"{near_miss(name[:40], TITLE_FIELDS)}; write {{{{ and }}}} for braces"
            )
