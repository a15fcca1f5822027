"""Theme, typeface and width -> every size, weight and gap of a figure, in the chart's own units.

A chart is laid out in units of which a cell takes a whole number. Without a
wanted width a unit is a point. With one, panels take what the width leaves, and
the unit is what makes their cells whole; all other lengths are divided by it, so
that text keeps its size in points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from headgrid.charts.labels import FONT_FAMILY, SERIF_FAMILY
from headgrid.charts.scales import cell_size
from headgrid.errors import OptionError
from headgrid.options import FigureOptions
from headgrid.text import shorten_float

FAMILIES = {"sans": FONT_FAMILY, "serif": SERIF_FAMILY}

INK = "#000000"
_SMALLEST_PANEL = 36.0


@dataclass(frozen=True)
class Look:
    """How a figure is drawn. Lengths are in units of the chart.

    Attributes
    ----------
    theme : str
        Name of the theme that it belongs to.
    border_axes : bool
        Axes, tick labels and axis titles stand at the border of the grid only.
    inside_labels : bool
        A panel's label stands inside it, not over it.
    shared_values : bool
        All profiles have one value axis.
    unit : float
        Points that a unit of the chart stands for.
    """

    family: str = FONT_FAMILY
    theme: str = "default"
    border_axes: bool = False
    inside_labels: bool = False
    shared_values: bool = False
    own_title: bool = True
    unit: float = 1.0
    figure_title: float = 14
    title_offset: float = 16
    map_title: float = 11
    profile_title: float = 10
    axis_title: float = 9
    tick_label: float = 7
    bar_label: float = 9
    bar_title: float = 10
    bar_thickness: float = 20
    bar_offset: float = 24
    bar_length: float = 750  # three rows of panels
    bar_room: float = 60  # what the labels and the title of the colour bar take
    title_padding: float = 4
    label_padding: float = 2
    header_padding: float = 5
    tick_size: float = 3
    tick_width: float = 0.8
    value_tick_width: float = 0.5  # a wider tick at the very top would lift the panel's title
    frame_width: float = 0.8
    line_width: float = 1
    grid_width: float = 1
    point_size: float = 5  # an area, as Vega has it
    map_panel: float = 216
    map_row_gap: float = 60
    map_column_gap: float = 62
    profile_width: float = 204
    profile_height: float = 144
    profile_padding: float = 7
    profile_row_gap: float = 56
    profile_column_gap: float = 46
    stack_gap: float = 18
    left_room: float = 36  # what the axis of the first column takes
    padding: float = 8

    def divided(self, unit: float) -> Look:
        """Return the look for a unit of so many points."""
        if unit == 1:
            return self
        changes: dict[str, Any] = {
            field.name: shorten_float(getattr(self, field.name) / unit, 6)
            for field in fields(self)
            if isinstance(getattr(self, field.name), (int, float))
            and not isinstance(getattr(self, field.name), bool)
            and field.name not in ("unit", "map_panel")
        }
        changes["point_size"] = shorten_float(self.point_size / unit**2, 6)
        return replace(self, **changes, unit=unit)


_PAPER = Look(
    theme="paper",
    border_axes=True,
    inside_labels=True,
    shared_values=True,
    own_title=False,
    figure_title=8,
    title_offset=6,
    map_title=7,
    profile_title=7,
    axis_title=7,
    tick_label=6,
    bar_label=6,
    bar_title=7,
    bar_thickness=7,
    bar_offset=8,
    bar_room=28,
    title_padding=2,
    label_padding=1.5,
    header_padding=2,
    tick_size=2,
    tick_width=0.4,
    value_tick_width=0.4,
    frame_width=0.4,
    line_width=0.6,
    grid_width=0.4,
    point_size=1.4,
    map_panel=84,
    map_row_gap=6,
    map_column_gap=6,
    profile_width=84,
    profile_height=56,
    profile_padding=3,
    profile_row_gap=6,
    profile_column_gap=6,
    stack_gap=5,
    left_room=24,
    padding=1,
)

LOOKS = {"default": Look(), "paper": _PAPER}


def find_look(options: FigureOptions) -> Look:
    """Return the look of the theme in the typeface asked for, without regard to the width."""
    return replace(LOOKS[options.theme], family=FAMILIES[options.font])


def fit_maps(
    options: FigureOptions, columns: int, count: int, *, panel: float | None = None
) -> Look:
    """Return the look of a grid of maps that has the wanted width.

    Parameters
    ----------
    options : FigureOptions
    columns : int
        Panels side by side.
    count : int
        Cells along the x axis of a panel.
    panel : float, optional
        Width of a panel in points where no width of the figure is wanted.

    Raises
    ------
    OptionError
        Where the width leaves too little for a panel.
    """
    look = find_look(options)
    if options.points is None:
        return look if panel is None else replace(look, map_panel=panel)
    beside = look.bar_offset + look.bar_thickness + look.bar_room
    fixed = look.left_room + (columns - 1) * look.map_column_gap + beside + 2 * look.padding
    wanted = _panel_width(options.points, fixed, columns)
    cell = cell_size(count, round(wanted))
    unit = shorten_float(wanted / (cell * count), 6)
    profile: dict[str, Any] = {
        "profile_width": float(cell * count),
        "map_panel": float(cell * count),
    }
    fitted = look.divided(unit)
    height = shorten_float(look.profile_height / look.profile_width * cell * count, 6)
    return replace(fitted, **profile, profile_height=height)


def fit_profiles(options: FigureOptions, columns: int) -> Look:
    """Return the look of a grid of profiles that has the wanted width; see `fit_maps`."""
    look = find_look(options)
    if options.points is None:
        return look
    fixed = look.left_room + (columns - 1) * look.profile_column_gap + 2 * look.padding
    panel = _panel_width(options.points, fixed, columns)
    height = look.profile_height * min(1.0, panel / look.profile_width)
    return replace(
        look, profile_width=shorten_float(panel, 6), profile_height=shorten_float(height, 6)
    )


def _panel_width(width: float, fixed: float, columns: int) -> float:
    panel = (width - fixed) / columns
    if panel < _SMALLEST_PANEL:
        raise OptionError(
            f"width is {width:g} pt, which leaves {max(panel, 0):.0f} pt for each of {columns} "
            f"panels in a row, expected at least {_SMALLEST_PANEL:g} pt; draw fewer panels in a "
            "row (columns=, --columns), choose theme='paper' (--theme paper), or widen it"
        )
    return panel


def configure(look: Look) -> dict[str, Any]:
    """Return the configuration of a chart with a look."""
    ink = {"labelColor": INK, "titleColor": INK, "labelLimit": 0, "titleLimit": 0}
    return {
        "font": look.family,
        "background": "white",
        "padding": look.padding,
        "title": {"fontSize": look.figure_title, "fontWeight": "bold", "color": INK, "limit": 0},
        "header": {"labelFontWeight": "bold", "labelPadding": look.header_padding, **ink},
        "legend": {
            "gradientThickness": look.bar_thickness,
            "labelFontSize": look.bar_label,
            "titleFontSize": look.bar_title,
            "titleFontWeight": "normal",
            "offset": look.bar_offset,
            **ink,
        },
        "axis": {
            "domain": False,
            "gridColor": "#b0b0b0",
            "gridOpacity": 0.3,
            **({} if look.grid_width == 1 else {"gridWidth": look.grid_width}),
            "labelFontSize": look.tick_label,
            "labelPadding": look.label_padding,
            "tickColor": INK,
            "tickSize": look.tick_size,
            "tickWidth": look.tick_width,
            "titleFontSize": look.axis_title,
            "titleFontWeight": "normal",
            "titlePadding": look.title_padding,
            **ink,
        },
    }


def store_look(look: Look) -> dict[str, Any]:
    """Return what ``usermeta`` says of a look: nothing of the usual one."""
    usual = Look()
    stored: dict[str, Any] = {}
    if look.theme != usual.theme:
        stored["theme"] = look.theme
    if look.family != usual.family:
        stored["font"] = next(name for name, family in FAMILIES.items() if family == look.family)
    if look.unit != usual.unit:
        stored["unit"] = look.unit
    return stored


def restore_look(usermeta: object) -> Look:
    """Return the look that `store_look` has described, as far as a configuration needs it."""
    found = usermeta.get("headgrid") if isinstance(usermeta, dict) else None
    stored = found if isinstance(found, dict) else {}
    look = LOOKS.get(str(stored.get("theme")), LOOKS["default"])
    look = replace(look, family=FAMILIES.get(str(stored.get("font")), look.family))
    unit = stored.get("unit", 1.0)
    return look.divided(float(unit)) if isinstance(unit, (int, float)) and unit > 0 else look
