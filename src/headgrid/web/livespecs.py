"""A survey and one capture -> specifications of figures that a script keeps up to date.

They are the figures of `panels` and `grids`, of one head. What a page changes are
their data and their parameters: the ends of the colour range, and what is chosen. A
colour follows from the parameters as it does from a `ColorScale`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, UNSEEN_COLOR, Look
from headgrid.charts.overview import draw_overview
from headgrid.charts.panels import CELLS, Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles
from headgrid.charts.scales import STEPS, ColorScale, Palette
from headgrid.charts.spec import ChartLike, Spec, configure, finish_chart, to_spec
from headgrid.options import ColorRange, FigureOptions
from headgrid.render.guard import check_spec
from headgrid.tables.measures import measure_title
from headgrid.text import shorten_float

#: Name of the data of a map or a profile.
ROWS = "rows"
#: Width of a map in pixels, about; a page takes the widest that it has room for.
MAP_WIDTHS = (432, 378, 324, 270, 216)
#: Pixels that the axes left of a map or profile take.
EXTENT = 32

# Text for a screen: a pixel is less than a point.
_LOOK = replace(
    Look(),
    axis_title=12,
    tick_label=11,
    bar_label=11,
    bar_title=12,
    bar_thickness=14,
    bar_offset=16,
    tick_size=4,
    label_padding=3,
    title_padding=6,
    header_padding=0,
    padding=4,
    profile_height=132,
    line_width=1.2,
    point_size=8,
)
_LABEL = "length(datum.label)>7?format(datum.value,'~e'):datum.label"
# Around what is chosen: a line that is seen on light and on dark cells.
_RING = (("white", 4), ("#111111", 2))
# Decimal numbers while they are short: the ticks are those of the page, and not Vega's, whose
# own labels would have too few digits for them.
_TICK = (
    "datum.value==0?'0':abs(datum.value)<0.001||abs(datum.value)>=100000?"
    "format(datum.value,'.3~e'):format(datum.value,'.4~r')"
)
# Cells of the overview grow by this, to hold text of this size; a few rows grow more, up to
# this height of all or of each, as the colour bar beside them has a title.
_ZOOM, _NUMBERS = (1.25, 1.2), 9.5
_LEAST_HEIGHT, _ROW_HEIGHT = 150, 40


def draw_live_overview(
    summary: pd.DataFrame,
    name: str,
    statistic: str,
    options: FigureOptions,
    *,
    layers: Sequence[int],
) -> Spec:
    """Return the overview of one set, with a ring around the chosen head.

    Parameters
    ----------
    summary : DataFrame
        Of one set; see `headgrid.charts.overview.draw_overview`.
    name, statistic, options, layers
        As there.

    Returns
    -------
    dict
        A specification with parameters ``chosen_layer`` and ``chosen_head``, texts or null. Its
        title is left to the page.
    """
    chart = draw_overview(summary, name, statistic, options, layers=layers)
    spec = _finish(to_spec(chart, validate=False))
    several = bool((summary["runs"] > 1).any())
    left_out = {"set"} if several else {"set", "std", "runs"}
    panel, bars = spec["spec"], []
    for part in panel["layer"]:
        encoding = part["encoding"]
        if "tooltip" in encoding:
            shown = [c for c in encoding["tooltip"] if c["field"] not in left_out]
            encoding["tooltip"] = shown
        if "text" in encoding:
            part["mark"]["fontSize"] = _NUMBERS
        else:
            part["mark"]["cursor"] = "pointer"
        if encoding.get("color", {}).get("legend"):
            bars.append(encoding["color"]["legend"])
        for channel in "x", "y":
            encoding[channel]["axis"]["labelOverlap"] = "greedy"
    columns, rows = (len(_cells(spec)["encoding"][channel]["scale"]["domain"]) for channel in "xy")
    panel["width"] = columns * round(panel["width"] / columns * _ZOOM[0])
    row = round(panel["height"] / rows * _ZOOM[1])
    panel["height"] = rows * max(row, min(_ROW_HEIGHT, _LEAST_HEIGHT // rows))
    spec["bounds"] = "full"
    for bar in bars:
        bar["gradientLength"] = panel["height"]
        bar["title"] = measure_title(name, statistic)  # on one line: there is room now
        bar.pop("titlePadding", None)
    panel["layer"] += _rings(_cells(spec), {"x": "chosen_head", "y": "chosen_layer"})
    return _with_parameters(spec, {"chosen_layer": None, "chosen_head": None})


def draw_live_map(capture: Capture, palette: Palette, width: int) -> Spec:
    """Return the map of one head.

    Parameters
    ----------
    capture : Capture
        With a full matrix; its frames and statistic are those of the figure.
    palette : Palette
    width : int
        Of the panel in pixels, about.

    Returns
    -------
    dict
        A specification without records; it takes one for each visible pair: ``panel``
        (0), ``layer``, ``head``, ``query``, ``key``, ``pair`` (a number that no other
        pair has), the statistic, and a ``tooltip``. Parameters: ``range_low`` and
        ``range_high``, ``range_ticks`` (values with a label on the colour bar),
        ``range_below`` and ``range_above`` (whether values lie beyond the ends),
        ``chosen_query``, ``pointed_query`` and ``pointed_key`` (frames, or null).
    """
    scale = ColorScale(ColorRange(-1.0 if palette.diverging else 0.0, 1.0, "fixed"), palette)
    look = replace(_LOOK, map_panel=float(width), bar_length=float(width))
    chart, _ = draw_maps(_one_head(capture), scale, look, vectors=True)
    spec = _finish(_complete(chart, look))
    # A page has the pairs at hand one by one; to unfold rows takes longer than to draw them.
    spec["transform"] = _color_steps(capture.statistic, palette)
    cells = _cells(spec)
    cells["mark"]["cursor"] = "pointer"
    # The mark of a pair stays that of the pair, and only its colour changes: half the time.
    cells["encoding"]["key"] = {"field": "pair"}
    # One text or table for a pair as it comes: to make one of five fields takes a third longer.
    cells["encoding"]["tooltip"] = {"field": "tooltip", "type": "nominal"}
    _follow_range(cells["encoding"]["color"], palette)
    size = spec["spec"]["width"]
    row = {"x": {"value": 0}, "x2": {"value": size}}
    spec["spec"]["layer"] += [
        *_rings(cells, {"y": "chosen_query"}, row),
        *_rings(cells, {"x": "pointed_key", "y": "pointed_query"}),
    ]
    return _with_parameters(
        spec,
        {
            "range_ticks": [0],
            "range_below": False,
            "range_above": False,
            "chosen_query": None,
            "pointed_query": None,
            "pointed_key": None,
        },
        _range_parameters(palette),
    )


def draw_live_profile(capture: Capture, width: int) -> Spec:
    """Return the profile of one head, or of one query of it, as wide as the map of that width.

    See `draw_live_map`; parameters are ``value_low`` and ``value_high``, the ends of the
    value axis, which a row without values has too.
    """
    look = replace(_LOOK, profile_width=float(map_width(capture, width)))
    chart, _ = draw_profiles(_one_head(capture), look)
    spec = _finish(_complete(chart, look))
    for part in spec["spec"]["layer"]:
        # There is no title over the panel that a label at its top would lift.
        value = part["encoding"]["y"]
        value["axis"]["labelExpr"] = _LABEL
        value["scale"]["domain"] = [{"expr": "value_low"}, {"expr": "value_high"}]
    return _with_parameters(spec, {"value_low": 0, "value_high": 1})


def map_width(capture: Capture, width: int) -> int:
    """Return the width of a map of about that width, whose cells are whole pixels."""
    return map_size(capture, replace(_LOOK, map_panel=float(width)))[0]


def _one_head(capture: Capture) -> Panels:
    ranges = map(capture.head_range, range(capture.num_heads))
    head = next((number for number, (low, high) in enumerate(ranges) if low <= high), 0)
    return Panels(((capture, head),), [""], 1, label="''", extent=EXTENT)


def _complete(chart: ChartLike, look: Look) -> Spec:
    return to_spec(finish_chart(chart, [], look), validate=False)


def _finish(spec: Spec) -> Spec:
    """Take out what the page says itself, and what records of one head bring along."""
    for name in ("title", "description", "usermeta"):
        spec.pop(name, None)
    spec["config"] = _follow_page({**configure(_LOOK), "background": "transparent"})
    named = ("run", "layer", "head")
    spec["transform"] = [step for step in spec["transform"] if step.get("as") not in named]
    spec["data"]["name"] = ROWS
    for part in (spec["spec"], *spec["spec"]["layer"]):
        for name in ("mark", "view"):
            if name in part:
                part[name] = _follow_page(part[name])
    # The page names the head. Vega-Lite ignores `labels: false` for facets that wrap.
    spec["facet"]["header"] = {"title": None, "labelExpr": "''", "labelFontSize": 0}
    return spec


def _follow_page(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in the colour of the page's text where they are black or light grey.

    Colours that stand for values, and text on them, are encodings, which stay.
    """
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            changed[name] = _follow_page(value)
        elif value == UNSEEN_COLOR:
            changed |= {name: "currentColor", "fillOpacity": 0.08}
        else:
            changed[name] = "currentColor" if value == INK else value
    return changed


def _with_parameters(
    spec: Spec, values: dict[str, Any], more: Sequence[dict[str, Any]] = ()
) -> Spec:
    named = ({"name": name, "value": value} for name, value in values.items())
    spec["params"] = [*more, *named]
    return check_spec(spec)


def _cells(spec: Spec) -> Spec:
    found: Spec = next(part for part in spec["spec"]["layer"] if part.get("name") == CELLS)
    return found


def _rings(
    cells: Spec, places: dict[str, str], more: dict[str, Any] | None = None
) -> Iterator[Spec]:
    """Yield the layers of a ring around a place, given as a parameter by channel; null: none.

    They read no data but that there is a panel: a test of every cell, each time anything
    changes, would take longer than drawing.
    """
    encoding = dict(more or {})
    for channel, place in places.items():
        like = {name: cells["encoding"][channel][name] for name in ("axis", "scale", "title")}
        encoding[channel] = {**like, "datum": {"expr": place}, "type": "ordinal"}
    known = "&&".join(f"{name}!=null" for name in places.values())
    for color, width in _RING:
        mark = {"type": "rect", "filled": False, "stroke": color, "strokeWidth": width}
        yield {
            "transform": [{"aggregate": [], "groupby": ["panel"]}],
            "mark": {**mark, "strokeOpacity": {"expr": f"{known}?1:0"}, "aria": False},
            "encoding": encoding,
        }


def _follow_range(color: dict[str, Any], palette: Palette) -> None:
    """Let a colour channel and its bar follow the parameters of the range."""
    color["scale"] |= _color_scale(palette)
    bar = color["legend"]
    bar.pop("tickCount", None)
    bar |= {
        "values": {"expr": "range_ticks"},
        "labelOverlap": False,
        "labelExpr": (
            "(range_below&&datum.value==range_low?'\u2264\u2009':"
            f"range_above&&datum.value==range_high?'\u2265\u2009':'')+({_TICK})"
        ),
    }


def _color_steps(field: str, palette: Palette) -> list[dict[str, str]]:
    """Return the steps that give a value the value of its colour, as `ColorScale` does."""
    value = f"datum.{field}"
    position = (
        f"range_start+({value}-range_low)/(range_high-range_low)*(range_end-range_start)"
        if not palette.diverging
        else f"range_through?({value}<0?0.5-0.5*{value}/range_low:0.5+0.5*{value}/range_high)"
        f":range_start+({value}-range_low)/(range_high-range_low)*(range_end-range_start)"
    )
    step = f"clamp(floor(({position})*{STEPS}),{STEPS}*range_start,{STEPS}*range_end-1)"
    return [
        {"calculate": f"{step}/{STEPS - 1}", "as": "position"},
        {"calculate": _value_at("datum.position", palette), "as": "color"},
    ]


def _color_scale(palette: Palette) -> dict[str, Any]:
    """Return the domain and range of all stops; those that a range does not use lie at its end."""
    last = len(palette.colors) - 1
    positions = (shorten_float(number / last) for number in range(last + 1))
    stops = [f"clamp({position!r},range_start,range_end)" for position in positions]
    domain = [{"expr": _value_at(stop, palette)} for stop in stops]
    return {"domain": domain, "range": list(palette.colors)}


def _value_at(position: str, palette: Palette) -> str:
    """Return the expression of the value at a position of the palette, 0 to 1."""
    plain = f"range_low+({position}-range_start)/(range_end-range_start)*(range_high-range_low)"
    if not palette.diverging:
        return plain
    return (
        f"range_through?({position}<0.5?range_low-range_low*2*{position}"
        f":range_high*2*({position}-0.5)):{plain}"
    )


def _range_parameters(palette: Palette) -> list[dict[str, Any]]:
    """Return the ends of the range, and what follows from them: the part of the palette used."""
    ends = {"range_low": -1.0 if palette.diverging else 0.0, "range_high": 1.0}
    derived = {
        "range_start": "range_low>=0?0.5:0" if palette.diverging else "0",
        "range_end": "range_high<=0?0.5:1" if palette.diverging else "1",
        "range_through": "range_low<0&&range_high>0",
    }
    return [
        *({"name": name, "value": value} for name, value in ends.items()),
        *({"name": name, "expr": expression} for name, expression in derived.items()),
    ]
