"""Roles of heads -> the map of roles: a cell a head, and counts beside each layer."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from headgrid.capture.form import expected_layers
from headgrid.charts.axes import UNSEEN_COLOR, Look, find_look, role_channel
from headgrid.charts.overview import apart_gap, axis_of, cell_of, finish_sets, set_width
from headgrid.options import FigureOptions, FontName, ThemeName
from headgrid.survey.roles import role_votes
from headgrid.text import shorten_text


def role_map(
    roles: pd.DataFrame,
    *,
    title: str | None = None,
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw the role of every head of every layer as a colour, and count them beside each layer.

    Parameters
    ----------
    roles : DataFrame
        From `headgrid.head_roles` or `headgrid.role_votes`; at most 7 roles.
    title, theme, font, width
        See `FigureOptions`.

    Returns
    -------
    altair.FacetChart
        Layers down, heads across, the role that most runs give as a colour, paler where fewer give
        it; the columns at the right count the heads of a layer. Sets stand side by side.

    Raises
    ------
    CaptureError, OptionError
        For another table, more roles, or an unknown option.

    Examples
    --------
    >>> from headgrid import Capture, head_roles, survey
    >>> found = survey(Capture.from_array(last_block=[[5.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
    >>> role_map(head_roles(found, "sink")).to_dict()["usermeta"]["headgrid"]["roles"]
    {'sink': 1, 'other': 1}
    """
    options = FigureOptions(title=title, theme=theme, font=font, width=width)
    votes, look = role_votes(roles), find_look(options)
    counts = votes["role"].value_counts(sort=False).to_dict()
    layers, runs = [*expected_layers(map(int, votes["layer"]))], int(votes["runs"].max())
    own = ["Roles of Heads by Layer", *([f"Vote of {runs} Runs"] if runs > 1 else [])]
    rule = f", by {shorten_text(votes['rule'].iloc[0], 80)}" if "rule" in votes else ""
    places = {"row": votes["layer"].astype(str), "column": votes["head"].astype(str)}
    shown = votes[["set", "layer", "head", "role", "runs"]]
    return finish_sets(
        _draw_panel(votes, layers, look, set_width(options, votes["set"].nunique())),
        shown.assign(share=votes["share"].round(6), **places),
        options,
        own=own,
        layers=layers,
        caption=f"Roles of heads{rule} ({', '.join(f'{name} {n}' for name, n in counts.items())}), "
        "layer x head. Color: the role that most runs give, paler where fewer give it. The columns "
        "at the right count the heads of a layer; grey cells have no role, blank ones no capture.",
        meta={"figure": "roles", "roles": counts},
    )


def _draw_panel(
    votes: pd.DataFrame, layers: list[int], look: Look, wanted: float | None
) -> alt.LayerChart | alt.FacetChart:
    """Return the cells, grey where a head has no role, and the counts."""
    names, heads = list(votes["role"].cat.categories), sorted(set(map(int, votes["head"])))
    across = len(heads) + len(names)
    width, height = cell_of(across + 0.3, len(layers), look, wanted)
    columns = [f" {name}" for name in names]  # no head is called so
    named: dict[str, Any] = {"labelLimit": width}
    if width < 2.2 * look.tick_label:  # room for numbers alone
        named = {"labelExpr": "slice(datum.value,0,1)==' '?'':datum.value"}
    x = axis_of(alt.X("column:N"), heads, width, look, columns, **named)
    base = alt.Chart().encode(x=x, y=axis_of(alt.Y("row:N"), layers, height, look, []))
    line: dict[str, Any] = {"stroke": "white", "strokeWidth": 0.5, "aria": False}
    known = base.transform_filter("isValid(datum.role)")
    # The least share of runs that a role can win with is palest.
    pale = alt.Scale(domain=[1 / max(2, len(names)), 1], range=[0.3, 1], clamp=True)
    fill, told = role_channel(alt.Fill("role:N"), names, look), ["set:N", "layer:O", "role:N"]
    places: list[Any] = ["panel", "set", "layer", "row", "role"]
    counts = known.transform_aggregate(heads="count()", groupby=places)
    counts = counts.transform_calculate(column="' '+datum.role")
    gap: Any = {"xOffset": apart_gap(width), "aria": False}
    marks = [
        base.transform_filter("!isValid(datum.role)").mark_rect(**line, fill=UNSEEN_COLOR),
        known.mark_rect(**line).encode(
            fill=fill,
            opacity=alt.Opacity("share:Q", scale=pale, legend=None),
            tooltip=[*told, "head:O", "share:Q", "runs:Q"],
        ),
        counts.mark_rect(opacity=0.45, **line | gap).encode(fill=fill, tooltip=[*told, "heads:Q"]),
    ]
    size = min(look.tick_label, height - 2, int(width / 0.6 / len(str(len(heads)))))
    if size >= 6:
        marks.append(counts.mark_text(fontSize=size, **gap).encode(text="heads:Q"))
    panel = alt.layer(*marks).properties(width=width * across, height=height * len(layers))
    return panel.properties(view=alt.ViewBackground(stroke=None))
