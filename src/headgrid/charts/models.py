"""A table of two models -> a map of differences, a scatter of heads, or a matrix of roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd

from headgrid.capture.axis import FRAME
from headgrid.charts.axes import INK, find_look
from headgrid.charts.overview import draw_overview, expect_values, facet_sets, set_width
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.errors import OptionError, check_choice, show_value
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.pairs import OUTLIER
from headgrid.survey.roles import expect_roles
from headgrid.tables.measures import Summary
from headgrid.tables.tidy import round_values
from headgrid.text import fit_title, measure_text, shorten_float, shorten_text

_MOST_NAMES, _DOT, _HEAD = 12, 20, ["layer", "head"]
_NUMBERS = ("a", "b", "runs_a", "runs_b", "difference", "outlier", "measure", "statistic")
_Drawn = tuple[Any, Records, str, str]  # panel, records, the figure's own title, caption


def compare_heads(
    table: pd.DataFrame,
    figure: Literal["difference", "scatter", "role_changes"] = "difference",
    *,
    names: Sequence[str] = ("A", "B"),
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw how the heads of two models differ.

    Parameters
    ----------
    table : DataFrame
        From `headgrid.compare_models`, or from `headgrid.role_changes`.
    figure : {"difference", "scatter", "role_changes"}
        B - A as layers x heads, with marginal means; a dot a head, A across and B up, the largest
        outliers named; or the number of heads by role in A (rows) and in B (columns).
    names : (str, str)
        What A and B are called.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`.

    Raises
    ------
    CaptureError, OptionError
        Where no head has a difference; for an unknown option, or another table.

    Examples
    --------
    >>> from headgrid import Capture, compare_models, survey
    >>> a, b = (survey(Capture.from_array(last_block=[[v, 1.0, 1.0, 0.0]])) for v in (3.0, 5.0))
    >>> compare_heads(compare_models(a, b)).to_dict()["title"]["text"]
    ['Sink Score (logits) by Layer and Head: B − A']
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    check_choice("figure", figure, ("difference", "scatter", "role_changes"))
    if isinstance(names, str) or len(names) != 2:
        raise OptionError(f"names is {show_value(names)}, expected two, of A and B")
    roles, labels = figure == "role_changes", [shorten_text(name, 40) for name in names]
    needed = {*_HEAD, *(("role_a", "role_b") if roles else _NUMBERS)}
    found = [*getattr(table, "columns", ())]
    if not needed <= {*found} or table.empty or table.duplicated(_HEAD).any():
        expected = f"of {'role_changes' if roles else 'compare_models'}, a row a head"
        told = ", ".join(map(str, found)) or "no columns"
        raise OptionError(f"the table has {told}, expected one {expected}")
    if figure == "difference":
        return _draw_map(table, labels, options)
    look, draw = find_look(options), _draw_roles if roles else _draw_scatter
    panel, records, own, caption = draw(table, labels, options)
    text: Any = {"title": write_title(options, look, [own], [], 70), "caption": caption}
    return finish_chart(facet_sets(panel, [""], look), records, look, **text)


def _draw_map(table: pd.DataFrame, names: list[str], options: FigureOptions) -> alt.FacetChart:
    heads = table[_HEAD].assign(set="", mean=table["difference"], std=np.nan)
    heads["runs"] = table[["runs_a", "runs_b"]].min(axis=1, skipna=False)
    means = heads.groupby(["set", "layer"], as_index=False).agg({"runs": "min", "mean": "mean"})
    summary = pd.concat([heads, means]).astype(dict.fromkeys(("layer", "head", "runs"), "Int64"))
    measure, statistic = table[["measure", "statistic"]].iloc[0]
    change = f"{names[1]} \u2212 {names[0]}"
    about = table.attrs.get("key_name", FRAME), f"difference {change}"
    shown = Summary(summary, measure, statistic, *about)
    return draw_overview(shown, options, change=f": {change}")


def _draw_scatter(table: pd.DataFrame, names: list[str], options: FigureOptions) -> _Drawn:
    measure, statistic = table[["measure", "statistic"]].iloc[0]
    key_name, look = table.attrs.get("key_name", FRAME), find_look(options)
    summary = Summary(table.assign(mean=table["difference"]), measure, statistic, key_name)
    expect_values(summary)
    heads = table.dropna(subset="difference").round({"difference": 9})  # one order everywhere
    heads = heads.sort_values(["outlier", "difference"], key=abs)
    places = round_values(heads[["a", "b"]].to_numpy(), 6)
    low, high = float(places.min()), float(places.max())
    room = 0.05 * (high - low or 1.0)
    low, high = shorten_float(low - room, 6), shorten_float(high + room, 6)
    size = set_width(options) or (180 if look.border_axes else 400)
    shown = heads[[*_HEAD, "outlier"]].assign(panel=0, a=places[:, 0], b=places[:, 1])
    records: Any = shown.to_dict("records")
    dots = (places - low) / (high - low) * size
    _name_outliers(records, dots, size, look.tick_label)
    title = summary.title
    across, up = (fit_title(f"{title}, {name}", size, look.axis_title) for name in names)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    x, y = alt.X("a:Q", title=across, scale=scale), alt.Y("b:Q", title=up, scale=scale)
    color = alt.condition("datum.outlier", alt.value("#D55E00"), alt.value(BAR_COLOR))
    base = alt.Chart(width=size, height=size)
    equal = base.mark_rule(color="#888888", strokeWidth=look.line_width, aria=False)
    points = base.mark_point(filled=True, opacity=0.75, size=_DOT * look.line_width, aria=False)
    shift: Any = {"xOffset": {"expr": "datum.shift"}, "align": "left", "baseline": "middle"}
    words = base.mark_text(fontSize=look.tick_label, aria=False, **shift)
    ends = {axis: alt.datum(low if len(axis) == 1 else high) for axis in ("x", "y", "x2", "y2")}
    panel = alt.layer(
        equal.transform_aggregate(groupby=["panel"]).encode(**ends),
        points.encode(x=x, y=y, color=color, tooltip=["layer:O", "head:O", "a:Q", "b:Q"]),
        words.transform_filter("isValid(datum.name)").encode(x=x, y=y, text="name:N"),
        view=alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width),
    )
    caption = (
        f"{title} ({summary.meaning}) of {len(heads)} heads, {names[0]} across "
        f"and {names[1]} up, equal on the grey line; {heads['outlier'].sum()} outliers in orange, "
        f"the largest with names: modified z-scores of differences beyond \u00b1{OUTLIER}."
    )
    return panel, records, f"{title} of Heads", caption


def _name_outliers(records: Records, dots: npt.NDArray[Any], size: float, letter: float) -> None:
    """Name outliers, the last first, beside their dots, clear of dots and of other names."""
    taken, half = np.hstack([dots - 3, dots + 3]), letter / 2
    for record, (x, y) in zip(records[::-1], dots.tolist()[::-1], strict=True):
        name = f"L{record['layer']} H{record['head']}"
        width = measure_text(name) * letter
        for shift in (4, -4 - width):
            box = np.array([x + shift, y - half, x + shift + width, y + half])
            apart = ((taken[:, :2] > box[2:]) | (taken[:, 2:] < box[:2])).any(axis=1).all()
            fits = box[0] > 2 and box[2] < size and len(taken) < len(dots) + _MOST_NAMES
            if record["outlier"] and apart and fits:
                taken = np.vstack([taken, box])
                record |= {"name": name, "shift": shorten_float(shift, 6)}
                break


def _draw_roles(table: pd.DataFrame, names: list[str], options: FigureOptions) -> _Drawn:
    look = find_look(options)
    models = {"from": "role_a", "to": "role_b"}
    parts = [table[_HEAD].assign(set=of, role=table[name]) for of, name in models.items()]
    both = expect_roles(pd.concat(parts)).set_index([*_HEAD, "set"])["role"].unstack()
    roles, counts = [*both["to"].cat.categories], both.groupby([*models], observed=False).size()
    records: Any = counts.reset_index(name="heads").assign(panel=0).to_dict("records")
    size = set_width(options) or 54 * len(roles)
    up, across = (fit_title(f"Role in {name}", size, look.axis_title) for name in names)
    axis = alt.Axis(ticks=False, labelAngle=0, labelOverlap=False, labelLimit=size / len(roles))
    more: dict[str, Any] = {"axis": axis, "scale": alt.Scale(domain=roles, padding=0)}
    x, y = alt.X("to:N", title=across, **more), alt.Y("from:N", title=up, **more)
    base = alt.Chart(width=size, height=size).encode(x=x, y=y)
    cells = base.mark_rect(color=BAR_COLOR, stroke=INK, strokeWidth=look.frame_width, aria=False)
    pale = alt.Scale(domain=[0, max(1, *counts)], range=[0, 0.6])
    panel = alt.layer(
        cells.encode(fillOpacity=alt.FillOpacity("heads:Q", scale=pale, legend=None)),
        base.mark_text(fontSize=look.bar_title, aria=False).encode(text="heads:Q"),
    )
    changed, whole = sum(r["heads"] for r in records if r["from"] != r["to"]), counts.sum()
    caption = (
        f"Number of heads by role in {names[0]} (rows) and in {names[1]} (columns): {changed} of "
        f"{whole} change; {len(table) - whole} more have no role in one of the two."
    )
    return panel, records, "Roles of Heads", caption
