"""Ticks, grid lines, rules and labels stand where the marks say that their values are."""

import base64
import re
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import headgrid
from headgrid import Capture, compare, heatmap, perhead, pick, sheet, survey, trend
from headgrid.render.convert import render
from headgrid.render.svg.finish import size
from headgrid.testing import read_table
from svgreader import parse_number, read_svg
from synthetic import block_capture, waves

#: How far off something may stand, in points.
OFF = 0.1
FRAMES = r"\bbackground\b|headgrid_frame_marks"
LOOKS = [
    {},
    {"theme": "paper"},
    {"theme": "paper", "width": "17.4cm"},
    {"theme": "paper", "width": "8.4cm", "columns": 2},
    {"width": "15cm", "columns": 2},
]
every_look = pytest.mark.parametrize(
    "look", LOOKS, ids=lambda look: "-".join(map(str, look.values())) or "default"
)


@dataclass
class Panel:
    """Where a panel's marks are, and where they say that a label's value is."""

    box: tuple
    x: object  # label -> x
    y: object  # label -> y


def bands(first, last, labels):
    """Return the function from a label to the middle of its band."""
    step = (last - first) / len(labels)
    return lambda label: first + (labels.index(label) + 0.5) * step


def places_of(frames):
    """Return the labels of an axis, with an empty place where frames are left out."""
    steps = pairwise([*frames, frames[-1] + 1])
    return [label for a, b in steps for label in ([str(a)] if b == a + 1 else [str(a), ""])]


def union(boxes):
    boxes = np.array([*boxes])
    return *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)


def areas(shapes):
    return (box for s in shapes for box in s.areas())


def frames_of(drawing):
    """Return the frame of every panel, and half the width of its line."""
    framed = [s for s in drawing.shapes if s.stroked and re.search(FRAMES, s.classes)]
    return [(s.box, float(s.style.get("stroke-width", 1)) / 2) for s in framed]


def frame_around(drawing, box):
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return next(f for f, _ in frames_of(drawing) if f[0] < x < f[2] and f[1] < y < f[3])


def map_panels(drawing, capture):
    keys, queries = map(places_of, (capture.key_frames, capture.query_frames))
    for group in filter(None, drawing.marks.get("cells", [])):
        x0, y0, x1, y1 = box = union(areas(group))
        yield Panel(frame_around(drawing, box), bands(x0, x1, keys), bands(y1, y0, queries))


def bars_of(shapes):
    """Return the bars of a panel from left to right, of an outline those that it is made of."""
    if "mark-rect" in shapes[0].classes:
        return sorted(box for s in shapes for box in s.areas())
    flat = []
    for shape in shapes:
        corners = [*shape.points.tolist(), shape.points[0].tolist()]
        flat += [(*sorted((x0, x1)), y) for (x0, y), (x1, end) in pairwise(corners) if y == end]
    edges = sorted({edge for x0, x1, _ in flat for edge in (x0, x1)})
    bars = []
    for x0, x1 in pairwise(edges):
        heights = [y for a, b, y in flat if a <= x0 and x1 <= b]
        if heights:  # else between two outlines
            bars.append((x0, min(heights), x1, max(heights)))
    return bars


def profile_panels(drawing, rows, keys):
    """Read both scales from the bars: their middles are frames, their ends zero and the values."""
    for group, row in zip(drawing.marks.get("bars", []), rows, strict=False):
        bars = bars_of(group)
        middles = {str(key): (x0 + x1) / 2 for key, (x0, _, x1, _) in zip(keys, bars, strict=True)}
        largest = int(np.abs(row).argmax())
        ends = bars[largest][1::2]
        foot, top = ends[::-1] if row[largest] > 0 else ends
        x, y = middles.__getitem__, line_through((0, foot), (row[largest], top))
        yield Panel(frame_around(drawing, union(bars)), x, y)


def line_through(a, b):
    """Return the function from a label to its place on a linear axis through two points."""
    slope = (b[1] - a[1]) / (b[0] - a[0])
    return lambda label: a[1] + slope * (parse_number(label) - a[0])


def panel_of(panels, x, y, upright):
    """Return the panel that a tick below it, or left of it, belongs to."""

    def distance(panel):
        x0, y0, x1, y1 = panel.box
        along = max(x0 - x, x - x1, 0) if upright else max(y0 - y, y - y1, 0)
        gap = y - y1 if upright else x0 - x
        return (along > 1, gap < -1, abs(gap))

    return min(panels, key=distance)


def label_at(labels, tick, upright, off):
    """Return the label that stands at the outer end of a tick."""
    (x0, y0), (x1, y1) = tick.points
    # Vega rounds the way from the middle of a letter to its base line to whole units.
    near = [
        t
        for t in labels
        if (abs(t.x - x0) < off and 0 < t.y - max(y0, y1) < 12 and t.anchor == "middle")
        or (
            not upright
            and t.anchor == "end"
            and abs(t.y - round(0.3 * t.size) - y0) < off
            and 0 < min(x0, x1) - t.x < 6
        )
    ]
    assert len(near) == 1, f"no label, or several, at the tick at {x0:.2f}, {y0:.2f}"
    return near[0].content


def check(chart, find_panels):
    """Check all ticks, their labels and the grid of a chart; return the drawing and its panels."""
    svg = render(headgrid.to_spec(chart, validate=False), "svg").decode()
    drawing = read_svg(svg)
    panels, off = list(find_panels(drawing)), OFF * drawing.width / size(svg)[0]
    ticks = [s for s in drawing.shapes if "role-axis-tick" in s.classes]
    labels = [t for t in drawing.texts if "role-axis-label" in t.classes]
    assert len(ticks) == len(labels) > 0
    places = {False: [], True: []}
    for tick in ticks:
        (x0, y0), (x1, _) = tick.points
        upright = abs(x0 - x1) < 1e-9
        panel = panel_of(panels, x0, y0, upright)
        label = label_at(labels, tick, upright, off)
        place, expected = (x0, panel.x(label)) if upright else (y0, panel.y(label))
        assert place == pytest.approx(expected, abs=off), label
        places[upright].append(place)
    for line in (s for s in drawing.shapes if "role-axis-grid" in s.classes):
        (x0, y0), (x1, y1) = line.points
        upright = abs(x0 - x1) < 1e-9
        assert min(abs((x0 if upright else y0) - place) for place in places[upright]) < off
        pen = float(line.style.get("stroke-width", 1)) / 2
        dx, dy = (pen, 0) if upright else (0, pen)
        ends = min(x0, x1) - dx, min(y0, y1) - dy, -max(x0, x1) - dx, -max(y0, y1) - dy
        assert any(
            all(np.array(ends) >= np.array([a, b, -c, -d]) - half - OFF / 10)
            for (a, b, c, d), half in frames_of(drawing)
        ), "a grid line leaves its frame"
    return drawing, panels


def panels_of(capture):
    """Return what finds the panels of maps and of profiles, whichever there are."""
    rows = [capture.last_block_rows[head].astype(float) for head in range(capture.num_heads)]
    return lambda drawing: [
        *map_panels(drawing, capture),
        *profile_panels(drawing, rows, capture.key_frames),
    ]


CAPTURES = {
    "21 frames": block_capture(4, (3,) * 7, layer=3, scale=14),
    "72 frames": block_capture(4, (3,) * 24, layer=3),
    "a few frames": Capture.from_array(waves(3, 4, 9), layer=3),
    "positive": block_capture(4, (3,) * 7, layer=3, statistic="mass"),
}
every_capture = pytest.mark.parametrize("name", CAPTURES)


@every_look
@every_capture
def test_in_maps_and_profiles(name, look):
    capture = CAPTURES[name]
    for draw in (heatmap, perhead):
        check(draw(capture, **look), panels_of(capture))


@every_look
def test_in_pairs_and_comparisons(look):
    capture = CAPTURES["21 frames"]
    heads = ["3:0", "3:3", "3:1"]
    check(pick([capture], heads, figure="both", **look), panels_of(chosen(capture, (0, 3, 1))))
    other = block_capture(4, (3,) * 7, layer=4)
    check(compare(capture, other, **{**look, "columns": 2}), panels_of(capture))


BROKEN = Capture.from_array(
    waves(4, 8, 9),
    layer=3,
    query_frames=[3, 4, *range(15, 21)],
    key_frames=[0, 1, 2, *range(15, 21)],
)


@every_look
def test_at_gaps_of_frames_which_break_panels(look):
    chart = heatmap(BROKEN, **look)
    drawing, _ = check(chart, panels_of(BROKEN))
    profiles, _ = check(perhead(BROKEN, **look), panels_of(BROKEN))
    for line in (line for group in profiles.marks["line"] for line in group):
        assert len(line.points) in (3, 6)  # and none from frame 2 to 15
    for drawn, bands in ((drawing, 2), (profiles, 1)):
        assert {len(group) for group in drawn.marks["gaps"]} == {bands}
        labels = {t.content for t in drawn.texts if "role-axis-label" in t.classes}
        assert {"0", "2", "15", "20"} <= labels
    table = read_table(chart)
    for query, row in zip(BROKEN.query_frames, BROKEN.head_matrix(1), strict=True):
        found = table[(table["head"] == 1) & (table["query"] == query)].set_index("key")["logit"]
        assert found.to_dict() == pytest.approx(
            dict(zip(BROKEN.key_frames, row, strict=True)), abs=1e-3
        )
    for told in (chart, perhead(BROKEN, **look)):
        assert "ey frames 0-2, 15-20" in headgrid.to_spec(told, validate=False)["description"]


@pytest.mark.parametrize(
    ("frames", "look", "across"),
    [
        ([0, 1, 2, *range(40, 72)], {"theme": "paper"}, "0 40 50 60 71"),
        ([0, 1, 2, *range(15, 21)], {"width": "17.4cm"}, "0 2 15 20"),
        (range(8), {"width": "12cm", "columns": 2}, "0 1 2 3 4 5 6 7"),
        (range(12), {"width": "12cm", "columns": 2}, "0 2 4 6 8 11"),
    ],
)
def test_frames_at_gaps_come_before_round_ones_and_of_few_every_second(frames, look, across):
    values = waves(12, len(frames), len(frames))
    capture = Capture.from_array(values, query_frames=frames, key_frames=frames)
    drawing, _ = check(heatmap(capture, **look), panels_of(capture))
    below = [t for t in drawing.texts if "axis-label" in t.classes and t.anchor == "middle"]
    lowest = [t for t in below if t.y == max(other.y for other in below)]
    texts = [t.content for t in sorted(lowest, key=lambda t: t.x)]
    assert texts[: len(across.split())] == across.split()
    assert {*across.split()} <= {t.content for t in drawing.texts if t.anchor == "end"}


def test_tiles_have_blank_pixels_in_gaps_and_the_same_ticks():
    spec = headgrid.to_spec(heatmap(BROKEN, cells="image"), validate=False)
    tile = spec["data"]["values"][0]["tile"].partition(",")[2]
    with Image.open(BytesIO(base64.b64decode(tile))) as image:
        seen = np.array(image.convert("RGBA"))[::-1, :, 3] > 0
    assert seen.tolist() == [[x != 3 and y != 2 for x in range(10)] for y in range(9)]
    labels = [
        {
            t.content: (t.x, t.y)
            for t in read_svg(svg.decode()).texts
            if "role-axis-label" in t.classes
        }
        for svg in (render(spec, "svg"), render(headgrid.to_spec(heatmap(BROKEN)), "svg"))
    ]
    assert labels[0] == labels[1]


def test_thin_bars_become_one_outline_that_gives_every_value_back():
    row = waves(2, 1, 220)[:, 0]
    row[:, 1] = row[:, 150:155] = np.nan  # a key on its own is not lost
    capture = Capture.from_array(last_block=row)
    svg = render(headgrid.to_spec(perhead(capture, value_axis="shared"), validate=False), "svg")
    drawing = read_svg(svg.decode())
    for group, values, line in zip(drawing.marks["bars"], row, drawing.marks["line"], strict=True):
        assert "mark-area" in group[0].classes
        points = np.concatenate([part.points for part in line])
        known = np.flatnonzero(~np.isnan(values))
        joined = values[known[1:]]
        y = line_through(*((joined[n], points[n][1]) for n in (joined.argmin(), joined.argmax())))
        bars = bars_of(group)
        step = 204 / 220
        left = frame_around(drawing, union(bars))[0]
        assert [bar[0] - left for bar in bars] == pytest.approx(known * step, abs=0.01)
        middles = left + (known[1:] + 0.5) * step
        assert points[:, 0] == pytest.approx(middles, abs=0.01)
        for number, (x0, top, x1, bottom) in zip(known, bars, strict=True):
            assert x1 - x0 == pytest.approx(step, abs=0.01)
            end, foot = (top, bottom) if values[number] > 0 else (bottom, top)
            expected = y(str(values[number])), y("0")
            assert (end, foot) == pytest.approx(expected, abs=0.05)  # values have four digits


def chosen(capture, heads):
    """Return a capture of these heads alone."""
    full = capture.full_frame_attention[list(heads)]
    return Capture.from_array(full, block_sizes=capture.block_sizes, layer=3)


@every_look
def test_in_sheets(look):
    look = {name: value for name, value in look.items() if name != "columns"}
    frames = [str(frame) for frame in range(21)]

    def panels(drawing):  # cells of a row of maps are joined
        for (x0, y0, x1, y1), half in frames_of(drawing):
            x, y = bands(x0 + half, x1 - half, frames), bands(y1 - half, y0 + half, frames)
            yield Panel((x0, y0, x1, y1), x, y)

    captures = [block_capture(5, (3,) * 7, layer=layer) for layer in (0, 1)]
    check(sheet(captures, **look), panels)


def summary_of_runs():
    captures = [block_capture(6, (3,) * 7, scale=1 + n, layer=n, run="a") for n in range(5)]
    return survey(captures)


@every_look
def test_in_trends(look):
    found = summary_of_runs()
    means = found.summary("sink").query("head.isna()").sort_values("layer")["mean"].to_numpy()

    def panels(drawing):
        (line,) = [shape for group in drawing.marks["line"] for shape in group]
        low, high = int(means.argmin()), int(means.argmax())
        y = line_through(*((means[n], line.points[n][1]) for n in (low, high)))
        x = line_through((0, line.points[0][0]), (4, line.points[-1][0]))
        yield Panel(frame_around(drawing, line.box), x, y)

    drawing, (panel,) = check(trend(found, **look), panels)
    (zero,) = [s for s in drawing.shapes if "mark-rule role-mark" in s.classes]
    assert zero.points[:, 1] == pytest.approx(panel.y("0"), abs=OFF)
