"""Roles of heads -> the map of roles: a cell a head, and counts beside each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from headgrid.capture.form import expected_layers
from headgrid.charts.axes import UNSEEN_COLOR, Look, find_look, role_channel, role_key
from headgrid.charts.overview import SET_GAP, apart_gap, axis_of, cell_of, facet_sets, set_width
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.options import FigureOptions, FontName, ThemeName
from headgrid.survey.roles import find_votes
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
        From `headgrid.head_roles`, or votes from `headgrid.role_votes`; at most 7 roles.
    title, theme, font, width
        See `FigureOptions`.

    Returns
    -------
    altair.FacetChart
        Layers down, heads across: the role that most runs give, paler where fewer give it. The
        columns at the right count the heads of a layer. Sets stand side by side.

    Raises
    ------
    CaptureError, OptionError
        For what is no table of roles, or has more of them; for an unknown option.

    Examples
    --------
    >>> from headgrid import Capture, head_roles, survey
    >>> found = survey(Capture.from_array(last_block=[[5.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
    >>> role_map(head_roles(found, "sink")).to_dict()["usermeta"]["headgrid"]["roles"]
    {'sink': 1, 'other': 1}
    """
    options = FigureOptions(title=title, theme=theme, font=font, width=width)
    votes, look = find_votes(roles), find_look(options)
    counts = {role: int((votes["role"] == role).sum()) for role in votes["role"].cat.categories}
    layers, runs = [*expected_layers(map(int, votes["layer"]))], int(votes["runs"].max())
    own = ["Roles of Heads by Layer", *([f"Vote of {runs} Runs"] if runs > 1 else [])]
    panel = _draw_panel(votes, layers, look, set_width(options, votes))
    return finish_chart(
        facet_sets(panel, list(dict.fromkeys(votes["set"])), look),
        _records(votes, list(counts)),
        look,
        title=write_title(options, look, own, [], 70, layers),
        caption=f"Roles of heads ({', '.join(f'{name} {n}' for name, n in counts.items())}), layer "
        "x head. Color: the role that most runs give, paler where fewer give it. The columns at "
        "the right count the heads of a layer; grey cells have no role, blank ones no capture.",
        spacing=SET_GAP + look.left_room,
        meta={"figure": "roles", "roles": counts},
        width=options.points,
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
    x = axis_of(alt.X("column:N"), "Head", heads, width, look, columns, **named)
    base = alt.Chart().encode(x=x, y=axis_of(alt.Y("row:N"), "Layer", layers, height, look, []))
    ends = [1 / max(2, len(names)), 1.0]  # of the share of runs that a role wins with
    key = role_key(look, labelExpr="format(datum.value,'.0%')+' of runs'", values=ends)
    pale = alt.Scale(domain=ends, range=[0.3, 1], clamp=True)
    split = key if (votes["share"] < 1).any() else None
    line: dict[str, Any] = {"stroke": "white", "strokeWidth": 0.5, "aria": False}
    gap: dict[str, Any] = {"xOffset": apart_gap(width), "aria": False}
    fill, told = role_channel(alt.Fill("role:N"), names, look), ["set:N", "layer:O", "role:N"]
    known, unknown = (f"isValid(datum.runs)&&{sign}isValid(datum.role)" for sign in ("", "!"))
    cells = base.transform_filter(known).mark_rect(**line)
    beside = base.transform_filter("datum.heads>0")
    marks = [
        base.transform_filter(unknown).mark_rect(**line, fill=UNSEEN_COLOR),
        cells.encode(
            fill=fill,
            opacity=alt.Opacity("share:Q", scale=pale, legend=split),
            tooltip=[*told, "head:O", "share:Q", "runs:Q"],
        ),
        beside.mark_rect(**line | gap, opacity=0.45).encode(fill=fill, tooltip=[*told, "heads:Q"]),
    ]
    size = min(look.tick_label, height - 2, int(width / 0.6 / len(str(len(heads)))))
    if size >= 6:
        marks.append(beside.mark_text(fontSize=size, **gap).encode(text="heads:Q"))
    panel = alt.layer(*marks).properties(width=width * across, height=height * len(layers))
    return panel.properties(view=alt.ViewBackground(stroke=None))


def _records(votes: pd.DataFrame, names: Sequence[str]) -> Records:
    """Return a record for each head, and one for each role of each layer with its count."""
    records: Records = []
    sets = {name: number for number, name in enumerate(dict.fromkeys(votes["set"]))}
    parts: Any = votes.groupby(["set", "layer"], sort=False)
    for (name, layer), rows in parts:
        place = {"panel": sets[name], "layer": int(layer), "row": str(layer)}
        place |= {"set": shorten_text(name)} if name else {}
        for row in rows.itertuples(index=False):
            known = {} if pd.isna(row.role) else {"role": row.role, "share": round(row.share, 6)}
            head = {"head": int(row.head), "column": str(row.head), "runs": int(row.runs)}
            records.append({**place, **head, **known})
        for role in names:
            count = {"role": role, "heads": int((rows["role"] == role).sum())}
            records.append({**place, "column": f" {role}", **count})
    return records
