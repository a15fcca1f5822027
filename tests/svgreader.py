"""SVG -> shapes and texts in absolute coordinates: what a figure shows, read from the file alone.

Understands nested transforms (translate, scale, rotate), inherited presentation attributes,
path commands M L H V Z and A in both cases, stroked segments as areas and filled rectangles.
It knows nothing of how headgrid draws.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

FONTS = Path("/usr/share/fonts/truetype/liberation")
_FONT = ("font-family", "font-size", "font-weight", "text-anchor")
_INHERITED = (*_FONT, "fill", "stroke", "stroke-width", "stroke-linecap")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(rf"[A-Za-z]|{_NUMBER.pattern}")


@dataclass
class Shape:
    """One subpath, line or rect: its corner points in absolute points, and its paint."""

    points: np.ndarray
    closed: bool
    scale: tuple[float, float]
    style: dict
    classes: str

    @property
    def filled(self):
        return self.style.get("fill", "black") not in ("none", "transparent")

    @property
    def stroked(self):
        return self.style.get("stroke", "none") not in ("none", "transparent")

    @cached_property
    def box(self):
        xs, ys = zip(*self.points.tolist(), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def color(self):
        return parse_color(self.style["fill" if self.filled else "stroke"])

    def areas(self):
        """Return the rectangles that the shape paints: (x0, y0, x1, y1) each."""
        if self.filled:
            x0, y0, x1, y1 = self.box
            for x, y in self.points.tolist():
                at_corner = min(abs(x - x0), abs(x - x1)) + min(abs(y - y0), abs(y - y1)) < 1e-6
                assert at_corner, f"not a rectangle: {self.points}"
            return [(x0, y0, x1, y1)]
        assert self.stroked
        half = float(self.style.get("stroke-width", 1)) / 2
        boxes = []
        for (ax, ay), (bx, by) in pairwise(self.points.tolist()):
            assert min(abs(ay - by), abs(ax - bx)) < 1e-9, "neither horizontal nor vertical"
            flat = abs(ay - by) < 1e-9
            w, h = (0, half * self.scale[1]) if flat else (half * self.scale[0], 0)
            boxes.append((min(ax, bx) - w, min(ay, by) - h, max(ax, bx) + w, max(ay, by) + h))
        return boxes


@dataclass
class Text:
    """One line of text: what, where its baseline is anchored, and how it looks."""

    content: str
    x: float
    y: float
    matrix: np.ndarray
    size: float
    anchor: str
    weight: str
    family: str
    classes: str

    @property
    def rotated(self):
        return abs(self.matrix[1, 0]) > 1e-9

    def box(self):
        """Return (x0, y0, x1, y1) of the ink, widths measured with Liberation Sans."""
        width = _font(self.weight in ("bold", "700")).getlength(self.content) * self.size / 100
        left = {"start": 0.0, "middle": -width / 2, "end": -width}[self.anchor]
        edges = [(left + x, y) for x in (0, width) for y in (-0.72 * self.size, 0.21 * self.size)]
        corners = np.array([self.matrix @ (x, y, 1) for x, y in edges])[:, :2]
        return *corners.min(axis=0), *corners.max(axis=0)


@dataclass
class Drawing:
    """Everything that an SVG shows."""

    width: float
    height: float
    root: ElementTree.Element
    shapes: list[Shape] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    marks: dict[str, list[list[Shape]]] = field(default_factory=dict)

    def tags(self):
        return {_local(element.tag) for element in self.root.iter()}

    def panels(self, titles):
        """Return the panels under these title texts, in the order of the texts."""
        named = [next(t for t in self.texts if t.content == title) for title in titles]
        below = [t for t in self.texts if t.content == "Key Frame"]
        steps = [abs(a.x - b.x) for a in named for b in named if abs(a.x - b.x) > 1]
        panels = []
        for title in named:
            axes = [t for t in below if abs(t.x - title.x) < 1.5 and t.y > title.y]
            axis = min(axes, key=lambda t: t.y)
            panels.append(Panel(self, title, axis, min(steps, default=math.inf)))
        return panels

    def marks_in(self, name, panel):
        """Return the shapes of the mark groups of this name that lie in a panel."""
        found = []
        for group in self.marks.get(name, []):
            inside = [s for s in group if panel.contains(s)]
            assert not inside or len(inside) == len(group), "a mark group spans panels"
            found += inside
        return found


@dataclass
class Panel:
    """One head: its title, and the tick labels of its axes."""

    drawing: Drawing
    title: Text
    axis: Text
    pitch: float

    def contains(self, shape):
        x0, y0, x1, y1 = shape.box
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        return abs(cx - self.title.x) < self.pitch / 2 and self.title.y < cy < self.axis.y

    def x_labels(self):
        """Return (number, x of the centre) of the tick labels under the panel."""
        return [
            (parse_number(t.content), t.x)
            for t in self.drawing.texts
            if t.anchor == "middle"
            and t.size < 8
            and self.axis.y - 16 < t.y < self.axis.y - 1
            and abs(t.x - self.title.x) < self.pitch / 2
        ]

    def y_labels(self):
        """Return (number, y of the baseline) of the tick labels left of the panel."""
        reach = min(self.pitch, 400)
        return [
            (parse_number(t.content), t.y)
            for t in self.drawing.texts
            if t.anchor == "end"
            and t.size < 8
            and self.title.y < t.y < self.axis.y - 8
            and self.title.x - reach < t.x < self.title.x
        ]


def read_svg(text):
    """Return what an SVG shows."""
    root = ElementTree.fromstring(text)
    _, _, width, height = map(float, root.get("viewBox").split())
    drawing = Drawing(width, height, root)
    _visit(root, np.eye(3), {}, "", None, drawing)
    return drawing


def parse_number(text):
    """Return the number that a tick label shows."""
    return float(text.replace("\u2212", "-").replace(",", ""))


@cache
def parse_color(text):
    """Return (red, green, blue) of ``#rgb``, ``#rrggbb`` or ``rgb(r, g, b)``."""
    text = {"white": "#fff", "black": "#000"}.get(text, text)
    if text.startswith("#"):
        digits = text[1:] if len(text) == 7 else "".join(c * 2 for c in text[1:])
        return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))
    found = re.fullmatch(r"rgb\((\d+), ?(\d+), ?(\d+)\)", text)
    assert found, text
    return tuple(map(int, found.groups()))


@cache
def _font(bold):
    from PIL import ImageFont

    name = f"LiberationSans-{'Bold' if bold else 'Regular'}.ttf"
    return ImageFont.truetype(str(FONTS / name), 100)


def _local(tag):
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _visit(element, matrix, style, classes, marks, drawing):
    tag = _local(element.tag)
    if tag in ("defs", "desc", "title", "style", "") or element.get("display") == "none":
        return
    matrix = matrix @ _transform(element.get("transform", ""))
    style = style | {name: element.get(name) for name in _INHERITED if element.get(name)}
    own = element.get("class", "")
    classes = f"{classes} {own}" if own else classes
    found = re.search(r"headgrid_(\w+)_marks", own)
    if found:
        marks = []
        drawing.marks.setdefault(found[1], []).append(marks)
    if tag == "text":
        _read_text(element, matrix, style, classes, drawing)
        return
    shapes = _shapes(tag, element, matrix, style, classes)
    drawing.shapes += shapes
    if marks is not None:
        marks += shapes
    for child in element:
        _visit(child, matrix, style, classes, marks, drawing)


def _transform(text):
    matrix = np.eye(3)
    for name, arguments in re.findall(r"(\w+)\(([^)]*)\)", text):
        numbers = [float(n) for n in _NUMBER.findall(arguments)]
        step = np.eye(3)
        if name == "translate":
            step[:2, 2] = [*numbers, 0][:2]
        elif name == "scale":
            step[0, 0], step[1, 1] = numbers[0], numbers[-1]
        elif name == "rotate":
            a = math.radians(numbers[0])
            step[:2, :2] = [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]
        else:
            raise AssertionError(f"unknown transform {name}")
        matrix = matrix @ step
    return matrix


def _read_text(element, matrix, style, classes, drawing):
    size = float(style.get("font-size", "16").removesuffix("px").removesuffix("pt"))
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    spans = [child for child in element if _local(child.tag) == "tspan"]
    lines = [(element.text or "", x, y)] if not spans else []
    for span in spans:
        x = float(span.get("x", x))
        y = float(span.get("y", y)) + float(span.get("dy", 0))
        lines.append((span.text or "", x, y))
    for content, left, top in lines:
        if not content:
            continue
        placed = matrix @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
        look = (style.get("text-anchor", "start"), style.get("font-weight", "normal"))
        family = style.get("font-family", "")
        text = Text(content, placed[0, 2], placed[1, 2], placed, size, *look, family, classes)
        drawing.texts.append(text)


def _shapes(tag, element, matrix, style, classes):
    if tag == "path":
        subpaths = parse_path(element.get("d", ""))
    elif tag == "line":
        ends = [float(element.get(name, 0)) for name in ("x1", "y1", "x2", "y2")]
        subpaths = [([tuple(ends[:2]), tuple(ends[2:])], False)]
    elif tag == "rect":
        x, y, w, h = (float(element.get(n, 0)) for n in ("x", "y", "width", "height"))
        subpaths = [([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], True)]
    else:
        return []
    scale = (np.hypot(*matrix[:2, 0]), np.hypot(*matrix[:2, 1]))
    shapes = []
    for points, closed in subpaths:
        local = np.column_stack([np.array(points, dtype=float), np.ones(len(points))])
        absolute = (matrix @ local.T).T[:, :2]
        shapes.append(Shape(absolute, closed, scale, style, classes))
    return shapes


#: How many numbers each path command takes.
_COUNTS = {"M": 2, "L": 2, "H": 1, "V": 1, "A": 7}


def parse_path(d):
    """Return the subpaths of a path: a list of (points, closed)."""
    subpaths, points, at, start = [], [], (0.0, 0.0), (0.0, 0.0)
    for command, numbers in _path_steps(d):
        if command.upper() in "MZ":
            if len(points) > 1:
                subpaths.append((points, command.upper() == "Z"))
            points = []
        if command.upper() == "Z":
            at = start
            continue
        before, at = at, _end_of(command, numbers, at)
        if command.upper() == "M":
            start = at
        points = [*points, at] if points or command.upper() == "M" else [before, at]
    if len(points) > 1:
        subpaths.append((points, False))
    return subpaths


def _path_steps(d):
    """Yield (command, numbers); pairs after an M are lines, as the standard says."""
    tokens = _TOKEN.findall(d)
    command, i = "", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            command = tokens[i]
            i += 1
            if command in "Zz":
                yield command, []
                continue
        count = _COUNTS[command.upper()]
        yield command, [float(t) for t in tokens[i : i + count]]
        i += count
        command = {"m": "l", "M": "L"}.get(command, command)


def _end_of(command, numbers, at):
    """Return where a step ends."""
    x, y = at if command.islower() else (0.0, 0.0)
    if command in "Hh":
        return x + numbers[0], at[1]
    if command in "Vv":
        return at[0], y + numbers[0]
    return x + numbers[-2], y + numbers[-1]
