"""Layers down and heads across, a panel for each set: the cells, axes and heads of such figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from headgrid.charts.axes import Look, find_look, panel_width
from headgrid.charts.panels import facet_panels
from headgrid.options import FigureOptions
from headgrid.text import shorten_text

#: Room between the panels of sets, beside what their axes take.
SET_GAP = 24


def matrix_cell(columns: float, rows: float, look: Look, width: float | None) -> tuple[int, int]:
    """Return width and height of a cell in whole points, smaller where there are many."""
    widest, highest = (20, 9) if look.border_axes else (28, 14)
    across = round((1400 if width is None else width) / columns)
    return max(3, min(widest, across) if width is None else across), max(
        3, min(highest, round(1400 / rows))
    )


def apart_gap(size: int) -> int:
    """Return the gap before cells that stand apart, in points, whole as the cells are."""
    return min(8, max(3, size // 3))


def matrix_axis(
    channel: Any,
    title: str,
    numbers: Sequence[int],
    size: int,
    look: Look,
    apart: Sequence[str],
    offset: float = 0,
) -> Any:
    """Give a channel an axis with the numbers that fit, its title over these, and what is apart."""
    room = look.tick_label * (2.2 if title == "Head" else 1.15)
    domain = [*map(str, numbers), *apart]
    values = [*map(str, numbers[:: max(1, -(-int(room) // size))]), *apart]
    middle = {"titleX" if title == "Head" else "titleY": size * len(numbers) / 2}
    test = "||".join(f"datum.value=='{name}'" for name in apart) or "false"
    moved = {"condition": {"test": test, "value": apart_gap(size)}, "value": 0}
    return (
        channel.title(title)
        .scale(domain=domain, paddingInner=0, paddingOuter=0)
        .axis(
            values=values,
            labelAngle=0,
            labelOffset=moved,
            labelOverlap=False,
            offset=offset,
            ticks=False,
            zindex=0,
            **middle,
        )
    )


def set_width(options: FigureOptions, summary: pd.DataFrame) -> float | None:
    """Return what a wanted width leaves for the panel of each set; None without one."""
    if options.points is None:
        return None
    look, sets = find_look(options), summary["set"].nunique()
    fixed = sets * look.left_room + (sets - 1) * SET_GAP + 2 * look.padding
    return panel_width(options.points, fixed, sets, 60)


def facet_sets(panel: Any, sets: Sequence[str], look: Look) -> alt.FacetChart:
    """Put a panel for each set side by side, each under its name, by the field ``panel``."""
    names = [shorten_text(name, 60) for name in sets]
    label = f"{json.dumps(names)}[datum.value]"
    bare: dict[str, Any] = {} if any(names) else {"labelPadding": 0}
    size = look.map_title if any(names) else 0
    header = alt.Header(title=None, labelExpr=label, labelFontSize=size, **bare)
    return facet_panels(panel, "panel", header, len(sets))
