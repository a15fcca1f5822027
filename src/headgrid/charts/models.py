"""A table of two models -> a map of differences, a scatter of heads, or a matrix of roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import altair as alt
import numpy as np
import numpy.typing as npt

from headgrid.capture.axis import FRAME
from headgrid.charts.axes import INK, find_look
from headgrid.charts.overview import draw_overview, expect_values, facet_sets, set_width
from headgrid.charts.profiles import BAR_COLOR
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.errors import OptionError, check_choice
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.pairs import OUTLIER
from headgrid.tables.measures import describe_measure, measure_title
from headgrid.tables.tidy import round_values
from headgrid.text import fit_title, measure_text, shorten_float, shorten_text

if TYPE_CHECKING:
    import pandas as pd

_FAR_COLOR = "#D55E00"
_MOST_NAMES, _DOT = 12, 20


def compare_heads(
    table: pd.DataFrame,
    figure: Literal["map", "scatter", "roles"] = "map",
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
        One measure of `headgrid.compare_models`; for roles, of `headgrid.role_changes`.
    figure : {"map", "scatter", "roles"}
        The differences B - A as layers x heads, with marginal means; a dot a head, A across and B
        up on one scale, the largest outliers named where there is room; or the number of heads by
        role in A (rows) and in B (columns).
    names : (str, str)
        What A and B are called.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`.

    Raises
    ------
    OptionError
        For an unknown option, or another table.
    CaptureError
        Where no head has a difference.

    Examples
    --------
    >>> from headgrid import Capture, compare_models, survey
    >>> a, b = (survey(Capture.from_array(last_block=[[v, 1.0, 1.0, 0.0]])) for v in (3.0, 5.0))
    >>> compare_heads(compare_models(a, b)).to_dict()["title"]["text"]
    ['Sink Score (logits) by Layer and Head: B − A']
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    check_choice("figure", figure, _FIGURES)
    needed = "role_a" if figure == "roles" else "measure"
    if needed not in table or (needed == "measure" and table[needed].nunique() != 1):
        expected = "of role_changes" if figure == "roles" else "of compare_models, of one measure"
        raise OptionError(f"the table has {', '.join(map(str, table))}, expected one {expected}")
    return _FIGURES[figure](table, [shorten_text(name, 40) for name in names], options)


def _draw_map(table: pd.DataFrame, names: list[str], options: FigureOptions) -> alt.FacetChart:
    import pandas as pd

    measure, title, key_name = _find_measure(table)
    change = f"{names[1]} \u2212 {names[0]}"
    heads = table[["layer", "head"]].assign(set="", mean=table["difference"], std=np.nan)
    heads["runs"] = table[["runs_a", "runs_b"]].min(axis=1, skipna=False)
    means = heads.groupby(["set", "layer"], as_index=False)[["runs", "mean", "std"]].mean()
    summary = pd.concat([heads, means], ignore_index=True)
    if options.title is None and find_look(options).own_title:
        own = f"{title} by Layer and Head: {change}"
        options = replace(options, title=own.replace("{", "{{").replace("}", "}}"))
    return draw_overview(
        summary.astype(dict.fromkeys(("layer", "head", "runs"), "Int64")),
        *measure,
        options,
        description=f"difference {change}",
        key_name=key_name,
        change=f", {change}",
    )


def _find_measure(table: pd.DataFrame) -> tuple[tuple[str, str], str, str]:
    """Return measure and statistic of a table, their title, and what a key is called."""
    measure = table["measure"].iloc[0], table["statistic"].iloc[0]
    key_name = table.attrs.get("key_name", FRAME)
    return measure, measure_title(*measure, key_name), key_name


def _draw_scatter(table: pd.DataFrame, names: list[str], options: FigureOptions) -> alt.FacetChart:
    measure, title, key_name = _find_measure(table)
    expect_values(table.assign(mean=table["difference"]), *measure, key_name)
    heads = table.dropna(subset="difference").sort_values("outlier", kind="stable")
    values, look = round_values(heads[["a", "b", "difference"]].to_numpy(), 6), find_look(options)
    low, high = float(values[:, :2].min()), float(values[:, :2].max())
    room = 0.05 * (high - low or 1.0)
    low, high = shorten_float(low - room, 6), shorten_float(high + room, 6)
    size = set_width(options, table.assign(set="")) or (180 if look.border_axes else 400)
    across, up = (fit_title(f"{title}, {name}", size, look.axis_title) for name in names)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    x, at = (alt.X(f"{field}:Q", title=across, scale=scale) for field in ("a", "at"))
    y = alt.Y("b:Q", title=up, scale=scale)
    kinds = ["each head", f"outlier (|z| > {OUTLIER})"]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, offset=look.title_offset / 4)
    color = alt.Color("kind:N", legend=legend).scale(domain=kinds, range=[BAR_COLOR, _FAR_COLOR])
    base = alt.Chart(width=size, height=size)
    equal = base.mark_rule(color="#888888", strokeWidth=look.line_width, aria=False)
    dots = base.mark_point(filled=True, opacity=0.75, size=_DOT * look.line_width, aria=False)
    words = base.mark_text(fontSize=look.tick_label, align="left", baseline="middle", aria=False)
    tips = ["layer:O", "head:O", "a:Q", "b:Q", "difference:Q"]
    ends = {"x": low, "y": low, "x2": high, "y2": high}
    panel = alt.layer(
        equal.transform_aggregate(groupby=["panel"]).encode(
            **{channel: alt.datum(end) for channel, end in ends.items()}
        ),
        dots.encode(x=x, y=y, color=color, tooltip=tips),
        words.transform_filter("isValid(datum.name)").encode(x=at, y=y, text="name:N"),
        view=alt.ViewBackground(stroke=INK, strokeWidth=look.frame_width),
    )
    shown = heads[["layer", "head"]].assign(panel=0, kind=np.where(heads["outlier"], *kinds[::-1]))
    shown[["a", "b", "difference"]] = values
    records: Records = shown.to_dict("records")  # type: ignore[assignment]
    named = _place_names(heads, (values[:, :2] - low) / (high - low) * size, size, look.tick_label)
    for number, (name, left) in named.items():
        records[number] |= {"name": name, "at": shorten_float(low + left * (high - low) / size, 6)}
    caption = (
        f"{title} ({describe_measure(measure[0], key_name)}) of {len(heads)} heads, {names[0]} "
        f"across and {names[1]} up; on the grey line both are equal. {heads['outlier'].sum()} "
        f"heads, of which {len(named)} are named, are outliers: the modified z-score z of "
        f"their difference is beyond \u00b1{OUTLIER}."
    )
    meta = {"figure": "scatter", "measure": measure[0], "statistic": measure[1]}
    return _finish(panel, records, options, f"{title} of Heads", caption, meta)


def _place_names(
    heads: pd.DataFrame, dots: npt.NDArray[np.float64], size: float, letter: float
) -> dict[int, tuple[str, float]]:
    """Return names of outliers and where each begins, clear of dots and of larger ones' names."""
    taken, named = np.hstack([dots - 3, dots + 3]), dict[int, tuple[str, float]]()
    far = (heads["difference"] - heads["difference"].median()).abs().to_numpy()
    for number in np.argsort(-far, kind="stable")[: int(heads["outlier"].sum())].tolist():
        name = "L{} H{}".format(*heads[["layer", "head"]].iloc[number])
        (x, y), width = dots[number].tolist(), measure_text(name) * letter
        for left in (x + 4, x - 4 - width):
            box = np.array([left, y - letter / 2, left + width, y + letter / 2])
            apart = ((taken[:, :2] > box[2:]) | (taken[:, 2:] < box[:2])).any(axis=1).all()
            if apart and left > 2 and box[2] < size and len(named) < _MOST_NAMES:
                taken, named[number] = np.vstack([taken, box]), (name, left)
                break
    return named


def _draw_roles(table: pd.DataFrame, names: list[str], options: FigureOptions) -> alt.FacetChart:
    look = find_look(options)
    roles = [shorten_text(str(role), 40) for role in table["role_a"].cat.categories]
    counts = table.groupby(["role_a", "role_b"], observed=False).size()
    records: Records = [
        {"panel": 0, "from": a, "to": b, "heads": count}
        for (a, b), count in zip(product(roles, roles), counts.tolist(), strict=True)
    ]
    width = (set_width(options, table.assign(set="")) or 0) / len(roles)
    width = width or max(36, *(measure_text(role) * look.tick_label + 8 for role in roles))
    axis: dict[str, Any] = {"axis": alt.Axis(ticks=False, labelAngle=0, labelOverlap=False)}
    axis["scale"] = alt.Scale(domain=roles, padding=0)
    size: dict[str, Any] = {"width": width * len(roles), "height": 36 * len(roles)}
    up, across = (
        fit_title(f"Role in {name}", length, look.axis_title)
        for name, length in zip(names, (size["height"], size["width"]), strict=True)
    )
    x, y = alt.X("to:N", title=across, **axis), alt.Y("from:N", title=up, **axis)
    base = alt.Chart(**size).encode(x=x, y=y)
    cells = base.mark_rect(color=BAR_COLOR, stroke=INK, strokeWidth=look.frame_width, aria=False)
    ink = alt.condition("datum.share>0.8", alt.value("white"), alt.value(INK))
    panel = alt.layer(
        cells.encode(fillOpacity=alt.FillOpacity("share:Q", scale=None), tooltip=["heads:Q"]),
        base.mark_text(fontSize=look.bar_title, aria=False).encode(text="heads:Q", color=ink),
    ).transform_calculate(share=f"datum.heads/{max(1, counts.max())}")
    changed, whole = sum(r["heads"] for r in records if r["from"] != r["to"]), counts.sum()
    caption = (
        f"Number of heads by role in {names[0]} (rows) and in {names[1]} (columns): {changed} of "
        f"{whole} change; {len(table) - whole} more have no role in one of the two."
    )
    return _finish(panel, records, options, "Roles of Heads", caption, {"figure": "role changes"})


def _finish(
    panel: Any, records: Records, options: FigureOptions, own: str, caption: str, meta: Any
) -> alt.FacetChart:
    """Return the figure of one panel."""
    look = find_look(options)
    text: dict[str, Any] = {"title": write_title(options, look, [own], [], 70), "caption": caption}
    chart = facet_sets(panel, [""], look)
    return finish_chart(chart, records, look, meta=meta, width=options.points, **text)


_FIGURES = {"map": _draw_map, "scatter": _draw_scatter, "roles": _draw_roles}
