"""Roles of heads -> their colours, and the map of roles: a cell a head, counts a layer beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from headgrid.capture.form import expected_layers
from headgrid.charts.axes import INK, UNSEEN_COLOR, Look, find_look
from headgrid.charts.labels import shorten_label
from headgrid.charts.matrix import (
    SET_GAP,
    apart_gap,
    facet_sets,
    matrix_axis,
    matrix_cell,
    set_width,
)
from headgrid.charts.spec import Records, finish_chart, write_title
from headgrid.errors import OptionError
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.roles import expect_roles, role_votes
from headgrid.tables.tidy import round_values
from headgrid.text import shorten_text

# The colours of seaborn's palette "colorblind", in an order that parts the first three most.
_COLORS = "0173b2 de8f05 029e73 d55e00 56b4e9 cc78bc ca9161 ece133 fbafe4 949494"
#: On these, text is white.
_DARK = ("0173b2", "029e73", "d55e00")
_VOTES = ("set", "layer", "head", "share", "runs")
#: Opacity of a role that no more than the fewest runs give.
_PALEST = 0.3


def role_map(
    roles: pd.DataFrame,
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.FacetChart:
    """Draw the role of every head of every layer as a colour, and count them beside each layer.

    Parameters
    ----------
    roles : DataFrame
        From `headgrid.head_roles`, or votes from `headgrid.role_votes`.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`; colours are those of roles.

    Returns
    -------
    altair.FacetChart
        Layers down, heads across; the colour is the role that most runs give, paler where
        fewer of them agree. The columns at the right count the heads of a layer with each role.
        Sets stand side by side.

    Raises
    ------
    OptionError
        For an unknown option, and for more than 10 roles.
    CaptureError
        For anything but a table of roles.

    Examples
    --------
    >>> from headgrid import Capture, head_roles, survey
    >>> found = survey(Capture.from_array(last_block=[[5.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
    >>> role_map(head_roles(found, "sink")).to_dict()["usermeta"]["headgrid"]["roles"]
    {'sink': 1, 'other': 1}
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    votes = find_votes(roles)
    names = list(votes["role"].cat.categories)
    look, wide, most = find_look(options), set_width(options, votes), int(votes["runs"].max())
    layers = expected_layers(int(layer) for layer in votes["layer"])
    panel = _draw_panel(votes, names, layers, look, wide)
    counts = {name: int((votes["role"] == name).sum()) for name in names}
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    own = ["Roles of Heads by Layer", *([f"Vote of {most} Runs"] if most > 1 else [])]
    return finish_chart(
        facet_sets(panel, list(dict.fromkeys(votes["set"])), look),
        _records(votes, names),
        look,
        title=write_title(options, look, own, [], 70, layers),
        caption=f"Roles of heads ({told}), layer x head. Color: the role that most runs give, "
        "paler where fewer runs give it; the columns at the right count the heads of a layer; grey "
        "cells have no role, blank ones no capture.",
        spacing=SET_GAP + look.left_room,
        meta={"figure": "roles", "roles": counts},
        width=options.points,
    )


def find_votes(roles: Any) -> pd.DataFrame:
    """Return the votes of a table of roles, or of votes, with names that are safe to draw."""
    voted = "share" in getattr(roles, "columns", ())
    votes = expect_roles(roles, *_VOTES) if voted else role_votes(roles)
    names = [shorten_text(str(name), 40) for name in votes["role"].cat.categories]
    return votes.assign(role=votes["role"].cat.rename_categories(names))


def role_channel(channel: Any, names: Sequence[str], look: Look, **symbol: Any) -> Any:
    """Give a channel the colours of roles, with a key over the panels that names them."""
    colors = [f"#{color}" for color in _COLORS.split()]
    if len(names) > len(colors):
        raise OptionError(
            f"found {len(names)} roles, expected at most {len(colors)}, as many as there are "
            "colors; join some of them"
        )
    legend = alt.Legend(title=None, **_over(look), **symbol)
    return channel.scale(domain=list(names), range=colors[: len(names)]).legend(legend)


def _over(look: Look) -> dict[str, Any]:
    """Return where keys of roles stand: over the panels."""
    symbol: dict[str, Any] = {"symbolType": "square", "symbolSize": look.bar_label**2}
    return {"orient": "top", "direction": "horizontal", "offset": look.title_offset / 2, **symbol}


def draw_outlines(base: Any, names: Sequence[str], look: Look, size: tuple[int, int]) -> list[Any]:
    """Draw the ``role`` of each cell of so many points as a frame inside it, on a white one."""
    known, line = base.transform_filter("isValid(datum.role)"), min(1.2, min(size) / 11)
    color = role_channel(alt.Stroke("role:N"), names, look, symbolFillColor="transparent")

    def frame(inset: float, width: float) -> Any:
        band = {"width": {"band": 1 - inset / size[0]}, "height": {"band": 1 - inset / size[1]}}
        return known.mark_rect(filled=False, strokeWidth=width, aria=False, **band)

    return [
        frame(2.4 * line, 0.4 * line).encode(stroke=alt.value("white")),
        frame(line, line).encode(stroke=color, tooltip=["layer:O", "head:O", "role:N"]),
    ]


def _draw_panel(
    votes: pd.DataFrame, names: list[str], layers: Sequence[int], look: Look, wide: float | None
) -> alt.LayerChart:
    heads = sorted(int(head) for head in votes["head"].unique())
    width, height = matrix_cell(len(heads) + len(names) + 0.3, len(layers), look, wide)
    keys = [f"role {number}" for number in range(len(names))]
    x = matrix_axis(alt.X("column:N"), "Head", heads, width, look, keys)
    room = (width - 2) / look.tick_label
    texts = {name: shorten_label(name, room) for name in names}
    shown = [text if len(text) > 2 or text == name else " " for name, text in texts.items()]
    labels = dict(zip(keys, shown, strict=True))
    x["axis"]["labelExpr"] = f"{json.dumps(labels)}[datum.value]||datum.value"
    y = matrix_axis(alt.Y("row:N"), "Layer", layers, height, look, [])
    base = alt.Chart().encode(x=x, y=y)
    color, shares = role_channel(alt.Fill("role:N"), names, look), [1 / max(2, len(names)), 1.0]
    pale = alt.Scale(domain=shares, range=[_PALEST, 1], clamp=True)
    label = "format(datum.value,'.0%')+' of runs'"
    key = alt.Legend(title=None, labelExpr=label, values=shares, **_over(look))
    split = bool((votes["share"] < 1).any())
    opacity = alt.Opacity("share:Q", scale=pale, legend=key if split else None)
    dark = [name for name, c in zip(names, _COLORS.split(), strict=False) if c in _DARK]
    white = f"indexof({json.dumps(dark)},datum.role)>=0"
    ink = alt.condition(white, alt.value("white"), alt.value(INK))
    known, role, size = (
        "isValid(datum.runs)",
        "isValid(datum.role)",
        min(look.tick_label, height - 2),
    )
    line: dict[str, Any] = {"stroke": "white", "strokeWidth": 0.5, "aria": False}
    gap: dict[str, Any] = {"xOffset": apart_gap(width)}
    place, told = ["set:N", "layer:O"], ["role:N", "share:Q", "runs:Q"]
    cell = base.transform_filter(f"{known}&&{role}").mark_rect(**line)
    beside = base.transform_filter("datum.heads>0")
    marks = [
        base.mark_rect(fill=UNSEEN_COLOR, **line).transform_filter(f"{known}&&!{role}"),
        cell.encode(fill=color, opacity=opacity, tooltip=[*place, "head:O", *told]),
        beside.mark_rect(**line, **gap).encode(fill=color, tooltip=[*place, "role:N", "heads:Q"]),
    ]
    if height >= 8 and width >= size * 0.56 * len(str(len(heads))) + 1:
        text = beside.mark_text(fontSize=size, aria=False, **gap)
        marks.append(text.encode(text="heads:Q", color=ink))
    return alt.layer(*marks).properties(
        width=width * (len(heads) + len(names)),
        height=height * len(layers),
        view=alt.ViewBackground(stroke=None),
    )


def _records(votes: pd.DataFrame, names: list[str]) -> Records:
    """Return a record for each head, and one for each role of each layer with its count."""
    records: Records = []
    for panel, (name, of_set) in enumerate(votes.groupby("set", sort=False)):
        shown: dict[str, Any] = {"panel": panel}
        shown |= {"set": text} if (text := shorten_text(str(name))) else {}
        for layer, of_layer in of_set.groupby("layer"):
            place = {**shown, "layer": int(layer), "row": str(layer)}
            counts = of_layer["role"].value_counts()
            shares = round_values(of_layer["share"].to_numpy())
            for row, share in zip(of_layer.itertuples(index=False), shares, strict=True):
                record = {**place, "head": int(row.head), "column": str(row.head)}
                record |= {} if pd.isna(row.role) else {"role": row.role, "share": float(share)}
                records.append({**record, "runs": int(row.runs)})
            records += [
                {**place, "column": f"role {number}", "role": role, "heads": int(counts[role])}
                for number, role in enumerate(names)
            ]
    return records
