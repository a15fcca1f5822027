"""A survey and one capture -> specifications of figures that a script keeps up to date.

They are figures of `charts`, of one head. What a page changes are their data and parameters: the
ends of the colour range, from which colours follow as from a `ColorScale`, and what is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from headgrid.capture.model import Capture
from headgrid.charts.axes import INK, KEY, UNSEEN_COLOR, Look
from headgrid.charts.frames import GAPS
from headgrid.charts.labels import room_beside
from headgrid.charts.overview import draw_overview
from headgrid.charts.panels import CELLS, FRAME, TILES, Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles
from headgrid.charts.scales import ColorScale, Palette, frame_places
from headgrid.charts.spec import ChartLike, Spec, configure, finish_chart, to_spec
from headgrid.options import ColorRange, FigureOptions
from headgrid.render.convert import check_spec
from headgrid.tables.measures import Summary

#: Width of a map in pixels, about; a page takes the widest that it has room for.
MAP_WIDTHS = (720, 576, 504, 432, 378, 324, 270, 216)

# Text for a screen: a pixel is less than a point.
_LOOK = Look(
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
# How far a ring stands outside of a row or a cell of a map, which may be two pixels high.
_RING = 1.5
# Decimal numbers while they are short: the ticks are those of the page, and not Vega's, whose
# own labels would have too few digits for them.
_TICK = (
    "datum.value==0?'0':abs(datum.value)<0.001||abs(datum.value)>=100000?"
    "format(datum.value,'.3~e'):format(datum.value,'.4~r')"
)


def draw_live_overview(summary: Summary, layers: Sequence[int], options: FigureOptions) -> Spec:
    """Return the overview of a summary of one set, with a ring around the chosen head.

    Its parameters are ``chosen_column`` and ``chosen_row``.
    """
    spec = _finish(to_spec(draw_overview(summary, options, layers=layers), validate=False))
    left_out = {"set"} if (summary.table["runs"] > 1).any() else {"set", "std", "runs"}
    panel, cells = spec["spec"], _layer(spec, CELLS)
    columns, rows = (len(cells["encoding"][channel]["scale"]["domain"]) for channel in "xy")
    # Cells grow, to hold larger text; few rows grow to a height of 150 of all or 40 of each, as the
    # colour bar beside them has a title.
    panel["width"] = columns * round(panel["width"] / columns * 1.25)
    row = round(panel["height"] / rows * 1.2)
    panel["height"] = rows * max(row, min(40, 150 // rows))
    spec["bounds"] = "full"
    for part in panel["layer"]:
        encoding = part["encoding"]
        if "text" in encoding:
            part["mark"]["fontSize"] = 9.5
        else:
            part["mark"]["cursor"] = "pointer"
        for channel in "x", "y":
            encoding[channel]["axis"]["labelOverlap"] = "greedy"
            encoding[channel]["axis"].pop(f"title{channel.upper()}")  # the cells grow
        if "tooltip" in encoding:
            shown = [one for one in encoding["tooltip"] if one["field"] not in left_out]
            encoding["tooltip"] = shown
            bar = encoding["color"]["legend"]
            bar["title"] = summary.title  # on one line
            bar["gradientLength"] = panel["height"]
            bar.pop("titlePadding", None)
    panel["layer"] += _rings((columns, rows), "chosen_column", "chosen_row")
    return check_spec(spec)


def draw_live_map(capture: Capture, palette: Palette, width: int, *, vectors: bool) -> Spec:
    """Return the map of one head, about as wide, of the frames and statistic of a capture.

    It takes one record for each visible pair: ``panel`` (0), ``query``, ``key``, ``pair`` (a
    number that no other pair has), and a ``fill``. Parameters: ``range_low`` and ``range_high``,
    ``range_stops`` (the values of the palette's colours), ``range_ticks`` (values with a label on
    the colour bar), ``range_below`` and ``range_above`` (whether values lie beyond the ends),
    ``chosen_row``, ``pointed_row`` and ``pointed_column`` (or null). Without ``vectors`` it takes
    one record, of ``panel`` and ``tile``, an image with a pixel for each place of both axes.
    """
    scale = ColorScale(ColorRange(-1.0 if palette.diverging else 0.0, 1.0, "fixed"), palette)
    look = replace(_LOOK, map_panel=float(width), bar_length=float(width), vectors=vectors)
    spec = _complete(draw_maps(_one_head(capture), scale, look, vectors=vectors)[0], look)
    # A page has the pairs at hand one by one; to unfold rows takes longer than to draw them.
    spec["transform"] = []
    cells, frame = _layer(spec, CELLS if vectors else TILES), _layer(spec, FRAME)
    cells["mark"]["cursor"] = "pointer"
    if vectors:
        # The page has the colours, too; the frame carries the scale, and its legend.
        frame["transform"].append({"calculate": "0", "as": "color"})
        frame["encoding"] |= {"fill": cells["encoding"]["color"], "fillOpacity": {"value": 0}}
        cells["encoding"]["color"] = {"field": "fill", "type": "nominal", "scale": None}
        # The mark of a pair stays that of the pair: half the time.
        cells["encoding"]["key"] = {"field": "pair"}
        del cells["encoding"]["tooltip"]
    _follow_range(frame["encoding"]["fill"], palette, spec["spec"]["height"])
    size = len(frame_places(capture.key_frames)), len(frame_places(capture.query_frames))
    for column, row in ("", "chosen_row"), ("pointed_column", "pointed_row"):
        spec["spec"]["layer"] += _rings(size, column, row, _RING)
    return check_spec(spec)


def draw_live_profile(capture: Capture, width: int) -> Spec:
    """Return the profile of one head, or of one query of it, as wide as the map of that width.

    Its parameters are ``value_low`` and ``value_high``, the ends of the value axis, which a
    row without values has too. Its record has an array of values.
    """
    whole, _ = map_size(capture, replace(_LOOK, map_panel=float(width)))  # of whole cells
    look = replace(_LOOK, profile_width=float(whole), shared_values=True)
    spec = _complete(draw_profiles(_one_head(capture), look)[0], look)
    for part in spec["spec"]["layer"]:
        part["encoding"].pop("tooltip", None)  # the page tells
        # There is no title over the panel that a label at its top would lift.
        value = part["encoding"].get("y", {})
        if not value.get("axis"):
            continue  # lines and names of segments stand at places of their own
        value["axis"]["labelExpr"] = "length(datum.label)>7?format(datum.value,'~e'):datum.label"
        value["scale"]["domain"] = [{"expr": "value_low"}, {"expr": "value_high"}]
        value["scale"]["padding"] = look.profile_padding
    return check_spec(spec)


def word_room(capture: Capture) -> int:
    """Return what labels take at the left of a map beyond the usual numbers."""
    return math.ceil(room_beside(capture.query_axis, _LOOK.tick_label))


def _one_head(capture: Capture) -> Panels:
    # The axes left of a map and of a profile take the same room.
    ranges = map(capture.head_range, range(capture.num_heads))
    head = next((number for number, (low, high) in enumerate(ranges) if low <= high), 0)
    return Panels(((capture, head),), [""], 1, label="''", extent=32 + word_room(capture))


def _complete(chart: ChartLike, look: Look) -> Spec:
    return _finish(to_spec(finish_chart(chart, [], look), validate=False)) | {"spacing": 0}


def _finish(spec: Spec) -> Spec:
    """Take out what the page says itself, and what records of one head bring along."""
    for name in ("title", "description", "usermeta"):
        spec.pop(name, None)
    spec["config"] = _follow_page({**configure(_LOOK), "background": "transparent"})
    # A band over a gap has the white of paper.
    panel = spec["spec"]
    panel["layer"] = [part for part in panel["layer"] if part.get("name") not in (GAPS, KEY)]
    named = ("run", "layer", "head", "key_label")
    spec["transform"] = [s for s in spec.get("transform", ()) if s.get("as") not in named]
    spec["data"]["name"] = "rows"
    for part in (spec["spec"], *spec["spec"]["layer"]):
        for name in ("mark", "view"):
            if name in part:
                part[name] = _follow_page(part[name])
    # The page names the head. Vega-Lite ignores `labels: false` for facets that wrap.
    spec["facet"]["header"] = {"title": None, "labelExpr": "''", "labelFontSize": 0}
    return spec


def _follow_page(settings: Spec) -> Spec:
    """Return settings in the colour of the page's text where they are black or light grey.

    Colours that stand for values, and text on them, are encodings, which stay.
    """
    changed: Spec = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            changed[name] = _follow_page(value)
        elif value == UNSEEN_COLOR:
            changed |= {name: "currentColor", "fillOpacity": 0.08}
        else:
            changed[name] = "currentColor" if value == INK else value
    return changed


def _layer(spec: Spec, name: str) -> Spec:
    found: Spec = next(part for part in spec["spec"]["layer"] if part.get("name") == name)
    return found


def _rings(size: tuple[int, int], column: str, row: str, out: float = 0) -> Iterator[Spec]:
    """Yield the layers of a ring around a place of a grid of columns and rows, or around a row.

    Names are those of parameters: places from the top left, or null. Layers read no data but that
    there is a panel: a test of every cell, each time anything changes, would take longer than
    drawing.
    """
    encoding = {"x": {"value": -out}, "x2": {"value": {"expr": f"child_width+{out}"}}}
    sides = ("width", "x", column, size[0]), ("height", "y", row, size[1])
    for side, channel, place, count in sides:
        if place:
            cell = f"*child_{side}/{count}"
            encoding[channel] = {"value": {"expr": f"{place}{cell}-{out}"}}
            encoding[f"{channel}2"] = {"value": {"expr": f"({place}+1){cell}+{out}"}}
    for color, width in (("white", 4), ("#111111", 2)):  # seen on light and on dark cells
        pen = {"stroke": color, "strokeWidth": 0.6 * width if out else width}
        seen = {"expr": f"{row}!=null?1:0"}
        yield {
            "transform": [{"aggregate": [], "groupby": ["panel"]}],
            "mark": {"type": "rect", "filled": False, **pen, "strokeOpacity": seen, "aria": False},
            "encoding": encoding,
        }


def _follow_range(color: Spec, palette: Palette, length: int) -> None:
    """Let a colour channel with all stops of the palette follow the parameters of the range."""
    stops = range(len(palette.colors))
    color["scale"]["domain"] = [{"expr": f"range_stops[{number}]"} for number in stops]
    color["scale"]["range"] = list(palette.colors)
    bar = color["legend"]
    bar.pop("tickCount", None)
    bar |= {
        "gradientLength": length,
        "values": {"expr": "range_ticks"},
        "labelOverlap": False,
        "labelExpr": (
            "(range_below&&datum.value==range_low?'\u2264\u2009':"
            f"range_above&&datum.value==range_high?'\u2265\u2009':'')+({_TICK})"
        ),
    }
